"""C++ beside this file, compiled where it runs and kept; and the plain recurrence as one call into it (`plain.cpp`)."""

from __future__ import annotations

import ctypes
import functools
import hashlib
import logging
import os
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lit_rnn.activations import COMPLEX_EPS

log = logging.getLogger(__name__)

_HEADER = Path(__file__).with_name("vectors.h")
_FLAGS = ("-std=c++17", "-O3", "-fPIC", "-fno-math-errno", "-fno-trapping-math", "-pthread")
# what this CPU has, as torch found out; a cache shared by different machines keeps one library for each
_VECTORS = {
    "AVX512": ("-mavx512f", "-mavx512dq", "-mavx512vl", "-mavx512bw", "-mfma"),
    "AVX2": ("-mavx2", "-mfma"),
}
KINDS = ("identity", "relu", "tanh", "elu", "modrelu", "complex modrelu")  # as in vectors.h
_TYPES = {torch.float32: "float32", torch.float64: "float64", torch.complex64: "float32", torch.complex128: "float64"}


@functools.cache
def library(name: str) -> ctypes.CDLL | None:
    """What ``name``.cpp beside this file compiles to, or None where there is no C++ compiler (said in the log).

    Compiled on first use, in some seconds, into ``$XDG_CACHE_HOME/lit_rnn`` (by default ``~/.cache/lit_rnn``). It runs
    on torch's own OpenMP threads where they take it: those wait for work without sleeping, in the way of any others.
    """
    flags = (*_FLAGS, *_VECTORS.get(torch.backends.cpu.get_cpu_capability(), ()))
    try:
        try:
            return _loaded(name, (*flags, "-fopenmp"))
        except (OSError, subprocess.CalledProcessError) as error:
            log.info("%s runs on threads of its own, not on torch's: %s", name, _why(error))
            return _loaded(name, flags)
    except (OSError, subprocess.CalledProcessError) as error:
        log.warning("no compiled recurrence on this machine, a slower backend runs instead: %s", _why(error))
        return None


def _why(error: Exception) -> object:
    return getattr(error, "stderr", None) or error


def _loaded(name: str, flags: tuple[str, ...]) -> ctypes.CDLL:
    source = Path(__file__).with_name(f"{name}.cpp")
    key = hashlib.sha256("\n".join((_HEADER.read_text(), source.read_text(), *flags)).encode()).hexdigest()[:16]
    cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "lit_rnn"
    path = cache / f"{name}-{key}.so"
    if not path.is_file():
        _compile(source, path, flags)
    return ctypes.CDLL(str(path))


def _compile(source: Path, path: Path, flags: tuple[str, ...]) -> None:
    """Into a file of its own, then moved: processes that compile at once do not meet, and none leaves a lock.

    Linked without an OpenMP library: what it calls is found in the one that torch has loaded.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    compiler = os.environ.get("CXX") or "c++"
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        compiled, linked = Path(folder, "compiled.o"), Path(folder, path.name)
        for command in (
            [compiler, *flags, "-c", str(source), "-o", str(compiled)],
            [compiler, "-shared", "-pthread", str(compiled), "-o", str(linked)],
        ):
            subprocess.run(command, check=True, capture_output=True, text=True)
        linked.replace(path)
    log.info("compiled %s", path)


def runs_natively(name: str, dtype: torch.dtype, device: torch.device) -> bool:
    """Whether that library takes matrices of this kind, and is there."""
    return device.type == "cpu" and dtype in _TYPES and library(name) is not None


def function(library_name: str, name: str, dtype: torch.dtype) -> Any:
    """The function of that library for matrices of this type."""
    return getattr(library(library_name), f"lit_rnn_{name}_{_TYPES[dtype]}")


def pointer(tensor: Tensor | None) -> ctypes.c_void_p:
    return ctypes.c_void_p(None if tensor is None else tensor.data_ptr())


def _reals(tensor: Tensor | None) -> Tensor | None:
    """Contiguous memory without lazy conjugation, complex numbers as pairs of reals."""
    if tensor is None:
        return None
    tensor = tensor.resolve_conj().resolve_neg().contiguous()
    return torch.view_as_real(tensor) if tensor.is_complex() else tensor


def _real_matrix(W: Tensor) -> Tensor:
    """W, or the (2n, 2n) matrix that does to [.., Re, Im, ..] what a complex W does."""
    if not W.is_complex():
        return W.contiguous()
    real, imaginary = W.real, W.imag
    columns = torch.stack((real, -imaginary), dim=-1), torch.stack((imaginary, real), dim=-1)
    return torch.stack(columns, dim=1).flatten(2).flatten(0, 1)


def _call(name: str, W: Tensor, sizes: tuple[int, ...], *tensors: Tensor | None) -> None:
    function("plain", name, W.dtype)(*map(ctypes.c_int, sizes), *map(pointer, tensors), ctypes.c_double(COMPLEX_EPS))


def forward(kind: str, u: Tensor, h0: Tensor, W: Tensor, bias: Tensor | None, h: Tensor, z: Tensor | None) -> None:
    """Fills h (T, B, n), and z of complex states where they are kept."""
    M = _real_matrix(W)
    sizes = KINDS.index(kind), *u.shape[:2], len(M), torch.get_num_threads()
    _call("forward", W, sizes, *map(_reals, (u, h0, M, bias, h, z)))


def backward(
    kind: str,
    grad: Tensor | None,
    grad_last: Tensor,
    W: Tensor,
    state: Tensor,
    bias: Tensor | None,
    delta: Tensor,
) -> Tensor | None:
    """Fills delta (T, B, n); the gradient by the bias."""
    by_bias = torch.zeros(torch.get_num_threads(), len(W), dtype=state.real.dtype)
    M = _real_matrix(W)
    sizes = KINDS.index(kind), *state.shape[:2], len(M), len(by_bias)
    _call("backward", W, sizes, *map(_reals, (grad, grad_last, M, state, bias, delta)), by_bias)
    return by_bias.sum(0) if bias is not None else None
