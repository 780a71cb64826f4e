"""What the tests of SECURITY.md share: one trained run to copy, files of an attacker, and proof that nothing happened.

These tests were written from SECURITY.md alone, by somebody who had not seen the code.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from datamodules import UserError
from lit_rnn.__main__ import main

Tree = dict[str, str]
Watch = Callable[[], AbstractContextManager[None]]
_number = itertools.count()


def tree(folder: Path) -> Tree:
    """Every path below ``folder``: links with where they point, files with the hash of their bytes."""
    return {
        str(path.relative_to(folder)): f"link to {path.readlink()}"
        if path.is_symlink()
        else hashlib.sha256(path.read_bytes()).hexdigest()
        if path.is_file()
        else "folder"
        for path in sorted(folder.rglob("*"))
    }


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory, write_tiny: Callable[..., str]) -> Path:
    """A run of eight steps. Copy it, never write into it."""
    folder = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert main(["fit", "-c", write_tiny(folder / "tiny.yaml"), "--run_dir", str(folder / "run")]) == 0
    return folder / "run"


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Iterator[Path]:
    """A copy of the trained run, as it came from somebody else; its config names the folder where it was."""
    before = tree(trained)
    yield Path(shutil.copytree(trained, tmp_path / "run"))
    assert tree(trained) == before, "a copied run's config must not lead a command back to where it was"


def change_config(run: Path, *keys: str | int, value: Any) -> None:
    """Set one entry of the run folder's config."""
    config = yaml.safe_load((run / "config.yaml").read_text())
    place = config
    for key in keys[:-1]:
        place = place[key]
    place[keys[-1]] = value
    (run / "config.yaml").write_text(yaml.safe_dump(config))


def change_checkpoint(path: Path, change: Callable[[dict[str, Any]], object]) -> Path:
    """Let ``change`` work on the contents of a checkpoint of primitives."""
    checkpoint = torch.load(path, weights_only=True)
    change(checkpoint)
    torch.save(checkpoint, path)
    return path


@pytest.fixture
def planted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A module beside the victim that leaves a file when it is imported, with a class for every place."""
    name = f"planted_{next(_number)}"
    (tmp_path / f"{name}.py").write_text(f"""
from pathlib import Path
Path({str(tmp_path / "IMPORTED")!r}).touch()
import pytorch_lightning, torch, datamodules
from pytorch_lightning.loggers import CSVLogger
from lit_rnn.models import ExpRNN
class Net(ExpRNN): "a model"
class Data(datamodules.CopyMemory): "data"
class Watch(pytorch_lightning.Callback): "a callback"
class Log(CSVLogger): "a logger"
class Step(torch.optim.SGD): "an optimizer"
class Plan(torch.optim.lr_scheduler.StepLR): "a scheduler"
def call(*args, **kwargs): Path({str(tmp_path / "CALLED")!r}).touch()
""")
    monkeypatch.syspath_prepend(str(tmp_path))
    yield name
    sys.modules.pop(name, None)


@pytest.fixture
def untouched(tmp_path: Path, planted: str) -> Watch:
    """A block in which nothing is imported from the planted module and no file is written, changed or deleted."""

    @contextlib.contextmanager
    def block() -> Iterator[None]:
        before = tree(tmp_path)
        yield
        assert planted not in sys.modules
        assert tree(tmp_path) == before

    return block


@pytest.fixture
def denied(untouched: Watch) -> Watch:
    """A block that ends with a UserError and did nothing."""

    @contextlib.contextmanager
    def block() -> Iterator[None]:
        with untouched(), pytest.raises(UserError):
            yield

    return block


@pytest.fixture
def told(refused: Callable[..., str], untouched: Watch) -> Callable[..., str]:
    """The command line's one sentence of refusal, links and the planted module watched too."""

    def call(*arguments: object) -> str:
        with untouched():
            return refused(*arguments)

    return call
