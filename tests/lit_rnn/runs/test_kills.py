"""A sample of `kills.py`, which kills a run at every one of its file events; by hand it takes them all."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]


def test_a_killed_run_goes_on_as_if_nothing_had_been() -> None:
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    call = [sys.executable, str(Path(__file__).with_name("kills.py")), "--events", "4", "--moments", "1"]
    done = subprocess.run([*call, "--settings", "plateau"], capture_output=True, text=True, env=env)
    assert done.returncode == 0 and done.stdout.splitlines()[-1].endswith(" kills survived, 0 not"), done
