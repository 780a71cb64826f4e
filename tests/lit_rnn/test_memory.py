"""How much memory there is; what the process does with memory that was freed, seen from the system's side."""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from datamodules import UserError
from datamodules.errors import chain
from lit_rnn import blame, memory
from lit_rnn.memory import machine_memory, out_of_memory

_PROGRAM = """
import sys, torch
from pathlib import Path
from lit_rnn.memory import keep_freed_memory

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

if sys.argv[1] == "keep":
    keep_freed_memory()
before = resident()
torch.ones(2**26)
print((resident() - before) >> 20)
"""


def left_over(mode: str, **environment: str) -> int:
    """MiB that are still in use after a tensor of 256 was freed."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    command = [sys.executable, "-c", _PROGRAM, mode]
    done = subprocess.run(command, check=True, capture_output=True, text=True, env={**clean, **environment})
    return int(done.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc" or sys.platform != "linux", reason="it is for glibc on Linux")
def test_freed_memory_is_kept_unless_the_environment_says_otherwise() -> None:
    assert left_over("leave") < 64
    assert left_over("keep") > 192
    assert left_over("keep", MALLOC_TRIM_THRESHOLD_="131072") < 64


def test_the_memory_of_the_machine_and_of_its_control_groups(tmp_path: Path) -> None:
    assert machine_memory(tmp_path) is None
    proc, groups = tmp_path / "proc", tmp_path / "sys/fs/cgroup"
    (proc / "self").mkdir(parents=True)
    (proc / "meminfo").write_text("MemTotal:       4096 kB\nMemFree:         100 kB\nSwapTotal:      1024 kB\n")
    assert machine_memory(tmp_path) == (4096 + 1024) << 10
    (proc / "self/cgroup").write_text("0::/jobs/mine\n")
    (groups / "jobs/mine").mkdir(parents=True)
    (groups / "jobs/mine/memory.max").write_text("max\n")
    assert machine_memory(tmp_path) == (4096 + 1024) << 10
    (groups / "jobs/memory.max").write_text(f"{2048 << 10}\n")
    assert machine_memory(tmp_path) == (2048 + 1024) << 10, "a group above limits those below"
    (proc / "self/cgroup").write_text("3:memory:/old\n")
    (groups / "memory/old").mkdir(parents=True)
    (groups / "memory/old/memory.limit_in_bytes").write_text(f"{1024 << 10}\n")
    assert machine_memory(tmp_path) == (1024 + 1024) << 10, "version 1"


def test_what_is_more_than_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "machine_memory", lambda: 1 << 30)
    memory.require_memory(1 << 30, "key", 3, "it")
    with pytest.raises(
        UserError, match=r"key is 3, but it needs at least 1\.5 GiB of memory, and this machine has 1\.0"
    ):
        memory.require_memory(3 << 29, "key", 3, "it")
    monkeypatch.setattr(memory, "machine_memory", lambda: None)
    memory.require_memory(1 << 60, "key", 3, "it")


@pytest.mark.parametrize(
    "ask",
    [
        lambda: np.empty(1 << 58, dtype=np.uint8),
        lambda: torch.empty(1 << 58, dtype=torch.uint8),
        lambda: torch.empty(1 << 31, 1 << 31),  # as many bytes as 64 bits cannot count
    ],
    ids=["NumPy", "torch", "overflow"],
)
def test_an_allocation_that_failed_is_a_sentence(ask: Callable[[], object]) -> None:
    with pytest.raises((MemoryError, RuntimeError)) as caught:
        ask()
    refused = blame.refusal(caught.value)
    assert refused is not None and "not enough memory" in str(refused)
    assert re.search(r"268,435,456\.0 GiB|256\. PiB|8 EiB or more", str(refused)), refused
    assert memory.out_of_memory(RuntimeError("shapes cannot be multiplied")) is None


def test_a_chain_of_errors_that_leads_back_to_itself_ends() -> None:
    first, second = ValueError("first"), ValueError("second")
    first.__context__, second.__context__ = second, first
    assert list(chain(first)) == [first, second]
    third = KeyError("third")
    third.__context__, third.__suppress_context__ = first, True
    assert list(chain(third)) == [third] and list(chain(third, hidden=True)) == [third, first, second]
    assert list(chain(None)) == [] and out_of_memory(first) is None
