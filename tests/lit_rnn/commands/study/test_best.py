"""What follows for the best setting of each arm: more seeds, and tests."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable
from pathlib import Path

import pytest

from datamodules import UserError
from lit_rnn.commands.study import local, measure, page, work
from lit_rnn.commands.study.best import Queue, ahead, best_setting, every, following, undecided
from lit_rnn.commands.study.subject import Run, read_study
from tests.lit_rnn.commands.study.made import FOLDER, LR, Planned, Write, by_rates, finish, run_study


def test_a_finished_run_without_a_finite_loss_is_not_the_best(study: Write) -> None:
    """Nor is the other seed of its setting, whose loss is the lowest; where all settings have one, none is best."""
    plan = by_rates(study)
    for run in (run for run in plan.runs if run.setting.arm == "a"):
        finish(run, 0.1 if run.setting.name == "a-lr=0.1" else 0.9)
    for name, chosen in (("a-lr=0.1-seed=2", "a-lr=0.01"), ("a-lr=0.01-seed=1", None)):
        (FOLDER / name / "metrics.csv").write_text("step,val/loss\n0,nan\n")
        best = best_setting(plan, "a", FOLDER)
        assert (None if best is None else best.name) == chosen


def test_the_only_setting_is_the_best_without_a_validation(study: Write) -> None:
    plan = read_study(study(grid={LR: [0.1]}, seeds=[1, 2], best={"test": True, "checkpoint": "last"}))
    for run in plan.runs:
        assert best_setting(plan, "study", FOLDER) is None
        finish(run)
        (FOLDER / run.name / "metrics.csv").write_text("step,train/loss\n0,1.0\n")
    assert best_setting(plan, "study", FOLDER) == plan.settings[0]
    assert [run.told for run in ahead(plan, FOLDER)] == ["test of study-seed=1", "test of study-seed=2"]
    rows = measure.results(plan, FOLDER)
    table = page.table(rows, measure.over_seeds(rows))
    assert (table.header[-1], table.rows[0][-1]) == ("succeeded", "")


def test_the_best_of_each_arm_gets_more_seeds_and_a_test(study: Write) -> None:
    """Means of a: 3 at 0.1, 2 at 0.01; of b: 1 and 2. One by one, an arm is done before the next."""
    plan = by_rates(study)
    losses = {"a-lr=0.1": (1.0, 5.0), "a-lr=0.01": (2.0, 2.0), "b-lr=0.1": (1.0, 1.0), "b-lr=0.01": (2.0, 2.0)}
    queue, told = Queue(plan, FOLDER), []
    for run in queue.runs():
        assert run is not None, "nothing is going"
        told.append(run.told)
        finish(run, losses[run.setting.name][run.seed - 1] if run.seed < 3 else 0.5)
        queue.ended(run, diverged=False)
    assert told == [
        *(f"a-lr={rate}-seed={seed}" for rate in (0.1, 0.01) for seed in (1, 2)),
        "a-lr=0.01-seed=3",
        *(f"test of a-lr=0.01-seed={seed}" for seed in (1, 2, 3)),
        *(f"b-lr={rate}-seed={seed}" for rate in (0.1, 0.01) for seed in (1, 2)),
        "b-lr=0.1-seed=3",
        *(f"test of b-lr=0.1-seed={seed}" for seed in (1, 2, 3)),
    ]
    assert list(Queue(plan, FOLDER).runs()) == [] and ahead(plan, FOLDER) == []
    rows = measure.results(plan, FOLDER)
    assert [(row["run"], row["test"]) for row in rows if row["arm"] == "b"] == [
        *((f"b-lr=0.1-seed={seed}", 0.25) for seed in (1, 2, 3)),
        *((f"b-lr=0.01-seed={seed}", None) for seed in (1, 2)),
    ]
    first = measure.over_seeds(rows)[0]
    assert (first["setting"], first["runs"], first["test_number"]) == ("b-lr=0.1", 3, 3)
    best = best_setting(plan, "a", FOLDER)
    assert best is not None and best.name == "a-lr=0.01", "chosen by the seeds that all settings have"


def test_a_study_with_a_best_goes_on_and_waits(study: Write) -> None:
    """While the last run of an arm is going, the next arm begins; when that is under way too, there is nothing yet."""
    plan = by_rates(study)
    queue = Queue(plan, FOLDER)
    given = queue.runs()
    a1, a2, a3, a4, b1 = (next(given) for _ in range(5))
    assert [run.told for run in (a1, a4, b1) if run] == ["a-lr=0.1-seed=1", "a-lr=0.01-seed=2", "b-lr=0.1-seed=1"]
    for run in (a1, a2, a3):
        assert run is not None
        finish(run, 3.0)
        queue.ended(run, diverged=False)
    b2, b3, b4 = (next(given) for _ in range(3))
    assert next(given) is None, "all depends on what is going"
    for run in (b1, b2, b3, b4, a4):
        assert run is not None
        queue.ended(run, diverged=run == a4)  # those of b failed
    # a4 diverged: its setting is out; an arm with a run that failed has no best
    left = []
    while (run := next(given, None)) is not None:
        left.append(run.told)
        queue.ended(run, diverged=False)  # it failed: seed 3 is not tested
    assert left == ["a-lr=0.1-seed=3", "test of a-lr=0.1-seed=1", "test of a-lr=0.1-seed=2"]


def test_a_study_with_a_best_is_taken_up_again(
    study: Write, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What followed for the best was not known at the first start: it is the study's own all the same."""

    def as_if_run(pool: local.Pool, runs: Iterable[Run | None]) -> dict[Run, int]:
        for run in runs:
            assert run is not None
            finish(run, 3.0)
            pool.tell(run, 0, 1.0)
        return {}

    monkeypatch.setattr(local.Pool, "run_all", as_if_run)
    monkeypatch.setattr(work, "estimate", lambda *_: (1.0, "others"))
    monkeypatch.setattr(work, "report", lambda *_: None)
    plan = by_rates(study)
    run_study("study.yaml", "--processes", "2")
    first = capsys.readouterr().out.splitlines()[0]
    assert first == ("10 runs and 6 tests in runs/study: 0 runs finished, 10 runs and 6 tests to go, 2 side by side")
    followed = FOLDER / "a-lr=0.1-seed=3"
    assert (followed / "fit.json").is_file() and ahead(plan, FOLDER) == []
    Path("elsewhere").mkdir()  # as another copy of lit_rnn has them
    Path("base.yaml").rename("elsewhere/base.yaml")
    assert by_rates(study, base="elsewhere/base.yaml").runs[0].arguments() != plan.runs[0].arguments()
    run_study("study.yaml", "--processes", "2", tried=False)
    last = capsys.readouterr().out.splitlines()[-1]
    assert last == "10 runs and 6 tests in runs/study: 10 runs and 6 tests finished, 0 runs to go, 2 side by side"
    changed = json.loads((FOLDER / "plan.json").read_text())
    changed[followed.name]["arguments"].append("--other")
    (FOLDER / "plan.json").write_text(json.dumps(changed))
    with pytest.raises(UserError, match=rf"{followed} is a finished run with other options"):
        run_study("study.yaml", tried=False)


def test_more_seeds_only_for_a_success(study: Write) -> None:
    """Half of chance is 0.5: of a, both seeds of the best setting are below it; of b, one of two."""
    best = {"seeds": [3], "test": True, "if_success": True}
    plan = read_study(study(grid={LR: [0.1, 0.01]}, seeds=[1, 2], best=best, arms={"a": {}, "b": {}}))
    told = []
    losses = {"a-lr=0.1": (0.4, 0.3), "a-lr=0.01": (0.1, 0.7), "b-lr=0.1": (0.3, 0.6), "b-lr=0.01": (3.0, 3.0)}
    assert len(every(plan, FOLDER)) == 8 + 4 + 4, "not known yet"
    queue = Queue(plan, FOLDER)
    for run in queue.runs():
        assert run is not None
        if run.seed == 3 or run.command == "test":
            told.append(run.told)
        finish(run, losses[run.setting.name][run.seed - 1] if run.seed < 3 else 0.5)
        queue.ended(run, diverged=False)
    tests = [("a", (1, 2, 3)), ("b", (1, 2))]
    assert told == ["a-lr=0.1-seed=3", *(f"test of {arm}-lr=0.1-seed={seed}" for arm, seeds in tests for seed in seeds)]
    assert len(every(plan, FOLDER)) == 8 + 4 + 2 and ahead(plan, FOLDER) == [] and undecided(plan, FOLDER) == []
    assert following(plan) == "seeds 3 where it succeeds and tests of all its runs"


def test_a_best_is_known_where_what_is_missing_has_diverged(study: Write) -> None:
    """Of a, one run of a setting failed; of b, one diverged, so that the other setting is the best. Then all of b."""
    plan = by_rates(study)
    for run in plan.runs[:-1]:
        finish(run, 3.0)
    (last,) = plan.runs[-1:]
    assert undecided(plan, FOLDER) == ["b"]
    for line, left in (("lit_rnn: The loss is nan at step 3.", []), ("Killed", ["b"])):
        (FOLDER / last.name).mkdir(parents=True, exist_ok=True)
        local.log(FOLDER, last).write_text("a step\n" * 20_000 + f"{line}\n")
        assert undecided(plan, FOLDER) == left
    equal = best_setting(plan, "a", FOLDER)
    assert equal is not None and equal.name == "a-lr=0.1", "the first of two with the same losses"
    for run in plan.runs[4:]:
        (FOLDER / run.name / "fit.json").unlink(missing_ok=True)
        local.log(FOLDER, run).write_text("lit_rnn: The loss is nan at step 3.\n")
    assert undecided(plan, FOLDER) == ["b"], "all have diverged"


def test_what_a_study_with_a_best_will_do_is_told(study: Write, capsys: pytest.CaptureFixture[str]) -> None:
    """8 runs of 8 updates; of each arm a third seed, and three tests."""
    by_rates(study)
    run_study("study.yaml", "--dry_run")
    *_, follows, told = capsys.readouterr().out.splitlines()
    assert follows == "then, for the best setting of each arm on validation: seeds 3 and tests of all its runs"
    assert told == "10 runs and 6 tests, 80 updates at most"
    test = local.command(dataclasses.replace(read_study("study.yaml").runs[0], command="test"), Path("f"), 1)
    assert test[2:] == ["lit_rnn", "test", "--run_dir", "f/a-lr=0.1-seed=1", "--ckpt_path", "best", "--threads", "1"]


def test_the_last_checkpoint_is_tested_where_the_study_says_so(planned: Planned) -> None:
    """A test of another one is none of that: it is made anew."""
    one = planned(best={"test": True, "checkpoint": "last"})
    (run,), (test,) = one.runs, one.following(one.settings[0])
    line = local.command(test, FOLDER, 1)
    assert line[line.index("--ckpt_path") + 1] == "last"
    finish(run)
    finish(test)
    assert local.is_done(test, FOLDER)
    of_best = json.loads((FOLDER / run.name / "test.json").read_text()) | {"steps": 1}
    (FOLDER / run.name / "test.json").write_text(json.dumps(of_best))
    assert not local.is_done(test, FOLDER) and local.is_done(dataclasses.replace(test, checkpoint="best"), FOLDER)
    assert ahead(one, FOLDER) == [test]


def test_a_test_of_something_else_is_made_anew(planned: Planned) -> None:
    """Of other data, as somebody gave them by hand; of before training went on; of the other checkpoint."""
    one = planned(best={"test": True})
    (run,), (test,) = one.runs, one.following(one.settings[0])
    finish(run)
    finish(test)
    path = FOLDER / run.name / "test.json"
    (FOLDER / run.name / "versions.json").write_text('{"fingerprint": "ours"}')
    own = json.loads(path.read_text())
    fine: list[dict[str, object]] = [{}, {"checkpoint": "best.ckpt"}, {"fingerprint": "ours", "trained_steps": 2}]
    for told in [*fine, {"task": "adding"}, {"trained_steps": 1}, {"checkpoint": "last.ckpt"}, {"fingerprint": "b"}]:
        path.write_text(json.dumps({**own, **told}))
        assert local.is_done(test, FOLDER) is (told in fine) and ahead(one, FOLDER) == [test] * (told not in fine)
        assert measure.results(one, FOLDER)[0]["test"] == (0.25 if told in fine else None)


def test_the_test_of_a_class_of_the_users_own_trusts_its_module(study: Write) -> None:
    """As its training does, whose configs are the user's word; the run folder's config is not."""
    Path("waves.yaml").write_text("data: waves.Rising\nmodel: {init_args: {optimizer: {class_path: own.deep.Step}}}\n")
    runs = read_study(study(base="waves.yaml", grid={"model": ["twist.Twist", "lit_rnn.models.LSTM"]}, seeds=[1])).runs
    twist, lstm = (local.command(dataclasses.replace(run, command="test"), FOLDER, 1)[10:] for run in runs)
    assert sorted(twist[1::2]) == ["own.deep", "twist", "waves"]
    assert sorted(lstm[1::2]) == ["own.deep", "waves"]
