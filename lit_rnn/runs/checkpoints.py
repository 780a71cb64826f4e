"""The checkpoints of a run folder: where they lie, and which one is meant."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from datamodules.errors import UserError


def initial_checkpoint(folder: Path) -> Path:
    return folder / "checkpoints" / "init.ckpt"


def last_checkpoint(folder: Path) -> Path:
    return folder / "checkpoints" / "last.ckpt"


def best_checkpoint(folder: Path) -> Path:
    return folder / "checkpoints" / "best.ckpt"


def folder_of(checkpoint: Path) -> Path | None:
    """The run folder that a checkpoint lies in, None for one kept elsewhere."""
    folder = checkpoint.parent.parent
    return folder if checkpoint.parent.name == "checkpoints" and (folder / "config.yaml").is_file() else None


def find_checkpoint(ckpt_path: str | None, run_dir: Path | None, preferred: Literal["best", "last"]) -> Path:
    """The file that --ckpt_path and --run_dir name; of a run folder alone the preferred one, or its last.

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
