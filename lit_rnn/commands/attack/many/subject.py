"""The runs of some studies."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from datamodules.errors import UserError
from lit_rnn.runs.results import finished_below


def finished_runs(folders: Sequence[Path]) -> list[Path]:
    """The run folders below some study folders, in the order of the study, or by name.

    Raises:
        UserError: if a folder holds none.
    """
    runs: list[Path] = []
    for folder in folders:
        found = finished_below(folder)
        if not found:
            raise UserError(f"--study {folder} holds no finished run (no */fit.json): name the folder of a study.")
        runs += found
    return runs


def setting_of(run: Path) -> tuple[str, str]:
    """The setting and the seed of a study's run folder; a folder with any other name is a setting of its own."""
    setting, mark, seed = run.name.rpartition("-seed=")
    return (setting, seed) if mark else (run.name, "")
