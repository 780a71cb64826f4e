"""expRNN and its dynamic trivialization."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from lit_rnn.activations import ModReLU
from lit_rnn.cells.base import Cell, State
from lit_rnn.init import SkewInit, henaff_
from lit_rnn.parametrizations import Exponential


class ExpRNNCell(Cell):
    """h_t = modReLU(W h_{t-1} + V x_t; b),  W = exp(A),  A = -A^T.

    W reaches all of SO(n) (det 1) with n(n-1)/2 free numbers. A step costs one (B, n) x (n, n) product; the
    exponential, O(n^3), is paid once per pass. V has no bias; modReLU's b is the only one.

    Source: Lezcano-Casado and Martinez-Rubio 2019, "Cheap Orthogonal Constraints in Neural Networks".

    Args:
        input_size: Width I of x_t.
        hidden_size: n; odd n works and starts with one eigenvalue 1.
        init: Fills A; see `lit_rnn.init`.
        learn_initial_state: Train h_0 instead of keeping it zero.
    """

    trivialized = False

    def __init__(
        self, input_size: int, hidden_size: int, init: SkewInit = henaff_, learn_initial_state: bool = False
    ) -> None:
        super().__init__(input_size, hidden_size, learn_initial_state=learn_initial_state)
        self.recurrent = Exponential(hidden_size, init, self.trivialized)
        self.input = nn.Linear(input_size, hidden_size, bias=False)
        nn.init.kaiming_normal_(self.input.weight, nonlinearity="relu")
        self.activation = ModReLU(hidden_size)

    def weights(self) -> Tensor:
        return self.recurrent()

    def drive(self, x: Tensor, w: Any) -> Tensor:
        return self.input(x)

    def step(self, u: Tensor, state: State, w: Tensor) -> tuple[Tensor, State]:
        h = self.activation(torch.addmm(u, state[0], w.mT))
        return h, (h,)

    def recurrent_matrices(self) -> dict[str, Tensor]:
        return {"recurrent": self.recurrent()}


class DtrivRNNCell(ExpRNNCell):
    """h_t = modReLU(W h_{t-1} + V x_t; b),  W = B exp(A): expRNN seen from a base point B that can be moved onto W.

    Moving it (``recurrent.rebase_()``) changes the gradient's coordinates, not the network; `lit_rnn.models.DtrivRNN`
    does so every K optimizer steps. Manifold, cost and initialisation as `ExpRNNCell`.

    Source: Lezcano-Casado 2019, "Trivializations for Gradient-Based Optimization on Manifolds".
    """

    trivialized = True
