"""Pseudospectra: where a matrix's eigenvalues go when it is perturbed a little, and what follows for its powers.

sigma_eps(W) = {z : sigma_min(z I - W) <= eps}, the union of the eigenvalues of W + E over all complex |E|_2 <= eps.
Source: Trefethen and Embree 2005, "Spectra and Pseudospectra".
"""

from __future__ import annotations

import cmath
import math
import warnings
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import scipy.linalg
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import brentq, minimize
from torch import Tensor

from datamodules.errors import require, whole
from lit_rnn.analysis.arrays import ROUNDING, Complex, Real, back, square
from lit_rnn.analysis.eigen import (
    IllConditionedWarning,
    eigenvalues,
    eigenvector_condition,
    numerical_radius,
    numerical_range,
    rounding_of_radius,
    spectral_norm,
    spectral_radius,
)
from lit_rnn.analysis.nonnormal import schur
from lit_rnn.analysis.resolvent import BESIDE, MEMORY, dense, inverse_lanczos, scaled, smallest_singular_values

Box = tuple[float, float, float, float]  # left, right, bottom, top

_MARGIN = 1.15
_FEW = 16  # points at which dense SVDs are as fast as the Lanczos process
_LARGEST = 1e300  # of a norm, whose multiples are doubles too
_MOST_CAYLEY = 1e3  # entry of a Cayley transform: digits that it may cost


class Pseudospectrum(NamedTuple):
    """sigma[i, j] = sigma_min((x[j] + i y[i]) I - W): its level curves are the borders of sigma_eps(W)."""

    x: Real  # (points,)
    y: Real  # (points,)
    sigma: Real  # (points, points)


def pseudospectrum(
    W: ArrayLike | Tensor,
    points: int = 100,
    box: Box | None = None,
    memory: int = MEMORY,
) -> Pseudospectrum:
    """sigma_min(z I - W) on a grid of points x points.

    Args:
        W: (n, n).
        points: Per axis.
        box: (left, right, bottom, top); None takes the square that holds the numerical range, so the eigenvalues too,
            and the unit circle, with a margin.
        memory: See `smallest_singular_values`.

    Show no contour below about 1e-13 |W|: it would be rounding.
    """
    points = whole(points, "points", 2)
    W = square(W)
    accepted = "(left, right, bottom, top) with left < right and bottom < top"
    require(box is None or len(box) == 4, "box", box, accepted)
    left, right, bottom, top = common_box([W]) if box is None else box
    require(left < right and bottom < top, "box", box, accepted)
    x, y = np.linspace(left, right, points), np.linspace(bottom, top, points)
    if bottom == -top:
        y = (y - y[::-1]) / 2  # symmetric to the last bit, so that conjugates are found
    return Pseudospectrum(x, y, smallest_singular_values(W, x + 1j * y[:, None], memory=memory))


def common_box(Ws: Sequence[NDArray[Any]]) -> Box:
    """The square that holds the numerical ranges of all matrices and the unit circle, with a margin."""
    touched = np.concatenate([*(numerical_range(W, 4) for W in Ws), [1, -1, 1j, -1j]])
    left, right, bottom, top = touched.real.min(), touched.real.max(), touched.imag.min(), touched.imag.max()
    half = _MARGIN * max(right - left, top - bottom) / 2
    x = (left + right) / 2
    y = 0.0 if all(np.isrealobj(W) for W in Ws) else (bottom + top) / 2
    return float(x - half), float(x + half), float(y - half), float(y + half)


# ---- how far the pseudospectrum reaches


def pseudospectral_radius(W: ArrayLike | Tensor, eps: float) -> float:
    """rho_eps(W) = max |z| over sigma_eps(W); rho + eps <= rho_eps <= |W| + eps, with rho + eps where W is normal.

    Criss-cross: along a ray to the border of sigma_eps; around the circle through it, all arcs inside sigma_eps from
    a pencil's eigenvalues on the unit circle; on from the middle of the deepest, until there is none. Every arc is
    seen, so the maximum is the global one, and no eigenvalue of W is needed: it is right for strongly non-normal W
    too, as far as eps is above rounding.

    Args:
        W: (n, n).
        eps: 0 or positive; 0 gives `spectral_radius`. Below 1e-13 |W| it warns where W's eigenvectors are ill
            conditioned: rounding then moves the result more than eps does.

    Raises:
        UserError: for a W that is not square, not finite or empty; a negative or infinite eps.

    Cost one to five dense eigenproblems of size 2n and ten times as many SVDs. Source: Mengi and Overton 2005, whose
    rays are eigenproblems too.
    """
    W = _checked(W, eps)
    return spectral_radius(W) if eps == 0 else _outermost(W, eps)[0]


def pseudospectral_abscissa(W: ArrayLike | Tensor, eps: float) -> float:
    """alpha_eps(W) = max Re z over sigma_eps(W), of h' = W h what rho_eps is of step maps; 0 gives max Re lambda.

    Criss-cross and arguments as in `pseudospectral_radius`, along horizontal and vertical lines. Source: Burke, Lewis
    and Overton 2003.
    """
    W = _checked(W, eps)
    return float(eigenvalues(W).real.max()) if eps == 0 else _rightmost(W, eps)[0]


def _checked(W: ArrayLike | Tensor, eps: float) -> NDArray[Any]:
    require(0 <= eps < math.inf, "eps", eps, "0 or positive, and finite")
    W = square(W)
    if 0 < eps < 1e-13 * spectral_norm(W) and eigenvector_condition(W) > 1e8:
        sentence = f"eps = {eps:.1e} is beneath W's rounding, which moves its eigenvalues far: no digit may be right."
        warnings.warn(sentence, IllConditionedWarning, stacklevel=3)
    return W


class _Set(NamedTuple):
    """sigma_eps(W) for |W|_F of about 1, and at most."""

    W: NDArray[Any]
    T: Complex  # its Schur form
    eps: float

    @property
    def floor(self) -> float:
        """Rounding of sigma_min."""
        return 4 * ROUNDING * len(self.W)

    @property
    def near(self) -> float:
        """How far rounding may take an eigenvalue off the line on which it tells a crossing.

        Where the level curve touches the line, the root of the rounding. Generous: an eigenvalue that does not belong
        there costs an evaluation of sigma_min, which decides.
        """
        return min(0.1, 1e-5 + 30 * math.sqrt(len(self.W) * ROUNDING / self.eps))

    def reach(self, turn: complex, start: complex) -> float:
        """The x >= 0 of a crossing start + x turn of sigma_min = eps, |turn| = 1; 0 if even ``start`` is outside.

        Not always the outermost on its ray: what lies further out is found as an arc.
        """

        def excess(x: float) -> float:
            sigma = float(dense(self.W, np.array([start + x * turn]))[0])
            return math.log(max(sigma, 1e-300) / self.eps)

        if excess(0) >= 0:
            return 0.0
        return brentq(excess, 0, abs(start) + 1 + 2 * self.eps, xtol=ROUNDING / 8, rtol=4 * ROUNDING)

    def middles(self, borders: Real, point: Callable[[Real], NDArray[Any]], period: float = 0.0) -> Real:
        """Middles of the arcs between neighbours of ``borders`` that lie inside, the deepest first.

        Of a real W only those in the upper half plane.
        """
        real = np.isrealobj(self.W)
        borders = np.unique(np.abs(borders) if real else borders)
        true = self.depth(point(borders)) <= 1e-3 * self.eps + 100 * self.floor  # others cross a larger value
        borders = borders[true]
        if real:
            borders = np.unique(np.concatenate((-borders, borders)))
        ends = np.append(borders, borders[:1] + period) if period else borders
        middles = (ends[1:] + ends[:-1]) / 2
        if real:
            middles = middles[point(middles).imag > -1e-12]
        depth = self.depth(point(middles), sure=True)
        order = np.argsort(-depth)
        return middles[order][depth[order] > 1e-13 * self.eps + ROUNDING]

    def depth(self, z: Complex, sure: bool = False) -> Real:
        """eps - sigma_min: positive inside; its sign ``sure`` where the Lanczos process is too near zero to tell."""
        if len(z) <= _FEW:
            return self.eps - dense(self.W, z)
        depth = self.eps - inverse_lanczos(self.T, z)
        if sure:
            close = np.abs(depth) <= 1e-3 * self.eps + self.floor
            depth[close] = self.eps - dense(self.W, z[close])
        return depth

    def arcs(self, radius: float, border: float) -> Real:
        """Angles of the middles of the circle's arcs inside; ``border`` is one that is known already.

        eps is a singular value of radius w I - W where w is an eigenvalue of the pencil
        [[W, eps I], [0, radius I]] - w [[radius I, 0], [eps I, W^H]] and |w| = 1.
        """
        W, size = self.W, len(self.W)
        side, across, zero = self.eps * np.eye(size), radius * np.eye(size), np.zeros((size, size))
        left, right = np.block([[W, side], [zero, across]]), np.block([[across, zero], [side, W.conj().T]])
        w = _unit_eigenvalues(left, right, border)
        angles = np.append(np.angle(w[np.abs(np.abs(w) - 1) <= self.near]), border)
        return self.middles(angles, lambda angles: radius * np.exp(1j * angles), 2 * math.pi)

    def segments(self, x: float, border: float) -> Real:
        """Heights of the middles of the vertical line's segments inside."""
        side, moved = self.eps * np.eye(len(self.W)), self.W - x * np.eye(len(self.W))
        values = np.linalg.eigvals(np.block([[moved, side], [-side, -moved.conj().T]]))
        heights = np.append(values.imag[np.abs(values.real) <= self.near], border)
        return self.middles(heights, lambda heights: x + 1j * heights)


def _unit_eigenvalues(left: NDArray[Any], right: NDArray[Any], angle: float) -> NDArray[Any]:
    """The eigenvalues w of left - w right, those of modulus about 1 to rounding; one has about this ``angle``.

    A Cayley transform c = (w - p) / (w + p), |p| = 1, makes a standard eigenproblem of it, ten times as fast as the QZ
    algorithm: p such that -p is far from every w, real for real matrices if possible.
    """
    real = np.isrealobj(left) and np.isrealobj(right)
    with np.errstate(all="ignore"):  # infinite eigenvalues
        for p in sorted((1, -1, 1j, -1j), key=lambda p: abs(p - np.exp(1j * angle)) + 2 * real * abs(p.imag)):
            try:
                transform = np.linalg.solve(left + p * right, left - p * right)
            except np.linalg.LinAlgError:  # exactly singular
                continue
            if np.abs(transform).max() <= _MOST_CAYLEY:
                c = np.linalg.eigvals(transform)
                w = p * (1 + c) / (1 - c)
                break
        else:
            w = scipy.linalg.eigvals(left, right)
    return w[np.isfinite(w)]


def _slope(W: NDArray[Any], z: complex) -> tuple[float, complex]:
    """sigma_min(z I - W) and d = u^H v of its singular vectors: d sigma = Re(d dz)."""
    U, sigma, Vh = np.linalg.svd(z * np.eye(len(W)) - W)
    return float(sigma[-1]), complex(U[:, -1].conj() @ Vh[-1].conj())


def _criss_cross(
    level: float, place: float, across: Callable[[float, float], Real], along: Callable[[float, float], float]
) -> tuple[float, float]:
    """From a point of sigma_eps to the one of the highest level: ``along`` goes up, ``across`` finds where from."""
    level += along(level, place)
    while len(middles := across(level, place)):
        further = along(level, middles[0])
        if further <= ROUNDING:
            break
        level, place = level + further, middles[0]
    return level, place


def _set_of(W: NDArray[Any], eps: float) -> tuple[_Set, int]:
    """sigma_eps(W) 2^-e, and e."""
    A, exponent = scaled(W)
    if not A.any() or back(eps, -exponent) >= BESIDE:
        A, exponent = 0 * A, math.frexp(eps)[1]
    return _Set(A, schur(A)[0], back(eps, -exponent)), exponent


def _outermost(W: NDArray[Any], eps: float) -> tuple[float, float]:
    """Radius and angle of the outermost point of sigma_eps."""
    inside, exponent = _set_of(W, eps)
    z = max(np.diagonal(inside.T), key=abs)

    def ray(radius: float, angle: float) -> float:
        turn = cmath.exp(1j * angle)
        return inside.reach(turn, radius * turn)

    radius, angle = _criss_cross(abs(z), cmath.phase(z), inside.arcs, ray)
    return back(radius, exponent), angle


def _rightmost(W: NDArray[Any], eps: float) -> tuple[float, float]:
    """Real and imaginary part of the rightmost point of sigma_eps."""
    inside, exponent = _set_of(W, eps)
    z = max(np.diagonal(inside.T), key=lambda value: value.real)
    x, y = _criss_cross(z.real, z.imag, inside.segments, lambda x, y: inside.reach(1, complex(x, y)))
    return back(x, exponent), back(y, exponent)


# ---- what that means for powers


def distance_to_instability(W: ArrayLike | Tensor) -> float:
    """beta(W) = min over theta of sigma_min(e^{i theta} I - W): the smallest |E|_2 that makes W + E unstable.

    For rho(W) < 1: rho_eps = 1 at eps = beta, and beta = 1 - rho where W is normal. For rho(W) >= 1 it is 0, as no E is
    needed. E is complex: from a real W the next real unstable matrix may be further. The best angle of a grid gives an
    upper bound; all arcs of the unit circle beneath it are found at once, and their middles give the next, until there
    is none, so the minimum is the global one. Below about n u |W|, u = 2.2e-16, it is rounding.

    Raises:
        UserError: for a W that is not square, not finite or empty.

    Source: Byers 1988; Boyd and Balakrishnan 1990.
    """
    W = square(W)
    if spectral_radius(W) >= 1:
        return 0.0
    A, exponent = scaled(W)
    radius = back(1.0, -exponent)
    if radius >= BESIDE:
        return 1.0
    T = schur(A)[0]
    angles, eps = np.linspace(-math.pi, math.pi, 64, endpoint=False), math.inf
    while len(angles):
        z = radius * np.exp(1j * angles)
        best = inverse_lanczos(T, z).argmin()
        sigma = float(dense(A, z[[best]])[0])
        if sigma >= eps * (1 - 1e-14):
            break
        eps = sigma
        angles = _Set(A, T, eps).arcs(radius, float(angles[best])) if eps else angles[:0]
    return back(eps, exponent)


def kreiss_lower_bound(W: ArrayLike | Tensor, precision: float = ROUNDING) -> float:
    """K(W) = sup over |z| > 1 of (|z| - 1) / sigma_min(z I - W) = sup over eps of (rho_eps - 1) / eps, from below.

    K <= sup_k |W^k| <= e n K (Kreiss matrix theorem). K >= 1, with 1 if and only if the numerical radius is at most 1,
    as for normal W of rho <= 1; K is infinite for rho > 1. Stored in float32, an orthogonal matrix has rho = 1 + 1e-7:
    what exceeds 1 by at most `rounding_of_radius` counts as 1, and K is that of W / rho. Between, the best point of a
    polar grid is refined, and criss-cross at its eps looks for a better angle, until none is found: there may be a
    higher maximum at another eps. Where K is infinite although rho = 1 (a Jordan block on the unit circle) the value is
    only large. sigma_min counts as at least u |W|, u = 2.2e-16, beneath which it is rounding: the K of a long Jordan
    block may be far above that.

    Args:
        W: (n, n).
        precision: To which relative accuracy W's entries are what was meant.

    Raises:
        UserError: for a W that is not square, not finite or empty.

    Source: Trefethen and Embree 2005, chapter 18. Mitchell 2020 has a certified, much dearer method.
    """
    W = square(W)
    return kreiss_from_radius(W, spectral_radius(W), precision)


def kreiss_from_radius(W: NDArray[Any], spectral_radius: float, precision: float = ROUNDING) -> float:
    """`kreiss_lower_bound` where the spectral radius, which may be dear, is known."""
    slack = rounding_of_radius(len(W), precision)
    if spectral_radius > 1 + slack:
        return math.inf
    W = W / max(spectral_radius, 1.0)
    if numerical_radius(W) <= 1 + slack:
        return 1.0
    size = min(spectral_norm(W), _LARGEST)
    floor = ROUNDING * size  # under a defective eigenvalue on the circle, where K is infinite
    excess = np.geomspace(1e-6, 10 * size, 30)[:, None]
    angles = np.linspace(0, math.pi if np.isrealobj(W) else 2 * math.pi, 65)
    ratio = excess / np.maximum(smallest_singular_values(W, (1 + excess) * np.exp(1j * angles)), floor)
    place = np.unravel_index(ratio.argmax(), ratio.shape)
    radius, angle, best = 1 + excess[place[0], 0], angles[place[1]], 1.0
    while radius > 1:
        value, eps = _climb(W, radius, angle, floor)
        if value <= best * (1 + 1e-10):
            break
        best = value
        radius, angle = _outermost(W, eps)
    return best


def _climb(W: NDArray[Any], radius: float, angle: float, floor: float) -> tuple[float, float]:
    """A local maximum of (|z| - 1) / sigma_min(z I - W) over |z| > 1, and sigma_min there, at least ``floor``."""

    def negative_log(place: Real) -> tuple[float, Real]:
        turn, excess = np.exp(1j * place[1]), math.exp(place[0])
        z = (1 + excess) * turn
        sigma, d = _slope(W, z)
        sigma = max(sigma, floor)
        return math.log(sigma) - place[0], np.array([excess * (d * turn).real, (1j * d * z).real]) / sigma - (1, 0)

    found = minimize(
        negative_log, np.array([math.log(radius - 1), angle]), jac=True, method="BFGS", options={"gtol": 1e-8}
    )
    return math.exp(-found.fun), math.exp(found.fun + found.x[0])
