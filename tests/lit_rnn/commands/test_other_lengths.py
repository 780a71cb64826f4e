"""What a run says of lengths that it was not trained at: metrics.csv, the table, fit.json, monitors and compare."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from tests.lit_rnn.conftest import rows

pytestmark = pytest.mark.usefixtures("_no_pictures")
DATA = {"data": {"init_args": {"val_lengths": [7, 11]}}}


def test_other_lengths_are_told_everywhere(cli: Any, config: Any) -> None:
    monitor = {"monitor": "val/accuracy_at_11", "mode": "max", "dirpath": "kept", "filename": "far"}
    callback = {"class_path": "ModelCheckpoint", "init_args": monitor}
    path = config(**DATA, trainer={"max_epochs": 1, "callbacks": [callback]})
    done = cli("fit", "-c", path, "--run_dir", "r")
    assert done.status == 0 and done.err == "" and Path("kept/far.ckpt").is_file()
    (row,) = [row for row in rows("r") if "val/accuracy_at_11" in row]
    fit = json.loads(Path("r/fit.json").read_text())
    assert fit["trained_at"] == 5 and "at delay 11" in done.out
    for length, chance in ((7, 10 * 2.0794415 / 27), (11, 10 * 2.0794415 / 31)):
        assert float(row[f"val/loss_at_{length}"]) == pytest.approx(fit[f"loss_at_{length}"])
        assert float(row[f"val/accuracy_at_{length}"]) == pytest.approx(fit[f"value_at_{length}"])
        assert fit[f"chance_at_{length}"] == pytest.approx(chance)
    assert Path("r/pictures/lengths.png").is_file()

    # another of the same kind, at one more length, stands in the same table
    more = {"data": {"init_args": {"val_lengths": [11, 19]}}}
    assert cli("fit", "-c", config(**more, trainer={"max_epochs": 1}), "--run_dir", "s").status == 0
    done = cli("compare", "r", "s", "--csv", "c.csv")
    assert done.status == 0 and all(f"at {length}" in done.out for length in (7, 11, 19)), done.out
    with open("c.csv", newline="") as file:
        first, second = csv.DictReader(file)
    assert float(first["value_at_7_mean"]) == pytest.approx(fit["value_at_7"]) and second["value_at_7_mean"] == ""
    assert first["value_at_19_number"] == "0" and second["value_at_19_number"] == "1"

    # they are no part of the protocol: a run may be tested at others
    last = ("--run_dir", "s", "--ckpt_path", "last", "--data.val_lengths", "[6]")
    done = cli("test", "-c", config(**more), *last)
    assert done.status == 0 and "at delay 6" in done.out and done.err == ""
    Path("r/fit.json").write_text(json.dumps({**fit, "value_at_7": "high"}))
    assert "value_at_7 is not a number" in cli("compare", "r").err


def test_what_is_not_measured_is_no_monitor(refused: Any, config: Any) -> None:
    stop = {"class_path": "EarlyStopping", "init_args": {"monitor": "val/accuracy_at_8"}}
    told = refused("fit", "-c", config(**DATA, trainer={"callbacks": [stop]}), "--run_dir", "r")
    assert "val/accuracy_at_7, " in told and "val/accuracy_at_8" in told


def test_a_curriculum_is_part_of_what_a_run_goes_on_with(cli: Any, config: Any, refused: Any) -> None:
    stages = {"data": {"init_args": {"curriculum": {"lengths": [2], "steps": [3]}}}}
    done = cli("fit", "-c", config(**stages, trainer={"max_epochs": 1}), "--run_dir", "r")
    assert done.status == 0 and "curriculum: delay 2, 5, the next after 3 batches" in done.out
    given = [float(row["train/sequence_length"]) for row in rows("r") if "train/sequence_length" in row]
    assert given == [22, 22, 22, 25]
    again = ("--run_dir", "r", "--ckpt_path", "last")
    for changed in ({"lengths": [2], "steps": [4]}, {"lengths": [3], "steps": [3]}, None):
        told = refused("fit", "-c", config(data={"init_args": {"curriculum": changed}}), *again)
        assert "data.init_args.curriculum is" in told
    assert cli("fit", "-c", config(**stages), *again).status == 0
