"""Loss against steps, from the metrics.csv of run folders."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

from lit_rnn.report.style import GUIDE, look, plain
from lit_rnn.runs.curves import read_curve
from lit_rnn.runs.results import ended_early

_FAR = 10  # times chance


def draw_curves(
    axes: Axes, runs: Sequence[tuple[str, Path]], chance: float, looks: Sequence[int] | None = None
) -> None:
    """Training loss (thin) and validation loss (thick, dots) of named run folders, with chance as a dashed line.

    ``looks`` are the numbers of `lit_rnn.report.style.look`; by default the runs are counted.
    """
    alone = len(runs) == 1
    thin = thick = False
    for number, (shown, folder) in zip(looks or range(len(runs)), runs, strict=True):
        name = plain(shown)
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
    _cut_peaks(axes, chance)


def draw_means(
    axes: Axes, groups: Sequence[tuple[str, Sequence[Path]]], chance: float, looks: Sequence[int] | None = None
) -> None:
    """Validation loss of named groups of run folders: the mean over runs, their range as a band, chance as a line.

    A run that ended before the others, as when it had solved its task, has a cross at its last loss. There the mean
    breaks, and goes on as that of the others: it would rise, though no run's loss does, or hide those that go on.
    ``looks`` are as in `draw_curves`.
    """
    crossed = False
    for number, (name, folders) in zip(looks or range(len(groups)), groups, strict=True):
        curves = [dict(zip(*read_curve(folder / "metrics.csv", "val/loss"), strict=True)) for folder in folders]
        last = max((max(curve) for curve in curves if curve), default=0)
        parts = _parts([curve for curve in curves if curve])
        steps = [step for part, _ in parts for step in (*part, math.nan)]  # which no line crosses
        line = look(number, len(steps))
        mean, low, high = (
            [value for _, losses in parts for value in (*over(losses, 0), math.nan)]
            for over in (np.mean, np.min, np.max)
        )
        axes.plot(steps, mean, **line, label=plain(name))
        axes.fill_between(steps, low, high, color=line["color"], alpha=0.15, linewidth=0)
        for folder, curve in zip(folders, curves, strict=True):
            if curve and (max(curve) < last or ended_early(folder)):
                axes.plot(max(curve), curve[max(curve)], color=line["color"], marker="x", markersize=7, label="_")
                crossed = True
    over = "the seeds that still run" if crossed else "seeds"
    axes.set(xlabel="optimizer steps", ylabel="validation loss", title=f"mean and range over {over}")
    if crossed:
        axes.plot([], [], color=GUIDE, marker="x", markersize=7, linestyle="", label="a seed that ended early")
    draw_chance(axes, chance)
    _cut_peaks(axes, chance)


def _parts(curves: Sequence[Mapping[int, float]]) -> list[tuple[list[int], NDArray[np.float64]]]:
    """Steps, and the losses there of the curves that reach them (curves, steps), from each end of a curve to the next.

    The loss by step of each curve, which has some; of different steps those that all have are taken.
    """
    parts = []
    for start, end in itertools.pairwise([0, *sorted({max(curve) for curve in curves})]):
        there = [curve for curve in curves if max(curve) >= end]
        steps = [step for step in sorted(there[0]) if start <= step <= end and all(step in curve for curve in there)]
        parts.append((steps, np.array([[curve[step] for step in steps] for curve in there])))
    return parts


def draw_chance(axes: Axes, chance: float) -> None:
    """The loss of a predictor that does not look at its inputs, on a logarithmic axis where that can be."""
    axes.axhline(chance, color=GUIDE, linestyle="--", linewidth=1.2, label=f"chance, {chance:.4g}")
    if chance > 0:
        axes.set_yscale("log")


def _cut_peaks(axes: Axes, chance: float) -> None:
    """What is far above chance is left out, unless a line ends there: beside it the others would be one flat line."""
    ends = [np.asarray(line.get_ydata(), dtype=np.float64) for line in axes.lines]
    top = max([_FAR * chance, *(finite[-1] for y in ends if len(finite := y[np.isfinite(y)]))])
    highest = axes.dataLim.ymax
    if chance > 0 and highest > top:
        axes.set_ylim(top=top)
        axes.set_ylabel(f"{axes.get_ylabel()} (peak {highest:.2g})")
