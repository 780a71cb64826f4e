"""The processes of one run: how many share its cores, and how all of them end where one does."""

from __future__ import annotations

import re
import signal
import time
from subprocess import Popen
from typing import Any

import torch
from lightning_fabric.plugins.environments.slurm import SLURMEnvironment
from pytorch_lightning import Trainer

from datamodules.errors import UserError
from lit_rnn.runs.folder import first_process

_PATIENCE = 10.0  # seconds for a process that has failed to say so and end


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


def end_all(trainer: Trainer, error: BaseException, told: bool) -> None:
    """End the processes that this one has started, or itself where another has ended.

    Of those that only lose the connection to a failed one, none has anything to say: it has spoken, and its status
    becomes the run's. Lightning would wait 5 s, then kill the first process too, whose status is that of the kill.

    Args:
        trainer: Of the run.
        error: What ended the run here.
        told: Whether it is a sentence for the user: then it began here.

    Raises:
        SystemExit: with the status of the process that failed.
    """
    started: list[Popen[bytes]] = getattr(trainer.strategy.launcher, "procs", [])
    status = 0
    if not told and _lost_another(error):
        if not first_process():
            raise SystemExit(1)
        status = _status(started)
    for process in started:
        process.send_signal(signal.SIGKILL)  # one that waits for the others hears nothing else
        process.wait()
    started.clear()  # Lightning watches this list, and would kill the first process for the ends of the others
    if status > 0:
        raise SystemExit(status)


def _status(started: list[Popen[Any]]) -> int:
    """The first that one of them ends with, 0 if none does."""
    end = time.monotonic() + _PATIENCE
    while time.monotonic() < end:
        ended = [process.returncode for process in started if process.poll()]
        if ended:
            return int(max(ended))
        time.sleep(0.05)
    return 0


def _lost_another(error: BaseException | None) -> bool:
    """Whether a collective failed, as it does where a process that takes part has ended."""
    while error is not None:
        if isinstance(error, torch.distributed.DistError):
            return True
        if isinstance(error, RuntimeError) and re.search("gloo|Connection (closed|reset) by peer", str(error)):
            return True
        error = error.__cause__ or error.__context__
    return False
