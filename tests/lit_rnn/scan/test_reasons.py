"""A backend that cannot run a cell is refused with the one thing that is missing, not with a list of what may be."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch

from datamodules import UserError
from lit_rnn import cells
from lit_rnn.cells import Cell
from lit_rnn.scan import gpu, native, reasons, run
from lit_rnn.scan.run import choose_backend

CPU, CUDA, META = torch.device("cpu"), torch.device("cuda"), torch.device("meta")
PLAIN, GATED, SLOW = cells.ExpRNNCell(3, 4), cells.LSTMCell(3, 4), cells.NRUCell(3, 4, 9, use_relu=True)
HALF, HALF_GATED = cells.VanillaRNNCell(3, 4).half(), cells.LSTMCell(3, 4).bfloat16()
PRODUCT = cells.DeltaProductCell(3, 4, heads=1).half()
GPU: dict[str, Any] = {"gpu": True}
SINGLE = "runs in float32 or float64"
NONE, THERE = "alone (torch finds none on this machine)", "alone (trainer.accelerator: gpu)"
CASES: list[tuple[str, Cell, torch.device, dict[str, Any], str]] = [
    ("fused", GATED, CPU, {}, "is not a plain recurrence"),
    ("native", SLOW, CPU, {}, "is none of the cells written in C++"),
    ("native", PLAIN, CUDA, {}, "is on cuda, but native runs on a CPU alone (trainer.accelerator: cpu)"),
    ("native", HALF, CPU, {}, f"is in float16, but native {SINGLE}"),
    ("native", HALF_GATED, CPU, {}, f"is in bfloat16, but native {SINGLE}"),
    ("native", PRODUCT, CPU, {}, f"is in float16, but native {SINGLE}"),
    ("native", PLAIN, CPU, {"library": None}, f"cannot run by native without {reasons._COMPILER}"),
    ("torch", PLAIN, CPU, {}, "is none of the cells that torch has (tanh and relu VanillaRNN, plain LSTM, GRU)"),
    ("parallel", GATED, CPU, {}, "is none of the cells that run so: LRU, LinOSS, MinGRU, MinLSTM and DeltaProduct"),
    (
        *("compiled", GATED, CPU, {"headers": False}),
        "is on a CPU, where torch.compile needs a C++ compiler (CXX or g++) and Python's headers (python3-dev)",
    ),
    ("graphed", GATED, CPU, {}, f"is on the CPU, but graphed runs on a CUDA device {NONE}"),
    ("graphed", GATED, CPU, GPU, f"is on the CPU, but graphed runs on a CUDA device {THERE}"),
    ("triton", GATED, CPU, {}, "is not a plain recurrence"),
    ("triton", PLAIN, CPU, {}, f"is on the CPU, but triton runs on an NVIDIA GPU {NONE}"),
    (
        *("triton", PLAIN, CUDA, {**GPU, "fits": False}),
        "has more units than the processors of this GPU hold together; streamed takes any number",
    ),
    ("streamed", GATED, CUDA, GPU, "is not a plain recurrence"),
    ("streamed", PLAIN, CPU, {}, f"is on the CPU, but streamed runs on an NVIDIA GPU {NONE}"),
    ("streamed", PLAIN, CPU, GPU, f"is on the CPU, but streamed runs on an NVIDIA GPU {THERE}"),
    ("streamed", PLAIN, META, {}, f"is on meta, but streamed runs on an NVIDIA GPU {NONE}"),
    ("streamed", PLAIN, CUDA, {**GPU, "hip": "6"}, f"is on an AMD GPU, but streamed runs on an NVIDIA GPU {NONE}"),
    ("streamed", HALF, CUDA, GPU, f"is in float16, but streamed {SINGLE}"),
    (
        *("streamed", PLAIN, CUDA, {**GPU, "lacking": "Triton, which does not start (no compiler)"}),
        "cannot run by streamed without Triton, which does not start (no compiler)",
    ),
    (
        *("streamed", PLAIN, CUDA, {**GPU, "processors": 0}),
        "is on a GPU that streamed is not made for: one of compute capability 8.0 or more is needed",
    ),
]


@pytest.mark.parametrize(("asked", "cell", "device", "machine", "why"), CASES)
def test_the_one_thing_that_is_missing(
    monkeypatch: pytest.MonkeyPatch, asked: Any, cell: Cell, device: torch.device, machine: dict[str, Any], why: str
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: machine.get("gpu", False))
    monkeypatch.setattr(torch.version, "hip", machine.get("hip"))
    for module in (gpu, reasons):
        monkeypatch.setattr(module, "lacking", lambda: machine.get("lacking"))
        monkeypatch.setattr(module, "processors_of", lambda device: machine.get("processors", 132))
    monkeypatch.setattr(run, "torch_compiles", lambda: machine.get("headers", True))
    if "fits" in machine:
        monkeypatch.setattr(run, "runs_on", lambda *_: False)
    if "library" in machine:
        monkeypatch.setattr(native, "library", lambda name: None)
    with pytest.raises(UserError) as caught:
        choose_backend(asked, cell, device=device)
    found = re.fullmatch(r"model\.init_args\.backend is '(\w+)', but it must be (.*?): (\w+) (.*)\.", str(caught.value))
    assert found is not None and found[1] == asked
    assert {"auto", "loop"} <= set(able := re.split(", | or ", found[2])) and asked not in able
    assert (found[3], found[4]) == (type(cell).__name__, why)
