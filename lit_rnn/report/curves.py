"""Loss against steps, from the metrics.csv of run folders."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from lit_rnn.runs.curves import read_curve

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def draw_curves(axes: Axes, runs: Sequence[tuple[str, Path]], chance: float) -> None:
    """Training loss (thin) and validation loss (thick) of named run folders, with chance as a dashed line."""
    for number, (name, folder) in enumerate(runs):
        colour = f"C{number}"
        axes.plot(*read_curve(folder / "metrics.csv", "train/loss_step"), color=colour, alpha=0.4, linewidth=1)
        axes.plot(*read_curve(folder / "metrics.csv", "val/loss"), color=colour, marker=".", label=name)
    axes.axhline(chance, color="0.3", linestyle="--", linewidth=1, label=f"chance {chance:.3g}")
    axes.set(xlabel="optimizer steps", ylabel="loss")
    if chance > 0:
        axes.set_yscale("log")
    if len(runs) > 3:  # inside, the names would cover the curves
        axes.legend(frameon=False, loc="upper left", bbox_to_anchor=(1, 1), fontsize=8)
    else:
        axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)


def draw_means(axes: Axes, groups: Sequence[tuple[str, Sequence[Path]]], chance: float) -> None:
    """Validation loss of named groups of run folders: the mean over runs, their range as a band, chance as a line.

    A mean ends where the shortest of its curves ends.
    """
    for number, (name, folders) in enumerate(groups):
        curves = [read_curve(folder / "metrics.csv", "val/loss") for folder in folders]
        length = min(len(losses) for _, losses in curves)
        losses = np.array([losses[:length] for _, losses in curves])
        steps = curves[0][0][:length]
        axes.plot(steps, losses.mean(0), color=f"C{number}", marker=".", label=name)
        axes.fill_between(steps, losses.min(0), losses.max(0), color=f"C{number}", alpha=0.15, linewidth=0)
    axes.axhline(chance, color="0.3", linestyle="--", linewidth=1, label=f"chance {chance:.3g}")
    axes.set(xlabel="optimizer steps", ylabel="validation loss, mean and range over seeds")
    if chance > 0:
        axes.set_yscale("log")
    axes.legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1, 1))
    axes.spines[["top", "right"]].set_visible(False)
