"""Networks of oscillators: Euler steps of second-order differential equations."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from datamodules.errors import require
from lit_rnn.cells.base import Cell, State


class CoRNNCell(Cell):
    """z_t = z_{t-1} + dt (tanh(W y_{t-1} + W' z_{t-1} + V x_t + b) - gamma y_{t-1} - epsilon z_{t-1});
    y_t = y_{t-1} + dt z_t.

    Coupled, driven and damped oscillators y'' = tanh(W y + W' y' + V x + b) - gamma y - epsilon y'. State (y, z),
    output y, 2n^2 + n(I + 1) numbers. A step costs one (B, 2n) x (2n, n) product. All numbers start at
    U(-1/sqrt(I + 2n), 1/sqrt(I + 2n)), torch's law for one map of [x; z; y].

    Source: Rusch and Mishra 2021, "Coupled Oscillatory Recurrent Neural Network (coRNN)", equation 3 with the damping
    of the step before, as in the released `network.py`.

    Args:
        input_size: Width I of x_t.
        hidden_size: n.
        step_size: dt.
        gamma: Squared frequency, 0 or positive.
        epsilon: Damping, 0 or positive.
        learn_initial_state: Train (y_0, z_0) instead of keeping them zero.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        step_size: float = 0.042,
        gamma: float = 2.7,
        epsilon: float = 4.7,
        learn_initial_state: bool = False,
    ) -> None:
        super().__init__(input_size, hidden_size, (hidden_size, hidden_size), learn_initial_state)
        require(step_size > 0, "model.init_args.step_size", step_size, "positive")
        require(gamma >= 0, "model.init_args.gamma", gamma, "0 or positive")
        require(epsilon >= 0, "model.init_args.epsilon", epsilon, "0 or positive")
        self.step_size, self.gamma, self.epsilon = step_size, gamma, epsilon
        self.input = nn.Linear(input_size, hidden_size)
        self.recurrent = nn.Linear(hidden_size, 2 * hidden_size, bias=False)  # W, then W'
        bound = (input_size + 2 * hidden_size) ** -0.5
        for parameter in (self.input.weight, self.input.bias, self.recurrent.weight):
            nn.init.uniform_(parameter, -bound, bound)

    def weights(self) -> Tensor:
        """[W | W'], (n, 2n)."""
        return torch.cat(self.recurrent.weight.chunk(2), dim=1)

    def step(self, u: Tensor, state: State, w: Tensor) -> tuple[Tensor, State]:
        y, z = state
        force = torch.tanh(torch.addmm(u, torch.cat(state, dim=-1), w.mT))
        z = z + self.step_size * (force - self.gamma * y - self.epsilon * z)
        y = y + self.step_size * z
        return y, (y, z)

    def recurrent_matrices(self) -> dict[str, Tensor]:
        """Those inside tanh, not the map of one step."""
        return dict(zip(("position", "velocity"), self.recurrent.weight.chunk(2), strict=True))

    def extra_repr(self) -> str:
        return f"dt = {self.step_size:g}, gamma = {self.gamma:g}, epsilon = {self.epsilon:g}"


class UnICORNNCell(Cell):
    """z_t = z_{t-1} - s (tanh(w y_{t-1} + V x_t + b) + alpha y_{t-1});  y_t = y_{t-1} + s z_t;  s = dt sigma(c).

    Undamped oscillators, each on its own: w and c are vectors, products with them go unit by unit, and units meet only
    in the next layer's V. The step is symplectic, so its Jacobian by (y, z) has determinant 1. State (y, z), output y,
    n(I + 3) numbers; a step costs O(n). w starts at U(0, 1), c at U(-0.1, 0.1), V Kaiming uniform with slope 8,
    U(-v, v) with v = sqrt(6 / (65 I)), b at zero.

    Source: Rusch and Mishra 2021, "UnICORNN: A recurrent model for learning very long time dependencies"; released
    `network.py`.

    Args:
        input_size: Width I of x_t.
        hidden_size: n.
        step_size: dt.
        alpha: Squared frequency, 0 or positive.
        learn_initial_state: Train (y_0, z_0) instead of keeping them zero.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        step_size: float = 0.19,
        alpha: float = 30.65,
        learn_initial_state: bool = False,
    ) -> None:
        super().__init__(input_size, hidden_size, (hidden_size, hidden_size), learn_initial_state)
        require(step_size > 0, "model.init_args.step_size", step_size, "positive")
        require(alpha >= 0, "model.init_args.alpha", alpha, "0 or positive")
        self.step_size, self.alpha = step_size, alpha
        self.input = nn.Linear(input_size, hidden_size)
        self.w = nn.Parameter(torch.rand(hidden_size))
        self.c = nn.Parameter(torch.empty(hidden_size).uniform_(-0.1, 0.1))
        nn.init.kaiming_uniform_(self.input.weight, a=8)
        nn.init.zeros_(self.input.bias)

    def weights(self) -> tuple[Tensor, Tensor]:
        """w and s."""
        return self.w, self.step_size * torch.sigmoid(self.c)

    def step(self, u: Tensor, state: State, w: tuple[Tensor, Tensor]) -> tuple[Tensor, State]:
        (y, z), (diagonal, s) = state, w
        z = z - s * (torch.tanh(torch.addcmul(u, diagonal, y)) + self.alpha * y)
        y = y + s * z
        return y, (y, z)

    def recurrent_matrices(self) -> dict[str, Tensor]:
        """The diagonal matrix inside tanh."""
        return {"recurrent": torch.diag(self.w)}

    def recurrent_parameters(self) -> list[nn.Parameter]:
        return [self.w]

    def extra_repr(self) -> str:
        return f"dt = {self.step_size:g}, alpha = {self.alpha:g}"
