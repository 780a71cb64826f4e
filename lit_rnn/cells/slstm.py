"""sLSTM: the scalar cell of xLSTM."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lit_rnn.cells.base import Cell, State


class SLSTMCell(Cell):
    """i, f, z, o = V x_t + W h_{t-1} + b;  m_t = max(log sigma(f) + m_{t-1}, i);
    i' = exp(i - m_t);  f' = exp(log sigma(f) + m_{t-1} - m_t);
    c_t = f' c_{t-1} + i' tanh(z);  n_t = f' n_{t-1} + i';  h_t = sigma(o) c_t / n_t.

    An LSTM whose input gate is an exponential, with a normaliser n and a stabiliser m that keeps exponents at or below
    zero: c e^m and n e^m are what the gates say, and h does not depend on m. So the joint state (h, c, n, m), in which
    Jacobians and Lyapunov exponents are taken, has one direction per unit that no output sees.

    Where n = 0, nothing is remembered yet, and m_t = i: so that the first step divides by i' = 1, whatever i is. A
    start of its own would undo that, so there is none to learn.

    4n(n + I + 1) numbers, rows in the order i, f, z, o; a step costs one (B, n) x (n, 4n) product. One head: W is full.
    W starts at zero, V at N(0, 2 / (5 I)), and b at zero but for f: from 5 for the first unit down to -7 for the last,
    5 - 12 (k / (n - 1))^0.3.

    Source: Beck et al. 2024, "xLSTM: Extended Long Short-Term Memory", section 2.2 and appendix A.1; start of the
    released `slstm/cell.py` for a single block, whose forget gate is a sigmoid, as here.

    Args:
        input_size: Width I of x_t.
        hidden_size: n.
    """

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__(input_size, hidden_size, (hidden_size,) * 4)
        self.input = nn.Linear(input_size, 4 * hidden_size)
        self.recurrent = nn.Linear(hidden_size, 4 * hidden_size, bias=False)
        nn.init.zeros_(self.recurrent.weight)
        nn.init.normal_(self.input.weight, std=(2 / (5 * input_size)) ** 0.5)
        nn.init.zeros_(self.input.bias)
        with torch.no_grad():
            self.input.bias[hidden_size : 2 * hidden_size] = 5 - 12 * torch.linspace(0, 1, hidden_size) ** 0.3

    def weights(self) -> Tensor:
        return self.recurrent.weight

    def step(self, u: Tensor, state: State, w: Tensor) -> tuple[Tensor, State]:
        h, c, n, m = state
        i, f, z, o = torch.addmm(u, h, w.mT).chunk(4, dim=-1)
        kept = nn.functional.logsigmoid(f) + m
        m = torch.where(n == 0, i, torch.maximum(kept, i))
        # at most 0, unless n = 0, where f' is multiplied by nothing; clamp would lose the gradient at 0
        forget, write = torch.exp(torch.where(kept > m, 0.0, kept - m)), torch.exp(i - m)
        c, n = forget * c + write * torch.tanh(z), forget * n + write
        h = torch.sigmoid(o) * c / n
        return h, (h, c, n, m)

    def input_matrices(self) -> list[Tensor]:
        return list(self.input.weight.split(self.hidden_size))

    def recurrent_matrices(self) -> dict[str, Tensor]:
        return dict(zip(("input", "forget", "cell", "output"), self.recurrent.weight.chunk(4), strict=True))
