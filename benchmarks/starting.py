"""How long commands and imports take to start, beside what they cannot do without: ``import torch``, Lightning.

Every start is a fresh process. CPU seconds are counted, user and system together, because a busy machine stretches the
clock's but not those.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).parent
FIT = "-m lit_rnn fit --trainer.callbacks+=leave.Leave --run_dir"


class Start(NamedTuple):
    """A process, what it is compared with, and the most that the ratio may be."""

    name: str
    arguments: tuple[str, ...]
    against: str
    most: float


TORCH, LIGHTNING = "import torch", "import torch, pytorch_lightning"
LEAVING = "import os, torch, pytorch_lightning; os._exit(0)"  # without Python's own end, as `leave` has it
STARTS = {
    "cells": Start("import lit_rnn.cells", ("-c", "import lit_rnn.cells"), TORCH, 1.15),
    "analysis": Start("import lit_rnn.analysis", ("-c", "import lit_rnn.analysis"), TORCH, 1.3),
    **{
        command: Start(f"{command} --help", ("-m", "lit_rnn", command, "--help"), TORCH, 0.3)
        for command in ("compare", "study", "analyze", "attack")
    },
    "fit_help": Start("fit --help", ("-m", "lit_rnn", "fit", "--help"), LIGHTNING, 1.1),
    "fit": Start("fit, quickstart, to its first step", tuple(FIT.split()), LEAVING, 1.2),
}


def seconds(arguments: tuple[str, ...]) -> float:
    """CPU seconds of a fresh Python, from its start to its end."""
    with tempfile.TemporaryDirectory() as folder:
        line = [sys.executable, *arguments, *([str(Path(folder, "run"))] if arguments[-1] == "--run_dir" else [])]
        path = os.pathsep.join([str(HERE.parent), str(HERE)])
        environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive"}
        before = os.times()
        subprocess.run(line, check=True, capture_output=True, cwd=folder, env=environment)
        after = os.times()
    return after.children_user + after.children_system - before.children_user - before.children_system
