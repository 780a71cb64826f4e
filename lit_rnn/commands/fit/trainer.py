"""What every run of the command line carries: loggers, checkpoints and callbacks."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import Any

import torch
from lightning_fabric.plugins.io import CheckpointIO, TorchCheckpointIO
from pytorch_lightning import Callback
from pytorch_lightning.callbacks import LearningRateMonitor, ModelCheckpoint, ProgressBar
from pytorch_lightning.loggers import Logger

from datamodules import TIMIT, SequenceDataModule, TextDataModule
from datamodules.errors import require
from lit_rnn import callbacks, optim
from lit_rnn.files import write_file
from lit_rnn.loggers import WandbDashboard, outlast
from lit_rnn.models import SequenceModel, read_checkpoint
from lit_rnn.models.objectives import better
from lit_rnn.runs.checkpoints import best_checkpoint, last_checkpoint, previous_checkpoint
from lit_rnn.runs.metrics import MetricsCSV
from lit_rnn.runs.options import listed


def run_loggers(folder: Path, chosen: Any, command: str, name: str) -> list[Logger] | bool:
    """metrics.csv first, then what the config names; ``trainer.logger: false`` leaves none.

    metrics.csv is the curve of training: other commands do not touch it.
    """
    if chosen is False:
        return False
    others = [] if chosen is True else listed(chosen)
    for logger in others:
        outlast(logger)
        if isinstance(logger, WandbDashboard):
            logger.belong(folder, name)
    return [MetricsCSV(folder), *others] if command == "fit" else others or False


class CheckedCheckpoints(TorchCheckpointIO):
    """Writes a checkpoint whole or not at all, and reads it as `read_checkpoint` does.

    What a run goes on from is what was checked; torch puts a CRC-32 of every part into the file. A write that fails
    raises, where Lightning's own goes on without a word. Of ``last.ckpt`` the one before is kept.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None) -> None:
        buffer = io.BytesIO()
        torch.save(checkpoint, buffer)
        Path(path).parent.mkdir(parents=True, exist_ok=True)  # a ModelCheckpoint of the config may name any
        last, previous = last_checkpoint(self.folder), previous_checkpoint(self.folder)
        write_file(Path(path), buffer.getbuffer(), previous if Path(path) == last else None)

    def remove_checkpoint(self, path: Any) -> None:
        """One file of this disk, as `save_checkpoint` writes: Lightning's own would remove ``local:///home`` whole."""
        Path(path).unlink(missing_ok=True)

    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: bool | None = None) -> dict[str, Any]:
        return read_checkpoint(path)


def run_plugins(folder: Path, chosen: Any) -> list[Any]:
    """What the config names, and `CheckedCheckpoints` unless that brings another way to read checkpoints."""
    named = listed(chosen)
    return named if any(isinstance(plugin, CheckpointIO) for plugin in named) else [*named, CheckedCheckpoints(folder)]


def draws_bar(trainer: dict[str, Any]) -> bool:
    """Whether the config names a progress bar, or there is a terminal for one and the config wants it."""
    return trainer["enable_progress_bar"] is not False and (names_bar(trainer) or sys.stdout.isatty())


def names_bar(trainer: dict[str, Any]) -> bool:
    return any(isinstance(callback, ProgressBar) for callback in chosen(trainer))


def chosen(trainer: dict[str, Any]) -> list[Any]:
    """The callbacks that the config names."""
    return listed(trainer["callbacks"])


def run_callbacks(folder: Path, model: SequenceModel, trainer: dict[str, Any], command: str) -> list[Callback]:
    """The callbacks of ``command`` on this folder, model and trainer config."""
    checkpoints = last_checkpoint(folder).parent
    watching: list[Callback] = [
        # first: the table goes below the bar
        callbacks.Progress() if draws_bar(trainer) and not names_bar(trainer) else callbacks.EpochLines(),
        callbacks.Header(),
        callbacks.Drift(),
        callbacks.FiniteLoss(last_checkpoint(folder)),
        callbacks.TaskPicture(folder),
        callbacks.SpectrumPicture(folder),
        callbacks.StatePicture(folder),
        callbacks.LengthPicture(folder),
        callbacks.PredictionFile(folder),
        callbacks.Summary(folder),
    ]
    if not any(isinstance(callback, callbacks.WatchMatrices) for callback in chosen(trainer)):
        watching.append(callbacks.WatchMatrices())
    if trainer["enable_checkpointing"] is not False:
        watching.append(callbacks.InitialCheckpoint(checkpoints))
        if not any(isinstance(callback, callbacks.LastCheckpoint) for callback in chosen(trainer)):
            watching.append(callbacks.LastCheckpoint())
    if trainer["logger"] is not False and command == "fit":
        watching.append(
            LearningRateMonitor(optim.interval_of(model.options.lr_scheduler, model.options.lr_scheduler_interval))
        )
    if listed(trainer["logger"]) and not isinstance(trainer["logger"], bool):
        watching.append(callbacks.Dashboard())
    if trainer["limit_val_batches"] != 0 and trainer["enable_checkpointing"] is not False:
        best = ModelCheckpoint(
            dirpath=str(checkpoints.resolve()),  # a Path in its state, as Lightning keeps a::b, could not be read again
            filename=best_checkpoint(folder).stem,
            monitor=f"val/{model.task.metric}",
            mode=better(model.task),
            enable_version_counter=False,
            save_on_train_epoch_end=False,  # a run stopped inside an epoch has no new validation
        )
        watching.append(best)
    return watching


def told_of_answers(config: Any, folder: Path, data: SequenceDataModule, command: str) -> list[Callback]:
    """What makes sound or text of a network's answers.

    Raises:
        UserError: as `text_sample` does.
    """
    found = text_sample(config, folder, data) if command == "predict" else []
    if isinstance(data, TIMIT) and command in ("test", "predict"):
        found.append(callbacks.Listening(folder, data))
    return found


def text_sample(config: Any, folder: Path, data: SequenceDataModule) -> list[Callback]:
    """What draws text in ``predict``, where the data is text.

    Raises:
        UserError: for options of the text where the data has none, or that are out of range.
    """
    prompt, temperature, length = config.prompt, config.temperature, config.sample_length
    is_text = isinstance(data, TextDataModule)
    for key, value in (("prompt", prompt), ("temperature", temperature), ("sample_length", length)):
        require(is_text or value is None, key, value, f"left out: {data.task.name} is no text")
    require(temperature is None or temperature >= 0, "temperature", temperature, "0 or positive")
    require(length is None or length >= 1, "sample_length", length, "a whole number of at least 1")
    if not isinstance(data, TextDataModule):
        return []
    temperature, seed = 1.0 if temperature is None else temperature, int(config.seed_everything)
    return [callbacks.TextSample(folder, data, prompt or "", temperature, length or 500, seed)]
