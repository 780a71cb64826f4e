"""What ``search:`` in a study file says: the space, how many trials, and who draws and stops them. No Optuna here."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from datamodules.errors import UserError, did_you_mean, one_of, require, whole
from lit_rnn.runs.options import number

KEYS = ("trials", "space", "sampler", "pruner", "seed", "objective", "storage")
SAMPLERS = ("tpe", "random")
PRUNERS: dict[str, tuple[str, ...]] = {  # and their options, all whole numbers
    "none": (),
    "median": ("n_startup_trials", "n_warmup_steps", "interval_steps"),
    "successive_halving": ("min_resource", "reduction_factor", "min_early_stopping_rate"),
}
OBJECTIVES = ("loss", "metric")
OF_THE_STUDY = {
    "seed_everything": "list the seeds under seeds",
    "run_dir": "choose the folder with --study_dir",
    "threads": "choose their number with --threads",
    "resume": "give the command again to go on",
    "ckpt_path": "give the command again to go on",
}
_FORMS = "{float: [low, high]} or {int: [low, high]}, where log: true may follow, or {choice: [values]}"


@dataclass(frozen=True)
class Dimension:
    """What a key of the config may be: a number from ``low`` to ``high``, both included, or one of ``choices``."""

    key: str
    kind: Literal["float", "int", "choice"]
    low: float = 0
    high: float = 0
    log: bool = False
    choices: tuple[Any, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """The choices as text: what is kept in the storage, from which no value is ever read back."""
        return tuple(text(choice) for choice in self.choices)

    @property
    def middle(self) -> Any:
        """A value from the middle; of choices the first."""
        if self.kind == "choice":
            return self.choices[0]
        mean = math.sqrt(self.low * self.high) if self.log else (self.low + self.high) / 2
        return round(mean) if self.kind == "int" else mean

    def probe(self, number: int) -> Any:
        """The lowest and the highest value by turns, and every choice in turn."""
        if self.kind == "choice":
            return self.choices[number % len(self.choices)]
        return self.high if number % 2 else self.low

    def told(self) -> str:
        """In words: lr from 0.0001 to 0.1, log."""
        name = self.key.rpartition(".")[2]
        if self.kind == "choice":
            return f"{name} one of {', '.join(self.names)}"
        return f"{name} from {self.low:g} to {self.high:g}{', log' if self.log else ''}"


@dataclass(frozen=True)
class Search:
    """``search:`` of a study file, read and checked.

    Args:
        trials: For each arm.
        spaces: What is drawn, by arm.
        sampler: One of `SAMPLERS`.
        pruner: One of `PRUNERS`; it sees the objective after every validation.
        pruner_options: As Optuna calls them.
        seed: Of the sampler.
        objective: The best validation ``loss`` of a run, or its best headline ``metric``.
        storage: The SQLite file; None is search.db in the study's folder.
    """

    trials: int
    spaces: Mapping[str, tuple[Dimension, ...]]
    sampler: str
    pruner: str
    pruner_options: Mapping[str, int]
    seed: int
    objective: str
    storage: Path | None


def text(value: Any) -> str:
    """A value as it follows its option on the command line.

    Raises:
        UserError: for what YAML may hold, and no option takes.
    """
    if isinstance(value, str):
        return value
    if isinstance(value, float) and not math.isfinite(value):
        return ".nan" if math.isnan(value) else ".inf" if value > 0 else "-.inf"
    try:
        return json.dumps(value)
    except TypeError as error:
        what = "a date, a set or bytes, as YAML reads it"
        raise UserError(f"The value {value} of an option is, or holds, {what}: put it in quotes.") from error


def only(given: Mapping[str, Any], accepted: Sequence[str], where: str) -> None:
    """Refuse a key that is not accepted."""
    for key in given:
        if key not in accepted:
            meant = did_you_mean(str(key), accepted)
            raise UserError(f"{where} has the key {key!r}{meant}, but its keys are {', '.join(accepted)}.")


def short(key: str) -> str:
    """A key as an option may be written: model.alpha is model.init_args.alpha."""
    return key.replace("init_args.", "")


def last_parts(keys: Sequence[str]) -> dict[str, str]:
    """What each key is called where there is little room: its last part, and where two have the same, all of it."""
    last = {key: key.rpartition(".")[2] for key in keys}
    return {key: name if list(last.values()).count(name) == 1 else short(key) for key, name in last.items()}


def refuse_twice(options: Mapping[str, Sequence[Any]], where: str) -> None:
    """Refuse options, each with its values, of which a later one would override an earlier one without a word.

    So it is with two spellings of one key, and with a mapping that holds what has a key of its own before it.
    """
    before: dict[str, str] = {}
    for key, values in options.items():
        for place in {place for value in values for place in _places(value, short(key))}:
            if place in before:
                raise UserError(
                    f"{where}: {before[place]} and {key} are one option, and the second would win whatever the first "
                    "says: give it once."
                )
        before |= dict.fromkeys((place for value in values for place in _places(value, short(key))), key)


def _places(value: Any, key: str) -> Iterator[str]:
    """The keys, in short, of all plain values in a value."""
    if isinstance(value, Mapping) and value:
        for name, item in value.items():
            yield from _places(item, key if name == "init_args" else f"{key}.{name}")
    else:
        yield key


def check_option(key: str, where: str) -> None:
    """Refuse an option that a study gives every run itself: a value of it would be overridden, without a word."""
    if key in OF_THE_STUDY:
        raise UserError(f"{where}.{key} cannot vary, as the study gives it to every run: {OF_THE_STUDY[key]}.")


def read_search(given: Any, arms: Mapping[str, Any]) -> Search:
    """The search of a study file; ``arms`` holds what stands in each arm of the study, whose own ``space`` is added.

    Raises:
        UserError: naming the key.
    """
    require(isinstance(given, Mapping), "search", given, f"a mapping with {', '.join(KEYS)}")
    only(given, KEYS, "search")
    trials, seed, sampler = given.get("trials"), given.get("seed", 1), given.get("sampler", "tpe")
    whole(trials, "search.trials", 1)
    require(type(seed) is int and 0 <= seed < 2**32, "search.seed", seed, "a whole number from 0 to 4294967295")
    accepted = f"{' or '.join(SAMPLERS)}; others may keep code in the storage, which would be run"
    require(sampler in SAMPLERS, "search.sampler", sampler, accepted)
    objective, storage = given.get("objective", "loss"), given.get("storage")
    one_of(objective, "search.objective", OBJECTIVES)
    named = storage is None or (isinstance(storage, str) and storage != "")
    require(named, "search.storage", storage, "the name of an SQLite file")
    pruner, options = _pruner(given.get("pruner", "none"))
    common = _space(given.get("space", {}), "search.space")
    spaces = {}
    for arm, what in arms.items():
        own = _space((what or {}).get("space", {}), f"arms.{arm}.space")
        spaces[str(arm)] = tuple({one.key: one for one in (*common, *own)}.values())
        require(
            len(spaces[str(arm)]) > 0, "search.space", given.get("space"), f"a mapping from config keys to {_FORMS}"
        )
    place = None if storage is None else Path(storage)
    return Search(trials, spaces, sampler, pruner, options, seed, objective, place)


def _pruner(given: Any) -> tuple[str, dict[str, int]]:
    """A name, or {name: ..., and its options}."""
    content = dict(given) if isinstance(given, Mapping) else {"name": given}
    name = content.pop("name", None)
    accepted = f"one of {', '.join(PRUNERS)}, or {{name: one of them, and its options}}"
    require(isinstance(name, str) and name in PRUNERS, "search.pruner", given, accepted)
    only(content, PRUNERS[name], f"search.pruner {name}")
    for key, value in content.items():
        whole(value, f"search.pruner.{key}")
    return name, content


def _space(given: Any, where: str) -> list[Dimension]:
    require(isinstance(given, Mapping), where, given, f"a mapping from config keys to {_FORMS}")
    for key in given:
        check_option(str(key), where)
    return [_dimension(str(key), what, f"{where}.{key}") for key, what in given.items()]


def _dimension(key: str, what: Any, where: str) -> Dimension:
    kinds = [kind for kind in ("float", "int", "choice") if isinstance(what, Mapping) and kind in what]
    require(len(kinds) == 1, where, what, _FORMS)
    kind = kinds[0]
    only(what, (kind,) if kind == "choice" else (kind, "log"), where)
    where = f"{where}.{kind}"
    values = what[kind]
    if kind == "choice":
        require(isinstance(values, list) and len(values) > 0, where, values, "a list with at least one value")
        found = Dimension(key, "choice", choices=tuple(values))
        require(len(set(found.names)) == len(values), where, values, "a list of different values")
        return found
    log = what.get("log", False)
    require(type(log) is bool, where.replace(f".{kind}", ".log"), log, "true or false")
    ends = [number(value) for value in values] if isinstance(values, list) else []
    sound = len(ends) == 2 and None not in ends and (kind == "float" or all(type(value) is int for value in values))
    numbers = "whole numbers" if kind == "int" else "numbers"
    require(sound and ends[0] < ends[1], where, values, f"a list of two {numbers}, the lower one first")  # type: ignore[operator]
    low, high = (int(end) if kind == "int" else end for end in ends if end is not None)
    require(not log or low > 0, where, values, "above 0, as its log is true")
    return Dimension(key, "int" if kind == "int" else "float", low, high, log)
