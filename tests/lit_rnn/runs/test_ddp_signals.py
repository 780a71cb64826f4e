"""Two processes, and a signal to one of them: both end, in bounded time, with one sentence and one checkpoint."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from lit_rnn.__main__ import main
from lit_rnn.commands.fit import command  # noqa: F401  # with all that it imports, before the first fork

SLOW = '''
"""Says what happens, and takes its time."""
import os
import time
from pytorch_lightning import Callback


class Slow(Callback):
    def note(self, what, trainer):
        if not trainer.sanity_checking:
            with open(f"{what}{trainer.global_rank}", "a") as file:
                file.write(f"{trainer.global_step} {os.getpid()}\\n")
            time.sleep(0.02)

    def on_train_batch_end(self, trainer, *_):
        self.note("training", trainer)

    def on_validation_batch_end(self, trainer, *_):
        self.note("validation", trainer)
'''
DDP = ("--trainer.strategy", "ddp", "--trainer.devices", "2", "--trainer.accelerator", "cpu")
BOUND = 60.0  # seconds, of which a busy machine may need some


def until(holds: Callable[[], Any]) -> Any:
    end = time.monotonic() + BOUND
    while time.monotonic() < end:
        if found := holds():
            return found
        time.sleep(0.02)
    raise AssertionError("in vain")


def lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.is_file() else []


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.fixture
def line(tmp_path: Path, write_tiny: Any) -> tuple[str, ...]:
    (tmp_path / "slow.py").write_text(SLOW)
    data = {"class_path": "CopyMemory", "init_args": {"train_samples": 4096, "val_samples": 4096, "delay": 2}}
    trainer = {"callbacks": [{"class_path": "slow.Slow"}], "val_check_interval": 16, "max_epochs": 100}
    data["init_args"]["batch_size"] = 8  # type: ignore[index]
    write_tiny(tmp_path / "c.yaml", {"data": data, "trainer": trainer})
    return ("fit", "-c", "c.yaml", "--run_dir", "r", *DDP)


# ---- started from outside, as torchrun does; forked, for a start from nothing takes ten seconds


@pytest.fixture
def two(tmp_path: Path, line: tuple[str, ...], _no_pictures: None) -> Iterator[list[int]]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    processes = []
    for rank in (0, 1):
        process = os.fork()
        if process == 0:
            _be_rank(rank, port, tmp_path, line)
        processes.append(process)
    yield processes
    for process in processes:
        if alive(process):
            os.kill(process, signal.SIGKILL)
            os.waitpid(process, 0)


def _be_rank(rank: int, port: int, folder: Path, line: tuple[str, ...]) -> None:
    status = 99
    try:
        os.chdir(folder)
        sys.path.insert(0, str(folder))
        for number, name in ((1, "out"), (2, "err")):
            os.dup2(os.open(f"{name}{rank}", os.O_WRONLY | os.O_CREAT, 0o644), number)
        sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w")
        os.environ |= {"LOCAL_RANK": str(rank), "RANK": str(rank), "WORLD_SIZE": "2", "NODE_RANK": "0"}
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        status = main(list(line))
    except SystemExit as left:
        status = int(str(left.code))
    finally:
        sys.stderr.flush()
        os._exit(status)


def ended(process: int) -> int:
    return os.waitstatus_to_exitcode(until(lambda: (done := os.waitpid(process, os.WNOHANG))[0] and done)[1])


@pytest.mark.parametrize(
    ("signum", "rank", "where"),
    [(signal.SIGTERM, 1, "training"), (signal.SIGINT, 0, "training"), (signal.SIGUSR1, 1, "validation")],
)
def test_a_signal_to_one_stops_both_at_one_step(
    two: list[int], tmp_path: Path, signum: signal.Signals, rank: int, where: str
) -> None:
    until(lambda: len(lines(tmp_path / f"{where}{rank}")) >= 3)
    os.kill(two[rank], signum)
    assert [ended(process) for process in two] == [128 + signum] * 2
    (sentence,) = lines(tmp_path / "err0")
    assert lines(tmp_path / "err1") == []
    step = re.match(rf"lit_rnn: Stopped by {signum.name} after step (\d+); go on with: python -m lit_rnn fit", sentence)
    assert step is not None, sentence
    assert [lines(tmp_path / f"training{one}")[-1].split()[0] for one in (0, 1)] == [step[1]] * 2
    checkpoint = torch.load(tmp_path / "r" / "checkpoints" / "last.ckpt", weights_only=True)
    assert checkpoint["global_step"] == int(step[1])


def test_of_one_that_is_killed_the_other_says_that_it_is_lost(two: list[int], tmp_path: Path) -> None:
    until(lambda: len(lines(tmp_path / "training1")) >= 3)
    os.kill(two[1], signal.SIGKILL)
    assert [ended(process) for process in two] == [1, -signal.SIGKILL]
    (sentence,) = lines(tmp_path / "err0")
    assert sentence.startswith("lit_rnn: The connection to another process of the run is lost; go on with: ")


# ---- started by Lightning


@pytest.fixture
def started(tmp_path: Path, line: tuple[str, ...]) -> Iterator[subprocess.Popen[str]]:
    env = {key: value for key, value in os.environ.items() if not key.startswith(("PL_", "LIT_RNN", "MASTER_"))}
    here = str(Path(__file__).parents[3])
    env |= {"PYTHONPATH": os.pathsep.join([str(tmp_path), here]), "OMP_NUM_THREADS": "1"}
    call = [sys.executable, "-m", "lit_rnn", *line]
    with open(tmp_path / "out", "w") as out, open(tmp_path / "err", "w") as err:
        process = subprocess.Popen(call, cwd=tmp_path, env=env, stdout=out, stderr=err, start_new_session=True)
    yield process  # type: ignore[misc]
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def second_of(first: int) -> int:
    """The process that the first has started as the next rank."""

    def look() -> int | None:
        for child in Path(f"/proc/{first}/task/{first}/children").read_text().split():
            with contextlib.suppress(OSError):  # it may have ended meanwhile
                if b"LOCAL_RANK=1\0" in Path(f"/proc/{child}/environ").read_bytes():
                    return int(child)
        return None

    return int(until(look))


@pytest.mark.parametrize(("killed", "moment"), [("first", "start"), ("first", "training"), ("second", "start")])
def test_nobody_stays_behind(started: subprocess.Popen[str], tmp_path: Path, killed: str, moment: str) -> None:
    second = second_of(started.pid)
    if moment == "training":
        until(lambda: len(lines(tmp_path / "training1")) >= 3)
    os.kill(started.pid if killed == "first" else second, signal.SIGKILL)
    status = started.wait(BOUND)
    until(lambda: not alive(second))
    told = [line for line in lines(tmp_path / "err") if line]
    if killed == "first":
        assert status == -signal.SIGKILL
        assert told == [f"lit_rnn: Process {started.pid}, which has started this one, is gone: process {second} ends."]
    else:
        assert status == 1
        (sentence,) = told
        assert sentence.startswith("lit_rnn: Process 1 of the run was killed by SIGKILL; g"), sentence


def test_a_signal_during_the_start_of_another(started: subprocess.Popen[str], tmp_path: Path) -> None:
    second = second_of(started.pid)
    os.kill(second, signal.SIGTERM)
    assert started.wait(BOUND) == 128 + signal.SIGTERM
    until(lambda: not alive(second))
    assert lines(tmp_path / "err") == ["lit_rnn: Stopped by SIGTERM; give the same command again."]
