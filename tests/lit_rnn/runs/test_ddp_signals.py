"""Two processes, and a signal to one of them: both end, in bounded time, with one sentence and one checkpoint."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.forked import DDP, Forked, forked_ranks, start_ranks
from tests.lit_rnn.runs import kills

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
    return ("fit", "-c", "c.yaml", "--run_dir", "r")


# ---- started from outside, as torchrun does


@pytest.fixture
def two(tmp_path: Path, line: tuple[str, ...], _no_pictures: None) -> list[Forked]:
    return start_ranks(tmp_path, *line)


@pytest.mark.parametrize(
    ("signum", "ranks", "where"),
    [
        (signal.SIGTERM, [1], "training"),
        (signal.SIGINT, [0], "training"),
        (signal.SIGUSR1, [1], "validation"),
        (signal.SIGHUP, [0, 1, 1, 0], "training"),  # all are told, and told again
    ],
)
def test_a_signal_stops_both_at_one_step(
    two: list[Forked], tmp_path: Path, signum: signal.Signals, ranks: list[int], where: str
) -> None:
    until(lambda: len(lines(tmp_path / f"{where}{ranks[0]}")) >= 3)
    for rank in ranks:
        two[rank].send_signal(signum)
    assert [process.wait(BOUND) for process in two] == [128 + signum] * 2
    (sentence,) = two[0].said[1].splitlines()
    assert two[1].said[1] == ""
    step = re.match(rf"lit_rnn: Stopped by {signum.name} after step (\d+); go on with: python -m lit_rnn fit", sentence)
    assert step is not None, sentence
    assert [lines(tmp_path / f"training{one}")[-1].split()[0] for one in (0, 1)] == [step[1]] * 2
    checkpoint = torch.load(tmp_path / "r" / "checkpoints" / "last.ckpt", weights_only=True)
    assert checkpoint["global_step"] == int(step[1])


STOPS = '''
"""The second process is asked to stop in a validation, once."""
import os
import signal
from pathlib import Path
from pytorch_lightning import Callback


class Stops(Callback):
    def on_validation_batch_start(self, trainer, pl_module, batch, batch_idx, *_):
        asked = Path(trainer.default_root_dir, "asked")
        if (trainer.global_rank, trainer.global_step, batch_idx, asked.exists()) == (1, 2, 1, False):
            asked.touch()
            os.kill(os.getpid(), signal.SIGTERM)
'''


@pytest.mark.usefixtures("_no_pictures")
def test_stopped_in_a_validation_a_run_goes_on_as_if_it_had_not_been(tmp_path: Path, write_tiny: Any) -> None:
    (tmp_path / "stops.py").write_text(STOPS)
    write_tiny(tmp_path / "c.yaml", {"data": {"init_args": {"val_samples": 64}}})  # four batches on each
    line = ("fit", "-c", "c.yaml", "--resume", "auto", "--run_dir")
    assert forked_ranks(tmp_path, *line, "whole").returncode == 0
    stops = ("--trainer.callbacks+", "stops.Stops")
    done = forked_ranks(tmp_path, *line, "r", *stops)
    assert done.returncode == 128 + signal.SIGTERM and "Stopped by SIGTERM after step 2; go on" in done.stderr, done
    (tmp_path / "r" / "asked").unlink()
    assert forked_ranks(tmp_path, *line, "r").returncode == 0
    for name in ("config-2.yaml", "versions-2.json"):  # of the part without the callback
        (tmp_path / "r" / name).unlink(missing_ok=True)
    assert not kills.differences(kills.kept(tmp_path / "whole"), kills.kept(tmp_path / "r"))


def test_of_one_that_is_killed_the_other_says_that_it_is_lost(two: list[Forked], tmp_path: Path) -> None:
    until(lambda: len(lines(tmp_path / "training1")) >= 3)
    two[1].send_signal(signal.SIGKILL)
    assert [process.wait(BOUND) for process in two] == [1, -signal.SIGKILL]
    (sentence,) = two[0].said[1].splitlines()
    assert sentence.startswith("lit_rnn: The connection to another process of the run is lost; go on with: ")


def test_where_torchrun_is_killed_nobody_stays_behind(
    tmp_path: Path, line: tuple[str, ...], _no_pictures: None
) -> None:
    """It can end nobody; each sees for itself that its parent is gone, also where it waits for the other."""
    said = tmp_path / "said"
    torchrun = os.fork()
    if torchrun == 0:
        os.environ["TORCHELASTIC_RUN_ID"] = "some"  # as it tells those that it starts
        with said.open("w") as log:
            kept = start_ranks(tmp_path, *line, log=log)
            os._exit(int(not kept or signal.pause() is None))
    try:
        until(lambda: all(len(lines(tmp_path / f"training{rank}")) >= 3 for rank in (0, 1)))
    finally:
        os.kill(torchrun, signal.SIGKILL)
        os.waitpid(torchrun, 0)
    ranks = [int(lines(tmp_path / f"training{rank}")[0].split()[1]) for rank in (0, 1)]
    until(lambda: not any(map(alive, ranks)))
    told = [line for line in lines(said) if line.startswith("lit_rnn: ")]
    gone = f"lit_rnn: Process {torchrun}, which has started this one, is gone: process"
    assert told and all(sentence.startswith((gone, "lit_rnn: The connection to")) for sentence in told), told


# ---- started by Lightning


@pytest.fixture
def started(tmp_path: Path, line: tuple[str, ...]) -> Iterator[Forked]:
    process = Forked(tmp_path, (*line, *DDP))
    yield process
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


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
def test_nobody_stays_behind(started: Forked, tmp_path: Path, killed: str, moment: str) -> None:
    second = second_of(started.pid)
    if moment == "training":
        until(lambda: len(lines(tmp_path / "training1")) >= 3)
    os.kill(started.pid if killed == "first" else second, signal.SIGKILL)
    status = started.wait(BOUND)
    until(lambda: not alive(second))
    told = [line for line in started.said[1].splitlines() if line]
    if killed == "first":
        assert status == -signal.SIGKILL
        assert told == [f"lit_rnn: Process {started.pid}, which has started this one, is gone: process {second} ends."]
    else:
        assert status == 1
        (sentence,) = told
        assert sentence.startswith("lit_rnn: Process 1 of the run was killed by SIGKILL; g"), sentence


def test_a_signal_during_the_start_of_another(started: Forked, tmp_path: Path) -> None:
    second = second_of(started.pid)
    os.kill(second, signal.SIGTERM)
    assert started.wait(BOUND) == 128 + signal.SIGTERM
    until(lambda: not alive(second))
    assert started.said[1] == "lit_rnn: Stopped by SIGTERM; give the same command again.\n"
