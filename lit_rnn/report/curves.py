"""Loss against steps, from the metrics.csv of run folders."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes

from lit_rnn.report.style import GUIDE, look
from lit_rnn.runs.curves import read_curve


def draw_curves(axes: Axes, runs: Sequence[tuple[str, Path]], chance: float) -> None:
    """Training loss (thin) and validation loss (thick, dots) of named run folders, with chance as a dashed line."""
    alone = len(runs) == 1
    thin = thick = False
    for number, (name, folder) in enumerate(runs):
        training, validation = (read_curve(folder / "metrics.csv", key) for key in ("train/loss_step", "val/loss"))
        if training[0]:
            label = f"{name}, training" if alone else "_" if validation[0] else name
            axes.plot(*training, **look(number) | {"marker": ""}, alpha=0.45, linewidth=1, label=label)
            thin = True
        if validation[0]:
            label = f"{name}, validation" if alone else name
            axes.plot(*validation, **look(number, len(validation[0])), linewidth=1.8, label=label)
            thick = True
    if not alone:  # what a colour is, is said once; what a line is, too
        if thin:
            axes.plot([], [], color=GUIDE, alpha=0.6, linewidth=1, label="thin: training")
        if thick:
            axes.plot([], [], color=GUIDE, linewidth=1.8, label="thick: validation")
    axes.set(xlabel="optimizer steps", ylabel="loss")
    draw_chance(axes, chance)


def draw_means(axes: Axes, groups: Sequence[tuple[str, Sequence[Path]]], chance: float) -> None:
    """Validation loss of named groups of run folders: the mean over runs, their range as a band, chance as a line.

    A mean ends where the shortest of its curves ends.
    """
    for number, (name, folders) in enumerate(groups):
        curves = [read_curve(folder / "metrics.csv", "val/loss") for folder in folders]
        length = min(len(losses) for _, losses in curves)
        losses = np.array([losses[:length] for _, losses in curves])
        steps, line = curves[0][0][:length], look(number, length)
        axes.plot(steps, losses.mean(0), **line, label=name)
        axes.fill_between(steps, losses.min(0), losses.max(0), color=line["color"], alpha=0.15, linewidth=0)
    axes.set(xlabel="optimizer steps", ylabel="validation loss", title="mean and range over seeds")
    draw_chance(axes, chance)


def draw_chance(axes: Axes, chance: float) -> None:
    """The loss of a predictor that does not look at its inputs, on a logarithmic axis where that can be."""
    axes.axhline(chance, color=GUIDE, linestyle="--", linewidth=1.2, label=f"chance, {chance:.4g}")
    if chance > 0:
        axes.set_yscale("log")
