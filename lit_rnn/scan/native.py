"""C++ beside this file: compiled where it runs and kept, and what is passed to it by address."""

from __future__ import annotations

import ctypes
import functools
import hashlib
import itertools
import logging
import os
import subprocess
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from datamodules.errors import require
from lit_rnn.scan.cache import cache_folder
from lit_rnn.scan.checks import check
from lit_rnn.scan.compiler import COMMANDS, Compiler, find_compiler

log = logging.getLogger(__name__)

_HEADERS = sorted(Path(__file__).parent.glob("*.h"))
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
        cache_folder().mkdir(parents=True, exist_ok=True)
        cache_folder().joinpath("no-compiler").touch(exist_ok=False)
    except FileExistsError:
        return
    except OSError:  # no cache to remember it in
        pass
    log.warning(
        "no C++ compiler (CXX, %s, Python package ziglang): a slower backend runs instead of native; this is said once",
        ", ".join(COMMANDS),
    )


def _loaded(name: str, compiler: Compiler) -> ctypes.CDLL:
    source = Path(__file__).with_name(f"{name}.cpp")
    vectors = _VECTORS.get(torch.backends.cpu.get_cpu_capability(), ())
    command = (*compiler.command, *_FLAGS, *vectors, *compiler.compiling)
    texts = [path.read_text() for path in (*_HEADERS, source)]
    key = _digest("\n".join((*texts, *command)).encode())
    kept = next((path for path in cache_folder().glob(f"{name}-{key}-*.so") if _is_whole(path)), None)
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
    cache_folder().mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache_folder()) as folder:
        compiled, linked = Path(folder, "compiled.o"), Path(folder, "linked.so")
        # ziglang keeps what it makes on the way, here until the folder goes
        environment = {**os.environ, "ZIG_GLOBAL_CACHE_DIR": folder, "ZIG_LOCAL_CACHE_DIR": folder}
        for arguments in (
            [*compiling, "-c", str(source), "-o", str(compiled)],
            [*linking, str(compiled), "-o", str(linked)],
        ):
            subprocess.run(arguments, check=True, capture_output=True, text=True, env=environment)
        path = linked.replace(cache_folder() / f"{name}-{_digest(linked.read_bytes())}.so")
    log.info("compiled %s", path)
    return path


def runs_natively(name: str, dtype: torch.dtype, device: torch.device) -> bool:
    """Whether that library takes matrices of this kind, and is there."""
    return device.type == "cpu" and dtype.to_real() in _TYPES and library(name) is not None


def function(library_name: str, name: str, dtype: torch.dtype) -> Any:
    """The function of that library for matrices of this type."""
    accepted = " or ".join(_TYPES.values())
    require(dtype in _TYPES, "The type of the recurrent weights", str(dtype), f"{accepted} for backend native")
    return getattr(library(library_name), f"lit_rnn_{name}_{_TYPES[dtype]}")


class Memory(NamedTuple):
    """What C++ reads or fills, and what it will take it for: C++ asks no more questions."""

    name: str
    tensor: Tensor | None
    shape: tuple[int, ...]
    dtype: torch.dtype | None = None  # None: that of the other tensors
    apart: bool = False  # whether its rows, each in one piece, may lie apart

    def address(self, dtype: torch.dtype) -> ctypes.c_void_p:
        """Raises `UserError` unless the tensor is contiguous, or ``apart``, of this shape and type, and on the CPU."""
        tensor = check(self.name, self.tensor, self.shape, self.dtype or dtype, torch.device("cpu"))
        whole = tensor.stride(-1) == 1 if self.apart else tensor.is_contiguous()
        accepted = "that of rows in one piece" if self.apart else "that of contiguous memory"
        require(whole and _written_out(tensor) is tensor, f"The stride of {self.name}", tensor.stride(), accepted)
        return ctypes.c_void_p(tensor.data_ptr())


def addresses(memory: Iterable[Memory | None], dtype: torch.dtype) -> list[ctypes.c_void_p | None]:
    """None stays one: a null pointer."""
    return [None if part is None else part.address(dtype) for part in memory]


def readable(tensor: Tensor) -> Tensor:
    """The same numbers, contiguous and as they lie in memory."""
    return _written_out(tensor).contiguous()


def _written_out(tensor: Tensor) -> Tensor:
    """The same numbers, with none that torch has only marked as negated or as zero."""
    return tensor.clone() if tensor.is_neg() or tensor._is_zerotensor() else tensor


def packed(library_name: str, M: Tensor, shape: tuple[int, int]) -> Tensor:
    """M of this shape (rows, columns) in the order in which that library multiplies rows by it: once a pass."""
    fill = function(library_name, "pack", M.dtype)
    check("A recurrent matrix", M, shape, M.dtype, torch.device("cpu"))
    M, memory = _written_out(M), M.new_empty(packed_shape(shape, M.dtype))
    numbers = map(ctypes.c_int, M.shape), map(ctypes.c_int64, M.stride())
    fill(ctypes.c_void_p(M.data_ptr()), *itertools.chain(*numbers), ctypes.c_void_p(memory.data_ptr()))
    return memory


def packed_shape(shape: Sequence[int], dtype: torch.dtype) -> tuple[int, int]:
    """Rows, and columns up to whole cache lines."""
    rows, columns = shape
    line = _LINE // dtype.itemsize
    return rows, -(-columns // line) * line
