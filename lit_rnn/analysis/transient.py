"""How far a matrix's powers rise before they fall."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from torch import Tensor

from datamodules.errors import require
from lit_rnn.analysis.arrays import Real, square
from lit_rnn.analysis.eigen import (
    eigenvalues_trusted,
    eigenvector_condition,
    numerical_radius,
    spectral_norm,
    spectral_radius,
)
from lit_rnn.analysis.pseudospectra import kreiss_lower_bound, pseudospectral_radius


class TransientGrowth(NamedTuple):
    """|W^k|_2 for k = 0 .. steps with its bounds; arrays (steps + 1,)."""

    norms: Real  # |W^k|
    spectral: Real  # rho^k, from below
    numerical: Real  # 2 w^k, from above (Berger)
    eigenvector: Real  # kappa(V) rho^k, from above; infinite where W is defective or float64's eigenvectors untrusted
    level_curve: Real  # min over some eps of rho_eps^(k+1) / eps, from above
    kreiss: float  # K from below, a lower bound of max_k |W^k| over all k
    kreiss_upper: float  # e n K: an upper bound of all |W^k| as far as K's lower bound is tight


def transient_growth(W: ArrayLike | Tensor, steps: int) -> TransientGrowth:
    """|W^k|_2 and what bounds it.

    The powers are normalised on the way, so that only the results overflow: beyond 1e308 they are infinite, below
    1e-308 zero.

    Args:
        W: (n, n).
        steps: The largest k.

    Raises:
        UserError: for a W that is not square, not finite or empty; for negative steps.
    """
    require(steps >= 0, "steps", steps, "a whole number of at least 0")
    W = square(W)
    k = np.arange(steps + 1)
    radius, size = spectral_radius(W), spectral_norm(W)
    kappa = eigenvector_condition(W) if eigenvalues_trusted(W) else math.inf
    kreiss = kreiss_lower_bound(W)
    levels = [size * 10.0**-j for j in range(1, 6)] if size else [1.0]
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        spectral = radius**k
        eigenvector = np.full(len(k), math.inf) if math.isinf(kappa) else kappa * spectral
        level_curve = np.min([pseudospectral_radius(W, eps) ** (k + 1.0) / eps for eps in levels], axis=0)
        numerical = 2 * numerical_radius(W) ** k
    return TransientGrowth(
        _norms_of_powers(W, steps), spectral, numerical, eigenvector, level_curve, kreiss, math.e * len(W) * kreiss
    )


def _norms_of_powers(W: Real, steps: int) -> Real:
    power, log_size, norms = np.eye(len(W)), 0.0, [1.0]
    for _ in range(steps):
        power = W @ power
        norm = spectral_norm(power)
        if norm == 0:
            return np.array(norms + [0.0] * (steps + 1 - len(norms)))
        power, log_size = power / norm, log_size + math.log(norm)
        norms.append(math.exp(log_size) if log_size < 709 else math.inf)
    return np.array(norms)
