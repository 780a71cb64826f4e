"""The real and the complex recurrence around a constrained matrix; the cells beside this file choose the matrix."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from lit_rnn import activations
from lit_rnn.activations import ComplexModReLU, NonlinearityOrModReLU, identity
from lit_rnn.cells.base import State
from lit_rnn.cells.plain import PlainCell
from lit_rnn.init import kaiming_


class OrthogonalCell(PlainCell):
    """h_t = modReLU(W h_{t-1} + V x_t; b), or f(W h_{t-1} + V x_t + b), W what ``recurrent`` gives.

    modReLU's b is the only bias; another f has it inside, started at zero. A linear cell has neither f nor b:
    h_T = W^T h_0 + sum_t W^(T-t) V x_t. A step costs one (B, n) x (n, n) product.

    Args:
        input_size: Width I of x_t.
        hidden_size: n.
        recurrent: The parametrization of W.
        learn_initial_state: Train h_0 instead of keeping it zero.
        nonlinearity: f, ``modrelu`` or another of `lit_rnn.activations`.
        linear: h_t = W h_{t-1} + V x_t; ``nonlinearity`` is then not read.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        recurrent: nn.Module,
        learn_initial_state: bool = False,
        nonlinearity: NonlinearityOrModReLU = "modrelu",
        linear: bool = False,
    ) -> None:
        V = nn.Linear(input_size, hidden_size, bias=nonlinearity != "modrelu" and not linear)
        kaiming_(V.weight)
        if V.bias is not None:
            nn.init.zeros_(V.bias)
        named: NonlinearityOrModReLU = "identity" if linear else nonlinearity
        f = activations.nonlinearity(named, hidden_size)
        super().__init__(input_size, hidden_size, recurrent, V, f, learn_initial_state=learn_initial_state)
        self.nonlinearity = named

    def extra_repr(self) -> str:
        return f"f = {self.nonlinearity}"


class UnitaryCell(PlainCell):
    """h_t = modReLU(W h_{t-1} + V x_t; b) with complex h, W and V; y_t = [Re h_t | Im h_t]. A linear cell has no f.

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
        linear: h_t = W h_{t-1} + V x_t.
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
        linear: bool = False,
    ) -> None:
        V = nn.Linear(input_size, 2 * hidden_size, bias=False)
        f = identity if linear else ComplexModReLU(hidden_size)
        super().__init__(input_size, hidden_size, recurrent, V, f, (2 * hidden_size,), learn_initial_state)
        self.output_size = hidden_size if real_output else 2 * hidden_size
        self.real_output = real_output
        for start in self.initial:
            nn.init.uniform_(start, -initial_bound, initial_bound)
        input_init(V.weight)

    def extra_repr(self) -> str:
        return "f = identity" if self.activation is identity else ""

    def initial_state(self, batch_size: int) -> State:
        (start,) = super().initial_state(batch_size)
        return (self._complex(start),)

    def drive(self, x: Tensor, w: Any) -> Tensor:
        return self._complex(super().drive(x, w))

    def read(self, h: Tensor) -> Tensor:
        return h.real if self.real_output else torch.cat((h.real, h.imag), dim=-1)

    def _complex(self, halves: Tensor) -> Tensor:
        real, imaginary = (halves if halves.dtype.itemsize >= 4 else halves.float()).chunk(2, dim=-1)
        return torch.complex(real, imaginary)
