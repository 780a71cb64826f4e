"""Matrices of many-bit numbers (Arb, through python-flint), for where float64 is not enough."""

from __future__ import annotations

from typing import Any

import flint
import numpy as np
from numpy.typing import NDArray


def matrix(A: NDArray[Any]) -> Any:
    """A NumPy matrix or vector (as a column), its doubles taken as exact."""
    rows = A if A.ndim == 2 else A[:, None]
    return flint.acb_mat([[flint.acb(float(z.real), float(z.imag)) for z in row] for row in rows])


def numpy(A: Any) -> NDArray[np.complex128]:
    """Back to doubles."""
    return np.array([complex(z) for z in A.entries()]).reshape(A.nrows(), A.ncols())


def adjoint(A: Any) -> Any:
    """A^H."""
    return A.transpose().conjugate()


def sum_of_powers(W: Any, middle: Any) -> Any:
    """sum_{k >= 0} W^k M (W^k)^H by doubling: S <- S + P S P^H, P <- P^2 with P = W^(2^i)."""
    total, power = middle, W
    for _ in range(64):
        more = power * total * adjoint(power)
        total = total + more
        if np.abs(numpy(more)).max() <= 1e-20 * np.abs(numpy(total)).max():
            break
        power = power * power
    return total
