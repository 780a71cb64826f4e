"""Spectra against SciPy's and the defining sum; there and back again."""

import numpy as np
import pytest
from scipy import signal

from datamodules.spectrogram import frame_count, istft, log_magnitude, magnitude, rebuilt, resampled, stft


@pytest.fixture
def speech():
    """Two gliding tones and noise, with silence in between, 8 kHz; no multiple of the hop."""
    rng, t = np.random.default_rng(0), np.arange(9001) / 8000
    tones = 0.4 * np.sin(2 * np.pi * (200 * t + 150 * t**2)) + 0.2 * np.sin(2 * np.pi * 1100 * t)
    return np.where((t > 0.4) & (t < 0.6), 0, tones + 0.01 * rng.standard_normal(t.size))


@pytest.mark.parametrize(("frame", "hop"), [(256, 128), (256, 64), (32, 8)])
def test_stft_is_scipys(speech, frame, hop):
    """SciPy divides by the sum of the window, takes the same periodic Hann window, and here pads nothing."""
    whole = np.concatenate((np.zeros(frame), speech, np.zeros(-len(speech) % hop + frame)))
    options = {"window": "hann", "nperseg": frame, "noverlap": frame - hop, "boundary": None, "padded": False}
    expected = signal.stft(whole, **options)[2].T * frame / 2
    found = stft(speech, frame, hop)
    assert found.shape == expected.shape == (frame_count(len(speech), hop, frame), frame // 2 + 1)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12 * frame)


def test_stft_is_its_sum(speech):
    """One frame by the defining sum: frame t begins 256 zeros and t hops before the signal."""
    t, k, n = 5, 7, np.arange(256)
    window = np.sin(np.pi * n / 256) ** 2
    direct = (window * speech[128 * t - 256 + n] * np.exp(-2j * np.pi * k * n / 256)).sum()
    assert abs(stft(speech)[t, k] - direct) < 1e-12


@pytest.mark.parametrize("length", [1, 127, 128, 129, 1000])
def test_frames_cover_the_signal(length):
    """ceil(S / 128) + 3 frames: the first and the last see nothing but zeros, and the second the first sample."""
    frames = stft(np.ones(length))
    assert len(frames) == -(-length // 128) + 3 and not frames[[0, -1]].any() and frames[1].all()


@pytest.mark.parametrize(("frame", "hop"), [(256, 128), (256, 32)])
def test_istft_is_the_inverse(speech, frame, hop):
    back = istft(stft(speech, frame, hop), hop)
    assert len(back) == len(speech) + -len(speech) % hop
    np.testing.assert_allclose(back[: len(speech)], speech, rtol=0, atol=1e-12)
    np.testing.assert_allclose(back[len(speech) :], 0, atol=1e-12)


def test_istft_is_scipys_for_what_is_no_spectrum_of_a_signal(speech):
    rng = np.random.default_rng(1)
    changed = stft(speech) * rng.uniform(0.5, 2, (1, 129))
    with pytest.warns(UserWarning, match="NOLA"):  # of the ends, which are cut off
        whole = signal.istft(changed.T / 128, window="hann", nperseg=256, noverlap=128, boundary=False)[1]
    np.testing.assert_allclose(istft(changed), whole[256:-256], rtol=0, atol=1e-12)


def test_features_with_the_true_phase_are_the_signal(speech):
    """To 1e-4, from the float32 decibels that a network reads; the silence too, where the floor is all there is."""
    spectrum = stft(speech)
    features = log_magnitude(spectrum)
    assert features.dtype == np.float32 and features.min() == -50
    np.testing.assert_allclose(rebuilt(features, spectrum, 128)[: len(speech)], speech, rtol=0, atol=1e-4)


def test_decibels():
    """10 log10(1e-5 + |X|^2) by hand, and back; what is below the floor is silence."""
    found = log_magnitude(np.array([[0, 1, 3 + 4j, 1e-3]]))
    np.testing.assert_allclose(found[0], [-50, 4.343e-5, 13.9794, -49.5861], atol=1e-4)
    np.testing.assert_allclose(magnitude(found)[0], [0, 1, 5, 1e-3], atol=1e-6)
    assert magnitude(np.array([-80.0])) == 0


def test_resampling_keeps_a_tone_and_drops_what_would_alias():
    t = np.arange(16000) / 16000
    low, high = np.sin(2 * np.pi * 1000 * t), np.sin(2 * np.pi * 7000 * t)
    inner = slice(100, -100)
    np.testing.assert_allclose(resampled(low, 16000, 8000)[inner], low[::2][inner], atol=2e-3)
    assert np.abs(resampled(high, 16000, 8000)[inner]).max() < 1e-3
    assert len(resampled(np.zeros(2001), 16000, 8000)) == 1001 and resampled(low, 8000, 8000) is low
