"""Mel-frequency cepstral coefficients, as torchaudio's ``MFCC(log_mels=True)`` takes them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from datamodules.spectrogram import hann

_FLOOR = 1e-6


def mel_filters(bins: int, rate: int, mels: int) -> NDArray[np.float64]:
    """(bins, mels) triangles, from 0 to half the rate, whose corners are equally far apart in mel.

    A frequency of f hertz has 2595 log10(1 + f / 700) mel, as in HTK.
    """
    highest = 2595 * np.log10(1 + rate / 2 / 700)
    corners = 700 * (10 ** (np.linspace(0, highest, mels + 2) / 2595) - 1)
    hertz = np.linspace(0, rate / 2, bins)[:, None]
    low, middle, high = corners[:-2], corners[1:-1], corners[2:]
    rising, falling = (hertz - low) / (middle - low), (high - hertz) / (high - middle)
    result: NDArray[np.float64] = np.maximum(0, np.minimum(rising, falling))
    return result


def mfcc(
    samples: NDArray[np.floating[Any]], rate: int, coefficients: int = 20, mels: int = 64, frame_length: int = 200
) -> NDArray[np.float32]:
    """DCT-II, orthonormal, of ln(1e-6 + mel energy) of windows half of which overlap.

    The windows are Hann's and centred: the signal is mirrored at both ends by half a window.

    Args:
        samples: (..., S).
        rate: Samples a second.
        coefficients: How many of the cosine transform are kept.
        mels: How many mel filters there are.
        frame_length: N, samples in a window.

    Returns:
        (..., T, coefficients), with T = 1 + S / (N/2) rounded down.
    """
    from scipy.fft import dct

    half = frame_length // 2
    around = [(0, 0)] * (samples.ndim - 1) + [(half, half)]
    filled = np.pad(samples, around, mode="reflect")
    frames = np.lib.stride_tricks.sliding_window_view(filled, frame_length, axis=-1)[..., ::half, :]
    energy = np.abs(np.fft.rfft(frames * hann(frame_length))) ** 2 @ mel_filters(half + 1, rate, mels)
    result: NDArray[np.float32] = dct(np.log(_FLOOR + energy), norm="ortho")[..., :coefficients].astype(np.float32)
    return result
