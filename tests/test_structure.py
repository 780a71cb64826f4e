"""The house has floors: a module imports only what lies below it, no circle closes, and every wing has one plan."""

from __future__ import annotations

import ast
import functools
from pathlib import Path

import pytest

from lit_rnn.__main__ import COMMANDS

ROOT = Path(__file__).parents[1]
# from the ground up; modules of one floor may import each other inside their own folder only
FLOORS = [
    "lit_rnn.shadowing",
    "datamodules",
    "lit_rnn.class_paths",
    "lit_rnn.yaml_limits",
    "lit_rnn.files",
    "lit_rnn.published",
    "lit_rnn.threads",
    "lit_rnn.memory",
    "lit_rnn.blame",
    "lit_rnn.graphs",
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
    "lit_rnn.export",
    "lit_rnn.runs",
    "lit_rnn.report",
    "lit_rnn.loggers",
    "lit_rnn.callbacks",
    "lit_rnn.commands",
    "lit_rnn.__main__",
]
WINGS = ("fit", "study", "analyze", "attack", "compare", "autotune")
PLAN = {  # what the modules of a wing are called; fit is watched by callbacks, and draws nothing itself
    "fit": {"command", "subject", "settings", "trainer", "saved", "trial"},
    "study": {
        "command",
        "subject",
        "plan",
        "tried",
        "work",
        "local",
        "best",
        "estimate",
        "export",
        "measure",
        "pictures",
        "page",
    },
    "analyze": {"command", "subject", "settings", "work", "measure", "pictures", "page", "findings"},
    "attack": {"command", "subject", "work", "measure", "pictures", "page", "findings", "words"},
    "compare": {"command", "subject", "measure", "pictures", "page"},
    "autotune": {"command"},
}
DRAWS = ("matplotlib", "rich", "lit_rnn.report")
TABLE = ROOT / "lit_rnn" / "__main__.py"
# import what a user, a checkpoint or an extra names, or on demand what lies beside them; else a name is written there
BY_NAME = {"lit_rnn.__main__", "lit_rnn.class_paths", "datamodules.extras", "datamodules.lazy", "datamodules.uea"}
FILES = sorted(path for package in ("datamodules", "lit_rnn") for path in (ROOT / package).rglob("*.py"))


def module(path: Path) -> str:
    name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
    return name.removesuffix(".__init__")


def floor(name: str) -> int:
    found = [number for number, start in enumerate(FLOORS) if name == start or name.startswith(start + ".")]
    assert len(found) == 1, f"{name} stands on no floor: add it to FLOORS and to docs/contributing.md"
    return found[0]


@functools.cache
def every_import(path: Path) -> frozenset[str]:
    """What a file imports, modules of ours by their full name; their name as a text counts too, but in the table."""
    known = {module(file) for file in FILES} - {"lit_rnn", "datamodules"}
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Constant) and node.value in known and path != TABLE:
            found.add(node.value)
        elif isinstance(node, ast.ImportFrom) and node.module:
            full = [f"{node.module}.{alias.name}" for alias in node.names]
            found |= {name if name in known else node.module for name in full}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return frozenset(found)


def imports(path: Path) -> frozenset[str]:
    """What a file imports of ours."""
    ours = {name for name in every_import(path) if name.split(".")[0] in ("datamodules", "lit_rnn")}
    return frozenset(ours - {"lit_rnn"})


def wing(name: str) -> str | None:
    parts = name.split(".")
    return parts[2] if parts[:2] == ["lit_rnn", "commands"] and len(parts) > 2 and parts[2] in WINGS else None


def test_imports_go_down() -> None:
    modules = {path: module(path) for path in FILES if module(path) != "lit_rnn"}
    pairs = [(here, name) for path, here in modules.items() for name in imports(path)]
    assert not [f"{here} imports {name}, which is above it" for here, name in pairs if floor(name) > floor(here)]


def test_data_knows_nothing_of_models() -> None:
    for path in FILES:
        if module(path).startswith("datamodules"):
            assert not {name for name in imports(path) if name.startswith("lit_rnn")}


@pytest.mark.parametrize("package", ["analysis", "robustness", "scan", "cells", "init", "parametrizations"])
def test_the_mathematics_knows_no_lightning_and_no_pictures(package: str) -> None:
    """Nowhere, inside functions neither; `test_startup` holds it for all that comes with it."""
    for path in FILES:
        if module(path).startswith(f"lit_rnn.{package}"):
            above = {
                name for name in every_import(path) if name.startswith(("pytorch_lightning", "lightning", "matplotlib"))
            }
            assert not above, f"{module(path)} imports {above}"


def identifiers(path: Path) -> set[str]:
    """Every name that a file uses or imports, without what stands before its last point."""
    found = {ast.Name: "id", ast.Attribute: "attr", ast.alias: "name"}
    nodes = (node for node in ast.walk(ast.parse(path.read_text())) if type(node) in found)
    return {getattr(node, found[type(node)]).rpartition(".")[2] for node in nodes}


def test_few_import_what_is_not_named_there() -> None:
    """Nobody gets round these tests by a name that is put together."""
    by_name = {module(path) for path in FILES if identifiers(path) & {"import_module", "__import__", "runpy"}}
    assert by_name == BY_NAME


def test_no_wing_imports_another() -> None:
    for path in FILES:
        if path == TABLE:  # it knows them all, and hands one what it needs of another
            continue
        here = wing(module(path))
        others = {name for name in imports(path) if wing(name)}
        if here is not None:
            assert not {name for name in others if wing(name) != here}, f"{module(path)} reaches into another wing"
        else:
            assert not others, f"{module(path)} is what wings share, and imports one"


@pytest.mark.parametrize("name", WINGS)
def test_every_wing_has_one_plan(name: str) -> None:
    folder = ROOT / "lit_rnn" / "commands" / name
    assert {path.stem for path in folder.glob("*.py")} - {"__init__"} == PLAN[name]
    assert len((folder / "command.py").read_text().splitlines()) < 150
    for path in folder.rglob("measure.py"):
        drawing = {one for one in every_import(path) if one.startswith(DRAWS)}
        assert not drawing, f"{path} measures, and imports {drawing}"


def test_the_table_of_commands_leads_to_the_wings() -> None:
    assert {home for home, _ in COMMANDS.values()} == {f"lit_rnn.commands.{name}.command" for name in WINGS}


def test_arguments_are_parsed_in_commands_alone() -> None:
    parsers = ("argparse", "jsonargparse")
    for path in FILES:
        if not module(path).startswith("lit_rnn.commands"):
            assert not {name for name in every_import(path) if name.startswith(parsers)}, module(path)


def test_no_file_is_longer_than_one_sitting() -> None:
    lines = {module(path): len(path.read_text().splitlines()) for path in FILES}
    assert not {name: count for name, count in lines.items() if count > 400}, "split what has more than 400 lines"
