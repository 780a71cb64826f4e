"""A trial as an ordinary run: its name, its options, and what it is judged by."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from datamodules.errors import UserError
from lit_rnn.class_paths import loaded
from lit_rnn.commands.study.search.space import Search
from lit_rnn.commands.study.subject import Run, Setting, Study, resolved
from lit_rnn.files import file_name
from lit_rnn.runs.curves import read_curve


@dataclass(frozen=True)
class Objective:
    """A column of metrics.csv, and whether higher is better; of a run its best value over all validations."""

    column: str
    higher: bool

    def curve(self, run: Path) -> list[float]:
        """The column after every validation of a run folder."""
        return read_curve(run / "metrics.csv", self.column)[1]

    def best(self, values: list[float]) -> float | None:
        """The best of those that are finite; None if there is none."""
        finite = [value for value in values if math.isfinite(value)]
        return (max if self.higher else min)(finite, default=None)


def objective(setting: Setting, search: Search) -> Objective:
    """What the trials of an arm are judged by.

    Raises:
        UserError: if there is no validation.
    """
    config = resolved(setting)
    if config["trainer"]["limit_val_batches"] == 0:
        raise UserError("trainer.limit_val_batches is 0, but a search compares what validation finds: leave it out.")
    if search.objective == "loss":
        return Objective("val/loss", False)
    from datamodules import SequenceDataModule  # here: Lightning takes seconds

    cls = loaded(config["data"]["class_path"], SequenceDataModule)  # the parser has imported it
    assert cls is not None
    task = cls(**config["data"]["init_args"]).task
    return Objective(f"val/{task.metric}", task.higher_is_better)


def run_of(study: Study, setting: Setting, number: int, values: Mapping[str, Any]) -> Run:
    """The run of trial ``number`` of an arm, which has values for its space."""
    name = file_name(f"{setting.arm}-trial={number:04d}")
    return Run(replace(setting, values=(*setting.values, *values.items()), name=name), study.seeds[0])


def middle(study: Study, search: Search, setting: Setting) -> Run:
    """A run from the middle of the space."""
    return run_of(study, setting, 0, {one.key: one.middle for one in search.spaces[setting.arm]})


def probes(study: Study, search: Search) -> list[Run]:
    """Runs that together have both ends of every number, and every choice."""
    return [
        run_of(study, setting, number, {one.key: one.probe(number) for one in search.spaces[setting.arm]})
        for setting in study.settings
        for number in range(max(2, *(len(one.choices) for one in search.spaces[setting.arm])))
    ]
