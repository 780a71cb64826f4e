"""Two bounds on a free recurrent matrix that are often confused: on its singular values, and on its eigenvalues.

rho <= |W|_2, with equality for every normal W (and for some others). With |W|_2 <= 1 no power of W grows; with
rho(W) <= 1 one may still grow without limit or pass through a large transient, as [[1, c], [0, 1]] does (|W^k| ~ k c).
"""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from datamodules.errors import UserError, one_of, require
from lit_rnn.dtypes import as_plain
from lit_rnn.parametrizations.orthogonal import double, or_nan

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
    of r for a rotation. A nilpotent W has rho 0 and stays as it is. rho of a strongly non-normal matrix moves by about
    (rounding)^{1/n}, and the bound holds as well as that.

    The gradient goes through rho as long as its eigenvalue is well-conditioned (`spectral_radius_with_gradient`), and
    takes the scale for a constant elsewhere. With a constant throughout, every step grows the free matrix's leading
    eigenvalues, the scale shrinks all others, and the network forgets.
    """

    def size(self, W: Tensor) -> Tensor:
        return spectral_radius_with_gradient(W) if W.requires_grad else torch.linalg.eigvals(W).abs().amax(-1)


_WELL_CONDITIONED = 1e3


class _SpectralRadius(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, W: Tensor) -> Tensor:
        values, vectors = torch.linalg.eig(W)
        lead = values.abs().argmax(-1, keepdim=True)
        value = values.gather(-1, lead)
        right = vectors.take_along_dim(lead[..., None], -1)  # (blocks, n, 1)
        unit = nn.functional.one_hot(lead[..., 0], W.shape[-1]).to(vectors)[..., None]
        left = torch.linalg.solve_ex(vectors.mT, unit)[0]  # left^T W = value left^T, and left^T right = 1
        condition = torch.linalg.vector_norm(left, dim=(-2, -1)) * torch.linalg.vector_norm(right, dim=(-2, -1))
        direction = (value.conj() / value.abs())[..., None] * left @ right.mT
        # a comparison with nan or inf is false: a defective W has no gradient
        trusted = (condition < _WELL_CONDITIONED)[..., None, None] & direction.real.isfinite()
        ctx.save_for_backward(torch.where(trusted, direction.real, 0.0))
        return value.abs().squeeze(-1)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        if torch.is_grad_enabled():
            raise UserError(
                "The spectral radius gives no gradients of gradients (they would silently lack a part): set "
                "model.init_args.recurrent_constraint to none or spectral_norm."
            )
        return gradient[..., None, None] * ctx.saved_tensors[0]


def spectral_radius_with_gradient(W: Tensor) -> Tensor:
    """rho(W), with d rho = Re(conj(l) / |l| y^T dW x), l leading, W x = l x, y^T W = l y^T, y^T x = 1.

    Where |x| |y|, the eigenvalue's condition number, is 1000 or more, and for rho = 0, the gradient is zero: it grows
    without limit towards a defective eigenvalue, where there is none and torch gives a wrong one without a word. At a
    tie it is that of one of the leading eigenvalues.

    Args:
        W: (..., n, n) real, float64.

    Returns:
        (...,)
    """
    return _SpectralRadius.apply(W)


BOUNDS: dict[str, type[_Bound]] = {"spectral_norm": SpectralNormBound, "spectral_radius": SpectralRadiusBound}


def constrain_recurrent(cell: Any, kind: Constraint, bound: float = 1.0) -> None:
    """Put a bound on ``cell.recurrent``, a linear layer (blocks n, n), gate by gate; ``none`` does nothing.

    The parameter is then ``cell.recurrent.parametrizations.weight.original``, of the same shape.

    Raises:
        UserError: for an unknown kind, a bound that is not positive, and a cell that builds W itself: orthogonal and
            unitary cells have all singular values at 1 as it is.
    """
    key = "model.init_args.recurrent_constraint"
    one_of(kind, key, get_args(Constraint))
    if kind == "none":
        return
    layer, matrices = getattr(cell, "recurrent", None), cell.recurrent_matrices()
    square = isinstance(layer, nn.Linear) and layer.out_features % layer.in_features == 0
    if not isinstance(layer, nn.Linear) or not matrices or not square:
        why = "builds W by a map of its own" if matrices else "has no recurrent matrix"
        raise UserError(f"{key} is {kind!r}, but it must be 'none': {type(cell).__name__} {why}.")
    constraint = BOUNDS[kind](bound, layer.out_features // layer.in_features)
    parametrize.register_parametrization(layer, "weight", constraint)


def spectral_norm_penalty(cells: Iterable[Any]) -> Tensor:
    """Half the sum of squared spectral norms over the cells' recurrent matrices (Yoshida and Miyato 2017)."""
    matrices = [as_plain(W) for cell in cells for W in cell.recurrent_matrices().values()]
    norm = functools.partial(torch.linalg.matrix_norm, ord=2)
    return torch.stack([or_nan(norm, W).square() for W in matrices]).sum() / 2
