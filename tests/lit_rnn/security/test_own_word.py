"""SECURITY.md, "Trusted: your own word": your classes are imported; still only what belongs in a place is called."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from datamodules import CopyMemory, UserError
from lit_rnn.models import ExpRNN

from .test_class_names import with_name

# jsonargparse's own, when it looks at a name that is no class
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:jsonargparse", "ignore:.*Jsonargparse")
ADAM = "torch.optim.Adam"
MISPLACED: dict[str, list[Any]] = {
    "model": [
        "os.system",
        "subprocess.Popen",
        "torch.nn.Linear",
        ADAM,
        "PLANTED.call",
        "PLANTED.Data",
        "PLANTED.Watch",
    ],
    "data": ["os.system", "subprocess.Popen", "PLANTED.call", "PLANTED.Net", "pytorch_lightning.LightningDataModule"],
    "model.init_args.optimizer": ["os.system", "PLANTED.call", "PLANTED.Net", "PLANTED.Plan", "subprocess.Popen"],
    "model.init_args.lr_scheduler": ["os.system", "PLANTED.call", "PLANTED.Net", ADAM, "subprocess.Popen"],
    "trainer.callbacks": ["os.system", "PLANTED.call", "PLANTED.Net", "PLANTED.Log", "subprocess.Popen"],
    "trainer.logger": ["os.system", "PLANTED.call", "PLANTED.Net", "PLANTED.Watch", "subprocess.Popen"],
}


def nested(keys: list[str], value: Any) -> dict[str, Any]:
    return {keys[0]: nested(keys[1:], value) if len(keys) > 1 else value}


@pytest.mark.parametrize(("place", "name"), [(place, name) for place, names in MISPLACED.items() for name in names])
def test_only_what_belongs_in_a_place_is_called(
    place: str, name: str, planted: str, config: Callable[..., str], refused: Callable[..., str], tmp_path: Path
) -> None:
    """In a config of your own and on the command line; the planted module may be imported here."""
    (tmp_path / "IMPORTED").touch()
    name = with_name(name, planted)
    spec: Any = {"class_path": name}
    changes = nested(place.split("."), [spec] if place == "trainer.callbacks" else spec)
    path = config("own.yaml", **changes)
    refused("fit", "-c", path, "--run_dir", "new")
    option = "--trainer.callbacks+" if place == "trainer.callbacks" else f"--{place}"
    refused("fit", "-c", config(), f"{option}={name}", "--run_dir", "new")


@pytest.mark.usefixtures("_no_pictures")
def test_your_own_classes_are_imported(planted: str, config: Callable[..., str], cli: Callable[..., Any]) -> None:
    model = {
        "class_path": f"{planted}.Net",
        "init_args": {
            "hidden_size": 4,
            "optimizer": {"class_path": f"{planted}.Step", "init_args": {"lr": 0.1}},
            "lr_scheduler": {"class_path": f"{planted}.Plan", "init_args": {"step_size": 1}},
        },
    }
    trainer = {
        "max_epochs": 1,
        "callbacks": [{"class_path": f"{planted}.Watch"}],
        "logger": {"class_path": f"{planted}.Log", "init_args": {"save_dir": "new"}},
    }
    data = {
        "class_path": f"{planted}.Data",
        "init_args": {"delay": 5, "train_samples": 8, "val_samples": 8, "batch_size": 8},
    }
    done = cli("fit", "-c", config("own.yaml", model=model, trainer=trainer, data=data), "--run_dir", "new")
    assert done.status == 0, done
    assert planted in sys.modules


NOT_OPTIMIZERS: list[Any] = [
    os.system,
    "os.system",
    print,
    object,
    torch.nn.Linear,
    functools.partial(os.system, "touch CALLED"),
    lambda parameters: torch.optim.SGD(parameters, lr=0.1),
    {"class_path": "os.system", "init_args": {"command": "touch CALLED"}},
    {"class_path": "PLANTED.call"},
    {"class_path": 3},
    {"init_args": {}},
    3,
]


@pytest.mark.parametrize("place", ["optimizer", "lr_scheduler"])
def test_in_python_when_the_model_is_made(
    place: str, planted: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    task = CopyMemory(delay=5).task
    for value in with_name(NOT_OPTIMIZERS, planted):
        with pytest.raises(UserError):
            ExpRNN(task, 4, **{place: value})
    assert not (tmp_path / "CALLED").exists()
    right = torch.optim.SGD if place == "optimizer" else torch.optim.lr_scheduler.StepLR
    options = {"lr": 0.1} if place == "optimizer" else {"step_size": 1}
    path = f"{right.__module__}.{right.__name__}"
    for value in (functools.partial(right, **options), {"class_path": path, "init_args": options}):
        ExpRNN(task, 4, **{place: value}).configure_optimizers()
