"""What a search found: its trials, the best of each arm, and what its keys explain."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lit_rnn.commands.study.search.storage import STATES, Row, Trials
from lit_rnn.commands.study.search.trial import Objective
from lit_rnn.files import write_csv, write_json


@dataclass(frozen=True)
class Found:
    """An arm's trials.

    Args:
        arm: Its name.
        objective: What they are judged by.
        runs: The folder of each in the study's, by number.
        rows: The trials.
        importance: The share of the objective's variance that a key explains.
    """

    arm: str
    objective: Objective
    runs: Callable[[int], str]
    rows: tuple[Row, ...]
    importance: Mapping[str, float]

    @property
    def best(self) -> Row | None:
        """Of the complete trials; the earliest of equal ones."""
        done = [row for row in self.rows if row.value is not None]
        return min(done, key=lambda row: self._rank(row.value), default=None)

    def _rank(self, value: float | None) -> float:
        assert value is not None
        return -value if self.objective.higher else value

    @property
    def counts(self) -> dict[str, int]:
        """Trials by state."""
        return {state: sum(row.state == state for row in self.rows) for state in STATES}

    @property
    def history(self) -> list[tuple[int, float, float]]:
        """Of every complete trial its number, its value, and the best so far."""
        points: list[tuple[int, float, float]] = []
        for row in self.rows:
            if row.value is not None:
                before = [points[-1][2]] if points else []
                points.append((row.number, row.value, min([*before, row.value], key=self._rank)))
        return points


def judged_by(found: Sequence[Found]) -> list[str]:
    """The columns that the arms are judged by: several where their tasks have other metrics."""
    return list(dict.fromkeys(one.objective.column for one in found))


def summed_up(objective: Objective, runs: Callable[[int], str], trials: Trials) -> Found:
    """What the storage says of an arm."""
    return Found(trials.arm, objective, runs, tuple(trials.rows()), trials.importance())


def write(found: Sequence[Found], folder: Path) -> None:
    """search.json holds the best and the importance of each arm, and all trials; search.csv a line for each trial."""
    rows = [_line(one, row) for one in found for row in one.rows]
    arms = {
        one.arm: {
            "objective": one.objective.column,
            "direction": "maximize" if one.objective.higher else "minimize",
            "trials": one.counts,
            "best": None if one.best is None else _line(one, one.best),
            "importance": dict(one.importance),
        }
        for one in found
    }
    write_json(folder / "search.json", {"arms": arms, "trials": rows})
    write_csv(folder / "search.csv", rows)


def _line(found: Found, row: Row) -> dict[str, Any]:
    return {
        "run": found.runs(row.number),
        "arm": found.arm,
        "trial": row.number,
        "state": row.state,
        **row.values,
        found.objective.column: row.value,
        "validations": len(row.curve),
        "reason": row.reason,
    }
