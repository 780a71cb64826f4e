"""Pseudospectra: where a matrix's eigenvalues go when the matrix is perturbed a little, and what follows for its powers.

sigma_eps(W) = {z : sigma_min(z I - W) <= eps}, the union of the eigenvalues of W + E over all complex |E|_2 <= eps.
Trefethen and Embree 2005, "Spectra and Pseudospectra".
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import numpy as np
import scipy.linalg
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import minimize
from torch import Tensor

from datamodules.errors import require
from lit_rnn.analysis.arrays import Complex, Real, array, square
from lit_rnn.analysis.eigen import eigenvalues, numerical_range, spectral_radius
from lit_rnn.analysis.nonnormal import schur

MEMORY = 256 * 2**20  # bytes
_ROUNDING = float(np.finfo(np.float64).eps)


class Pseudospectrum(NamedTuple):
    """sigma[i, j] = sigma_min((x[j] + i y[i]) I - W): its level curves are the borders of sigma_eps(W)."""

    x: Real  # (points,)
    y: Real  # (points,)
    sigma: Real  # (points, points)


# ---- the smallest singular value of z I - W at many z


def smallest_singular_values(
    W: ArrayLike | Tensor,
    z: ArrayLike | Tensor,
    method: Literal["lanczos", "svd"] = "lanczos",
    memory: int = MEMORY,
) -> Real:
    """sigma_min(z I - W) = 1 / |(z I - W)^-1|_2 for every z, an array of z's shape.

    ``lanczos``: W = U T U^H once, then for all z together the Lanczos process on ((z I - T)^H (z I - T))^-1, whose
    largest Ritz value is sigma_min^-2; the triangular solves share T, so they are matrix products. Relative error below
    1e-6, above a floor of rounding at about n u |W| with u = 2.2e-16: below it the Schur form is wrong, and what comes
    out is no more than small (the Schur form of a chain, in any order of its units, is exact and has no floor).
    ``svd``: one dense SVD per z, the oracle; the same floor.

    Args:
        W: (n, n), real or complex. Where it is real, z and its conjugate are computed once.
        z: Any shape.
        method: ``lanczos`` or ``svd``.
        memory: Bytes that the work may take beside z and the result; points are taken in as many parts as that needs.

    Raises:
        UserError: for a W that is not square, not finite or empty; a z that is not finite; too little memory for one z.

    Cost per z O(n^2) a step, 10 to 30 steps; O(n^3) for ``svd``. Source: Lui 1997; Trefethen 1999.
    """
    require(method in ("lanczos", "svd"), "method", method, "lanczos or svd")
    W, points = square(W), array(z, "z").astype(np.complex128)
    shape = points.shape
    points, inverse = points.ravel(), None
    if np.isrealobj(W):
        points, inverse = np.unique(points.real + 1j * np.abs(points.imag), return_inverse=True)
    values = _singular_values(W, points, method, memory)
    return (values if inverse is None else values[inverse]).reshape(shape)


def _singular_values(W: NDArray[Any], z: Complex, method: str, memory: int) -> Real:
    n = len(W)
    each = 16 * n * (_VECTORS if method == "lanczos" else 2 * n)  # bytes
    chunk = min(memory // each, _WIDEST)
    require(chunk >= 1, "memory", memory, f"at least {each} bytes, which one z takes")
    scale = float(np.linalg.norm(W))
    if scale == 0:
        return np.abs(z)
    find: Callable[[Complex], Real]
    if method == "svd":
        find = lambda part: np.linalg.svd(part[:, None, None] * np.eye(n) - W, compute_uv=False)[:, -1]  # noqa: E731
    else:
        T = schur(W)[0] / scale
        find = lambda part: scale * _inverse_lanczos(T, part / scale)  # noqa: E731
    return np.concatenate([find(z[i : i + chunk]) for i in range(0, len(z), chunk)] or [np.zeros(0)])


_WIDEST = 1024  # columns that stay in the cache's reach
_VECTORS = 10  # of n complex numbers that each point takes in _inverse_lanczos
_BLOCK = 16  # rows of a triangular solve between two matrix products
_RESIDUAL = 1e-6  # of the Ritz value; its error is the square of that over the gap
_CHECK, _MOST = 4, 80  # steps


def _solve(T: Complex, inverse: Complex, x: Complex, product: Complex, upper: bool) -> None:
    """x[:, p] <- (diag(1 / inverse[:, p]) - T's strict triangle)^-1 x[:, p], all columns at once, in place."""
    n, sign = len(T), -1 if upper else 1
    for start in range(0, n, _BLOCK)[::sign]:
        rows = range(start, min(start + _BLOCK, n))
        done = slice(rows.stop, n) if upper else slice(0, start)
        if done.start < done.stop:
            part = product[: len(rows)]
            np.matmul(T[start : rows.stop, done], x[done], out=part)
            x[start : rows.stop] += part
        for i in rows[::sign]:
            near = slice(i + 1, rows.stop) if upper else slice(start, i)
            if near.start < near.stop:
                x[i] += T[i, near] @ x[near]
            x[i] *= inverse[i]


def _squares(x: Complex) -> Real:
    """|x[:, p]|^2 of every column."""
    return np.einsum("ip,ip->p", x.real, x.real) + np.einsum("ip,ip->p", x.imag, x.imag)


def _inverse_lanczos(T: Complex, z: Complex) -> Real:
    """sigma_min(z I - T) for z (P,), T upper triangular of norm about 1.

    No reorthogonalisation: it would only keep copies of a Ritz value away, and the largest is all that is asked for.
    """
    n, L = len(T), np.ascontiguousarray(T.conj().T)
    sigma, live = np.full(len(z), np.nan), np.arange(len(z))
    generator = np.random.default_rng(0)
    start = generator.standard_normal((n, 1)) + 1j * generator.standard_normal((n, 1))
    v = np.repeat(start / np.linalg.norm(start), len(z), axis=1)
    before, beta = np.zeros_like(v), np.zeros(len(z))
    alphas, betas = np.zeros((0, len(z))), np.zeros((0, len(z)))
    with np.errstate(all="ignore"):  # sigma below 1e-154 overflows, and is 0
        inverse = 1 / (z - np.diagonal(T)[:, None])
        product = np.empty((_BLOCK, len(z)), dtype=np.complex128)
        for step in range(1, _MOST + 1):
            w = v.copy()
            _solve(L, inverse.conj(), w, product, upper=False)
            alpha = _squares(w)
            _solve(T, inverse, w, product, upper=True)
            w -= alpha * v + beta * before
            beta = np.sqrt(_squares(w))
            alphas, betas = np.vstack((alphas, alpha)), np.vstack((betas, beta))
            w *= np.where(beta > 1e-13 * alphas.max(0), 1 / beta, 0)  # 0: an invariant subspace is complete
            v, before = w, v
            if step % _CHECK == 0:
                values, done = _largest_ritz(alphas, betas)
                sigma[live[done]] = values[done]
                live, go = live[~done], ~done
                if not len(live):
                    break
                v, before, inverse, product = v[:, go], before[:, go], inverse[:, go], product[:, go]
                alphas, betas, beta = alphas[:, go], betas[:, go], beta[go]
    return sigma


def _largest_ritz(alphas: Real, betas: Real) -> tuple[Real, NDArray[np.bool_]]:
    """sigma from the largest Ritz value of each column's Lanczos matrix, and whether it has converged."""
    steps, points = alphas.shape
    matrix, i = np.zeros((points, steps, steps)), np.arange(steps)
    matrix[:, i, i], matrix[:, i[1:], i[:-1]] = alphas.T, betas[:-1].T
    lost = ~np.isfinite(matrix).all((1, 2))
    matrix[lost] = np.eye(steps)
    values, vectors = np.linalg.eigh(matrix)
    largest = values[:, -1]
    residual = betas[-1] * np.abs(vectors[:, -1, -1])
    return np.where(lost, 0.0, largest**-0.5), lost | (residual <= _RESIDUAL * largest)


def pseudospectrum(
    W: ArrayLike | Tensor,
    points: int = 100,
    box: tuple[float, float, float, float] | None = None,
    memory: int = MEMORY,
) -> Pseudospectrum:
    """sigma_min(z I - W) on a grid of points x points.

    Args:
        W: (n, n).
        points: Per axis.
        box: (left, right, bottom, top); None takes the square that holds the numerical range, hence the eigenvalues, and
            the unit circle, with a margin.
        memory: See `smallest_singular_values`.

    Show no contour below about 1e-13 |W|: it would be rounding.
    """
    require(points >= 2, "points", points, "a whole number of at least 2")
    W = square(W)
    left, right, bottom, top = _box(W) if box is None else box
    require(left < right and bottom < top, "box", box, "(left, right, bottom, top) with left < right and bottom < top")
    x, y = np.linspace(left, right, points), np.linspace(bottom, top, points)
    if bottom == -top:
        y = (y - y[::-1]) / 2  # symmetric to the last bit, so that conjugates are found
    return Pseudospectrum(x, y, smallest_singular_values(W, x + 1j * y[:, None], memory=memory))


def _box(W: NDArray[Any]) -> tuple[float, float, float, float]:
    touched = np.concatenate((numerical_range(W, 4), [1, -1, 1j, -1j]))
    left, right, bottom, top = touched.real.min(), touched.real.max(), touched.imag.min(), touched.imag.max()
    half = 1.15 * max(right - left, top - bottom) / 2
    x = (left + right) / 2
    y = 0.0 if np.isrealobj(W) else (bottom + top) / 2
    return x - half, x + half, y - half, y + half


# ---- how far the pseudospectrum reaches


def pseudospectral_radius(W: ArrayLike | Tensor, eps: float) -> float:
    """rho_eps(W) = max |z| over sigma_eps(W); rho + eps <= rho_eps <= |W| + eps, with rho + eps where W is normal.

    Criss-cross: along a ray, the outermost point of sigma_eps from a Hamiltonian-like eigenproblem of size 2n; around
    the circle through it, all arcs inside sigma_eps from a pencil's eigenvalues on the unit circle; on from their
    middles until there are none. It sees every arc, so the maximum is the global one, and it needs no eigenvalue of W.

    Args:
        W: (n, n).
        eps: 0 or positive; 0 gives `spectral_radius`.

    Raises:
        UserError: for a W that is not square, not finite or empty; a negative or infinite eps.

    Cost a few dense eigenproblems of size 2n. Source: Mengi and Overton 2005.
    """
    W = _checked(W, eps)
    return spectral_radius(W) if eps == 0 else _outermost(W, eps)[0]


def pseudospectral_abscissa(W: ArrayLike | Tensor, eps: float) -> float:
    """alpha_eps(W) = max Re z over sigma_eps(W), for step maps in continuous time; 0 gives the spectral abscissa.

    Criss-cross as in `pseudospectral_radius`, along horizontal and vertical lines. Source: Burke, Lewis and Overton
    2003.
    """
    W = _checked(W, eps)
    return float(eigenvalues(W).real.max()) if eps == 0 else _rightmost(W, eps)[0]


def _checked(W: ArrayLike | Tensor, eps: float) -> NDArray[Any]:
    require(0 <= eps < math.inf, "eps", eps, "0 or positive, and finite")
    return square(W)


# What follows works on matrices scaled to |W|_F = 1, so that a tolerance is a share of the norm.

_NEAR = 1e-5  # of the unit circle or the axis: an eigenvalue this near may lie on it, sigma decides


def _scaled(W: NDArray[Any]) -> tuple[NDArray[Any], float]:
    scale = float(np.linalg.norm(W))
    return (W / scale, scale) if scale else (W, 1.0)


def _slope(W: NDArray[Any], z: complex) -> tuple[float, complex]:
    """sigma_min(z I - W) and d = u^H v of its singular vectors: d sigma = Re(d dz)."""
    U, sigma, Vh = np.linalg.svd(z * np.eye(len(W)) - W)
    return float(sigma[-1]), complex(U[:, -1].conj() @ Vh[-1].conj())


def _reach(W: NDArray[Any], eps: float, least: float) -> float:
    """The largest real x with sigma_min(x I - W) = eps, given that one is not below ``least``.

    x is an eigenvalue of [[W, eps I], [eps I, W^H]] wherever eps is a singular value of x I - W; beyond the last such x
    sigma_min is larger. Newton's method takes the rounding of that eigenproblem away.
    """
    side = eps * np.eye(len(W))
    values = np.linalg.eigvals(np.block([[W, side], [side, W.conj().T]]))
    real = values.real[np.abs(values.imag) <= _NEAR]
    for x in (*np.sort(real[real > least])[::-1], least):
        sigma, d = _slope(W, x)
        if sigma <= eps * (1 + 1e-6) + _floor(W):
            break
    for _ in range(8):
        if d.real <= 0 or abs(change := (eps - sigma) / d.real) <= 1e-15:
            break
        further, slope = _slope(W, x + change)
        if abs(further - eps) >= abs(sigma - eps):
            break
        x, sigma, d = x + change, further, slope
    return float(x)


def _floor(W: NDArray[Any]) -> float:
    """Rounding of sigma_min where |W|_F = 1."""
    return 4 * _ROUNDING * len(W)


def _middles(T: Complex, eps: float, point: Callable[[Real], Complex], borders: Real, period: float | None) -> Real:
    """Middles of the arcs inside sigma_eps, the deepest first."""

    def depth(places: Real) -> Real:
        return eps - _inverse_lanczos(T, point(places)) if len(places) else places

    borders = np.sort(borders)
    borders = borders[depth(borders) <= 1e-6 * eps + 100 * _floor(T)]  # others are no crossings of sigma_min
    ends = borders if period is None else np.append(borders, borders[:1] + period)
    middles = (ends[1:] + ends[:-1]) / 2
    inside = depth(middles)
    order = np.argsort(-inside)
    return middles[order][inside[order] > 1e-13 * eps + _floor(T)]


def _arcs(A: NDArray[Any], T: Complex, eps: float, radius: float, at: float) -> Real:
    """Angles of the middles of the circle's arcs inside sigma_eps, the deepest first; ``at`` is a border known."""
    identity, zero = np.eye(len(A)), np.zeros(A.shape)
    pencil = np.block([[A, eps * identity], [zero, radius * identity]])
    other = np.block([[radius * identity, zero], [eps * identity, A.conj().T]])
    with np.errstate(all="ignore"):  # infinite eigenvalues
        w = scipy.linalg.eigvals(pencil, other)
    w = w[np.isfinite(w) & (np.abs(np.abs(w) - 1) <= _NEAR)]
    borders = np.append(np.angle(w), at)
    return _middles(T, eps, lambda angles: radius * np.exp(1j * angles), borders, 2 * math.pi)


def _outermost(W: NDArray[Any], eps: float) -> tuple[float, float]:
    """Radius and angle of the outermost point of sigma_eps."""
    A, scale = _scaled(W)
    if not A.any():
        return eps, 0.0
    eps, T = eps / scale, schur(A)[0]

    def ray(angle: float, least: float) -> float:
        turned = A if angle == 0 else -A if abs(angle) == math.pi else np.exp(-1j * angle) * A
        return _reach(turned, eps, least)

    leading = np.diagonal(T)[np.abs(np.diagonal(T)).argmax()]
    angle = float(np.angle(leading))
    radius = ray(angle, abs(leading))
    while True:
        found = [(ray(middle, radius), middle) for middle in _arcs(A, T, eps, radius, angle)[:3]]
        if not found or max(found)[0] <= radius * (1 + _ROUNDING):
            return scale * radius, angle
        radius, angle = max(found)


def _rightmost(W: NDArray[Any], eps: float) -> tuple[float, float]:
    """Real and imaginary part of the rightmost point of sigma_eps."""
    A, scale = _scaled(W)
    if not A.any():
        return eps, 0.0
    eps, T, identity = eps / scale, schur(A)[0], np.eye(len(A))

    def line(y: float, least: float) -> float:
        return _reach(A - 1j * y * identity if y else A, eps, least)

    leading = np.diagonal(T)[np.diagonal(T).real.argmax()]
    y = float(leading.imag)
    x = line(y, float(leading.real))
    while True:
        shifted = A - x * identity
        values = np.linalg.eigvals(np.block([[shifted, eps * identity], [-eps * identity, -shifted.conj().T]]))
        borders = np.append(values.imag[np.abs(values.real) <= _NEAR], y)
        middles = _middles(T, eps, lambda ys: x + 1j * ys, borders, None)
        found = [(line(middle, x), middle) for middle in middles[:3]]
        if not found or max(found)[0] <= x + _ROUNDING:
            return scale * x, scale * y
        x, y = max(found)


# ---- what that means for powers


def distance_to_instability(W: ArrayLike | Tensor) -> float:
    """beta(W) = min over theta of sigma_min(e^{i theta} I - W): the smallest |E|_2 that moves an eigenvalue out.

    For rho(W) < 1: rho_eps = 1 at eps = beta, and beta = 1 - rho where W is normal. For rho(W) >= 1 it is 0: W needs no
    perturbation. Complex E: a real W may be further from a real unstable matrix. Level sets: the best angle so far
    gives an upper bound, every arc of the unit circle below it is found at once, and their middles give the next.

    Raises:
        UserError: for a W that is not square, not finite or empty.

    Source: Byers 1988; Boyd and Balakrishnan 1990.
    """
    W = square(W)
    if spectral_radius(W) >= 1:
        return 0.0
    A, scale = _scaled(W)
    T, radius = schur(A)[0], 1 / scale
    angles = np.linspace(-math.pi, math.pi, 64, endpoint=False)
    eps = math.inf
    while len(angles):
        sigma = _inverse_lanczos(T, radius * np.exp(1j * angles))
        if sigma.min() >= eps:
            break
        eps, angle = float(sigma.min()), float(angles[sigma.argmin()])
        angles = _arcs(A, T, eps, radius, angle)
    return scale * eps


def kreiss_lower_bound(W: ArrayLike | Tensor) -> float:
    """K(W) = sup over |z| > 1 of (|z| - 1) / sigma_min(z I - W) = sup over eps of (rho_eps - 1) / eps, from below.

    K <= sup_k |W^k| <= e n K (Kreiss matrix theorem). K >= 1, with 1 for normal W of rho <= 1; infinite for rho > 1.
    The supremum has many local maxima: the best of a polar grid is refined, and criss-cross at its eps looks for a
    better angle, until none is found. Where K is infinite although rho = 1 (a Jordan block on the unit circle), the
    value is only large.

    Raises:
        UserError: for a W that is not square, not finite or empty.

    Source: Trefethen and Embree 2005, chapter 18; Mitchell 2020 has a certified and much dearer method.
    """
    W = square(W)
    size = float(np.linalg.norm(W))
    if spectral_radius(W) > 1 + 10 * len(W) * _ROUNDING * max(size, 1):
        return math.inf
    angles = np.linspace(0, math.pi if np.isrealobj(W) else 2 * math.pi, 65)
    excess = np.geomspace(1e-6, 2 * max(size, 1), 25)
    z = (1 + excess[:, None]) * np.exp(1j * angles)
    ratio = excess[:, None] / smallest_singular_values(W, z)
    place = np.unravel_index(ratio.argmax(), ratio.shape)
    best, log_excess, angle = 0.0, math.log(excess[place[0]]), angles[place[1]]
    while True:
        value, eps = _climb(W, log_excess, angle)
        if value <= best * (1 + 1e-12):
            return max(1.0, best)
        best = value
        radius, angle = _outermost(W, eps)
        if radius <= 1:
            return max(1.0, best)
        log_excess = math.log(radius - 1)


def _climb(W: NDArray[Any], log_excess: float, angle: float) -> tuple[float, float]:
    """A local maximum of (|z| - 1) / sigma_min(z I - W) from |z| - 1 = exp(log_excess), and sigma_min there."""

    def negative_log(place: Real) -> tuple[float, Real]:
        turn = np.exp(1j * place[1])
        z = (1 + math.exp(place[0])) * turn
        sigma, d = _slope(W, z)
        gradient = [1 - math.exp(place[0]) * (d * turn).real / sigma, -(d * 1j * z).real / sigma]
        return math.log(sigma) - place[0], -np.array(gradient)

    found = minimize(negative_log, np.array([log_excess, angle]), jac=True, method="BFGS", options={"gtol": 1e-9})
    return math.exp(-found.fun), math.exp(found.fun + found.x[0])
