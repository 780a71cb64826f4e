"""What the seconds in fit.json and test.json are."""

from __future__ import annotations

import itertools
import json
import math
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from datamodules import Adding
from lit_rnn.callbacks import Summary
from lit_rnn.commands.fit import saved
from lit_rnn.models import GRU
from lit_rnn.runs.results import read_result


@pytest.mark.parametrize(("command", "seconds"), [("fit", 105.0), ("test", 5.0), ("validate", 5.0)])
def test_only_a_resumed_fit_counts_what_its_checkpoint_took(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, command: str, seconds: float
) -> None:
    """100 s of training are in the checkpoint; this command began at 1000 s on the clock and is asked at 1005 s."""
    clock = itertools.chain([1000.0], itertools.repeat(1005.0))
    monkeypatch.setattr(time, "monotonic", lambda: next(clock))
    summary, nothing = Summary(tmp_path), SimpleNamespace()
    summary.setup(nothing, nothing, command)  # type: ignore[arg-type]
    summary.load_state_dict({"seconds": 100.0})
    assert summary.seconds == summary.state_dict()["seconds"] == seconds


def test_a_loss_that_is_no_number_is_null_in_the_file(tmp_path: Path) -> None:
    """JSON has no NaN and no infinity; other readers refuse them. So it is for a file of before that has one."""
    model = GRU(Adding(length=6).task, 2)
    metrics = {"test/loss": torch.tensor(math.nan), "test/mse": torch.tensor(math.inf)}
    plain = {"is_global_zero": True, "early_stopping_callbacks": [], "loggers": [], "fast_dev_run": False}
    plain |= {"ckpt_path": "r/checkpoints/best.ckpt"}
    trainer = SimpleNamespace(callback_metrics=metrics, **plain)
    summary = Summary(tmp_path)
    summary.setup(trainer, model, "test")  # type: ignore[arg-type]
    summary.teardown(trainer, model, "test")  # type: ignore[arg-type]
    text = (tmp_path / "test.json").read_text()
    found = json.loads(text, parse_constant=lambda name: pytest.fail(name))
    assert found["loss"] is None and found["value"] is None and found["chance"] == pytest.approx(1 / 6)
    assert found["checkpoint"] == "best.ckpt"
    (tmp_path / "test.json").write_text(text.replace('"loss": null', '"loss": NaN'))
    assert read_result(tmp_path, "test")["loss"] is None


@pytest.mark.parametrize(
    ("root", "numbers", "names"),
    [("cpu", [0, 1], []), ("cuda", [1], ["GPU 1"]), ("cuda", [0, 2], ["GPU 0", "GPU 2"]), ("mps", [0], ["mps"])],
)
def test_devices_are_those_that_are_used(
    monkeypatch: pytest.MonkeyPatch, root: str, numbers: list[int], names: list[str]
) -> None:
    """Not those that the machine has: seconds on its CPU are no seconds of its GPU."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda number: f"GPU {number}")
    trainer: Any = SimpleNamespace(strategy=SimpleNamespace(root_device=torch.device(root)), device_ids=numbers)
    assert saved._devices(trainer) == names
