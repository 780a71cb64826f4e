"""The runs of a study on this machine: side by side, with pinned threads, going on where they were stopped."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from datamodules.errors import UserError
from lit_rnn.commands.study.subject import Run
from lit_rnn.files import read_json, write_json
from lit_rnn.runs.endings import SIGNALS, stopping
from lit_rnn.runs.results import is_finished

_DIVERGED = "lit_rnn: The loss is"  # how `DivergedError` begins


def command(run: Run, folder: Path, threads: int) -> list[str]:
    """The command line that starts a run, or goes on with it; or that tests its best checkpoint."""
    if run.command == "test":
        place = ["--run_dir", str(folder / run.name), "--ckpt_path", "best", "--threads", str(threads)]
        return [sys.executable, "-m", "lit_rnn", "test", *place]
    place = ["--run_dir", str(folder / run.name), "--threads", str(threads), "--resume", "auto"]
    return [sys.executable, "-m", "lit_rnn", "fit", *run.arguments(), *place]


def is_done(run: Run, folder: Path) -> bool:
    """Whether nothing of a run is left to do."""
    return is_finished(folder / run.name, run.command)


def log(folder: Path, run: Run) -> Path:
    """Where a run's output goes."""
    return folder / f"{run.name}.log"


def has_diverged(folder: Path, run: Run) -> bool:
    """Whether the last line of a run's output says so."""
    path = log(folder, run)
    lines = path.read_bytes()[-100_000:].decode(errors="replace").split("\n") if path.is_file() else []
    return any(line.startswith(_DIVERGED) for line in [line for line in lines if line.strip()][-1:])


def claim(runs: Sequence[Run], folder: Path) -> None:
    """Write down what the runs are, and refuse a folder whose finished runs were something else.

    What the base configs say counts, not where they lie: a study goes on with another copy of lit_rnn.

    Raises:
        UserError: naming the first run whose options or base configs have changed since.
    """
    path = folder / "plan.json"
    plan = read_json(path) if path.is_file() else {}
    for run in runs:
        now = {"arguments": run.arguments(), "configs": [Path(base).read_text() for base in run.setting.bases]}
        if is_finished(folder / run.name) and _options(plan.get(run.name, {})) != _options(now):
            raise UserError(
                f"{folder / run.name} is a finished run with other options or base configs than the study has now: "
                "name another folder with --study_dir."
            )
        plan[run.name] = now
    folder.mkdir(parents=True, exist_ok=True)
    write_json(path, plan)


def _options(planned: Mapping[str, Any]) -> tuple[list[str], list[str] | None]:
    """A run's options and the texts of its base configs."""
    arguments = planned.get("arguments", [])
    bases = [place for place, argument in enumerate(arguments) if argument == "-c"]
    options = [argument for place, argument in enumerate(arguments) if place not in bases and place - 1 not in bases]
    return options, planned.get("configs")


def pinned(threads: int) -> dict[str, str]:
    """The environment of a run that keeps to its threads."""
    count = str(threads)
    return {**os.environ, "OMP_NUM_THREADS": count, "MKL_NUM_THREADS": count, "OPENBLAS_NUM_THREADS": count}


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
        waiting, ended = iter(runs), dict[Run, int]()
        try:
            while True:
                while len(self.going) < self.processes and (run := next(waiting, None)) is not None:
                    self._start(run)
                if not self.going:
                    return ended
                time.sleep(0.1)
                if self.look is not None:
                    for run, (process, _) in self.going.items():
                        self.look(run, process)
                ended |= self._collect()
        except BaseException:  # whatever it is, no run stays behind
            stopping.leave(*SIGNALS)
            for process, _ in self.going.values():
                process.terminate()  # not SIGINT, which runs of a shell's background job ignore
            for process, _ in self.going.values():
                process.wait()
            raise

    def _start(self, run: Run) -> None:
        with log(self.folder, run).open("ab") as file:
            process = subprocess.Popen(
                command(run, self.folder, self.threads),
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                env=pinned(self.threads),
                start_new_session=True,  # Ctrl-C reaches it once, through us
            )
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
