"""The processes of one run: how many share its cores, and how all of them end where one does."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import time
from collections.abc import Callable
from subprocess import Popen, TimeoutExpired
from threading import Thread
from typing import Any

import torch
from lightning_fabric.plugins.environments.slurm import SLURMEnvironment
from pytorch_lightning import Trainer
from pytorch_lightning.strategies.launchers.subprocess_script import _SubprocessScriptLauncher

from datamodules.errors import UserError, chain
from datamodules.loader import end_workers
from lit_rnn.runs.endings import SIGNALS, LostProcess, Stopped, stopping
from lit_rnn.runs.launched import LAUNCHER, first_process, leave

_PATIENCE = 10.0  # seconds for a process that has failed to say so and end
_WHY_KILLED = {
    "SIGKILL": ", as it is where memory runs out",
    "SIGBUS": ", as it is where /dev/shm is full, or a file that it maps was cut short",
}


def processes_per_share(trainer: Trainer) -> int:
    """How many processes of a run share the cores that one of them was given.

    Those on its node, started by Lightning or torchrun; a task of Slurm's has cores of its own.

    Raises:
        UserError: for another number of Slurm's tasks than of devices. Each task would train on its own share of the
            samples, and the other shares would go unused.
    """
    environment = getattr(trainer.strategy, "cluster_environment", None)
    if not isinstance(environment, SLURMEnvironment):
        return trainer.num_devices
    devices, tasks = trainer.num_devices * trainer.num_nodes, environment.world_size()
    if devices != tasks:
        raise UserError(
            f"trainer.devices and trainer.num_nodes ask for {devices} processes, but SLURM_NTASKS is {tasks}: start as "
            "many tasks with srun, or unset SLURM_NTASKS to have them started on this node."
        )
    return 1


def largest(trainer: Trainer, number: int) -> int:
    """The largest of the numbers of all processes, which call this together."""
    if trainer.world_size == 1:
        return number
    told = torch.tensor(number, device=trainer.strategy.root_device)
    return int(trainer.strategy.reduce(told, reduce_op="max"))


class Launcher(_SubprocessScriptLauncher):
    """Starts the other processes of this machine, as Lightning does, and looks after them in its own way.

    Lightning kills the first process without a word within 5 s of another's end. Here it has time to say what it knows,
    and says which process was lost where it waits for that one itself. Those that are started end with the first.
    """

    def launch(self, function: Callable[..., Any], *args: Any, trainer: Trainer | None = None, **kwargs: Any) -> Any:
        self.cluster_environment.validate_settings(num_devices=self.num_processes, num_nodes=self.num_nodes)
        if not self.cluster_environment.creates_processes_externally:
            os.environ[LAUNCHER] = str(os.getpid())
            try:
                self._call_children_scripts()
            finally:
                del os.environ[LAUNCHER]
            Thread(target=_look_after, args=(self.procs,), daemon=True, name="process-watch").start()
        return function(*args, **kwargs)


def take_over(trainer: Trainer) -> None:
    """Let signals, and the ends of other processes, be ours to act on, before the trainer has begun."""
    launcher = trainer.strategy.launcher
    if type(launcher) is _SubprocessScriptLauncher:
        trainer.strategy._launcher = Launcher(launcher.cluster_environment, launcher.num_processes, launcher.num_nodes)
    # Lightning's handler of SIGTERM broadcasts, in the midst of a backward pass that does so too, and waits for good;
    # and behind every step it broadcasts what only the first process has heard
    trainer._signal_connector._sigterm_notifier_fn = _do_nothing  # type: ignore[method-assign, assignment]
    trainer.fit_loop.epoch_loop._broadcast_sigterm_tensor = _do_nothing  # type: ignore[method-assign]


def _do_nothing(*_: Any) -> None: ...


def end_all(trainer: Trainer, error: BaseException, told: bool) -> None:
    """End the processes that this one has started, those that prepare batches too, or itself where another has ended.

    Of those that only lose the connection to a failed one, none has anything to say where that one could speak: its
    status becomes the run's.

    Args:
        trainer: Of the run.
        error: What ended the run here.
        told: Whether it is a sentence for the user: then it began here.

    Raises:
        SystemExit: with the status of the process that failed.
        Stopped: if that one was asked to stop.
        LostProcess: if it was killed, or was not started here.
    """
    end_workers()
    started = _started(trainer)
    lost = not told and _lost_another(error)
    if lost and not first_process():
        time.sleep(1)  # if the first is gone, `launched` says so
        raise SystemExit(1)
    failure = _failure(started) if lost else None
    _kill(started)
    if failure is not None:
        raise failure


def lost_worker(last: BaseException) -> LostProcess | None:
    """The sentence where a process that prepares batches was killed; None for other errors.

    torch raises it in the main thread, from whatever line that is at.
    """
    told = " ".join(str(error) for error in chain(last, hidden=True))
    if not re.search("DataLoader worker .* (is killed by|exited unexpectedly)", told):
        return None
    names = {signal.strsignal(signum): signum.name for signum in signal.Signals}
    found = re.search(r"is killed by signal: ([^.]*)", told)
    name = names.get(found[1], found[1]) if found is not None else None
    how = "has ended unexpectedly" if name is None else f"was killed by {name}{_WHY_KILLED.get(name, '')}"
    return LostProcess(f"A process that prepares batches (data.init_args.num_workers) {how}{stopping.go_on}")


def wait_for_all(trainer: Trainer) -> None:
    """Behind the last step: the processes that this one has started would take its end for a failure."""
    for process in _started(trainer):
        with contextlib.suppress(TimeoutExpired):
            process.wait(_PATIENCE)


def _started(trainer: Trainer) -> list[Popen[Any]]:
    return getattr(trainer.strategy.launcher, "procs", [])


def _kill(started: list[Popen[Any]]) -> None:
    for process in started:
        process.send_signal(signal.SIGKILL)  # one that waits for the others hears nothing else
        process.wait()
    started.clear()  # `_look_after` watches this list


def _look_after(started: list[Popen[Any]]) -> None:
    """End this process where one that it started has failed, unless it does so by itself."""
    while started and not any(process.poll() for process in started):
        if all(process.returncode == 0 for process in started):
            return
        time.sleep(0.2)
    failure = _failure(started)
    if isinstance(failure, Stopped) and stopping.signum is None and started:
        os.kill(os.getpid(), failure.signum)
    end = time.monotonic() + _PATIENCE / 2
    while started and time.monotonic() < end:
        time.sleep(0.1)
    if not started:
        return
    _kill(started)  # the main thread waits where it hears of nothing
    if isinstance(failure, SystemExit):
        os._exit(int(str(failure.code)))
    leave(str(failure), 128 + failure.signum if isinstance(failure, Stopped) else 1)


def _failure(started: list[Popen[Any]]) -> BaseException:
    """What the first of them to fail has to say, which is waited for."""
    end = time.monotonic() + _PATIENCE
    while started and time.monotonic() < end:
        for rank, process in enumerate(list(started), start=1):
            code = process.poll()
            if not code:
                continue
            signum = -code if code < 0 else code - 128
            if signum in SIGNALS:
                return Stopped(signum, stopping.how)
            if code > 0:
                return SystemExit(code)
            return LostProcess(f"Process {rank} of the run was killed by {signal.Signals(signum).name}{stopping.go_on}")
        time.sleep(0.05)
    return LostProcess(f"The connection to another process of the run is lost{stopping.go_on}")


def _lost_another(last: BaseException | None) -> bool:
    """Whether a collective failed, as it does where a process that takes part has ended."""
    for error in chain(last, hidden=True):
        if isinstance(error, torch.distributed.DistError):
            return True
        if isinstance(error, RuntimeError) and re.search("gloo|Connection (closed|reset) by peer", str(error)):
            return True
    return False
