"""The numbers that a finished command left in a run folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from datamodules.errors import UserError
from lit_rnn.files import read_json

Result = tuple[Path, dict[str, Any]]  # a run folder and its fit.json


def read_result(folder: Path, command: str = "fit") -> dict[str, Any]:
    """The numbers that a finished run left in its folder.

    Raises:
        UserError: if there are none.
    """
    path = folder / f"{command}.json"
    if not path.is_file():
        raise UserError(f"{folder} holds no finished run (no {path}); name folders that `fit` has ended in.")
    return read_json(path, ("model", "task", "parameters", "steps", "loss", "chance", "metric", "value", "seconds"))
