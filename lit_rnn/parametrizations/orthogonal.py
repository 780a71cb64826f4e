"""What every orthogonal and unitary parametrization shares."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Self

import torch
from torch import Tensor

from lit_rnn.dtypes import KeepsKind, Move


def double(tensor: Tensor) -> Tensor:
    """The tensor in float64 or complex128."""
    return tensor.to(torch.complex128 if tensor.is_complex() else torch.float64)


def drift(W: Tensor) -> Tensor:
    """max |W^H W - I|, measured in double precision: how far W is from unitary. A 0-dimensional tensor."""
    W = double(W.detach())
    return (W.mH @ W - torch.eye(W.shape[-1], dtype=W.dtype, device=W.device)).abs().max()


def or_nan(function: Callable[[Tensor], Tensor], W: Tensor) -> Tensor:
    """``function(W)``, NaN for a W with an entry that is no number: torch's decompositions raise there.

    A run that has diverged is then told as such, by its loss.
    """
    numbers = W.isfinite()
    return torch.where(numbers.all(), function(torch.where(numbers, W, 0.0)), math.nan)


def polar(W: Tensor) -> Tensor:
    """The orthogonal or unitary matrix nearest to W: U V^H of its SVD."""
    U, _, Vh = torch.linalg.svd(W)
    return U @ Vh


def polar_(W: Tensor) -> Tensor:
    """Replace W, in place, by its nearest orthogonal or unitary matrix, found in double precision."""
    return W.copy_(or_nan(polar, double(W)))


def hold_(W: Tensor, bound: float) -> Tensor:
    """Bring W back, in place, where max |W^H W - I| is above ``bound``.

    On the CPU by `polar_`. Elsewhere nobody waits for the number: there it is one step of `newton_schulz`, which leaves
    about 3/4 of the drift's square.
    """
    gram = W.mH @ W
    gram.diagonal().sub_(1)
    above = gram.abs().max() > bound
    if W.device.type == "cpu":
        return polar_(W) if above else W
    W64 = double(W)
    return W.copy_(torch.where(above, newton_schulz(W64), W64))


def newton_schulz(W: Tensor) -> Tensor:
    """W (3 I - W^H W) / 2, a step towards W's nearest orthogonal or unitary matrix."""
    return 1.5 * W - 0.5 * W @ (W.mH @ W)


class OrthogonalMap(KeepsKind, ABC):
    """A module whose call gives an (n, n) orthogonal or unitary matrix W from free parameters.

    The map and its parameters are in float32 or better with autocast off, whatever the trainer's precision; with
    ``double_precision`` it runs in float64 and is cast to the parameters' dtype at the end.

    Args:
        size: n.
    """

    double_precision = False
    in_single = True

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size

    @abstractmethod
    def matrix(self) -> Tensor:
        """W, from parameters read through `read`."""

    def on_group(self) -> list[Tensor]:
        """The parameters and buffers that are orthogonal or unitary matrices themselves; none where W is all map."""
        return []

    @torch.no_grad()
    def project_(self) -> None:
        """Replace each matrix of `on_group` by its nearest orthogonal or unitary one (`polar_`)."""
        for matrix in self.on_group():
            polar_(matrix)

    def _apply(self, fn: Move, recurse: bool = True) -> Self:
        """Moved to a finer dtype (``precision: 64-true``), W is made orthogonal to that dtype's rounding."""
        coarse = [matrix.dtype.itemsize for matrix in self.on_group()]
        super()._apply(fn, recurse)
        if coarse < [matrix.dtype.itemsize for matrix in self.on_group()]:
            self.project_()
        return self

    def read(self, parameter: Tensor) -> Tensor:
        """A parameter or buffer in the precision that the map runs in."""
        if self.double_precision:
            return double(parameter)
        return parameter.float() if parameter.dtype.itemsize < 4 else parameter

    def forward(self) -> Tensor:
        return self.computed(self.matrix)

    def computed(self, matrix: Callable[[], Tensor]) -> Tensor:
        """What ``matrix`` gives, run and cast as told above."""
        like = next(self.parameters())
        with torch.autocast(like.device.type, enabled=False):
            W = matrix()
        if self.double_precision and like.dtype.to_real().itemsize < W.dtype.to_real().itemsize:
            return W.to(torch.complex64 if W.is_complex() else torch.float32)
        return W

    @torch.no_grad()
    def drift(self) -> Tensor:
        """`drift` of the matrix as it stands."""
        return drift(self())
