"""The C++ compiler of this machine: the one it has, or the one that a Python package brings."""

from __future__ import annotations

import importlib.util
import os
import shlex
import shutil
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path

COMMANDS = ("c++", "g++", "clang++")


@dataclass(frozen=True)
class Compiler:
    """A command, and what it must be told beside what every compiler is told."""

    command: tuple[str, ...]
    compiling: tuple[str, ...] = ()
    linking: tuple[str, ...] = ("-pthread",)


def find_compiler() -> Compiler | None:
    """The command in ``CXX``, split as a shell would; else the first of `COMMANDS` on the path; else package ziglang.

    ziglang compiles for the CPU that it finds and with traps for undefined behaviour unless told otherwise. A C++
    library to link with would have to be compiled first, for a minute: the sources do without (`vectors.h`).

    Raises:
        ValueError: if quotes are left open in ``CXX``.
    """
    if given := shlex.split(os.environ.get("CXX", "")):
        return Compiler(tuple(given))
    if found := next(filter(shutil.which, COMMANDS), None):
        return Compiler((found,))
    if importlib.util.find_spec("ziglang") is None:
        return None
    alone = ("-mcpu=baseline", "-fno-sanitize=all", "-fno-exceptions", "-fno-rtti", "-g0", "-DLIT_RNN_ALONE")
    return Compiler((sys.executable, "-m", "ziglang", "c++"), alone, ("-nostdlib",))


def torch_compiles() -> bool:
    """Whether torch.compile can on the CPU: it takes the command in ``CXX`` or its own, and needs Python's headers."""
    command = shlex.split(os.environ.get("CXX", "")) or ["clang++" if sys.platform == "darwin" else "g++"]
    return shutil.which(command[0]) is not None and Path(sysconfig.get_path("include"), "Python.h").is_file()
