"""One line starts a run, goes on with it, or says that it is done; one process at a time; checkpoints to trust."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import yaml
from jsonargparse import Namespace
from pytorch_lightning.callbacks import ModelCheckpoint

from lit_rnn.callbacks.checkpoints import _follow
from lit_rnn.commands.compare.subject import read_run
from lit_rnn.commands.fit.subject import _has_ended
from lit_rnn.models import ExpRNN
from lit_rnn.runs.folder import Claim, proposed
from lit_rnn.runs.lock import Lock
from tests.lit_rnn.conftest import tree
from tests.lit_rnn.runs import kills

pytestmark = [
    pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty"),
    pytest.mark.usefixtures("_no_pictures"),
]


class Dies(BaseException):
    """What no code of ours catches."""


@pytest.fixture
def die_at(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Let training end at a step without a word."""

    def at(step: int) -> None:
        def on_train_batch_start(self: ExpRNN, *_: Any) -> None:
            if self.optimizer_steps == step - 1:
                raise Dies

        monkeypatch.setattr(ExpRNN, "on_train_batch_start", on_train_batch_start, raising=False)

    return at


@pytest.mark.filterwarnings("ignore:The dirpath has changed")
def test_the_best_is_kept_where_a_run_folder_was_moved_or_copied(tmp_path: Path) -> None:
    """Else a worse checkpoint would take its place; of another run, or where its file is not there, none is known."""

    def watching(run: str) -> ModelCheckpoint:
        place = tmp_path / run / "checkpoints"
        return ModelCheckpoint(place, filename="best", monitor="val/accuracy", mode="max")

    def resumed(run: str, start: str) -> ModelCheckpoint:
        before, now = watching("was"), watching(run)
        path = f"{before.dirpath}/best.ckpt"
        before.best_model_path = before.kth_best_model_path = path
        before.best_k_models, before.best_model_score = {path: torch.tensor(0.75)}, torch.tensor(0.75)
        trainer = SimpleNamespace(default_root_dir=tmp_path / run, ckpt_path=tmp_path / start, callbacks=[now])
        kept = {"callbacks": {before.state_key: before.state_dict()}}
        _follow(trainer, kept)  # type: ignore[arg-type]
        now.load_state_dict(kept["callbacks"][now.state_key])
        return now

    assert resumed("moved", "moved/checkpoints/last.ckpt").best_model_score is None, "its file is not there"
    best = tmp_path / "moved" / "checkpoints" / "best.ckpt"
    best.parent.mkdir(parents=True)
    best.touch()
    found = resumed("moved", "moved/checkpoints/last.ckpt")
    assert found.best_model_score == 0.75 and found.best_k_models == {str(best): 0.75}
    assert found.best_model_path == found.kth_best_model_path == str(best)
    assert resumed("moved", "was/checkpoints/last.ckpt").best_model_score is None, "another run's"
    assert resumed("was", "was/checkpoints/last.ckpt").best_model_score == 0.75


# ---- --resume auto


def test_starts_goes_on_and_is_done(cli: Any, config: Any, die_at: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    line = ("fit", "-c", config(), "--run_dir", "r", "--resume", "auto")
    assert cli("fit", "-c", config(), "--run_dir", "w").status == 0
    for step in (3, 7):  # before the first checkpoint, then inside the second epoch
        with monkeypatch.context():
            die_at(step)
            with pytest.raises(Dies):
                cli(*line)
    monkeypatch.setattr(ExpRNN, "on_train_batch_start", lambda *_: None)
    assert cli(*line).status == 0
    assert not kills.differences(kills.kept(Path("w")), kills.kept(Path("r")))
    before = {path: path.stat().st_mtime_ns for path in Path("r").rglob("*") if path.is_file()}
    done = cli(*line)
    assert done.status == 0 and done.err == "" and "The run in r is finished" in done.out
    assert "max_epochs, max_steps or max_time" in done.out
    other = cli(*line, "--model.init_args.hidden_size", 7)
    assert other.status == 2 and "hidden_size is 7, but the checkpoint was made with" in other.err
    assert {path: path.stat().st_mtime_ns for path in Path("r").rglob("*") if path.is_file()} == before
    assert sorted(path.name for path in Path("r").glob("config*")) == ["config.yaml"]
    Path("r/checkpoints/last.ckpt").unlink()
    assert "The run in r is finished" in cli(*line).out


def test_more_is_asked_of_a_finished_run(cli: Any, config: Any, die_at: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """And a kill on the way leaves it unfinished: fit.json of the shorter run does not speak for the longer one."""
    assert cli("fit", "-c", config(), "--run_dir", "w", "--trainer.max_epochs", 3).status == 0
    assert cli("fit", "-c", config(), "--run_dir", "r").status == 0
    longer = ("fit", "--run_dir", "r", "--resume", "auto", "--trainer.max_epochs", 3)
    die_at(10)
    with pytest.raises(Dies):
        cli(*longer)
    assert not Path("r/fit.json").exists()
    monkeypatch.setattr(ExpRNN, "on_train_batch_start", lambda *_: None)
    assert cli(*longer).status == 0
    assert Path("r/metrics.csv").read_bytes() == Path("w/metrics.csv").read_bytes()
    assert "finished" in cli(*longer).out and "finished" in cli("fit", "--run_dir", "r", "--resume", "auto").out
    assert "finished" in cli(*longer[:-1], 2).out, "less is there too"


@pytest.mark.parametrize(
    ("was", "asked", "ended"),
    [
        ("00:00:00:15", "00:00:00:15", True),
        ("00:00:00:15", "00:00:00:30", False),
        ("00:00:00:15", None, False),  # taken off
        (None, None, True),
        (None, "00:00:00:30", False),
    ],
)
def test_another_time_limit_asks_for_more(tmp_path: Path, was: str | None, asked: str | None, ended: bool) -> None:
    limits = {"max_epochs": 2, "max_steps": -1}
    (tmp_path / "fit.json").write_text('{"steps": 4}')
    (tmp_path / "config.yaml").write_text(yaml.safe_dump({"trainer": {**limits, "max_time": was}}))
    assert _has_ended(tmp_path, Namespace(**limits, max_time=asked)) == ended


def test_the_time_of_before_counts(cli: Any, config: Any) -> None:
    trainer = {"max_epochs": 1, "limit_train_batches": 1, "max_time": {"minutes": 5}}
    assert cli("fit", "-c", config(trainer=trainer), "--run_dir", "r").status == 0
    before = tree(Path("r"))
    limits = ("--trainer.max_epochs", 2, "--trainer.max_time", '{"milliseconds": 1}')
    done = cli("fit", "--run_dir", "r", "--ckpt_path", "last", *limits)
    assert done.status == 0 and "Raise trainer.max_time, which counts" in done.out
    assert tree(Path("r")) == before


def test_resume_is_refused_where_it_says_nothing(refused: Any, config: Any) -> None:
    auto = ("--resume", "auto")
    assert "--run_dir" in refused("fit", "-c", config(), *auto)
    assert "ckpt_path" in refused("fit", "-c", config(), "--run_dir", "r", "--ckpt_path", "last", *auto)
    assert "nothing to go on" in refused(
        "fit", "-c", config(), "--run_dir", "r", "--trainer.enable_checkpointing", "false", *auto
    )
    assert "test trains nothing" in refused("test", "-c", config(), "--ckpt_path", "x.ckpt", "--run_dir", "r", *auto)
    assert "resume" in refused("fit", "-c", config(), "--run_dir", "r", "--resume", "always")


def test_one_sentence_where_a_run_died_before_its_first_checkpoint(cli: Any, config: Any, die_at: Any) -> None:
    """It used to be two, each of which sent to the other."""
    die_at(2)
    with pytest.raises(Dies):
        cli("fit", "-c", config(), "--run_dir", "r")
    for way in (("-c", config()), ("--ckpt_path", "last"), ("-c", config(), "--ckpt_path", "last")):
        done = cli("fit", "--run_dir", "r", *way)
        assert done.status == 2 and "--resume auto" in done.err and len(done.err.splitlines()) == 1


def test_what_is_not_given_is_the_runs(cli: Any, config: Any, refused: Any) -> None:
    data = {"init_args": {"delay": 4}}
    assert cli("fit", "-c", config(data=data), "--run_dir", "r", "--trainer.max_steps", 3).status == 0
    more = ("--data", "CopyMemory", "--data.init_args.val_samples", 16, "--trainer.max_steps", -1)
    assert cli("fit", "--run_dir", "r", "--ckpt_path", "last", *more).status == 0
    written = Path("r/config-2.yaml").read_text()
    assert all(text in written for text in ("delay: 4", "val_samples: 16", "hidden_size: 8", "max_epochs: 2"))
    assert "delay" in refused("fit", "--run_dir", "r", "--ckpt_path", "last", "--data.init_args.delay", 7)


# ---- the last two


def test_a_damaged_last_falls_back_to_the_one_before(cli: Any, config: Any) -> None:
    assert cli("fit", "-c", config(), "--run_dir", "w", "--trainer.max_epochs", 4).status == 0
    every = {"callbacks": [{"class_path": "LastCheckpoint", "init_args": {"every_n_steps": 3}}]}
    path = config(trainer={"max_epochs": 4, **every})
    assert cli("fit", "-c", path, "--run_dir", "r", "--trainer.max_steps", 7).status == 0
    steps = [
        torch.load(f"r/checkpoints/{name}.ckpt", weights_only=True)["global_step"] for name in ("previous", "last")
    ]
    assert steps == [6, 7], "every third step, and the end"
    last = Path("r/checkpoints/last.ckpt")
    last.write_bytes(last.read_bytes()[:-100])
    with pytest.warns(UserWarning, match=r"last\.ckpt is damaged; r/checkpoints/previous\.ckpt, saved before it"):
        assert cli("test", "--run_dir", "r", "--ckpt_path", "last").status == 0
    assert last.is_file(), "whoever only reads sets nothing aside"
    with pytest.warns(UserWarning, match=r"set aside as last\.ckpt\.damaged, and r/checkpoints/previous\.ckpt"):
        assert cli("fit", "--run_dir", "r", "--resume", "auto", "--trainer.max_steps", -1).status == 0
    a, b = kills.kept(Path("w")), kills.kept(Path("r"))
    assert Path("r/checkpoints/last.ckpt.damaged").is_file()
    assert set(kills.differences(a, b)) <= {"files"}


def test_a_test_of_before_is_none_of_what_was_trained_since(cli: Any, config: Any) -> None:
    assert cli("fit", "-c", config(), "--run_dir", "r", "--trainer.max_steps", 3).status == 0
    test = ("test", "--run_dir", "r", "--ckpt_path", "last")
    assert cli(*test).status == 0 and read_run(Path("r")).test is not None
    assert cli("fit", "--run_dir", "r", "--resume", "auto", "--trainer.max_steps", -1).status == 0
    assert "made after 3 steps of training" in read_run(Path("r")).astray
    assert cli(*test).status == 0 and read_run(Path("r")).test is not None


def test_two_damaged_ones_are_refused(cli: Any, config: Any, refused: Any) -> None:
    assert cli("fit", "-c", config(), "--run_dir", "r").status == 0
    for name in ("last", "previous"):
        Path(f"r/checkpoints/{name}.ckpt").write_bytes(b"PK no checkpoint")
    sentence = refused("fit", "--run_dir", "r", "--ckpt_path", "last", "--trainer.max_epochs", 3)
    assert "previous.ckpt is not a whole checkpoint" in sentence


@pytest.mark.parametrize("minutes", [1e-9, 1000.0])
def test_saved_every_few_minutes(cli: Any, config: Any, die_at: Any, minutes: float) -> None:
    callback = {"class_path": "LastCheckpoint", "init_args": {"every_n_minutes": minutes}}
    die_at(3)
    with pytest.raises(Dies):
        cli("fit", "-c", config(trainer={"callbacks": [callback]}), "--run_dir", "r")
    last = Path("r/checkpoints/last.ckpt")
    assert last.is_file() == (minutes < 1)
    assert minutes > 1 or torch.load(last, weights_only=True)["global_step"] == 2


@pytest.mark.parametrize("option", [{"every_n_steps": 0}, {"every_n_minutes": 0.0}, {"every_n_minutes": -1.0}])
def test_intervals_that_are_none(refused: Any, config: Any, option: dict[str, Any]) -> None:
    callback = {"class_path": "LastCheckpoint", "init_args": option}
    assert next(iter(option)) in refused("fit", "-c", config(trainer={"callbacks": [callback]}), "--run_dir", "r")


# ---- one process at a time

HOLD = "import sys, time; from pathlib import Path; from lit_rnn.runs.lock import Lock; l = Lock(Path(sys.argv[1])); \
print('held', flush=True); time.sleep(60)"


def hold(folder: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(folder)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "held\n"
    return process


def test_a_second_command_in_a_folder_is_refused(cli: Any, config: Any, refused: Any, tmp_path: Path) -> None:
    assert cli("fit", "-c", config(), "--run_dir", "r", "--trainer.max_steps", 3).status == 0
    process = hold(tmp_path / "r")
    try:
        for way in (("--resume", "auto"), ("--ckpt_path", "last")):
            sentence = refused("fit", "-c", config(), "--run_dir", "r", *way)
            assert f"r is in use by process {process.pid} on " in sentence
        (tmp_path / "new").mkdir()
        other = hold(tmp_path / "new")
        assert "in use" in refused("fit", "-c", config(), "--run_dir", "new")
        other.kill()
        other.communicate()
        assert cli("test", "--run_dir", "r", "--ckpt_path", "last").status == 0, "whoever reads need not wait"
    finally:
        process.kill()
        process.communicate()
    assert cli("fit", "--run_dir", "r", "--resume", "auto", "--trainer.max_steps", -1).status == 0
    assert not list(tmp_path.rglob("r/.lock"))


def test_the_kernel_lets_go_of_what_a_dead_process_held(tmp_path: Path) -> None:
    """Also while a worker that it forked lives on."""
    code = HOLD.replace("time.sleep(60)", "import os; os.fork() or time.sleep(20); os.kill(os.getpid(), 9)")
    process = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert process.wait(20) == -9
    Lock(tmp_path).release()
    assert process.stdout is not None
    process.stdout.close()


def test_a_file_system_without_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import errno
    import fcntl

    def lockf(*_: Any) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "lockf", lockf)
    with pytest.warns(UserWarning, match=r"has no locks \(No locks available\)"):
        Lock(tmp_path).release()


def _claim(folder: str, start: float, names: Any) -> None:
    os.chdir(folder)
    os.environ.pop("LIT_RNN_RUN_DIR", None)
    time.sleep(max(0.0, start - time.time()))
    names.put(str(Claim.fresh("x", trains=True).folder))


def test_no_two_runs_share_a_number(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    names, start = context.Queue(), time.time() + 0.3
    processes = [context.Process(target=_claim, args=(str(tmp_path), start, names)) for _ in range(16)]
    for process in processes:
        process.start()
    found = sorted(names.get(timeout=30) for _ in processes)
    for process in processes:
        process.join()
    assert found == sorted(f"runs/x-{number}" for number in range(1, 17))


def test_taking_back_leaves_other_runs_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where this command made the folder that all runs lie in."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("LIT_RNN_RUN_DIR", raising=False)
    first = Claim.fresh("x", trains=True)
    monkeypatch.delenv("LIT_RNN_RUN_DIR")
    second = Claim.fresh("x", trains=True)
    first.take_back()
    first.release()
    assert [path.name for path in Path("runs").iterdir()] == ["x-2"] and proposed("x") == Path("runs/x-3")
    Path("runs/x-²").mkdir()  # a digit, and no number
    assert proposed("x") == Path("runs/x-3")
    second.take_back()
    second.release()
    shutil.rmtree("runs")
