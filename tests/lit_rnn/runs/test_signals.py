"""Whatever asks a run to stop, and whenever: it saves where there is something to save, and says how to go on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from lit_rnn import callbacks
from lit_rnn.commands import quiet
from lit_rnn.models import ExpRNN
from lit_rnn.runs.endings import SIGNALS, Stopped, Stopping
from tests.forked import Forked
from tests.lit_rnn.runs import kills

pytestmark = pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty")

AUTO = ("--run_dir", "r", "--resume", "auto")


@pytest.fixture
def at(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Let the process get signals when a method is called; once, and behind so many optimizer steps."""

    def send(owner: type, name: str, *signals: int, behind: int = 0) -> None:
        left, before = [True], getattr(owner, name, None)

        def hook(self: Any, *given: Any, **named: Any) -> Any:
            if left and getattr(self, "optimizer_steps", behind) >= behind:
                left.clear()
                for signum in signals:
                    os.kill(os.getpid(), signum)
            return before(self, *given, **named) if before is not None else None

        monkeypatch.setattr(owner, name, hook, raising=False)

    return send


def one_sentence(done: Any, signum: int) -> str:
    (line,) = done.err.splitlines()
    assert done.status == 128 + signum, done
    assert line.startswith(f"lit_rnn: Stopped by {signal.Signals(signum).name}") and "Traceback" not in done.out
    return str(line)


@pytest.fixture
def whole(cli: Any, config: Any) -> dict[str, Any]:
    assert cli("fit", "-c", config(), "--run_dir", "w").status == 0
    return kills.kept(Path("w"))


@pytest.mark.parametrize("signum", SIGNALS)
@pytest.mark.usefixtures("_no_pictures")
def test_each_signal_in_each_place(cli: Any, config: Any, at: Any, monkeypatch: Any, whole: Any, signum: int) -> None:
    """One run, stopped in its set-up, in an epoch, in a validation; at its end it is the uninterrupted one."""
    line = ("fit", "-c", config(), *AUTO)
    with monkeypatch.context():
        at(ExpRNN, "configure_optimizers", signum)
        assert "same command again" in one_sentence(cli(*line), signum)
    assert not Path("r").exists(), "nothing was begun"
    at(ExpRNN, "on_train_batch_start", signum, behind=1)
    assert "after step 2; go on with: python -m lit_rnn fit --run_dir r" in one_sentence(cli(*line), signum)
    at(ExpRNN, "on_validation_batch_start", signum, behind=4)
    assert "after step 4; go on" in one_sentence(cli(*line), signum)
    assert torch.load("r/checkpoints/last.ckpt", weights_only=True)["global_step"] == 4
    assert cli(*line).status == 0
    assert not kills.differences(whole, kills.kept(Path("r")))


def test_in_the_pictures(cli: Any, config: Any, at: Any, whole: Any) -> None:
    """Training is over, its end is not: the same line finishes it."""
    line = ("fit", "-c", config(), *AUTO)
    at(callbacks.TaskPicture, "on_fit_end", signal.SIGTERM)
    assert "after the last step; go on" in one_sentence(cli(*line), signal.SIGTERM)
    assert not Path("r/fit.json").exists()
    assert cli(*line).status == 0
    assert not kills.differences(whole, kills.kept(Path("r")))


@pytest.mark.usefixtures("_no_pictures")
def test_twice(cli: Any, config: Any, at: Any) -> None:
    """A second Ctrl-C stops at once; what else comes while a step is finished and saved is one signal."""
    at(ExpRNN, "on_train_batch_start", signal.SIGTERM, signal.SIGTERM, signal.SIGHUP, behind=1)
    assert "after step 2" in one_sentence(cli("fit", "-c", config(), "--run_dir", "r"), signal.SIGTERM)
    at(ExpRNN, "on_train_batch_start", signal.SIGINT, signal.SIGINT, behind=5)
    assert "at once; go on" in one_sentence(cli("fit", *AUTO), signal.SIGINT)
    assert torch.load("r/checkpoints/last.ckpt", weights_only=True)["global_step"] == 4


def test_before_the_work(cli: Any, config: Any, monkeypatch: Any) -> None:
    """Between the imports and the command there is a moment, too."""
    monkeypatch.setattr(quiet, "quiet_warnings", lambda: os.kill(os.getpid(), signal.SIGTERM))
    assert "same command again" in one_sentence(cli("fit", "-c", config(), *AUTO), signal.SIGTERM)


@pytest.mark.usefixtures("_no_pictures")
def test_other_commands(cli: Any, config: Any, at: Any) -> None:
    assert cli("fit", "-c", config(), "--run_dir", "r").status == 0
    at(ExpRNN, "on_test_batch_start", signal.SIGHUP)
    one_sentence(cli("test", "--run_dir", "r", "--ckpt_path", "last"), signal.SIGHUP)
    assert not Path("r/test.json").exists()


def test_what_was_ignored_stays_ignored() -> None:
    """nohup, and the background jobs of a shell, begin a process so."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with Stopping().listening():
            os.kill(os.getpid(), signal.SIGHUP)
            with pytest.raises(Stopped):
                os.kill(os.getpid(), signal.SIGUSR1)
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


# ---- real processes


def start(*arguments: object) -> Forked:
    return Forked(Path.cwd(), arguments)


def ended(process: Forked | subprocess.Popen[str], signum: int) -> str:
    err = process.communicate(timeout=60)[1]
    assert process.returncode == 128 + signum and len(err.splitlines()) == 1, (process.returncode, err)
    return err


def test_during_the_imports(cli: Any, config: Any) -> None:
    """As soon as there is somebody to hear it: the first lines of the program are not yet torch's."""
    path = config()
    for number, signum in enumerate(SIGNALS):
        line = [sys.executable, "-m", "lit_rnn", "fit", "-c", path, "--run_dir", "r"]
        process = subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        deadline = time.monotonic() + 30
        while "torch" not in Path(f"/proc/{process.pid}/maps").read_text():  # its libraries are being loaded
            assert time.monotonic() < deadline and process.poll() is None
            time.sleep(0.01 * (number + 1))
        process.send_signal(signum)
        assert "same command again" in ended(process, signum)
        assert not Path("r").exists()


def test_all_processes_of_a_job_are_told(cli: Any, config: Any) -> None:
    """Slurm and a terminal send a signal to every process; the workers that prepare batches go on until the step is."""
    path = config(data={"init_args": {"num_workers": 2}}, trainer={"max_epochs": 4000})
    for signum in (signal.SIGTERM, signal.SIGINT):
        process = start("fit", "-c", path, *AUTO)
        last, deadline = Path("r/checkpoints/last.ckpt"), time.monotonic() + 60
        begun = last.stat().st_mtime_ns if last.is_file() else 0
        while not last.is_file() or last.stat().st_mtime_ns == begun:
            assert time.monotonic() < deadline and process.poll() is None, process.communicate()
            time.sleep(0.05)
        os.killpg(process.pid, signum)
        assert "go on with" in ended(process, signum)


def test_a_study_passes_it_on(cli: Any, config: Any) -> None:
    config("base.yaml", trainer={"max_epochs": 4000})
    Path("s.yaml").write_text("base: base.yaml\nseeds: [1]\n")
    process = start("study", "s.yaml", "--study_dir", "s", "--only", 0)
    last, deadline = Path("s/s-seed=1/checkpoints/last.ckpt"), time.monotonic() + 90
    while not last.is_file():
        assert time.monotonic() < deadline and process.poll() is None, process.communicate()
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    assert "the runs have saved" in ended(process, signal.SIGTERM)
    assert "Stopped by SIGTERM after step" in Path("s/s-seed=1.log").read_text()
