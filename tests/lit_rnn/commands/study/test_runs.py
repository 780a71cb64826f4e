"""A study runs and is summed up: the numbers of its table, and its pictures."""

from __future__ import annotations

import csv
import json
import math
import os
import statistics
import sys
from pathlib import Path

import pytest
import yaml

from datamodules import UserError
from lit_rnn.commands.study import estimate, local, measure, page, pictures
from lit_rnn.commands.study.subject import read_study
from lit_rnn.runs.endings import FailedError
from tests.forked import Subprocess
from tests.lit_rnn.commands.study.made import BASE, FOLDER, LR, Write, diverge, finish, run_study
from tests.lit_rnn.conftest import rows
from tests.pictures import checked, render


def test_a_study_runs_is_summed_up_and_goes_on(
    study: Write, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two starts, two seeds, one of the settings broken; the numbers are read again from metrics.csv."""
    for module in (estimate, local):  # `test_a_process_of_a_run` starts real ones
        monkeypatch.setattr(module, "subprocess", Subprocess)
    # what only shows when the data are there: that run breaks, the others go on
    stop = {"class_path": "EarlyStopping", "init_args": {"monitor": "val/loss", "check_finite": True}}
    grid = {LR: [0.01], "trainer.val_check_interval": [4, 99999], "trainer.callbacks": [[stop]]}
    name = study(grid=grid, seeds=[1, 2], success={"below": 100.0})

    # one run alone, as a job array has it: no table yet
    run_study(name, "--only", "0")
    first = FOLDER / "study-val_check_interval=4-seed=1" / "fit.json"
    kept = first.stat().st_mtime_ns
    assert not (FOLDER / "study.json").exists()
    assert not (FOLDER / "plan.json").exists(), "which several such would write at once"

    capsys.readouterr()
    with pytest.raises(FailedError, match=r"2 of 4 runs failed.*study-val_check_interval=99999-seed=1"):
        run_study(name, "--processes", "2")
    out = capsys.readouterr().out
    assert "4 runs in runs/study: 1 run finished, 3 runs to go, 2 side by side" in out and "about 0:0" in out
    assert out.count("failed (status 2)") == 2
    (good,) = json.loads((FOLDER / "study.json").read_text())["settings"]
    runs = [rows(FOLDER / f"study-val_check_interval=4-seed={seed}") for seed in (1, 2)]
    losses = [[float(row["val/loss"]) for row in run if "val/loss" in row] for run in runs]
    assert good["runs"] == 2 and good["successes"] == 2
    assert good["loss_mean"] == pytest.approx(statistics.fmean(loss[-1] for loss in losses), rel=1e-6)
    assert good["loss_std"] == pytest.approx(statistics.stdev(loss[-1] for loss in losses), rel=1e-5)
    assert good["best_loss_mean"] == pytest.approx(statistics.fmean(map(min, losses)), rel=1e-6)
    assert losses[0] != losses[1]
    with (FOLDER / "study.csv").open(newline="") as file:
        assert [row["run"] for row in csv.DictReader(file)] == [
            "study-val_check_interval=4-seed=1",
            "study-val_check_interval=4-seed=2",
        ]
    with (FOLDER / "study_means.csv").open(newline="") as file:
        (means,) = csv.DictReader(file)
    assert float(means["loss_mean"]) == good["loss_mean"] and means["trainer.val_check_interval"] == "4"
    assert (means["loss_number"], means["runs"], means["successes"]) == ("2", "2", "2")

    # a finished run is kept as it is, a stopped one goes on from its checkpoint
    second = FOLDER / "study-val_check_interval=4-seed=2" / "fit.json"
    finished = second.read_text()
    second.unlink()
    again = local.command(read_study(name).runs[1], FOLDER, 1)
    assert again[again.index("--resume") + 1] == "auto", "the same line starts and goes on"
    second.write_text(finished)
    assert "--seed_everything" in local.command(read_study(study(seeds=[7])).runs[0], FOLDER, 1)

    # a setting less, and nothing is left to run: the table alone
    less = study(grid=grid | {"trainer.val_check_interval": [4]}, arms={"study-val_check_interval=4": {}}, seeds=[1, 2])
    (FOLDER / "study.json").unlink()
    render(monkeypatch)
    plan = json.loads((FOLDER / "plan.json").read_text())
    assert {run.name for run in read_study(less).runs} <= plan.keys()
    run_study(less, tried=False)
    assert (FOLDER / "study.png").stat().st_size > 10_000 and not (FOLDER / "study_lr.png").exists()
    assert [run["seed"] for run in json.loads((FOLDER / "study.json").read_text())["runs"]] == [1, 2]

    # other options, or another base, are refused where runs have finished
    study(grid=grid | {LR: [0.02]}, seeds=[1, 2])
    with pytest.raises(UserError, match="other options"):
        run_study(name, tried=False)
    study(grid=grid, seeds=[1, 2])
    Path("base.yaml").write_text(yaml.safe_dump(BASE | {"trainer": {"max_epochs": 3, "accelerator": "cpu"}}))
    with pytest.raises(UserError, match="--study_dir"):
        run_study(name, tried=False)
    assert first.stat().st_mtime_ns == kept


def test_a_process_of_a_run(study: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    """A real one, where the test above has forks that are told the same: pinned, heard by no terminal, ended with us;
    all that it says goes into the log."""
    (run,) = read_study(study()).runs
    asked = "os.environ['OMP_NUM_THREADS'], os.environ['LIT_RNN_LAUNCHER'], os.getsid(0) == os.getpid()"
    code = f"import os, sys; print({asked}, sys.stdin.read() == ''); print('error', file=sys.stderr); sys.exit(3)"
    monkeypatch.setattr(local, "command", lambda *_: [sys.executable, "-S", "-c", code])
    FOLDER.mkdir(parents=True)
    told: list[tuple[str, int]] = []
    assert local.Pool(FOLDER, 1, 5, lambda run, status, _: told.append((run.name, status))).run_all([run]) == {run: 3}
    assert told == [(run.name, 3)]
    said = [f"5 {os.getpid()} True True", "error"]
    assert sorted(local.log(FOLDER, run).read_text().splitlines()[-2:]) == said, "behind the command line"


def test_mean_and_spread_by_hand() -> None:
    rows = [
        {"setting": s, "loss": loss, "best_loss": loss / 2, "value": v, "diverged": False, "success": v > 0.5}
        for s, loss, v in (("a", 4.0, 0.1), ("a", 8.0, 0.9), ("b", 2.0, 1.0))
    ]
    lost = {"setting": "a", "loss": float("nan"), "best_loss": None, "value": None}
    rows.append({**lost, "diverged": True, "success": False})
    b, a = measure.over_seeds(rows)
    assert (a["loss_mean"], a["best_loss_mean"], a["successes"], a["runs"]) == (6.0, 3.0, 1, 3)
    assert (a["loss_number"], a["best_loss_number"], b["value_number"]) == (2, 2, 1), "a run without the number"
    assert a["loss_std"] == pytest.approx(8**0.5) and b["loss_std"] is None and b["setting"] == "b"


def test_a_curve_that_is_not_whole_is_told(study: Write) -> None:
    """As half a copy leaves it: what is left of it says nothing of a success."""
    plan = read_study(study(seeds=[1, 2, 3, 4]))
    for run in plan.runs:
        finish(run)
    diverge(plan.runs[3])
    (FOLDER / "study-seed=4" / "fit.json").unlink()
    assert measure.without_curve(measure.results(plan, FOLDER), FOLDER) == ""
    (FOLDER / "study-seed=1" / "metrics.csv").unlink()
    (FOLDER / "study-seed=3" / "metrics.csv").write_text("step,val/loss\n0,5.0\n")
    told = measure.without_curve(measure.results(plan, FOLDER), FOLDER)
    assert told.endswith("may be missing: study-seed=1, study-seed=3")


def test_a_lost_seed_makes_no_setting_better() -> None:
    """Best losses by hand: b has the lowest mean of those that are numbers, but one of its seeds has none."""
    losses: dict[str, list[float | None]] = {
        "d": [None, None],
        "b": [0.1, None],
        "c": [0.9, 0.7],
        "a": [0.2, 0.8],
    }
    ours = [(name, loss) for name, seeds in losses.items() for loss in seeds]
    rows = [
        {"setting": name, "loss": loss, "best_loss": loss, "value": None, "diverged": False, "success": False}
        for name, loss in ours
    ]
    settings = measure.over_seeds(rows)
    assert [one["setting"] for one in settings] == ["a", "c", "b", "d"]
    assert [one["best_loss_number"] for one in settings] == [2, 2, 1, 0]
    assert [measure.rank(losses[name]) for name in "acbd"] == [
        (0, 0.5),
        (0, pytest.approx(0.8)),
        (1, 0.1),
        (2, math.inf),
    ]
    assert measure.lowest([math.nan, None, 0.5, math.inf, 0.25, -math.inf]) == 0.25
    assert measure.lowest([]) is measure.lowest([math.nan, None]) is None


def test_losses_against_the_learning_rate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two arms, one with a gain: lines by arm and gain, rates in order, seeds together; one rate draws nothing."""
    rows = [
        {"run": "", "setting": "", "arm": arm, "seed": 1, "best_loss": loss, "diverged": loss is None}
        | {"chance": None if loss is None else 1.0, LR: rate, "m.gain": gain}
        for arm, gain, rate, loss in (
            ("a", 1, 0.1, 4.0),
            ("a", 1, 0.01, 2.0),
            ("a", 1, 0.01, 3.0),
            ("a", 2, 0.01, 0.5),
            ("b", 2, 0.1, 1.0),
            ("b", 2, 0.1, None),
        )
    ]
    assert measure.against_rate(rows) == {
        "a, gain=2": [(0.01, [0.5])],
        "a, gain=1": [(0.01, [2.0, 3.0]), (0.1, [4.0])],
        "b, gain=2": [(0.1, [1.0, pytest.approx(math.nan, nan_ok=True)])],
    }, "the mean over the seeds that are left would have made b the second"
    lost = [{**row, "best_loss": None} for row in rows if row["arm"] == "b"]
    assert list(measure.against_rate([*rows[:4], *lost])) == ["a, gain=2", "a, gain=1"]
    assert list(measure.against_rate(rows[:4])) == ["gain=2", "gain=1"], "one arm, which has the file's name"
    assert list(measure.against_rate(rows[:3])) == ["a"], "and nothing else to name it by"
    drawn = checked(monkeypatch)
    for row in rows:
        row["run"], row["setting"] = "", f"{row['arm']}, a long name of a setting with many values, {row['m.gain']}"
    (tmp_path / "metrics.csv").write_text("step,val/loss\n0,3.0\n9,2.5\n")
    settings = [{"setting": name} for name in dict.fromkeys(row["setting"] for row in rows)]
    assert pictures.draw(rows, settings, tmp_path) == [tmp_path / "study.png", tmp_path / "study_lr.png"]
    assert drawn() == 2
    assert measure.against_rate(rows[:1]) == {} and measure.against_rate([]) == {}
    assert measure.against_rate([{**row, "other.lr": 1} for row in rows]) == {}, "of two rates none is the rate"


def test_settings_of_several_tasks_have_each_its_chance(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    row = {"run": "", "arm": "a", "seed": 1, "loss": 0.5, "best_loss": 0.5, "value": 0.5, "diverged": False}
    row |= {"success": True, "metric": "accuracy", LR: 0.1}
    tasks = [("a", 2.0, "accuracy"), ("b", 0.5, "mse"), ("c", 2.0 + 1e-9, "mse")]
    rows = [{**row, "setting": name, "chance": chance, "metric": metric} for name, chance, metric in tasks]
    made = page.table(rows, measure.over_seeds(rows))
    assert made.title.startswith("chance loss 0.5 to 2;") and made.header[4] == "metric"
    made = page.table(rows[:1], measure.over_seeds(rows[:1]))
    assert made.title.startswith("chance loss 2;") and made.header[4] == "accuracy"
    found = []
    monkeypatch.setattr(pictures.style, "save", lambda figure, path: found.extend(figure.axes))
    (tmp_path / "metrics.csv").write_text("step,val/loss\n0,3.0\n9,2.5\n")
    pictures.draw(rows, measure.over_seeds(rows), tmp_path)
    dashed = [line.get_ydata()[0] for line in found[0].get_lines() if str(line.get_label()).startswith("chance")]
    assert sorted(dashed) == pytest.approx([0.5, 2.0])


def test_the_arms_of_a_study_have_grids_of_their_own() -> None:
    """One without a rate has no line; what only the second varies keeps its runs apart; 1e-1 is text in YAML 1.1."""
    row = {"arm": "a", "best_loss": 1.0, LR: "1e-1"}
    gains = [{"arm": "b", "best_loss": 2.0 + gain, LR: 0.1, "m.gain": gain} for gain in (1, 2)]
    rows = [row, {**row, LR: "1e-2"}, *gains, {"arm": "c", "best_loss": 0.5}]
    expected = {"a": [(0.01, [1.0]), (0.1, [1.0])], "b, gain=1": [(0.1, [3.0])], "b, gain=2": [(0.1, [4.0])]}
    assert measure.against_rate(rows) == measure.against_rate(rows[::-1]) == expected
