"""The runs of a study on this machine: side by side, with pinned threads, going on where they were stopped."""

from __future__ import annotations

import errno
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from lit_rnn.class_paths import own_module
from lit_rnn.commands.study.subject import Run
from lit_rnn.files import read_yaml
from lit_rnn.runs.endings import SIGNALS, FailedError, is_diverged, stopping
from lit_rnn.runs.folder import kept_fingerprint
from lit_rnn.runs.launched import LAUNCHER
from lit_rnn.runs.options import walk
from lit_rnn.runs.results import astray, is_finished, read_result

_DIVERGED = "lit_rnn: The loss is"  # how `DivergedError` begins


def command(run: Run, folder: Path, threads: int) -> list[str]:
    """The command line that starts a run, or goes on with it; or that tests a checkpoint of it."""
    if run.command == "test":
        place = ["--run_dir", str(folder / run.name), "--ckpt_path", run.checkpoint, "--threads", str(threads)]
        trusted = [part for module in _own_modules(run) for part in ("--trust", module)]
        return [sys.executable, "-m", "lit_rnn", "test", *place, *trusted]
    place = ["--run_dir", str(folder / run.name), "--threads", str(threads), "--resume", "auto"]
    return [sys.executable, "-m", "lit_rnn", "fit", *run.arguments(), *place]


def _own_modules(run: Run) -> list[str]:
    """The user's own modules whose classes the study's files name: a test reads the run folder's config, for whose
    sake none is imported."""
    from lit_rnn.runs.config import base_of  # here: torch and Lightning take seconds

    given = [read_yaml(Path(config), "config") for config in run.setting.configs] + [dict(run.setting.values)]
    found = [pair for one in given for pair in walk(one, "")]
    named = [value for key, value in found if key.endswith("class_path") or base_of(key) is not None]
    modules = [own_module(name) for name in named if isinstance(name, str)]
    return list(dict.fromkeys(module for module in modules if module is not None))


def is_done(run: Run, folder: Path) -> bool:
    """Whether nothing of a run is left to do; a test of another checkpoint is none of this one."""
    place = folder / run.name
    if run.command == "fit":
        return is_finished(place)
    test = _own_test(place)
    if test is None or "checkpoint" in test:
        return test is not None and test["checkpoint"] == f"{run.checkpoint}.ckpt"
    return run.checkpoint != "last" or test["steps"] == read_result(place)["steps"]  # before it told


def _own_test(place: Path) -> dict[str, Any] | None:
    """The numbers of a run's test; None without one of what was trained, as where other data were given by hand."""
    if not is_finished(place) or not is_finished(place, "test"):
        return None
    test = read_result(place, "test")
    return None if astray(read_result(place), test, kept_fingerprint(place)) else test


def log(folder: Path, run: Run) -> Path:
    """Where a run's output goes."""
    return folder / f"{run.name}.log"


def has_diverged(folder: Path, run: Run) -> bool:
    """Whether a run's folder says so, or, of a run of before it did, the last line of its output."""
    if is_diverged(folder / run.name):
        return True
    path = log(folder, run)
    lines = _end(path).decode(errors="replace").split("\n") if path.is_file() else []
    said = any(line.startswith(_DIVERGED) for line in [line for line in lines if line.strip()][-1:])
    return said and (folder / run.name).is_dir() and not is_done(Run(run.setting, run.seed), folder)


def _end(path: Path) -> bytes:
    """The end of a file, which may be too large for memory."""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - 100_000))
        return file.read()


def how_ended(status: int, folder: Path, run: Run) -> str:
    """In a line about a run that has failed."""
    how = f"killed by {signal.Signals(-status).name}" if status < 0 else f"failed (status {status})"
    memory = ", as where memory runs out" if status == -signal.SIGKILL else ""
    return f"{how}{memory}, see {log(folder, run)}"


def pinned(threads: int) -> dict[str, str]:
    """The environment of a run that keeps to its threads, and ends with this process, however that ends."""
    count, ours = str(threads), {LAUNCHER: str(os.getpid())}
    return {**os.environ, "OMP_NUM_THREADS": count, "MKL_NUM_THREADS": count, "OPENBLAS_NUM_THREADS": count, **ours}


class Pool:
    """Keeps ``processes`` runs going until none is left; a run that breaks does not stop the others.

    Args:
        tell: Told of every run that has ended: its exit status, and its seconds.
        look: Shown every run that is going, again and again.
    """

    def __init__(
        self,
        folder: Path,
        processes: int,
        threads: int,
        tell: Callable[[Run, int, float], None],
        look: Callable[[Run, subprocess.Popen[bytes]], None] | None = None,
    ) -> None:
        self.folder, self.processes, self.threads, self.tell, self.look = folder, processes, threads, tell, look
        self.going: dict[Run, tuple[subprocess.Popen[bytes], float]] = {}

    def run_all(self, runs: Iterable[Run | None]) -> dict[Run, int]:
        """Exit status by run; the next is asked for when there is room for it, and None is none until one has ended.

        A signal that asks to stop is passed on, the runs save, and they are waited for.
        """
        stopping.how = "; the runs have saved: give the same command to go on."
        waiting, ended = iter(runs), dict[Run, int]()
        asks = True  # what to run next may have to be read off every run's files: not ten times a second
        try:
            while True:
                while asks and len(self.going) < self.processes and (run := next(waiting, None)) is not None:
                    self._start(run)
                if not self.going:
                    return ended
                time.sleep(0.1)
                if self.look is not None:
                    for run, (process, _) in self.going.items():
                        self.look(run, process)
                new = self._collect()
                ended, asks = ended | new, bool(new)
        except BaseException:  # whatever it is, no run stays behind
            stopping.leave(*SIGNALS)
            for process, _ in self.going.values():
                process.terminate()  # not SIGINT, which runs of a shell's background job ignore
            for process, _ in self.going.values():
                process.wait()
            raise

    def _start(self, run: Run) -> None:
        line = command(run, self.folder, self.threads)
        with log(self.folder, run).open("ab") as file:
            file.write(f"{shlex.join(line)}\n".encode())  # before it says anything, how it ended before is no more so
            file.flush()
            try:
                process = subprocess.Popen(
                    line,
                    stdin=subprocess.DEVNULL,
                    stdout=file,
                    stderr=subprocess.STDOUT,
                    env=pinned(self.threads),
                    start_new_session=True,  # Ctrl-C reaches it once, through us
                )
            except OSError as error:
                if error.errno not in (errno.EAGAIN, errno.ENOMEM):
                    raise
                how = "take fewer --processes, or raise the limit (ulimit -u); the same command goes on"
                raise FailedError(f"{run.told}: no process can be started ({error.strerror}): {how}.") from error
        self.going[run] = (process, time.monotonic())

    def _collect(self) -> dict[Run, int]:
        ended: dict[Run, int] = {}
        for run, (process, started) in list(self.going.items()):
            status = process.poll()
            if status is not None:
                del self.going[run]
                ended[run] = status
                self.tell(run, status, time.monotonic() - started)
        return ended
