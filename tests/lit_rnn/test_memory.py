"""What the process does with memory that was freed: seen from the system's side, in processes of their own."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

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
