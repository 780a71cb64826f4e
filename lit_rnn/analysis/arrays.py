"""What goes in: NumPy or torch arrays, checked, in double precision."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from datamodules.errors import require

Real = NDArray[np.float64]
Complex = NDArray[np.complex128]

ROUNDING = float(np.finfo(np.float64).eps)


def array(given: ArrayLike | torch.Tensor, name: str) -> NDArray[Any]:
    """float64, or complex128 where complex; finite numbers only."""
    if isinstance(given, torch.Tensor):
        given = given.detach().cpu()
        given = given.to(torch.complex128 if given.is_complex() else torch.float64).numpy()
    values = np.asarray(given)
    values = values.astype(np.complex128 if np.iscomplexobj(values) else np.float64)
    require(bool(np.isfinite(values).all()), name, "an array with NaN or infinity in it", "finite")
    return values


def square(W: ArrayLike | torch.Tensor, name: str = "W") -> NDArray[Any]:
    """A finite (n, n) matrix, n >= 1."""
    values = array(W, name)
    ok = values.ndim == 2 and values.shape[0] == values.shape[1] > 0
    require(ok, name, f"an array of shape {values.shape}", "a square matrix (n, n) with n at least 1")
    return values


def times_power_of_two(values: NDArray[Any], exponent: int | NDArray[np.integer]) -> NDArray[Any]:
    """values 2^exponent, exact but for overflow and underflow; real or complex."""
    with np.errstate(over="ignore", under="ignore"):
        if np.iscomplexobj(values):
            parts = np.ascontiguousarray(values).view(np.float64)
            return np.ldexp(parts, exponent).view(np.complex128)
        return np.ldexp(values, exponent)


def frobenius(values: NDArray[Any]) -> float:
    """sqrt(sum |a_ij|^2), whose squares neither overflow nor vanish."""
    A, exponent = near_one(values)
    return back(float(np.linalg.norm(A)), exponent)


def near_one(values: NDArray[Any]) -> tuple[NDArray[Any], int]:
    """A and e with values = A 2^e and A's largest entry about 1, exactly: so that no square overflows or vanishes.

    LAPACK's eigenvalues need it too: those of 1e150 [[0, 1], [-1, 0]] came out as 1.5e138.
    """
    exponent = math.frexp(float(_sizes(values).max(initial=0.0)))[1]
    return times_power_of_two(values, -exponent), exponent


def each_near_one(values: NDArray[Any]) -> tuple[NDArray[Any], NDArray[np.integer]]:
    """The same of each matrix in (..., n, n), with the exponents (...)."""
    exponents = np.frexp(_sizes(values).max((-2, -1)))[1]
    return times_power_of_two(values, -exponents[..., None, None]), exponents


def _sizes(values: NDArray[Any]) -> Real:
    """The larger of real and imaginary part: the modulus may overflow."""
    return np.maximum(np.abs(values.real), np.abs(values.imag))


def back(value: float, exponent: int) -> float:
    """value 2^exponent, infinite where that overflows."""
    return float(times_power_of_two(np.array(value), exponent))


def vector(v: ArrayLike | torch.Tensor, n: int, name: str = "v") -> NDArray[Any]:
    """A finite vector (n,)."""
    values = array(v, name)
    require(values.shape == (n,), name, f"an array of shape {values.shape}", f"a vector ({n},)")
    return values
