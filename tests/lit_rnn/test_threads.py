"""How many threads a command uses, and how they wait."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from lightning_fabric.utilities import rank_zero as fabric_rank_zero
from pytorch_lightning import Trainer
from pytorch_lightning.utilities import rank_zero
from threadpoolctl import threadpool_info

from datamodules import UserError
from lit_rnn import threads
from lit_rnn.runs.ranks import processes_per_share
from lit_rnn.threads import cores, use_threads

LAUNCHERS = ("LOCAL_RANK", "LOCAL_WORLD_SIZE", "RANK", "GROUP_RANK", "WORLD_SIZE", "MASTER_PORT", "TORCHELASTIC_RUN_ID")
QUOTAS = threads._quotas
WAITING = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")


@pytest.fixture(autouse=True)
def _no_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Eight cores, whatever this machine has, and nobody's wish."""
    for name in (*LAUNCHERS, *(name for name in os.environ if name.startswith("SLURM_"))):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: range(8), raising=False)
    monkeypatch.setattr(threads, "_quotas", lambda root: [])
    for module in (fabric_rank_zero, rank_zero):  # Trainer leaves the rank that the environment tells it here
        monkeypatch.setattr(module.rank_zero_only, "rank", 0)


def blas() -> set[int]:
    return {pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"}


def test_torch_and_blas_are_limited() -> None:
    try:
        use_threads(2)
        assert torch.get_num_threads() == 2 and blas() == {2}
        use_threads(None)
        assert torch.get_num_threads() == 2 and blas() == {1}
        with pytest.raises(UserError, match="threads is 0"):
            use_threads(0)
    finally:
        use_threads(1)
    assert torch.get_num_threads() == 1 and blas() == {1}


def test_a_process_takes_its_share_of_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    """Never more than torch would take by itself; ``OMP_NUM_THREADS`` is the user's word, --threads before it."""
    try:
        for own, processes, expected in ((64, 1, 8), (64, 2, 4), (64, 3, 2), (64, 9, 1), (3, 1, 3)):
            monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
            torch.set_num_threads(own)
            use_threads(None, processes)
            assert torch.get_num_threads() == expected
        torch.set_num_threads(64)
        monkeypatch.setenv("OMP_NUM_THREADS", "64")
        use_threads(None, processes=2)
        assert torch.get_num_threads() == 64
        use_threads(5, processes=2)
        assert torch.get_num_threads() == 5
    finally:
        use_threads(1)


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, 8),
        ({"SLURM_CPUS_PER_TASK": "3"}, 3),
        ({"SLURM_CPUS_ON_NODE": "4"}, 4),
        ({"SLURM_CPUS_PER_TASK": "2", "SLURM_CPUS_ON_NODE": "6"}, 2),
        ({"SLURM_CPUS_ON_NODE": "72"}, 8),
        ({"SLURM_CPUS_ON_NODE": "4(x2)"}, 8),
        # srun's tasks: as many cores each as it says, or what the job has of this node, shared
        ({"SLURM_CPUS_PER_TASK": "3", "SLURM_CPUS_ON_NODE": "6", "SLURM_STEP_NUM_TASKS": "2"}, 3),
        ({"SLURM_CPUS_ON_NODE": "6", "SLURM_STEP_NUM_TASKS": "3"}, 2),
        ({"SLURM_CPUS_ON_NODE": "6", "SLURM_STEP_NUM_TASKS": "3", "SLURM_STEP_NUM_NODES": "2"}, 3),
        ({"SLURM_CPUS_ON_NODE": "6", "SLURM_NTASKS": "3"}, 6),  # sbatch's own script has all cores
    ],
)
def test_slurm(environment: dict[str, str], expected: int, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert cores() == expected


RANK = {"LOCAL_RANK": "1", "RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1234"}
TORCHRUN = {**RANK, "LOCAL_WORLD_SIZE": "2", "GROUP_RANK": "0", "TORCHELASTIC_RUN_ID": "none"}
SRUN = {
    "SLURM_NTASKS": "2",
    "SLURM_NTASKS_PER_NODE": "2",
    "SLURM_PROCID": "1",
    "SLURM_LOCALID": "1",
    "SLURM_NODEID": "0",
    "SLURM_JOB_ID": "12345",
}


@pytest.mark.parametrize(
    ("environment", "processes", "expected"),
    [
        pytest.param({}, 2, 4, id="started by Lightning"),
        pytest.param(TORCHRUN, 2, 4, id="torchrun"),
        pytest.param({**SRUN, "SLURM_CPUS_PER_TASK": "3"}, 1, 3, id="srun"),
        pytest.param({**SRUN, "SLURM_CPUS_ON_NODE": "6", "SLURM_STEP_NUM_TASKS": "2"}, 1, 3, id="srun, a node's cores"),
        pytest.param({"SLURM_CPUS_PER_TASK": "6"}, 2, 3, id="sbatch, started by Lightning"),
    ],
)
def test_ranks_share_the_cores_of_their_launcher(
    environment: dict[str, str], processes: int, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two ranks on one node of eight cores."""
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    trainer = Trainer(accelerator="cpu", devices=2, strategy="ddp", logger=False, enable_checkpointing=False)
    assert processes_per_share(trainer) == processes
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    try:
        torch.set_num_threads(64)
        use_threads(None, processes)
        assert torch.get_num_threads() == expected
    finally:
        use_threads(1)


def test_another_number_of_tasks_than_of_devices_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lightning would not compare them, and give every task the samples of one of two."""
    for name, value in {**SRUN, "SLURM_NTASKS": "4"}.items():
        monkeypatch.setenv(name, value)
    trainer = Trainer(accelerator="cpu", devices=2, strategy="ddp", logger=False, enable_checkpointing=False)
    with pytest.raises(UserError, match="ask for 2 processes, but SLURM_NTASKS is 4"):
        processes_per_share(trainer)


V2, V1 = "0::/jobs/one\n", "5:memory:/jobs\n4:cpu,cpuacct:/jobs/one\n1:name=systemd:/\n"


@pytest.mark.parametrize(
    ("told", "files", "expected"),
    [
        pytest.param(V2, {"jobs/one/cpu.max": "250000 100000\n"}, 2, id="version 2"),
        pytest.param(V2, {"jobs/one/cpu.max": "max 100000\n"}, 8, id="version 2, no quota"),
        pytest.param(
            V2, {"jobs/one/cpu.max": "max 100000\n", "jobs/cpu.max": "30000 10000\n"}, 3, id="the group above"
        ),
        pytest.param("0::/\n", {"cpu.max": "50000 100000\n"}, 1, id="half a core in a container"),
        pytest.param(V1, {"cpu,cpuacct/jobs/one/cpu.cfs_quota_us": "600000\n"}, 6, id="version 1"),
        pytest.param(V1, {"cpu,cpuacct/cpu.cfs_quota_us": "400000\n"}, 4, id="version 1, in a container"),
        pytest.param(V1, {"cpu,cpuacct/jobs/one/cpu.cfs_quota_us": "-1\n"}, 8, id="version 1, no quota"),
        pytest.param(None, {}, 8, id="no control groups"),
    ],
)
def test_control_groups(
    told: str | None, files: dict[str, str], expected: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if told is not None:
        (tmp_path / "proc/self").mkdir(parents=True)
        (tmp_path / "proc/self/cgroup").write_text(told)
    for name, text in files.items():
        path = tmp_path / "sys/fs/cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        if "quota" in name:
            path.with_name("cpu.cfs_period_us").write_text("100000\n")
    limits = list(QUOTAS(tmp_path))
    monkeypatch.setattr(threads, "_quotas", lambda root: limits)
    assert cores() == expected


# seconds of CPU time that two threads use in half a second in which they have nothing to do but wait for work
IDLE = """
import os, sys, time
from lit_rnn.__main__ import main
main(["compare", "nowhere"])
policy, used = os.environ.get("OMP_WAIT_POLICY"), 0.0
if policy == "passive":
    import torch
    torch.set_num_threads(2)
    x = torch.randn(1000, 1000)
    for _ in range(25):
        x.add(1)
        start = time.process_time()
        time.sleep(0.02)
        used += time.process_time() - start
print(policy, used, file=sys.stderr)
"""


@pytest.mark.parametrize(
    ("given", "policy"), [({}, "passive"), ({"OMP_WAIT_POLICY": "active"}, "active"), ({"GOMP_SPINCOUNT": "9"}, "None")]
)
def test_threads_that_wait_do_not_spin(given: dict[str, str], policy: str) -> None:
    """Unless the user says so."""
    environment = {name: value for name, value in os.environ.items() if name not in WAITING}
    child = subprocess.run(
        [sys.executable, "-c", IDLE], env=environment | given, capture_output=True, text=True, check=False
    )
    said, used = child.stderr.split()[-2:]
    assert said == policy
    if policy == "passive":
        assert float(used) < 0.1


@pytest.mark.parametrize("count", [0, -1, 1025, 10**9])
def test_threads_that_no_machine_has(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    with pytest.raises(UserError, match=rf"--threads is {count}, .* at most 1,024"):
        use_threads(count)


def test_as_many_threads_as_there_are_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[int] = []
    monkeypatch.setattr(os, "cpu_count", lambda: 2048)
    monkeypatch.setattr(torch, "set_num_threads", given.append)
    monkeypatch.setattr("threadpoolctl.threadpool_limits", lambda *_, **__: None)
    use_threads(2048)
    assert given == [2048]
