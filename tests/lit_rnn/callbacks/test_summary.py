"""What the seconds in fit.json and test.json are."""

from __future__ import annotations

import itertools
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from lit_rnn.callbacks import Summary
from lit_rnn.commands.fit import saved


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
