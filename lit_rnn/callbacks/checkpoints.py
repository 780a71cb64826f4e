"""init.ckpt: where a run began; last.ckpt: where it can be resumed, however it ended."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path
from types import FrameType
from typing import Any

from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.callbacks import Checkpoint, WeightAveraging
from pytorch_lightning.utilities.exceptions import SIGTERMException

from lit_rnn.class_paths import class_path, own_module
from lit_rnn.models.resuming import owed_row
from lit_rnn.runs.endings import Stopped
from lit_rnn.runs.folder import keeps_files
from lit_rnn.runs.metrics import MetricsCSV


class InitialCheckpoint(Callback):
    """Keeps the weights that a run begins with, so that ``analyze --against init`` compares with the true ones.

    One file the size of the weights, written once, before the first step. A run that resumes a checkpoint began
    elsewhere, and writes none.

    Args:
        folder: Where ``init.ckpt`` goes.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / "init.ckpt"

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.global_step == 0 and keeps_files(trainer):
            trainer.save_checkpoint(self.path, weights_only=True)


class LastCheckpoint(Checkpoint):
    """Keeps ``last.ckpt`` at the end of every epoch, and right after the step at which a run ends inside an epoch.

    A first Ctrl-C or SIGTERM lets the step at hand finish, saves and raises `Stopped`; a second Ctrl-C stops at once.
    With several processes signals stay with Lightning, because saving needs every rank.

    Args:
        folder: Where ``last.ckpt`` goes.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / "last.ckpt"
        self._signal: int | None = None
        self._inside_epoch = False
        self._kept: dict[str, Any] | None = None  # of the checkpoint that a run goes on from
        self._limits: tuple[int, int | None] | None = None  # max_steps and max_epochs, while they are put off

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        # Lightning noted the handlers before this and puts them back at the end, however the run ends
        if trainer.world_size == 1 and threading.current_thread() is threading.main_thread():
            for signum in (signal.SIGINT, signal.SIGTERM):
                signal.signal(signum, self._ask)
        fit = trainer.fit_loop
        if self._limits is not None:
            (fit.epoch_loop.max_steps, fit.max_epochs), self._limits = self._limits, None
        # an epoch may be closed with no batch left
        self._inside_epoch = fit.batch_idx >= 0 and not trainer.is_last_batch
        for logger in trainer.loggers:
            if isinstance(logger, MetricsCSV) and trainer.is_global_zero:
                if self._kept is None:  # a new run, or a checkpoint of an older version
                    logger.experiment.forget_from(trainer.global_step, fit.restarted_mid_epoch)
                else:
                    logger.experiment.forget_behind(self._kept["rows"], self._kept["owed"])
        self._kept = None
        if self._inside_epoch and trainer.global_step == trainer.max_steps:  # no step is left, after which to save
            self._save(trainer)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """How many rows metrics.csv has, and the one that is to follow, whichever callback takes the checkpoint."""
        owed = owed_row(trainer)  # on every rank: it may synchronise
        for logger in trainer.loggers:
            if isinstance(logger, MetricsCSV) and trainer.is_global_zero:
                logger.save()
                checkpoint["callbacks"][self.state_key] = {"rows": logger.experiment.rows, "owed": owed}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._kept = state_dict

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """A run that died behind its last step has its end before it: let the loop begin, which finds nothing to train.

        The marks of the end are put back in `on_train_start`.
        """
        fit = trainer.fit_loop
        if trainer.state.fn != "fit" or (self.path.parent.parent / "fit.json").is_file():
            return
        self._limits = (fit.epoch_loop.max_steps, fit.max_epochs)
        if checkpoint["global_step"] == fit.epoch_loop.max_steps:
            fit.epoch_loop.max_steps += 1
        epochs = checkpoint["loops"]["fit_loop"]["epoch_progress"]["current"]["processed"]
        if epochs == fit.max_epochs:
            fit.max_epochs = epochs + 1

    def _ask(self, signum: int, frame: FrameType | None) -> None:
        if self._signal is not None and signum == signal.SIGINT:
            raise KeyboardInterrupt
        self._signal = signum

    def _save(self, trainer: Trainer) -> None:
        if not keeps_files(trainer):
            return
        partial = self.path.with_suffix(".partial")  # a kill while writing must not cost the checkpoint before
        trainer.save_checkpoint(partial)
        if trainer.is_global_zero:
            os.replace(partial, self.path)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        last_batch = trainer.fit_loop.epoch_loop.batch_progress.is_last_batch
        # max_steps -1 is "no limit", which no step number reaches
        self._inside_epoch = not last_batch and (
            self._signal is not None or trainer.global_step == trainer.fit_loop.epoch_loop.max_steps
        )
        if self._inside_epoch:
            self._save(trainer)
            self._stop_if_asked(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not self._inside_epoch:  # else the checkpoint after the last step is the one that resumes exactly
            self._save(trainer)
            self._stop_if_asked(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        # once more: a run may have had nothing left but its end. Not where the weights are a mean by now:
        # the checkpoint of the epoch's end holds those that training goes on with, too
        averages = any(isinstance(callback, WeightAveraging) for callback in trainer.callbacks)  # type: ignore[attr-defined]
        if not self._inside_epoch and not averages:
            self._save(trainer)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        if isinstance(exception, SIGTERMException):  # raised on every rank together, between two steps
            self._save(trainer)

    def _stop_if_asked(self, trainer: Trainer) -> None:
        if self._signal is not None:
            used = (trainer.lightning_module, trainer.datamodule)  # type: ignore[attr-defined]
            own = sorted({type(one).__module__ for one in used if own_module(class_path(type(one)))})
            raise Stopped(self._signal, trainer.global_step, self.path.parent.parent, own)
