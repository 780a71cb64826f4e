"""init.ckpt: where a run began; last.ckpt: where it can be resumed, however it ended."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any

from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.callbacks import Checkpoint, ModelCheckpoint, WeightAveraging

from datamodules.errors import require, whole_or_null
from lit_rnn.class_paths import is_own
from lit_rnn.models.resuming import owed_row
from lit_rnn.runs.endings import how_to_go_on, stopping
from lit_rnn.runs.folder import keeps_files
from lit_rnn.runs.metrics import MetricsCSV
from lit_rnn.runs.ranks import largest
from lit_rnn.runs.results import is_finished


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


def _is_own(trainer: Trainer) -> bool:
    """Whether the checkpoint that a run goes on from lies in its own folder; another run's may be taken up too."""
    run, taken = Path(trainer.default_root_dir).resolve(), trainer.ckpt_path
    return taken is not None and run in Path(taken).resolve().parents


def _follow(trainer: Trainer, checkpoint: dict[str, Any]) -> None:
    """Tell what keeps the best checkpoint of a run where its folder, which was moved or copied, lies now.

    Lightning forgets the best where its path is another one, and a worse checkpoint would take its place.
    """
    if not _is_own(trainer):
        return  # whose best is not this run's
    run = Path(trainer.default_root_dir).resolve()
    for callback in trainer.callbacks:  # type: ignore[attr-defined]  # set by Lightning at run time
        if not isinstance(callback, ModelCheckpoint) or callback.dirpath is None:
            continue
        state, now = checkpoint["callbacks"].get(callback.state_key) or {}, Path(callback.dirpath)
        was, kept = state.get("dirpath"), state.get("best_k_models")
        if not isinstance(was, str) or not isinstance(kept, dict) or run not in now.resolve().parents:
            continue
        inside = [path for path in map(str, kept) if Path(path).is_relative_to(was)]
        places = {path: str(now / Path(path).relative_to(was)) for path in inside}
        if was == str(now) or len(places) < len(kept) or not all(Path(place).is_file() for place in places.values()):
            continue
        names = {key: places.get(str(state.get(key)), "") for key in ("best_model_path", "kth_best_model_path")}
        models = {places[path]: value for path, value in kept.items()}
        moved = {"dirpath": callback.dirpath, "best_k_models": models, "last_model_path": "", **names}
        checkpoint["callbacks"][callback.state_key] = {**state, **moved}


class LastCheckpoint(Checkpoint):
    """Keeps ``last.ckpt``, so that a run can be taken up whatever ends it; the one before is ``previous.ckpt``.

    It is saved at the end of every epoch, and right after the step at which a run ends inside an epoch. A first signal
    that asks to stop lets the step at hand finish, saves and raises `Stopped`; a second Ctrl-C stops at once. Several
    processes ask one another behind every step, so that a signal to any of them stops all, at the same step.

    Args:
        every_n_steps: Save after every so many optimizer steps too.
        every_n_minutes: Save after the step at which so many minutes have passed since the last time, too.
        folder: Where ``last.ckpt`` goes; the run folder's ``checkpoints`` if not given.
    """

    def __init__(
        self, every_n_steps: int | None = None, every_n_minutes: float | None = None, folder: Path | None = None
    ) -> None:
        whole_or_null(every_n_steps, "LastCheckpoint.every_n_steps", 1)
        positive = every_n_minutes is None or 0 < every_n_minutes < math.inf
        require(positive, "LastCheckpoint.every_n_minutes", every_n_minutes, "null or a positive number")
        self.every_n_steps, self.every_n_minutes = every_n_steps, every_n_minutes
        self._folder = folder
        self._inside_epoch = False
        self._signal: int | None = None  # that all processes have agreed on
        self._step, self._time = 0, 0.0  # of the last save, or the last look
        self._kept: dict[str, Any] | None = None  # of the checkpoint that a run goes on from
        self._limits: tuple[int, int | None] | None = None  # max_steps and max_epochs, while they are put off
        self._over = False  # whether training was to stop, while that is put off

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        folder = self._folder or Path(trainer.default_root_dir, "checkpoints")
        self.path = folder / "last.ckpt"

    # ---- going on

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        owed = state_dict["owed"]
        self._kept = {**state_dict, "rows": int(state_dict["rows"]), "owed": dict(owed) if owed else None}

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """A run that died behind its last step has its end before it: let the loop begin, which finds nothing to train.

        The marks of the end are put back in `on_train_start`.
        """
        _follow(trainer, checkpoint)
        fit = trainer.fit_loop
        if trainer.state.fn != "fit" or is_finished(self.path.parent.parent):
            return
        self._limits = (fit.epoch_loop.max_steps, fit.max_epochs)
        if checkpoint["global_step"] == fit.epoch_loop.max_steps:
            fit.epoch_loop.max_steps += 1
        epochs = checkpoint["loops"]["fit_loop"]["epoch_progress"]["current"]["processed"]
        if epochs == fit.max_epochs:
            fit.max_epochs = epochs + 1

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._limits is not None:
            self._over = trainer.should_stop  # a Timer that has run out
            trainer.should_stop = False

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        stopping.note(self._go_on(trainer))
        fit = trainer.fit_loop
        if self._limits is not None:
            (fit.epoch_loop.max_steps, fit.max_epochs), self._limits = self._limits, None
            trainer.should_stop = self._over or bool((self._kept or {}).get("should_stop"))
        # an epoch may be closed with no batch left
        self._inside_epoch = fit.batch_idx >= 0 and not trainer.is_last_batch
        for logger in trainer.loggers:
            if isinstance(logger, MetricsCSV) and trainer.is_global_zero:
                place = (trainer.global_step, self._inside_epoch)
                if self._kept is None:  # a new run, or a checkpoint of an older version
                    logger.experiment.forget_from(*place)
                else:
                    logger.experiment.forget_behind(self._kept["rows"], self._kept["owed"], *place, _is_own(trainer))
        self._kept = None
        self._step, self._time = trainer.global_step, time.monotonic()
        if self._inside_epoch and trainer.global_step == trainer.max_steps:  # no step is left, after which to save
            self._save(trainer)

    # ---- saving

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """How many rows metrics.csv has, and the one that is to follow, whichever callback takes the checkpoint."""
        owed = owed_row(trainer)  # on every rank: it may synchronise
        for logger in trainer.loggers:
            if isinstance(logger, MetricsCSV) and trainer.is_global_zero:
                logger.save()
                logger.experiment.flush()
                kept = {"rows": logger.experiment.rows, "owed": owed, "should_stop": trainer.should_stop}
                checkpoint["callbacks"][self.state_key] = kept

    def _save(self, trainer: Trainer) -> None:
        if not keeps_files(trainer):
            return
        trainer.save_checkpoint(self.path)
        self._step, self._time = trainer.global_step, time.monotonic()

    def _is_due(self, trainer: Trainer) -> bool:
        """Whether enough steps were made, or enough time has passed, since the last save."""
        stepped = trainer.global_step > self._step
        if stepped and self.every_n_steps is not None and trainer.global_step % self.every_n_steps == 0:
            return True
        if stepped and self.every_n_minutes is not None:
            late = time.monotonic() - self._time >= 60 * self.every_n_minutes
            return bool(trainer.strategy.broadcast(late))  # the first process's clock is everybody's
        return False

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        last_batch = trainer.fit_loop.epoch_loop.batch_progress.is_last_batch
        # max_steps -1 is "no limit", which no step number reaches
        self._inside_epoch = not last_batch and (
            self._is_asked(trainer) or trainer.global_step == trainer.fit_loop.epoch_loop.max_steps
        )
        if self._inside_epoch or self._is_due(trainer):
            self._save(trainer)
        if self._inside_epoch:
            self._stop_if_asked(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not self._inside_epoch:  # else the checkpoint after the last step is the one that resumes exactly
            self._save(trainer)
            self._is_asked(trainer)
            self._stop_if_asked(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        # once more: a run may have had nothing left but its end. Not where the weights are a mean by now:
        # the checkpoint of the epoch's end holds those that training goes on with, too
        if not self._inside_epoch and not _averages(trainer):
            self._save(trainer)
        if self._is_asked(trainer):
            stopping.signum = self._signal
        stopping.stop_noting(f" after the last step{self._go_on(trainer)}")

    # ---- being stopped

    def on_validation_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        if trainer.state.fn == "fit" and not trainer.sanity_checking and self._is_asked(trainer):
            for average in _averages(trainer):  # has its mean in the model's place until the validation ends
                average.on_validation_epoch_end(trainer, pl_module)
            self._save(trainer)  # whoever goes on validates from the beginning
            self._stop_if_asked(trainer)

    def _is_asked(self, trainer: Trainer) -> bool:
        """Whether any process of the run was asked to stop; to be called by all of them."""
        self._signal = largest(trainer, stopping.signum or 0) or None
        return self._signal is not None

    def _stop_if_asked(self, trainer: Trainer) -> None:
        if self._signal is not None:  # not what this process alone has heard since
            stopping.signum = self._signal
            stopping.stop_noting(f" after step {trainer.global_step}{self._go_on(trainer)}")

    def _go_on(self, trainer: Trainer) -> str:
        used = (trainer.lightning_module, trainer.datamodule)  # type: ignore[attr-defined]  # set by Lightning at run time
        own = sorted({type(one).__module__ for one in used if is_own(type(one))})
        return how_to_go_on(self.path.parent.parent, own)


def _averages(trainer: Trainer) -> list[WeightAveraging]:
    """The callbacks that validate means of the weights, the last to put its mean in place first."""
    callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]  # set by Lightning at run time
    return [callback for callback in reversed(callbacks) if isinstance(callback, WeightAveraging)]
