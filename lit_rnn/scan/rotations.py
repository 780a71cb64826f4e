"""W as layers of 2x2 rotations that are applied one after another, in C++ (`rotations.cpp`), where they are few."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from datamodules.errors import require
from lit_rnn.cells.base import Cell
from lit_rnn.cells.plain import PlainCell
from lit_rnn.dtypes import described
from lit_rnn.parametrizations import Rotations
from lit_rnn.scan.checks import is_just
from lit_rnn.scan.drive import drives_by_inputs
from lit_rnn.scan.native import Memory, readable, runs_natively
from lit_rnn.scan.plain import Steps
from lit_rnn.scan.recurrence import Engine, Kept, Loss

# Units for each layer from which layers are faster than a product with W (`benchmarks/README.md`).
UNITS_PER_LAYER = 20


class Layers(NamedTuple):
    """y_i = D_i x_i + E_i x_p(i) for each layer: D and E (L, 2, n), p (L, n), int32."""

    numbers: Tensor
    partners: Tensor


def layers_of(cell: Cell) -> Layers | None:
    """The layers of a cell's rotations where `Rotated` takes them and is faster than their product."""
    rotations = cell.recurrent if isinstance(cell, PlainCell) and type(cell).weights is PlainCell.weights else None
    if not isinstance(rotations, Rotations) or not is_just(rotations, Rotations):
        return None
    if len(rotations.partners) * UNITS_PER_LAYER > rotations.size:
        return None
    able = runs_natively("rotations", rotations.theta.dtype, rotations.theta.device)
    if not able or not drives_by_inputs(cell):  # a drive of the cell's own may want W
        return None
    partners = rotations.partners.clone()  # C++ goes where they point: nothing changes this copy before the backward
    inside = bool(((partners >= 0) & (partners < partners.shape[-1])).all())
    require(inside, "The buffer partners", described(partners), f"numbers of units, below {partners.shape[-1]}")
    return Layers(rotations.layers(), partners)


class Rotated(Engine):
    """Both recursions with layers for W: O(n) a layer and step instead of O(n^2), and no product for their gradients.

    Args:
        partners: p of `Layers`, as `layers_of` gives it: checked.
        kind: f.
        W: D and E, (L, 2, n), or (L, 2, 2n) as halves of complex numbers.
        bias: The thresholds of modReLU.
    """

    def __init__(self, partners: Tensor, kind: str, W: Tensor, bias: Tensor | None) -> None:
        super().__init__(kind, readable(W), bias)
        self.partners = readable(partners)

    def forward(self, u: Tensor, kept: Kept) -> None:
        steps = Steps.of(self.kind, kept)
        steps.forward("rotations", (steps.batch,), self._layers(steps), u, kept, self.bias, len(self.W))

    def backward(
        self, loss: Loss, kept: Kept, previous: Callable[[], Tensor], delta: Tensor, by_W: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        steps, shape = Steps.of(self.kind, kept), self.W.shape
        by, carried = steps.sums(*shape), readable(loss.last).clone()
        by_layers = Memory("The gradient by the rotations", by, (steps.threads, *shape))
        own = (*self._layers(steps), steps.before(kept))
        loss = loss._replace(last=carried)
        by_bias = steps.backward(
            "rotations", (steps.batch,), own, loss, kept, self.bias, delta, [by_layers], [len(self.W)]
        )
        if by_W is not None:
            by_W += by.sum(0)
        return carried, by_bias

    def _layers(self, steps: Steps) -> tuple[Memory, Memory]:
        L = len(self.W)
        partners = Memory("The partners of the rotations", self.partners, (L, steps.units), torch.int32)
        return partners, Memory("The rotations", self.W, (L, 2, steps.width))
