"""The runs that are compared: folders, studies and patterns become finished runs with their configs."""

from __future__ import annotations

import functools
import glob
import inspect
import json
import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import ModuleType
from typing import Any

from datamodules.errors import UserError
from lit_rnn.files import in_whole, read_yaml
from lit_rnn.runs.curves import is_whole, read_curve
from lit_rnn.runs.endings import how_diverged, is_diverged
from lit_rnn.runs.folder import kept_fingerprint, newest_config, newest_versions
from lit_rnn.runs.options import FILES, PLACES, TRAINER, said_before, without
from lit_rnn.runs.results import astray, read_result, runs_below

# Options of the data that change what is learnt, but not what is measured
_SIZES = {"batch_size", "train_samples", "val_samples", "test_samples", "reuse", "tbptt", "carry", "bucket_by_length"}
_TRAINING = PLACES | _SIZES | {"val_lengths", "curriculum"}


@dataclass(frozen=True)
class Run:
    """A finished run.

    Args:
        folder: Where it lies.
        fit: The numbers of ``fit.json``.
        test: Those of ``test.json``, once ``test`` has run on the run's own task.
        config: What it was told; empty where there is no config.
        before: Options that it began with, and that a resume has changed.
        astray: Why ``test.json`` is not the run's own, where it is not.
        fingerprint: What tells the files of the user's own that it read from others, as ``fit`` kept it; None of a run
            that read none, or whose version kept none.
    """

    folder: Path
    fit: Mapping[str, Any]
    test: Mapping[str, Any] | None = None
    config: Mapping[str, Any] = field(default_factory=dict)
    before: tuple[Mapping[str, Any], ...] = ()
    astray: str = ""
    fingerprint: str | None = None

    @property
    def model(self) -> str:
        """The name of its class; of one that has no numbers by its config."""
        return str(self.fit.get("model") or self.class_path("model").rpartition(".")[2])

    @property
    def place(self) -> Path:
        """The folder from the root on: ``.`` has no name."""
        return Path(os.path.abspath(self.folder))

    @property
    def seed(self) -> Any:
        return self.config.get("seed_everything")

    @property
    def split(self) -> str:
        """What the numbers of training were measured on."""
        return str(self.fit.get("split", "val"))

    @property
    def processes(self) -> int:
        """That share a step: a batch is of each. Where the config leaves it to the machine, those that it took."""
        trainer = self.config.get("trainer")
        trainer = trainer if isinstance(trainer, Mapping) else {}
        devices, nodes = trainer.get("devices", "auto"), trainer.get("num_nodes") or 1
        if isinstance(devices, str) and "," in devices:
            devices = [one for one in devices.split(",") if one.strip()]
        if isinstance(devices, list):
            return len(devices) * int(nodes)
        if str(devices).isdecimal():
            return int(devices) * int(nodes)
        took = newest_versions(self.folder).get("devices")
        return max(1, len(took) if isinstance(took, list) else 0) * int(nodes)

    @functools.cached_property
    def validations(self) -> tuple[list[int], list[float]]:
        """Optimizer steps, and losses."""
        return read_curve(self.folder / "metrics.csv", "val/loss")

    @functools.cached_property
    def losses(self) -> list[float]:
        """Of its validations; none where metrics.csv ends before the run did."""
        return self.validations[1] if is_whole(self.folder / "metrics.csv", self.fit["steps"]) else []

    @property
    def files(self) -> dict[str, Any]:
        """The options of its data that name files of the user's own."""
        return {key: value for key, value in self.options("data").items() if key in FILES}

    def options(self, section: str) -> dict[str, Any]:
        """The ``init_args`` of the config's model or data."""
        found = self.config.get(section)
        given = found.get("init_args") if isinstance(found, dict) else None
        return given if isinstance(given, dict) else {}

    def class_path(self, section: str) -> str:
        found = self.config.get(section)
        return str(found.get("class_path", "")) if isinstance(found, dict) else ""

    def with_options(self, section: str, defaults: Mapping[str, Any]) -> Run:
        """With ``defaults`` where the config does not say."""
        if not defaults:
            return self
        found = {**self.config[section], "init_args": {**defaults, **self.options(section)}}
        return replace(self, config={**self.config, section: found})


def read_run(folder: Path) -> Run:
    """A finished run of a folder.

    Raises:
        UserError: if it holds none, or if its files are damaged.
    """
    fit, run = read_result(folder), read_diverged(folder)
    test = read_result(folder, "test") if (folder / "test.json").is_file() else None
    apart = "" if test is None else astray(fit, test, run.fingerprint)
    return replace(run, fit=fit, test=None if apart else test, before=said_before(folder), astray=apart)


def tested_elsewhere(runs: Sequence[Run]) -> str:
    """A sentence on the runs whose test.json is of another task or model than their training; empty where none is."""
    told = [f"{run.folder / 'test.json'} ({run.astray})" for run in runs if run.astray]
    return f"Left out, not a test of what was trained: {', '.join(told)}." if told else ""


def read_diverged(folder: Path) -> Run:
    """What a run that has diverged was told; it has no numbers.

    Raises:
        UserError: if its config is damaged.
    """
    run = Run(folder, {}, config=_config(folder))
    generated = run.class_path("data").startswith("datamodules.") and not any(run.files.values())
    return replace(run, fingerprint=None if generated else kept_fingerprint(folder))


def _config(folder: Path) -> dict[str, Any]:
    path = newest_config(folder)
    config = {} if path is None else read_yaml(path, "config")
    if not isinstance(config, dict):
        raise UserError(f"config {path} is damaged (it holds no keys): recreate it or remove it.")
    if path is not None:
        with in_whole(path):
            key_of(config)  # keys of several kinds have no order
    return config


def measured(run: Run) -> dict[str, Any]:
    """The options of the data that say what is measured."""
    options = run.options("data")
    # chunks that each stand alone: how far back a symbol sees is theirs
    kept = {"tbptt", "carry"} if options.get("carry", True) in (False, 0) else set()
    return {key: value for key, value in sorted(options.items(), key=str) if key not in _TRAINING - kept}


def measured_on(run: Run) -> tuple[Any, ...]:
    """What runs of one table share of their data: files count by what is in them, where a fingerprint tells it."""
    return without(measured(run), frozenset() if run.fingerprint is None else FILES), run.fingerprint


def setting(run: Run) -> str:
    """What runs of one group share: the whole config but for seed and places, the size of the network, how many
    processes share a step, what a resume has changed, and what is in the files that were read."""
    if not run.config:
        return str(run.folder)
    files = frozenset[str]() if run.fingerprint is None else FILES  # a resume on other ones is refused
    model, data = without(run.config.get("model"), PLACES), without(run.config.get("data"), PLACES | files)
    trainer = without(run.config.get("trainer"), TRAINER)
    before = [{key: one[key] for key in one if key.rpartition(".")[2] not in files} for one in run.before]
    changed = [one for one in before if one]
    return key_of(model, data, trainer, run.fit["parameters"], run.processes, changed, run.fingerprint)


def key_of(*values: Any) -> str:
    return json.dumps(values, sort_keys=True, default=str)


def completed(runs: Sequence[Run]) -> list[Run]:
    """The runs with what they lack because a version added it later: an option's default is what was before, and the
    fingerprint of files that of the other runs on files of these names, where all of them have the same.

    Nothing is imported for runs whose configs have the same options.
    """
    runs = _with_fingerprints(runs)
    for section in ("model", "data"):
        told: dict[Any, set[frozenset[str]]] = {}
        for run in runs:
            told.setdefault(run.class_path(section), set()).add(frozenset(run.options(section)))
        defaults = {name: _defaults(name, frozenset.union(*told[name])) for name in told if len(told[name]) > 1}
        runs = [run.with_options(section, defaults.get(run.class_path(section), {})) for run in runs]
    return list(runs)


def _place(run: Run) -> str:
    return key_of(run.class_path("data"), run.files or measured(run))


def _with_fingerprints(runs: Sequence[Run]) -> list[Run]:
    known: dict[str, set[str]] = {}
    for run in runs:
        there = known.setdefault(_place(run), set())
        there |= set() if run.fingerprint is None else {run.fingerprint}
    sole = {place: min(there) for place, there in known.items() if len(there) == 1}
    return [replace(run, fingerprint=run.fingerprint or sole.get(_place(run))) for run in runs]


def by_name_alone(runs: Sequence[Run]) -> str:
    """A sentence on the runs without a fingerprint of their files; empty where no other run has files."""
    readers = [run for run in runs if any(run.files.values())]
    bare = [str(run.folder) for run in readers if run.fingerprint is None]
    if len(readers) < 2 or not bare:
        return ""
    return f"Their files are told apart by name alone, as versions.json has no fingerprint of them: {', '.join(bare)}."


def _defaults(class_path: str, wanted: Collection[str]) -> dict[str, Any]:
    """Of ``wanted`` options of one of our classes; none of another's, which may mean anything by a new option."""
    module, _, name = class_path.rpartition(".")
    ours: ModuleType
    if module == "datamodules":
        import datamodules as ours
    elif module == "lit_rnn.models":
        import lit_rnn.models as ours
    else:
        return {}
    cls = getattr(ours, name, None)
    writers = [vars(base).get("__init__") for base in reversed(cls.__mro__)] if isinstance(cls, type) else []
    options = [option for write in writers if write for option in inspect.signature(write).parameters.values()]
    return {one.name: one.default for one in options if one.name in wanted and one.default is not one.empty}


def find_runs(given: Sequence[str]) -> tuple[list[Path], list[Path]]:
    """The run folders that are meant, each once: finished ones, and those left out because they have not finished.

    ``given`` are run folders, folders with runs at any depth below them, such as a study's, W&B's folders inside a run
    folder, and patterns such as ``runs/*-seed=1``, whether the shell knows them or not.

    Raises:
        UserError: naming what holds no run, or saying why there are no numbers where no run has finished.
    """
    finished: list[Path] = []
    unfinished: list[Path] = []
    bare: list[tuple[Path, list[Path]]] = []
    for name in given:
        folders = [Path(name)] if Path(name).exists() else [Path(one) for one in sorted(glob.glob(name))]
        if not folders:
            raise UserError(f"{name} is neither a folder nor a pattern that matches one: name run folders or studies.")
        for folder in folders:
            folder = _run_of_wandb(folder)
            below = runs_below(folder) if folder.is_dir() else []
            if not below and len(folders) == 1:
                raise UserError(_why_none(folder, below))
            done = [run for run in below if (run / "fit.json").is_file()]
            finished += done
            unfinished += [run for run in below if run not in done]
            bare += [] if done else [(folder, below)]
    if not finished:
        raise UserError(" ".join(_why_none(*one) for one in bare))
    return _once(finished), _once(unfinished)


def _why_none(folder: Path, below: Sequence[Path]) -> str:
    """Why there are no numbers in a folder, of the runs below it or of itself."""
    lost = [run for run in below if is_diverged(run)]
    if folder in lost:
        return f"{folder} has diverged, and has no numbers: {how_diverged(folder)}."
    if folder in below:
        return f"{folder} has not ended (no {folder / 'fit.json'}): name it once it has."
    if below:
        return f"{folder} holds no finished run; diverged: {len(lost)}, not ended: {len(below) - len(lost)}."
    return f"{folder} holds no run (no config.yaml, no fit.json): name run folders or studies."


def _once(folders: Sequence[Path]) -> list[Path]:
    """Each by the first of its names."""
    found: dict[Path, Path] = {}
    for folder in folders:
        found.setdefault(folder.resolve(), folder)
    return list(found.values())


def _run_of_wandb(folder: Path) -> Path:
    """The run folder of one of W&B's, online or offline: ``fit`` keeps those inside of it.

    Raises:
        UserError: for one that was taken out of its run folder.
    """
    of_wandb = folder.name.startswith(("run-", "offline-run-", "latest-run"))
    place = folder if len(folder.parts) > 2 else Path(os.path.abspath(folder))
    if of_wandb and place.parent.name == "wandb" and newest_config(place.parent.parent):
        return place.parent.parent
    if of_wandb and any(folder.glob("run-*.wandb")):
        raise UserError(
            f"{folder} is a run of W&B's without the run folder that it was written in, whose fit.json and metrics.csv "
            "compare reads: name that run folder."
        )
    return folder
