"""The recurrence with one matrix and one nonlinearity, which most cells are."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from lit_rnn.cells.base import Cell, State


class PlainCell(Cell):
    """h_t = f(W h_{t-1} + V x_t + b), W the weight or the value of the module ``recurrent``.

    A step costs one (B, n) x (n, n) product. A subclass may change what the outputs show of the state (`read`); one
    that changes `step` is no longer plain, and `lit_rnn.scan` no longer runs it as such.

    Args:
        input_size: Width I of x_t.
        hidden_size: n.
        recurrent: A `nn.Linear` whose weight is W, or a parametrization that gives W when called.
        input: The map V x_t + b.
        activation: f.
        state_sizes: Widths of the state's tensors; (n,) by default.
        learn_initial_state: Train h_0 instead of keeping it zero.
    """

    activation: Callable[[Tensor], Tensor]

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        recurrent: nn.Module,
        input: nn.Linear,
        activation: Callable[[Tensor], Tensor],
        state_sizes: Sequence[int] | None = None,
        learn_initial_state: bool = False,
    ) -> None:
        super().__init__(input_size, hidden_size, state_sizes, learn_initial_state)
        self.recurrent = recurrent
        self.input = input
        self.activation = activation

    def weights(self) -> Tensor:
        return self.recurrent.weight if isinstance(self.recurrent, nn.Linear) else self.recurrent()

    def read(self, h: Tensor) -> Tensor:
        """The outputs that states (..., n) show, for one step or for all at once."""
        return h

    def step(self, u: Tensor, state: State, w: Tensor) -> tuple[Tensor, State]:
        h = self.activation(torch.addmm(u, state[0], w.mT))
        return self.read(h), (h,)

    def recurrent_matrices(self) -> dict[str, Tensor]:
        return {"recurrent": self.weights()}
