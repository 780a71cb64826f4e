"""How far a matrix's powers rise before they fall."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from datamodules.errors import whole
from lit_rnn.analysis.arrays import ROUNDING, Real, back, near_one, square
from lit_rnn.analysis.eigen import eigenvector_condition, numerical_radius, spectral_norm, spectral_radius
from lit_rnn.analysis.pseudospectra import kreiss_from_radius, pseudospectral_radius

_LEVELS = np.geomspace(1e-5, 1, 6)  # eps as a share of |W|
_MOST_CONDITION = 1e8  # of eigenvectors in float64


class TransientGrowth(NamedTuple):
    """|W^k|_2 for k = 0 .. steps and what bounds it; arrays are (steps + 1,)."""

    norms: Real  # |W^k|
    spectral: Real  # from below: rho^k
    numerical: Real  # from above: 2 w^k, w the numerical radius (Berger)
    eigenvector: Real  # from above: kappa(V) rho^k; infinite where kappa(V) > 1e8, as for a defective W
    level_curve: Real  # from above: the least of rho_eps^(k+1) / eps over six eps from 1e-5 |W| to |W|
    kreiss: float  # K from below, hence below the largest |W^k| over all k
    kreiss_upper: float  # e n K, above every |W^k| if K is as large as its lower bound says


def transient_growth(W: ArrayLike | Tensor, steps: int, precision: float = ROUNDING) -> TransientGrowth:
    """|W^k|_2 and its bounds, to be drawn together.

    Powers are normalised on their way and bounds are taken through logarithms: results beyond 1e308 are infinite,
    those below 1e-308 zero, and nothing else overflows. For rho > 1 the norms grow for ever and K is infinite.

    Args:
        W: (n, n).
        steps: The largest k.
        precision: To which relative accuracy W's entries are what was meant; see `kreiss_lower_bound`.

    Raises:
        UserError: for a W that is not square, not finite or empty; for steps that are no whole number of at least 0.

    Cost: steps SVDs and matrix products, six criss-crosses, `kreiss_lower_bound`: a second or two at n = 100, more
    where eigenvalues need high precision. Source: Trefethen and Embree 2005, chapters 14 to 18.
    """
    steps = whole(steps, "steps")
    W = square(W)
    A, exponent = near_one(W)
    k = np.arange(steps + 1)
    radius, kappa, size = spectral_radius(A), eigenvector_condition(A, precision), spectral_norm(A)
    kreiss = kreiss_from_radius(W, back(radius, exponent), precision)

    def powers(base: float, divisor: float = 1.0) -> Real:
        return _powers(base, exponent, k, divisor)

    reach = {eps: pseudospectral_radius(A, eps) for eps in (size or 1.0) * _LEVELS}
    return TransientGrowth(
        norms=_norms_of_powers(A, exponent, steps),
        spectral=powers(radius),
        numerical=powers(numerical_radius(A), 1 / 2),
        eigenvector=powers(radius, 1 / kappa) if kappa <= _MOST_CONDITION else np.full(len(k), math.inf),
        level_curve=np.min([powers(rho, eps / rho) for eps, rho in reach.items()], axis=0),
        kreiss=kreiss,
        kreiss_upper=math.e * len(W) * kreiss,
    )


def _powers(base: float, exponent: int, k: NDArray[np.int64], divisor: float) -> Real:
    """(base 2^exponent)^k / divisor; infinite or zero where it overflows or underflows."""
    if base == 0:
        return np.where(k == 0, 1 / divisor, 0.0)
    with np.errstate(over="ignore"):
        return np.exp(k * (math.log(base) + exponent * math.log(2)) - math.log(divisor))


def _norms_of_powers(A: NDArray[Any], exponent: int, steps: int) -> Real:
    """|(A 2^exponent)^k| for k = 0 .. steps."""
    power, logarithms = np.eye(len(A)), np.full(steps + 1, -math.inf)
    logarithms[0] = 0
    for k in range(1, steps + 1):
        power = A @ power
        norm = spectral_norm(power)
        if norm == 0:
            break
        power = power / norm
        logarithms[k] = logarithms[k - 1] + math.log(norm) + exponent * math.log(2)
    with np.errstate(over="ignore"):
        return np.exp(logarithms)
