"""A search as tables in the terminal."""

from __future__ import annotations

from collections.abc import Sequence

from lit_rnn.commands.study.search.measure import Found, judged_by
from lit_rnn.commands.study.search.space import last_parts, text
from lit_rnn.commands.study.search.storage import LEAST
from lit_rnn.report.tables import Table, number


def tables(found: Sequence[Found]) -> list[Table]:
    """The best of each arm with its values, and the importance of the keys where there is one."""
    columns, rows = judged_by(found), []
    several = len(columns) > 1
    for one in found:
        best, counts = one.best, one.counts
        drawn = {} if best is None else best.values
        called = last_parts(list(drawn))
        values = ", ".join(f"{called[key]}={_shown(value)}" for key, value in drawn.items())
        trial = None if best is None else best.number
        value = None if best is None else best.value
        told = value if value is None or not several else f"{number(value)} {one.objective.column}"
        rows.append([one.arm, values, trial, told, *counts.values()])
    header = ["arm", "best values", "trial", "best" if several else f"best {columns[0]}", *found[0].counts]
    made = [Table(header, rows, texts=2, title="The best trial of each arm, and how many trials there are")]
    shares = [[one.arm, key, share] for one in found for key, share in one.importance.items()]
    if shares:
        title = "Importance: share of the variance over the space that a key explains on its own (fANOVA)"
        made.append(Table(["arm", "key", "importance"], shares, texts=2, title=title))
    return made


def notes(found: Sequence[Found]) -> list[str]:
    """Why an arm has no importance, where it has none."""
    told = []
    for one in found:
        complete = one.counts["complete"]
        few = f"it takes {LEAST} complete trials, and there are {complete}"
        why = few if complete < LEAST else f"all complete trials have the same {one.objective.column}"
        told += [] if one.importance else [f"no importance for {one.arm}: {why}"]
    return told


def _shown(value: object) -> str:
    return number(value) if isinstance(value, float) else text(value)
