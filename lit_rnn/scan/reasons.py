"""Why a backend cannot run a cell where it is."""

from __future__ import annotations

import itertools

import torch

from lit_rnn.cells.base import Cell
from lit_rnn.dtypes import dtype_name
from lit_rnn.scan.deltaproduct import is_deltaproduct
from lit_rnn.scan.fused import kind_of
from lit_rnn.scan.gpu import CAPABILITY, lacking, processors_of
from lit_rnn.scan.plans import is_gated

_COMPILER = "a C++ compiler that works (CXX, g++, clang++ or Python package ziglang), which is not found"


def reason(asked: str, cell: Cell, device: torch.device) -> str:
    """The first thing that ``asked`` lacks, to stand behind the name of ``cell``, which is on ``device`` or will be."""
    return _of_the_cell(asked, cell) or _of_the_device(asked, device) or _of_the_rest(asked, cell, device)


def _of_the_cell(asked: str, cell: Cell) -> str | None:
    plain = kind_of(cell) is not None
    if asked in ("fused", "triton", "streamed") and not plain:
        return "is not a plain recurrence"
    if asked == "native" and not (plain or is_gated(cell) or is_deltaproduct(cell)):
        return "is none of the cells written in C++"
    if asked == "torch":
        return "is none of the cells that torch has (tanh and relu VanillaRNN, plain LSTM, GRU)"
    if asked == "parallel":
        return "is none of the cells that run so: LRU, LinOSS, MinGRU, MinLSTM and DeltaProduct"
    return None


def _of_the_device(asked: str, device: torch.device) -> str | None:
    if asked == "native" and device.type != "cpu":
        return f"is on {device.type}, but {asked} runs on a CPU alone (trainer.accelerator: cpu)"
    what = "a CUDA device" if asked == "graphed" else "an NVIDIA GPU"
    amd = device.type == "cuda" and torch.version.hip is not None
    if asked in ("triton", "streamed", "graphed") and (device.type != "cuda" or amd):
        given = "an AMD GPU" if amd else "the CPU" if device.type == "cpu" else device.type
        there = torch.cuda.is_available() and not amd
        hint = "trainer.accelerator: gpu" if there else "torch finds none on this machine"
        return f"is on {given}, but {asked} runs on {what} alone ({hint})"
    return None


def _of_the_rest(asked: str, cell: Cell, device: torch.device) -> str:
    dtype = next(itertools.chain(cell.recurrent_parameters(), cell.parameters())).dtype
    if asked == "compiled":
        return "is on a CPU, where torch.compile needs a C++ compiler (CXX or g++) and Python's headers (python3-dev)"
    if dtype.to_real() not in (torch.float32, torch.float64):
        return f"is in {dtype_name(dtype)}, but {asked} runs in float32 or float64"
    if asked == "native":
        return f"cannot run by {asked} without {_COMPILER}"
    if not processors_of(device):
        least = ".".join(map(str, CAPABILITY))
        return f"is on a GPU that {asked} is not made for: one of compute capability {least} or more is needed"
    if what := lacking():
        return f"cannot run by {asked} without {what}"
    return "has more units than the processors of this GPU hold together; streamed takes any number"
