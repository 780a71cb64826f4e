"""A run's folder, runs/<name>/: how it is chosen, and when it may be written."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from datamodules.errors import UserError
from lit_rnn.files import refuse_links
from lit_rnn.runs.checkpoints import last_checkpoint

if TYPE_CHECKING:
    from pytorch_lightning import Trainer

RUNS = Path("runs")
_CHOSEN = "LIT_RNN_RUN_DIR"  # tells the processes that Lightning launches which folder the first one chose


def keeps_files(trainer: Trainer) -> bool:
    """Whether a run leaves anything on disk: fast_dev_run does not."""
    return not trainer.fast_dev_run  # type: ignore[attr-defined]  # set by Lightning at run time


def newest_config(folder: Path) -> Path | None:
    """The config of the last command that trained here: config.yaml, or config-<highest number>.yaml of a resume."""

    def number(path: Path) -> int:
        return int(path.stem.rpartition("-")[2]) if "-" in path.stem else 1

    named = [path for path in folder.glob("config*.yaml") if re.fullmatch(r"config(-\d{1,9})?", path.stem)]
    return max(named, key=number, default=None)


def _numbered(name: str) -> list[Path]:
    """The folders runs/<name>-<number> that exist, oldest first."""
    found = [path for path in RUNS.glob(f"{name}-*") if path.name[len(name) + 1 :].isdigit()]
    return sorted(found, key=lambda path: int(path.name[len(name) + 1 :]))


def newest(name: str) -> Path | None:
    """The newest of the folders that `fresh` made for ``name``."""
    return (_numbered(name) or [None])[-1]  # type: ignore[list-item]


def fresh(name: str) -> Path:
    """runs/<name>-<next number>, agreed on by all processes of the run."""
    if _CHOSEN in os.environ:
        return Path(os.environ[_CHOSEN])
    if int(os.environ.get("WORLD_SIZE", 1)) > 1 or int(os.environ.get("SLURM_NTASKS", 1)) > 1:
        raise UserError(
            "run_dir is not given, but several processes were started from outside (torchrun, Slurm): "
            "name one folder for all of them with --run_dir."
        )
    existing = _numbered(name)
    number = int(existing[-1].name[len(name) + 1 :]) + 1 if existing else 1
    folder = RUNS / f"{name}-{number}"
    os.environ[_CHOSEN] = str(folder)
    return folder


def forget_choice() -> None:
    """Let the next run of this process choose its own folder."""
    os.environ.pop(_CHOSEN, None)


def check(folder: Path, starts: bool) -> None:
    """Refuse a folder that cannot be written, has links out of it, or where a run that ``starts`` would overwrite one.

    Leaves nothing behind.

    Raises:
        UserError: saying which folder, and what to do.
    """
    refuse_links(folder)
    if starts and first_process():
        if (folder / "fit.json").is_file():
            raise UserError(f"run_dir {folder} already holds a finished run; name another folder with --run_dir.")
        if (folder / "config.yaml").is_file():
            raise UserError(
                f"run_dir {folder} already holds an unfinished run; go on with it by adding --ckpt_path last, "
                "or name another folder with --run_dir."
            )
    existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        what = "is not a folder" if not existing.is_dir() else "may not be written"
        raise UserError(f"run_dir {folder} cannot be made: {existing} {what}; name a writable folder with --run_dir.")


class Claim:
    """Makes a run folder, and can take back what was made since, so that a refused command leaves nothing.

    Raises:
        UserError: if the folder cannot be made.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        missing = [path for path in (folder, *folder.absolute().parents) if not path.exists()]
        self._made = missing[-1] if missing else None
        self._before = set(folder.iterdir()) if folder.is_dir() else set()
        self._trained = last_checkpoint(folder).is_file()
        try:
            (folder / "checkpoints").mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(
                f"run_dir {folder} cannot be made ({error.strerror}); name a writable folder with --run_dir."
            ) from error

    def take_back(self) -> None:
        """Remove what is new, unless the command has trained."""
        trained = last_checkpoint(self.folder).is_file() and not self._trained
        if trained or not first_process():
            return
        new = [self._made] if self._made else [path for path in self.folder.iterdir() if path not in self._before]
        for path in new:
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()


def first_process() -> bool:
    """Whether this is the process that speaks and writes for the run, as far as the environment tells."""
    return all(int(os.environ.get(key, 0)) == 0 for key in ("LOCAL_RANK", "RANK", "SLURM_PROCID"))
