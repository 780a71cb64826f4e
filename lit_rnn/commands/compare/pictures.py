"""Loss against steps of several runs."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from pathlib import Path

from lit_rnn.commands.compare.measure import Comparison, names
from lit_rnn.report import style
from lit_rnn.report.curves import draw_curves, draw_means
from lit_rnn.report.lengths import draw_lengths

_DRAWN = 2 * len(style.COLOURS)  # beyond, curves cannot be told apart
_USUAL = (  # whose looks are the same in every picture, those that are compared most often apart in colour
    "ExpRNN", "DtrivRNN", "ScoRNN", "LSTM", "GRU", "ScuRNN", "VanillaRNN", "NRU",
    "EURNN", "GORU", "NnRNN", "JANET", "FullURNN", "URNN", "HouseholderRNN", "StatisticalRU",
)  # fmt: skip


def model_looks(models: Sequence[str]) -> list[int]:
    """A look for each line of a picture: its model's own; of the further lines of a model the other one in its colour
    while that is free, else any that is."""
    own = {model: number for number, model in enumerate(_USUAL)}
    found = {models.index(model): own[model] for model in dict.fromkeys(models) if model in own}
    for line, model in enumerate(models):
        if line not in found:
            wanted = [(own[model] + len(style.COLOURS)) % _DRAWN] if model in own else []
            found[line] = next(one for one in itertools.chain(wanted, itertools.count()) if one not in found.values())
    return [found[line] for line in range(len(models))]


@style.styled
def draw(comparison: Comparison, picture: Path, title: str | None = None) -> None:
    """Loss against steps of runs on one task, with chance as a line; of several seeds the mean and the range.

    The title begins with the task's name, or another. Beside it the headline metric against length, where runs were
    measured at others too; of several seeds the mean.
    """
    several = bool(comparison.lengths)
    groups = comparison.groups if len(comparison.groups) <= _DRAWN else tuple(comparison.best_validated[:_DRAWN])
    figure = style.new_figure(11 if several else 7, 4.4)
    axes = figure.subplots() if not several else figure.subplots(1, 2)[0]
    labels = [f"{group.model}, {group.parameters:,} parameters" for group in groups]
    if len(set(labels)) < len(labels):
        labels = [f"{name}: {label}" for name, label in zip(names(groups), labels, strict=True)]
    numbers = model_looks([group.model for group in groups])
    if all(len(group.runs) == 1 for group in groups):
        runs = [(name, group.runs[0].folder) for name, group in zip(labels, groups, strict=True)]
        draw_curves(axes, runs, comparison.chance, numbers)
    else:
        seeds = [(name, [run.folder for run in group.runs]) for name, group in zip(labels, groups, strict=True)]
        draw_means(axes, seeds, comparison.chance, numbers)
    few = f"the {_DRAWN} best on validation of {len(comparison.groups)}" if len(groups) < len(comparison.groups) else ""
    named = ": ".join(filter(None, (style.plain(title or comparison.task), few)))
    axes.set_title("\n".join(filter(None, (named, axes.get_title()))))
    if several:
        lines = [(name, group.by_length()) for name, group in zip(labels, groups, strict=True)]
        draw_lengths(figure.axes[1], lines, f"{comparison.split}/{comparison.metric}", "length, or delay", numbers)
    style.shared_legend(figure, [axes])
    style.save(figure, picture)


def draw_each(comparisons: Sequence[Comparison], picture: Path) -> list[Path]:
    """A picture for each comparison: ``picture`` itself for one, else with the task's name before its ending."""
    paths: list[Path] = []
    for comparison in comparisons:
        name = re.sub(r"[^a-z0-9]+", "-", comparison.task.lower()).strip("-")
        named = picture if len(comparisons) == 1 else picture.with_stem(f"{picture.stem}-{name}")
        others = (named.with_stem(f"{named.stem}-{number}") for number in itertools.count(2))
        path = next(one for one in itertools.chain([named], others) if one not in paths)  # a task with other protocols
        draw(comparison, path)
        paths.append(path)
    return paths
