"""Matrices of many-bit numbers (Arb, through python-flint), for where float64 is not enough."""

from __future__ import annotations

from typing import Any

import flint
from numpy.typing import NDArray


def matrix(A: NDArray[Any]) -> Any:
    """A NumPy matrix or vector (as a column), its doubles taken as exact."""
    rows = A if A.ndim == 2 else A[:, None]
    return flint.acb_mat([[flint.acb(float(z.real), float(z.imag)) for z in row] for row in rows])


def adjoint(A: Any) -> Any:
    """A^H."""
    return A.transpose().conjugate()


def largest(A: Any) -> Any:
    """The largest modulus of an entry, from above, which a double may be too small for."""
    return max(abs(z).abs_upper() for z in A.entries())


def sum_of_powers(W: Any, middle: Any, floor: Any) -> Any:
    """sum_{k >= 0} W^k M (W^k)^H by doubling: S <- S + P S P^H, P <- P^2 with P = W^(2^i).

    Done where what is added is below 1e-20 of M, whose eigenvalues are at least ``floor``, in every direction.
    """
    total, power = middle, W
    for _ in range(64):
        more = power * total * adjoint(power)
        total = total + more
        if W.nrows() * largest(more) <= 1e-20 * floor:
            break
        power = power * power
    return total


def trace(A: Any) -> Any:
    """Sum of the diagonal's real parts."""
    return sum(A[i, i].real for i in range(A.nrows()))
