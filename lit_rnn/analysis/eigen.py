"""Eigenvalues that can be trusted, singular values and the numerical range."""

from __future__ import annotations

import graphlib
import math
import warnings
from typing import Any, Literal, get_args

import numpy as np
import scipy.linalg
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import linear_sum_assignment, minimize_scalar
from scipy.sparse.csgraph import connected_components
from torch import Tensor

from datamodules.errors import one_of, require, whole
from lit_rnn.analysis.arrays import ROUNDING, Complex, Real, back, near_one, square, times_power_of_two

Precision = Literal["auto", "double", "high"]

_TRUSTED_CONDITION = 1e8  # an eigenvalue's error is its condition number times the rounding of |W|: here 1e-8
_BITS, _MOST_BITS = 256, 8192
_SETTLED = 1e-11
_MOST_STEPS = 20_000  # of the power method


class IllConditionedWarning(UserWarning):
    """A result in double precision that may have no right digit."""


# ---- eigenvalues


def irreducible_blocks(W: NDArray[Any]) -> list[NDArray[np.intp]]:
    """Index sets that bring W to block upper triangular form, W[i, j] = 0 wherever i comes in a later block than j.

    The strongly connected components of W's graph, in topological order: W's eigenvalues are those of its diagonal
    blocks. A triangular matrix, in any order of its units, falls into blocks of size 1.
    """
    count, label = connected_components(W != 0, connection="strong")
    later: dict[int, set[int]] = {block: set() for block in range(count)}
    for i, j in zip(*np.nonzero(W), strict=True):
        if label[i] != label[j]:
            later[label[j]].add(label[i])
    return [np.flatnonzero(label == block) for block in graphlib.TopologicalSorter(later).static_order()]


def is_nilpotent(W: ArrayLike | Tensor) -> bool:
    """Whether some power of W is zero because of where its zeros are: a chain, in any order of its units."""
    W = square(W)
    return not np.diagonal(W).any() and all(len(block) == 1 for block in irreducible_blocks(W))


def _conditions(W: NDArray[Any]) -> tuple[Complex, Real]:
    """LAPACK's eigenvalues with 1 / |y^H x|."""
    A, exponent = near_one(W)
    values, left, right = scipy.linalg.eig(A, left=True, right=True)
    with np.errstate(divide="ignore"):
        conditions = 1 / np.abs((left.conj() * right).sum(0))
    return times_power_of_two(values.astype(np.complex128), exponent), conditions


def _trusted(W: NDArray[Any]) -> bool:
    return len(W) == 1 or bool(_conditions(W)[1].max() < _TRUSTED_CONDITION)


def eigenvalues_trusted(W: ArrayLike | Tensor) -> bool:
    """Whether double precision gives W's eigenvalues to about 1e-8 |W|, so that ``auto`` stays with it.

    Each irreducible block's largest eigenvalue condition number decides. Cost O(n^3).
    """
    W = square(W)
    return all(_trusted(W[np.ix_(block, block)]) for block in irreducible_blocks(W))


def eigenvalues(W: ArrayLike | Tensor, precision: Precision = "auto") -> Complex:
    """The eigenvalues of W, (n,).

    Float64 cannot do it for strongly non-normal matrices: for fbchain (n = 100, alpha 0.99, beta 0.04) every LAPACK
    route gives a spectral radius near 0.74 for the true 0.398. ``auto`` notices by the eigenvalues' condition numbers
    and goes on in arbitrary precision (Arb's QR iteration), with more bits until the digits settle. The matrix is taken
    apart into its irreducible blocks first, so that triangular matrices in any order of units are exact.

    Args:
        W: (n, n), real or complex.
        precision: ``auto``; ``double`` stays in float64 and warns; ``high`` computes every block in high precision.

    Raises:
        UserError: for a W that is not square, not finite or empty.

    Cost O(n^3); in high precision about a second at n = 100.
    """
    one_of(precision, "precision", get_args(Precision))
    W = square(W)
    return np.concatenate([_of_block(W[np.ix_(block, block)], precision) for block in irreducible_blocks(W)])


def _of_block(W: NDArray[Any], precision: Precision) -> Complex:
    if len(W) == 1:
        return W[0].astype(np.complex128)
    if precision == "high":
        return _in_high_precision(W)
    values, conditions = _conditions(W)
    if conditions.max() < _TRUSTED_CONDITION:
        return values
    if precision == "auto":
        return _in_high_precision(W)
    _warn(f"an eigenvalue of W has condition number {conditions.max():.1e}: in double precision it may be fiction")
    return values


def _warn(sentence: str) -> None:
    warnings.warn(f"{sentence}.", IllConditionedWarning, stacklevel=5)


def _in_high_precision(W: NDArray[Any]) -> Complex:
    """Eigenvalues at 256 bits, 512 bits, ... until two agree."""
    import flint  # slow to import, and rarely needed

    from lit_rnn.analysis.exact import matrix

    A, exponent = near_one(W)
    before, bits, exact = None, _BITS, matrix(A)
    tolerance = _SETTLED * float(np.linalg.norm(A))
    while bits <= _MOST_BITS:
        with flint.ctx.workprec(bits):
            values = np.array([complex(value) for value in exact.eig(algorithm="approx")])
        if before is not None and np.abs(values - before[_matched(values, before)]).max() <= tolerance:
            return times_power_of_two(values, exponent)
        before, bits = values, 2 * bits
    _warn(f"the eigenvalues of W have not settled at {_MOST_BITS} bits: W is defective, or nearly so")
    return times_power_of_two(values, exponent)


def _matched(values: Complex, others: Complex) -> NDArray[np.intp]:
    """The order of ``others`` that puts each beside its nearest value, one to one."""
    return linear_sum_assignment(np.abs(values[:, None] - others))[1]


def eigenvalue_condition_numbers(W: ArrayLike | Tensor) -> Real:
    """1 / |y^H x| for unit left and right eigenvectors y, x, in the order of `eigenvalues`; >= 1, 1 for a normal W.

    How fast the pseudospectrum grows about the eigenvalue. In float64: where they are beyond 1e8 they are estimates.
    """
    A, _ = near_one(square(W))
    if _is_normal(A, ROUNDING):
        return np.ones(len(A))
    values, conditions = _conditions(A)
    return conditions[_matched(eigenvalues(A), values)]


def rounding_of_radius(n: int, precision: float = ROUNDING) -> float:
    """How far rounding may move a spectral radius of 1: ten times sqrt(n) ``precision``, or n u of the computation."""
    return 10 * max(whole(n, "n", 1) * ROUNDING, math.sqrt(n) * precision)


def _is_normal(A: NDArray[Any], precision: float) -> bool:
    """Up to rounding: what is above the diagonal of its Schur form is no more than that, next to |A|_F."""
    T = scipy.linalg.schur(A, output="complex")[0]
    return bool(np.linalg.norm(np.triu(T, 1)) <= rounding_of_radius(len(A), precision) * np.linalg.norm(A))


def eigenvector_condition(W: ArrayLike | Tensor, precision: float = ROUNDING) -> float:
    """kappa(V) = |V| |V^-1| of the unit eigenvectors; |W^k| <= kappa(V) rho^k. Infinite or huge for a defective W.

    1 for a W that is normal up to rounding. The eigenvectors that LAPACK finds of it need not be orthogonal where an
    eigenvalue is repeated, like the ones of a product of few reflections: any basis of the eigenspace will do.

    Args:
        W: (n, n).
        precision: To which relative accuracy W's entries are what was meant.
    """
    A, _ = near_one(square(W))
    if _is_normal(A, precision):
        return 1.0
    vectors = scipy.linalg.eig(A)[1]
    singular = np.linalg.svd(vectors, compute_uv=False)
    return float(singular[0] / singular[-1]) if singular[-1] > 0 else math.inf


def spectral_radius(
    W: ArrayLike | Tensor,
    method: Literal["eig", "power"] = "eig",
    precision: Precision = "auto",
) -> float:
    """rho(W) = max |lambda|, the largest modulus of an eigenvalue; not the spectral norm.

    ``power`` iterates a two-dimensional Ritz problem: with Q an orthonormal basis of span(v, W v), the eigenvalues of
    Q^H W Q, until the leading one's residual |W x - theta x| is 1e-12 |theta|: theta is off by about as much, times the
    eigenvalue's condition number. One vector is not enough: the leading eigenvalues of a real W are usually a complex
    pair, and for r R(theta) the Rayleigh quotient is r cos(theta) for every vector. It warns where it does not
    converge: three eigenvalues of nearly the same modulus, or a |W| so far above rho that rounding hides the residual.

    Raises:
        UserError: for a W that is not square, not finite or empty; for an unknown method or precision.
    """
    require(method in ("eig", "power"), "method", method, "eig or power")
    if method == "eig":
        return float(np.abs(eigenvalues(W, precision)).max())
    A, exponent = near_one(square(W))
    return back(_ritz_radius(A), exponent)


def _ritz_radius(W: NDArray[Any]) -> float:
    size = spectral_norm(W)
    if size == 0 or is_nilpotent(W):
        return 0.0
    if len(W) == 1:
        return size
    Q = np.linalg.qr(np.random.default_rng(0).standard_normal((len(W), 2)))[0].astype(W.dtype)
    for _ in range(_MOST_STEPS):
        image = W @ Q
        values, vectors = np.linalg.eig(Q.conj().T @ image)
        lead = np.abs(values).argmax()
        # of the leading pair only: where a real eigenvalue leads, the second direction need not settle
        residual = float(np.linalg.norm(image @ vectors[:, lead] - values[lead] * (Q @ vectors[:, lead])))
        if residual <= 1e-12 * abs(values[lead]):  # next to |W| it may be small from the start, if W is far from normal
            return float(abs(values[lead]))
        Q = np.linalg.qr(image)[0]
    _warn(f"the power method has not converged (residual {residual / size:.1e} |W|): no pair of eigenvalues leads")
    return float(abs(values[lead]))


# ---- norms


def singular_values(W: ArrayLike | Tensor) -> Real:
    """The singular values of W, descending."""
    A, exponent = near_one(square(W))
    return times_power_of_two(np.linalg.svd(A, compute_uv=False), exponent)


def spectral_norm(W: ArrayLike | Tensor) -> float:
    """|W|_2, the largest singular value; not the spectral radius."""
    return float(singular_values(W)[0])


def _support(W: NDArray[Any], angle: float) -> float:
    """How far the numerical range reaches in direction ``angle``: lambda_max of Herm(e^{-i angle} W)."""
    turned = np.exp(-1j * angle) * W
    return float(np.linalg.eigvalsh((turned + turned.conj().T) / 2)[-1])


def numerical_range(W: ArrayLike | Tensor, points: int = 200) -> Complex:
    """Boundary points of {x^H W x : |x| = 1}, counter-clockwise, (points,): where it is touched from as many sides.

    Source: Johnson 1978. Cost one Hermitian eigenproblem per point.
    """
    points = whole(points, "points", 1)
    A, exponent = near_one(square(W))
    boundary = []
    for angle in np.linspace(0, 2 * np.pi, points, endpoint=False):
        turned = np.exp(-1j * angle) * A
        x = scipy.linalg.eigh((turned + turned.conj().T) / 2)[1][:, -1]
        boundary.append(x.conj() @ A @ x)
    return times_power_of_two(np.array(boundary, dtype=np.complex128), exponent)


def numerical_radius(W: ArrayLike | Tensor, angles: int = 128) -> float:
    """w(W) = max over the numerical range of |z|; |W| / 2 <= w <= |W|, and |W^k| <= 2 w^k (Berger).

    The farthest of `numerical_range`'s points, which is exact at a corner of the range, and the support refined in the
    directions of the farthest local maxima: from below, and at least cos(pi / angles) w: 0.9997 w.
    """
    angles = whole(angles, "angles", 1)
    A, exponent = near_one(square(W))
    step = 2 * math.pi / angles
    points = numerical_range(A, angles)
    reach = np.abs(points)
    best = float(reach.max())
    peaks = np.flatnonzero((reach >= np.roll(reach, 1)) & (reach >= np.roll(reach, -1)))
    directions = np.angle(points[peaks[np.argsort(-reach[peaks])]]) / step
    for k in list(dict.fromkeys(directions.round()))[:6]:  # a corner is touched from several sides
        found = minimize_scalar(
            lambda angle: -_support(A, angle),
            bounds=((k - 1) * step, (k + 1) * step),
            method="bounded",
            options={"xatol": 1e-9},
        )
        best = max(best, -float(found.fun))
    return back(best, exponent)
