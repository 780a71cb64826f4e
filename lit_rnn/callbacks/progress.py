"""Progress on a terminal, and in a log file."""

from __future__ import annotations

import math
import time
from typing import Any

from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.callbacks import RichProgressBar
from torch import Tensor

from datamodules.base import SequenceDataModule, data_of
from datamodules.errors import as_in_yaml
from lit_rnn.models import SequenceModel
from lit_rnn.models.base import count_parameters
from lit_rnn.models.objectives import measured_names

SECONDS = 0.5  # between two looks at a loss that the host has to wait for


class Progress(RichProgressBar):
    """Lightning's bar with the loss of the last step and the chance level beside the metric.

    The host waits for a loss on a GPU, so that one is looked at now and then.
    """

    _looked, _loss = -math.inf, math.nan

    def get_metrics(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, Any]:
        items = super().get_metrics(trainer, pl_module)
        items.pop("v_num", None)
        loss = getattr(pl_module, "shown_loss", None)
        if isinstance(loss, Tensor):
            now = time.monotonic()
            if loss.device.type == "cpu" or now - self._looked > SECONDS:
                self._looked, self._loss = now, loss.item()
            items["train/loss_step"] = self._loss
        if isinstance(pl_module, SequenceModel):
            items["chance"] = pl_module.task.chance
        return items

    def _add_task(self, total_batches: float, description: str, visible: bool = True) -> Any:
        """One bar for all validations: Lightning makes one for each, keeps them, and looks at all when it draws."""
        there = self.val_progress_bar_id
        if description != self.validation_description or there is None or self.progress is None:
            return super()._add_task(total_batches, description, visible)
        self.progress.reset(there, total=total_batches, visible=visible)
        return there


class Header(Callback):
    """Says what is about to run: model, size, task, chance, backend, run folder."""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not trainer.is_global_zero or not isinstance(pl_module, SequenceModel):
            return
        pl_module.expect_passes()  # callbacks come first, and this one names the backend
        task, size = pl_module.task, count_parameters(pl_module)
        backend = ", ".join(sorted(set(pl_module.backends())))
        print(
            f"{type(pl_module).__name__} with {size:,} parameters on {task.name}"
            f"{f' ({task.length} steps)' if task.length else ''}, chance {task.chance:.4g}, "
            f"scan backend {backend} (asked: {pl_module.options.backend}), run folder {trainer.default_root_dir}",
            flush=True,
        )
        data = data_of(trainer)
        told = [] if data is None else [data.told(), _told_of_padding(data), _told_of_processes(data, trainer)]
        for sentence in filter(None, told):
            print(sentence, flush=True)
        seeds = {} if data is None else changed_seed(data)
        for key, (was, now) in {**pl_module.changed_options, **seeds}.items():
            print(f"resumed with {key} {as_in_yaml(now)} (was {as_in_yaml(was)})", flush=True)


def changed_seed(data: SequenceDataModule) -> dict[str, tuple[int, int]]:
    loader = data.train_loader
    if loader is None or loader.seed_before == loader.seed:
        return {}
    return {"data.init_args.seed": (loader.seed_before, loader.seed)}


def _told_of_padding(data: SequenceDataModule) -> str:
    """What share of the steps is padding, where sequences have unequal lengths."""
    loader = data.train_loader
    share = None if loader is None else loader.padding(loader.bucket)
    if loader is None or share is None:
        return ""
    other = loader.padding(not loader.bucket)
    words = "without" if loader.bucket else "with"
    return f"unequal lengths: {share:.0%} of the steps are padding ({other:.0%} {words} bucket_by_length)"


def _told_of_processes(data: SequenceDataModule, trainer: Trainer) -> str:
    """What another number of processes, or another batch size, than before the resume changes."""
    loader = data.train_loader
    if loader is None or loader.regrouped is None:
        return ""
    was, every = loader.regrouped, trainer.accumulate_grad_batches
    counts = f"resumed on {_processes(loader.world_size)} (was {was['processes']})"
    if was["rows"] == loader.rows:
        return f"{counts}: all together still take {loader.rows} sequences a batch, and nothing else changes"
    step = f", an optimizer step {loader.rows * every}" if every > 1 else ""
    return (
        f"{counts}: all together take {loader.rows} sequences a batch (were {was['rows']}){step}, and an epoch has "
        f"{len(loader)} batches (had {was['steps']}); learning rates stay as they are"
    )


def _processes(count: int) -> str:
    return f"{count} process{'' if count == 1 else 'es'}"


class EpochLines(Callback):
    """One line per epoch where there is no terminal to draw a bar on."""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._start = time.monotonic()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        metrics = trainer.callback_metrics  # on every rank: reading it synchronises
        if not trainer.is_global_zero or not isinstance(pl_module, SequenceModel):
            return
        task = pl_module.task
        lengths = data.other_tasks() if (data := data_of(trainer)) is not None else ()
        shown = ["train/sequence_length", "train/loss", *(f"val/{name}" for name in measured_names(task, lengths))]
        values = "  ".join(f"{key} {metrics[key]:.4g}" for key in shown if key in metrics)
        seconds = time.monotonic() - self._start
        print(
            f"epoch {trainer.current_epoch + 1}  step {trainer.global_step}  {values}  "
            f"chance {task.chance:.4g}  {seconds:.0f} s",
            flush=True,
        )
