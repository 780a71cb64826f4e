"""The house has floors: a module imports only what lies below it, and no circle closes."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# from the ground up; modules of one floor may import each other inside their own folder only
FLOORS = [
    "datamodules",
    "lit_rnn.class_paths",
    "lit_rnn.files",
    "lit_rnn.threads",
    "lit_rnn.memory",
    "lit_rnn.blame",
    "lit_rnn.dtypes",
    "lit_rnn.activations",
    "lit_rnn.init",
    "lit_rnn.parametrizations",
    "lit_rnn.cells",
    "lit_rnn.analysis",
    "lit_rnn.scan",
    "lit_rnn.robustness",
    "lit_rnn.optim",
    "lit_rnn.models",
    "lit_rnn.run_folder",
    "lit_rnn.report",
    "lit_rnn.callbacks",
    "lit_rnn.trainer",
    "lit_rnn.run_config",
    "lit_rnn.settings",
    "lit_rnn.arguments",
    "lit_rnn.cli",
    "lit_rnn.study",
    "lit_rnn.__main__",
]
FILES = sorted(path for package in ("datamodules", "lit_rnn") for path in (ROOT / package).rglob("*.py"))


def module(path: Path) -> str:
    name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
    return name.removesuffix(".__init__")


def floor(name: str) -> int:
    found = [number for number, start in enumerate(FLOORS) if name == start or name.startswith(start + ".")]
    assert len(found) == 1, f"{name} stands on no floor: add it to FLOORS and to the README"
    return found[0]


def imports(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            full = [f"{node.module}.{alias.name}" for alias in node.names]
            known = {module(file) for file in FILES}
            found |= {name if name in known else node.module for name in full}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return {name for name in found if name.split(".")[0] in ("datamodules", "lit_rnn") and name != "lit_rnn"}


@pytest.mark.parametrize("path", [path for path in FILES if module(path) != "lit_rnn"], ids=module)
def test_imports_go_down(path: Path) -> None:
    here = module(path)
    for name in imports(path):
        assert floor(name) <= floor(here), f"{here} imports {name}, which is above it"


def test_data_knows_nothing_of_models() -> None:
    for path in FILES:
        if module(path).startswith("datamodules"):
            assert not {name for name in imports(path) if name.startswith("lit_rnn")}
