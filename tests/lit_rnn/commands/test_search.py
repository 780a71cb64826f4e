"""``search:`` in study files: the space, the optimum of a made objective, what a kill leaves, several processes."""

from __future__ import annotations

import contextlib
import csv
import json
import math
import pickle
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from datamodules import UserError
from lit_rnn.commands.study import command, local
from lit_rnn.commands.study.search import command as searching
from lit_rnn.commands.study.search import page, pictures, storage
from lit_rnn.commands.study.search.measure import Found
from lit_rnn.commands.study.search.space import read_search
from lit_rnn.commands.study.search.storage import Row, Storage, Trials
from lit_rnn.commands.study.search.trial import Objective
from lit_rnn.commands.study.subject import read_study
from lit_rnn.report import style
from lit_rnn.runs.endings import FailedError
from lit_rnn.runs.lock import Lock
from tests.pictures import checked

pytest.importorskip("optuna", reason="optuna is not installed: the extra search")

SPACE = {
    "model.lr": {"float": ["1e-4", 1.0], "log": True},  # YAML reads 1e-4 as text
    "model.size": {"int": [1, 9]},
    "model.init": {"choice": ["good", "bad", ["a", 1], None]},
}
GIVEN: dict[str, Any] = {"trials": 40, "space": SPACE, "seed": 3}
PLAN = {"options": ["-c", "a.yaml"], "space": "s"}


@pytest.fixture(autouse=True)
def _no_flushes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every write waits for the disk, many times longer than it computes."""
    monkeypatch.setattr(storage, "_PRAGMAS", (*storage._PRAGMAS, "synchronous = OFF"))


def made(values: Any) -> float:
    """Least at lr = 0.01, size = 7, init = good, where it is 0."""
    wrong = {"good": 0.0, "bad": 1.0}.get(str(values["model.init"]), 2.0)
    return math.log10(values["model.lr"] / 0.01) ** 2 + 0.1 * (values["model.size"] - 7) ** 2 + wrong


def opened(path: Path, higher: bool = False, **changes: Any) -> Trials:
    return Trials(Storage(path), "arm", read_search(GIVEN | changes, {"arm": {}}), PLAN, higher)


def work(trials: Trials, stop_before: int | None = None) -> list[int]:
    """Run trials of the made objective; the one with number ``stop_before`` is left as a kill would leave it."""
    done = []
    while (found := trials.claim()) is not None:
        trials.report(found.number, 0, made(found.values) + 1) if not found.reported else None
        if found.number == stop_before:
            break
        trials.complete(found.number, made(found.values))
        done.append(found.number)
    return done


# ---- the file


@pytest.mark.parametrize(
    ("search", "named"),
    [
        ([1], "search is \\[1\\]"),
        ({"trial": 3}, r"search has the key 'trial' \(did you mean trials\?\), but its keys are trials"),
        ({"trials": 0}, "search.trials is 0"),
        ({"trials": True}, "search.trials is true"),
        ({"space": {}}, "search.space is {}"),
        ({"space": [1]}, "search.space"),
        ({"space": {"a": 3}}, "search.space.a is 3"),
        ({"space": {"a": {"float": [0, 1], "int": [0, 1]}}}, "search.space.a"),
        ({"space": {"a": {"float": [1, 1]}}}, "search.space.a.float is"),
        ({"space": {"a": {"float": [0, ".inf"]}}}, "search.space.a.float"),
        ({"space": {"a": {"float": [0, 1, 2]}}}, "search.space.a.float"),
        ({"space": {"a": {"float": [0.0, 1.0], "log": True}}}, "above 0"),
        ({"space": {"a": {"float": [0.1, 1.0], "log": 1}}}, "search.space.a.log is 1"),
        ({"space": {"a": {"int": [0.5, 2]}}}, "two whole numbers"),
        ({"space": {"a": {"choice": []}}}, "search.space.a.choice"),
        ({"space": {"a": {"choice": [1, "1"]}}}, "different values"),
        ({"space": {"a": {"choice": [1], "log": True}}}, "has the key 'log'"),
        ({"sampler": "cmaes"}, "search.sampler is 'cmaes'.*code"),
        ({"pruner": "hyperband"}, "search.pruner is 'hyperband'"),
        ({"pruner": {"name": "median", "warmup": 3}}, "search.pruner median has the key 'warmup'"),
        ({"pruner": {"name": "median", "n_warmup_steps": -1}}, "search.pruner.n_warmup_steps is -1"),
        ({"seed": -1}, "search.seed is -1"),
        ({"objective": "accuracy"}, "search.objective is 'accuracy'"),
        ({"storage": ["a"]}, "search.storage is"),
    ],
)
def test_a_bad_search_is_one_sentence_with_its_key(search: Any, named: str) -> None:
    with pytest.raises(UserError, match=named) as error:
        read_search(GIVEN | search if isinstance(search, dict) else search, {"arm": {}})
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("keys", "named"),
    [
        ({"seeds": [1, 2]}, "seeds is"),
        ({"grid": {"model.lr": [1]}}, "search.space is 'model.lr'"),
        ({"grid": {"model.other": [1, 2]}}, "grid gives an option several values"),
        ({"success": {"below": 1}}, "success is"),
        ({"search": None, "arms": {"a": {"space": SPACE}}}, "arms.a has the key 'space', but there is no search"),
    ],
)
def test_what_does_not_go_with_a_search(tmp_path: Path, keys: dict[str, Any], named: str) -> None:
    (tmp_path / "base.yaml").write_text("{}")
    content = {"base": str(tmp_path / "base.yaml"), "search": GIVEN, **keys}
    (tmp_path / "s.yaml").write_text(yaml.safe_dump(content))
    with pytest.raises(UserError, match=named):
        read_study(str(tmp_path / "s.yaml"))


def test_both_ends_and_every_choice_are_probed() -> None:
    lr, size, init = read_search(GIVEN, {"arm": {}}).spaces["arm"]
    assert [lr.probe(0), lr.probe(1), size.probe(0), size.probe(1)] == [1e-4, 1.0, 1, 9]
    assert [init.probe(number) for number in range(4)] == ["good", "bad", ["a", 1], None]
    assert lr.middle == pytest.approx(0.01) and size.middle == 5 and init.middle == "good"
    own = read_search(GIVEN, {"a": {"space": {"model.size": {"int": [2, 3]}}}, "b": None}).spaces
    assert [one.high for one in own["a"]] == [1.0, 3, 0] and own["b"] == (lr, size, init)


# ---- the storage


def test_the_optimum_of_a_made_objective_is_found(tmp_path: Path) -> None:
    trials = opened(tmp_path / "s.db")
    assert work(trials) == list(range(40)) and trials.left == 0
    rows = trials.rows()
    best = min(rows, key=lambda row: row.value or math.inf)
    assert best.value is not None and best.value < 0.05, best
    assert best.values["model.init"] == "good" and best.values["model.size"] == 7
    assert 0.006 < best.values["model.lr"] < 0.017
    assert all(row.value == pytest.approx(made(row.values)) for row in rows)
    assert {type(row.values["model.size"]) for row in rows} == {int}
    importance = trials.importance()
    assert importance.keys() == SPACE.keys() and 0.5 < sum(importance.values()) < 1
    assert opened(tmp_path / "s.db").claim() is None, "finished"
    more = opened(tmp_path / "s.db", trials=41)
    assert work(more) == [40], "more trials may be asked for"


@pytest.mark.parametrize(
    ("x", "objective", "shares"),
    [
        ({"float": [1e-5, 1.0], "log": True}, lambda x, y: (x < 1e-3) + 0.1 * y, {"x": 1.0, "y": 0.0}),
        ({"int": [1, 256], "log": True}, lambda x, y: (x < 16) + 0.1 * y, {"x": 1.0, "y": 0.0}),
        # variances of 1/3 and 1/9, the second of which is of both together
        ({"float": [-1, 1]}, lambda x, y: x + x * y, {"x": 0.75, "y": 0.0}),
        ({"choice": [-1, 1]}, lambda x, y: x + y, {"x": 0.75, "y": 0.25}),
    ],
    ids=["log", "log of whole numbers", "together", "choice"],
)
def test_importance_is_the_share_of_the_variance_over_the_space(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, x: Any, objective: Callable[..., float], shares: dict[str, float]
) -> None:
    """Of trials on an even grid."""
    trials = opened(tmp_path / "s.db", space={"x": x, "y": {"float": [-1, 1]}})
    even = np.linspace(-0.9, 0.9, 10)
    first, _ = trials.space
    low, high = (math.log(first.low), math.log(first.high)) if first.log else (first.low, first.high)
    numbers = [low + (high - low) * (1 + place) / 2 for place in even]
    numbers = [math.exp(one) for one in numbers] if first.log else numbers
    drawn = first.choices or [round(one) if first.kind == "int" else one for one in numbers]
    grid = [{"x": one, "y": float(other)} for one in drawn for other in even]
    rows = [Row(number, "complete", each, float(objective(*each.values())), (), "") for number, each in enumerate(grid)]
    monkeypatch.setattr(trials, "rows", lambda: rows)
    assert trials.importance() == pytest.approx(shares, abs=0.1)


def test_a_search_that_was_killed_goes_on_as_if_it_had_not_been(tmp_path: Path) -> None:
    whole = opened(tmp_path / "whole.db", trials=14)
    work(whole)
    killed = opened(tmp_path / "s.db", trials=14)
    assert work(killed, stop_before=11) == list(range(11)) and killed.left == 3
    killed.storage.close()  # the kernel lets go of its claims
    again = opened(tmp_path / "s.db", trials=14)
    claimed = again.claim()
    assert claimed is not None and (claimed.number, claimed.again, claimed.reported) == (11, True, 1)
    again.complete(11, made(claimed.values))
    assert work(again) == [12, 13]
    assert again.rows() == whole.rows(), "the same trials, none twice"
    assert whole.rows() != opened(tmp_path / "other.db", seed=4).rows()


def test_a_child_that_outlives_its_process_keeps_its_trial(tmp_path: Path) -> None:
    killed = opened(tmp_path / "s.db", trials=3)
    assert killed.claim() is not None
    killed.storage.close()
    again = opened(tmp_path / "s.db", trials=3)
    found = again.claim(is_run=lambda number: number == 0)
    assert found is not None and found.number == 1


def test_what_failed_is_replaced_by_the_next_command_and_never_counted(tmp_path: Path) -> None:
    first = opened(tmp_path / "s.db", trials=3)
    for number in range(3):
        found = first.claim()
        assert found is not None and found.number == number
        first.fail(number, "no luck") if number == 1 else first.complete(number, 1.0)
    assert first.claim() is None, "not by the same command, which might go on for ever"
    assert [row.state for row in first.rows()] == ["complete", "failed", "complete"] and first.left == 1
    second = opened(tmp_path / "s.db", trials=3)
    assert work(second) == [3] and second.left == 0
    assert [row.reason for row in second.rows()] == ["", "no luck", "", ""]


def test_the_median_pruner_sees_every_validation(tmp_path: Path) -> None:
    """After trials whose second validation gave 1 and 3, one that gives 2.5 is above their median of 2."""
    trials = opened(tmp_path / "s.db", trials=4, pruner={"name": "median", "n_startup_trials": 2, "n_warmup_steps": 1})
    for value in (1.0, 3.0):
        found = trials.claim()
        assert found is not None
        assert not trials.report(found.number, 0, 9.0) and not trials.report(found.number, 1, value)
        trials.complete(found.number, value)
    for value, stops in ((2.5, True), (1.5, False)):
        found = trials.claim()
        assert found is not None and not trials.report(found.number, 0, 9.0), "warming up"
        assert trials.report(found.number, 1, value) is stops
        trials.prune(found.number, "pruned")
    assert [row.state for row in trials.rows()] == ["complete", "complete", "pruned", "pruned"] and trials.left == 0
    assert trials.rows()[2].curve == (9.0, 2.5)


def test_a_trial_that_another_ends_while_it_is_looked_at_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other, ours = opened(tmp_path / "s.db", trials=3), opened(tmp_path / "s.db", trials=3)
    theirs = other.claim()
    assert theirs is not None
    take = ours.storage.claims.take

    def late(trial: int) -> bool:
        if theirs.number in other._mine:
            other.complete(theirs.number, 1.0)
        return take(trial)

    monkeypatch.setattr(ours.storage.claims, "take", late)
    found = ours.claim()
    assert found is not None and found.number != theirs.number and not found.again
    ours.complete(found.number, 2.0)
    assert [row.value for row in ours.rows()] == [1.0, 2.0]


WORKER = """
import os, sys, time
from pathlib import Path
from tests.lit_rnn.commands.test_search import made, opened
trials = opened(Path("s.db"), trials=12)
while (found := trials.claim()) is not None:
    if sys.argv[1] == "dies" and found.number >= 2:
        os._exit(9)
    time.sleep(0.05)
    trials.complete(found.number, made(found.values))
    print(found.number, found.again, flush=True)
"""


def test_processes_share_a_storage_without_a_duplicate_and_one_may_die(tmp_path: Path) -> None:
    root = str(Path(__file__).parents[3])
    started = [
        subprocess.Popen(
            [sys.executable, "-c", WORKER, what],
            cwd=tmp_path,
            env={"PYTHONPATH": root},
            stdout=subprocess.PIPE,
            text=True,
        )
        for what in ("dies", "lives")
    ]
    done = [line for process in started for line in process.communicate(timeout=300)[0].splitlines()]
    assert [process.returncode for process in started] == [9, 0]
    trials = opened(tmp_path / "s.db", trials=12)
    while (found := trials.claim()) is not None:  # what it had, if the other had not taken it up
        trials.complete(found.number, made(found.values))
        done.append(f"{found.number} {found.again}")
    assert sorted(int(line.split()[0]) for line in done) == list(range(12)), "each once"
    assert sum(line.endswith("True") for line in done) == 1, "the trial of the one that died"
    rows = trials.rows()
    assert len({str(row.values) for row in rows}) == 12, "nobody drew what another had"
    assert all(row.value == made(row.values) for row in rows)


# ---- what is trusted


def test_nothing_in_a_storage_is_unpickled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bytes that would write a file when unpickled stand wherever Optuna keeps something of its own."""

    class Attack:
        def __reduce__(self) -> Any:
            return Path.touch, (tmp_path / "owned",)

    work(opened(tmp_path / "s.db", trials=12))
    bad = pickle.dumps(Attack()).hex()
    with contextlib.closing(sqlite3.connect(tmp_path / "s.db")) as connection, connection:
        for table in ("study_system_attributes", "trial_system_attributes"):
            owner = table.split("_")[0]
            for number, key in enumerate(("cma:optimizer", "cma:0", "tpe:relative_params")):
                row = (100 + number, 1, key, json.dumps(bad))
                connection.execute(f"INSERT INTO {table} ({owner}_system_attribute_id, {owner}_id, key, value_json) "
                                   "VALUES (?, ?, ?, ?)", row)  # fmt: skip

    def refuse(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("unpickled")

    for name in ("loads", "load", "Unpickler"):
        monkeypatch.setattr(pickle, name, refuse)
    assert work(opened(tmp_path / "s.db", trials=14)) == [12, 13]
    assert not (tmp_path / "owned").exists()


def test_values_come_from_the_study_file_and_nothing_else(tmp_path: Path) -> None:
    trials = opened(tmp_path / "s.db", trials=3)
    assert trials.claim() is not None
    trials.storage.close()
    with contextlib.closing(sqlite3.connect(tmp_path / "s.db")) as connection, connection:
        connection.execute("UPDATE trial_params SET param_value = 50 WHERE param_name = 'model.size'")
    with pytest.raises(UserError, match=r"trial 0 of arm has model\.size 50") as error:
        opened(tmp_path / "s.db", trials=3)
    assert "search.storage" in str(error.value)
    foreign = {"name": "CategoricalDistribution", "attributes": {"choices": ["os.system", "b"]}}
    with contextlib.closing(sqlite3.connect(tmp_path / "s.db")) as connection, connection:
        connection.execute("UPDATE trial_params SET param_value = 5 WHERE param_name = 'model.size'")
        connection.execute(
            "UPDATE trial_params SET param_value = 0, distribution_json = ? WHERE param_name = 'model.init'",
            (json.dumps(foreign),),
        )
    with pytest.raises(UserError, match=r"model\.init 'os\.system'"):
        opened(tmp_path / "s.db", trials=3)


def test_storages_that_cannot_be_used(tmp_path: Path) -> None:
    (tmp_path / "text.db").write_text("no database")
    with pytest.raises(UserError, match=r"text.db is no SQLite file"):
        opened(tmp_path / "text.db")
    (tmp_path / "torn.db").write_bytes(b"SQLite format 3\0" + b"\1" * 200)
    with pytest.raises(UserError, match=r"torn.db cannot be used .* search \(file is not a database\):"):
        opened(tmp_path / "torn.db")
    with contextlib.closing(sqlite3.connect(tmp_path / "foreign.db")) as connection, connection:
        connection.execute("CREATE TABLE studies (a INTEGER)")
    with pytest.raises(UserError, match=r"foreign.db cannot be used"):
        opened(tmp_path / "foreign.db")
    (tmp_path / "link.db").symlink_to(tmp_path / "elsewhere.db")
    with pytest.raises(UserError, match="symbolic link"):
        opened(tmp_path / "link.db")
    opened(tmp_path / "s.db")
    with pytest.raises(UserError, match=r"s\.db holds trials of arm by another space"):
        Trials(Storage(tmp_path / "s.db"), "arm", read_search(GIVEN, {"arm": {}}), PLAN | {"space": "t"}, False)


def test_a_search_goes_on_with_another_copy_and_other_comments(tmp_path: Path) -> None:
    """What the base configs say counts, not where they lie nor how they are written."""

    def plan(place: str, text: str, value: str = "1") -> Trials:
        given = {"options": ["-c", place, "--a", value], "base configs": [text]}
        return Trials(Storage(tmp_path / "s.db"), "arm", read_search(GIVEN, {"arm": {}}), given, False)

    plan("/one/a.yaml", "b: {c: 1}\n")
    plan("/two/a.yaml", "# so\nb:\n  c: 1.0\n")
    with pytest.raises(UserError, match="by another base configs"):
        plan("/one/a.yaml", "b: {c: 2}\n")
    with pytest.raises(UserError, match="by another options"):
        plan("/one/a.yaml", "b: {c: 1}\n", "2")


# ---- the command

RUN = """
import json, pathlib, sys, time
folder, lr = pathlib.Path(sys.argv[1]), float(sys.argv[2])
folder.mkdir(exist_ok=True)
if lr > 0.5:
    print("lit_rnn: The loss is nan at step 3", file=sys.stderr)
    sys.exit(1)
if 0.2 < lr < 0.21:
    sys.exit(2)
rows = "".join(f"{step},{lr + 1 / (step + 1)}\\n" for step in range(3))
(folder / "metrics.csv").write_text("step,val/loss\\n" + rows)
(folder / "config.yaml").write_text(json.dumps({"model": {"init_args": {"lr": lr}}}))
(folder / "fit.json").write_text(json.dumps({"seconds": 1}))
"""


@pytest.fixture
def commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """``study`` on a search whose trials are a script of a few lines: `fit` itself is tested elsewhere."""
    monkeypatch.chdir(tmp_path)
    Path("base.yaml").write_text(
        yaml.safe_dump({"model": {"class_path": "GRU"}, "data": {"class_path": "CopyMemory"}, "trainer": {}})
    )

    def line(run: Any, folder: Path, threads: int) -> list[str]:
        assert run.arguments()[-2:] == ["--seed_everything", "5"]
        return [sys.executable, "-c", RUN, str(folder / run.name), str(dict(run.setting.values)["model.lr"])]

    monkeypatch.setattr(local, "command", line)
    monkeypatch.setattr(searching, "budget", lambda runs: f"{len(runs)} runs")
    monkeypatch.setattr("lit_rnn.commands.study.work.estimate", lambda *args: (61.0, "others"))

    def study(*options: str, **search: Any) -> None:
        space = {"model.lr": {"choice": search.pop("rates")}}
        content = {"base": "base.yaml", "seeds": [5], "search": {"space": space, "sampler": "random", **search}}
        Path("s.yaml").write_text(yaml.safe_dump(content))
        command.run("study", ["s.yaml", "--processes", "2", *options], lambda *args: ({}, 0))

    return study


def test_a_study_searches_reports_and_says_when_it_is_finished(
    commands: Callable[..., None], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rates to choose from: one that diverges, which counts, and one that breaks, which does not."""
    drawn = checked(monkeypatch)
    search = {"rates": [0.1, 0.2, 0.205, 0.4, 0.9], "trials": 8}
    with pytest.raises(FailedError, match=r"the same command replaces them: s-trial=0\d\d\d-seed=5"):
        commands(**search)
    out = capsys.readouterr().out
    assert (
        "8 trials in runs/s/search.db: 0 finished, 8 to go, 2 side by side\nto go: 8 runs at most\nabout 0:01:01" in out
    )
    assert "diverged" in out and "failed (status 2), see runs/s/s-trial=00" in out
    for _ in range(9):  # each replaces what failed, by a new draw
        try:
            commands(**search)
        except FailedError:
            continue
        break
    found = json.loads(Path("runs/s/search.json").read_text())
    arm = found["arms"]["s"]
    assert arm["trials"]["complete"] + arm["trials"]["pruned"] == 8 and arm["trials"]["running"] == 0
    assert arm["trials"]["failed"] >= 1 and arm["direction"] == "minimize"
    for row in found["trials"]:
        rate = row["model.lr"]
        state = {0.9: "pruned", 0.205: "failed"}.get(rate, "complete")
        assert row["state"] == state and row["reason"].startswith({"pruned": "diverged"}.get(state, ""))
        if state == "complete":
            assert row["val/loss"] == pytest.approx(rate + 1 / 3) and row["validations"] == 3
            assert (Path("runs/s") / row["run"] / "fit.json").is_file()
    assert arm["best"]["val/loss"] == min(row["val/loss"] for row in found["trials"] if row["val/loss"])
    with Path("runs/s/search.csv").open(newline="") as file:
        assert [int(row["trial"]) for row in csv.DictReader(file)] == list(range(len(found["trials"])))
    capsys.readouterr()
    commands(**search)
    out = capsys.readouterr().out
    assert "8 finished, 0 to go" in out and "The search is finished: nothing is left to run." in out
    assert drawn() >= 4
    with pytest.raises(UserError, match="another space"):
        commands(**search | {"rates": [0.1, 0.3]})


def test_what_is_refused_before_anything_is_written(
    commands: Callable[..., None], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    search = {"rates": [0.1, 0.2], "trials": 2}
    commands("--dry_run", **search)
    assert "s: 2 trials by random, pruner none: lr one of 0.1, 0.2; such as\n" in capsys.readouterr().out
    for options in (["--only", "0"], ["--export", "slurm"]):
        with pytest.raises(UserError, match=f"{options[0]} is"):
            commands(*options, **search)
    with pytest.raises(UserError, match="no folder nowhere"):
        commands(**search, storage="nowhere/s.db")
    monkeypatch.setattr(searching.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install 'lit_rnn\[search\]'"):
        commands(**search)
    assert not Path("runs").exists()


def test_the_run_of_a_trial_whose_process_was_killed_is_told_or_left_alone(commands: Callable[..., None]) -> None:
    """Trial 0 is still trained by a child in its folder, trial 1 has finished meanwhile."""
    search = {"rates": [0.1, 0.2], "trials": 3}
    commands(**search | {"trials": 1})
    with contextlib.closing(sqlite3.connect("runs/s/search.db")) as connection, connection:
        connection.execute("UPDATE trials SET state = 'RUNNING', datetime_complete = NULL")
        connection.execute("DELETE FROM trial_values")
    before = Path("runs/s/s-trial=0000-seed=5/fit.json").stat().st_mtime_ns
    commands(**search)
    rows = json.loads(Path("runs/s/search.json").read_text())["trials"]
    assert [row["state"] for row in rows] == ["complete"] * 3
    assert Path("runs/s/s-trial=0000-seed=5/fit.json").stat().st_mtime_ns == before, "not run again"


def test_a_new_storage_takes_no_run_of_other_values_for_its_own(commands: Callable[..., None]) -> None:
    """As where the old one was removed: trial 0 has the folder of the other search's trial 0, which has finished."""
    commands(rates=[0.1], trials=1)
    Path("runs/s/search.db").unlink()
    with pytest.raises(UserError, match=r"s-trial=0000-seed=5 is a finished run with other .*lr was 0\.1, and is 0\.4"):
        commands(rates=[0.4], trials=1)
    Path("runs/s/search.db").unlink()
    commands(rates=[0.1], trials=1)
    assert [row["model.lr"] for row in json.loads(Path("runs/s/search.json").read_text())["trials"]] == [0.1]


def test_a_folder_in_use_is_left_alone(tmp_path: Path) -> None:
    from lit_rnn.runs.lock import in_use

    assert not in_use(tmp_path)
    script = (
        f"import sys\nfrom pathlib import Path\nfrom lit_rnn.runs.lock import Lock\nLock(Path({str(tmp_path)!r}))\n"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", script + "print(1, flush=True)\nsys.stdin.read()"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert child.stdout is not None and child.stdout.readline() == b"1\n"
    assert in_use(tmp_path)
    child.kill()
    child.communicate()
    assert not in_use(tmp_path)
    Lock(tmp_path).release()


# ---- tables and pictures


def test_a_search_without_a_complete_trial_has_failed() -> None:
    """Exit status 1: its file is sound."""
    with pytest.raises(FailedError, match="no trial has come to its end"):
        searching._report(read_study("studies/quickstart.yaml"), [], Path("runs/s"))


def found(arm: str, values: list[float | None], higher: bool = False, importance: Any = None) -> Found:
    rows = [
        Row(number, "complete" if value is not None else "pruned", {"m.lr": 0.1}, value, (), "")
        for number, value in enumerate(values)
    ]
    return Found(arm, Objective("val/loss", higher), str, tuple(rows), importance or {})


def test_best_so_far_by_hand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    low, high = found("low", [3.0, None, 5.0, 2.0, 2.0]), found("high", [3.0, None, 5.0, 2.0], higher=True)
    assert low.history == [(0, 3.0, 3.0), (2, 5.0, 3.0), (3, 2.0, 2.0), (4, 2.0, 2.0)]
    assert high.history == [(0, 3.0, 3.0), (2, 5.0, 5.0), (3, 2.0, 5.0)]
    assert (low.best and low.best.number, high.best and high.best.number) == (3, 2), "the earliest of equal ones"
    assert low.counts == {"complete": 4, "pruned": 1, "failed": 0, "running": 0}
    arms = [found("an arm", [3.0, 1.0], importance={"m.lr": 0.75, "m.a_long_name_of_a_key": 0.25}), found("b", [None])]
    best, importance = page.tables(arms)
    assert best.cells == [["an arm", "lr=0.1", "1", "1", "2", "0", "0", "0"], ["b", "", "", "", "0", "1", "0", "0"]]
    assert importance.cells == [["an arm", "m.lr", "0.75"], ["an arm", "m.a_long_name_of_a_key", "0.25"]]
    few, same = "no importance for b: it takes 4 complete trials, and there are 0", found("c", [1.0] * 4)
    assert page.notes([*arms, same]) == [few, "no importance for c: all complete trials have the same val/loss"]
    drawn = checked(monkeypatch)
    assert [path.name for path in pictures.draw(arms, tmp_path)] == ["search_history.png", "search_importance.png"]
    (tmp_path / "search_importance.png").touch()
    assert [path.name for path in pictures.draw(arms[1:], tmp_path)] == ["search_history.png"]
    assert not (tmp_path / "search_importance.png").exists(), "it was of another state"
    assert drawn() == 3


def test_keys_that_end_alike_are_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    values = {"model.init_args.a.lr": 0.1, "model.init_args.b.lr": 0.2, "model.init_args.size": 3}
    row = Row(0, "complete", values, 1.0, (), "")
    one = Found("arm", Objective("val/loss", False), str, (row,), dict.fromkeys(values, 0.3))
    assert page.tables([one])[0].cells[0][1] == "model.a.lr=0.1, model.b.lr=0.2, size=3"
    shown: list[Any] = []
    monkeypatch.setattr(style, "save", lambda figure, path: shown.append(figure))
    pictures.draw([one], tmp_path)
    labels = [text.get_text() for text in shown[1].axes[0].get_yticklabels()]
    assert labels == ["model.a.lr", "model.b.lr", "size"]


def test_arms_of_several_tasks_name_their_own_metric(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    error, accuracy = found("adding", [3.0, 1.0]), found("copying", [0.5, 0.75], higher=True)
    arms = [error, replace(accuracy, objective=Objective("val/accuracy", True))]
    assert page.tables(arms)[0].cells[1][3] == "0.75 val/accuracy" and page.tables(arms)[0].header[3] == "best"
    shown: list[Any] = []
    monkeypatch.setattr(style, "save", lambda figure, path: shown.append(figure))
    pictures.draw(arms, tmp_path)
    (axes,) = shown[0].axes
    assert (axes.get_ylabel(), axes.get_yscale()) == ("best val/loss or val/accuracy", "linear")
    assert [line.get_label() for line in axes.lines if line.get_label() != "_"] == [
        "adding: val/loss",
        "copying: val/accuracy",
    ]
