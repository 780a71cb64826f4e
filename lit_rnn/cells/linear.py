"""Recurrences that are linear in their state, which is what lets them be scanned in parallel."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from datamodules.errors import whole_or_null
from lit_rnn.cells.base import Cell, State


def applied(A: Tensor, h: Tensor) -> Tensor:
    """A h, unit by unit: A (.., k, k, n), h (.., k, n)."""
    (column, part), *others = zip(A.unbind(-2), h.split(1, dim=-2), strict=True)
    y = column * part
    for column, part in others:
        y = torch.addcmul(y, column, part)
    return y


class LinearCell(Cell):
    """h_t = A_t h_{t-1} + b_t, where A_t and b_t may depend on x_t but not on h; y_t is read off h_t and x_t.

    A_t is diagonal (k = 1) or made of n blocks of k times k. The state is k tensors (B, n). A subclass says what A and
    b are (`terms`), and what is read (`read`), each for any number of steps at once; `lit_rnn.scan`'s backend
    ``parallel`` needs no more. There is no matrix W whose entries could be dropped: what ``weights()`` gives is None,
    or begins with it.
    """

    @abstractmethod
    def terms(self, u: Tensor, w: Any) -> tuple[Tensor, Tensor]:
        """A (.., k, k, n), or (k, k, n) where it is the same at all steps, and b (.., k, n), from drives u (.., G)."""

    def read(self, h: Tensor, u: Tensor, w: Any) -> Tensor:
        """Outputs (.., output_size) from states (.., k, n) and drives (.., G)."""
        return h.squeeze(-2)

    def step(self, u: Tensor, state: State, w: Any) -> tuple[Tensor, State]:
        A, b = self.terms(u, w)
        h = applied(A, torch.stack(state, dim=-2)) + b
        return self.read(h, u, w), h.unbind(-2)


class Constant(NamedTuple):
    """Weights of a recurrence whose A does not depend on the input."""

    matrix: None  # there is none whose entries could be dropped
    A: Tensor  # (2, 2, n)
    into: Tensor  # (2, n): what of B x enters which part of the state


class StateSpaceCell(LinearCell):
    """The maps around a linear recurrence whose A does not depend on the input: y_t = G(Re(C h_t) + D x_t).

    B and C are complex, kept as real maps to and from [Re | Im]; D is full, so that inputs may have any width, where
    the released codes have a vector. G is gelu (by tanh) and a gated linear unit, (W_1 g + b_1) sigma(W_2 g + b_2), the
    rest of a published layer; without it y is linear in x.

    Args:
        input_size: Width I of x_t.
        hidden_size: n, width of y_t.
        state_size: N, complex units of the state; None takes n.
        widths: Widths of the state's two tensors.
        glu: Whether G is there.
        learn_initial_state: Train the initial state instead of keeping it zero.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        state_size: int | None,
        widths: int,
        glu: bool,
        learn_initial_state: bool,
    ) -> None:
        whole_or_null(state_size, "model.init_args.state_size", 1)
        units = hidden_size if state_size is None else state_size
        super().__init__(input_size, hidden_size, (widths * units,) * 2, learn_initial_state)
        self.units = units
        self.B = nn.Linear(input_size, 2 * units, bias=False)
        self.C = nn.Linear(2 * units, hidden_size, bias=False)
        self.D = nn.Linear(input_size, hidden_size, bias=False)
        self.glu = nn.Linear(hidden_size, 2 * hidden_size) if glu else None

    def drive(self, x: Tensor, w: Any) -> Tensor:
        """[B x | D x]."""
        return torch.cat((self.B(x), self.D(x)), dim=-1)

    def seen(self, h: Tensor) -> Tensor:
        """What C reads of states (.., 2, .): [Re | Im], (.., 2N)."""
        return h.flatten(-2)

    def read(self, h: Tensor, u: Tensor, w: Any) -> Tensor:
        return self.output(self.seen(h), u[..., 2 * self.units :])

    def output(self, seen: Tensor, direct: Tensor) -> Tensor:
        """y from what C reads and D x."""
        y = self.C(seen) + direct
        return y if self.glu is None else nn.functional.glu(self.glu(nn.functional.gelu(y, approximate="tanh")))

    def input_matrices(self) -> list[Tensor]:
        return list(self.B.weight.chunk(2))

    @abstractmethod
    def into_state(self) -> Tensor:
        """What x_t adds to the state that the recurrent matrix multiplies: (2N, I)."""

    def extra_repr(self) -> str:
        return f"{self.units} complex units"


def dense(A: Tensor) -> Tensor:
    """Blocks (2, 2, n) as the matrix (2n, 2n) that they are."""
    top, bottom = (torch.cat([torch.diag(entry) for entry in row], dim=1) for row in A)
    return torch.cat((top, bottom))
