"""Loss against steps of a study's settings, and against the learning rate where the grid has one."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure  # not pyplot: no global state, no window system

from lit_rnn.commands.study.measure import against_rate
from lit_rnn.report.curves import draw_means

_DRAWN = 8


def draw(rows: Sequence[dict[str, Any]], settings: Sequence[dict[str, Any]], folder: Path) -> list[Path]:
    """study.png, and study_lr.png where the grid has several learning rates."""
    return [_against_steps(rows, settings, folder), *_against_rate(rows, folder)]


def _against_steps(rows: Sequence[dict[str, Any]], settings: Sequence[dict[str, Any]], folder: Path) -> Path:
    """Validation loss against steps of the best settings: mean over seeds, with the range as a band."""
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.subplots()
    names = [setting["setting"] for setting in settings[:_DRAWN]]
    groups = [(name, [folder / row["run"] for row in rows if row["setting"] == name]) for name in names]
    draw_means(axes, groups, rows[0]["chance"])
    if len(settings) > _DRAWN:
        axes.set_title(f"the {_DRAWN} best of {len(settings)} settings", fontsize=10)
    path = folder / "study.png"
    figure.savefig(path, dpi=120)
    return path


def _against_rate(rows: Sequence[dict[str, Any]], folder: Path) -> list[Path]:
    """Best validation loss against the learning rate: the mean over seeds as a line, each seed as a dot."""
    lines = against_rate(rows)
    if not lines:
        return []
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.subplots()
    for number, (name, line) in enumerate(list(lines.items())[:_DRAWN]):
        colour = f"C{number}"
        axes.plot(
            [rate for rate, _ in line], [statistics.fmean(losses) for _, losses in line], color=colour, label=name
        )
        dots = [(rate, loss) for rate, losses in line for loss in losses]
        axes.plot(*zip(*dots, strict=True), ".", color=colour)
    chance = rows[0]["chance"]
    axes.axhline(chance, color="0.3", linestyle="--", linewidth=1, label=f"chance {chance:.3g}")
    axes.set(xlabel="learning rate", ylabel="best validation loss, mean and seeds", xscale="log")
    if chance > 0:
        axes.set_yscale("log")
    if len(lines) > _DRAWN:
        axes.set_title(f"the {_DRAWN} best of {len(lines)} lines", fontsize=10)
    axes.legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1, 1))
    axes.spines[["top", "right"]].set_visible(False)
    path = folder / "study_lr.png"
    figure.savefig(path, dpi=120)
    return [path]
