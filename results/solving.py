"""After how many updates a loss was low; model by task, of tasks whose runs end once they have solved them."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

from differences import label

from lit_rnn.commands.compare.measure import (
    Comparison,
    Group,
    Rates,
    Spread,
    by_rate,
    learning_rate,
    names,
    updates_until,
)
from lit_rnn.commands.compare.subject import Run
from lit_rnn.report.tables import Table, number, plain_markdown
from lit_rnn.runs.config import listed, section
from lit_rnn.runs.curves import read_curve

RULE = """Updates until a validation found the loss below a share of chance, where a run ends: mean ± sample standard
deviation over the seeds that got there, and how many did. Further seeds were run only for models whose first got to
half of chance. Accuracies at the end are those of different numbers of updates, and are no order."""


def share(comparison: Comparison) -> float | None:
    """Of chance, where all its runs end; None where they go on."""
    shares = {_share(run) for group in comparison.groups for run in group.runs}
    return shares.pop() if len(shares) == 1 else None


def _share(run: Run) -> float | None:
    for one in listed(section(run.config, "trainer").get("callbacks")):
        named = one if isinstance(one, Mapping) else {"class_path": one}
        if str(named.get("class_path")).rpartition(".")[2] == "Solved":
            return float((named.get("init_args") or {}).get("below_chance", 0.1))
    return None


def ranked(comparison: Comparison) -> Comparison:
    """Those of which the largest share solved it first, then the fewest updates; the others by their loss."""
    if share(comparison) is None:
        return replace(comparison, groups=tuple(comparison.best_first))
    return replace(comparison, groups=tuple(sorted(comparison.groups, key=lambda group: rank(group, comparison))))


def _solved(group: Group, comparison: Comparison) -> Spread | None:
    """The updates after which runs ended because they had solved the task; None where none has."""
    end = share(comparison)
    assert end is not None
    return updates_until(group, end * comparison.chance)


def rank(group: Group, comparison: Comparison) -> tuple[float, float, float]:
    """By which groups are ordered, the lowest first, where runs end once they have solved the task."""
    solved = _solved(group, comparison)
    loss = math.inf if group.loss is None else group.loss.mean
    return (0, -solved.number / len(group.runs), solved.mean) if solved else (1, loss, 0)


def headline(comparisons: Sequence[tuple[Comparison, str]]) -> str:
    """Model by task, each with its title, the best of the first task first; nothing where no run ends so."""
    chosen = [(one, title) for one, title in comparisons if share(one) is not None]
    if not chosen:
        return ""
    cells: dict[str, list[str]] = {}
    told = ""
    for column, (comparison, title) in enumerate(chosen):
        best: dict[str, Group] = {}
        for group in ranked(comparison).groups:
            best.setdefault(label(group), group)  # of several settings the best stands for the model
        told += f"{_in_short(best.values(), comparison, title)}\n\n"
        for name, group in best.items():
            cells.setdefault(name, [""] * len(chosen))[column] = cell(group, comparison)
    header = ["model", *(f"{title}: updates to {number(share(one))} of chance" for one, title in chosen)]
    chance = ["chance loss", *(number(one.chance) for one, _ in chosen)]
    rows = [[name, *row] for name, row in cells.items()]
    return f"{told}{Table(header, [*rows, chance]).markdown()}\n\n{RULE}\n"


def _in_short(groups: Collection[Group], comparison: Comparison, title: str) -> str:
    """Which models solved it, the fastest first; which diverged, and of which seeds are to be run."""
    end = share(comparison)
    assert end is not None
    parts: dict[str, list[str]] = {"in every seed by": [], "in some by": [], "in none by": []}
    for group in groups:
        solved = _solved(group, comparison)
        kind = (
            "in none by" if solved is None else "in every seed by" if solved.number == len(group.runs) else "in some by"
        )
        parts[kind].append(group.model)
    parts["diverged:"] = [run.folder.name for run in comparison.diverged]
    told = "; ".join(f"{kind} {', '.join(dict.fromkeys(models))}" for kind, models in parts.items() if models)
    most = max(len(group.runs) for group in groups)
    halves = {group.model: (updates_until(group, comparison.chance / 2), group.runs) for group in groups}
    waiting = [model for model, (half, runs) in halves.items() if half and half.number == len(runs) < most]
    rest = f" Further seeds are to be run of {', '.join(waiting)}." if waiting else ""
    return plain_markdown(f"{title}, solved (loss below {number(end)} of chance; {_every(comparison)}): {told}.{rest}")


def _every(comparison: Comparison) -> str:
    """How far validations lie apart, and so how fine counts of updates are."""
    runs = [run for group in comparison.groups for run in group.runs]
    firsts = {step for run in runs for step in read_curve(run.folder / "metrics.csv", "val/loss")[0][:1]}
    return f"validated every {' or '.join(f'{step:,}' for step in sorted(firsts))} updates"


def cell(group: Group, comparison: Comparison) -> str:
    """The updates of a model, or how far it came; and at how many of several learning rates it solved the task."""
    windows = [one for one in by_rate(comparison) if group in one.groups]
    return "; ".join([_reached(group, comparison), *(f"solved at {_window(one, comparison)}" for one in windows)])


def _reached(group: Group, comparison: Comparison) -> str:
    if (solved := _solved(group, comparison)) is not None:
        return _counted(solved, group)
    half = updates_until(group, 0.5 * comparison.chance)
    came = f"; half of chance after {_counted(half, group)}" if half else ""
    return f"not in {group.steps[1]:,} (0 of {len(group.runs)}){came}"


def _window(rates: Rates, comparison: Comparison) -> str:
    """At how many of the learning rates some seed solved it."""
    solved = sum(_solved(group, comparison) is not None for group in rates.groups)
    return f"{solved} of {len(rates.groups)} learning rates"


def rates_table(comparison: Comparison) -> Table | None:
    """A row for each model that was run at several learning rates, in the order of the best: what came of each."""
    rows = []
    for rates in by_rate(ranked(comparison)):
        each = "; ".join(f"{number(learning_rate(group))}: {_reached(group, comparison)}" for group in rates.groups)
        rows.append([label(rates.groups[0]), each, _window(rates, comparison)])
    if not rows:
        return None
    title = "Learning rates, of runs that have finished: updates at each"
    return Table(["model", "updates", "solved at"], rows, texts=3, title=title)


def _counted(found: Spread, group: Group) -> str:
    return f"{_updates(found)} ({found.number} of {len(group.runs)})"


def _updates(found: Spread) -> str:
    return f"{found.mean:,.0f}" if found.std is None else f"{found.mean:,.0f} ± {found.std:,.0f}"


def milestones(comparison: Comparison) -> Table | None:
    """Updates until the validation loss was below half and a tenth of chance; None where no run got there."""
    rows: list[list[str]] = []
    for name, group in zip(names(comparison.groups), comparison.groups, strict=True):
        found = [updates_until(group, part * comparison.chance) for part in (0.5, 0.1)]
        told = [one and (_updates(one) if one.number == len(group.runs) else _counted(one, group)) for one in found]
        rows.append([name, *(one or "not reached" for one in told)])
    if all(row[1] == "not reached" for row in rows):
        return None
    header = ["run", "half of chance", "a tenth of chance"]
    return Table(header, rows, title=f"Updates until the validation loss was first below, {_every(comparison)}")
