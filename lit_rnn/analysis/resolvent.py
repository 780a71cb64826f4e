"""The smallest singular value of z I - W at many z, which is one over the norm of the resolvent there."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from datamodules.errors import require, whole
from lit_rnn.analysis.arrays import ROUNDING, Complex, Real, array, near_one, square, times_power_of_two
from lit_rnn.analysis.nonnormal import schur

MEMORY = 256 * 2**20  # bytes
BESIDE = 1e17  # W of norm 1 added to so much is lost to rounding

_WIDEST = 1024  # columns that stay in the cache's reach
_VECTORS = 12  # of n complex numbers that one z takes on its way
_BLOCK = 16  # rows of a triangular solve between two matrix products
_SPREAD = 0.1  # how much of every direction the Lanczos process starts with
_MOST = 64  # steps


def smallest_singular_values(
    W: ArrayLike | Tensor,
    z: ArrayLike | Tensor,
    method: Literal["lanczos", "svd"] = "lanczos",
    memory: int = MEMORY,
) -> Real:
    """sigma_min(z I - W) = 1 / |(z I - W)^-1|_2 for every z, an array of z's shape.

    ``lanczos``: W = U T U^H once, then for all z together the Lanczos process on ((z I - T)^H (z I - T))^-1, whose
    largest Ritz value is sigma_min^-2. All triangular solves share T, so they are matrix products of T's rows with the
    unknowns of every z. The relative error is below 1e-3, mostly below 1e-8 (`_residual`), down to a floor of rounding
    at about n u |W|, u = 2.2e-16: beneath it, the Schur form is that of another matrix. That of a triangular matrix,
    in any order of its units, is exact and has no floor. ``svd``: one dense SVD for each z, the oracle; same floor.

    Args:
        W: (n, n), real or complex. Where it is real, z and its conjugate are computed once.
        z: Any shape.
        method: ``lanczos`` or ``svd``.
        memory: Bytes that the work may take beside z, the result, a few copies of W and LAPACK's workspace; z is taken
            in as many parts as that needs.

    Raises:
        UserError: for a W that is not square, not finite or empty; a z that is not finite; too little memory for one z.

    Cost for each z O(n^2) a step and mostly 10 to 30 steps; O(n^3) for ``svd``. Source: Lui 1997; Trefethen 1999.
    """
    require(method in ("lanczos", "svd"), "method", method, "lanczos or svd")
    memory = whole(memory, "memory", 1)
    W, places = square(W), array(z, "z").astype(np.complex128)
    different, inverse = places.ravel(), np.arange(places.size)
    if np.isrealobj(W):
        different, inverse = np.unique(different.real + 1j * np.abs(different.imag), return_inverse=True)
    A, exponent = scaled(W)
    moved, sigma = times_power_of_two(different, -exponent), np.abs(different)
    near = np.abs(moved) < BESIDE
    moved = moved[near]
    found = inverse_lanczos(schur(A)[0], moved, memory) if method == "lanczos" else dense(A, moved, memory)
    sigma[near] = times_power_of_two(found, exponent)
    return sigma[inverse].reshape(places.shape)


def scaled(W: NDArray[Any]) -> tuple[NDArray[Any], int]:
    """A and e with W = A 2^e and |A|_F from 1/2 to 1, exactly, so that a tolerance is a share of the norm."""
    A, exponent = near_one(W)
    more = math.frexp(float(np.linalg.norm(A)))[1]
    return times_power_of_two(A, -more), exponent + more


def _in_parts(find: Callable[[Complex], Real], z: Complex, each: int, memory: int) -> Real:
    """``find`` of z (P,), as many at once as fit if one takes ``each`` bytes."""
    require(memory >= each, "memory", memory, f"at least {each} bytes, which one z takes")
    chunk = min(memory // each, _WIDEST)
    return np.concatenate([np.zeros(0), *(find(z[i : i + chunk]) for i in range(0, len(z), chunk))])


def dense(W: NDArray[Any], z: Complex, memory: int = MEMORY) -> Real:
    """sigma_min(z I - W) for z (P,) by dense SVDs."""

    def find(z: Complex) -> Real:
        return np.linalg.svd(z[:, None, None] * np.eye(len(W)) - W, compute_uv=False)[:, -1]

    return _in_parts(find, z, 48 * len(W) ** 2, memory)


def inverse_lanczos(T: Complex, z: Complex, memory: int = MEMORY) -> Real:
    """sigma_min(z I - T) for z (P,), T upper triangular of norm about 1."""
    if np.linalg.norm(np.triu(T, 1)) <= len(T) * ROUNDING:
        return np.array([np.abs(place - np.diagonal(T)).min() for place in z])
    L = np.ascontiguousarray(T.conj().T)
    sigma = _in_parts(lambda part: _lanczos(T, L, part), z, 16 * len(T) * _VECTORS, memory)
    slow = np.isnan(sigma)
    sigma[slow] = dense(T, z[slow], memory)
    return sigma


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


def _lanczos(T: Complex, L: Complex, z: Complex) -> Real:
    """`inverse_lanczos` of one part of z, NaN where it has not converged; L = T^H.

    It starts near the unit vector of the nearest diagonal entry, which is the singular vector where T is diagonal.
    No reorthogonalisation: it would only keep copies of a Ritz value away, and the largest is all that is asked for.
    """
    n, gaps = len(T), z - np.diagonal(T)[:, None]
    sigma, live = np.full(len(z), np.nan), np.arange(len(z))
    generator = np.random.default_rng(0)
    start = generator.standard_normal((n, 1)) + 1j * generator.standard_normal((n, 1))
    v = np.repeat(_SPREAD * start / np.linalg.norm(start), len(z), axis=1)
    v[np.abs(gaps).argmin(0), live] += 1
    v /= np.sqrt(_squares(v))
    before, theta, tail, beta = np.zeros_like(v), *np.zeros((3, len(z)))
    alphas, betas = list[Real](), list[Real]()
    with np.errstate(all="ignore"):  # sigma below 1e-77 overflows, and is 0
        inverse = 1 / gaps
        product = np.empty((_BLOCK, len(z)), dtype=np.complex128)
        for step in range(1, _MOST + 1):
            w = v.copy()
            _solve(L, inverse.conj(), w, product, upper=False)
            alphas.append(_squares(w))
            _solve(T, inverse, w, product, upper=True)
            w -= alphas[-1] * v
            w -= beta * before
            theta, tail = _largest_ritz(alphas, betas, theta, tail)
            beta = np.sqrt(_squares(w))
            betas.append(beta)
            lost = ~np.isfinite(alphas[-1] + beta)
            done = lost | (beta * tail <= _residual(step) * theta) & (theta > 0)
            sigma[live[done]] = np.where(lost, 0.0, theta**-0.5)[done]
            go = ~done & np.isfinite(theta)
            live = live[go]
            if not len(live):
                break
            v, before = w / beta, v
            if not go.all():
                v, before, inverse, product = v[:, go], before[:, go], inverse[:, go], product[:, go]
                theta, tail, beta = theta[go], tail[go], beta[go]
                alphas, betas = [alpha[go] for alpha in alphas], [beta[go] for beta in betas]
    return sigma


def _residual(step: int) -> float:
    """How large the Ritz residual may be, as a share of the Ritz value; twice the relative error of sigma, at most.

    Mostly the error is the square of that. Only dense clusters of singular values are slow to separate, where a wrong
    one is nearly right: what takes longer need not be as sharp.
    """
    return 1e-6 * 10 ** (max(step - 16, 0) / 16)


def _largest_ritz(alphas: list[Real], betas: list[Real], theta: Real, tail: Real) -> tuple[Real, Real]:
    """Each column's largest Ritz value and the last entry of its vector, from those one step before.

    The last pivot of the Lanczos matrix minus x I is convex and falls, from its pole at the old value to its zero at
    the new one, so Newton's method climbs from the zero of that pole alone.
    """
    if not betas:
        return alphas[-1], np.ones_like(theta)
    half, coupling = (alphas[-1] - theta) / 2, betas[-1] * tail
    root = np.hypot(half, coupling)
    x = theta + np.where(half > 0, half + root, coupling * (coupling / (root - half)))
    for _ in range(20):
        pivot, slope = alphas[0] - x, np.full_like(x, -1.0)
        for alpha, beta in zip(alphas[1:], betas, strict=True):
            ratio = beta / pivot
            pivot, slope = alpha - x - beta * ratio, ratio * ratio * slope - 1
        change = pivot / slope
        x = x - change
        if not (np.abs(change) > 1e-13 * x).any():
            break
    return x, np.sqrt(-1 / slope)
