"""Mel-frequency cepstral coefficients, as torchaudio's ``MFCC(log_mels=True)`` takes them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from datamodules.spectrogram import hann

COEFFICIENTS = 20
_FLOOR = 1e-6
_WINDOW, _MELS = 200, 64


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


def mfcc(samples: NDArray[np.floating[Any]], rate: int) -> NDArray[np.float32]:
    """The first 20 of a DCT-II, orthonormal, of ln(1e-6 + energy) of 64 mel filters, window by window.

    Windows have 200 samples, half of which overlap, are Hann's and centred: the signal is mirrored at both ends by half
    a window.

    Args:
        samples: (..., S).
        rate: Samples a second.

    Returns:
        (..., T, 20), with T = 1 + S / 100 rounded down.
    """
    from scipy.fft import dct

    half = _WINDOW // 2
    around = [(0, 0)] * (samples.ndim - 1) + [(half, half)]
    filled = np.pad(samples, around, mode="reflect")
    frames = np.lib.stride_tricks.sliding_window_view(filled, _WINDOW, axis=-1)[..., ::half, :]
    energy = np.abs(np.fft.rfft(frames * hann(_WINDOW))) ** 2 @ mel_filters(half + 1, rate, _MELS)
    result: NDArray[np.float32] = dct(np.log(_FLOOR + energy), norm="ortho")[..., :COEFFICIENTS].astype(np.float32)
    return result
