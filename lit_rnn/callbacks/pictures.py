"""A picture of what the network does, beside its loss against chance."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from torch import Tensor

from datamodules import Task
from lit_rnn.models import SequenceModel
from lit_rnn.report.curves import draw_curves
from lit_rnn.run_folder import keeps_files, show

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, FigureBase

_SHOWN = 6  # sequences in the picture


class TaskPicture(Callback):
    """At the end of a fit, draws a few validation sequences as input, target and prediction over time.

    The picture goes to ``pictures/task.png`` in the run folder and to every logger that takes images.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder / "pictures" / "task.png"

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not trainer.is_global_zero or not keeps_files(trainer) or not isinstance(pl_module, SequenceModel):
            return
        for logger in trainer.loggers:
            logger.save()  # the curve is read from metrics.csv
        datamodule = trainer.datamodule  # type: ignore[attr-defined]
        batch = datamodule.split("val")[torch.arange(_SHOWN).numpy()] if datamodule is not None else None
        if batch is None:
            return
        inputs, targets = batch[0][:_SHOWN], batch[1][:_SHOWN]
        with torch.no_grad():
            outputs = pl_module(inputs.to(pl_module.device)).float().cpu()
        figure = draw_task(pl_module.task, inputs, targets, outputs)
        draw_curves(figure.axes[-1], [(type(pl_module).__name__, self.folder)], pl_module.task.chance)
        self.path.parent.mkdir(exist_ok=True)
        figure.savefig(self.path, dpi=120)
        show(trainer, "pictures/task", self.path)


def draw_task(task: Task, inputs: Tensor, targets: Tensor, outputs: Tensor) -> Figure:
    """The examples on the left, an empty axes for the loss on the right (the last one)."""
    from matplotlib.figure import Figure  # not pyplot: no global state, no window system

    figure = Figure(figsize=(11, 4.2), layout="constrained")
    grid = figure.add_gridspec(1, 2, width_ratios=(1.5, 1))
    left, right = figure.add_subfigure(grid[0]), figure.add_subfigure(grid[1])
    if task.inputs == "symbols" and task.per_step:
        _draw_symbols(left, inputs, targets, outputs.argmax(-1))
    elif task.targets == "label":
        _draw_labels(left, task, inputs, targets, outputs)
    else:
        _draw_values(left, inputs, targets, outputs)
    right.subplots()
    return figure


def _strip(axes: Axes, row: Tensor, name: str, top: int) -> None:
    axes.imshow(row[None].numpy(), aspect="auto", cmap="viridis", vmin=0, vmax=top, interpolation="nearest")
    axes.set_yticks([0], [name])
    axes.set_xticks([])


def _draw_symbols(figure: FigureBase, inputs: Tensor, targets: Tensor, predictions: Tensor) -> None:
    """Three strips per sequence, a colour per symbol."""
    shown = min(2, len(inputs))
    top = int(max(inputs.max(), targets.max()))
    axes = figure.subplots(3 * shown, 1)
    for i in range(shown):
        for strip, (row, name) in enumerate(((inputs, "input"), (targets, "target"), (predictions, "prediction"))):
            _strip(axes[3 * i + strip], row[i], name, top)
    axes[-1].set_xticks(torch.linspace(0, inputs.shape[1] - 1, 6).long().tolist())
    axes[-1].set_xlabel("time step (a colour per symbol, blank is the darkest)")


def _draw_labels(figure: FigureBase, task: Task, inputs: Tensor, targets: Tensor, outputs: Tensor) -> None:
    """What was read, as an image where it is one and unpermuted, with the true and the predicted label."""
    side = round(inputs.shape[1] ** 0.5)
    image = side * side == inputs.shape[1] and not task.name.startswith("permuted")
    axes = figure.subplots(2, _SHOWN // 2).flat
    predictions = outputs.argmax(-1)
    for ax, x, target, prediction in zip(axes, inputs, targets, predictions, strict=False):
        if image:
            ax.imshow(x[:, 0].view(side, side).numpy(), cmap="gray_r")
            ax.axis("off")
        else:
            ax.plot(x[:, 0], linewidth=0.6, color="0.2")
            ax.set_xlabel("time step")
        right = bool(prediction == target)
        ax.set_title(f"target {target}, predicted {prediction}", color="tab:green" if right else "tab:red", fontsize=9)


def _draw_values(figure: FigureBase, inputs: Tensor, targets: Tensor, outputs: Tensor) -> None:
    """The input's channels over time; for one value per sequence, target and prediction as text."""
    axes = figure.subplots(3, 1, sharex=True)
    for i, ax in enumerate(axes):
        x = inputs[i]
        ax.plot(x[:, 0], linewidth=0.6, color="0.6")
        if targets.dim() == 2 and x.shape[1] == 2:
            marked = x[:, 1] > 0
            ax.plot(torch.nonzero(marked)[:, 0], x[marked, 0], "o", color="tab:orange")
        if targets.dim() == 2:
            ax.set_title(f"target {targets[i, 0]:.3f}, predicted {outputs[i, 0]:.3f}", fontsize=9)
        else:
            ax.plot(targets[i, :, 0], color="tab:green", linewidth=0.8, label="target")
            ax.plot(outputs[i, :, 0], color="tab:red", linewidth=0.8, label="prediction")
    axes[-1].set_xlabel("time step (marked numbers are dots)")
