"""init.ckpt: where a run began; last.ckpt: where it can be taken up again, whatever ended it."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path
from types import FrameType
from typing import Any

from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.callbacks import Checkpoint
from pytorch_lightning.utilities.exceptions import SIGTERMException

from lit_rnn.run_folder import MetricsCSV, keeps_files


class Stopped(Exception):  # noqa: N818  # not an error: the user asked for it
    """The run was asked to stop by a signal and has saved where it was."""

    def __init__(self, signum: int, step: int, run_dir: Path) -> None:
        super().__init__(
            f"Stopped by {signal.Signals(signum).name} after step {step}; "
            f"go on with: python -m lit_rnn fit --run_dir {run_dir} --ckpt_path last"
        )
        self.signum = signum


class InitialCheckpoint(Callback):
    """Keeps the weights that a run begins with, so that ``analyze --against init`` compares with the true ones.

    One file the size of the weights, written once, before the first step. A run that takes up a checkpoint began
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

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        # Lightning noted the handlers before this and puts them back at the end, however the run ends
        if trainer.world_size == 1 and threading.current_thread() is threading.main_thread():
            for signum in (signal.SIGINT, signal.SIGTERM):
                signal.signal(signum, self._ask)
        for logger in trainer.loggers:
            if isinstance(logger, MetricsCSV) and trainer.is_global_zero:
                logger.experiment.forget_from(trainer.global_step, trainer.fit_loop.restarted_mid_epoch)

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """A checkpoint from the end of an epoch: start the next one, also where max_steps is set.

        With max_steps Lightning takes every checkpoint for one from inside an epoch, and counts an empty epoch.
        """
        loops = checkpoint["loops"]["fit_loop"]
        epoch, batches = loops["epoch_progress"]["current"], loops["epoch_loop.batch_progress"]
        if batches["is_last_batch"] and epoch["processed"] == epoch["ready"]:
            batches["current"] = dict.fromkeys(batches["current"], 0)
            batches["is_last_batch"] = False

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
        if not self._inside_epoch:  # once more: schedulers that watch a metric step after the epoch's end
            self._save(trainer)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        if isinstance(exception, SIGTERMException):  # raised on every rank together, between two steps
            self._save(trainer)

    def _stop_if_asked(self, trainer: Trainer) -> None:
        if self._signal is not None:
            raise Stopped(self._signal, trainer.global_step, self.path.parent.parent)
