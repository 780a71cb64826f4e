"""From a study file to its runs."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, get_args

from datamodules.errors import UserError, as_in_yaml, did_you_mean, held, require
from lit_rnn.commands.configs import find_config
from lit_rnn.commands.quiet import quiet_lightning
from lit_rnn.commands.study.search.space import (
    OF_THE_STUDY,
    Search,
    check_option,
    only,
    read_search,
    refuse_twice,
    text,
)
from lit_rnn.files import check_name, file_name, read_yaml
from lit_rnn.runs.options import number

Checkpoint = Literal["best", "last"]
KEYS = ("base", "grid", "seeds", "arms", "success", "best", "search")
ARM_KEYS = ("base", "grid", "space")
SEEDS = "whole numbers from 0 to 4294967295"


@dataclass(frozen=True)
class Setting:
    """What the runs of one row share: an arm's base configs and one value for each key of the grid.

    ``name`` is the arm and what varies in it, by the last part of its key: chain-alpha=1.02-lr=0.0001.
    """

    arm: str
    bases: tuple[str, ...]
    values: tuple[tuple[str, Any], ...] = field(hash=False)  # a value may be a list
    name: str

    @property
    def configs(self) -> tuple[str, ...]:
        """Every config that is read: the bases, and an overlay that is a value of the grid."""
        return self.bases + tuple(find_config(text(value)) for key, value in self.values if key == "config")

    def arguments(self) -> list[str]:
        """What follows ``python -m lit_rnn fit``."""
        files = [part for base in self.bases for part in ("-c", base)]
        return files + [part for key, value in self.values for part in (f"--{key}", text(value))]


@dataclass(frozen=True)
class Run:
    """One setting with one seed: its training, or the test of what it came to."""

    setting: Setting
    seed: int
    command: Literal["fit", "test"] = "fit"
    checkpoint: Checkpoint = "best"  # of a test

    @property
    def name(self) -> str:
        """Of its folder."""
        return f"{self.setting.name}-seed={self.seed}"

    @property
    def told(self) -> str:
        """In a line about it."""
        return self.name if self.command == "fit" else f"{self.command} of {self.name}"

    def arguments(self) -> list[str]:
        return [*self.setting.arguments(), "--seed_everything", str(self.seed)]


def numbers(runs: Sequence[Run]) -> str:
    """How many they are, in words: 6 runs and 1 test."""
    tests = sum(run.command == "test" for run in runs)
    trainings = len(runs) - tests
    parts = [f"{trainings:,} run{'s' * (trainings != 1)}"] if trainings or not tests else []
    return " and ".join([*parts, *([f"{tests:,} test{'s' * (tests != 1)}"] if tests else [])])


@dataclass(frozen=True)
class Best:
    """What only the best setting of each arm is worth: more seeds, and a test of all of its runs.

    Args:
        checkpoint: What is tested: each run's best on validation, or its last. Where validation cannot tell checkpoints
            apart, as under a curriculum whose first lengths are soon learnt, the best is the first of many.
        if_success: More seeds only where all its runs of the study's own seeds have succeeded; tests all the same.
    """

    seeds: tuple[int, ...]
    test: bool
    if_success: bool = False
    checkpoint: Checkpoint = "best"


@dataclass(frozen=True)
class Study:
    """A study file, read and checked.

    Args:
        path: The file.
        settings: In the order of the file.
        seeds: Of every setting.
        below: A run succeeds when its validation loss once falls below this; None: below_chance decides.
        below_chance: The same, as a share of the task's chance level.
        search: What is drawn beside the grid, if anything is; then each arm has one setting.
        best: What follows for the best setting of each arm, once all of the arm's have run.
    """

    path: Path
    settings: tuple[Setting, ...]
    seeds: tuple[int, ...]
    below: float | None
    below_chance: float
    search: Search | None = None
    best: Best | None = None

    @property
    def runs(self) -> list[Run]:
        """Every setting with every seed; what follows for the best ones is known later."""
        return [Run(setting, seed) for setting in self.settings for seed in self.seeds]

    @property
    def arms(self) -> list[str]:
        return list(dict.fromkeys(setting.arm for setting in self.settings))

    @property
    def trainings(self) -> list[Run]:
        """Every setting with every seed that it may be trained with."""
        seeds = (*self.seeds, *(self.best.seeds if self.best is not None else ()))
        return [Run(setting, seed) for setting in self.settings for seed in seeds]

    def only(self, run: Run) -> Study:
        """One run of it, as a study."""
        return replace(self, settings=(run.setting,), seeds=(run.seed,), best=None)

    def of_arms(self, names: Sequence[str]) -> Study:
        """The study of these arms alone.

        Raises:
            UserError: if it has no such arm.
        """
        for name in names:
            meant = did_you_mean(name, self.arms)
            accepted = f"an arm of {self.path}{meant}; they are {', '.join(self.arms)}"
            require(name in self.arms, "--arms", name, accepted)
        return replace(self, settings=tuple(setting for setting in self.settings if setting.arm in names))

    def following(self, setting: Setting, succeeded: bool = True) -> list[Run]:
        """The runs that follow where ``setting`` is the best of its arm, trainings before tests."""
        if self.best is None:
            return []
        more = self.best.seeds if succeeded or not self.best.if_success else ()
        tested = (*self.seeds, *more) if self.best.test else ()
        return [Run(setting, seed) for seed in more] + [
            Run(setting, seed, "test", self.best.checkpoint) for seed in tested
        ]


def read_study(name: str) -> Study:
    """The study of a YAML file, or of a shipped one by its name.

    Keys: ``base``, a config or a list of them, as for ``fit -c``; ``grid``, option to list of values, all combinations;
    ``seeds``; ``arms``, name to {base, grid}, which are added to the common ones; ``success``, {below: loss} or
    {below_chance: share}, half of chance by default; ``best``, {seeds, test, checkpoint, if_success}, what follows for
    each arm's best setting; ``search``, see `lit_rnn.commands.study.search.space.Search`.

    Raises:
        UserError: naming the key.
    """
    path = Path(find_config(name))
    if not path.is_file():
        raise UserError(f"study file {name} {'is a folder' if path.is_dir() else 'does not exist'}: name a YAML file.")
    content = read_yaml(path, "study file")
    if not isinstance(content, dict):
        raise UserError(f"study file {name} {held(content)}, but it must hold a mapping with {', '.join(KEYS)}.")
    only(content, KEYS, str(path))
    seeds = content.get("seeds", [1])
    require(_different(seeds) and seeds, "seeds", seeds, f"a list of different {SEEDS}")
    arms = content.get("arms", {path.stem: {}})
    require(isinstance(arms, dict) and len(arms) > 0, "arms", arms, "a mapping from names to {base, grid}")
    for arm in arms:
        check_name(str(arm), "A name in arms")
    settings = [setting for arm, what in arms.items() for setting in _settings(str(arm), what or {}, content)]
    names = [setting.name for setting in settings]
    twice = sorted({name for name in names if names.count(name) > 1})
    require(not twice, "grid", ", ".join(twice[:3]), "such that every run has a name of its own")
    success = content.get("success", {})
    require(isinstance(success, dict), "success", success, "{below: loss} or {below_chance: share}")
    only(success, ("below", "below_chance"), "success")
    below, below_chance = _positive(success, "below"), _positive(success, "below_chance")
    require(below is None or below_chance is None, "success", success, "below or below_chance, not both")
    search = None if content.get("search") is None else _search(content, arms, settings, seeds)
    best = None if content.get("best") is None else _best(content["best"], seeds)
    for arm, what in arms.items():
        if search is None and "space" in (what or {}):
            raise UserError(f"arms.{arm} has the key 'space', but there is no search: leave it out, or add search.")
    share = 0.5 if below_chance is None else below_chance
    return Study(path, tuple(settings), tuple(seeds), below, share, search, best)


def _different(seeds: Any) -> bool:
    """Whether they are a list of different `SEEDS`."""
    whole = isinstance(seeds, list) and all(type(seed) is int and 0 <= seed < 2**32 for seed in seeds)
    return whole and len(set(seeds)) == len(seeds)


def _best(given: Any, seeds: Sequence[int]) -> Best:
    """``best:``, whose seeds come beside those of the search for the best."""
    require(isinstance(given, dict), "best", given, "a mapping with seeds, test, checkpoint and if_success")
    only(given, ("seeds", "test", "checkpoint", "if_success"), "best")
    more, test, if_success = given.get("seeds", []), given.get("test", False), given.get("if_success", False)
    accepted = f"a list of different {SEEDS}, none of which is in seeds, {list(seeds)}"
    require(_different(more) and not set(more) & set(seeds), "best.seeds", more, accepted)
    for key, value in (("test", test), ("if_success", if_success)):
        require(isinstance(value, bool), f"best.{key}", value, "true or false")
    checkpoint = given.get("checkpoint", "best")
    known = get_args(Checkpoint)
    require(checkpoint in known, "best.checkpoint", checkpoint, " or ".join(known))
    require(test or "checkpoint" not in given, "best.checkpoint", checkpoint, "left out without test: true")
    require(more or test, "best", given, "such that something follows: name seeds, or test: true")
    require(more or not if_success, "best.seeds", more, "a list of at least one seed beside if_success")
    return Best(tuple(more), test, if_success, checkpoint)


def _search(content: Mapping[str, Any], arms: Mapping[str, Any], settings: Sequence[Setting], seeds: Any) -> Search:
    """``search:``, with a grid beside it that gives each option one value."""
    search = read_search(content["search"], arms)
    for key in ("success", "best"):
        require(key not in content, key, content.get(key), "left out beside search, which has no grid")
    require(len(seeds) == 1, "seeds", seeds, "one seed, as every trial of a search is one run")
    for setting in settings:
        space = [one.key for one in search.spaces[setting.arm]]
        for key, _ in setting.values:
            require(key not in space, "search.space", key, "in the space or in the grid, not in both")
        drawn = {one.key: one.choices or (None,) for one in search.spaces[setting.arm]}
        refuse_twice({key: (value,) for key, value in setting.values} | drawn, "search.space with grid")
    if len(settings) > len(arms):
        raise UserError(
            "grid gives an option several values, but beside search it may give each only one: what is to be chosen "
            "from belongs in search.space."
        )
    return search


def _positive(success: Mapping[str, Any], key: str) -> float | None:
    given = success.get(key)
    found = number(given)
    require(given is None or (found is not None and found > 0), f"success.{key}", given, "a positive number")
    return found


def _settings(arm: str, what: Mapping[str, Any], common: Mapping[str, Any]) -> list[Setting]:
    require(isinstance(what, Mapping), f"arms.{arm}", what, "a mapping with base and grid")
    only(what, ARM_KEYS, f"arms.{arm}")
    bases = tuple(find_config(base) for given in (common, what) for base in _bases(given.get("base")))
    if not bases:
        raise UserError(f"base is not given: name a config, or a list of them, in the study or in arms.{arm}.")
    grid: dict[str, list[Any]] = {}
    for where, given in (("grid", common.get("grid") or {}), (f"arms.{arm}.grid", what.get("grid") or {})):
        require(isinstance(given, dict), where, given, "a mapping from options to lists of values")
        for key, values in given.items():
            check_option(str(key), where)
            some = isinstance(values, list) and len(values) > 0
            require(some, f"{where}.{key}", values, "a list with at least one value")
            grid[str(key)] = values
    refuse_twice(grid, f"arms.{arm}.grid with grid")
    settings = []
    for combination in itertools.product(*grid.values()):
        values = dict(zip(grid, combination, strict=True))
        varying = [f"{key.rpartition('.')[2]}={text(values[key])}" for key in grid if len(grid[key]) > 1]
        settings.append(Setting(arm, bases, tuple(values.items()), file_name("-".join([arm, *varying]))))
    return settings


def _bases(given: Any) -> list[str]:
    """What stands under ``base``: a config, or a list of them."""
    names = given if isinstance(given, list) else [] if given is None else [given]
    require(all(isinstance(name, str) for name in names), "base", given, "a config or a list of them")
    return names


def overridden(study: Study, threads: int) -> list[str]:
    """A sentence for every option of a config that has no effect, as the study gives each run another value of it.

    Args:
        study: Whose base configs and overlays are read.
        threads: Of each run.
    """
    kept = {"seed_everything": {run.seed for run in study.trainings}, "threads": {threads}, "run_dir": set()}
    told = []
    for config in dict.fromkeys(config for setting in study.settings for config in setting.configs):
        content = read_yaml(Path(config), "config")
        given = content if isinstance(content, dict) else {}  # what else it may be is refused later
        told += [
            f"{config} says {key}: {as_in_yaml(given[key])}, which has no effect, as the study gives {key} to every "
            f"run: {OF_THE_STUDY[key]}."
            for key, values in kept.items()
            if given.get(key) is not None and as_in_yaml(given[key]) not in {as_in_yaml(value) for value in values}
        ]
    return told


def resolved(setting: Setting) -> dict[str, Any]:
    """The whole config of a setting, as `fit` reads it; nothing is built.

    Raises:
        UserError: what `fit` itself would say.
    """
    from lit_rnn.commands.config_parser import resolve  # here: torch and Lightning take seconds

    quiet_lightning()
    return resolve(setting.arguments())
