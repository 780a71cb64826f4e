"""LSTM and GRU, as torch defines them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from lit_rnn.cells.base import Cell, State


def _uniform_(hidden_size: int, *parameters: Tensor) -> None:
    """U(-1/sqrt(n), 1/sqrt(n)) everywhere, torch's own start."""
    for parameter in parameters:
        nn.init.uniform_(parameter, -(hidden_size**-0.5), hidden_size**-0.5)


class LSTMCell(Cell):
    """i, f, o = sigma(.), g = tanh(.) of U x_t + W h_{t-1} + b;  c_t = f c_{t-1} + i g;  h_t = o tanh(c_t).

    No peepholes, gates in torch's order i, f, g, o and one bias vector where torch keeps two that only ever act as
    their sum: 4n(n + I + 1) parameters. State (h, c). A step costs one (B, n) x (n, 4n) product.

    Source: Hochreiter and Schmidhuber 1997; Gers et al. 2000 (forget gate).

    Args:
        input_size: Width I of x_t.
        hidden_size: n.
        forget_bias: Start of the forget gate's bias; 1 as in the baselines of the uRNN and NRU papers.
        learn_initial_state: Train (h_0, c_0) instead of keeping them zero.
    """

    def __init__(
        self, input_size: int, hidden_size: int, forget_bias: float = 1.0, learn_initial_state: bool = False
    ) -> None:
        super().__init__(input_size, hidden_size, (hidden_size, hidden_size), learn_initial_state)
        self.input = nn.Linear(input_size, 4 * hidden_size)
        self.recurrent = nn.Linear(hidden_size, 4 * hidden_size, bias=False)
        _uniform_(hidden_size, self.input.weight, self.input.bias, self.recurrent.weight)
        nn.init.constant_(self.input.bias[hidden_size : 2 * hidden_size], forget_bias)

    def weights(self) -> Tensor:
        return self.recurrent.weight

    def drive(self, x: Tensor, w: Any) -> Tensor:
        return self.input(x)

    def step(self, u: Tensor, state: State, w: Tensor) -> tuple[Tensor, State]:
        h, c = state
        i, f, g, o = torch.addmm(u, h, w.mT).chunk(4, dim=-1)
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        h = torch.sigmoid(o) * torch.tanh(c)
        return h, (h, c)

    def recurrent_matrices(self) -> dict[str, Tensor]:
        return dict(zip(("input", "forget", "cell", "output"), self.recurrent.weight.chunk(4), strict=True))


class GRUCell(Cell):
    """r, z = sigma(U x_t + W h_{t-1} + b);
    c = tanh(U_c x_t + b_c + r (W_c h_{t-1} + b_h));  h_t = (1 - z) c + z h_{t-1}.

    torch's form: the reset gate acts after the candidate's product. Gates in torch's order r, z, c; of its second
    bias only b_h, the one that is not redundant, is kept: 3n(n + I + 1) + n parameters. A step costs one
    (B, n) x (n, 3n) product.

    Source: Cho et al. 2014.

    Args:
        input_size: Width I of x_t.
        hidden_size: n.
        learn_initial_state: Train h_0 instead of keeping it zero.
    """

    def __init__(self, input_size: int, hidden_size: int, learn_initial_state: bool = False) -> None:
        super().__init__(input_size, hidden_size, learn_initial_state=learn_initial_state)
        self.input = nn.Linear(input_size, 3 * hidden_size)
        self.recurrent = nn.Linear(hidden_size, 3 * hidden_size, bias=False)
        self.candidate_bias = nn.Parameter(torch.empty(hidden_size))
        _uniform_(hidden_size, self.input.weight, self.input.bias, self.recurrent.weight, self.candidate_bias)

    def weights(self) -> tuple[Tensor, Tensor]:
        gate_biases = self.candidate_bias.new_zeros(2 * self.hidden_size)
        return self.recurrent.weight, torch.cat((gate_biases, self.candidate_bias))

    def drive(self, x: Tensor, w: Any) -> Tensor:
        return self.input(x)

    def step(self, u: Tensor, state: State, w: tuple[Tensor, Tensor]) -> tuple[Tensor, State]:
        (h,) = state
        W, b = w
        u_gates, u_candidate = u.split((2 * self.hidden_size, self.hidden_size), dim=-1)
        W_gates, W_candidate = torch.addmm(b, h, W.mT).split((2 * self.hidden_size, self.hidden_size), dim=-1)
        r, z = torch.sigmoid(u_gates + W_gates).chunk(2, dim=-1)
        c = torch.tanh(u_candidate + r * W_candidate)
        h = c + z * (h - c)
        return h, (h,)

    def recurrent_matrices(self) -> dict[str, Tensor]:
        return dict(zip(("reset", "update", "candidate"), self.recurrent.weight.chunk(3), strict=True))
