"""Short-time spectra of speech and their way back, as Wisdom et al. (2016) take them."""

from __future__ import annotations

from math import gcd
from typing import Any

import numpy as np
from numpy.typing import NDArray

FLOOR = 1e-5
"""Added to every squared magnitude, so that silence is -50 dB."""

Samples = NDArray[np.floating[Any]]


def resampled(samples: Samples, rate: int, to: int) -> Samples:
    """Samples at another rate, filtered as MATLAB's ``resample`` does (a Kaiser window of beta 5)."""
    from scipy.signal import resample_poly

    if rate == to:
        return samples
    shared = gcd(rate, to)
    result: Samples = resample_poly(samples.astype(np.float64), to // shared, rate // shared)
    return result


def hann(frame_length: int) -> NDArray[np.float64]:
    """The periodic Hann window: w_n = (1 - cos(2 pi n / N)) / 2."""
    return 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(frame_length) / frame_length)


def frame_count(samples: int, hop: int, frame_length: int) -> int:
    """How many frames `stft` gives."""
    return -(-samples // hop) + 1 + frame_length // hop


def stft(samples: Samples, frame_length: int = 256, hop: int = 128) -> NDArray[np.complex128]:
    """X_tk = sum_n w_n x_{tH + n} exp(-2 pi i k n / N), for k from 0 to N/2.

    x is the signal with N zeros before it, and behind it as many as make its length a multiple of the hop H, and N
    more.

    Args:
        samples: (S,).
        frame_length: N, a multiple of the hop.
        hop: H.

    Returns:
        (T, N/2 + 1), with T of `frame_count`.
    """
    filled = np.pad(samples.astype(np.float64), (frame_length, -len(samples) % hop + frame_length))
    frames = np.lib.stride_tricks.sliding_window_view(filled, frame_length)[::hop]
    result: NDArray[np.complex128] = np.fft.rfft(frames * hann(frame_length), axis=1)
    return result


def istft(spectrum: NDArray[np.complexfloating[Any, Any]], hop: int = 128) -> NDArray[np.float64]:
    """The signal whose `stft` is nearest to ``spectrum`` in the mean square (Griffin and Lim 1984): its inverse.

    Args:
        spectrum: (T, N/2 + 1).
        hop: H.

    Returns:
        (S,) without the zeros at both ends, but for those that made the length a multiple of the hop.
    """
    frames = np.fft.irfft(spectrum, axis=1)
    count, frame_length = frames.shape
    window = hann(frame_length)
    signal, weight = np.zeros((2, (count - 1) * hop + frame_length))
    for number, frame in enumerate(frames * window):
        signal[number * hop :][:frame_length] += frame
        weight[number * hop :][:frame_length] += window**2
    inner = slice(frame_length, len(signal) - frame_length)
    return signal[inner] / weight[inner]


def log_magnitude(spectrum: NDArray[np.complexfloating[Any, Any]]) -> NDArray[np.float32]:
    """10 log10(1e-5 + |X|^2), in dB."""
    squares = spectrum.real**2 + spectrum.imag**2
    result: NDArray[np.float32] = (10 * np.log10(FLOOR + squares)).astype(np.float32)
    return result


def magnitude(decibels: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    """The inverse of `log_magnitude`, 0 for what is below the floor. Wisdom's code leaves the floor in."""
    return np.sqrt(np.maximum(10 ** (decibels.astype(np.float64) / 10) - FLOOR, 0))


def rebuilt(decibels: NDArray[np.floating[Any]], spectrum: NDArray[np.complexfloating[Any, Any]], hop: int) -> Samples:
    """The signal of these log-magnitudes with the phase of the true spectrum; both (T, N/2 + 1)."""
    return istft(magnitude(decibels) * np.exp(1j * np.angle(spectrum)), hop)
