"""The compiled libraries: which compiler is taken, what is loaded from the cache, and whose threads they run on."""

from __future__ import annotations

import importlib.util
import logging
import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from datamodules import UserError
from lit_rnn import cells
from lit_rnn.scan import choose_backend, compiler, native, scan
from lit_rnn.scan.native import library
from tests.logs import Logs

needs_a_compiler = pytest.mark.skipif(compiler.find_compiler() is None, reason="no C++ compiler on this machine")


@pytest.fixture
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """An empty cache, and nothing loaded from another."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(native, "_FLAGS", ("-std=c++17", "-O0", "-fPIC", "-pthread"))  # quick to compile
    library.cache_clear()
    yield tmp_path / "lit_rnn"
    library.cache_clear()


@pytest.fixture
def short(cache: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The cache, and a source of one line, where it does not matter what is compiled."""
    (tmp_path / "rotations.cpp").write_text('extern "C" int lit_rnn_one() { return 1; }\n')
    monkeypatch.setattr(native, "__file__", str(tmp_path / "native.py"))
    return cache


def damage(path: Path) -> None:
    """Damage what is kept, and load it anew: cut short, emptied, one bit flipped."""
    whole = path.read_bytes()
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 1
    for damaged in (whole[: len(whole) // 2], b"", bytes(flipped)):
        other = path.with_suffix(".new")
        other.write_bytes(damaged)
        other.replace(path)  # a file of its own: what this process has loaded stays
        library.cache_clear()
        loaded = library("rotations")
        assert loaded is not None and loaded.lit_rnn_one() == 1
        assert whole == path.read_bytes()


@needs_a_compiler
def test_a_damaged_library_is_compiled_again(short: Path, tmp_path: Path) -> None:
    """In a process of its own, since the first was a bus error."""
    assert library("rotations") is not None
    (path,) = short.glob("*.so")
    process = os.fork()
    if process == 0:
        status = 1
        try:
            with (tmp_path / "said").open("w") as said:
                logging.basicConfig(stream=said, force=True)
                damage(path)
            status = 0
        finally:  # a fork must not go on as its parent
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == 0, (tmp_path / "said").read_text()
    assert (tmp_path / "said").read_text().count("is damaged") == 3


@needs_a_compiler
def test_a_whole_library_is_not_compiled_again(short: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert library("rotations") is not None
    (path,) = short.iterdir()  # and nothing temporary is left
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: pytest.fail("compiled again"))
    library.cache_clear()
    assert library("rotations") is not None
    assert list(short.iterdir()) == [path]


@pytest.mark.parametrize("options", ["-DOTHER", "-DOTHER='\"two words\"'"])
def test_cxx_is_split_as_a_shell_would(options: str, short: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gcc = next(filter(None, map(shutil.which, compiler.COMMANDS)), None)
    if gcc is None:
        pytest.skip("no C++ compiler on this machine's path")
    commands = []
    run = subprocess.run

    def spy(arguments: list[str], **rest: object) -> object:
        commands.append(arguments)
        return run(arguments, **rest)  # type: ignore[call-overload]

    monkeypatch.setattr(subprocess, "run", spy)
    monkeypatch.setenv("CXX", f"{gcc} {options}")
    assert library("rotations") is not None
    expected = [gcc, "-DOTHER" if options == "-DOTHER" else '-DOTHER="two words"']
    assert len(commands) == 2 and all(arguments[:2] == expected for arguments in commands)


@pytest.mark.parametrize("command", ["no-such-compiler -m64", "g++ 'left open"])
def test_a_command_that_compiles_nothing_is_said(
    command: str, cache: Path, monkeypatch: pytest.MonkeyPatch, logs: Logs
) -> None:
    monkeypatch.setenv("CXX", command)
    assert native.library("rotations") is None
    assert "no compiled recurrence on this machine" in logs.text
    assert not list(cache.glob("*"))


def hide_compilers(monkeypatch: pytest.MonkeyPatch, but: Path) -> None:
    """Leaves the commands in one folder, and no ziglang."""
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setenv("PATH", str(but))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)


def test_the_first_compiler_there_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    hide_compilers(monkeypatch, but=tmp_path)
    assert compiler.find_compiler() is None
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name == "ziglang" or None)
    found = compiler.find_compiler()
    assert found is not None and found.command == (sys.executable, "-m", "ziglang", "c++")
    for name in reversed(compiler.COMMANDS):
        (tmp_path / name).touch(mode=0o755)
        assert compiler.find_compiler() == compiler.Compiler((name,))
    monkeypatch.setenv("CXX", "other -m64")
    assert compiler.find_compiler() == compiler.Compiler(("other", "-m64"))


def test_a_missing_compiler_is_said_once_on_a_machine(
    cache: Path, monkeypatch: pytest.MonkeyPatch, logs: Logs, tmp_path: Path
) -> None:
    hide_compilers(monkeypatch, but=tmp_path)
    for _ in range(2):  # as another process would
        native._say_that_a_compiler_is_missing.cache_clear()
        library.cache_clear()
        assert library("plain") is None and library("gated") is None
    assert [record.levelno for record in logs.records] == [logging.WARNING]
    assert "no C++ compiler" in logs.text
    monkeypatch.setenv("XDG_CACHE_HOME", os.devnull)  # nowhere to remember it: once in a process
    native._say_that_a_compiler_is_missing.cache_clear()
    library.cache_clear()
    assert library("plain") is None and library("gated") is None
    assert len(logs.records) == 2


def test_backends_that_cannot_be_compiled(monkeypatch: pytest.MonkeyPatch, cache: Path, tmp_path: Path) -> None:
    """They are refused in a sentence; auto takes others."""
    hide_compilers(monkeypatch, but=tmp_path)
    plain, slow = cells.ExpRNNCell(3, 4), cells.NRUCell(3, 4, 9, use_relu=True)
    assert choose_backend("auto", plain) == "fused"
    assert choose_backend("auto", slow, expected_steps=10**6) == "loop"
    assert {choose_backend("auto", kind(3, 4)) for kind in (cells.LRUCell, cells.DeltaProductCell)} == {"parallel"}
    for asked in ("native", "compiled"):
        with pytest.raises(UserError, match=rf"backend is '{asked}', .*C\+\+ compiler"):
            choose_backend(asked, plain)  # type: ignore[arg-type]


def test_torch_compile_needs_a_compiler_and_headers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sysconfig, "get_path", lambda name: str(tmp_path))
    assert not compiler.torch_compiles()
    (tmp_path / "g++").touch(mode=0o755)
    assert not compiler.torch_compiles()
    (tmp_path / "Python.h").touch()
    assert compiler.torch_compiles()
    monkeypatch.setenv("CXX", "elsewhere -m64")
    assert not compiler.torch_compiles()


@pytest.mark.skipif(importlib.util.find_spec("ziglang") is None, reason="ziglang is not installed")
def test_what_ziglang_compiles_is_the_loop(monkeypatch: pytest.MonkeyPatch, cache: Path, tmp_path: Path) -> None:
    """Without a C++ library, and without what it would say about undefined behaviour."""
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    cell, x = cells.ExpRNNCell(3, 37).double(), torch.randn(5, 4, 3, dtype=torch.float64, requires_grad=True)
    try:
        torch.set_num_threads(2)
        found, expected = (
            (y := scan(cell, x, backend=backend)[0], *torch.autograd.grad(y.sin().sum(), (x, *cell.parameters())))
            for backend in ("native", "loop")
        )
    finally:
        torch.set_num_threads(1)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)
    (path,) = cache.iterdir()  # ziglang's own cache went with the temporary folder
    assert path.name.startswith("plain-")


# W h + u over two steps by three threads, of five rows and then three, in a process that has no OpenMP
OWN_THREADS = """
import ctypes, sys
import numpy as np
if sys.platform == "linux":
    ctypes.CDLL("libstdc++.so.6", ctypes.RTLD_GLOBAL)  # torch has loaded it where a library of ours is loaded
native = ctypes.CDLL(sys.argv[1])
assert not hasattr(ctypes.CDLL(None), "GOMP_parallel")
rows, n = np.array([5, 3], np.int32), 3
generator = np.random.default_rng(0)
W, u, h0 = generator.normal(size=(n, n)), generator.normal(size=(8, n)), generator.normal(size=(5, n))
packed, h = np.zeros((n, 8)), np.zeros((8, n))
at = lambda array: ctypes.c_void_p(array.ctypes.data)
transposed = np.ascontiguousarray(W.T)
native.lit_rnn_pack_float64(at(transposed), n, n, ctypes.c_int64(n), ctypes.c_int64(1), at(packed))
arrays = at(rows), at(packed), at(u), at(h0), None, at(h), None
native.lit_rnn_forward_float64(0, 2, n, 3, *arrays, ctypes.c_double(0))
first = h0 @ W.T + u[:5]
np.testing.assert_allclose(h, np.concatenate((first, first[:3] @ W.T + u[5:])), rtol=1e-13)
"""


@needs_a_compiler
def test_threads_of_their_own_where_there_is_no_openmp(cache: Path) -> None:
    assert library("plain") is not None
    (path,) = cache.glob("*.so")
    child = subprocess.run([sys.executable, "-c", OWN_THREADS, str(path)], capture_output=True, text=True)
    assert child.returncode == 0, child.stderr
