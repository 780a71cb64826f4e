"""Studies: grids, resuming, broken runs, the table's numbers, and what other schedulers are given."""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import io
import json
import math
import shlex
import statistics
from collections.abc import Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from datamodules import Adding, CopyMemory, Denoise, Task, UserError
from lit_rnn import callbacks, models
from lit_rnn.callbacks import clock
from lit_rnn.commands.configs import config_folder
from lit_rnn.commands.fit import command as cli
from lit_rnn.commands.fit.trial import try_out
from lit_rnn.commands.study import command, estimate, export, local, measure, pictures, work
from lit_rnn.commands.study.best import Queue, ahead, best_setting, every, following, undecided
from lit_rnn.commands.study.subject import Run, read_study, resolved
from lit_rnn.models.base import count_parameters
from lit_rnn.runs.endings import FailedError
from tests.forked import Subprocess
from tests.pictures import checked

BASE = {
    "model": {
        "class_path": "VanillaRNN",
        "init_args": {"hidden_size": 6, "optimizer": {"class_path": "RMSprop", "init_args": {"lr": 0.01}}},
    },
    "data": {
        "class_path": "CopyMemory",
        "init_args": {"delay": 3, "symbols": 2, "batch_size": 4, "train_samples": 16, "val_samples": 8},
    },
    "trainer": {"max_epochs": 2, "accelerator": "cpu", "log_every_n_steps": 1, "val_check_interval": 4},
}
LR = "model.init_args.optimizer.init_args.lr"
LETTERS = dataclasses.replace(  # as many as Tiny Shakespeare has
    CopyMemory(delay=3).task, name="text", input_size=65, targets="next_symbol", target_size=65, scored="all"
)


def run_study(*options: str) -> None:
    command.run("study", options, try_out)


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Writes base.yaml and study.yaml into an empty folder and goes there."""
    monkeypatch.chdir(tmp_path)
    Path("base.yaml").write_text(yaml.safe_dump(BASE))

    def write(**keys: Any) -> str:
        Path("study.yaml").write_text(yaml.safe_dump({"base": "base.yaml", **keys}, sort_keys=False))
        return "study.yaml"

    return write


def test_the_grid_is_every_combination_of_the_common_and_the_arms(study: Any) -> None:
    arms = {"a": {"grid": {"model.init_args.lam": [0.9, 1.0]}}, "b": {"grid": {"model.init_args.init": ["identity"]}}}
    plan = read_study(study(grid={LR: [0.1, 0.01, 0.001]}, seeds=[3, 5], arms=arms))
    assert len(plan.settings) == 3 * 2 + 3 and len(plan.runs) == 18
    assert plan.runs[0].name == "a-lr=0.1-lam=0.9-seed=3" and plan.runs[1].name == "a-lr=0.1-lam=0.9-seed=5"
    assert plan.runs[-1].name == "b-lr=0.001-seed=5"
    last = plan.runs[-1].arguments()
    expected = f"-c base.yaml --{LR} 0.001 --model.init_args.init identity --seed_everything 5"
    assert last == expected.split()
    assert resolved(plan.settings[-1])["model"]["init_args"]["init"] == "identity"


@pytest.mark.parametrize(
    ("keys", "named"),
    [
        ({"grids": {}}, "grids"),
        ({"grid": {LR: []}}, LR),
        ({"grid": {LR: 0.1}}, LR),
        ({"seeds": [1, 1]}, "seeds"),
        ({"seeds": "1"}, "seeds"),
        ({"base": "nowhere.yaml"}, "nowhere.yaml"),
        ({"base": []}, "base"),
        ({"base": None}, "base is not given"),
        ({"base": 3}, "base is 3"),
        ({"base": ["base.yaml", None]}, "a config or a list of them"),
        ({"arms": {"a": {"base": {"model": 1}}}}, "a config or a list of them"),
        ({"arms": {"a": {"grids": {}}}}, "grids"),
        ({"success": {"under": 1}}, "under"),
        ({"success": {"below": "low"}}, "success.below is 'low'"),
        ({"success": {"below": True}}, "success.below is true"),
        ({"success": {"below": -1.0}}, "success.below"),
        ({"success": {"below": ".inf"}}, "success.below"),
        ({"success": {"below_chance": [0.5]}}, "success.below_chance"),
        ({"success": {"below": 1.0, "below_chance": 0.5}}, "not both"),
        ({"best": [2]}, "best"),
        ({"best": {}}, "something follows"),
        ({"best": {"seed": [2]}}, "seed"),
        ({"best": {"seeds": [2, 2]}}, "best.seeds"),
        ({"best": {"seeds": [-1]}}, "whole numbers from 0 to 4294967295, none"),
        ({"seeds": [2**32]}, "different whole numbers from 0 to 4294967295"),
        ({"best": {"seeds": [1]}}, "none of which is in seeds"),
        ({"best": {"seeds": [2], "test": "yes"}}, "best.test is 'yes'"),
        ({"best": {"seeds": [2], "if_success": 1}}, "best.if_success is 1"),
        ({"best": {"test": True, "if_success": True}}, "at least one seed beside if_success"),
        (
            {"best": {"test": True}, "search": {"trials": 1, "space": {LR: {"float": [0.1, 1]}}}},
            "left out beside search",
        ),
        ({"grid": {"model.init_args.lam": [1.0, "1.0"]}}, "lam=1.0"),
        ({"grid": {"model.init_args.lamb": [1.0]}}, "lamb"),
        ({"grid": {"model.init_args.hidden_size": [6, "many"]}}, "hidden_size"),
        ({"grid": {"model.init_args.hidden_size": [6, -1]}}, "hidden_size=-1-seed=1: .*hidden_size is -1"),
        ({"grid": {"data.init_args.delay": [3, -1]}}, "delay"),
        ({"grid": {LR: [0.1, -1.0]}}, "Invalid learning rate"),
        ({"grid": {"trainer.devices": [1, "many"]}}, "devices"),
        ({"grid": {"seed_everything": [1, 2]}}, "grid.seed_everything cannot vary, .*: list the seeds under seeds"),
        ({"arms": {"a": {"grid": {"run_dir": ["b"]}}}}, "arms.a.grid.run_dir cannot vary, .* --study_dir"),
        ({"search": {"trials": 1, "space": {"threads": {"int": [1, 2]}}}}, "search.space.threads cannot vary"),
    ],
)
def test_bad_files_are_refused_before_anything_starts(study: Any, keys: dict[str, Any], named: str) -> None:
    with pytest.raises(UserError, match=named) as error:
        run_study(study(**keys))
    assert "\n" not in str(error.value)
    assert not Path("runs").exists()


def test_a_threshold_without_a_point_is_a_number(study: Any) -> None:
    """YAML 1.1 reads 1e-1 as text; the runs would be over before a comparison with it failed."""
    Path("study.yaml").write_text("base: base.yaml\nsuccess: {below: 1e-1}\n")
    assert read_study("study.yaml").below == 0.1
    Path("study.yaml").write_text("base: base.yaml\nsuccess: {below_chance: 2e-1}\n")
    plan = read_study("study.yaml")
    assert plan.below is None and plan.below_chance == 0.2


def test_a_sweep_gives_values_as_fit_reads_them(study: Any) -> None:
    """W&B puts --key=value with Python's own spelling: None and True would be words."""
    name = study(grid={"model.init_args.lr_scheduler": [None], "model.init_args.learn_initial_state": [True, False]})
    parameters = yaml.safe_load(export.sweeps(read_study(name))["sweep-study.yaml"])["parameters"]
    given = [f"--{key}={parameters[key]['values'][0]}" for key in parameters]
    assert "--model.init_args.lr_scheduler=null" in given and "--model.init_args.learn_initial_state=true" in given
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.suppress(SystemExit):
        cli.run("fit", ["-c", "base.yaml", *given, "--print_config"])
    options = yaml.safe_load(printed.getvalue())["model"]["init_args"]
    assert options["lr_scheduler"] is None and options["learn_initial_state"] is True


def test_other_bad_input(study: Any) -> None:
    name = study()
    for options in (
        ["nowhere.yaml"],
        [name, "--only", "1"],
        [name, "--threads", "0"],
        [name, "--processes", "-1"],
        [name, "--processes", "0"],
    ):
        with pytest.raises(UserError):
            run_study(*options)
    Path("study.yaml").write_text("base: [")
    with pytest.raises(UserError, match="not YAML"):
        run_study("study.yaml")
    Path("study.yaml").write_text("")
    with pytest.raises(UserError, match="mapping"):
        run_study("study.yaml")


@pytest.mark.usefixtures("rendered")
def test_a_study_runs_is_summed_up_and_goes_on(
    study: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two starts, two seeds, one of the settings broken; the numbers are read again from metrics.csv."""
    # what only shows when the data are there: that run breaks, the others go on
    stop = {"class_path": "EarlyStopping", "init_args": {"monitor": "val/loss", "check_finite": True}}
    grid = {LR: [0.01], "trainer.val_check_interval": [4, 99999], "trainer.callbacks": [[stop]]}
    name = study(grid=grid, seeds=[1, 2], success={"below": 100.0})

    # one run alone, as a job array has it: no table yet
    run_study(name, "--only", "0")
    folder = Path("runs/study")
    first = folder / "study-val_check_interval=4-seed=1" / "fit.json"
    kept = first.stat().st_mtime_ns
    assert not (folder / "study.json").exists()
    assert not (folder / "plan.json").exists(), "which several such would write at once"

    capsys.readouterr()
    for module in (estimate, local):  # the first was started from nothing, which takes seconds
        monkeypatch.setattr(module, "subprocess", Subprocess)
    with pytest.raises(FailedError, match=r"2 of 4 runs failed.*study-val_check_interval=99999-seed=1"):
        run_study(name, "--processes", "2")
    out = capsys.readouterr().out
    assert "4 runs in runs/study: 1 run finished, 3 runs to go, 2 side by side" in out and "about 0:0" in out
    assert out.count("failed (status 2)") == 2
    (good,) = json.loads((folder / "study.json").read_text())["settings"]
    losses = []
    for seed in (1, 2):
        with (folder / f"study-val_check_interval=4-seed={seed}" / "metrics.csv").open(newline="") as file:
            losses.append([float(row["val/loss"]) for row in csv.DictReader(file) if row.get("val/loss")])
    assert good["runs"] == 2 and good["successes"] == 2
    assert good["loss_mean"] == pytest.approx(statistics.fmean(loss[-1] for loss in losses), rel=1e-6)
    assert good["loss_std"] == pytest.approx(statistics.stdev(loss[-1] for loss in losses), rel=1e-5)
    assert good["best_loss_mean"] == pytest.approx(statistics.fmean(map(min, losses)), rel=1e-6)
    assert losses[0] != losses[1]
    with (folder / "study.csv").open(newline="") as file:
        assert [row["run"] for row in csv.DictReader(file)] == [
            "study-val_check_interval=4-seed=1",
            "study-val_check_interval=4-seed=2",
        ]
    with (folder / "study_means.csv").open(newline="") as file:
        (means,) = csv.DictReader(file)
    assert float(means["loss_mean"]) == good["loss_mean"] and means["trainer.val_check_interval"] == "4"
    assert (means["loss_number"], means["runs"], means["successes"]) == ("2", "2", "2")
    assert (folder / "study.png").stat().st_size > 10_000 and not (folder / "study_lr.png").exists()

    # a finished run is kept as it is, a stopped one goes on from its checkpoint
    second = folder / "study-val_check_interval=4-seed=2" / "fit.json"
    finished = second.read_text()
    second.unlink()
    again = local.command(read_study(name).runs[1], folder, 1)
    assert again[again.index("--resume") + 1] == "auto", "the same line starts and goes on"
    second.write_text(finished)
    assert "--seed_everything" in local.command(read_study(study(seeds=[7])).runs[0], folder, 1)

    # a setting less, and nothing is left to run: the table alone
    less = study(grid=grid | {"trainer.val_check_interval": [4]}, arms={"study-val_check_interval=4": {}}, seeds=[1, 2])
    (folder / "study.json").unlink()
    plan = json.loads((folder / "plan.json").read_text())
    assert {run.name for run in read_study(less).runs} <= plan.keys()
    run_study(less)
    assert [run["seed"] for run in json.loads((folder / "study.json").read_text())["runs"]] == [1, 2]

    # other options, or another base, are refused where runs have finished
    study(grid=grid | {LR: [0.02]}, seeds=[1, 2])
    with pytest.raises(UserError, match="other options"):
        run_study(name)
    study(grid=grid, seeds=[1, 2])
    Path("base.yaml").write_text(yaml.safe_dump(BASE | {"trainer": {"max_epochs": 3, "accelerator": "cpu"}}))
    with pytest.raises(UserError, match="--study_dir"):
        run_study(name)
    assert first.stat().st_mtime_ns == kept


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


def test_a_finished_run_without_a_finite_loss_is_not_the_best(study: Any) -> None:
    """Nor is the other seed of its setting, whose loss is the lowest; where all settings have one, none is best."""
    plan, folder = by_rates(study), Path("runs/study")
    for run in (run for run in plan.runs if run.setting.arm == "a"):
        ended(folder, run, 0.1 if run.setting.name == "a-lr=0.1" else 0.9)
    for name, chosen in (("a-lr=0.1-seed=2", "a-lr=0.01"), ("a-lr=0.01-seed=1", None)):
        (folder / name / "metrics.csv").write_text("step,val/loss\n0,nan\n")
        best = best_setting(plan, "a", folder)
        assert (None if best is None else best.name) == chosen


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


# ---- what follows for the best


def ended(folder: Path, run: Run, loss: float) -> None:
    """As if a run had been done, with the validation losses 5 and ``loss``."""
    place = folder / run.name
    place.mkdir(parents=True, exist_ok=True)
    numbers = {"model": "VanillaRNN", "task": "copy", "metric": "accuracy", "parameters": 1, "steps": 2, "chance": 1.0}
    numbers |= {"loss": loss, "value": 0.5 if run.command == "fit" else 0.25, "seconds": 1.0}
    (place / f"{run.command}.json").write_text(json.dumps(numbers))
    if run.command == "fit":
        (place / "metrics.csv").write_text(f"step,val/loss\n0,5.0\n1,{loss}\n")


def by_rates(study: Any, **keys: Any) -> Any:
    arms = {"a": {}, "b": {}}
    return read_study(study(grid={LR: [0.1, 0.01]}, seeds=[1, 2], best={"seeds": [3], "test": True}, arms=arms, **keys))


def test_the_best_of_each_arm_gets_more_seeds_and_a_test(study: Any) -> None:
    """Means of a: 3 at 0.1, 2 at 0.01; of b: 1 and 2. One by one, an arm is done before the next."""
    plan, folder = by_rates(study), Path("runs/study")
    losses = {"a-lr=0.1": (1.0, 5.0), "a-lr=0.01": (2.0, 2.0), "b-lr=0.1": (1.0, 1.0), "b-lr=0.01": (2.0, 2.0)}
    queue, told = Queue(plan, folder), []
    for run in queue.runs():
        assert run is not None, "nothing is going"
        told.append(run.told)
        ended(folder, run, losses[run.setting.name][run.seed - 1] if run.seed < 3 else 0.5)
        queue.ended(run, diverged=False)
    assert told == [
        *(f"a-lr={rate}-seed={seed}" for rate in (0.1, 0.01) for seed in (1, 2)),
        "a-lr=0.01-seed=3",
        *(f"test of a-lr=0.01-seed={seed}" for seed in (1, 2, 3)),
        *(f"b-lr={rate}-seed={seed}" for rate in (0.1, 0.01) for seed in (1, 2)),
        "b-lr=0.1-seed=3",
        *(f"test of b-lr=0.1-seed={seed}" for seed in (1, 2, 3)),
    ]
    assert list(Queue(plan, folder).runs()) == [] and ahead(plan, folder) == []
    rows = measure.results(plan, folder)
    assert [(row["run"], row["test"]) for row in rows if row["arm"] == "b"] == [
        *((f"b-lr=0.1-seed={seed}", 0.25) for seed in (1, 2, 3)),
        *((f"b-lr=0.01-seed={seed}", None) for seed in (1, 2)),
    ]
    first = measure.over_seeds(rows)[0]
    assert (first["setting"], first["runs"], first["test_number"]) == ("b-lr=0.1", 3, 3)
    best = best_setting(plan, "a", folder)
    assert best is not None and best.name == "a-lr=0.01", "chosen by the seeds that all settings have"


def test_a_study_with_a_best_goes_on_and_waits(study: Any) -> None:
    """While the last run of an arm is going, the next arm begins; when that is under way too, there is nothing yet."""
    plan, folder = by_rates(study), Path("runs/study")
    queue = Queue(plan, folder)
    given = queue.runs()
    a1, a2, a3, a4, b1 = (next(given) for _ in range(5))
    assert [run.told for run in (a1, a4, b1) if run] == ["a-lr=0.1-seed=1", "a-lr=0.01-seed=2", "b-lr=0.1-seed=1"]
    for run in (a1, a2, a3):
        assert run is not None
        ended(folder, run, 3.0)
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
    study: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What followed for the best was not known at the first start: it is the study's own all the same."""
    folder = Path("runs/study")

    def as_if_run(pool: local.Pool, runs: Iterable[Run | None]) -> dict[Run, int]:
        for run in runs:
            assert run is not None
            ended(folder, run, 3.0)
            pool.tell(run, 0, 1.0)
        return {}

    monkeypatch.setattr(local.Pool, "run_all", as_if_run)
    monkeypatch.setattr(work, "estimate", lambda *_: (1.0, "others"))
    monkeypatch.setattr(work, "report", lambda *_: None)
    plan = by_rates(study)
    run_study("study.yaml", "--processes", "2")
    first = capsys.readouterr().out.splitlines()[0]
    assert first == ("10 runs and 6 tests in runs/study: 0 runs finished, 10 runs and 6 tests to go, 2 side by side")
    followed = folder / "a-lr=0.1-seed=3"
    assert (followed / "fit.json").is_file() and ahead(plan, folder) == []
    Path("elsewhere").mkdir()  # as another copy of lit_rnn has them
    Path("base.yaml").rename("elsewhere/base.yaml")
    assert by_rates(study, base="elsewhere/base.yaml").runs[0].arguments() != plan.runs[0].arguments()
    run_study("study.yaml", "--processes", "2")
    last = capsys.readouterr().out.splitlines()[-1]
    assert last == "10 runs and 6 tests in runs/study: 10 runs and 6 tests finished, 0 runs to go, 2 side by side"
    changed = json.loads((folder / "plan.json").read_text())
    changed[followed.name]["arguments"].append("--other")
    (folder / "plan.json").write_text(json.dumps(changed))
    with pytest.raises(UserError, match=rf"{followed} is a finished run with other options"):
        run_study("study.yaml")


def test_more_seeds_only_for_a_success(study: Any) -> None:
    """Half of chance is 0.5: of a, both seeds of the best setting are below it; of b, one of two."""
    best = {"seeds": [3], "test": True, "if_success": True}
    plan = read_study(study(grid={LR: [0.1, 0.01]}, seeds=[1, 2], best=best, arms={"a": {}, "b": {}}))
    folder, told = Path("runs/study"), []
    losses = {"a-lr=0.1": (0.4, 0.3), "a-lr=0.01": (0.1, 0.7), "b-lr=0.1": (0.3, 0.6), "b-lr=0.01": (3.0, 3.0)}
    assert len(every(plan, folder)) == 8 + 4 + 4, "not known yet"
    queue = Queue(plan, folder)
    for run in queue.runs():
        assert run is not None
        if run.seed == 3 or run.command == "test":
            told.append(run.told)
        ended(folder, run, losses[run.setting.name][run.seed - 1] if run.seed < 3 else 0.5)
        queue.ended(run, diverged=False)
    tests = [("a", (1, 2, 3)), ("b", (1, 2))]
    assert told == ["a-lr=0.1-seed=3", *(f"test of {arm}-lr=0.1-seed={seed}" for arm, seeds in tests for seed in seeds)]
    assert len(every(plan, folder)) == 8 + 4 + 2 and ahead(plan, folder) == [] and undecided(plan, folder) == []
    assert following(plan) == "seeds 3 where it succeeds and tests of all its runs"


def test_a_best_is_known_where_what_is_missing_has_diverged(study: Any) -> None:
    """Of a, one run of a setting failed; of b, one diverged, so that the other setting is the best. Then all of b."""
    plan, folder = by_rates(study), Path("runs/study")
    for run in plan.runs[:-1]:
        ended(folder, run, 3.0)
    (last,) = plan.runs[-1:]
    assert undecided(plan, folder) == ["b"]
    for line, left in (("lit_rnn: The loss is nan at step 3.", []), ("Killed", ["b"])):
        (folder / last.name).mkdir(parents=True, exist_ok=True)
        local.log(folder, last).write_text(f"epoch 1\n{line}\n")
        assert undecided(plan, folder) == left
    equal = best_setting(plan, "a", folder)
    assert equal is not None and equal.name == "a-lr=0.1", "the first of two with the same losses"
    for run in plan.runs[4:]:
        (folder / run.name / "fit.json").unlink(missing_ok=True)
        local.log(folder, run).write_text("lit_rnn: The loss is nan at step 3.\n")
    assert undecided(plan, folder) == ["b"], "all have diverged"


def test_what_a_study_with_a_best_will_do_is_told(study: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """8 runs of 8 updates; of each arm a third seed, and three tests."""
    by_rates(study)
    run_study("study.yaml", "--dry_run")
    *_, follows, told = capsys.readouterr().out.splitlines()
    assert follows == "then, for the best setting of each arm on validation: seeds 3 and tests of all its runs"
    assert told == "10 runs and 6 tests, 80 updates at most"
    test = local.command(dataclasses.replace(read_study("study.yaml").runs[0], command="test"), Path("f"), 1)
    assert test[2:] == ["lit_rnn", "test", "--run_dir", "f/a-lr=0.1-seed=1", "--ckpt_path", "best", "--threads", "1"]


# ---- how long it will take


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
        ({"max_epochs": 3, "val_check_interval": 15, "check_val_every_n_epoch": None}, (30, 8, 3)),
        ({}, (10_000, 4000, 1000)),
    ],
)
def test_what_a_run_does(trainer: dict[str, Any], expected: tuple[int, int, int]) -> None:
    given = {"check_val_every_n_epoch": 1, **trainer}
    assert estimate.amount(given, 10, 4) == estimate.Amount(*expected)


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


def test_runs_come_in_rounds(study: Any, monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_long_studies_try_every_arm(study: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Arms of 2,000 and 500 s with two seeds each, on two processes: 2,000 and 2,000 side by side, then 500 and 500."""
    tried = []

    def trial(setting: Any, processes: int, threads: int, batches: int, val_batches: int) -> list[estimate.Timing]:
        tried.append((setting.arm, batches))
        return [estimate.Timing(2000.0 if setting.arm == "slow" else 500.0, 0.0, 0.0, 0.0)]

    monkeypatch.setattr(estimate, "trial", trial)
    grid = {"data.init_args.train_samples": [4000]}
    runs = read_study(study(seeds=[1, 2], arms={"slow": {}, "quick": {}}, grid=grid)).runs
    assert estimate.estimate(runs, 2, 1)[0] == 2000 + 500
    assert tried == [("slow", 100), ("quick", 50)]
    assert estimate.estimate(runs[::-1], 2, 1)[0] == 500 * 2 and tried[2:] == [("quick", 100)], "not worth more trials"


def test_arms_with_finished_runs_are_not_tried(study: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """10 and 14 s for 4 updates each are 3 s an update: 36 s for 12. Arm b has none, and is tried: 5 s a run."""
    monkeypatch.setattr(estimate, "trial", lambda setting, *_: [estimate.Timing(5.0, 0.0, 0.0, 0.0)])
    arms = {"a": {"grid": {"trainer.max_epochs": [1, 3]}}, "b": {}}
    a1, a2, long, _, *b = (runs := read_study(study(seeds=[1, 2], arms=arms)).runs)
    finished = [(a1, 10.0), (a2, 14.0)]
    assert estimate.estimate([long, *b], 1, 1, finished) == (
        36 + 2 * 5,
        "those that have finished and those that were tried",
    )
    monkeypatch.setattr(estimate, "trial", None)
    assert estimate.estimate(runs[2:4], 2, 1, finished) == (36, "those that have finished")
    folder = Path("runs/study")
    ended(folder, a1, 3.0)
    assert estimate.took(runs, folder) == [(a1, 1.0)]


def test_the_budget_is_told_before_any_data_is_read(study: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """16 samples in batches of 4 are 4 updates an epoch; `max_steps` ends runs; of images only epochs are known."""
    by_hand = (
        ({"seeds": [1, 2, 3]}, "3 runs, 24 updates"),
        ({"grid": {"trainer.max_epochs": [1, 5]}}, "2 runs, 24 updates"),
        ({"grid": {"trainer.max_epochs": [5], "trainer.max_steps": [7]}}, "1 run, 7 updates"),
        ({"grid": {"trainer.accumulate_grad_batches": [3], "trainer.limit_train_batches": [0.5]}}, "1 run, 2 updates"),
        ({"grid": {"data": ["PixelDigits"]}, "seeds": [1, 2]}, "2 runs, 4 epochs of data that has to be read first"),
    )
    for keys, told in by_hand:
        assert estimate.budget(read_study(study(**keys)).runs) == told
    run_study(study(seeds=[1, 2]), "--dry_run")
    assert capsys.readouterr().out.splitlines()[-1] == "2 runs, 16 updates at most"


def test_what_other_schedulers_are_given(study: Any, capsys: pytest.CaptureFixture[str]) -> None:
    grid = {LR: [0.1, 0.01], "trainer.callbacks": [[]]}
    name = study(grid=grid, seeds=[1, 2], arms={"a": {}, "b": {"grid": {"model.init_args.lam": [0.5]}}})
    run_study(name, "--export", "wandb")
    sweep = yaml.safe_load(Path("runs/study/sweep-b.yaml").read_text())
    assert sweep["method"] == "grid" and sweep["metric"] == {"name": "val/loss", "goal": "minimize"}
    assert sweep["parameters"] == {
        LR: {"values": [0.1, 0.01]},
        "trainer.callbacks": {"values": ["[]"]},
        "model.init_args.lam": {"values": [0.5]},
        "seed_everything": {"values": [1, 2]},
    }
    assert sweep["command"][:7] == ["${env}", "python", "-m", "lit_rnn", "fit", "-c", "base.yaml"]
    assert sweep["command"][-1] == "${args}"
    run_study(name, "--export", "slurm", "--threads", "3")
    script = Path("runs/study/study.sbatch").read_text()
    assert json.loads(Path("runs/study/plan.json").read_text()).keys() == {run.name for run in read_study(name).runs}
    assert "#SBATCH --array=0-7\n" in script and "#SBATCH --cpus-per-task=3\n" in script
    words = shlex.split(script.splitlines()[-1])
    assert words[:4] == ["python", "-m", "lit_rnn", "study"] and words[-2:] == ["--only", "$SLURM_ARRAY_TASK_ID"]
    capsys.readouterr()
    run_study(name, "--dry_run", "--only", "5")
    told = capsys.readouterr().out
    assert told.startswith("0: python -m lit_rnn fit -c base.yaml ") and "--model.init_args.lam 0.5" in told
    assert export.sweeps(read_study(name)).keys() == {"sweep-a.yaml", "sweep-b.yaml"}


CAMPAIGN = {  # of each file of configs/campaign/: settings, runs, and the updates or epochs of a run
    "pixel_mnist": (8, 8, {(0, 70)}),
    "copying_1000": (16, 16, {(4000, 0)}),
    "copying_2000": (16, 16, {(4000, 0)}),
    "adding_200": (16, 16, {(20_000, 0)}),
    "adding_400": (16, 16, {(20_000, 0)}),
    "adding_750": (16, 16, {(20_000, 0)}),
    "nru": (60, 60, {(20_000, 0)}),
    "nonnormal": (72, 72, {(18_750, 0)}),
    "tiny_shakespeare": (13, 13, {(0, 20)}),
    "robustness_digits": (13, 52, {(0, 30)}),
    "robustness_mnist": (13, 52, {(0, 5)}),
    "robustness_permuted_mnist": (13, 52, {(0, 5)}),
}


@pytest.mark.parametrize("name", CAMPAIGN)
def test_the_campaign(name: str) -> None:
    """Sizes and budgets as the files tell them; some arms are read as `fit` reads them."""
    plan = read_study(f"campaign/{name}.yaml")
    settings, runs, amounts = CAMPAIGN[name]
    assert (len(plan.settings), len(plan.runs)) == (settings, runs)
    assert all(Path(base).is_file() for setting in plan.settings for base in setting.bases)
    some = plan.settings[:: -(-len(plan.settings) // 5)]
    assert {estimate._told(resolved(setting)) for setting in some} == amounts


@pytest.mark.parametrize(
    ("name", "arm", "task", "parameters"),
    [  # those whose size is ours, with what the file says of it
        ("copying_1000", "rnn_orthogonal", CopyMemory(delay=1000, protocol="exprnn").task, 21_951),
        ("copying_1000", "rnn_chain", CopyMemory(delay=1000, protocol="exprnn").task, 21_813),
        ("adding_200", "nru", Adding(length=200).task, 15_000),
        ("nru", "copying_100-eurnn", CopyMemory(delay=100).task, 23_455),
        ("nru", "denoising_200-goru", Denoise(delay=200).task, 23_430),
        *(("tiny_shakespeare", arm, LETTERS, 1_300_000) for arm in ("gru", "janet", "eurnn")),
    ],
)
def test_the_sizes_of_the_campaign_that_are_ours(name: str, arm: str, task: Task, parameters: int) -> None:
    setting = next(one for one in read_study(f"campaign/{name}.yaml").settings if one.arm == arm)
    config = resolved(setting)["model"]
    model = getattr(models, config["class_path"].rpartition(".")[2])(task=task, **config["init_args"])
    exact = parameters % 1000 != 0
    assert count_parameters(model) == pytest.approx(parameters, rel=0 if exact else 0.03)
    model.configure_optimizers()


def test_the_campaign_is_whole() -> None:
    """Those of who tracks and stores have `test_tracking_campaign`."""
    files = {path.stem for path in (config_folder() / "campaign").glob("*.yaml")}
    assert {name for name in files if not name.startswith("tracking_")} == CAMPAIGN.keys()


@pytest.mark.parametrize("path", sorted((config_folder() / "studies").glob("*.yaml")), ids=lambda path: path.stem)
def test_shipped_studies(path: Path) -> None:
    plan = read_study(f"studies/{path.name}")
    published = {"chain": 462, "fbchain": 462, "identity": 594, "orthogonal": 594}
    if path.stem.startswith("nonnormal"):
        assert {arm: sum(run.setting.arm == arm for run in plan.runs) for arm in published} == published
    if path.stem == "nru_ablation_psmnist":  # one axis at a time through the released point
        assert len(plan.runs) == 1 + 3 + 3 + 2 + 1
    for setting in plan.settings[:: max(1, len(plan.settings) // 4)]:
        model = resolved(setting)["model"]["class_path"]
        expected = "NRU" if path.stem.startswith("nru") else "VanillaRNN"
        assert model.endswith(expected) or path.stem.startswith("robustness") or path.stem.endswith("lengths"), model
