"""Model by task: the table that comes first, and what came of each model, on a page of its own."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import solving
from differences import by_label, seeds, standing, titles

from lit_rnn.commands.compare.measure import NEAR, Comparison, Group, beside, by_rate
from lit_rnn.commands.compare.page import SPREAD, chance_told, shown
from lit_rnn.report.tables import Table, number, plain_markdown

MODELS = "models"  # the page


def headline(comparisons: Sequence[Comparison]) -> str:
    """Model by task, the best of the first task first: the test metric, and what was published for it; then the updates
    of tasks whose runs end once they have solved them.

    Where a model was run with several settings, the one that was best on validation stands for it.
    """
    if not comparisons:
        return "No run has finished yet: there is no result.\n"
    named = list(zip(comparisons, titles(comparisons), strict=True))
    solved = solving.headline(named)
    going_on = [(one, name) for one, name in named if solving.share(one) is None]
    if not going_on:
        return solved
    cells: dict[str, list[str]] = {}
    for column, (comparison, _) in enumerate(going_on):
        for name, groups in by_label(comparison).items():
            cells.setdefault(name, [""] * len(going_on))[column] = _cell(groups, comparison)
    header = ["model", *(f"{name}: test/{one.metric}" for one, name in going_on)]
    chance = ["chance loss", *(chance_told(one) for one, _ in going_on)]
    made = Table(header, [*([name, *row] for name, row in cells.items()), chance])
    about = f"{SPREAD}. {_directions([one for one, _ in going_on])} {solving.ORDER}"
    return "\n".join([made.markdown(), "", about, *(["", solved] if solved else [""])])


def _directions(comparisons: Sequence[Comparison]) -> str:
    found = {one.metric: "higher" if one.higher_is_better else "lower" for one in comparisons}
    told = "; ".join(f"of {metric} the {direction} is better" for metric, direction in found.items())
    return plain_markdown(f"{told[:1].upper()}{told[1:]}.")


def _cell(groups: Sequence[Group], comparison: Comparison) -> str:
    group = standing(groups, comparison)
    parts = [shown(group.test, group) or "not tested"]
    parts[0] += f", {seeds(group)}"
    if len(groups) > 1:
        parts.append(f"best of {len(groups)} settings on validation")
    windows = [one for one in by_rate(comparison) if any(one_of is group for one_of in one.groups)]
    parts += [f"{one.near} of {len(one.groups)} learning rates within {NEAR:.0%} of the best" for one in windows]
    theirs = "; ".join(str(entry) for entry in beside(group, comparison))
    return "; ".join([*parts, *([f"published {theirs}"] if theirs else [])])


# ---- what came of each model


def page(comparisons: Sequence[Comparison], studies: Mapping[str, Collection[str]], note: str) -> str:
    """Each model alone: a row for each task and setting, and links to the ``studies`` (in Markdown) that it is in."""
    rows = _by_model(comparisons)
    names = sorted({*rows, *itertools.chain(*studies.values())}, key=str.lower)
    linked = {name: [link for link, models in studies.items() if name in models] for name in names}
    parts = [f"{note}\n\n# By model\n\n"]
    if not linked:
        return "".join([*parts, "No run has finished yet: there is no result.\n"])
    parts.append("The same results as in [Results](index.md), where every word of these tables is explained. ")
    parts.append(f"What a model is: [Models](../models/index.md).\n\n{SPREAD}.\n\n")
    for name, links in linked.items():
        parts.append(f"## {name}\n\n")
        if name in rows:
            made = Table(["task", "setting", "measured", "ours", "chance"], rows[name], texts=4)
            parts.append(f"{made.markdown()}\n\n")
        parts += [f"{'Also in' if name in rows else 'In'} {', '.join(links)}.\n\n"] if links else []
    return "".join(parts)


def _by_model(comparisons: Sequence[Comparison]) -> dict[str, list[list[Any]]]:
    found: dict[str, list[list[Any]]] = {}
    for comparison, title in zip(comparisons, titles(comparisons), strict=True):
        end = solving.share(comparison)
        each = by_label(comparison) if end is None else solving.by_model(comparison)
        measured = f"test/{comparison.metric}" if end is None else f"updates to {number(end)} of chance"
        for name, groups in each.items():
            ours = _cell(groups, comparison) if end is None else solving.cell(groups[0], comparison)
            setting = name.removeprefix(groups[0].model).removeprefix(", ")
            found.setdefault(groups[0].model, []).append([title, setting, measured, ours, chance_told(comparison)])
    return found
