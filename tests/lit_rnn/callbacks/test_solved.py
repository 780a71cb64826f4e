"""A run that ends when its task is solved."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from lit_rnn.runs.curves import read_curve

pytestmark = pytest.mark.usefixtures("_no_pictures")

SHARE = 0.98


def with_solved(**options: Any) -> dict[str, Any]:
    return {"max_epochs": 200, "callbacks": [{"class_path": "Solved", "init_args": options}]}


def test_it_ends_with_the_first_loss_below_its_share_and_says_so(cli: Any, config: Any) -> None:
    """Then goes on for a smaller share: what fit.json said of that end is gone."""
    fast = {"hidden_size": 8, "optimizer": {"class_path": "Adam", "init_args": {"lr": 0.03}}}
    path = config(trainer=with_solved(below_chance=SHARE), model={"init_args": fast})
    done = cli("fit", "-c", path, "--run_dir", "r")
    assert done.status == 0, done.err
    fit = json.loads(Path("r/fit.json").read_text())
    *before, last = read_curve(Path("r/metrics.csv"), "val/loss")[1]
    threshold = SHARE * fit["chance"]
    assert last < threshold and before and min(before) >= threshold
    assert (
        fit["ended_early"].startswith("Stopping threshold reached: val/loss = ") and "Trainer" not in fit["ended_early"]
    )
    assert "ended early" in done.out

    steps = fit["steps"]
    more = {**with_solved(below_chance=1e-6), "max_epochs": len(before) + 2}
    again = cli(
        "fit",
        "-c",
        config("more.yaml", trainer=more, model={"init_args": fast}),
        *["--run_dir", "r", "--ckpt_path", "last"],
    )
    assert again.status == 0, again.err
    fit = json.loads(Path("r/fit.json").read_text())
    assert fit["steps"] > steps and "ended_early" not in fit


@pytest.mark.parametrize("share", [0, 1, -0.5, 10])
def test_a_share_that_is_none(refused: Any, config: Any, share: float) -> None:
    sentence = refused("fit", "-c", config(trainer=with_solved(below_chance=share)), "--run_dir", "r")
    assert "below_chance" in sentence and "between 0 and 1" in sentence


def test_it_needs_a_validation(refused: Any, config: Any) -> None:
    path = config(trainer={**with_solved(), "limit_val_batches": 0})
    assert "val/loss" in refused("fit", "-c", path, "--run_dir", "r")
