"""A picture of what the network does, beside its loss against chance."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from torch import Tensor

from datamodules.adding import value_first
from datamodules.task import Task
from lit_rnn.callbacks.images import show
from lit_rnn.models import SequenceModel
from lit_rnn.report.curves import draw_curves
from lit_rnn.runs.folder import keeps_files

if TYPE_CHECKING:
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
        if datamodule is None:
            return
        inputs, targets = datamodule.examples(_SHOWN)[:2]
        with torch.no_grad():
            outputs = pl_module(inputs.to(pl_module.device)).float().cpu()
        figure = draw_task(pl_module.task, inputs, targets, outputs)
        draw_curves(figure.axes[-1], [(type(pl_module).__name__, self.folder)], pl_module.task.chance)
        self.path.parent.mkdir(exist_ok=True)
        figure.savefig(self.path, dpi=120)
        show(trainer, "pictures/task", self.path)


def draw_task(task: Task, inputs: Tensor, targets: Tensor, outputs: Tensor) -> Figure:
    """A few sequences on the left, an empty axes for the loss on the right (the last one)."""
    from matplotlib.figure import Figure  # not pyplot: no global state, no window system

    figure = Figure(figsize=(11, 4.2), layout="constrained")
    grid = figure.add_gridspec(1, 2, width_ratios=(1.5, 1))
    left, right = figure.add_subfigure(grid[0]), figure.add_subfigure(grid[1])
    whole = inputs[0].numel()  # several pixels may be read at a step
    pixels = inputs.flatten(1) if math.isqrt(whole) ** 2 == whole else inputs
    side = round(pixels.shape[1] ** 0.5)
    square = task.inputs == "values" and side * side == pixels.shape[1] and not task.name.startswith("permuted")
    predictions = outputs.argmax(-1) if task.classifies else outputs
    if task.targets == "label" and square:
        _draw_images(left, pixels.reshape(len(inputs), side, side, -1), targets, predictions)
    elif task.inputs == "symbols" and task.per_step:
        _draw_symbols(left, inputs, targets, predictions)
    else:
        _draw_series(left, task, inputs, targets, predictions)
    right.subplots()
    return figure


def _draw_symbols(figure: FigureBase, inputs: Tensor, targets: Tensor, predictions: Tensor) -> None:
    """Three strips per sequence, a colour per symbol."""
    shown = min(2, len(inputs))
    top = int(max(inputs.max(), targets.max()))
    axes = figure.subplots(3 * shown, 1)
    for i in range(shown):
        for strip, (rows, name) in enumerate(((inputs, "input"), (targets, "target"), (predictions, "prediction"))):
            ax = axes[3 * i + strip]
            ax.imshow(rows[i, None].numpy(), aspect="auto", cmap="viridis", vmin=0, vmax=top, interpolation="nearest")
            ax.set_yticks([0], [name])
            ax.set_xticks([])
    axes[-1].set_xticks(torch.linspace(0, inputs.shape[1] - 1, 6).long().tolist())
    axes[-1].set_xlabel("time step (a colour per symbol, blank is the darkest)")


def _draw_images(figure: FigureBase, images: Tensor, targets: Tensor, predictions: Tensor) -> None:
    """What was read pixel by pixel, with the true and the predicted label."""
    axes: Any = figure.subplots(2, _SHOWN // 2)
    for ax, image, target, prediction in zip(axes.flat, images, targets, predictions, strict=False):
        ax.imshow(image[..., 0].numpy(), cmap="gray_r")
        right = bool(target == prediction)
        ax.set_title(f"target {target}, predicted {prediction}", color="tab:green" if right else "tab:red", fontsize=9)
    for ax in axes.flat:
        ax.axis("off")


def _draw_series(figure: FigureBase, task: Task, inputs: Tensor, targets: Tensor, predictions: Tensor) -> None:
    """The first channel over time; targets and predictions as lines, or as text where there is one per sequence."""
    axes: Any = figure.subplots(3, 1 if task.per_step else 2, sharex=True, squeeze=False)
    for i, ax in enumerate(axes.flat[: len(inputs)]):
        x = inputs[i] if inputs.dim() == 3 else inputs[i, :, None]
        if task.name == "adding":
            x = value_first(x)
        ax.plot(x[:, 0].numpy(), linewidth=0.6, color="0.6")
        if task.name == "adding":
            marked = torch.nonzero(x[:, 1])[:, 0]
            ax.plot(marked.numpy(), x[marked, 0].numpy(), "o", color="tab:orange")
        if task.per_step:
            for values, name, colour in ((targets, "target", "tab:green"), (predictions, "prediction", "tab:red")):
                line = values[i] if values.dim() == 2 else values[i, :, 0]
                ax.plot(line.numpy(), color=colour, linewidth=0.8, label=name)
            ax.legend(frameon=False, fontsize=8)
        else:
            target, prediction = (float(values[i].flatten()[0]) for values in (targets, predictions))
            ax.set_title(f"target {target:.4g}, predicted {prediction:.4g}", fontsize=9)
    for ax in axes[-1]:
        ax.set_xlabel("time step (marked numbers are dots)" if task.name == "adding" else "time step")
