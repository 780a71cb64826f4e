"""How many CPU threads a command uses, of the cores that it was given."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from datamodules.errors import require

MOST = 1024
"""Threads that are always accepted; more only where there are as many cores."""


def use_threads(count: int | None, processes: int = 1) -> None:
    """Let torch use ``count`` threads; NumPy's and SciPy's BLAS as many, or one if None.

    None takes ``OMP_NUM_THREADS``, as torch does, and without it this process's share of the cores: `cores` over
    ``processes`` that share them.

    OpenBLAS's threads wait for each other without sleeping: on a busy machine an SVD of n = 100 took 0.6 s with two of
    them, and 1.6 ms with one.

    Raises:
        UserError: for a count below 1, or of more threads than any machine has cores.
    """
    import scipy.linalg  # noqa: F401  # loaded, or its OpenBLAS would not be limited
    import torch
    from threadpoolctl import threadpool_limits

    if count is not None:
        most = max(MOST, os.cpu_count() or 1)
        require(1 <= count <= most, "--threads", count, f"a whole number of at least 1 and at most {most:,}")
        torch.set_num_threads(count)
    elif "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(max(1, min(torch.get_num_threads(), cores() // processes)))
    threadpool_limits(count or 1, user_api="blas")


def cores() -> int:
    """The cores that this process may keep busy: those it is bound to, within its control groups' quota and Slurm's.

    Slurm's are those of one task (``SLURM_CPUS_PER_TASK``), or else the job's on this node, shared by the tasks that
    ``srun`` started on it.
    """
    bound = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    task, node = _number("SLURM_CPUS_PER_TASK"), _number("SLURM_CPUS_ON_NODE")
    if task is None and node is not None:
        tasks, nodes = _number("SLURM_STEP_NUM_TASKS") or 1, _number("SLURM_STEP_NUM_NODES") or 1
        task = node // -(-tasks // nodes)
    return max(1, int(min([bound, *_quotas(Path("/")), *([] if task is None else [task])])))


def _number(variable: str) -> int | None:
    value = os.environ.get(variable, "")
    return int(value) if value.isdecimal() else None


def control_groups(controller: str, root: Path) -> Iterator[Path]:
    """The folders of this process's control groups, of version 1 and 2, and of all groups above them.

    A container sees its own group at the top, whatever path it is told.
    """
    told = root / "proc/self/cgroup"
    for line in told.read_text().splitlines() if told.is_file() else ():
        _, controllers, path = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        top = root / "sys/fs/cgroup" / controllers
        group = top / path.lstrip("/")
        yield from (folder for folder in (group, *group.parents) if folder.is_relative_to(top))


def _quotas(root: Path) -> Iterator[float]:
    """Cores by the CPU bandwidth of this process's control groups."""
    for group in control_groups("cpu", root):
        yield from _quota(group)


def _quota(group: Path) -> Iterator[float]:
    try:
        if (group / "cpu.max").is_file():
            quota, period = (group / "cpu.max").read_text().split()
        else:
            quota, period = ((group / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
    except OSError:  # no such limit
        return
    if quota != "max" and int(quota) > 0:
        yield int(quota) / int(period)
