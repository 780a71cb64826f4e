"""What is comparable, means and spreads over seeds, and the published figures that belong beside them."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from datamodules.errors import as_in_yaml
from lit_rnn.commands.compare.subject import (
    Run,
    completed,
    key_of,
    measured,
    measured_on,
    setting,
)
from lit_rnn.published import Published
from lit_rnn.published import published as all_published
from lit_rnn.runs.options import FILES
from lit_rnn.runs.results import Spread, other_lengths, spread_of, without_rounding

_BITS = ("bits_per_symbol", "bits_per_character", "bits_per_byte", "bits_per_word")
_LOWER = frozenset(["loss", "cross_entropy", *_BITS, "perplexity", "mse", "rmse", "mae", "henrici"])


def higher_is_better(metric: str) -> bool:
    """The direction of a metric of ours, or of a published one."""
    return metric not in _LOWER


@dataclass(frozen=True)
class Group:
    """Runs that differ only in their seed."""

    runs: tuple[Run, ...]

    @property
    def name(self) -> str:
        """The folder's name; of several, what their names share before the seed, or their model's."""
        names = {run.place.name for run in self.runs}
        shared = {re.sub(r"[-_]?seed[=_-]?\d+$", "", name) for name in names}
        return (names if len(names) == 1 else shared if len(shared) == 1 else {self.model}).pop()

    @property
    def model(self) -> str:
        return self.runs[0].model

    @property
    def size(self) -> Any:
        return self.runs[0].options("model").get("hidden_size")

    @property
    def parameters(self) -> int:
        return int(self.runs[0].fit["parameters"])

    @property
    def steps(self) -> tuple[int, int]:
        """The fewest and the most optimizer steps."""
        steps = [int(run.fit["steps"]) for run in self.runs]
        return min(steps), max(steps)

    @property
    def loss(self) -> Spread | None:
        """Of the last validation."""
        return spread_of(run.fit["loss"] for run in self.runs)

    @property
    def value(self) -> Spread | None:
        """The headline metric of the last validation."""
        return spread_of(run.fit["value"] for run in self.runs)

    @property
    def test(self) -> Spread | None:
        """The headline metric of the test set, of the runs that were tested."""
        return spread_of(run.test["value"] for run in self.runs if run.test is not None)

    @property
    def lengths(self) -> list[int]:
        """The other lengths at which the runs were measured too."""
        return sorted({length for run in self.runs for length in other_lengths(run.fit)})

    def value_at(self, length: int) -> Spread | None:
        """The headline metric of the last validation at another length, of the runs that have it."""
        return spread_of(run.fit.get(f"value_at_{length}") for run in self.runs)

    def by_length(self) -> dict[int, float]:
        """The mean of the headline metric at every length, that of training among them."""
        found = {length: self.value_at(length) for length in self.lengths}
        found |= {length: self.value for run in self.runs if (length := run.fit.get("trained_at"))}
        return {length: value.mean for length, value in found.items() if value is not None}

    @property
    def seconds(self) -> Spread | None:
        return spread_of(run.fit["seconds"] for run in self.runs)


@dataclass(frozen=True)
class Comparison:
    """Groups on one task, with one protocol, split and metric: what may stand side by side.

    Of runs on the same data that diverged there are no numbers: they count where successes are counted.
    """

    task: str
    chance: float
    metric: str
    split: str
    data: Mapping[str, Any]
    groups: tuple[Group, ...]
    diverged: tuple[Run, ...] = ()

    @property
    def read(self) -> dict[str, Any]:
        """Its data, with the fingerprint of the files, where runs have kept one."""
        fingerprint = self.groups[0].runs[0].fingerprint
        return {**self.data, **({} if fingerprint is None else {"fingerprint": fingerprint})}

    @property
    def lengths(self) -> list[int]:
        """The other lengths at which any of the runs was measured too."""
        return sorted({length for group in self.groups for length in group.lengths})

    @property
    def higher_is_better(self) -> bool:
        """As the runs say, whose metric may be any class of torchmetrics; those of old versions do not say."""
        told = [run.fit.get("higher_is_better") for group in self.groups for run in group.runs]
        return next((one for one in told if isinstance(one, bool)), higher_is_better(self.metric))

    @property
    def best_first(self) -> list[Group]:
        """By the test set where any was tested on it, else by validation; a group without the value comes last."""
        tested = any(group.test for group in self.groups)
        return sorted(self.groups, key=lambda group: _rank(group, self.higher_is_better, tested))

    @property
    def best_validated(self) -> list[Group]:
        """By validation alone: one that has not been tested is no worse for that."""
        return sorted(self.groups, key=lambda group: _rank(group, self.higher_is_better))


def _rank(group: Group, higher: bool, tested: bool = False) -> tuple[float, float]:
    """What groups are ordered by, the smallest first: by validation, or by the tests that were made.

    First how many seeds have been measured and have no value, as where the metric is no number: a seed that is lost is
    worse than any value, and must not make the mean of its group look better.
    """
    found = group.test if tested else group.value
    if found is None:
        return math.inf, math.inf
    asked = sum(run.test is not None for run in group.runs) if tested else len(group.runs)
    return asked - found.number, -found.mean if higher else found.mean


def names(groups: Sequence[Group]) -> list[str]:
    """What tells groups apart: their names, with the folder above where two have one name, or else the whole path."""
    for name in (
        lambda group: group.name,
        lambda group: f"{group.runs[0].place.parent.name}/{group.name}",
    ):
        found = [name(group) for group in groups]
        if len(set(found)) == len(found):
            return found
    return [str(group.runs[0].folder) for group in groups]


def compare(runs: Sequence[Run], diverged: Sequence[Run] = ()) -> list[Comparison]:
    """Comparisons in the order of their first runs, each with its groups in the order of theirs."""
    tables: dict[str, list[Run]] = {}
    told = completed([*runs, *diverged])
    for run in told[: len(runs)]:
        fit = run.fit
        tables.setdefault(key_of(fit["task"], _chance(run), fit["metric"], run.split, measured_on(run)), []).append(run)
    return [
        Comparison(
            str(ours[0].fit["task"]),
            _chance(ours[0]),
            str(ours[0].fit["metric"]),
            ours[0].split,
            measured(ours[0]),
            tuple(Group(tuple(members)) for members in _groups(ours)),
            tuple(lost for lost in told[len(runs) :] if _data(lost) == _data(ours[0])),
        )
        for ours in tables.values()
    ]


def _groups(runs: Sequence[Run]) -> list[list[Run]]:
    """A run whose seed is in its group already is no further seed of it: it stands by itself."""
    groups: dict[str, list[Run]] = {}
    for run in runs:
        key = setting(run)
        if run.seed in [one.seed for one in groups.get(key, [])]:
            key = str(run.folder)
        groups.setdefault(key, []).append(run)
    return list(groups.values())


def _chance(run: Run) -> float:
    return float(without_rounding(run.fit["chance"]))


def _data(run: Run) -> tuple[Any, ...]:
    return run.class_path("data"), *measured_on(run)


def apart(comparisons: Sequence[Comparison]) -> list[str]:
    """A sentence for each further comparison on a task: what keeps it from standing beside the first."""
    sentences = []
    first: dict[str, Comparison] = {}
    for one in comparisons:
        other = first.setdefault(one.task, one)
        if other is not one:
            differing = _differing({**other.read, **_measures(other)}, {**one.read, **_measures(one)})
            sentences.append(f"Kept apart, in two tables, on {one.task}: {'; '.join(differing)}.")
    return sentences


def _measures(one: Comparison) -> dict[str, Any]:
    return {"metric": one.metric, "split": one.split, "chance": one.chance}


def _differing(there: Mapping[str, Any], here: Mapping[str, Any]) -> list[str]:
    same = there.get("fingerprint") == here.get("fingerprint") is not None
    keys = [key for key in dict.fromkeys((*there, *here)) if not (same and key in FILES)]
    return [
        f"{key} is {_told(there.get(key, 'not given'))} in one and {_told(here.get(key, 'not given'))} in the other"
        for key in keys
        if there.get(key, here) != here.get(key, there)
    ]


def _told(value: Any) -> str:
    return value if isinstance(value, str) else as_in_yaml(value)


# ---- learning rates, and how fast a loss falls

NEAR = 0.1  # of the best value


@dataclass(frozen=True)
class Rates:
    """A model at several learning rates, all else alike, judged by the headline metric of validation.

    Args:
        groups: One for each rate whose runs have finished, the lowest first.
        higher_is_better: The metric's direction.
    """

    groups: tuple[Group, ...]
    higher_is_better: bool

    @property
    def best(self) -> Group | None:
        """The group with the best value; never chosen on the test set."""
        return best_by_validation(self.groups, self.higher_is_better)

    @property
    def near(self) -> int:
        """How many rates come within `NEAR` of the best value, the best among them."""
        best = self.best
        if best is None or best.value is None:
            return 0
        room = NEAR * abs(best.value.mean) * (1 + 1e-9)  # 0.9 and 1.1 of the best count, whatever their last bit
        values = [group.value.mean for group in self.groups if group.value is not None]
        return sum(abs(value - best.value.mean) <= room for value in values)


def best_by_validation(groups: Iterable[Group], higher_is_better: bool) -> Group | None:
    """The group with the best headline metric of the last validation; None where none has it."""
    valued = [group for group in groups if group.value is not None]
    return min(valued, key=lambda group: _rank(group, higher_is_better), default=None)


def learning_rate(group: Group) -> float | None:
    """Of the optimizer, where the config has it."""
    rate = _optimizer(group.runs[0]).get("lr")
    return float(rate) if isinstance(rate, int | float) and not isinstance(rate, bool) else None


def _optimizer(run: Run) -> Mapping[str, Any]:
    optimizer = run.options("model").get("optimizer")
    options = optimizer.get("init_args") if isinstance(optimizer, Mapping) else None
    return options if isinstance(options, Mapping) else {}


def by_rate(comparison: Comparison) -> list[Rates]:
    """The models that were run at several learning rates, in the order of their first groups."""
    families: dict[str, dict[float, Group]] = {}
    for group in comparison.groups:
        rate = learning_rate(group)
        if rate is not None:
            families.setdefault(_but_rate(group.runs[0]), {}).setdefault(rate, group)
    return [
        Rates(tuple(groups[rate] for rate in sorted(groups)), comparison.higher_is_better)
        for groups in families.values()
        if len(groups) > 1
    ]


def _but_rate(run: Run) -> str:
    """The setting without the optimizer's learning rate."""
    options = run.options("model")
    optimizer = {**options["optimizer"], "init_args": {**_optimizer(run), "lr": None}}
    model = {**run.config["model"], "init_args": {**options, "optimizer": optimizer}}
    return setting(replace(run, config={**run.config, "model": model}))


def updates_until(group: Group, loss: float) -> Spread | None:
    """Updates until a validation loss was first below ``loss``, over the runs that got there."""
    curves = [zip(*run.validations, strict=True) for run in group.runs]
    firsts = [[step for step, value in curve if value < loss][:1] for curve in curves]
    return spread_of(float(first[0]) if first else None for first in firsts)


# ---- published figures


def published_on(comparison: Comparison) -> list[Published]:
    """Every published figure on the comparison's task, those of its metric first."""
    found = [entry for entry in all_published() if entry.task == comparison.task]
    return sorted(found, key=lambda entry: entry.metric != comparison.metric)


def not_comparable(entry: Published, comparison: Comparison) -> list[str]:
    """What keeps a published figure from standing beside ours; nothing where it may."""
    same = entry.metric in (comparison.metric, "successes")  # which every run with a validation loss has
    found = [] if same else [f"metric is {entry.metric} there, {comparison.metric} here"]
    return found + [
        f"{key} is {_told(value)} there, {_told(comparison.data.get(key, 'not known'))} here"
        for key, value in entry.data.items()
        if comparison.data.get(key, ...) != value
    ]


def is_of(entry: Published, run: Run) -> bool:
    """Whether a figure is of the run's model, with the options that make it that model; of any size."""
    options = run.options("model")
    return entry.model == run.model and all(options.get(key, ...) == value for key, value in entry.options.items())


def successes(entry: Published, comparison: Comparison) -> str:
    """How many of our runs of a figure's model once had a validation loss below half of chance, as `3 of 20`.

    All settings of the model count, as in a grid, and those that diverged, as no success; not those without a curve.
    Nothing where there is none, or where the figure is no count.
    """
    if entry.metric != "successes" or not_comparable(entry, comparison):
        return ""
    curves = [run.losses for group in comparison.groups for run in group.runs if is_of(entry, run)]
    curves = [one for one in curves if one] + [[] for lost in comparison.diverged if is_of(entry, lost)]
    good = sum(any(loss < comparison.chance / 2 for loss in one) for one in curves)
    return f"{good} of {len(curves)}" if curves else ""


def without_curve(comparisons: Sequence[Comparison]) -> str:
    """A sentence on the runs that were validated, and whose metrics.csv does not hold all of it; empty where all do."""
    runs = [run for comparison in comparisons for group in comparison.groups for run in group.runs]
    bare = [str(run.folder) for run in runs if run.fit["loss"] is not None and not run.losses]
    told = "No validation loss in metrics.csv, or rows missing at its end, and so neither a success nor a failure"
    return f"{told}: {', '.join(bare)}." if bare else ""


def tests_of_several(comparisons: Sequence[Comparison]) -> str:
    """A sentence on the rows whose seeds were tested from different checkpoints; empty where none is."""
    mixed = []
    for comparison in comparisons:
        for name, group in zip(names(comparison.groups), comparison.groups, strict=True):
            told = [run.test.get("checkpoint") for run in group.runs if run.test is not None]
            kinds = dict.fromkeys(str(one) for one in told if one is not None)
            mixed += [f"{name} ({', '.join(kinds)})"] if len(kinds) > 1 else []
    return f"The seeds of one row were tested from different checkpoints: {'; '.join(mixed)}." if mixed else ""


def beside(group: Group, comparison: Comparison, split: str = "test") -> list[Published]:
    """The published figures that stand beside a group: of its model and size, comparable, and measured on ``split``."""
    return [
        entry
        for entry in published_on(comparison)
        if entry.metric == comparison.metric
        and entry.split == split
        and is_of(entry, group.runs[0])
        and entry.size in (None, group.size)
        and not not_comparable(entry, comparison)
    ]
