"""What the answers to speech sound like, and how near they come to it."""

from __future__ import annotations

import importlib.util
import io
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from scipy.io import wavfile
from torch import Tensor
from torchmetrics.functional.audio import scale_invariant_signal_distortion_ratio

from datamodules import TIMIT
from datamodules.base import Split
from datamodules.batch import Parts
from lit_rnn.callbacks.recorded import is_recorded
from lit_rnn.files import make_folder, write_csv, write_file
from lit_rnn.loggers import show
from lit_rnn.models import SequenceModel

_KEPT = 3  # utterances as .wav
_WORDS = {"si_sdr": "SI-SDR {:.2f} dB", "stoi": "STOI {:.3f}", "pesq": "PESQ {:.2f}"}
_PACKAGES = {"stoi": "pystoi", "pesq": "pesq"}
_PESQ_MODES = {8_000: "nb", 16_000: "wb"}  # the only rates that it knows


class Listening(Callback):
    """At the end of ``test`` and ``predict``, rebuilds every utterance from the network's frames and the true phase.

    The run folder gets ``audio/``: ``test.csv`` or ``val.csv`` with the scores of all, and the first utterances as
    .wav, true and rebuilt. The means are printed, and go to the loggers with the sounds.

    Args:
        folder: Of the run.
        data: Whose utterances they are.
    """

    def __init__(self, folder: Path, data: TIMIT) -> None:
        self.folder, self.data = folder, data

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._listen(trainer, pl_module, "test", trainer.num_test_batches)

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._listen(trainer, pl_module, "val", trainer.num_predict_batches)

    def _listen(self, trainer: Trainer, model: LightningModule, name: Split, batches: list[int | float]) -> None:
        if not is_recorded(model, trainer):
            return
        data, folder = self.data, self.folder / "audio"
        split, spoken = data.split(name), data.recordings(name)
        count = min(len(split), int(sum(batches)) * data.batch_size * trainer.world_size)
        make_folder(folder, "run_dir")
        rows: list[dict[str, Any]] = []
        sounds: list[Path] = []
        for first in range(0, count, data.batch_size):
            indices = np.arange(first, min(first + data.batch_size, count))
            parts = Parts.of(split[indices])
            for number, frames in zip(indices, _answers(model, parts), strict=True):
                one = spoken[number]
                who = f"{one.dialect}-{one.speaker}-{one.sentence}"
                true, rebuilt = data.rebuilt(one.path, frames)
                rows.append({"utterance": who, **scores(true, rebuilt, data.sample_rate)})
                if number < _KEPT:
                    for kind, samples in (("true", true), ("rebuilt", rebuilt)):
                        sounds.append(folder / f"{name}-{who}-{kind}.wav")
                        write_file(sounds[-1], sound(samples, data.sample_rate))
        write_csv(folder / f"{name}.csv", rows)
        means = mean_scores(rows)
        many = f"{len(rows):,} utterance{'s' if len(rows) > 1 else ''}"
        print(f"{many} with the true phase: {told(means, data.sample_rate)}; {folder}", flush=True)
        show.sounds(trainer, f"audio/{name}", sounds)
        show.result(trainer, {f"{name}/{key}": value for key, value in means.items()})


def _answers(model: SequenceModel, parts: Parts) -> list[np.ndarray]:
    """The outputs of each sequence at its real steps."""
    moved = parts.to(model.device)
    with torch.no_grad(), model.without_dropout():
        outputs = model(moved.inputs, moved.lengths).float().cpu().numpy()
    ends = [outputs.shape[1]] * len(outputs) if parts.lengths is None else parts.lengths.tolist()
    return [frames[:end] for frames, end in zip(outputs, ends, strict=True)]


def scores(true: np.ndarray, rebuilt: np.ndarray, rate: int) -> dict[str, float]:
    """What torchmetrics says of a signal beside the true one; NaN where a score is not defined, as in silence.

    ``si_sdr``, the scale-invariant signal-to-distortion ratio in dB (Le Roux et al. 2019); ``stoi``, the short-time
    objective intelligibility (Taal et al. 2011), if pystoi is installed; ``pesq`` (ITU-T P.862), if pesq is, for
    signals of 8 or 16 kHz.

    Args:
        true: (S,).
        rebuilt: (S,).
        rate: Samples a second.
    """
    pair = torch.from_numpy(rebuilt), torch.from_numpy(true)
    found = {"si_sdr": float(scale_invariant_signal_distortion_ratio(*pair))}
    if _has("stoi"):
        found["stoi"] = _defined(_stoi, pair, rate)
    if _has("pesq") and rate in _PESQ_MODES:
        found["pesq"] = _defined(_pesq, pair, rate)
    return found


def _has(score: str) -> bool:
    return importlib.util.find_spec(_PACKAGES[score]) is not None


def _stoi(pair: tuple[Tensor, Tensor], rate: int) -> Tensor:
    from torchmetrics.functional.audio.stoi import short_time_objective_intelligibility

    return short_time_objective_intelligibility(*pair, rate)


def _pesq(pair: tuple[Tensor, Tensor], rate: int) -> Tensor:
    from torchmetrics.functional.audio.pesq import perceptual_evaluation_speech_quality

    return perceptual_evaluation_speech_quality(*pair, rate, _PESQ_MODES[rate])


def _defined(score: Any, pair: tuple[Tensor, Tensor], rate: int) -> float:
    """A score, or NaN where its package refuses the signal, or warns that it is too short."""
    with warnings.catch_warnings():
        warnings.filterwarnings("error", "Not enough STFT frames")  # else it is 1e-5
        try:
            return float(score(pair, rate))
        except (RuntimeError, RuntimeWarning):  # pesq finds no speech, or too little
            return float("nan")


def mean_scores(rows: list[dict[str, Any]]) -> dict[str, float]:
    """The mean of every score over the utterances that have it."""
    columns = {key: np.array([row[key] for row in rows]) for key in rows[0] if key != "utterance"}
    return {key: float(np.nanmean(one)) if np.isfinite(one).any() else float("nan") for key, one in columns.items()}


def told(means: dict[str, float], rate: int) -> str:
    """The means in one line, and what is missing for the others."""
    shown = [_WORDS[key].format(value) for key, value in means.items()]
    missing = [f"{score.upper()} needs the package {name}" for score, name in _PACKAGES.items() if not _has(score)]
    if "pesq" not in means and _has("pesq"):
        missing.append(f"PESQ is of 8 or 16 kHz, and these are {rate / 1000:g} kHz")
    return ", ".join(shown) + (f" ({', '.join(missing)})" if missing else "")


def sound(samples: np.ndarray, rate: int) -> bytes:
    """A RIFF file of 16-bit samples; softer as a whole where some are beyond 1."""
    loudest = max(1.0, float(np.abs(samples).max()))
    file = io.BytesIO()
    wavfile.write(file, rate, np.round(samples / loudest * 32767).astype(np.int16))
    return file.getvalue()
