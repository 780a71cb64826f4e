"""Named matrices whose spectra are known, and eigenvalues, norms and ranges by other ways than the library's."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[Any]


# -- matrices --------------------------------------------------------------------------------------


def jordan(n: int, eigenvalue: complex = 0.0, coupling: complex = 1.0) -> Matrix:
    return eigenvalue * np.eye(n) + coupling * np.eye(n, k=1)


def grcar(n: int) -> Matrix:
    return np.tri(n, k=3) - np.tri(n, k=-1) - np.eye(n, k=-1)


def shift(n: int) -> Matrix:
    return np.roll(np.eye(n), 1, axis=0)


def chain(n: int, alpha: float = 0.99, beta: float = 0.0) -> Matrix:
    """Feedback beta, if any, above the diagonal."""
    return alpha * np.eye(n, k=-1) + beta * np.eye(n, k=1)


def rotation(angle: float, r: float = 1.0) -> Matrix:
    return r * np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])


def gaussian(n: int, seed: int, complex_: bool = False) -> Matrix:
    """Ginibre: spectral radius near 1."""
    rng = np.random.default_rng(seed)
    W = rng.standard_normal((n, n))
    if complex_:
        W = (W + 1j * rng.standard_normal((n, n))) / math.sqrt(2)
    return W / math.sqrt(n)


def unitary(n: int, seed: int, complex_: bool = False) -> Matrix:
    """Haar: orthogonal, or unitary."""
    Q, R = np.linalg.qr(gaussian(n, seed, complex_))
    return Q * (np.diag(R) / np.abs(np.diag(R)))


def rotated(A: Matrix, seed: int, complex_: bool = True) -> Matrix:
    Q = unitary(len(A), seed, complex_)
    return Q @ A @ Q.conj().T


def first(n: int) -> Matrix:
    """The first unit vector, where a chain's signals enter."""
    return np.eye(n)[0]


# -- what is true of them --------------------------------------------------------------------------


def norm(W: Matrix) -> float:
    """The largest singular value."""
    return float(np.linalg.svd(W, compute_uv=False)[0])


def dense_sigma(W: Matrix, z: Any) -> NDArray[np.float64]:
    """sigma_min(z I - W) by a dense SVD in float64, at every z."""
    z = np.asarray(z, dtype=complex)
    return np.linalg.svd(z[..., None, None] * np.eye(len(W)) - W, compute_uv=False)[..., -1]
