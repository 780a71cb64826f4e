"""The checkpoints of a run folder: where they lie, and which one is meant."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any, Literal

from datamodules.errors import UserError
from lit_rnn.files import set_aside


def initial_checkpoint(folder: Path) -> Path:
    return folder / "checkpoints" / "init.ckpt"


def last_checkpoint(folder: Path) -> Path:
    return folder / "checkpoints" / "last.ckpt"


def previous_checkpoint(folder: Path) -> Path:
    """The one before the last: what a run goes on from where the last is damaged."""
    return folder / "checkpoints" / "previous.ckpt"


def best_checkpoint(folder: Path) -> Path:
    return folder / "checkpoints" / "best.ckpt"


def is_started(folder: Path) -> bool:
    """Whether there is a checkpoint to go on from."""
    return last_checkpoint(folder).is_file() or previous_checkpoint(folder).is_file()


def read_last(folder: Path, *, repair: bool = False) -> tuple[Path, dict[str, Any]]:
    """The newest whole checkpoint of a run and what is in it: last.ckpt, or, with a warning, the one before.

    Args:
        folder: Of the run.
        repair: Set a damaged one aside, so that the next to be saved does not push out the whole one.

    Raises:
        UserError: if there is none.
    """
    from lit_rnn.models import read_checkpoint  # here: commands name checkpoints before they import torch

    last, previous = last_checkpoint(folder), previous_checkpoint(folder)
    if not is_started(folder):
        begun = (folder / "config.yaml").is_file()
        what = "start it again with --resume auto" if begun else "name the folder of a run with --run_dir"
        raise UserError(f"ckpt_path is last, but run_dir {folder} holds no checkpoint (no {last}): {what}.")
    if not last.is_file():  # killed between two renames
        return previous, read_checkpoint(previous)
    try:
        return last, read_checkpoint(last)
    except UserError as error:
        if not previous.is_file() or isinstance(error.__cause__, PermissionError):
            raise
        found = previous, read_checkpoint(previous)
        if repair:
            set_aside(last, type(error.__cause__).__name__, f", and {previous}, saved before it, is used")
        else:
            warnings.warn(f"{last} is damaged; {previous}, saved before it, is used.", stacklevel=2)
        return found


def folder_of(checkpoint: Path) -> Path | None:
    """The run folder that a checkpoint lies in, None for one kept elsewhere."""
    folder = checkpoint.parent.parent
    return folder if checkpoint.parent.name == "checkpoints" and (folder / "config.yaml").is_file() else None


def find_checkpoint(ckpt_path: str | None, run_dir: Path | None, preferred: Literal["best", "last"]) -> Path:
    """The file that --ckpt_path and --run_dir name; given only a run folder, the preferred one, or its last.

    Raises:
        UserError: if they name none.
    """
    if ckpt_path is not None and ckpt_path not in ("best", "last"):
        return Path(ckpt_path)
    if run_dir is None:
        what = "is not given" if ckpt_path is None else f"is {ckpt_path}, but the run's folder is not given"
        raise UserError(f"ckpt_path {what}: give --ckpt_path FILE, or --run_dir DIR.")
    best, last = best_checkpoint(run_dir), last_checkpoint(run_dir)
    path = best if (ckpt_path or preferred) == "best" else last
    if not path.is_file() and ckpt_path is None:
        path = last
    if not path.is_file():
        raise UserError(f"run_dir {run_dir} holds no checkpoint (no {path}): name another run folder.")
    return path
