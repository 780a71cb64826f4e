"""The plain recurrent network."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, get_args

import torch
from torch import Tensor, nn

from datamodules.errors import require
from lit_rnn.activations import NONLINEARITIES, Nonlinearity
from lit_rnn.cells.base import Cell, State
from lit_rnn.init import orthogonal_


class VanillaRNNCell(Cell):
    """h_t = f(W h_{t-1} + V x_t + b), W unconstrained (Elman 1990).

    A step costs one (B, n) x (n, n) product.

    Args:
        input_size: Width I of x_t.
        hidden_size: n.
        nonlinearity: f: tanh, relu, elu or identity.
        init: Fills W; see `lit_rnn.init`. V is N(0, 0.81 / n), std 0.9 / sqrt(n), and b zero (Orhan and Pitkow 2020).
        learn_initial_state: Train h_0 instead of keeping it zero.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        nonlinearity: Nonlinearity = "tanh",
        init: Callable[[Tensor], Tensor] = orthogonal_,
        learn_initial_state: bool = False,
    ) -> None:
        super().__init__(input_size, hidden_size, learn_initial_state=learn_initial_state)
        require(
            nonlinearity in NONLINEARITIES,
            "model.init_args.nonlinearity",
            nonlinearity,
            f"one of {', '.join(get_args(Nonlinearity))}",
        )
        self.recurrent = nn.Linear(hidden_size, hidden_size, bias=False)
        init(self.recurrent.weight)
        self.input = nn.Linear(input_size, hidden_size)
        nn.init.normal_(self.input.weight, std=0.9 / hidden_size**0.5)
        nn.init.zeros_(self.input.bias)
        self.nonlinearity = nonlinearity
        self.activation = NONLINEARITIES[nonlinearity]

    def weights(self) -> Tensor:
        return self.recurrent.weight

    def drive(self, x: Tensor, w: Any) -> Tensor:
        return self.input(x)

    def step(self, u: Tensor, state: State, w: Tensor) -> tuple[Tensor, State]:
        h = self.activation(torch.addmm(u, state[0], w.mT))
        return h, (h,)

    def recurrent_matrices(self) -> dict[str, Tensor]:
        return {"recurrent": self.recurrent.weight}

    def extra_repr(self) -> str:
        return f"f = {self.nonlinearity}, W unconstrained"
