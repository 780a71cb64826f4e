"""W as layers of 2x2 rotations that are applied one after another, in C++ (`rotations.cpp`), where they are few."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from lit_rnn.activations import COMPLEX_EPS
from lit_rnn.cells.base import Cell
from lit_rnn.cells.plain import PlainCell
from lit_rnn.parametrizations import Rotations
from lit_rnn.scan.drive import drives_by_inputs
from lit_rnn.scan.native import biases_per_thread, run, runs_natively
from lit_rnn.scan.recurrence import Engine, Kept

# Units for each layer from which layers are faster than a product with W (`benchmarks/README.md`).
UNITS_PER_LAYER = 20


class Layers(NamedTuple):
    """y_i = D_i x_i + E_i x_p(i) for each layer: D and E (L, 2, n), p (L, n), int32."""

    numbers: Tensor
    partners: Tensor


def layers_of(cell: Cell) -> Layers | None:
    """The layers of a cell's rotations where `Rotated` takes them and is faster than their product."""
    rotations = cell.recurrent if isinstance(cell, PlainCell) else None
    if not isinstance(rotations, Rotations) or len(rotations.partners) * UNITS_PER_LAYER > rotations.size:
        return None
    able = runs_natively("rotations", rotations.theta.dtype, rotations.theta.device)
    # a drive of the cell's own may want W
    return Layers(rotations.layers(), rotations.partners) if able and drives_by_inputs(cell) else None


class Rotated(Engine):
    """Both recursions with layers for W: O(n) a layer and step instead of O(n^2), and no product for their gradients.

    Args:
        partners: p of `Layers`.
        kind: f.
        W: D and E, (L, 2, n), or (L, 2, 2n) as halves of complex numbers.
        bias: The thresholds of modReLU.
    """

    def __init__(self, partners: Tensor, kind: str, W: Tensor, bias: Tensor | None) -> None:
        super().__init__(kind, W, bias)
        self.partners = partners

    def forward(self, u: Tensor, kept: Kept) -> None:
        h, modulus = kept
        tensors = self.partners, self.W, u, h[0], self.bias, h[1:], modulus
        run(self.kind, "rotations", "forward", h[1:], tensors, len(self.W), COMPLEX_EPS)

    def backward(
        self, direct: Tensor | None, through: Tensor, kept: Kept, delta: Tensor, by_W: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        by_bias, carried = biases_per_thread(self.bias, delta), through.clone(memory_format=torch.contiguous_format)
        by = self.W.new_zeros(torch.get_num_threads(), *self.W.shape)
        tensors = self.partners, self.W, direct, carried, *kept, self.bias, delta, by_bias, by
        run(self.kind, "rotations", "backward", delta, tensors, len(self.W))
        if by_W is not None:
            by_W += by.sum(0)
        return carried, None if self.bias is None else by_bias.sum(0)
