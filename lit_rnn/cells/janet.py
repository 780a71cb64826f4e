"""JANET: just another network."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lit_rnn.cells.base import Cell, State
from lit_rnn.cells.gated import GateInit, gates_start_
from lit_rnn.init import chrono_


class JANETCell(Cell):
    """s, j = U x_t + W h_{t-1} + b;  h_t = sigma(s) h_{t-1} + (1 - sigma(s - beta)) tanh(j).

    An LSTM with its forget gate only. 2n(n + I + 1) numbers, rows in the order s, j; a step costs one
    (B, n) x (n, 2n) product.

    Source: van der Westhuizen and Lasenby 2018, "The unreasonable effectiveness of the forget gate".

    Args:
        input_size: Width I of x_t.
        hidden_size: n.
        beta: 1 in the paper, 0 in the NRU paper's code.
        t_max: Chrono start of s's bias, see `lit_rnn.init.chrono_`; None starts it at ``forget_bias``.
        chrono_integers: The NRU paper's law of the chrono start.
        forget_bias: Start of s's bias without ``t_max``.
        init: Start of the matrices, see `LSTMCell`.
        learn_initial_state: Train h_0 instead of keeping it zero.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        beta: float = 1.0,
        t_max: int | None = None,
        chrono_integers: bool = False,
        forget_bias: float = 1.0,
        init: GateInit = "glorot",
        learn_initial_state: bool = False,
    ) -> None:
        super().__init__(input_size, hidden_size, learn_initial_state=learn_initial_state)
        self.beta = beta
        self.input = nn.Linear(input_size, 2 * hidden_size)
        self.recurrent = nn.Linear(hidden_size, 2 * hidden_size, bias=False)
        gates_start_(self.input, self.recurrent, init, candidate=1)
        bias = self.input.bias[:hidden_size]
        nn.init.constant_(bias, forget_bias) if t_max is None else chrono_(bias, t_max, chrono_integers)

    def weights(self) -> Tensor:
        return self.recurrent.weight

    def step(self, u: Tensor, state: State, w: Tensor) -> tuple[Tensor, State]:
        (h,) = state
        s, j = torch.addmm(u, h, w.mT).chunk(2, dim=-1)
        # 1 - sigma(z) = sigma(-z), without cancellation
        h = torch.sigmoid(s) * h + torch.sigmoid(self.beta - s) * torch.tanh(j)
        return h, (h,)

    def input_matrices(self) -> list[Tensor]:
        return list(self.input.weight.split(self.hidden_size))

    def recurrent_matrices(self) -> dict[str, Tensor]:
        return dict(zip(("forget", "candidate"), self.recurrent.weight.chunk(2), strict=True))
