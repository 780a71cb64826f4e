"""After how many updates a loss was low; model by task, of tasks whose runs end once they have solved them."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from differences import label

from lit_rnn.commands.compare.measure import (
    Comparison,
    Group,
    Spread,
    learning_rate,
    names,
    updates_until,
)
from lit_rnn.commands.compare.subject import Run
from lit_rnn.report.tables import Table, number, plain_markdown
from lit_rnn.runs.endings import how_diverged
from lit_rnn.runs.options import listed, section

ORDER = "Models stand by the first task in the table that they were run on, the best first."
RULE = f"""Updates until a validation found the loss below a share of chance, where a run ends: mean ± sample standard
deviation over the seeds that got there, and how many did of all that ended; one that diverged did not. Of several
learning rates of a model the best stands: first by the share of its seeds, then by updates, so that a rate of one
seed may stand before one of three; it was solved at those rates at which some seed solved it. Where none got there,
the loss of the last validation orders them; what diverged comes last, however far it had come. Where no rate is
named, none was searched. Further seeds were run only for models whose first got to half of chance and did not
diverge. Accuracies at the end are those of different numbers of updates, and are no order. {ORDER}"""


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


def _setting(group: Group) -> tuple[str, float | None]:
    """By which runs that diverged, of which there are no numbers, belong to others."""
    return label(group), learning_rate(group)


def _lost(comparison: Comparison) -> dict[tuple[str, float | None], Group]:
    """The runs that diverged, by setting."""
    found: dict[tuple[str, float | None], list[Run]] = {}
    for run in comparison.diverged:
        found.setdefault(_setting(Group((run,))), []).append(run)
    return {key: Group(tuple(runs)) for key, runs in found.items()}


def by_model(comparison: Comparison) -> dict[str, list[Group]]:
    """The settings of each model, the best of the best model first; those of which every run diverged come last."""
    found: dict[str, list[Group]] = {}
    groups = ranked(comparison).groups
    there = {_setting(group) for group in groups}
    for group in (*groups, *(lost for key, lost in _lost(comparison).items() if key not in there)):
        found.setdefault(label(group), []).append(group)
    return found


def _ended(group: Group, comparison: Comparison) -> int:
    """Runs of a setting that have come to something, those that diverged among them."""
    lost = _lost(comparison).get(_setting(group))
    return len({run.folder for one in (group, lost) if one for run in one.runs})


def _solved(group: Group, comparison: Comparison) -> Spread | None:
    """The updates after which runs ended because they had solved the task; None where none has."""
    end = share(comparison)
    assert end is not None
    return updates_until(group, end * comparison.chance) if group.runs[0].fit else None


def rank(group: Group, comparison: Comparison) -> tuple[float, float, float]:
    """By which groups are ordered, the lowest first, where runs end once they have solved the task."""
    if not group.runs[0].fit:
        return (2, 0, 0)  # all have diverged
    solved = _solved(group, comparison)
    loss = math.inf if group.loss is None else group.loss.mean
    return (0, -solved.number / _ended(group, comparison), solved.mean) if solved else (1, loss, 0)


def headline(comparisons: Sequence[tuple[Comparison, str]]) -> str:
    """Model by task, each with its title, in a table for each kind of task; nothing where no run ends so."""
    kinds: dict[tuple[str, Any], list[tuple[Comparison, str]]] = {}
    for one, title in comparisons:
        if share(one) is not None:
            kinds.setdefault((one.task, one.data.get("protocol")), []).append((one, title))
    return "\n\n".join([RULE, *map(_of_a_kind, kinds.values())]) + "\n" if kinds else ""


def _of_a_kind(chosen: Sequence[tuple[Comparison, str]]) -> str:
    """Model by task, the best of the first task first, below what came of each task in short."""
    cells: dict[str, list[str]] = {}
    for column, (comparison, _) in enumerate(chosen):
        for name, groups in by_model(comparison).items():
            cells.setdefault(name, [""] * len(chosen))[column] = cell(groups[0], comparison)
    header = ["model", *(f"{title}: updates to {number(share(one))} of chance" for one, title in chosen)]
    chance = ["chance loss", *(number(one.chance) for one, _ in chosen)]
    table = Table(header, [*([name, *row] for name, row in cells.items()), chance])
    return "\n\n".join([*(_in_short(*one) for one in chosen), table.markdown()])


def _in_short(comparison: Comparison, title: str) -> str:
    """Which models solved it in all their runs, or some; how many diverged, and of which seeds are to be run."""
    models: dict[str, list[Group]] = {}
    for groups in by_model(comparison).values():
        models.setdefault(groups[0].model, []).extend(groups)
    parts: dict[str, list[str]] = {"in every run by": [], "in some by": [], "in none by": []}
    for model, groups in models.items():
        solved = sum(found.number for group in groups if (found := _solved(group, comparison)))
        runs = sum(_ended(group, comparison) for group in groups)
        kind = "in none by" if not solved else "in every run by" if solved == runs else "in some by"
        parts[kind].append(f"{model} ({solved} of {runs})")
    lost = Counter(run.model for run in comparison.diverged)
    parts["diverged:"] = [f"{model} ({runs})" for model, runs in lost.items()]
    told = "; ".join(f"{kind} {', '.join(names)}" for kind, names in parts.items() if names)
    over = "all seeds and learning rates" if _windows(comparison) else "all seeds"
    how = f"loss below {number(share(comparison))} of chance; {_every(comparison)}; over {over}"
    waiting = _waiting(comparison)
    rest = f" Further seeds are to be run of {', '.join(waiting)}." if waiting else ""
    return plain_markdown(f"{title}, solved ({how}): {told}.{rest}")


def _waiting(comparison: Comparison) -> list[str]:
    """Models whose seeds have all got to half of chance, and are fewer than those of another model.

    Not those that were run at several learning rates, which are of one seed.
    """
    searched = _windows(comparison)
    alone = [groups for name, groups in by_model(comparison).items() if groups[0].runs and name not in searched]
    widest = [max(groups, key=lambda one: len(one.runs)) for groups in alone]
    most = max(len(group.runs) for group in comparison.groups)
    found = []
    for group in widest:
        half = updates_until(group, comparison.chance / 2) if group.runs[0].fit else None
        found += [group.model] if half and half.number == len(group.runs) < most else []
    return list(dict.fromkeys(found))


def _every(comparison: Comparison) -> str:
    """How far validations lie apart, and so how fine counts of updates are."""
    runs = [run for group in comparison.groups for run in group.runs]
    firsts = {step for run in runs for step in run.validations[0][:1]}
    return f"validated every {' or '.join(f'{step:,}' for step in sorted(firsts))} updates"


def cell(group: Group, comparison: Comparison) -> str:
    """The updates of a model, or how far it came; of several learning rates the one, and at how many it was solved."""
    rates = _windows(comparison).get(label(group))
    told = _reached(group, comparison)
    return f"{told} at rate {number(learning_rate(group))}; solved at {_window(rates, comparison)}" if rates else told


def _reached(group: Group, comparison: Comparison) -> str:
    ended = _ended(group, comparison)
    if (solved := _solved(group, comparison)) is not None:
        return f"{_updates(solved)} ({solved.number} of {ended})"
    half = updates_until(group, 0.5 * comparison.chance)
    came = f"; half of chance after {_updates(half)} ({half.number} of {ended})" if half else ""
    if not group.runs[0].fit:
        steps = [step for run in group.runs for step in re.findall(r"\d+", how_diverged(run.folder))[-1:]]
        where = f" at step {' and '.join(f'{int(step):,}' for step in steps)}" if steps else ""
        return f"diverged{where} (0 of {ended}){came}"
    lost = sum(min(run.losses, default=math.inf) < 0.5 * comparison.chance <= run.losses[-1] for run in group.runs)
    came += f", lost again by the end ({lost} of {ended})" if lost else ""
    return f"not in {group.steps[1]:,} (0 of {ended}){came}"


def _windows(comparison: Comparison) -> dict[str, list[Group]]:
    """The models that were run at several learning rates: a group for each, the lowest first."""
    found = {}
    for name, groups in by_model(comparison).items():
        rates: dict[float, Group] = {}
        for group in groups:
            if (rate := learning_rate(group)) is not None:
                rates.setdefault(rate, group)
        if len(rates) > 1:
            found[name] = [rates[rate] for rate in sorted(rates)]
    return found


def _window(groups: Sequence[Group], comparison: Comparison) -> str:
    """At how many of the learning rates some seed solved it."""
    solved = sum(_solved(group, comparison) is not None for group in groups)
    return f"{solved} of {len(groups)} learning rates"


def rates_table(comparison: Comparison) -> Table | None:
    """A row for each model that was run at several learning rates, in the order of the best: what came of each."""
    rows, windows = [], _windows(comparison)
    for name, groups in windows.items():
        each = "; ".join(f"{number(learning_rate(group))}: {_reached(group, comparison)}" for group in groups)
        rows.append([name, each, _window(groups, comparison)])
    if not rows:
        return None
    title = "Learning rates of the optimizer, of runs that have ended: updates at each"
    apart = {group.model for group, *_ in windows.values() if group.runs[0].options("model").get("group_optimizers")}
    title += f"; parts with an optimizer of their own ({', '.join(sorted(apart))}) keep its rate" if apart else ""
    return Table(["model", "updates", "solved at"], rows, texts=3, title=title)


def pictured(comparison: Comparison, title: str) -> tuple[Comparison, str]:
    """Of several settings of a model the one that stands for it, where runs end once they have solved the task."""
    if share(comparison) is None:
        return comparison, title
    best = tuple(groups[0] for groups in by_model(comparison).values() if groups[0].runs[0].fit)
    alone = len(best) == len(comparison.groups)
    return replace(comparison, groups=best), title if alone else f"{title}, each model at its best learning rate"


def _updates(found: Spread) -> str:
    return f"{found.mean:,.0f}" if found.std is None else f"{found.mean:,.0f} ± {found.std:,.0f}"


def milestones(comparison: Comparison) -> Table | None:
    """Updates until the validation loss was below half and a tenth of chance; None where no run got there."""
    rows: list[list[str]] = []
    for name, group in zip(names(comparison.groups), comparison.groups, strict=True):
        found = [updates_until(group, part * comparison.chance) for part in (0.5, 0.1)]
        ended = _ended(group, comparison)
        told = [one and _updates(one) + (f" ({one.number} of {ended})" if one.number < ended else "") for one in found]
        rows.append([name, *(one or "not reached" for one in told)])
    if all(row[1] == "not reached" for row in rows):
        return None
    header = ["run", "half of chance", "a tenth of chance"]
    return Table(header, rows, title=f"Updates until the validation loss was first below, {_every(comparison)}")
