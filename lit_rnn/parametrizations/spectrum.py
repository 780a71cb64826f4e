"""Two bounds on a free recurrent matrix that are often confused: on its singular values, and on its eigenvalues.

They agree for normal matrices only. With |W|_2 <= 1 no power of W grows; with rho(W) <= 1 one may still grow
without limit or pass through a large transient, as [[1, c], [0, 1]] does (|W^k| ~ k c).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from datamodules.errors import UserError, require
from lit_rnn.parametrizations.orthogonal import double

Constraint = Literal["none", "spectral_norm", "spectral_radius"]


class _Bound(nn.Module, ABC):
    """W -> W min(1, c / size(W)), block by block: a matrix that is inside already comes back bit for bit.

    A constraint, not a normalisation: small matrices are not scaled up. The size is computed in float64 with autocast
    off, without approximation, O(n^3) per read of the weight; a cell reads it once per pass.

    Args:
        bound: c, positive.
        blocks: W is (blocks n, n), gates above each other, and each is bounded by itself.

    Raises:
        UserError: for a bound that is not positive.
    """

    def __init__(self, bound: float = 1.0, blocks: int = 1) -> None:
        super().__init__()
        require(0 < bound < float("inf"), "model.init_args.constraint_bound", bound, "positive")
        self.bound, self.blocks = bound, blocks

    @abstractmethod
    def size(self, W: Tensor) -> Tensor:
        """(blocks, n, n) float64 to (blocks,)."""

    def forward(self, W: Tensor) -> Tensor:
        with torch.autocast(W.device.type, enabled=False):
            matrices = double(W).unflatten(0, (self.blocks, -1))
            # the decompositions refuse nan and inf; such a matrix stays as it is, for others to report
            sizes = self.size(torch.where(matrices.isfinite(), matrices, 0.0))
            scale = self.bound / sizes.clamp_min(self.bound)  # exactly 1 inside
            return W * scale.to(W.dtype).repeat_interleave(len(W) // self.blocks)[:, None]

    def extra_repr(self) -> str:
        return f"c = {self.bound:g}" + (f", {self.blocks} blocks" if self.blocks > 1 else "")


class SpectralNormBound(_Bound):
    """W -> W min(1, c / sigma_max(W)): the largest singular value is at most c.

    The gradient goes through sigma_max, whose derivative u v^T always exists as a subgradient: a step cannot grow the
    free matrix along its own top direction for nothing.
    """

    def size(self, W: Tensor) -> Tensor:
        return torch.linalg.svdvals(W).amax(-1)


class SpectralRadiusBound(_Bound):
    """W -> W min(1, c / rho(W)): the largest modulus of an eigenvalue, complex pairs included, is at most c.

    All eigenvalues are computed: the power method's Rayleigh quotient is wrong for complex pairs, r cos(theta) instead
    of r for a rotation. The scale is detached: rho has no gradient at a tie or a defective eigenvalue, and torch gives
    a wrong one there without a word. A nilpotent W has rho 0 and stays as it is. rho of a strongly non-normal
    matrix moves by about (rounding)^{1/n}, and the bound holds as well as that.
    """

    def size(self, W: Tensor) -> Tensor:
        return torch.linalg.eigvals(W.detach()).abs().amax(-1)


BOUNDS: dict[str, type[_Bound]] = {"spectral_norm": SpectralNormBound, "spectral_radius": SpectralRadiusBound}


def constrain_recurrent(cell: Any, kind: Constraint, bound: float = 1.0) -> None:
    """Put a bound on ``cell.recurrent``, a linear layer (blocks n, n), gate by gate; ``none`` does nothing.

    The parameter is then ``cell.recurrent.parametrizations.weight.original``, of the same shape.

    Raises:
        UserError: for an unknown kind, a bound that is not positive, and a cell that builds W itself: orthogonal and
            unitary cells have all singular values at 1 as it is.
    """
    key = "model.init_args.recurrent_constraint"
    require(kind in get_args(Constraint), key, kind, f"one of {', '.join(get_args(Constraint))}")
    if kind == "none":
        return
    layer = getattr(cell, "recurrent", None)
    if not isinstance(layer, nn.Linear):
        raise UserError(
            f"{key} is {kind!r}, but it must be 'none': {type(cell).__name__} builds W by a map of its own."
        )
    constraint = BOUNDS[kind](bound, layer.out_features // layer.in_features)
    parametrize.register_parametrization(layer, "weight", constraint)


def spectral_norm_penalty(cells: Iterable[Any]) -> Tensor:
    """Half the sum of squared spectral norms over the cells' recurrent matrices (Yoshida and Miyato 2017)."""
    matrices = [W for cell in cells for W in cell.recurrent_matrices().values()]
    return torch.stack([torch.linalg.matrix_norm(W, ord=2).square() for W in matrices]).sum() / 2
