"""Layers of 2x2 rotations (EUNN)."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn

from datamodules.errors import require
from lit_rnn.parametrizations.orthogonal import OrthogonalMap

RotationLayout = Literal["tunable", "fft"]


def rotation_pairs(size: int, capacity: int, layout: RotationLayout) -> list[Tensor]:
    """The coordinate pairs of each layer, (2, pairs), i < j."""
    if layout == "tunable":
        return [torch.arange(layer % 2, size - layer % 2).view(-1, 2).mT for layer in range(capacity)]
    index = torch.arange(size)
    strides = [2**layer for layer in range(size.bit_length() - 1)]
    first = [index[index // stride % 2 == 0] for stride in strides]
    return [torch.stack((i, i + stride)) for i, stride in zip(first, strides, strict=True)]


class Rotations(OrthogonalMap):
    """W = L_last .. L_1 L_0, each L_l a row of 2x2 rotations on disjoint pairs of coordinates.

    Real: [[cos t, -sin t], [sin t, cos t]], det 1, inside SO(n), all of it at capacity n. Unitary: [[e^{ip} cos t,
    -sin t], [e^{ip} sin t, cos t]] and a last diagonal e^{iw}, inside U(n), all of it at capacity n (Clements et al.
    2016). The phase is on a column that enters, as in the released code (there the other of the two); on a row that
    leaves it would merge with the phases that follow.

    - ``tunable``: even layers pair (0,1)(2,3).., odd ones (1,2)(3,4)..; L(n-1)/2 angles real, L(n-1) + n unitary.
    - ``fft``: log2(n) layers, layer l pairs i with i + 2^l; (n/2) log2 n angles real, n log2 n + n unitary.

    All angles start at U(-pi, pi). W is multiplied out once per pass, O(n^2) per layer, and a step costs one product;
    `lit_rnn.scan` applies the layers instead, O(n) each, where they are few and it can.

    Source: Jing et al. 2017 (EUNN, EURNN).

    Args:
        size: n, even; a power of two for ``fft``.
        capacity: L, the layers of ``tunable``: even, 2 to n.
        layout: Which pairs.
        unitary: Complex W.
    """

    pairs: Tensor
    partners: Tensor

    def __init__(self, size: int, capacity: int = 2, layout: RotationLayout = "tunable", unitary: bool = False) -> None:
        super().__init__(size)
        require(layout in ("tunable", "fft"), "model.init_args.layout", layout, "tunable or fft")
        if layout == "fft":
            power = size >= 2 and size & (size - 1) == 0
            require(
                power,
                "model.init_args.hidden_size",
                size,
                "a power of two for layout: fft (tunable takes any even one)",
            )
        else:
            require(size % 2 == 0 and size >= 2, "model.init_args.hidden_size", size, "even for layout: tunable")
            good = capacity % 2 == 0 and 2 <= capacity <= size
            require(good, "model.init_args.capacity", capacity, f"an even number from 2 to hidden_size = {size}")
        layers = rotation_pairs(size, capacity, layout)
        self.layout, self.unitary = layout, unitary
        count = sum(layer.shape[1] for layer in layers)
        partners = torch.arange(size, dtype=torch.int32).repeat(len(layers), 1)
        for partner, (i, j) in zip(partners, layers, strict=True):
            partner[i], partner[j] = j.int(), i.int()
        self.register_buffer("partners", partners, persistent=False)  # (L, n), of each coordinate in each layer
        # where the pairs of all layers are in (L, n), flattened
        numbered = [layer + size * number for number, layer in enumerate(layers)]
        self.register_buffer("pairs", torch.cat(numbered, dim=1), persistent=False)

        def angles(count: int) -> nn.Parameter:
            return nn.Parameter(torch.empty(count).uniform_(-math.pi, math.pi))

        self.theta = angles(count)
        self.phi = angles(count) if unitary else None
        self.omega = angles(size) if unitary else None

    def matrix(self) -> Tensor:
        layers = self._layers()
        W = torch.eye(self.size, dtype=layers.dtype, device=layers.device)
        for (own, other), partner in zip(layers, self.partners, strict=True):
            W = own[:, None] * W + other[:, None] * W[partner]
        return W

    def layers(self) -> Tensor:
        """D and E of each layer, (L, 2, n): y_i = D_i x_i + E_i x_p(i), p the layer's row of ``partners``."""
        return self.computed(self._layers)

    def _layers(self) -> Tensor:
        theta = self.read(self.theta)
        cos, sin = torch.cos(theta), torch.sin(theta)
        first_cos, first_sin = cos, sin  # the column of the first coordinate of each pair
        if self.phi is not None:
            turn = torch.polar(torch.ones_like(cos), self.read(self.phi))
            cos, sin, first_cos, first_sin = cos.to(turn.dtype), sin.to(turn.dtype), turn * cos, turn * sin
        where, shape = (self.pairs.flatten(),), self.partners.shape
        own = cos.new_ones(shape.numel()).index_put(where, torch.cat((first_cos, cos))).view(shape)
        other = cos.new_zeros(shape.numel()).index_put(where, torch.cat((-sin, first_sin))).view(shape)
        layers = torch.stack((own, other), dim=1)
        if self.omega is None:
            return layers
        omega = self.read(self.omega)
        return torch.cat((layers[:-1], torch.polar(torch.ones_like(omega), omega) * layers[-1:]))

    def extra_repr(self) -> str:
        group = "U" if self.unitary else "SO"
        free = sum(parameter.numel() for parameter in self.parameters())
        return f"W = {len(self.partners)} {self.layout} layers of 2x2 rotations in {group}({self.size}), {free} angles"
