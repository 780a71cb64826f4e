"""Somebody's own datamodules in the way of ours: a sentence that names it, for every command and for `import`."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from lit_rnn.shadowing import shadow_of

ROOT = Path(__file__).parents[2]
SHADOWS = ["datamodules/__init__.py", "datamodules.py"]


def python(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """A fresh Python in ``folder``, which finds this package where the tests found it."""
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    line = [sys.executable, *arguments]
    return subprocess.run(line, cwd=folder, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": path})


@pytest.fixture(params=SHADOWS)
def shadow(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    path = tmp_path / request.param
    path.parent.mkdir(exist_ok=True)
    path.write_text("raise SystemExit('the wrong module ran')\n")
    return path.parent if path.name == "__init__.py" else path


@pytest.mark.parametrize("arguments", [[], ["--version"], ["fit"], ["compare", "a", "b"]], ids=" ".join)
def test_on_the_command_line(tmp_path: Path, shadow: Path, arguments: list[str]) -> None:
    before = sorted(tmp_path.rglob("*"))
    done = python(tmp_path, "-m", "lit_rnn", *arguments)
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr == f"lit_rnn: {shadow} hides the package datamodules of lit_rnn: rename it, or start Python " + (
        "from another folder.\n"
    )
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("module", ["lit_rnn", "lit_rnn.cells"])
def test_in_python(tmp_path: Path, shadow: Path, module: str) -> None:
    done = python(tmp_path, "-c", f"import {module}")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith(f"ImportError: {shadow} hides the package datamodules of lit_rnn")


def test_the_installed_script(tmp_path: Path, shadow: Path) -> None:
    """It is a file called lit_rnn; here the folder of the shadow is on the path, as by PYTHONPATH."""
    script = tmp_path / "bin" / "lit_rnn"
    script.parent.mkdir()
    script.write_text(f"import sys\nsys.path.insert(0, {str(tmp_path)!r})\nfrom lit_rnn.__main__ import main\nmain()\n")
    done = python(tmp_path, str(script), "--version")
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1 and str(shadow) in done.stderr


def test_a_module_imported_before(tmp_path: Path) -> None:
    code = "import sys, types\nsys.modules['datamodules'] = types.ModuleType('datamodules')\nimport lit_rnn"
    done = python(tmp_path, "-c", code)
    assert "ImportError: the module datamodules that is imported already hides" in done.stderr


def test_a_folder_without_modules(tmp_path: Path) -> None:
    """A namespace package is found only where ours is not on sys.path itself, but brought by an import hook."""
    (tmp_path / "datamodules").mkdir()
    hook = (
        "import importlib.util, sys\n"
        f"sys.path = [p for p in sys.path if p != {str(ROOT)!r}]\n"
        "class Hook:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        f"        place = {str(ROOT)!r} + '/' + name.replace('.', '/') + '/__init__.py'\n"
        "        known = name in ('lit_rnn', 'datamodules')\n"
        "        return importlib.util.spec_from_file_location(name, place) if known else None\n"
        "sys.meta_path = [f for f in sys.meta_path if 'editable' not in str(f)] + [Hook()]\n"
    )
    done = python(tmp_path, "-c", f"{hook}import lit_rnn")
    assert f"{tmp_path / 'datamodules'} hides" in done.stderr, done.stderr


def test_nothing_in_the_way(tmp_path: Path) -> None:
    assert python(tmp_path, "-m", "lit_rnn", "--version").returncode == 0
    assert shadow_of(ROOT / "datamodules") is None
    assert shadow_of(tmp_path / "nowhere") is None
