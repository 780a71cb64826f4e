"""Sound made of answers: its scores in closed form, its files, and what `test` and `predict` leave of it."""

from __future__ import annotations

import csv
import importlib.util
import io
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.io import wavfile

from lit_rnn.callbacks import listening
from lit_rnn.callbacks.listening import mean_scores, scores, sound, told

RATE = 8000
T = np.arange(2 * RATE) / RATE
HAS_STOI = importlib.util.find_spec("pystoi") is not None


def speech(rate: int, seed: int = 0) -> np.ndarray:
    """Two seconds of bursts of gliding tones: enough for STOI's frames."""
    t = np.arange(2 * rate) / rate
    tone = np.sin(2 * np.pi * (150 * t + 300 * t**2)) + 0.5 * np.sin(2 * np.pi * (900 * t - 100 * t**2))
    return 0.3 * tone * (1 + np.sin(2 * np.pi * 4 * t + seed)) / 2


@pytest.mark.parametrize("gain", [1.0, 0.2])
def test_si_sdr_is_the_ratio_of_what_is_parallel_and_what_is_not(gain: float) -> None:
    """a x + e with e orthogonal to x: 10 log10(a^2 |x|^2 / |e|^2), whatever the gain."""
    x, e = np.sin(2 * np.pi * 440 * T), np.cos(2 * np.pi * 440 * T)
    found = scores(x, gain * (x + 0.1 * e), RATE)["si_sdr"]
    assert found == pytest.approx(20, abs=1e-4)


@pytest.mark.skipif(not HAS_STOI, reason="pystoi is not installed: the extra speech")
def test_stoi_of_the_same_of_noise_and_of_what_is_too_short() -> None:
    x = speech(RATE)
    noise = np.random.default_rng(0).standard_normal(len(x))
    assert scores(x, x, RATE)["stoi"] == pytest.approx(1, abs=1e-3)
    assert scores(x, noise, RATE)["stoi"] < 0.5
    assert math.isnan(scores(x[:800], x[:800], RATE)["stoi"])


@pytest.mark.skipif(importlib.util.find_spec("pesq") is None, reason="pesq is not installed: it needs a C compiler")
def test_pesq_of_the_same() -> None:
    """4.549 is the most that the narrow-band scale gives."""
    x = speech(RATE)
    assert scores(x, x, RATE)["pesq"] == pytest.approx(4.549, abs=1e-3)
    assert "pesq" not in scores(x, x, 11_025)


def test_means_are_of_what_is_defined() -> None:
    rows = [{"utterance": "a", "si_sdr": 1.0, "stoi": float("nan")}, {"utterance": "b", "si_sdr": 4.0, "stoi": 0.5}]
    assert mean_scores(rows) == {"si_sdr": 2.5, "stoi": 0.5}
    assert math.isnan(mean_scores([{"utterance": "a", "si_sdr": float("nan")}])["si_sdr"])


def test_what_is_missing_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listening, "_has", lambda score: False)
    assert set(scores(speech(RATE), speech(RATE), RATE)) == {"si_sdr"}
    line = told({"si_sdr": 3.14159}, RATE)
    assert line == "SI-SDR 3.14 dB (STOI needs the package pystoi, PESQ needs the package pesq)"
    monkeypatch.setattr(listening, "_has", lambda score: True)
    assert told({"si_sdr": 1.0, "stoi": 0.5, "pesq": 2.0}, RATE) == "SI-SDR 1.00 dB, STOI 0.500, PESQ 2.00"
    assert told({"si_sdr": 1.0}, 11_025).endswith("(PESQ is of 8 or 16 kHz, and these are 11.025 kHz)")


@pytest.mark.parametrize(("samples", "softer"), [([0.0, 0.5, -1.0], 1), ([0.0, 1.0, -2.0], 2)])
def test_sound_is_16_bits_and_never_wraps(samples: list[float], softer: int) -> None:
    rate, found = wavfile.read(io.BytesIO(sound(np.array(samples), 8000)))
    assert rate == 8000 and found.tolist() == [round(32767 * x / softer) for x in samples]


def test_test_and_predict_leave_sound(cli: Any, config: Any, tmp_path: Path) -> None:
    for speaker in ("TRAIN/DR1/FCJF0", "TEST/DR1/FAKS0", "TEST/DR2/MDAB0"):
        folder = tmp_path / "disc" / speaker
        folder.mkdir(parents=True)
        for number, sentence in enumerate(("SA1", "SI648", "SX37")):
            samples = np.round(20_000 * speech(16_000, number)).astype(np.int16)
            wavfile.write(folder / f"{sentence}.WAV", 16_000, samples)
    data = {"class_path": "TIMIT", "init_args": {"root": "disc", "verify": False, "batch_size": 1}}
    call = ("-c", config(data=data), "--run_dir", "r")
    done = cli("fit", *call, "--trainer.max_epochs", 1)
    assert done.status == 0 and done.err == "" and not (tmp_path / "r/audio").exists(), done.err

    done = cli("test", *call, "--ckpt_path", "best")
    assert done.status == 0 and done.err == "", done.err
    assert "2 utterances with the true phase: SI-SDR" in done.out and "r/audio" in done.out
    names = ["dr2-mdab0-si648", "dr2-mdab0-sx37"]
    written = {path.name for path in (tmp_path / "r/audio").iterdir()}
    assert written == {"test.csv", *(f"test-{name}-{kind}.wav" for name in names for kind in ("true", "rebuilt"))}
    with open("r/audio/test.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["utterance"] for row in rows] == names and all(math.isfinite(float(row["si_sdr"])) for row in rows)
    rate, true = wavfile.read("r/audio/test-dr2-mdab0-si648-true.wav")
    recorded = wavfile.read("disc/TEST/DR2/MDAB0/SI648.WAV")[1][::2]  # nothing in it is above 4 kHz
    assert rate == 8000 and np.abs(true[100:-100] - recorded[100 : len(true) - 100]).max() < 100
    # the score in the file is that of the sounds in the folder
    rebuilt = wavfile.read("r/audio/test-dr2-mdab0-si648-rebuilt.wav")[1]
    again = scores(true / 32767, rebuilt / 32767, 8000)["si_sdr"]
    assert float(rows[0]["si_sdr"]) == pytest.approx(again, abs=0.1)

    done = cli("predict", *call, "--ckpt_path", "best", "--trainer.limit_predict_batches", 1)
    assert done.status == 0 and done.err == "", done.err
    assert "1 utterances" not in done.out and "1 utterance with the true phase" in done.out
    assert {path.name for path in (tmp_path / "r/audio").iterdir()} - written == {
        "val.csv",
        "val-dr1-faks0-si648-true.wav",
        "val-dr1-faks0-si648-rebuilt.wav",
    }
