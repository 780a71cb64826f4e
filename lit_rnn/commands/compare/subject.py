"""The runs that are compared: folders, studies and patterns become finished runs with their configs."""

from __future__ import annotations

import glob
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from datamodules.errors import UserError
from lit_rnn.files import read_yaml
from lit_rnn.runs.folder import newest_config
from lit_rnn.runs.results import read_result, runs_below


@dataclass(frozen=True)
class Run:
    """A finished run.

    Args:
        folder: Where it lies.
        fit: The numbers of ``fit.json``.
        test: Those of ``test.json``, once ``test`` has run.
        config: What it was told; empty where there is no config.
    """

    folder: Path
    fit: Mapping[str, Any]
    test: Mapping[str, Any] | None = None
    config: Mapping[str, Any] = field(default_factory=dict)

    @property
    def seed(self) -> Any:
        return self.config.get("seed_everything")

    @property
    def split(self) -> str:
        """What the numbers of training were measured on."""
        return str(self.fit.get("split", "val"))

    def options(self, section: str) -> dict[str, Any]:
        """The ``init_args`` of the config's model or data."""
        found = self.config.get(section)
        given = found.get("init_args") if isinstance(found, dict) else None
        return given if isinstance(given, dict) else {}


def read_run(folder: Path) -> Run:
    """A finished run of a folder.

    Raises:
        UserError: if it holds none, or if its files are damaged.
    """
    fit = read_result(folder)
    test = read_result(folder, "test") if (folder / "test.json").is_file() else None
    path = newest_config(folder)
    config = {} if path is None else read_yaml(path, "config")
    if not isinstance(config, dict):
        raise UserError(f"config {path} is damaged (it holds no keys): recreate it or remove it.")
    return Run(folder, fit, test, config)


def find_runs(given: Sequence[str]) -> tuple[list[Path], list[Path]]:
    """The run folders that are meant, each once: finished ones, and those left out because they have not finished.

    ``given`` are run folders, folders with runs at any depth below them, such as a study's, W&B's folders inside a run
    folder, and patterns such as ``runs/*-seed=1``. A run folder that is named itself must have finished.

    Raises:
        UserError: naming what holds no run, or an unfinished run that was named itself.
    """
    finished: list[Path] = []
    unfinished: list[Path] = []
    for name in given:
        folders = [Path(name)] if Path(name).exists() else [Path(one) for one in sorted(glob.glob(name))]
        if not folders:
            raise UserError(f"{name} is neither a folder nor a pattern that matches one: name run folders or studies.")
        for folder in folders:
            folder = _run_of_wandb(folder)
            below = runs_below(folder) if folder.is_dir() else []
            done = [run for run in below if (run / "fit.json").is_file()]
            if not done and (len(folders) == 1 or folder in below):
                read_result(folder)  # which says what is missing
            finished += done
            unfinished += [run for run in below if run not in done]
    return list(dict.fromkeys(finished)), list(dict.fromkeys(unfinished))


def _run_of_wandb(folder: Path) -> Path:
    """The run folder of one of W&B's, online or offline: ``fit`` keeps those inside of it.

    Raises:
        UserError: for one that was taken out of its run folder.
    """
    of_wandb = folder.name.startswith(("run-", "offline-run-", "latest-run"))
    if of_wandb and folder.parent.name == "wandb" and newest_config(folder.parent.parent):
        return folder.parent.parent
    if of_wandb and any(folder.glob("run-*.wandb")):
        raise UserError(
            f"{folder} is a run of W&B's without the run folder that it was written in, whose fit.json and metrics.csv "
            "compare reads: name that run folder."
        )
    return folder
