"""The real and the complex recurrence around a constrained matrix; the cells beside this file choose the matrix."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from lit_rnn.activations import ComplexModReLU, ModReLU
from lit_rnn.cells.base import Cell, State


class OrthogonalCell(Cell):
    """h_t = modReLU(W h_{t-1} + V x_t; b), W what ``recurrent`` gives.

    V has no bias; modReLU's b is the only one. A step costs one (B, n) x (n, n) product.

    Args:
        input_size: Width I of x_t.
        hidden_size: n.
        recurrent: The parametrization of W.
        learn_initial_state: Train h_0 instead of keeping it zero.
    """

    def __init__(
        self, input_size: int, hidden_size: int, recurrent: nn.Module, learn_initial_state: bool = False
    ) -> None:
        super().__init__(input_size, hidden_size, learn_initial_state=learn_initial_state)
        self.recurrent = recurrent
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


class UnitaryCell(Cell):
    """h_t = modReLU(W h_{t-1} + V x_t; b) with complex h, W and V; y_t = [Re h_t | Im h_t].

    V is a real (2n, I) matrix that gives [Re | Im]; the state is complex (B, n). A step costs one complex
    (B, n) x (n, n) product, four real ones.

    Args:
        input_size: Width I of x_t.
        hidden_size: n, complex units.
        recurrent: The parametrization of W.
        input_init: Fills V.
        learn_initial_state: Train h_0, 2n reals, instead of keeping it zero.
        initial_bound: The learned h_0 starts at U(-initial_bound, initial_bound).
        real_output: y_t = Re h_t instead.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        recurrent: nn.Module,
        input_init: Callable[[Tensor], Tensor] = nn.init.xavier_uniform_,
        learn_initial_state: bool = True,
        initial_bound: float = 0.01,
        real_output: bool = False,
    ) -> None:
        super().__init__(input_size, hidden_size, (2 * hidden_size,), learn_initial_state)
        self.output_size = hidden_size if real_output else 2 * hidden_size
        self.real_output = real_output
        for start in self.initial:
            nn.init.uniform_(start, -initial_bound, initial_bound)
        self.recurrent = recurrent
        self.input = nn.Linear(input_size, 2 * hidden_size, bias=False)
        input_init(self.input.weight)
        self.activation = ComplexModReLU(hidden_size)

    def initial_state(self, batch_size: int) -> State:
        (start,) = super().initial_state(batch_size)
        return (self._complex(start),)

    def weights(self) -> Tensor:
        return self.recurrent()

    def drive(self, x: Tensor, w: Any) -> Tensor:
        return self._complex(self.input(x))

    def step(self, u: Tensor, state: State, w: Tensor) -> tuple[Tensor, State]:
        h = self.activation(torch.addmm(u, state[0], w.mT))
        return h.real if self.real_output else torch.cat((h.real, h.imag), dim=-1), (h,)

    def recurrent_matrices(self) -> dict[str, Tensor]:
        return {"recurrent": self.recurrent()}

    def _complex(self, halves: Tensor) -> Tensor:
        real, imaginary = (halves if halves.dtype.itemsize >= 4 else halves.float()).chunk(2, dim=-1)
        return torch.complex(real, imaginary)
