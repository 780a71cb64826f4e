"""A picture of what the network does, beside its loss against chance."""

from __future__ import annotations

from pathlib import Path

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from torch import Tensor

from datamodules.base import data_of
from datamodules.batch import Parts
from datamodules.task import Task
from lit_rnn.callbacks.recorded import is_recorded
from lit_rnn.loggers import show
from lit_rnn.robustness.objective import predicted_class

_SHOWN = 6  # sequences in the picture
_STEPS = 20  # the last ones, that a table has of a target at every step


class TaskPicture(Callback):
    """At the end of a fit, draws a few validation sequences as input, target and prediction over time.

    The picture goes to ``pictures/task.png`` in the run folder and to every logger that takes images.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder / "pictures" / "task.png"

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        data = data_of(trainer)
        if not is_recorded(pl_module, trainer) or data is None:
            return
        for logger in trainer.loggers:
            logger.save()  # the curve is read from metrics.csv
        from lit_rnn.report.task import draw_run  # behind the training: Matplotlib takes a while to load

        parts = Parts.of(data.examples(_SHOWN))
        moved = parts.to(pl_module.device)
        with torch.no_grad(), pl_module.without_dropout():
            outputs = pl_module(moved.inputs, moved.lengths).float().cpu()
        draw_run(pl_module.task, parts, outputs, type(pl_module).__name__, self.folder, self.path)
        show.picture(trainer, "pictures/task", self.path)
        columns = ("sequence", "target", "prediction")
        show.table(trainer, "tables/predictions", columns, prediction_rows(pl_module.task, parts, outputs))


def prediction_rows(task: Task, parts: Parts, outputs: Tensor) -> list[list[int | str]]:
    """Targets and predictions of a few sequences as text, of those at every step the last ones."""
    predictions = predicted_class(outputs) if task.classifies else outputs
    ends = [None] * len(outputs) if parts.lengths is None else parts.lengths.tolist()

    def text(values: Tensor, end: int | None) -> str:
        shown = values[:end][-_STEPS:] if task.per_step else values
        return " ".join(f"{value:.4g}" for value in shown.flatten().tolist())

    return [[i, text(parts.targets[i], end), text(predictions[i], end)] for i, end in enumerate(ends)]
