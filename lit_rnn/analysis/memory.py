"""What a linear network remembers: Fisher memory, and linear decoders."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import scipy.linalg
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from datamodules.errors import as_seed, one_of, require, whole
from lit_rnn.activations import NONLINEARITIES, Nonlinearity
from lit_rnn.analysis.arrays import Real, back, near_one, square, times_power_of_two, vector
from lit_rnn.analysis.eigen import is_nilpotent, spectral_radius

_WELL_CONDITIONED = 1e10  # leaves six digits
_BITS, _MOST_BITS = 384, 2**14
_SETTLED = 1e-10


def _sum_of_powers(W: NDArray[Any], middle: NDArray[Any], floor: float) -> NDArray[Any]:
    """sum_{k >= 0} W^k M (W^k)^H by doubling: S <- S + P S P^H, P <- P^2 with P = W^(2^i).

    Done where what is added is below rounding of M, whose eigenvalues are at least ``floor``, in every direction: next
    to the largest entry alone, a part that dies slowly could be cut off behind one that is amplified and gone.
    """
    total, power = middle, W
    with np.errstate(over="ignore", invalid="ignore"):  # what is not finite is left to more than doubles
        for _ in range(64):
            more = power @ total @ power.conj().T
            total = total + more
            if len(W) * np.abs(more).max() <= 1e-17 * floor:
                break
            power = power @ power
    return total


def _stable(W: ArrayLike | Tensor) -> NDArray[Any]:
    W = square(W)
    if not is_nilpotent(W):
        radius = spectral_radius(W)
        require(
            radius < 1,
            "W",
            f"a matrix with spectral radius {radius:.6g}",
            "one with a spectral radius below 1, or nilpotent: otherwise noise accumulates without bound",
        )
    return W


def _covariance(W: NDArray[Any]) -> tuple[NDArray[Any], bool]:
    """C of noise 1, and whether float64 can invert it."""
    C = _sum_of_powers(W, np.eye(len(W)), 1.0)
    return C, bool(np.isfinite(C).all() and np.linalg.cond(C) < _WELL_CONDITIONED)


def _bits(W: NDArray[Any]) -> int:
    """For the range of C's entries, which grow as powers of W do."""
    return _BITS + 4 * len(W) * max(0, near_one(W)[1] - 1)


def fisher_memory_curve(W: ArrayLike | Tensor, v: ArrayLike | Tensor, horizon: int, noise: float = 1.0) -> Real:
    """J(k) = v^T (W^k)^T C^-1 W^k v, C = noise sum_{m >= 0} W^m (W^m)^T, for k = 0 .. horizon - 1.

    How much the state of h_t = W h_{t-1} + v s_t + z_t, z ~ N(0, noise I), tells about the signal k steps ago. The
    sum over all k is |v|^2 / noise for every normal W, and at most n times that. For complex W and v ^T reads ^H; the
    noise is then that of Re z and of Im z each. Where the noise adds up too unevenly for float64 to invert C (strong
    feedback along a long chain), Arb does it with as many bits as its bounds of the error ask for, mostly 384: seconds
    at n = 100. Near the unit circle W's own rounding shows, by about 1e-16 / (1 - rho) of J.

    Args:
        W: (n, n), with a spectral radius below 1, or nilpotent (a chain of any gain).
        v: (n,), how the signal enters.
        horizon: How many lags.
        noise: Variance of the noise.

    Raises:
        UserError: where C diverges, or 16,384 bits are too few.

    Source: Ganguli, Huh and Sompolinsky 2008; Orhan and Pitkow 2020, section 2.
    """
    horizon = whole(horizon, "horizon", 1)
    require(0 < noise < math.inf, "noise", noise, "positive and finite")
    W = _stable(W)
    signal, exponent = near_one(vector(v, len(W)))
    share, halving = math.frexp(noise)
    exponents = np.full(horizon, exponent)
    C, invertible = _covariance(W)
    if invertible:
        (A, step), signals = near_one(W), [signal]
        for lag in range(1, horizon):
            signal, grown = near_one(A @ signal)
            signals.append(signal)
            exponents[lag] = exponents[lag - 1] + step + grown
        columns = np.stack(signals, axis=1)
        curve = (columns.conj() * scipy.linalg.solve(C, columns, assume_a="pos")).sum(0).real
    else:
        curve = _curve_in_high_precision(W, signal, horizon)
    return times_power_of_two(curve / share, 2 * exponents - halving)


def total_fisher_memory(W: ArrayLike | Tensor, v: ArrayLike | Tensor, noise: float = 1.0) -> float:
    """J_tot = sum over all k of `fisher_memory_curve`, exactly: v^T (sum_k (W^k)^T C^-1 W^k) v. Cost O(n^3)."""
    require(0 < noise < math.inf, "noise", noise, "positive and finite")
    W = _stable(W)
    signal, exponent = near_one(vector(v, len(W)))
    C, invertible = _covariance(W)
    if invertible:
        inverse = scipy.linalg.solve(C, np.eye(len(W)), assume_a="pos")
        all_lags = _sum_of_powers(W.conj().T, inverse, 1 / float(np.trace(C).real))
        total = float((signal.conj() @ all_lags @ signal).real)
    else:
        total = _total_in_high_precision(W, signal)
    share, halving = math.frexp(noise)
    return back(total / share, 2 * exponent - halving)


def _curve_in_high_precision(W: NDArray[Any], v: NDArray[Any], horizon: int) -> Real:
    from lit_rnn.analysis import exact  # needs flint: slow to import, and rarely needed

    def curve() -> list[Any]:
        A, signal = exact.matrix(W), exact.matrix(v)
        inverse = exact.sum_of_powers(A, exact.matrix(np.eye(len(W))), 1).inv()
        found = []
        for _ in range(horizon):
            found.append((exact.adjoint(signal) * inverse * signal)[0, 0].real)
            signal = A * signal
        return found

    return _with_enough_bits(curve, _bits(W))


def _total_in_high_precision(W: NDArray[Any], v: NDArray[Any]) -> float:
    from lit_rnn.analysis import exact  # needs flint: slow to import, and rarely needed

    def total() -> list[Any]:
        A, signal = exact.matrix(W), exact.matrix(v)
        C = exact.sum_of_powers(A, exact.matrix(np.eye(len(W))), 1)
        all_lags = exact.sum_of_powers(exact.adjoint(A), C.inv(), 1 / exact.trace(C))
        return [(exact.adjoint(signal) * all_lags * signal)[0, 0].real]

    return float(_with_enough_bits(total, _bits(W))[0])


def _with_enough_bits(find: Callable[[], list[Any]], bits: int) -> Real:
    """What ``find`` gives, with twice the bits until Arb's bounds of its errors are small."""
    import flint

    while True:
        with flint.ctx.workprec(bits):
            try:
                found = find()
            except ZeroDivisionError:  # not invertible, as far as these bits tell
                found = []
            values, errors = (np.array([float(part) for part in parts]) for parts in _balls(found))
        if len(found) and (errors <= _SETTLED * np.abs(values) + 1e-20 * np.abs(values).max()).all():
            return values
        require(
            bits < _MOST_BITS,
            "W",
            f"a matrix whose noise {bits:,} bits do not tell apart",
            "one nearer to normal: its powers grow and cancel too much for its Fisher memory to be computed",
        )
        bits = min(2 * bits, _MOST_BITS)


def _balls(found: list[Any]) -> tuple[list[Any], list[Any]]:
    """Middles and radii."""
    return [one.mid() for one in found], [one.rad() for one in found]


def decoder_memory(
    W: ArrayLike | Tensor,
    v: ArrayLike | Tensor,
    lags: Sequence[int],
    nonlinearity: Nonlinearity = "identity",
    noise: float = 0.0,
    steps: int | None = None,
    samples: int = 4_000,
    ridge: float = 1e-10,
    seed: int = 0,
) -> Real:
    """R^2 with which a linear decoder reads s_{T-k} from h_T, for each lag k, on samples it was not fitted to.

    h_t = f(W h_{t-1} + v s_t + z_t) from h_0 = 0, with s_t ~ N(0, 1) and z_t ~ N(0, noise I); half of the samples fit a
    ridge regression, the other half measure it. The paper says neither the signal's law nor the noise nor the
    fit: these are our choices.

    Args:
        W: (n, n), real.
        v: (n,), how the signal enters.
        lags: The k, each from 0 to steps - 1.
        nonlinearity: f: identity, elu, relu, leaky_relu or tanh.
        noise: Variance of the noise in the state; 0 for none.
        steps: T; None takes the larger of n and the largest lag + 1.
        samples: Independent sequences.
        ridge: Penalty, as a share of the mean eigenvalue of the states' covariance.
        seed: Seeds signals and noise.

    Returns:
        (len(lags),); 1 is perfect, 0 or less is nothing.

    Raises:
        UserError: for complex W or v, options out of range, and states that overflow.

    Source: Orhan and Pitkow 2020, figure 2.
    """
    W = square(W)
    n = len(W)
    v = vector(v, n)
    require(bool(np.isrealobj(W) and np.isrealobj(v)), "W, v", "complex", "real: [Re | Im] of a complex network")
    require(np.ndim(lags) == 1 and len(lags) > 0, "lags", lags, "a list of at least one lag")
    lags = [whole(lag, "lags") for lag in lags]
    steps = max(n, *(lag + 1 for lag in lags)) if steps is None else whole(steps, "steps", 1)
    require(max(lags) < steps, "lags", lags, f"lags from 0 to {steps - 1}")
    one_of(nonlinearity, "nonlinearity", NONLINEARITIES)
    require(0 <= noise < math.inf, "noise", noise, "0 or positive, and finite")
    require(0 <= ridge < math.inf, "ridge", ridge, "0 or positive, and finite")
    samples = whole(samples, "samples", 4)
    generator = torch.Generator().manual_seed(as_seed(seed))
    f = NONLINEARITIES[nonlinearity]
    recurrent, source = torch.from_numpy(W), torch.from_numpy(v)
    signals = torch.randn(steps, samples, generator=generator, dtype=torch.float64)
    h = torch.zeros(samples, n, dtype=torch.float64)
    for s in signals:
        z = torch.randn(h.shape, generator=generator, dtype=h.dtype) * noise**0.5 if noise else 0.0
        h = f(h @ recurrent.mT + s[:, None] * source + z)
    grown = f"a matrix whose states a double cannot hold after {steps} steps"
    require(bool(h.isfinite().all()), "W", grown, "one that amplifies less, or fewer steps")
    half = samples // 2
    wanted = signals.flip(0)[lags].mT.numpy()  # row k of the flipped signals is s_{T-k}
    states, _ = near_one(h.numpy())  # R^2 does not change, and no square overflows
    mean, mean_wanted = states[:half].mean(0), wanted[:half].mean(0)
    fitted = states[:half] - mean
    gram = fitted.T @ fitted
    gram += ridge * np.trace(gram) / n * np.eye(n)
    decoder = np.linalg.lstsq(gram, fitted.T @ (wanted[:half] - mean_wanted), rcond=None)[0]
    test = wanted[half:]
    error = ((states[half:] - mean) @ decoder + mean_wanted - test) ** 2
    return 1 - error.sum(0) / ((test - test.mean(0)) ** 2).sum(0)
