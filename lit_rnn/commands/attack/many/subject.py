"""The runs of some studies."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from datamodules.errors import UserError
from lit_rnn.files import read_json


def finished_runs(folders: Sequence[Path]) -> list[Path]:
    """The run folders below some study folders, in the order of the study, or by name.

    Raises:
        UserError: if a folder holds none.
    """
    runs: list[Path] = []
    for folder in folders:
        found = sorted(path.parent for path in folder.glob("*/fit.json"))
        if not found:
            raise UserError(f"--study {folder} holds no finished run (no */fit.json): name the folder of a study.")
        plan = folder / "plan.json"
        order = list(read_json(plan)) if plan.is_file() else []
        runs += sorted(found, key=lambda run: order.index(run.name) if run.name in order else len(order))
    return runs


def setting_of(run: Path) -> tuple[str, str]:
    """The setting and the seed of a study's run folder; a folder of another name is a setting by itself."""
    setting, mark, seed = run.name.rpartition("-seed=")
    return (setting, seed) if mark else (run.name, "")
