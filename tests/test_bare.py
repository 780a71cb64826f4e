"""Where there is neither Triton nor CUDA, and on other machines: everything is imported, and a model trains."""

from __future__ import annotations

import os
import subprocess
import sys

BARE = """
import importlib, importlib.abc, pkgutil, platform, sys


class Missing(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("triton", "nvidia", "cuda", "pynvml"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


sys.meta_path.insert(0, Missing())
import torch, pytorch_lightning  # which are built for this machine

torch.cuda.is_available = lambda: False
sys.platform, platform.system, platform.machine = PLATFORM, lambda: SYSTEM, lambda: MACHINE
import datamodules, lit_rnn

for package in (lit_rnn, datamodules):
    for found in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
        if found.name not in ("lit_rnn.__main__", "lit_rnn.scan.plain_triton"):  # Triton's kernels
            importlib.import_module(found.name)
from lit_rnn import models
from lit_rnn.scan import choose_backend, supports

task = datamodules.CopyMemory(delay=2).task
inputs = torch.arange(12).view(2, 6) % task.input_size
for name, backend in (("ExpRNN", "loop"), ("ExpRNN", "fused"), ("LSTM", "loop"), ("LRU", "parallel"), ("GRU", "torch")):
    model = getattr(models, name)(task, 4, backend=backend)
    model(inputs).sum().backward()
    cell = model.cell_list()[0]
    assert cell.input_size and not supports("triton", cell) and not supports("graphed", cell)
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
