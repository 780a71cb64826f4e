"""How a run may end before its time, and what a process does when it is asked to stop."""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import Any, Literal

from lit_rnn.files import WriteError, read_json, write_json
from lit_rnn.runs.launched import first_process, leave
from lit_rnn.runs.results import is_finished

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)
_AGAIN = "; give the same command again."


class FailedError(Exception):
    """What was asked for could run, and failed: exit status 1."""


class DivergedError(FailedError):
    """The loss became NaN or infinite."""


def diverged(folder: Path) -> Path:
    """Where a run that has diverged says so, until it trains again."""
    return folder / "diverged.json"


def is_diverged(folder: Path) -> bool:
    """Whether a run has ended so; one that was finished later has not."""
    return diverged(folder).is_file() and not is_finished(folder)


def how_diverged(folder: Path) -> str:
    """The first part of what a run that has diverged said: its loss, and where.

    Raises:
        UserError: if its file is damaged.
    """
    return str(read_json(diverged(folder), ("said",))["said"]).partition(";")[0]


def note_divergence(folder: Path, error: DivergedError) -> None:
    """Write it down; a disk that takes nothing must not hide how the run has ended."""
    with contextlib.suppress(WriteError):
        write_json(diverged(folder), {"said": str(error)})


class LostProcess(FailedError):  # noqa: N818  # what it says is enough
    """Another process of the run has ended before its time."""


class AllDone(Exception):  # noqa: N818  # not an error
    """What a resume asks for is there already.

    Args:
        run_dir: Of the run, which is finished.
        limit: What ended it, where that is known.
    """

    def __init__(
        self, run_dir: Path, limit: str = "trainer.max_epochs, max_steps or max_time, whichever ended it,"
    ) -> None:
        super().__init__(f"The run in {run_dir} is finished: nothing is left to do. Raise {limit} to go on.")


class Stopped(BaseException):  # a BaseException: nobody who catches errors may keep it
    """A signal asked the process to stop.

    Args:
        signum: The signal.
        how: The rest of the sentence.
    """

    def __init__(self, signum: int, how: str) -> None:
        super().__init__(f"Stopped by {signal.Signals(signum).name}{how}")
        self.signum = signum


def how_to_go_on(run_dir: Path, trust: Sequence[str] = ()) -> str:
    """The end of a sentence about a run that can be taken up; ``trust`` names the modules of its own classes."""
    words = "".join(f" --trust {module}" for module in trust)
    return f"; go on with: python -m lit_rnn fit --run_dir {shlex.quote(str(run_dir))} --ckpt_path last{words}"


class Stopping:
    """What this process does at SIGINT, SIGTERM, SIGHUP and SIGUSR1, those left alone that were ignored when it began.

    - ``raises`` `Stopped`, so that what was begun is undone: by default.
    - ``exits`` at once, with a sentence: while modules are imported, where an exception would leave half of one.
    - ``notes`` the first in `signum`, for training to save and stop; a second SIGINT raises.
    """

    def __init__(self) -> None:
        self._handlers: dict[int, Any] = {}
        self._reset()

    def _reset(self) -> None:
        self.signum: int | None = None
        self.how = self.go_on = _AGAIN
        self._mode: Literal["raises", "exits", "notes"] = "raises"
        self._patient: tuple[int, ...] = ()  # noted alone, whatever the mode

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Take the signals over until the end of the block; not in a thread, where Python cannot."""
        if threading.current_thread() is not threading.main_thread() or self._handlers:
            yield
            return
        self._reset()
        self._process = os.getpid()
        self._handlers = {
            signum: handler
            for signum in SIGNALS
            if (handler := signal.getsignal(signum)) not in (signal.SIG_IGN, None)  # as nohup sets it
        }
        self._take_over()
        try:
            yield
        finally:
            for signum, handler in self._handlers.items():
                signal.signal(signum, handler)
            self._handlers = {}

    def _take_over(self) -> None:
        for signum in self._handlers:
            signal.signal(signum, self._hear)

    @contextlib.contextmanager
    def exiting(self) -> Iterator[None]:
        """Exit at once in the block."""
        self._mode = "exits"
        yield
        self._mode = "raises"

    def note(self, go_on: str) -> None:
        """From now on note the first signal; ``go_on`` ends the sentences of whatever else stops this process."""
        self._mode, self.how, self.go_on = "notes", f" at once{go_on}", go_on
        self._take_over()  # Lightning has put its own in the place of some

    def leave(self, *signals: int) -> None:
        """Note these alone, whatever comes: somebody else acts on them."""
        self._patient = signals

    def stop_noting(self, how: str) -> None:
        """From now on raise.

        Raises:
            Stopped: if there was a signal since.
        """
        self._mode, self.how = "raises", how
        if self.signum is not None:
            raise Stopped(self.signum, how)

    def _hear(self, signum: int, frame: FrameType | None) -> None:
        if os.getpid() != self._process:
            return  # a forked worker, which ends with its main process
        first = self.signum is None
        self.signum = signum if first else self.signum
        if signum in self._patient or (self._mode == "notes" and (first or signum != signal.SIGINT)):
            return
        if self._mode == "exits":
            if not first_process():
                os._exit(128 + signum)
            leave(str(Stopped(signum, self.how)), 128 + signum)
        if first or signum == signal.SIGINT:  # others have to wait until what was begun is undone
            raise Stopped(signum, self.how)


stopping = Stopping()
"""Of this process."""
