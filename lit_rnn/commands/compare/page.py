"""A comparison as tables: for the terminal, the page and files."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lit_rnn.commands.compare.measure import (
    NEAR,
    Comparison,
    Group,
    beside,
    by_rate,
    is_of,
    learning_rate,
    names,
    not_comparable,
    published_on,
    successes,
)
from lit_rnn.published import STATUSES, Published
from lit_rnn.report.page import Page
from lit_rnn.report.tables import Table, lacking, number, plain_markdown, spread, words
from lit_rnn.runs.results import Spread, in_columns

SPREAD = "±: sample standard deviation over seeds"


def table(comparison: Comparison, published: bool = False, best_first: bool = False) -> Table:
    """A row for each group; the test column is empty until ``test`` has run."""
    split, metric = comparison.split, comparison.metric
    groups = comparison.best_first if best_first else comparison.groups
    published = published and any(beside(group, comparison) for group in groups)  # else the column would be empty
    several = any(len(group.runs) > 1 for group in groups)
    header = ["run", "model", *(["seeds"] if several else []), "parameters", "steps", f"{split}/loss"]
    header += [f"{split}/{metric}", *(f"at {length:,}" for length in comparison.lengths), f"test/{metric}", "seconds"]
    header += [f"published test/{metric}"] if published else []
    rows = []
    for name, group in zip(names(groups), groups, strict=True):
        row: list[Any] = [name, group.model, *([len(group.runs)] if several else [])]
        fewest, most = group.steps
        row += [group.parameters, fewest if fewest == most else f"{fewest:,} to {most:,}"]
        row += [shown(group.loss, group), shown(group.value, group)]
        row += [shown(group.value_at(length), group) for length in comparison.lengths] + [_tested(group)]
        row.append(None if group.seconds is None else round(group.seconds.mean))
        if published:
            row.append("; ".join(str(entry) for entry in beside(group, comparison)))
        rows.append(row)
    title = f"{comparison.task}, chance loss {chance_told(comparison)}"
    return Table(header, rows, texts=2, title=f"{title}; {SPREAD}" if several else title)


def chance_told(comparison: Comparison) -> str:
    """The loss of a guess, and what it is in the metric's unit where that follows from it."""
    told = number(comparison.chance)
    if comparison.metric.startswith("bits_per_"):
        return f"{told} ({number(comparison.chance / math.log(2))} bits)"
    if comparison.metric != "accuracy":
        return told
    classes = math.exp(comparison.chance)
    alike = round(classes) > 1 and math.isclose(classes, round(classes), rel_tol=1e-6)
    return f"{told} (accuracy {number(1 / round(classes))})" if alike else told


def rates_table(comparison: Comparison) -> Table | None:
    """A row for each model that was run at several learning rates: the best, and the share of them near it."""
    split, metric = comparison.split, comparison.metric
    rows = []
    for rates in by_rate(comparison):
        best = rates.best
        if best is not None:
            ends = [learning_rate(group) for group in (rates.groups[0], rates.groups[-1], best)]
            told = [f"{number(rate)}" for rate in ends if rate is not None]
            name = names(comparison.groups)[comparison.groups.index(best)]
            share = f"{rates.near} of {len(rates.groups)}"
            tried = f"{len(rates.groups)} from {told[0]} to {told[1]}"
            found = [best.size, best.parameters, tried, told[2], shown(best.value, best), share]
            rows.append([name, best.model, *found])
    if not rows:
        return None
    header = ["best run", "model", "size", "parameters", "rates", "best rate", f"best {split}/{metric}"]
    title = f"Learning rates on {comparison.task}, of runs that have finished; best by {split}/{metric}"
    return Table([*header, f"within {NEAR:.0%} of the best"], rows, texts=2, title=title)


def shown(found: Spread | None, group: Group) -> str:
    """Mean and spread, and how many of the seeds have the number where not all have it."""
    if found is None:
        return ""
    return spread(found.mean, found.std) + lacking(found.number, len(group.runs))


def _tested(group: Group) -> str:
    """Of one run with the step of the checkpoint that was tested: best.ckpt is not the last step."""
    test = group.runs[0].test
    step = f" (step {test['steps']:,})" if len(group.runs) == 1 and test is not None else ""
    return f"{shown(group.test, group)}{step}"


def published_table(comparison: Comparison) -> tuple[Table, list[str]] | None:
    """Every published figure on the task with its status, and notes on where each was read and how it came about."""
    rows = []
    notes: dict[str, str] = {}
    for entry in published_on(comparison):
        reasons = not_comparable(entry, comparison)
        ours = [group for group in comparison.groups if is_of(entry, group.runs[0])]
        count = successes(entry, comparison)
        remark = f"ours: {count}" if count else _beside(entry, comparison) or _other_sizes(entry.size, ours)
        remark = f"not comparable: {'; '.join(reasons)}" if reasons else remark
        mark = notes.setdefault(entry.note, f"({len(notes) + 1})")
        texts = [f"{entry.name} {mark}", remark]
        rows.append([*texts, entry.size, entry.parameters, f"{entry.split}/{entry.metric}", str(entry)])
    if not rows:
        return None
    header = ["published", "beside ours", "size", "parameters", "measured", "value"]
    lines = [f"{mark} {note}" for note, mark in notes.items()]
    return Table(header, rows, texts=2, title=f"Published on {comparison.task}"), lines


def _beside(entry: Published, comparison: Comparison) -> str:
    """Ours of the same model, size and split."""
    groups = [group for group in comparison.groups if entry in beside(group, comparison, entry.split)]
    ours = [shown(group.test if entry.split == "test" else group.value, group) or "not tested" for group in groups]
    return f"ours: {'; '.join(ours)}" if ours else ""


def _other_sizes(size: int | None, ours: Sequence[Group]) -> str:
    """Sizes and counts of our runs of that model, where none has the published size."""
    if any(size is None or group.size == size for group in ours):
        return ""
    return "; ".join(dict.fromkeys(f"ours: size {group.size}, {group.parameters:,} parameters" for group in ours))


def statuses() -> str:
    """What the words behind published figures mean."""
    return "; ".join(f"{status}: {meaning}" for status, meaning in STATUSES.items()) + "."


def published_notes(comparisons: Sequence[Comparison]) -> list[str]:
    """The tasks on which nothing is published, and what the statuses of all other figures mean."""
    bare = dict.fromkeys(one.task for one in comparisons if not published_on(one))
    found = [f"No published figure is known here on {', '.join(bare)}."] if bare else []
    return found + ([statuses()] if any(published_on(one) for one in comparisons) else [])


def rows(comparisons: Sequence[Comparison]) -> list[dict[str, Any]]:
    """A line for each group with all digits, for a CSV file."""
    found = []
    for comparison in comparisons:
        for name, group in zip(names(comparison.groups), comparison.groups, strict=True):
            fewest, most = group.steps
            line: dict[str, Any] = {
                "task": comparison.task,
                "data": words(comparison.read),
                "split": comparison.split,
                "metric": comparison.metric,
                "chance": comparison.chance,
                "run": name,
                "model": group.model,
                "size": group.size,
                "parameters": group.parameters,
                "steps": fewest,
                "most_steps": most,
                "seeds": len(group.runs),
            }
            measured = {"loss": group.loss, "value": group.value, "test_value": group.test, "seconds": group.seconds}
            measured |= {f"value_at_{length}": group.value_at(length) for length in comparison.lengths}
            for key, value in measured.items():
                line |= in_columns(key, value)
            found.append(line)
    return found


def published_rows(comparisons: Sequence[Comparison]) -> list[dict[str, Any]]:
    """A line for each published figure, for the same CSV file: its run is empty, its status and source are not."""
    return [
        {
            "task": entry.task,
            "data": words(entry.data),
            "split": entry.split,
            "metric": entry.metric,
            "model": entry.name,
            "size": entry.size,
            "parameters": entry.parameters,
            "published": str(entry),
            "status": entry.status,
            "source": entry.source,
            "paper": f"{entry.paper}, {entry.where}",
            "protocol": entry.protocol,
        }
        for task in dict.fromkeys(comparison.task for comparison in comparisons)
        for entry in published_on(next(comparison for comparison in comparisons if comparison.task == task))
    ]


def tables(comparison: Comparison, published: bool) -> tuple[list[Table], list[str]]:
    """All there are of a comparison, and notes on what was published, which comes last."""
    figures = published_table(comparison) if published else None
    made = [table(comparison, published), rates_table(comparison), figures and figures[0]]
    return [one for one in made if one is not None], figures[1] if figures else []


def markdown(comparisons: Sequence[Comparison], notes: Sequence[str], published: bool) -> str:
    """The tables in Markdown, with the notes below them."""
    parts = []
    for comparison in comparisons:
        made, told = tables(comparison, published)
        parts += [*(one.markdown() for one in made), *map(plain_markdown, told)]
    return "\n\n".join([*parts, *map(plain_markdown, notes)]) + "\n"


def latex(comparisons: Sequence[Comparison], notes: Sequence[str], published: bool) -> str:
    """The tables in LaTeX; notes are comments."""
    parts = ["% needs \\usepackage{booktabs}"]
    for comparison in comparisons:
        made, told = tables(comparison, published)
        parts += [*(one.latex() for one in made), *map(_comment, told)]
    return "\n".join([*parts, *map(_comment, notes), ""])


def _comment(note: str) -> str:
    """A comment of LaTeX, which ends with its line: a folder may have a line's end in its name."""
    return f"% {' '.join(note.split())}"


def write_page(
    comparisons: Sequence[Comparison], notes: Sequence[str], pictures: Sequence[Path], published: bool, folder: Path
) -> Path:
    """compare.html in ``folder``: a section for each comparison, with its table, its picture and what was published."""
    page = Page(f"{', '.join(dict.fromkeys(comparison.task for comparison in comparisons))}: runs compared")
    for sentence in notes:
        page.text(sentence, warning=True)
    for note in published_notes(comparisons) if published else []:
        page.text(note)
    for comparison, picture in zip(comparisons, pictures, strict=True):
        page.section(comparison.task)
        if comparison.data:
            page.text(f"Data: {words(comparison.read)}.")
        page.table(table(comparison, published))
        if (rates := rates_table(comparison)) is not None:
            page.table(rates)
        beside_it = " Beside it the metric against length." if comparison.lengths else ""
        page.picture(picture, f"Loss against steps; the grey dashed line is chance.{beside_it}")
        if published and (figures := published_table(comparison)):
            page.table(figures[0])
            for note in figures[1]:
                page.text(note)
    page.save(folder / "compare.html")
    return folder / "compare.html"
