"""What the tests of the command line share: a tiny run, started in this process, in an empty folder."""

from __future__ import annotations

import copy
import csv
import functools
import hashlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from pytorch_lightning import Callback

from lit_rnn import callbacks
from lit_rnn.__main__ import main

# 4 steps an epoch, two epochs, every step logged
TINY: dict[str, Any] = {
    "seed_everything": 1,
    "threads": 1,
    "model": {"class_path": "ExpRNN", "init_args": {"hidden_size": 8}},
    "data": {
        "class_path": "CopyMemory",
        "init_args": {"delay": 5, "train_samples": 32, "val_samples": 8, "test_samples": 8, "batch_size": 8},
    },
    "trainer": {"max_epochs": 2, "log_every_n_steps": 1, "accelerator": "cpu"},
}


def merged(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """``base`` with ``changes`` put over it, key by key; another class_path takes its own init_args only."""
    result = copy.deepcopy(base)
    for key, value in changes.items():
        both = isinstance(value, dict) and isinstance(result.get(key), dict)
        result[key] = merged(result[key], value) if both and "class_path" not in value else copy.deepcopy(value)
    return result


@dataclass
class Done:
    """What one call of the command line did."""

    status: int
    out: str
    err: str


Run = Callable[..., Done]


def _write_tiny(path: Path, *changes: dict[str, Any]) -> str:
    path.write_text(yaml.safe_dump(functools.reduce(merged, changes, TINY)))
    return str(path)


@pytest.fixture(scope="session")
def write_tiny() -> Callable[..., str]:
    """Write the tiny config with changes to a path."""
    return _write_tiny


@pytest.fixture
def config(tmp_path: Path) -> Callable[..., str]:
    """Write the tiny config with changes; gives its path."""
    return lambda name="tiny.yaml", **changes: _write_tiny(tmp_path / name, changes)


@pytest.fixture
def cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Iterator[Run]:
    """Call the command line in this process, in ``tmp_path``."""
    monkeypatch.chdir(tmp_path)
    for name in ("PL_GLOBAL_SEED", "PL_SEED_WORKERS", "LIT_RNN_RUN_DIR"):
        monkeypatch.delenv(name, raising=False)

    def run(*arguments: object) -> Done:
        capfd.readouterr()
        status = main([str(argument) for argument in arguments])
        return Done(status, *capfd.readouterr())

    yield run
    torch.set_flush_denormal(False)
    torch.set_num_threads(1)
    for name in ("PL_GLOBAL_SEED", "PL_SEED_WORKERS"):
        os.environ.pop(name, None)


def tree(folder: Path) -> dict[str, str]:
    """Every file and folder below ``folder``, files with the hash of their bytes."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "folder"
        for path in sorted(folder.rglob("*"))
    }


def rows(folder: str | Path) -> list[dict[str, str]]:
    """The rows of metrics.csv, without what is empty."""
    with open(Path(folder) / "metrics.csv", newline="") as file:
        return [{key: value for key, value in row.items() if value} for row in csv.DictReader(file)]


@pytest.fixture
def snapshot(tmp_path: Path) -> Callable[[], dict[str, str]]:
    return lambda: tree(tmp_path)


@pytest.fixture
def refused(cli: Run, tmp_path: Path) -> Callable[..., str]:
    """Call the command line with bad input; gives the one sentence, after checking all that holds for every refusal."""

    def run(*arguments: object, leaves: bool = False) -> str:
        before = tree(tmp_path)
        done = cli(*arguments)
        assert done.status == 2, done
        lines = done.err.splitlines()
        assert len(lines) == 1 and lines[0].startswith("lit_rnn: "), done.err
        assert "Traceback" not in done.out + done.err
        after = tree(tmp_path)
        assert {name: after.get(name) for name in before} == before, "something that was there has changed"
        if not leaves:
            assert after == before, "a refused run leaves files behind"
        for jargon in ("Union", "Namespace", "NestedArg", "<class", "typing.", "Parser key"):
            assert jargon not in lines[0], f"the parser's own words: {lines[0]}"
        return lines[0]

    return run


@pytest.fixture
def _no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two thirds of the time of a tiny run are its pictures."""
    for cls in (callbacks.TaskPicture, callbacks.SpectrumPicture, callbacks.StatePicture):
        for hook in ("on_fit_start", "on_fit_end"):
            monkeypatch.setattr(cls, hook, getattr(Callback, hook))
