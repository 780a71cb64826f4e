"""C++ beside this file, compiled where it runs and kept; and the plain recurrence as one call into it (`plain.cpp`)."""

from __future__ import annotations

import ctypes
import functools
import hashlib
import itertools
import logging
import os
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lit_rnn.activations import COMPLEX_EPS
from lit_rnn.scan.compiler import COMMANDS, Compiler, find_compiler
from lit_rnn.scan.recurrence import COMPLEX, KINDS, Dense, Kept

log = logging.getLogger(__name__)

_HEADER = Path(__file__).with_name("vectors.h")
_FLAGS = ("-std=c++17", "-O3", "-fPIC", "-fno-math-errno", "-fno-trapping-math", "-pthread")
# what this CPU has, as torch found out; a cache shared by different machines keeps one library for each
_VECTORS = {
    "AVX512": ("-mavx512f", "-mavx512dq", "-mavx512vl", "-mavx512bw", "-mfma"),
    "AVX2": ("-mavx2", "-mfma"),
}
_TYPES = {torch.float32: "float32", torch.float64: "float64"}
_LINE = 64  # bytes, as in vectors.h


@functools.cache
def library(name: str) -> ctypes.CDLL | None:
    """What ``name``.cpp beside this file compiles to, or None where it cannot be compiled (said in the log).

    Compiled on first use, in some seconds, into ``$XDG_CACHE_HOME/lit_rnn`` (by default ``~/.cache/lit_rnn``) by the
    compiler that `find_compiler` finds. What lies there is loaded only if whole, and compiled again otherwise. It runs
    on torch's own OpenMP threads, or on threads of its own where torch has no OpenMP.
    """
    try:
        compiler = find_compiler()
        if compiler is not None:
            return _loaded(name, compiler)
        _say_that_a_compiler_is_missing()
    except (OSError, ValueError, subprocess.CalledProcessError) as error:  # ValueError: quotes left open in CXX
        why = getattr(error, "stderr", None) or error
        log.warning("no compiled recurrence on this machine, a slower backend runs instead: %s", why)
    return None


@functools.cache
def _say_that_a_compiler_is_missing() -> None:
    """In the log, once for all processes with this cache: nothing is wrong, and it is in the way of what they say."""
    try:
        _cache().mkdir(parents=True, exist_ok=True)
        _cache().joinpath("no-compiler").touch(exist_ok=False)
    except FileExistsError:
        return
    except OSError:  # no cache to remember it in
        pass
    log.warning(
        "no C++ compiler (CXX, %s, Python package ziglang): a slower backend runs instead of native; this is said once",
        ", ".join(COMMANDS),
    )


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "lit_rnn"


def _loaded(name: str, compiler: Compiler) -> ctypes.CDLL:
    source = Path(__file__).with_name(f"{name}.cpp")
    vectors = _VECTORS.get(torch.backends.cpu.get_cpu_capability(), ())
    command = (*compiler.command, *_FLAGS, *vectors, *compiler.compiling)
    key = _digest("\n".join((_HEADER.read_text(), source.read_text(), *command)).encode())
    kept = next((path for path in _cache().glob(f"{name}-{key}-*.so") if _is_whole(path)), None)
    linking = (*compiler.command, "-shared", *compiler.linking)
    return ctypes.CDLL(str(kept or _compile(source, f"{name}-{key}", command, linking)))


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


def _is_whole(path: Path) -> bool:
    """Whether it is what was compiled: its name ends with its digest. Loading a file cut short is a bus error."""
    whole = path.stem.endswith(f"-{_digest(path.read_bytes())}")
    if not whole:
        log.warning("%s is damaged; it is compiled again", path)
    return whole


def _compile(source: Path, name: str, compiling: tuple[str, ...], linking: tuple[str, ...]) -> Path:
    """Into a file of its own, then moved: processes that compile at once do not meet, and none leaves a lock."""
    _cache().mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=_cache()) as folder:
        compiled, linked = Path(folder, "compiled.o"), Path(folder, "linked.so")
        # ziglang keeps what it makes on the way, here until the folder goes
        environment = {**os.environ, "ZIG_GLOBAL_CACHE_DIR": folder, "ZIG_LOCAL_CACHE_DIR": folder}
        for arguments in (
            [*compiling, "-c", str(source), "-o", str(compiled)],
            [*linking, str(compiled), "-o", str(linked)],
        ):
            subprocess.run(arguments, check=True, capture_output=True, text=True, env=environment)
        path = linked.replace(_cache() / f"{name}-{_digest(linked.read_bytes())}.so")
    log.info("compiled %s", path)
    return path


def runs_natively(name: str, dtype: torch.dtype, device: torch.device) -> bool:
    """Whether that library takes matrices of this kind, and is there."""
    return device.type == "cpu" and dtype.to_real() in _TYPES and library(name) is not None


def function(library_name: str, name: str, dtype: torch.dtype) -> Any:
    """The function of that library for matrices of this type."""
    return getattr(library(library_name), f"lit_rnn_{name}_{_TYPES[dtype]}")


def pointer(tensor: Tensor | None) -> ctypes.c_void_p:
    return ctypes.c_void_p(None if tensor is None else tensor.data_ptr())


def packed(library_name: str, M: Tensor) -> Tensor:
    """M (rows, columns) in the order in which that library multiplies rows by it: once a pass."""
    rows, columns = M.shape
    line = _LINE // M.itemsize
    memory = M.new_empty(rows, -(-columns // line) * line)
    numbers = map(ctypes.c_int, M.shape), map(ctypes.c_int64, M.stride())
    function(library_name, "pack", M.dtype)(pointer(M), *itertools.chain(*numbers), pointer(memory))
    return memory


class Native(Dense):
    """The two recursions in C++, for the CPU."""

    def forward(self, u: Tensor, kept: Kept) -> None:
        h, modulus = kept
        run(self.kind, "plain", "forward", h[1:], (u, h[0], self._transposed, self.bias, h[1:], modulus), COMPLEX_EPS)

    def deltas(self, direct: Tensor | None, through: Tensor, kept: Kept, delta: Tensor) -> Tensor | None:
        h, by_bias = kept.h[1:], biases_per_thread(self.bias, delta)
        tensors = direct, through, self._packed, h, kept.modulus, self.bias, delta, by_bias
        run(self.kind, "plain", "backward", h, tensors)
        return None if self.bias is None else by_bias.sum(0)

    @functools.cached_property
    def _transposed(self) -> Tensor:
        return self._prepared(self.W.mT)

    @functools.cached_property
    def _packed(self) -> Tensor:
        return self._prepared(self.W)

    def _prepared(self, M: Tensor) -> Tensor:
        if self.kind != COMPLEX:
            return packed("plain", M)
        n = len(M) // 2  # M is [[A, B], [-B, A]]
        real, imaginary = M[:n, :n], M[:n, n:]
        return torch.stack([packed("plain", part) for part in (real, imaginary, real + imaginary)])


def run(
    kind: str, library_name: str, name: str, states: Tensor, tensors: Sequence[Tensor | None], *numbers: int | float
) -> None:
    """Calls C++ for the steps of ``states`` (steps, B, width); of ``tensors`` those to be filled are contiguous."""
    steps, B, width = states.shape
    sizes = KINDS.index(kind), steps, B, width // (1 + (kind == COMPLEX)), torch.get_num_threads()
    given = [tensor if tensor is None else tensor.contiguous() for tensor in tensors]
    function(library_name, name, states.dtype)(
        *map(ctypes.c_int, sizes),
        *map(pointer, given),
        *(ctypes.c_int(number) if isinstance(number, int) else ctypes.c_double(number) for number in numbers),
    )


def biases_per_thread(bias: Tensor | None, states: Tensor) -> Tensor:
    """Zeros for each thread to add its gradient by the bias to."""
    return states.new_zeros(torch.get_num_threads(), states.shape[-1] if bias is None else len(bias))
