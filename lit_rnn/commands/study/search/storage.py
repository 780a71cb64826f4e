"""Trials that Optuna draws and keeps in an SQLite file, and who of several processes runs which.

A process claims a trial by a record lock on one byte of a file beside the storage, which the kernel gives back when the
process dies: a trial that is running in the storage, and that nobody has claimed, was killed, and is taken up again.
Nothing in the storage is run: Optuna keeps JSON there, and the samplers that pickle themselves into it are refused.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import io
import json
import math
import operator
import os
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import sqlalchemy.pool
from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial, TrialState

from datamodules.errors import UserError, one_line
from lit_rnn.commands.study.plan import same_configs, same_options
from lit_rnn.commands.study.search.space import Dimension, Search, text
from lit_rnn.files import cannot_write

_PATIENCE = 120  # seconds, for another process to finish its writing
_PRAGMAS = ("trusted_schema = OFF",)  # a file of somebody else may bring triggers
_HEADER = b"SQLite format 3\0"
STATES = ("complete", "pruned", "failed", "running")
LEAST = 4  # complete trials that an importance takes


@dataclass(frozen=True)
class Claimed:
    """A trial that this process runs.

    Args:
        number: In its arm, from 0.
        values: What was drawn.
        reported: Validations that the storage has already.
        again: Whether it had been begun before.
    """

    number: int
    values: Mapping[str, Any]
    reported: int
    again: bool


@dataclass(frozen=True)
class Row:
    """A trial as it stands in the storage; ``curve`` is the objective after every validation."""

    number: int
    state: str
    values: Mapping[str, Any]
    value: float | None
    curve: tuple[float, ...]
    reason: str


class Claims:
    """Record locks on bytes of one file: byte 0 while a trial is drawn, byte 1 + i while trial i is run."""

    def __init__(self, path: Path) -> None:
        try:
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
        except OSError as error:
            raise cannot_write(path, error) from error
        self._path = path

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Wait until no other process is inside."""
        try:
            fcntl.lockf(self._file, fcntl.LOCK_EX, 1, 0)
        except OSError as error:
            raise UserError(
                f"{self._path} cannot be locked ({error.strerror}), so two processes would run one trial: name a "
                "storage on a file system with locks by search.storage."
            ) from error
        try:
            yield
        finally:
            fcntl.lockf(self._file, fcntl.LOCK_UN, 1, 0)

    def take(self, trial: int) -> bool:
        """Whether nobody else had it."""
        try:
            fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, 1 + trial)
        except OSError as error:
            if error.errno in (errno.EACCES, errno.EAGAIN):
                return False
            raise
        return True

    def release(self, trial: int) -> None:
        fcntl.lockf(self._file, fcntl.LOCK_UN, 1, 1 + trial)

    def close(self) -> None:
        os.close(self._file)


class Storage:
    """An SQLite file with the trials of every arm of a study.

    Raises:
        UserError: if it is something else, or cannot be written.
    """

    def __init__(self, path: Path) -> None:
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self.path = path
        if path.is_symlink():
            raise UserError(f"{path} is a symbolic link, and nothing is written through one: name the file itself.")
        self.claims = Claims(path.with_name(f"{path.name}.claims"))
        with self.claims.alone(), self.sound():
            with path.open("rb") if path.is_file() else io.BytesIO() as file:
                header = file.read(len(_HEADER))
            if header not in (b"", _HEADER):
                raise UserError(f"{path} is no SQLite file: name another by search.storage.")
            self.optuna = optuna.storages.RDBStorage(
                "sqlite://", {"creator": self._connect, "poolclass": sqlalchemy.pool.NullPool}
            )

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self.path, timeout=_PATIENCE, check_same_thread=False)
        try:
            for pragma in _PRAGMAS:
                connection.execute(f"PRAGMA {pragma}")
        except sqlite3.Error:
            connection.close()
            raise
        return connection

    @contextlib.contextmanager
    def sound(self) -> Iterator[None]:
        """Turn what a damaged or foreign file raises into a sentence."""
        try:
            yield
        except UserError:
            raise
        except (sqlalchemy.exc.SQLAlchemyError, sqlite3.Error, optuna.exceptions.OptunaError, RuntimeError) as error:
            told = one_line(getattr(error, "orig", None) or error)[:200]  # SQLite's own words, without SQLAlchemy's
            raise UserError(
                f"{self.path} cannot be used as the storage of a search ({told}): name another by "
                "search.storage, or remove it."
            ) from error

    def close(self) -> None:
        self.optuna.remove_session()
        self.optuna.engine.dispose()
        self.claims.close()


class _ByNumber(optuna.samplers.BaseSampler):
    """A sampler that is seeded anew for every trial, by its number.

    So a search that was stopped goes on as if it had not been, and processes side by side never draw alike.
    """

    def __init__(self, kind: str, seed: int) -> None:
        self._kind, self._seed = kind, seed
        self._made: tuple[int, optuna.samplers.BaseSampler] | None = None

    def _of(self, trial: FrozenTrial) -> optuna.samplers.BaseSampler:
        if self._made is None or self._made[0] != trial.number:
            seed = int(np.random.SeedSequence([self._seed, trial.number]).generate_state(1)[0])
            made: optuna.samplers.BaseSampler = (
                optuna.samplers.TPESampler(seed=seed) if self._kind == "tpe" else optuna.samplers.RandomSampler(seed)
            )
            self._made = trial.number, made
        return self._made[1]

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return self._of(trial).infer_relative_search_space(study, trial)

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        return self._of(trial).sample_relative(study, trial, search_space)

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        return self._of(trial).sample_independent(study, trial, param_name, param_distribution)


class Trials:
    """The trials of one arm.

    Args:
        storage: Where they are kept.
        arm: Its name.
        search: What is searched.
        plan: All that makes two trials comparable, as JSON can hold it.
        higher: Whether the objective is better when higher.

    Raises:
        UserError: if there are trials of another plan, or values outside the space.
    """

    def __init__(self, storage: Storage, arm: str, search: Search, plan: Mapping[str, Any], higher: bool) -> None:
        self.storage, self.arm, self.higher = storage, arm, higher
        self.wanted, self.space = search.trials, search.spaces[arm]
        with storage.claims.alone(), storage.sound():
            self._study = optuna.create_study(
                storage=storage.optuna,
                sampler=_ByNumber(search.sampler, search.seed),
                pruner=_pruner(search),
                study_name=arm,
                direction="maximize" if higher else "minimize",
                load_if_exists=True,
            )
            told = self._study.user_attrs.get("plan")
            if told is None:
                self._study.set_user_attr("plan", dict(plan))
        differing = _differing(told, json.loads(json.dumps(plan))) if told is not None else []
        if differing:
            raise UserError(
                f"{storage.path} holds trials of {arm} by another {', '.join(differing)}, which are not "
                "comparable: name another folder with --study_dir, or another search.storage."
            )
        self._mine: dict[int, optuna.Trial] = {}
        self._failed_before = {row.number for row in self.rows() if row.state == "failed"}

    def rows(self) -> list[Row]:
        """All trials, by number."""
        with self.storage.sound():
            return [self._row(trial) for trial in self._study.get_trials(deepcopy=False)]

    def _row(self, trial: FrozenTrial) -> Row:
        state = {TrialState.COMPLETE: "complete", TrialState.PRUNED: "pruned", TrialState.FAIL: "failed"}
        curve = tuple(trial.intermediate_values[step] for step in sorted(trial.intermediate_values))
        value = trial.value if trial.state == TrialState.COMPLETE else None
        reason = str(trial.user_attrs.get("reason", ""))
        return Row(trial.number, state.get(trial.state, "running"), self._values(trial), value, curve, reason)

    def _values(self, trial: FrozenTrial) -> dict[str, Any]:
        """What was drawn, of the study file's own values: a choice is looked up by its name.

        Raises:
            UserError: for a value that is not in the space.
        """
        found = {}
        for one in self.space:
            if one.key not in trial.params:
                continue
            drawn = trial.params[one.key]
            if one.kind == "choice":
                sound = drawn in one.names
                found[one.key] = one.choices[one.names.index(drawn)] if sound else None
            else:
                sound = type(drawn) in (int, float) and one.low <= drawn <= one.high
                found[one.key] = drawn
            if not sound:
                raise UserError(
                    f"{self.storage.path}: trial {trial.number} of {self.arm} has {one.key} {drawn!r}, which the study "
                    "file's space does not hold: name another search.storage."
                )
        return found

    @property
    def left(self) -> int:
        """How many are to be run, those that were killed among them."""
        done = [row for row in self.rows() if row.state in ("complete", "pruned")]
        return max(0, self.wanted - len(done))

    def claim(self, is_run: Callable[[int], bool] = lambda number: False) -> Claimed | None:
        """The next trial for this process: one that was killed, or else a new one; None where there is none left.

        ``is_run`` says whether a trial that nobody has claimed is still run, by a child of a process that was killed.
        A trial that failed while this process was there is not replaced; one that failed before is.
        """
        with self.storage.claims.alone(), self.storage.sound():
            known = self._study.get_trials(deepcopy=False)
            for trial in known:
                if trial.state != TrialState.RUNNING or trial.number in self._mine:
                    continue
                if self.storage.claims.take(trial._trial_id):
                    # whoever had it may have ended it, and let it go, since it was read
                    runs_still = self.storage.optuna.get_trial(trial._trial_id).state == TrialState.RUNNING
                    if runs_still and not is_run(trial.number):
                        return self._begin(optuna.Trial(self._study, trial._trial_id), len(trial.intermediate_values))
                    self.storage.claims.release(trial._trial_id)
            if sum(trial.number not in self._failed_before for trial in known) >= self.wanted:
                return None
            asked = self._study.ask()
            self.storage.claims.take(asked._trial_id)
            return self._begin(asked, None)

    def _begin(self, trial: optuna.Trial, reported: int | None) -> Claimed:
        for one in self.space:  # what was drawn already is kept
            _draw(trial, one)
        self._mine[trial.number] = trial
        values = self._values(self.storage.optuna.get_trial(trial._trial_id))
        return Claimed(trial.number, values, reported or 0, reported is not None)

    def report(self, number: int, step: int, value: float) -> bool:
        """The objective after validation ``step``, from 0; whether the trial should end now."""
        with self.storage.sound():
            self._mine[number].report(value, step)
            return bool(self._mine[number].should_prune())

    def complete(self, number: int, value: float) -> None:
        self._end(number, TrialState.COMPLETE, value)

    def prune(self, number: int, reason: str) -> None:
        """It was stopped early, or diverged: it counts as a trial, and as a bad one."""
        self._end(number, TrialState.PRUNED, None, reason)

    def fail(self, number: int, reason: str) -> None:
        """It says nothing of its values, and does not count."""
        self._end(number, TrialState.FAIL, None, reason)

    def _end(self, number: int, state: TrialState, value: float | None, reason: str = "") -> None:
        with self.storage.sound():
            trial = self._mine.pop(number)
            if reason:
                trial.set_user_attr("reason", reason)
            self._study.tell(trial, value, state=state)
            self.storage.claims.release(trial._trial_id)

    def importance(self) -> dict[str, float]:
        """The share of the objective's variance over the space that each key explains on its own, highest first.

        By fANOVA (Hutter, Hoos and Leyton-Brown 2014), of a random forest that is fitted to the complete trials. What
        keys explain only together is nobody's, so that the shares sum to 1 at most. Empty where there are fewer than
        `LEAST` complete trials, or where all have one value.
        """
        done = [row for row in self.rows() if row.value is not None]
        if len(done) < LEAST or len({row.value for row in done}) < 2:
            return {}
        scales = {one.key: _scale(one) for one in self.space}
        study = optuna.create_study()  # in memory
        for row in done:
            scaled = {key: scales[key][1](value) for key, value in row.values.items()}
            told = {key: scales[key][0] for key in scaled}
            study.add_trial(optuna.create_trial(params=scaled, distributions=told, value=row.value))
        found = optuna.importance.FanovaImportanceEvaluator(seed=0).evaluate(study)
        return {key: float(value) for key, value in found.items() if math.isfinite(value)}


def _scale(one: Dimension) -> tuple[BaseDistribution, Callable[[Any], Any]]:
    """On which a forest sees a key, and how a value comes there: a number whose log is drawn as its log, or most of
    what is drawn would be a sliver of the space."""
    if one.kind == "choice":
        return optuna.distributions.CategoricalDistribution(one.names), text
    half = 0.5 if one.kind == "int" else 0.0  # a whole number stands for what is rounded to it
    low, high = one.low - half, one.high + half
    if one.log:
        return optuna.distributions.FloatDistribution(math.log(low), math.log(high)), math.log
    return optuna.distributions.FloatDistribution(low, high), float


def _differing(told: Any, plan: Mapping[str, Any]) -> list[str]:
    """The parts of a plan that are other ones now."""
    if not isinstance(told, dict) or told.keys() != plan.keys():
        return ["plan"]
    same = {"options": same_options, "base configs": same_configs}
    return [key for key in plan if not same.get(key, operator.eq)(told[key], plan[key])]


def _draw(trial: optuna.Trial, one: Dimension) -> None:
    if one.kind == "choice":
        trial.suggest_categorical(one.key, one.names)
    elif one.kind == "int":
        trial.suggest_int(one.key, int(one.low), int(one.high), log=one.log)
    else:
        trial.suggest_float(one.key, one.low, one.high, log=one.log)


def _pruner(search: Search) -> optuna.pruners.BasePruner:
    kinds: dict[str, Callable[..., optuna.pruners.BasePruner]] = {
        "none": optuna.pruners.NopPruner,
        "median": optuna.pruners.MedianPruner,
        "successive_halving": optuna.pruners.SuccessiveHalvingPruner,
    }
    try:
        return kinds[search.pruner](**search.pruner_options)
    except ValueError as error:
        raise UserError(f"search.pruner cannot be used: {one_line(error)}") from error
