"""How long a study will take, and how much it will train."""

from __future__ import annotations

import json
import typing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from pytorch_lightning import Trainer

from lit_rnn import callbacks
from lit_rnn.callbacks import clock
from lit_rnn.commands.configs import find_config
from lit_rnn.commands.study import estimate, work
from lit_rnn.commands.study.subject import Run, Setting, read_study
from tests.lit_rnn.commands.study.made import FOLDER, LR, Write, finish, run_study


@pytest.mark.parametrize(
    ("trainer", "expected"),
    [  # 10 training batches and 4 of validation in the splits
        ({"max_epochs": 3}, (30, 12, 3)),
        ({"max_epochs": None, "max_steps": 25}, (25, 8, 3)),
        ({"max_epochs": 2, "max_steps": 25}, (20, 8, 2)),
        ({"max_epochs": -1, "max_steps": 5, "accumulate_grad_batches": 4}, (20, 8, 2)),
        ({"max_epochs": 2, "limit_train_batches": 0.5, "limit_val_batches": 3}, (10, 6, 2)),
        ({"max_epochs": 2, "limit_train_batches": 99, "limit_val_batches": 0}, (20, 0, 2)),
        ({"max_epochs": 4, "check_val_every_n_epoch": 2}, (40, 8, 4)),
        ({"max_epochs": 2, "val_check_interval": 0.5}, (20, 16, 2)),
        ({"max_epochs": 2, "val_check_interval": 3}, (20, 24, 2)),
        ({"max_epochs": -1, "max_steps": 8, "val_check_interval": 3}, (8, 8, 1)),
        ({"max_epochs": -1, "max_steps": 25, "val_check_interval": 0.5}, (25, 20, 3)),
        ({"max_epochs": -1, "max_steps": 25, "val_check_interval": 3, "check_val_every_n_epoch": 2}, (25, 12, 3)),
        ({"max_epochs": 3, "val_check_interval": 15, "check_val_every_n_epoch": None}, (30, 8, 3)),
        ({}, (10_000, 4000, 1000)),
    ],
)
def test_what_a_run_does(trainer: dict[str, Any], expected: tuple[int, int, int]) -> None:
    given = {"check_val_every_n_epoch": 1, **trainer}
    assert estimate.amount(given, 10, 4) == estimate.Amount(*expected)


@pytest.mark.parametrize(("given", "updates"), [("5", 15), ("1", 3), ("1.0", 600)])
def test_whole_numbers_of_batches_are_no_shares(monkeypatch: pytest.MonkeyPatch, given: str, updates: int) -> None:
    """Also where typing gives the Trainer's types in another order, as it may when somebody else wrote that."""
    other = typing.Union[float, int, None]  # noqa: UP007 - `|` is not cached, so that it has no order to mix up
    monkeypatch.setitem(Trainer.__init__.__annotations__, "limit_train_batches", other)
    values = (("trainer.limit_train_batches", given),)
    run = Run(Setting("a", (find_config("studies/base/copying_10.yaml"),), values, "a"), 1)
    assert estimate.budget([run]) == f"1 run, {updates} updates"


def test_start_validation_and_ends_of_epochs_are_in_the_estimate() -> None:
    """A trial of 20 s: 11 batches of 0.5 s, 2 of validation of 1 s, an epoch's end of 2.5 s; 10 s are the rest."""
    clock = {"batches": 11, "batch": 0.5, "val_batches": 2, "val_batch": 1.0, "epoch": 2.5}
    timing = estimate._timing(clock, 20.0)
    assert timing == estimate.Timing(10.0, 0.5, 1.0, 2.5)
    assert timing.of(estimate.Amount(100, 30, 3)) == 10 + 100 * 0.5 + 30 * 1.0 + 3 * 2.5


def test_the_clock_of_a_trial(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Moments by hand: the first batch, which warms up, and the check before training do not count."""
    now = [0.0]
    monkeypatch.setattr(clock.time, "monotonic", lambda: now[0])
    trainer = SimpleNamespace(sanity_checking=True, should_stop=False, default_root_dir=tmp_path)
    one = callbacks.Clock()

    def at(second: float, hook: str) -> None:
        now[0] = second
        getattr(one, hook)(trainer, None)

    at(1, "on_validation_batch_start")
    at(2, "on_validation_batch_end")
    trainer.sanity_checking = False
    at(3, "on_train_start")
    for second in (7, 9, 11, 13):
        at(second, "on_train_batch_end")
    assert not trainer.should_stop, "five batches at least"
    at(15, "on_train_batch_end")
    assert trainer.should_stop
    for second in (16, 19):
        at(second, "on_validation_batch_start")
        at(second + 3, "on_validation_batch_end")
    at(25, "on_train_end")
    found = json.loads((tmp_path / "clock.json").read_text())
    assert found == {"batches": 5, "batch": 2.0, "val_batches": 2, "val_batch": 3.0, "epoch": 25 - 15 - 6}


def test_runs_come_in_rounds(study: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three runs on two processes take two rounds; the trial is as many side by side as the runs are."""
    asked = []

    def trial(setting: Any, *limits: int) -> list[estimate.Timing]:
        asked.append(limits)
        return [estimate.Timing(1.0, 1.0, 10.0, 0.0), estimate.Timing(3.0, 3.0, 10.0, 0.0)]

    monkeypatch.setattr(estimate, "trial", trial)
    runs = read_study(study(seeds=[1, 2, 3])).runs  # 4 batches an epoch, 2 epochs; 2 batches of validation after each
    assert estimate.estimate(runs, 2, 1) == (2 * (2 + 8 * 2 + 4 * 10), "those that were tried")
    assert estimate.estimate(runs[:1], 2, 5)[0] == 2 + 8 * 2 + 4 * 10
    study(grid={"trainer.limit_val_batches": [0]})
    assert estimate.estimate(read_study("study.yaml").runs, 1, 1)[0] == 2 + 8 * 2
    assert asked == [(2, 1, 8, 2), (1, 5, 8, 2), (1, 1, 8, 0)]


def test_long_studies_try_every_arm_and_say_so(
    study: Write, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Arms of 2,000 and 500 s with two seeds each, on two processes: 2,000 and 2,000 side by side, then 500 and 500."""
    tried = []

    def trial(setting: Any, processes: int, threads: int, batches: int, val_batches: int) -> list[estimate.Timing]:
        tried.append((setting.arm, batches))
        return [estimate.Timing(2000.0 if setting.arm == "slow" else 500.0, 0.0, 0.0, 0.0)]

    monkeypatch.setattr(estimate, "trial", trial)
    grid = {"data.init_args.train_samples": [4000]}
    runs = read_study(study(seeds=[1, 2], arms={"slow": {}, "quick": {}}, grid=grid)).runs
    work.tell_estimate(runs, 2, 1, [])
    assert capsys.readouterr().out.splitlines() == [
        "a short run of each of 2 arms is tried, to say how long all will take",
        "about 0:41:40 if all take as long as those that were tried",  # 2,500 s
    ]
    assert tried == [("slow", 100), ("quick", 50)]
    assert estimate.estimate(runs[::-1], 2, 1)[0] == 500 * 2 and tried[2:] == [("quick", 100)], "not worth more trials"


def test_arms_with_finished_runs_are_not_tried(study: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    """10 and 14 s for 4 updates each are 3 s an update: 36 s for 12. Arm b has none, and is tried: 5 s a run."""
    monkeypatch.setattr(estimate, "trial", lambda setting, *_: [estimate.Timing(5.0, 0.0, 0.0, 0.0)])
    arms = {"a": {"grid": {"trainer.max_epochs": [1, 3]}}, "b": {}}
    a1, a2, long, _, *b = (runs := read_study(study(seeds=[1, 2], arms=arms)).runs)
    finished = [(a1, 10.0), (a2, 14.0)]
    assert estimate.estimate([long, *b], 1, 1, finished) == (
        36 + 2 * 5,
        "those that have finished, without their start-up, and those that were tried",
    )
    monkeypatch.setattr(estimate, "trial", None)
    assert estimate.estimate(runs[2:4], 2, 1, finished) == (36, "those that have finished, without their start-up")
    finish(a1, 3.0)
    assert estimate.took(runs, FOLDER) == [(a1, 1.0)]


def test_a_trial_that_diverges_ends_no_study(study: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is a result there: the trial has taken all of its seconds, and the estimate names it."""
    runs = read_study(study(grid={LR: [1e38]}, seeds=[1])).runs
    (timing,) = estimate.trial(runs[0].setting, 1, 1, 8, 2)
    assert timing == estimate.Timing(timing.fixed, 0.0, 0.0, 0.0, diverged=True) and timing.fixed > 0
    monkeypatch.setattr(estimate, "trial", lambda *_: [timing])
    others = f"those that were tried, of which {runs[0].setting.name} diverged"
    assert estimate.estimate(runs, 1, 1) == (timing.fixed, others)


def test_the_budget_is_told_before_any_data_is_read(study: Write, capsys: pytest.CaptureFixture[str]) -> None:
    """16 samples in batches of 4 are 4 updates an epoch; `max_steps` ends runs; of images only epochs are known.

    With how many parameters the models have.
    """
    by_hand = (
        ({"seeds": [1, 2, 3]}, "3 runs, 24 updates"),
        ({"grid": {"trainer.max_epochs": [1, 5]}}, "2 runs, 24 updates"),
        ({"grid": {"trainer.max_epochs": [5], "trainer.max_steps": [7]}}, "1 run, 7 updates"),
        ({"grid": {"trainer.accumulate_grad_batches": [3], "trainer.limit_train_batches": [0.5]}}, "1 run, 2 updates"),
        ({"grid": {"data": ["PixelDigits"]}, "seeds": [1, 2]}, "2 runs, 4 epochs of data that has to be read first"),
    )
    for keys, told in by_hand:
        assert estimate.budget(read_study(study(**keys)).runs) == told
    arms = {"a": {}, "b": {"grid": {"model.hidden_size": [6, 4, 5]}}}
    run_study(study(arms=arms, seeds=[1, 2]), "--dry_run")
    sizes, amount = capsys.readouterr().out.splitlines()[-2:]
    assert amount == "8 runs, 64 updates at most"
    six, four = (n * n + 10 * n + n + 9 * n + 9 for n in (6, 4))  # recurrence, input and its bias, decoder and its
    assert sizes == f"parameters: a {six}; b {four} to {six}"
