"""The command line in processes of its own, forked from this one: what takes seconds, the imports, is done once.

Where the start itself is looked at, or how many threads torch takes by itself (here it has one), start a real one.
"""

from __future__ import annotations

import importlib.util
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import traceback
import types
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from subprocess import CompletedProcess, TimeoutExpired
from typing import IO, Any, NoReturn

import torch

from lit_rnn.__main__ import main
from lit_rnn.commands.fit import command  # noqa: F401  # with all that it imports, before the first fork

ROOT = Path(__file__).parents[1]
DDP = ("--trainer.strategy", "ddp", "--trainer.devices", "2", "--trainer.accelerator", "cpu")
OURS = ("PL_", "LIT_RNN", "MASTER_")  # what this process, which may have run the command line, must not hand on


def backward_cannot_fork() -> bool:
    """Whether torch's backward has started threads in this process: it refuses to run in a fork of it.

    On the CPU it needs none, until fake tensors (of torch.compile, torch.export) have made torch believe in devices.
    """
    tasks = Path("/proc/self/task").glob("*/comm")
    return any(task.read_text().startswith("pt_autograd") for task in tasks)


def mend_threads() -> None:
    """In a fork, before it has threads: torch makes its pool anew when it is first asked for, and two that ask at once
    end the process ("Invalid thread pool!")."""
    torch.set_num_threads(torch.get_num_threads())


class Forked:
    """``python -m lit_rnn`` with these arguments; in a session of its own, and to be used as `subprocess.Popen`.

    Args:
        folder: Where it runs, and which modules it finds beside ours.
        variables: Of its environment, over those of this process.
        log: Where all that it says goes, instead of to `said`.
    """

    def __init__(
        self,
        folder: Path,
        arguments: Sequence[object],
        variables: Mapping[str, str] | None = None,
        log: IO[Any] | None = None,
    ) -> None:
        self.returncode: int | None = None
        self._owner = os.getpid()
        self._said = tempfile.TemporaryFile("w+"), tempfile.TemporaryFile("w+")  # noqa: SIM115  # until `__del__`
        anew = backward_cannot_fork()
        self.pid = os.fork()
        if self.pid == 0:
            said = (log, log) if log is not None else self._said
            self._run(folder, [str(argument) for argument in arguments], variables or {}, *said, anew)

    def _run(
        self, folder: Path, arguments: list[str], variables: Mapping[str, str], out: IO[Any], err: IO[Any], anew: bool
    ) -> NoReturn:
        status = 99
        try:
            os.setsid()
            os.chdir(folder)
            os.dup2(out.fileno(), 1)
            os.dup2(err.fileno(), 2)
            sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w")
            for name in [name for name in os.environ if name.startswith(OURS)]:
                del os.environ[name]
            os.environ |= {"PYTHONPATH": os.pathsep.join([str(folder), str(ROOT)]), **variables}
            if anew:
                os.execv(sys.executable, [sys.executable, "-m", "lit_rnn", *arguments])
            mend_threads()
            sys.path.insert(0, str(folder))
            sys.argv = ["lit_rnn", *arguments]  # these two tell Lightning how to start others of the run
            sys.modules["__main__"] = started = types.ModuleType("__main__")
            started.__spec__ = importlib.util.find_spec("lit_rnn.__main__")
            warnings.resetwarnings()  # as Python starts, and not as pytest has them
            for kind in (DeprecationWarning, PendingDeprecationWarning, ImportWarning, ResourceWarning):
                warnings.simplefilter("ignore", kind)
            status = main(arguments)
        except SystemExit as left:
            status = left.code if isinstance(left.code, int) else int(left.code is not None)
        except BaseException:  # a fork must not go on as its parent
            traceback.print_exc()
            status = 1
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)

    def __del__(self) -> None:
        """Nothing stays behind a test that has failed."""
        if os.getpid() == self._owner:
            if self.poll() is None:
                os.killpg(self.pid, signal.SIGKILL)
                self.wait()
            for file in self._said:
                file.close()

    def poll(self) -> int | None:
        if self.returncode is None:
            process, status = os.waitpid(self.pid, os.WNOHANG)
            self.returncode = os.waitstatus_to_exitcode(status) if process else None
        return self.returncode

    def wait(self, timeout: float = 90) -> int:
        end = time.monotonic() + timeout
        while (status := self.poll()) is None:
            if time.monotonic() > end:
                raise TimeoutExpired("lit_rnn", timeout)
            time.sleep(0.01)
        return status

    def send_signal(self, signum: int) -> None:
        os.kill(self.pid, signum)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def communicate(self, timeout: float = 90) -> tuple[str, str]:
        """What it has said, to the output and to the error output, once it has ended; else it is killed."""
        try:
            self.wait(timeout)
        except TimeoutExpired:
            os.killpg(self.pid, signal.SIGKILL)
            self.wait()
            raise AssertionError(f"it hangs: {self.said}") from None
        return self.said

    @property
    def said(self) -> tuple[str, str]:
        out, err = (os.pread(file.fileno(), 1 << 20, 0).decode() for file in self._said)
        return out, err


def forked(folder: Path, *arguments: object, **variables: str) -> CompletedProcess[str]:
    """Run a command line to its end."""
    process = Forked(folder, arguments, variables)
    out, err = process.communicate()
    assert process.returncode is not None
    return CompletedProcess(["lit_rnn", *map(str, arguments)], process.returncode, out, err)


class Subprocess:
    """In the place of the module `subprocess`, where that starts command lines of ours."""

    DEVNULL, PIPE, STDOUT = subprocess.DEVNULL, subprocess.PIPE, subprocess.STDOUT

    @staticmethod
    def Popen(call: Sequence[str], *, env: Mapping[str, str], stdout: Any, **_: Any) -> Forked:  # noqa: N802
        assert list(call[:3]) == [sys.executable, "-m", "lit_rnn"]
        return Forked(Path.cwd(), call[3:], env, None if stdout == subprocess.DEVNULL else stdout)


def start_ranks(folder: Path, *arguments: object, log: IO[Any] | None = None) -> list[Forked]:
    """A command line in two processes of one run, as torchrun starts them; with `DDP` alone Lightning starts one."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    both = {"WORLD_SIZE": "2", "NODE_RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    return [Forked(folder, (*arguments, *DDP), {"LOCAL_RANK": rank, "RANK": rank, **both}, log) for rank in ("0", "1")]


def forked_ranks(folder: Path, *arguments: object) -> CompletedProcess[str]:
    """Run a command line in two processes to its end; both end alike, and what they say is joined."""
    first, second = processes = start_ranks(folder, *arguments)
    said = [process.communicate() for process in processes]
    assert first.returncode == second.returncode is not None, said
    out, err = ("".join(parts) for parts in zip(*said, strict=True))
    return CompletedProcess(["lit_rnn", *map(str, arguments)], first.returncode, out, err)
