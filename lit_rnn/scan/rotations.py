"""W as layers of 2x2 rotations that are applied one after another, in C++ (`rotations.cpp`), where they are few."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from lit_rnn.activations import COMPLEX_EPS
from lit_rnn.cells.base import Cell
from lit_rnn.cells.orthogonal import UnitaryCell
from lit_rnn.cells.plain import PlainCell
from lit_rnn.parametrizations import Rotations
from lit_rnn.scan.native import biases_per_thread, run, runs_natively
from lit_rnn.scan.recurrence import Engine

# Units for each layer from which layers are faster than a product with W (`benchmarks/README.md`).
UNITS_PER_LAYER = 20


class Layers(NamedTuple):
    """y_i = D_i x_i + E_i x_p(i) for each layer: D and E (L, 2, n), p (L, n)."""

    numbers: Tensor
    partners: Tensor


def layers_of(cell: Cell) -> Layers | None:
    """The layers of a cell's rotations where `Rotated` takes them and is faster than their product."""
    rotations = cell.recurrent if isinstance(cell, PlainCell) else None
    if not isinstance(rotations, Rotations) or len(rotations.partners) * UNITS_PER_LAYER > rotations.size:
        return None
    if type(cell).drive not in (Cell.drive, UnitaryCell.drive):  # one that may want W
        return None
    if not runs_natively("rotations", rotations.theta.dtype, rotations.theta.device):
        return None
    return Layers(rotations.layers(), rotations.partners)


class Rotated(Engine):
    """Both recursions with layers for W: O(n) a layer and step instead of O(n^2), and no product for their gradients.

    Args:
        partners: p of `Layers`.
        kind: f.
        W: D and E, (L, 2, n), or (L, 2, 2n) as halves of complex numbers.
    """

    def __init__(self, partners: Tensor, kind: str, W: Tensor) -> None:
        super().__init__(kind, W)
        self.partners = partners.int()

    def forward(self, u: Tensor, bias: Tensor | None, h: Tensor, modulus: Tensor | None) -> None:
        tensors = self.partners, self.W, u, h[0], bias, h[1:], modulus
        run(self.kind, "rotations", "forward", h[1:], tensors, len(self.W), COMPLEX_EPS)

    def backward(
        self,
        direct: Tensor | None,
        through: Tensor,
        h: Tensor,
        modulus: Tensor | None,
        bias: Tensor | None,
        delta: Tensor,
        by_W: Tensor | None,
    ) -> tuple[Tensor, Tensor | None]:
        by_bias, carried = biases_per_thread(bias, h), through.clone(memory_format=torch.contiguous_format)
        by = self.W.new_zeros(torch.get_num_threads(), *self.W.shape)
        tensors = self.partners, self.W, direct, carried, h, modulus, bias, delta, by_bias, by
        run(self.kind, "rotations", "backward", delta, tensors, len(self.W))
        if by_W is not None:
            by_W += by.sum(0)
        return carried, None if bias is None else by_bias.sum(0)
