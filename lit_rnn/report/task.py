"""A picture of what a network does: a few sequences as input, target and prediction, and room for its loss."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from torch import Tensor

from datamodules.adding import value_first
from datamodules.batch import Batch, Parts
from datamodules.task import Task
from lit_rnn.report import sequences, style
from lit_rnn.report.curves import draw_curves
from lit_rnn.report.sequences import MISTAKE, UNCOUNTED, Strips, Symbols, draw_channels, time_axis, verdict
from lit_rnn.robustness.objective import predicted_class

_WIDE = 16  # numbers in a frame, from which on it is drawn as a column of an image
SHOWN = 6  # sequences, or images; two where there is an answer at every step


@style.styled
def draw_run(task: Task, batch: Batch, outputs: Tensor, name: str, folder: Path, path: Path) -> None:
    """A few sequences of a batch with what the network ``name`` says, beside the loss in its run folder."""
    parts = Parts.of(batch)
    figure = draw_task(task, parts.filled(), parts.targets, outputs, parts.counts(task))
    figure.suptitle(f"{name} on {task.name}")
    axes = figure.axes[-1]
    draw_curves(axes, [(name, folder)], task.chance)
    style.legend(axes)
    style.save(figure, path)


@style.styled
def draw_task(task: Task, inputs: Tensor, targets: Tensor, outputs: Tensor, counts: Tensor | None = None) -> Figure:
    """A few sequences on the left, an empty axes for the loss on the right (the last one).

    Args:
        counts: (B, T) bool: the steps whose prediction counts; all if not given.
    """
    if task.labels > 1:  # the first of several at a step
        targets, outputs = targets[..., 0], outputs[..., 0, :]
    figure = style.new_figure(11, 4.4)
    grid = figure.add_gridspec(1, 2, width_ratios=(1.6, 1))
    left, right = figure.add_subfigure(grid[0]), figure.add_subfigure(grid[1])
    predictions = predicted_class(outputs) if task.classifies else outputs
    pixels = images_of(task, inputs)
    if task.targets == "label" and pixels is not None:
        _draw_images(left, pixels, targets, predictions)
    elif task.per_step:
        counts = torch.ones(predictions.shape[:2], dtype=torch.bool) if counts is None else counts
        _draw_answers(left, task, inputs, targets, predictions, counts)
    else:
        _draw_series(left, task, inputs, targets, predictions)
    right.subplots()
    return figure


def images_of(task: Task, inputs: Tensor) -> Tensor | None:
    """(B, side, side, channels) of square images read in row order; None of other data."""
    if task.inputs != "values" or task.name.startswith(("permuted", "noisy")):
        return None
    if "cifar10" in task.name and inputs[0].numel() == 3 * 1024:  # in rows, or colour by colour
        return inputs.reshape(len(inputs), 32, 32, 3)
    flat = inputs.flatten(1)[..., None] if math.isqrt(inputs[0].numel()) ** 2 == inputs[0].numel() else inputs
    side = math.isqrt(flat.shape[1])
    return flat.reshape(len(inputs), side, side, -1) if side * side == flat.shape[1] else None


def _draw_images(figure: SubFigure, images: Tensor, targets: Tensor, predictions: Tensor) -> None:
    """What was read pixel by pixel, with the true and the predicted label."""
    axes = list(np.ravel(figure.subplots(2, SHOWN // 2)))
    for ax, image, target, prediction in zip(axes, images, targets, predictions, strict=False):
        sequences.draw_image(ax, image.numpy())
        mark, colour = verdict(bool(target == prediction))
        ax.set_title(f"target {target}, predicted {prediction} {mark}", color=colour, fontsize=9)
    for ax in axes[len(images) :]:
        ax.axis("off")


def _draw_answers(
    figure: SubFigure, task: Task, inputs: Tensor, targets: Tensor, predictions: Tensor, counts: Tensor
) -> None:
    """An answer at every step: input, target and prediction of two sequences."""
    shown = min(2, len(inputs))
    above = task.inputs == "values"  # the input is drawn as lines, over what is answered
    rows = shown * (1 + above)
    panels: Sequence[Axes] = list(np.ravel(figure.subplots(rows, 1, sharex=not task.classifies)))
    if task.classifies:
        _draw_strips(figure, panels, task, inputs[:shown], targets, predictions, counts)
        return
    if above and task.target_size >= _WIDE:
        _draw_spectra(figure, panels, targets[:shown].numpy(), predictions.numpy(), counts.numpy())
        return
    for i in range(shown):
        if above:
            draw_channels(panels[2 * i], inputs[i].numpy())
        answers = panels[i * (1 + above) + above]
        _draw_frames(answers, targets[i].numpy(), predictions[i].numpy(), counts[i].numpy())
    time_axis(panels[-1])
    style.shared_legend(figure, [panels[above]])


def _draw_strips(
    figure: SubFigure,
    panels: Sequence[Axes],
    task: Task,
    inputs: Tensor,
    targets: Tensor,
    predictions: Tensor,
    counts: Tensor,
) -> None:
    """A colour per symbol; mistakes framed, steps that do not count left out."""
    symbols, all_strips = Symbols.of(task), []
    for i in range(len(inputs)):
        rows = {"input": inputs[i].numpy()} if task.inputs == "symbols" else {}
        rows |= {"target": targets[i].numpy(), "prediction": predictions[i].numpy()}
        without = ~counts[i].numpy()
        wrong = (rows["target"] != rows["prediction"]) & ~without
        hidden = {"target": without, "prediction": without} if without.any() else {}
        all_strips.append(Strips(rows, {"prediction": wrong}, hidden))
    quiet = [Strips({k: row for k, row in s.rows.items() if k != "prediction"}, {}, s.hidden).busy for s in all_strips]
    steps = sequences.cut(np.any(quiet, axis=0))
    if task.inputs == "values":
        steps = sequences.Steps(len(quiet[0]), [(0, len(quiet[0]))])  # as the lines above
    for i, strips in enumerate(all_strips):
        if task.inputs == "values":
            draw_channels(panels[2 * i], inputs[i].numpy())
            panels[2 * i].set_xlim(0.5, steps.length + 0.5)
            time_axis(panels[2 * i])
        strips.draw(panels[i if task.inputs == "symbols" else 2 * i + 1], symbols, steps, "mistake")
    for ax in panels[:-1]:
        ax.tick_params(labelbottom=False)
        ax.set_xlabel("")
    panels[-1].set_xlabel("time step")
    marks = [MISTAKE, *([UNCOUNTED] if any(strips.hidden for strips in all_strips) else [])]
    style.key_below(figure, [*symbols.key(), *marks])
    if not symbols.key():
        figure.colorbar(panels[-1].images[0], ax=list(panels), fraction=0.04, pad=0.02).set_label("symbol")


def _draw_frames(axes: Axes, target: np.ndarray, prediction: np.ndarray, counts: np.ndarray) -> None:
    """Numbers at every step: each component a colour, targets as lines, predictions dashed, only where they count."""
    steps, width = np.arange(1, len(target) + 1), 1 if target.ndim == 1 else target.shape[1]
    shown = min(3, width)
    for k in range(shown):
        name = "" if width == 1 else f" {k + 1}"
        for values, word, line in ((target, "target", "-"), (prediction, "prediction", "--")):
            column = values.reshape(len(steps), -1)[:, k].astype(float)
            axes.plot(steps, np.where(counts, column, np.nan), line, color=style.COLOURS[k], label=word + name)
    if not counts.all():
        low, high = axes.get_ylim()
        axes.fill_between(
            steps,
            low,
            high,
            where=~counts,
            facecolor="white",
            edgecolor="0.8",
            hatch="////",
            linewidth=0,
            label="does not count",
            step="mid",
        )
        axes.set_ylim(low, high)
    axes.set_ylabel("answer" if shown == width else f"{shown} of {width} components")


def _draw_spectra(
    figure: SubFigure, panels: Sequence[Axes], targets: np.ndarray, predictions: np.ndarray, counts: np.ndarray
) -> None:
    """Wide frames, such as spectra, as images over time: each target above its prediction, in the target's colours."""
    counted = targets[counts[: len(targets)]]
    low, high = (float(counted.min()), float(counted.max())) if counted.size else (0.0, 1.0)
    for i, target in enumerate(targets):
        for axes, frames, name in zip(
            panels[2 * i :], (target, predictions[i]), ("target", "prediction"), strict=False
        ):
            shown = np.where(counts[i][:, None], frames, np.nan).T
            extent = (0.5, len(target) + 0.5, 0.5, len(shown) + 0.5)
            axes.imshow(
                shown, aspect="auto", origin="lower", extent=extent, vmin=low, vmax=high, interpolation="nearest"
            )
            axes.set_ylabel(name)
    time_axis(panels[-1])
    figure.colorbar(panels[0].images[0], ax=list(panels), fraction=0.04, pad=0.02).set_label("answer")


def _draw_series(figure: SubFigure, task: Task, inputs: Tensor, targets: Tensor, predictions: Tensor) -> None:
    """One answer per sequence, said in its title, over the input."""
    panels: Sequence[Axes] = list(np.ravel(figure.subplots(3, 2, sharex=True)))
    symbols = Symbols.of(task)
    if task.inputs == "symbols":
        steps = sequences.cut(np.any([Strips({"": x.numpy()}).busy for x in inputs], axis=0))
    for ax, x, target, prediction in zip(panels, inputs, targets, predictions, strict=False):
        if task.inputs == "symbols":
            Strips({"input": x.numpy()}).draw(ax, symbols, steps)
        elif task.name == "adding":
            draw_adding(ax, x)
        else:
            draw_channels(ax, x.numpy())
        if task.classifies:
            mark, colour = verdict(bool(target == prediction))
            ax.set_title(f"target {target}, predicted {prediction} {mark}", color=colour, fontsize=9)
        else:
            true, said = (float(value.flatten()[0]) for value in (target, prediction))
            ax.set_title(f"target {true:.3f}, predicted {said:.3f}", fontsize=9)
    for ax in panels[len(inputs) :]:
        ax.axis("off")
    for ax in panels[max(0, min(len(inputs), len(panels)) - 2) : len(inputs)]:
        ax.tick_params(labelbottom=True)
        if task.inputs == "symbols":
            ax.set_xlabel("time step")
        else:
            time_axis(ax)
    if task.name == "adding":
        style.shared_legend(figure, panels[:1])
    elif task.inputs == "symbols":
        style.key_below(figure, symbols.key())


def draw_adding(axes: Axes, x: Tensor) -> None:
    """The numbers of an adding problem, those that are to be added as dots."""
    u = value_first(x)
    draw_channels(axes, u[:, :1].numpy(), "number")
    marked = torch.nonzero(u[:, 1])[:, 0]
    axes.plot(marked.numpy() + 1, u[marked, 0].numpy(), "o", color=style.ORANGE, markersize=5, label="to be added")
