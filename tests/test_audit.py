"""`make audit` says what was audited, and never that all is well where nothing was."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest

PATH = Path(__file__).parents[1] / ".ci/audit.py"


@pytest.fixture(scope="module")
def audit() -> Any:
    spec = importlib.util.spec_from_file_location("audit", PATH)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def printed(*packages: dict[str, Any]) -> str:
    """As `pip-audit --format json` prints it."""
    return json.dumps({"dependencies": list(packages), "fixes": []})


SOUND = {"name": "a", "version": "1", "vulns": []}
HOLE = {"id": "PYSEC-1", "fix_versions": ["2.1"], "aliases": ["CVE-1"], "description": "bad"}
TORN = {"name": "b", "version": "2", "vulns": [HOLE]}
UNKNOWN = {"name": "c", "skip_reason": "Dependency not found on PyPI and could not be audited: c (3)"}


def test_all_well(audit: Any) -> None:
    assert audit.judge(printed(SOUND), "") == (0, "1 packages were audited, 0 vulnerabilities found.")


def test_a_vulnerability(audit: Any) -> None:
    status, text = audit.judge(printed(SOUND, TORN), "Found 1 known vulnerability in 1 package")
    assert status == 1 and text.splitlines()[0] == "b 2: PYSEC-1, fixed in 2.1"
    assert text.splitlines()[1].startswith("2 packages were audited, 1 vulnerabilities")


def test_some_are_unknown(audit: Any) -> None:
    status, text = audit.judge(printed(SOUND, UNKNOWN), "")
    assert status == 0 and text.endswith("not in the database: c.")


@pytest.mark.parametrize(
    ("output", "errors", "words"),
    [
        (printed(UNKNOWN), "", "has vulnerabilities of none of the 1 packages"),
        ("", "Traceback...\nrequests.exceptions.ConnectionError: Max retries exceeded", "cannot be reached"),
        ("", "No module named pip_audit", "pip-audit failed (No module named pip_audit)"),
        ("", "", "pip-audit failed (it said nothing)"),
    ],
)
def test_where_nothing_was_audited_one_sentence_says_why(audit: Any, output: str, errors: str, words: str) -> None:
    status, text = audit.judge(output, errors)
    assert status == 1 and words in text and text.startswith("Nothing was audited: ") and "\n" not in text


def test_pip_audit_takes_the_options() -> None:
    pytest.importorskip("pip_audit", reason="pip-audit is not installed")
    from pip_audit._cli import _parser

    source = PATH.read_text()
    options = [word.strip(' "') for word in source.partition('"-m", "pip_audit", ')[2].partition(")")[0].split(",")]
    _parser().parse_args([*options, "--requirement", str(PATH)])
