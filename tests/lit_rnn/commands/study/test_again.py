"""A study's folder that is taken up again: what its runs are, who works in it, how they have ended."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import signal
import subprocess
import sys
import unittest.mock
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from datamodules import UserError
from lit_rnn.commands.study import local, measure, page, plan, work
from lit_rnn.commands.study.best import Queue, ahead, best_setting, diverged, every, undecided
from lit_rnn.commands.study.subject import Run
from lit_rnn.runs.endings import FailedError
from lit_rnn.runs.lock import Lock
from tests.lit_rnn.commands.study.made import BASE, FOLDER, LR, Planned, Write, begin, diverge, finish, run_study

ROOT = Path(__file__).parents[4]


# ---- what the runs are


def test_how_a_base_config_is_written_is_no_change(planned: Planned) -> None:
    """Comments, order, flow style and 2.0e+0 for 2 say the same; old plans, which hold the text, too."""
    (run,) = planned().runs
    entry = plan.planned(run)
    more = "# more\ntrainer: {val_check_interval: 4, max_epochs: 2e0, accelerator: cpu, log_every_n_steps: 1}\n"
    Path("base.yaml").write_text(more + yaml.safe_dump({"model": BASE["model"], "data": BASE["data"]}))
    assert entry["configs"] != plan.planned(run)["configs"] and plan.difference(entry, run) is None
    others = {key: value for key, value in BASE["trainer"].items() if key != "max_epochs"}
    Path("base.yaml").write_text(yaml.safe_dump(BASE | {"trainer": others | {"max_epochs": 3}}))
    assert plan.difference(entry, run) == "trainer.max_epochs was 2 in base.yaml, and is 3"
    Path("base.yaml").write_text(yaml.safe_dump(BASE | {"trainer": others}))
    assert plan.difference(entry, run) == "trainer.max_epochs was 2 in base.yaml, and is not given"
    Path("base.yaml").write_text(yaml.safe_dump(BASE))
    (run,) = planned(grid={LR: [0.1]}).runs
    assert plan.difference(entry, run) == f"{LR} was not given, and is 0.1"
    (run,) = planned(base=["base.yaml", "base.yaml"]).runs
    assert plan.difference(entry, run) == "it has 2 base configs, and had 1"


def test_how_a_value_is_written_is_no_change(planned: Planned) -> None:
    """1e-3, which YAML reads as text, for 0.001: nothing would be trained twice; a text is the same only by letters."""
    old = planned(grid={LR: ["1e-3", "1e-2"]})
    plan.claim(old.runs, FOLDER)
    finish(old.runs[0])
    new = planned(grid={LR: [0.001, 0.01]})
    assert plan.claim(new.runs, FOLDER) == ["study-lr=1e-3-seed=1 is study-lr=0.001-seed=1 now"]
    assert local.is_done(new.runs[0], FOLDER)
    for was, now in (("a #1", "a #2"), ("", None), ("a: b: c", "a: b: d"), ([1, "1e-3"], [1, 0.01])):
        (one,), (other,) = (planned(grid={"data.init_args.path": [value]}).runs for value in (was, now))
        assert plan.difference(plan.planned(one), other) is not None


@pytest.mark.parametrize("key", ["limit_train_batches", "val_check_interval"])
def test_one_batch_is_not_all_of_them(planned: Planned, key: str) -> None:
    """Python takes 1 for 1.0: runs of one batch would stand in the table as if they had all."""
    for given in ({"grid": {f"trainer.{key}": [1]}}, {}):
        Path("base.yaml").write_text(yaml.safe_dump(BASE | {"trainer": {key: 1}}))
        (one,) = planned(**given).runs
        entry = plan.planned(one)
        Path("base.yaml").write_text(yaml.safe_dump(BASE | {"trainer": {key: 1 if given else 1.0}}))
        (other,) = planned(**{name: {f"trainer.{key}": [1.0]} for name in given}).runs
        told = str(plan.difference(entry, other))
        assert told.startswith(f"trainer.{key} was 1") and told.endswith("and is 1.0")
        assert plan.same_options(entry["arguments"], plan.planned(other)["arguments"]) is not bool(given)
        assert plan.same_configs(entry["configs"], plan.planned(other)["configs"]) is bool(given)


def test_arms_that_run_one_after_another_are_of_one_study(study: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    """The folder holds nothing of the second arm when its turn comes."""
    monkeypatch.setattr(work, "report", lambda *_: None)
    name = study(arms={"a": {}, "b": {}})
    monkeypatch.setattr(work, "run_left", lambda some, *_, **__: [finish(run) for run in some.runs][len(some.runs) :])
    for arm in "ab":
        run_study(name, "--arms", arm, tried=False)
        assert Path(FOLDER, f"{arm}-seed=1").is_dir() and list(plan.read(FOLDER)) == ["a-seed=1", "b-seed=1"]


def test_a_config_that_changes_while_the_study_runs_ends_it(planned: Planned) -> None:
    """Every run reads it when it starts: later ones would be others, in the same table."""
    one = planned(seeds=[1, 2, 3], best={"test": True})
    begun = plan.texts(one.settings)
    runs = plan.unchanged(begun, [None, *one.runs, *one.following(one.settings[0])])
    assert [next(runs), next(runs)] == [None, one.runs[0]]
    Path("base.yaml").write_text("# a remark\n" + yaml.safe_dump(BASE))
    assert next(runs) == one.runs[1]
    Path("base.yaml").write_text(yaml.safe_dump(BASE | {"trainer": BASE["trainer"] | {"max_epochs": 3}}))
    with pytest.raises(UserError, match=r"base.yaml has changed since .* \(trainer.max_epochs was 2, and is 3\)"):
        next(runs)
    tests = one.following(one.settings[0])
    assert list(plan.unchanged(begun, tests)) == tests
    Path("base.yaml").unlink()
    with pytest.raises(UserError, match=r"base.yaml cannot be read .*: put it back"):
        plan.planned(one.runs[0])


def test_an_overlay_in_the_grid_is_part_of_the_plan(planned: Planned) -> None:
    """It may be edited between two runs, as a base config may; plans of before hold none."""
    Path("more.yaml").write_text("trainer: {max_epochs: 3}\n")
    (run,) = planned(grid={"config": ["more.yaml"]}).runs
    entry = plan.planned(run)
    Path("more.yaml").write_text("trainer: {max_epochs: 4}\n")
    assert plan.difference(entry, run) == "trainer.max_epochs was 3 in more.yaml, and is 4"
    assert plan.difference({**entry, "configs": entry["configs"][:1]}, run) is None


def test_a_shipped_class_is_the_same_by_its_short_name(planned: Planned) -> None:
    """And in a list, and on the command line; a class of torch's or geoopt's of that name is another."""

    def run_of(optimizer: str, callback: str = "Solved", grid: str = "Adam") -> Run:
        init = {"optimizer": {"class_path": optimizer}}
        base = {"model": {"init_args": init}, "trainer": {"callbacks": [{"class_path": callback}]}}
        Path("base.yaml").write_text(yaml.safe_dump(base))
        (run,) = planned(grid={"model.init_args.other.class_path": [grid]}).runs
        return run

    entry = plan.planned(run_of("RiemannianAdam"))
    full = run_of("lit_rnn.optim.RiemannianAdam", "lit_rnn.callbacks.Solved", "lit_rnn.optim.Adam")
    assert plan.difference(entry, full) is None
    for other in (run_of("geoopt.optim.RiemannianAdam"), run_of("RiemannianAdam", "mine.Solved")):
        assert plan.difference(entry, other) is not None


@pytest.mark.parametrize("done", [finish, begin, diverge])
def test_a_run_that_has_begun_keeps_its_options(planned: Planned, done: Callable[[Run], None]) -> None:
    """One that only began would go on with other options, and stand in the table as if it always had them."""
    old = planned(grid={"model.init_args.lam": [1.0]})
    plan.claim(old.runs, FOLDER)
    done(old.runs[0])
    told = (FOLDER / "plan.json").read_bytes()
    new = planned(grid={"model.init_args.lam": [2.0]})
    with pytest.raises(UserError, match=r"run with other options .*lam was 1.0, and is 2.0.*--study_dir") as error:
        plan.claim(new.runs, FOLDER)
    assert "\n" not in str(error.value) and (FOLDER / "plan.json").read_bytes() == told
    plan.claim(old.runs, FOLDER)


def test_a_run_that_no_plan_names_is_taken_at_its_configs_word(planned: Planned) -> None:
    """As `--only` leaves it, or a plan of an earlier version, or one that was removed."""
    (run,) = planned(grid={LR: [0.01]}).runs
    finish(run)
    config = {"seed_everything": 1, **BASE, "run_dir": "elsewhere"}
    init = {"hidden_size": 6, "optimizer": {"class_path": "torch.optim.RMSprop", "init_args": {"lr": 0.01}}}
    config["model"] = {"class_path": "lit_rnn.models.VanillaRNN", "init_args": init}
    (FOLDER / run.name / "config.yaml").write_text(yaml.safe_dump(config))
    plan.check([run], FOLDER, {})
    init["optimizer"]["init_args"]["lr"] = 0.02  # type: ignore[index]
    (FOLDER / run.name / "config.yaml").write_text(yaml.safe_dump(config))
    with pytest.raises(UserError, match=rf"{LR} was 0.02, and is 0.01"):
        plan.check([run], FOLDER, {})
    (short,) = planned(grid={"model.optimizer.lr": [0.01]}).runs
    with pytest.raises(UserError, match=rf"{LR} was 0.02, and is 0.01"):
        plan.check([short], FOLDER, {})


@pytest.mark.parametrize(
    ("given", "differs"),
    [
        ({"model": "LSTM"}, None),
        ({"model.class_path": "lit_rnn.models.LSTM", "model.optimizer": {"class_path": "RMSprop"}}, None),
        ({"model": "GRU"}, "model.class_path was 'LSTM', and is 'GRU'"),
        ({"model": {"class_path": "GRU"}}, "model.class_path was 'LSTM', and is 'GRU'"),
        ({"model.optimizer": "SGD"}, "optimizer.class_path was 'RMSprop', and is 'SGD'"),
        ({"model.optimizer": "geoopt.optim.Adam"}, "optimizer.class_path was 'RMSprop', and is 'Adam'"),
        ({"model.lr_scheduler": "StepLR"}, "lr_scheduler was null, and is 'StepLR'"),
    ],
)
def test_a_run_of_another_class_is_another_run(planned: Planned, given: dict[str, Any], differs: str | None) -> None:
    """Also where no plan says so: its config names classes in full."""
    (run,) = planned(grid={key: [value] for key, value in given.items()}).runs
    finish(run)
    init = {"hidden_size": 6, "optimizer": {"class_path": "torch.optim.RMSprop"}, "lr_scheduler": None}
    config = {**BASE, "model": {"class_path": "lit_rnn.models.LSTM", "init_args": init}}
    Path("base.yaml").write_text(yaml.safe_dump({"trainer": BASE["trainer"]}))
    (FOLDER / run.name / "config.yaml").write_text(yaml.safe_dump(config))
    with pytest.raises(UserError, match=differs) if differs else contextlib.nullcontext():
        plan.check([run], FOLDER, {})


def test_a_run_that_went_on_by_hand_is_another_run(planned: Planned) -> None:
    """With 80 epochs it would stand among others of 2; the study's own resume writes another place alone."""
    (run,) = planned().runs
    plan.claim([run], FOLDER)
    finish(run)
    for name, epochs in (("config.yaml", 2), ("config-2.yaml", 2), ("config-3.yaml", 80)):
        config = BASE | {"trainer": BASE["trainer"] | {"max_epochs": epochs}, "run_dir": name}
        (FOLDER / run.name / name).write_text(yaml.safe_dump(config))
        with pytest.raises(UserError, match="max_epochs was 80, and is 2") if epochs > 2 else contextlib.nullcontext():
            plan.check([run], FOLDER, plan.read(FOLDER))


def test_a_run_keeps_its_place_where_its_name_changes(planned: Planned) -> None:
    """A grid of one value does not stand in the name: with a second, or one less again, the runs are the same."""
    one = planned(grid={LR: [0.1]})
    plan.claim(one.runs, FOLDER)
    finish(one.runs[0], 0.25)
    local.log(FOLDER, one.runs[0]).write_text("done\n")
    two = planned(grid={LR: [0.1, 0.2]})
    assert plan.claim(two.runs, FOLDER) == ["study-seed=1 is study-lr=0.1-seed=1 now"]
    assert [row["loss"] for row in measure.results(two, FOLDER)] == [0.25]
    assert not (FOLDER / "study-seed=1").exists() and local.log(FOLDER, two.runs[0]).read_text() == "done\n"
    assert plan.read(FOLDER).keys() == {run.name for run in two.runs}
    plan.claim(planned(grid={LR: [0.1]}).runs, FOLDER)
    assert [row["loss"] for row in measure.results(one, FOLDER)] == [0.25]


def test_a_folder_with_another_study_is_refused(planned: Planned) -> None:
    """Two files of one name in different folders have the same default folder; the table of one would replace that
    of the other."""
    plan.claim(planned(arms={"a": {}, "b": {"grid": {LR: [0.1]}}}).runs, FOLDER)
    other = planned(arms={"c": {"grid": {LR: [0.2]}}})
    with pytest.raises(UserError, match=r"holds another study, with the runs a-seed=1 and others and none of this one"):
        plan.claim(other.runs, FOLDER)
    plan.claim(planned(arms={"b": {"grid": {LR: [0.1]}}, "c": {}}).runs, FOLDER)


def test_a_default_that_changed_between_runs_is_told(planned: Planned) -> None:
    """What the grid varies, seeds and places are no such thing, nor is an option that only the new version has."""
    one = planned(grid={"model.init_args.lam": [1.0, 2.0]}, seeds=[1, 2])
    for run, commit, lam, decay in zip(one.runs, "aabb", (1.0, 1.0, 2.0, 2.0), (0.0, 0.0, 0.0, 0.1), strict=True):
        finish(run)
        model = {
            "class_path": "lit_rnn.models.VanillaRNN",
            "init_args": {"lam": lam, "decay": decay, "checkpoint_every": decay},
        }
        model["init_args"] |= {"new": 1} if commit == "b" else {}  # type: ignore[operator]
        config = {
            "model": model,
            "data": {"init_args": {"seed": run.seed, "root": commit}},
            "trainer": {"logger": commit == "a", "accelerator": commit},
            "seed_everything": run.seed,
        }
        (FOLDER / run.name / "config.yaml").write_text(yaml.safe_dump(config))
        (FOLDER / run.name / "versions.json").write_text(json.dumps({"commit": commit}))
    assert plan.drifted(one.runs, FOLDER) == []
    short = planned(grid={"model.lam": [1.0, 2.0]}, seeds=[1, 2])
    assert plan.drifted(short.runs, FOLDER) == []
    (FOLDER / one.runs[2].name / "versions.json").write_text('{"commit": "a"}')
    (line,) = plan.drifted(one.runs, FOLDER)
    first, last = one.runs[0].name, one.runs[3].name
    assert line == f"study has runs of different model.init_args.decay: 0.0 (as {first}), 0.1 (as {last})"


def test_files_that_changed_between_runs_are_told(planned: Planned) -> None:
    """Their names are the same; where the grid varies the data, other files are what was asked for."""

    def told(grid: dict[str, Any]) -> list[str]:
        one = planned(grid=grid, seeds=[1, 2])
        for run in one.runs:
            finish(run)
            (FOLDER / run.name / "versions.json").write_text(json.dumps({"fingerprint": f"content {run.seed}"}))
        return plan.drifted(one.runs, FOLDER)

    (line,) = told({LR: [0.1]})
    assert line.startswith("study has runs of different files, by their fingerprint: 'content 1' (as study-seed=1), ")
    assert told({"data.init_args.path": ["a", "b"]}) == []


def test_code_of_the_users_own_that_changed_between_or_within_runs_is_told(planned: Planned) -> None:
    one = planned(seeds=[1, 2])
    for run in one.runs:
        finish(run)
        (FOLDER / run.name / "versions.json").write_text(json.dumps({"own_code": {"own": "a", "same": "c"}}))
    assert plan.drifted(one.runs, FOLDER) == []
    (FOLDER / "study-seed=2" / "versions-2.json").write_text(json.dumps({"own_code": {"own": "b", "same": "c"}}))
    line = "study has runs of different code in own, by its fingerprint: 'a' (as study-seed=1), 'b' (as study-seed=2)"
    assert plan.drifted(one.runs, FOLDER) == [line]


def test_a_damaged_plan_is_told(planned: Planned) -> None:
    (run,) = planned().runs
    FOLDER.mkdir(parents=True)
    for damaged in ('{"study-seed=1": []}', '{"study-seed=1": {"arguments": [1], "configs": []}}', "{"):
        (FOLDER / "plan.json").write_text(damaged)
        with pytest.raises(UserError, match=r"plan.json is damaged"):
            plan.claim([run], FOLDER)


def test_the_command_is_there_before_torch() -> None:
    """`study --help`, and a study file with a mistake, do not wait for it."""
    code = "import sys, lit_rnn.commands.study.command; print({'torch', 'numpy', 'pytorch_lightning'} & {*sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


# ---- who works in it


def said_by_another(call: Callable[[], object]) -> str:
    """The sentence with which a call is refused in a process of its own, as locks are a process's."""
    out, into = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            call()
        except UserError as error:
            os.write(into, str(error).encode())
        finally:
            os._exit(0)
    os.close(into)
    os.waitpid(child, 0)
    with os.fdopen(out, "rb") as file:
        return file.read().decode()


def test_one_command_at_a_time_works_at_a_study(planned: Planned) -> None:
    """A second one, or a task of an array that is under way, would run the same runs."""
    one = planned(seeds=[1, 2])

    def work_at_it() -> None:
        with work.alone(FOLDER):
            work.claim(one, FOLDER)

    with work.alone(FOLDER):
        assert re.match(rf"study_dir {FOLDER} is in use by process {os.getpid()} on ", said_by_another(work_at_it))
    assert said_by_another(work_at_it) == "" and not (FOLDER / ".lock").exists()
    place = FOLDER / one.runs[1].name
    place.mkdir()
    lock = Lock(place)
    assert said_by_another(work_at_it) == f"{place} is trained by another process: wait until that ends."
    lock.release()
    assert said_by_another(work_at_it) == ""


def test_a_run_that_is_trained_is_not_renamed(planned: Planned) -> None:
    """A task of an array that was submitted before the grid had a second value would lose its folder."""
    old = planned(grid={LR: [0.1]})
    plan.claim(old.runs, FOLDER)
    begin(old.runs[0])
    new, place = planned(grid={LR: [0.1, 0.2]}), FOLDER / old.runs[0].name
    lock = Lock(place)
    assert said_by_another(lambda: work.claim(new, FOLDER)).startswith(f"{place} is trained by another process")
    assert place.is_dir()
    lock.release()
    assert said_by_another(lambda: work.claim(new, FOLDER)) == "" and not place.exists()


def test_runs_end_with_the_planned() -> None:
    """However it is killed: the next command would find them at work."""
    assert local.pinned(2)["LIT_RNN_LAUNCHER"] == str(os.getpid())


# ---- how they have ended


def test_a_run_that_has_diverged_is_a_result(planned: Planned) -> None:
    """It is not run again, its setting is out, and it counts in the table, where it is no success."""
    one = planned(grid={LR: [0.1, 1.0]}, seeds=[1, 2], best={"seeds": [3], "test": True}, success={"below": 0.3})
    low, high = (one.runs[:2], one.runs[2:])
    for run in (*low, high[0]):
        finish(run, 0.5 if run in low else 0.25)
    diverge(high[1])
    assert diverged(one.runs, FOLDER) == {high[1]} and undecided(one, FOLDER) == []
    best = best_setting(one, "study", FOLDER, diverged(one.runs, FOLDER))
    assert best == low[0].setting
    assert [run.told for run in ahead(one, FOLDER)] == [
        "study-lr=0.1-seed=3",
        *(f"test of study-lr=0.1-seed={seed}" for seed in (1, 2, 3)),
    ]
    left = []
    queue = Queue(one, FOLDER)
    while (given := next(iter(queue.runs()), None)) is not None:
        left.append(given.told)
        if given.command == "fit":
            diverge(given)
        else:
            finish(given)
        queue.ended(given, diverged=given.command == "fit")
    assert left == ["study-lr=0.1-seed=3", "test of study-lr=0.1-seed=1", "test of study-lr=0.1-seed=2"]
    assert ahead(one, FOLDER) == [] and list(Queue(one, FOLDER).runs()) == []

    rows = measure.results(one, FOLDER)
    (row,) = (row for row in rows if row["run"] == high[1].name)
    assert row["diverged"] and row["loss"] is row["best_loss"] is row["value"] is None and not row["success"]
    found = {one["setting"]: one for one in measure.over_seeds(rows)}["study-lr=1.0"]
    assert (found["runs"], found["diverged"], found["successes"]) == (2, 1, 1)
    assert (found["loss_mean"], found["loss_number"]) == (0.25, 1)
    shown = page.table(rows, measure.over_seeds(rows)).markdown()
    assert "diverged" in shown and "1/2" in shown and "| 0.25 (1 of 2) |" in shown
    assert "diverged" not in page.table(rows[:2], measure.over_seeds(rows[:2])).markdown()
    finish(high[1])  # as by hand, from its checkpoint
    assert diverged(one.runs, FOLDER) == frozenset()


def test_a_run_that_was_begun_anew_has_not_diverged(planned: Planned, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its folder was removed to run it once more, and it was killed before it said anything."""
    (run,) = planned().runs
    (FOLDER / run.name).mkdir(parents=True)
    local.log(FOLDER, run).write_text("lit_rnn: The loss is nan at step 3.\n")
    assert local.has_diverged(FOLDER, run)
    monkeypatch.setattr(local, "command", lambda *_: ["false", "é"])
    local.Pool(FOLDER, 1, 1, lambda *_: None).run_all([run])
    assert not local.has_diverged(FOLDER, run)
    assert local.log(FOLDER, run).read_text().endswith("step 3.\nfalse 'é'\n")


def test_an_arm_of_which_all_have_diverged_has_nothing_ahead(planned: Planned) -> None:
    one = planned(grid={LR: [1.0]}, best={"seeds": [3], "test": True})
    diverge(one.runs[0])
    assert ahead(one, FOLDER) == [] and every(one, FOLDER) == one.runs and undecided(one, FOLDER) == ["study"]


def test_what_is_next_is_asked_for_again_only_once_a_run_has_ended(
    planned: Planned, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The answer may be in the files of every run, and a process may be free for hours."""
    first, last = planned(seeds=[1, 2]).runs
    monkeypatch.setattr(local, "command", lambda *_: [sys.executable, "-S", "-c", "import time; time.sleep(0.5)"])
    FOLDER.mkdir(parents=True)
    ended: list[Run] = []
    asked: list[Run | None] = []

    def runs() -> Iterator[Run | None]:
        for one in (first, None, None, None, last):
            asked.append(one if ended or one is first else None)
            yield asked[-1]

    pool = local.Pool(FOLDER, 2, 1, lambda run, *_: ended.append(run))
    assert pool.run_all(runs()) == {first: 0} == dict.fromkeys(ended, 0)
    assert asked == [first, None, None], "with the first, with it going, and once more when it had ended"


def test_a_machine_that_starts_no_process_is_told(planned: Planned, monkeypatch: pytest.MonkeyPatch) -> None:
    (run,) = planned().runs
    FOLDER.mkdir(parents=True)
    refusal = BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")
    monkeypatch.setattr(local.subprocess, "Popen", unittest.mock.Mock(side_effect=refusal))
    with pytest.raises(FailedError, match=r"study-seed=1: no process can be started \(Resource .*fewer --processes"):
        local.Pool(FOLDER, 1, 1, lambda *_: None).run_all([run])


def test_how_runs_failed_is_told(planned: Planned) -> None:
    one = planned(best={"seeds": [2], "test": True})
    run, test = one.runs[0], Run(one.settings[0], 1, "test")
    log = local.log(FOLDER, run)
    assert local.how_ended(2, FOLDER, run) == f"failed (status 2), see {log}"
    assert local.how_ended(-signal.SIGKILL, FOLDER, run) == f"killed by SIGKILL, as where memory runs out, see {log}"
    assert local.how_ended(-signal.SIGSEGV, FOLDER, run) == f"killed by SIGSEGV, see {log}"
    assert work.counted([run, test], every(one)) == "1 of 2 runs and 1 of 2 tests"
    assert work.counted([test], every(one)) == "1 of 2 tests"
