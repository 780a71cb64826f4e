"""Where there is neither Triton nor CUDA, and on other machines: the recurrences are imported, and run."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]

BARE = """
import importlib, importlib.abc, pkgutil, platform, sys


class Missing(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("triton", "nvidia", "cuda", "pynvml"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


sys.meta_path.insert(0, Missing())
import scipy.linalg, torch  # which are built for this machine

torch.cuda.is_available = lambda: False
sys.platform, platform.system, platform.machine = PLATFORM, lambda: SYSTEM, lambda: MACHINE
import lit_rnn.cells, lit_rnn.optim, lit_rnn.parametrizations, lit_rnn.scan

for package in (lit_rnn.parametrizations, lit_rnn.cells, lit_rnn.scan, lit_rnn.optim):
    for found in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
        if not found.name.endswith("_triton"):  # Triton's kernels
            importlib.import_module(found.name)
from lit_rnn import cells
from lit_rnn.scan import choose_backend, scan, supports

for name, backend in (("ExpRNN", "loop"), ("ExpRNN", "fused"), ("LSTM", "loop"), ("LRU", "parallel"), ("GRU", "torch")):
    cell = getattr(cells, name + "Cell")(3, 4)
    scan(cell, torch.randn(5, 2, 3), backend=backend)[0].sum().backward()
    assert not supports("triton", cell) and not supports("graphed", cell)
    assert choose_backend("auto", cell) in ("native", "fused", "parallel", "torch", "loop")
print("right")
"""


def test_nothing_needs_triton_cuda_or_linux() -> None:
    """On a Mac, as far as names of systems tell; what is compiled in C++ or by torch is not run."""
    names = {"PLATFORM": "'darwin'", "SYSTEM": "'Darwin'", "MACHINE": "'arm64'"}
    text = BARE
    for name, value in names.items():
        text = text.replace(name, value)
    done = subprocess.run(
        [sys.executable, "-c", text], capture_output=True, text=True, env={**os.environ, "CXX": "no-compiler"}
    )
    assert done.stdout == "right\n", done.stderr


def test_nothing_else_imports_them() -> None:
    """No module does so by being imported, but those that hold Triton's kernels."""
    found = set()
    for path in (file for package in ("lit_rnn", "datamodules") for file in (ROOT / package).rglob("*.py")):
        for node in ast.parse(path.read_text()).body:
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            if {name.partition(".")[0] for name in names} & {"triton", "nvidia", "cuda", "pynvml"}:
                found.add(path.name)
    assert found == {"plain_triton.py", "streamed_triton.py", "kinds_triton.py"}
