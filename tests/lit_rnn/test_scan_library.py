"""The compiled libraries: which command compiles them, and what is loaded from the cache."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from lit_rnn.scan import native
from lit_rnn.scan.native import library

# damages what is kept, and loads it anew
DAMAGE = """
import logging, sys
from pathlib import Path
from lit_rnn.scan import native
from lit_rnn.scan.native import library
logging.basicConfig()
native._FLAGS = ("-std=c++17", "-O0", "-fPIC", "-pthread")
(path,) = Path(sys.argv[1]).glob("*.so")
whole = path.read_bytes()
flipped = bytearray(whole)
flipped[len(whole) // 2] ^= 1
for damaged in (whole[: len(whole) // 2], b"", bytes(flipped)):
    other = path.with_suffix(".new")
    other.write_bytes(damaged)
    other.replace(path)  # a file of its own: what this process has loaded stays
    library.cache_clear()
    assert library("rotations") is not None
    assert whole == path.read_bytes()
"""


@pytest.fixture
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """An empty cache, and nothing loaded from another."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(native, "_FLAGS", ("-std=c++17", "-O0", "-fPIC", "-pthread"))  # quick to compile
    library.cache_clear()
    yield tmp_path / "lit_rnn"
    library.cache_clear()


def test_a_damaged_library_is_compiled_again(cache: Path) -> None:
    """Cut short, emptied, one bit flipped; in a process of its own, since the first was a bus error."""
    assert library("rotations") is not None
    child = subprocess.run([sys.executable, "-c", DAMAGE, str(cache)], capture_output=True, text=True)
    assert child.returncode == 0, child.stderr
    assert child.stderr.count("is damaged") == 3


def test_a_whole_library_is_not_compiled_again(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert library("rotations") is not None
    (path,) = cache.iterdir()  # and nothing temporary is left
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: pytest.fail("compiled again"))
    library.cache_clear()
    assert library("rotations") is not None
    assert list(cache.iterdir()) == [path]


@pytest.mark.parametrize("options", ["-DOTHER", "-DOTHER='\"two words\"'"])
def test_cxx_is_split_as_a_shell_would(options: str, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compiler = shutil.which("c++") or shutil.which("g++")
    assert compiler is not None
    commands = []
    run = subprocess.run

    def spy(arguments: list[str], **rest: object) -> object:
        commands.append(arguments)
        return run(arguments, **rest)  # type: ignore[call-overload]

    monkeypatch.setattr(subprocess, "run", spy)
    monkeypatch.setenv("CXX", f"{compiler} {options}")
    assert library("rotations") is not None
    expected = [compiler, "-DOTHER" if options == "-DOTHER" else '-DOTHER="two words"']
    assert len(commands) == 2 and all(arguments[:2] == expected for arguments in commands)


@pytest.mark.parametrize("command", ["no-such-compiler -m64", "g++ 'left open"])
def test_a_command_that_compiles_nothing_is_said(
    command: str, cache: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("CXX", command)
    assert native.library("rotations") is None
    assert "no compiled recurrence on this machine" in caplog.text
    assert not list(cache.glob("*"))
