"""LEM: long expressive memory."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from datamodules.errors import require
from lit_rnn.cells.base import Cell, State


class LEMCell(Cell):
    """s = dt sigma(W_1 y_{t-1} + V_1 x_t + b_1);  r = dt sigma(W_2 y_{t-1} + V_2 x_t + b_2);
    z_t = (1 - s) z_{t-1} + s tanh(W_z y_{t-1} + V_z x_t + b_z);
    y_t = (1 - r) y_{t-1} + r tanh(W_y z_t + V_y x_t + b_y).

    Two coupled equations whose time steps s and r are learned: many time scales at once. State (y, z), output y,
    4n(n + I + 1) numbers. A step costs products of (B, n) with (n, 3n) and (n, n). All matrices start at
    U(-1/sqrt(n), 1/sqrt(n)). Each b stands for two biases of the released code: it starts as their sum, and Adam moves
    it by one step where it moves them by two.

    Source: Rusch et al. 2022, "Long Expressive Memory for Sequence Modeling", equations 2 and 3; released `network.py`.

    Args:
        input_size: Width I of x_t.
        hidden_size: n.
        step_size: dt, the largest step: above 0.
        learn_initial_state: Train (y_0, z_0) instead of keeping them zero.
    """

    def __init__(
        self, input_size: int, hidden_size: int, step_size: float = 1.0, learn_initial_state: bool = False
    ) -> None:
        super().__init__(input_size, hidden_size, (hidden_size, hidden_size), learn_initial_state)
        require(step_size > 0, "model.init_args.step_size", step_size, "positive")
        self.step_size = step_size
        self.input = nn.Linear(input_size, 4 * hidden_size)  # rows 1, 2, z, y, here and below
        self.recurrent = nn.Linear(hidden_size, 4 * hidden_size, bias=False)
        bound = hidden_size**-0.5
        for parameter in (self.input.weight, self.input.bias, self.recurrent.weight):
            nn.init.uniform_(parameter, -bound, bound)
        with torch.no_grad():
            self.input.bias += torch.empty_like(self.input.bias).uniform_(-bound, bound)

    def weights(self) -> Tensor:
        return self.recurrent.weight

    def step(self, u: Tensor, state: State, w: Tensor) -> tuple[Tensor, State]:
        y, z = state
        sizes = (3 * self.hidden_size, self.hidden_size)
        (u_123, u_y), (W_123, W_y) = u.split(sizes, dim=-1), w.split(sizes)
        s, r, inner = torch.addmm(u_123, y, W_123.mT).chunk(3, dim=-1)
        s, r = self.step_size * torch.sigmoid(s), self.step_size * torch.sigmoid(r)
        z = z + s * (torch.tanh(inner) - z)
        y = y + r * (torch.tanh(torch.addmm(u_y, z, W_y.mT)) - y)
        return y, (y, z)

    def input_matrices(self) -> list[Tensor]:
        return list(self.input.weight.split(self.hidden_size))

    def recurrent_matrices(self) -> dict[str, Tensor]:
        """By their names in the paper; W_y is the one that reads z."""
        return dict(zip(("W1", "W2", "Wz", "Wy"), self.recurrent.weight.chunk(4), strict=True))

    def extra_repr(self) -> str:
        return f"dt = {self.step_size:g}"
