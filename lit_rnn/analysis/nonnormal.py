"""How far a matrix is from normal, and which way its signals flow."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import scipy.linalg
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from datamodules.errors import whole
from lit_rnn.analysis.arrays import Complex, Real, back, frobenius, near_one, square, times_power_of_two, vector
from lit_rnn.analysis.eigen import Precision, eigenvalues, eigenvalues_trusted, irreducible_blocks


def schur(W: ArrayLike | Tensor) -> tuple[Complex, Complex]:
    """T upper triangular and U unitary with W = U T U^H.

    Taken block by block (`irreducible_blocks`), so that a chain in any order of its units comes out exactly. Where
    `eigenvalues_trusted` is false, T's diagonal is as wrong as any eigenvalue in float64. Cost O(n^3).
    """
    A, exponent = near_one(square(W))
    blocks = irreducible_blocks(A)
    U = np.zeros(A.shape, dtype=np.complex128)
    start = 0
    for block in blocks:
        part = scipy.linalg.schur(A[np.ix_(block, block)], output="complex")[1]
        U[block, start : start + len(block)] = part
        start += len(block)
    T = U.conj().T @ A @ U
    return times_power_of_two(np.triu(T), exponent), U


def henrici(W: ArrayLike | Tensor, normalized: bool = False, precision: Precision = "auto") -> float:
    """Henrici's departure from normality, d(W) = sqrt(|W|_F^2 - sum |lambda_i|^2); 0 if and only if W is normal.

    Also the Frobenius norm of the strictly upper part of the Schur form, which is how it is computed wherever float64's
    eigenvalues can be trusted: the difference would cancel. Elsewhere the eigenvalues are found in high precision.

    Args:
        W: (n, n).
        normalized: d(W) / |W|_F, in [0, 1]; 1 for a chain. Orhan and Pitkow 2020 do not normalise.
        precision: See `eigenvalues`; ``double`` warns where it cannot be trusted.

    Source: Henrici 1962; Orhan and Pitkow 2020, section 4.
    """
    A, exponent = near_one(square(W))
    size = float(np.linalg.norm(A))
    if precision in ("auto", "high") and not eigenvalues_trusted(A):
        departure = _departure(A, precision)
    else:
        eigenvalues(A, precision)  # refuses an unknown precision, and warns
        departure = frobenius(np.triu(schur(A)[0], 1))
    return departure / size if normalized and size else back(departure, exponent)


def _departure(A: NDArray[Any], precision: Precision) -> float:
    """Block by block, as what is in one may be lost next to another's eigenvalues."""
    parts, outside = [], np.abs(A)
    for block in irreducible_blocks(A):
        inside = np.ix_(block, block)
        outside[inside] = 0.0
        B, exponent = near_one(A[inside])
        if eigenvalues_trusted(B):
            part = frobenius(np.triu(schur(B)[0], 1))
        else:
            values = np.abs(eigenvalues(B, precision))
            part = math.sqrt(max(float(np.linalg.norm(B)) ** 2 - float((values**2).sum()), 0.0))
        parts.append(back(part, exponent))
    return math.hypot(*parts, frobenius(outside))


def feedforward_profile(W: ArrayLike | Tensor) -> Real:
    """Frobenius norm of the d-th superdiagonal of the Schur form's T, for d = 0 (the eigenvalues) to n - 1.

    The squares add up to |W|_F^2, those from d = 1 on to henrici(W)^2. The distribution over d >= 1 depends on the
    order of the eigenvalues that the Schur form takes; the sum does not.
    """
    A, exponent = near_one(square(W))
    T, _ = schur(A)
    return times_power_of_two(np.array([frobenius(np.diagonal(T, d)) for d in range(len(T))]), exponent)


def commutator_norm(W: ArrayLike | Tensor, normalized: bool = True) -> float:
    """|W W^H - W^H W|_F, over |W|_F^2 where ``normalized``; 0 if and only if W is normal."""
    A, exponent = near_one(square(W))
    size = float(np.linalg.norm(A)) ** 2
    norm = float(np.linalg.norm(A @ A.conj().T - A.conj().T @ A))
    return norm / size if normalized and size else back(norm, 2 * exponent)


def hidden_chain_profile(
    W: ArrayLike | Tensor, v: ArrayLike | Tensor, steps: int = 100, seed: int = 0
) -> tuple[NDArray[np.int64], Real]:
    """Which way activity runs through W: the mean weight by distance in the order in which units peak.

    A pulse v at time 0, then h_t = W h_{t-1}; units are sorted by the time of their largest |h| (ties by a seeded
    shuffle, silent units last), and W_ij is averaged over all pairs with the same difference i - j of places. A chain
    fed at its source has a single peak at i - j = 1.

    Args:
        W: (n, n).
        v: (n,), the pulse: a column of the input matrix, say.
        steps: How long the network runs on its own.
        seed: Orders units that peak together.

    Returns:
        The differences -(n - 1) to n - 1, and the mean weight at each.

    Source: Rajan, Harvey and Tank 2016; Orhan and Pitkow 2020, section 4.
    """
    steps, seed = whole(steps, "steps"), whole(seed, "seed")
    A, exponent = near_one(square(W))
    n = len(A)
    h, scale = near_one(vector(v, n))
    course = np.full((steps + 1, n), -math.inf)  # log2 |h|, of which no double is too small or too large
    for t in range(steps + 1):
        with np.errstate(divide="ignore"):  # log 0
            course[t] = np.log2(np.abs(h)) + scale
        h, grown = near_one(A @ h)
        scale += exponent + grown
    peak = np.where(np.isfinite(course).any(0), course.argmax(0), steps + 1)
    order = np.lexsort((np.random.default_rng(seed).permutation(n), peak))
    sorted_A = A[np.ix_(order, order)]
    offsets = np.arange(-(n - 1), n)
    return offsets, times_power_of_two(np.array([np.diagonal(sorted_A, -d).mean() for d in offsets]), exponent)
