"""What a short class name means: a class of this project first, then one of torch's or Lightning's."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import pytest
import torch
from pytorch_lightning import Callback
from pytorch_lightning.callbacks import EarlyStopping
from pytorch_lightning.loggers import CSVLogger, Logger
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, StepLR

from datamodules import CopyMemory, SequenceDataModule, UserError
from lit_rnn import optim
from lit_rnn.callbacks import WatchMatrices
from lit_rnn.class_paths import full_name, loaded
from lit_rnn.commands.config_parser import resolve
from lit_rnn.loggers import WandbDashboard
from lit_rnn.models import FullURNN, SequenceModel

CLASSES: list[tuple[type, type]] = [
    (FullURNN, SequenceModel),
    (CopyMemory, SequenceDataModule),
    (optim.RiemannianAdam, Optimizer),
    (torch.optim.Adam, Optimizer),
    (StepLR, LRScheduler),
    (WatchMatrices, Callback),
    (EarlyStopping, Callback),
    (WandbDashboard, Logger),
    (CSVLogger, Logger),
]


@pytest.fixture(scope="module", autouse=True)
def _others() -> Iterator[None]:
    """Two packages of somebody else, with classes of the same short names, and one that only they have."""
    names = ("others_one", "others_two")
    for name in names:
        module = sys.modules[name] = ModuleType(name)
        for cls, base in (*CLASSES, (type("Elsewhere", (), {}), Optimizer)):
            setattr(module, cls.__name__, type(cls.__name__, (base,), {"__module__": name}))
    yield
    for name in names:
        del sys.modules[name]
    del module
    gc.collect()  # or they would still be found among the subclasses


@pytest.mark.parametrize(("cls", "base"), CLASSES)
def test_a_shipped_class_comes_first(cls: type, base: type) -> None:
    name = full_name(cls.__name__, base)
    assert loaded(name, base) is cls
    for full in (name, f"others_one.{cls.__name__}"):
        assert full_name(full, base) == full


def test_what_is_in_two_places_or_none_keeps_its_name() -> None:
    assert full_name("Elsewhere", Optimizer) == "Elsewhere"
    assert full_name("Nowhere", Optimizer) == "Nowhere"


IN_FILE: dict[str, Any] = {
    "model": {
        "class_path": "FullURNN",
        "init_args": {
            "optimizer": {"class_path": "Adam"},
            "group_optimizers": {"recurrent": {"class_path": "RiemannianAdam"}},
            "lr_scheduler": {"class_path": "StepLR", "init_args": {"step_size": 3}},
        },
    },
    "trainer": {
        "callbacks": [
            {"class_path": "WatchMatrices"},
            {"class_path": "EarlyStopping", "init_args": {"monitor": "val/loss"}},
        ]
    },
}
IN_FULL = {
    "model": "lit_rnn.models.FullURNN",
    "optimizer": "torch.optim.Adam",
    "recurrent": "lit_rnn.optim.RiemannianAdam",
    "lr_scheduler": "torch.optim.lr_scheduler.StepLR",
    "data": "datamodules.CopyMemory",
    "callbacks": ["lit_rnn.callbacks.WatchMatrices", "pytorch_lightning.callbacks.EarlyStopping"],
    "logger": "pytorch_lightning.loggers.CSVLogger",
}


def paths(config: dict[str, Any]) -> dict[str, Any]:
    options, trainer = config["model"]["init_args"], config["trainer"]
    return {
        "model": config["model"]["class_path"],
        "optimizer": options["optimizer"]["class_path"],
        "recurrent": options["group_optimizers"]["recurrent"]["class_path"],
        "lr_scheduler": options["lr_scheduler"]["class_path"],
        "data": config["data"]["class_path"],
        "callbacks": [one["class_path"] for one in trainer["callbacks"]],
        "logger": trainer["logger"]["class_path"],
    }


@pytest.mark.parametrize(
    "arguments",
    [
        ["--data", "CopyMemory", "--trainer.logger=CSVLogger", "--trainer.logger.save_dir", "."],
        [
            *(
                "--data.class_path",
                "CopyMemory",
                "--trainer.logger",
                "{class_path: CSVLogger, init_args: {save_dir: .}}",
            ),
            *(
                "--model.optimizer=Adam",
                "--model.init_args.lr_scheduler",
                "StepLR",
                "--model.lr_scheduler.step_size",
                "3",
            ),
            *("--model.init_args.group_optimizers", "{recurrent: {class_path: RiemannianAdam}}"),
            *("--trainer.callbacks", "[{class_path: WatchMatrices}]", "--trainer.callbacks+=EarlyStopping"),
            *("--trainer.callbacks.monitor", "val/loss"),
        ],
    ],
    ids=["in a file", "as options"],
)
def test_every_place_of_a_config_takes_short_names(config: Callable[..., str], arguments: list[str]) -> None:
    assert paths(resolve(["-c", config(**IN_FILE), *arguments])) == IN_FULL


def test_what_two_others_have_is_told_with_both_names(config: Callable[..., str]) -> None:
    with pytest.raises(UserError, match=r"give one of others_one\.Elsewhere, others_two\.Elsewhere\.$"):
        resolve(["-c", config(model={"init_args": {"optimizer": {"class_path": "Elsewhere"}}})])


def test_a_class_of_others_is_taken_by_its_full_name(config: Callable[..., str]) -> None:
    found = resolve(["-c", config(), "--model.init_args.optimizer", "others_two.Adam"])
    assert found["model"]["init_args"]["optimizer"]["class_path"] == "others_two.Adam"


def test_the_options_told_are_those_of_the_shipped_class(config: Callable[..., str]) -> None:
    with pytest.raises(UserError, match="did you mean betas"):
        changes = {"class_path": "RiemannianAdam", "init_args": {"betass": 1}}
        resolve(["-c", config(model={"init_args": {"optimizer": changes}})])
