"""A study of one's own, in an empty folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from lit_rnn.commands.study.subject import Study, read_study
from tests.lit_rnn.commands.study.made import BASE, Planned, Write


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Writes base.yaml and study.yaml into an empty folder and goes there."""
    monkeypatch.chdir(tmp_path)
    Path("base.yaml").write_text(yaml.safe_dump(BASE))

    def write(**keys: Any) -> str:
        Path("study.yaml").write_text(yaml.safe_dump({"base": "base.yaml", **keys}, sort_keys=False))
        return "study.yaml"

    return write


@pytest.fixture
def planned(study: Write) -> Planned:
    """The same, read."""

    def write(**keys: Any) -> Study:
        return read_study(study(**keys))

    return write
