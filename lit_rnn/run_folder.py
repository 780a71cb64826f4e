"""runs/<name>/: where a run lives, what may be written there, and its metrics.csv."""

from __future__ import annotations

import csv
import os
import re
import shutil
from pathlib import Path
from typing import Any

from lightning_fabric.loggers.logger import rank_zero_experiment
from pytorch_lightning import Trainer
from pytorch_lightning.loggers import CSVLogger, WandbLogger
from pytorch_lightning.loggers.csv_logs import ExperimentWriter

from datamodules import UserError
from lit_rnn.files import refuse_links

RUNS = Path("runs")
_CHOSEN = "LIT_RNN_RUN_DIR"  # tells the processes that Lightning launches which folder the first one chose


def initial_checkpoint(folder: Path) -> Path:
    return folder / "checkpoints" / "init.ckpt"


def last_checkpoint(folder: Path) -> Path:
    return folder / "checkpoints" / "last.ckpt"


def best_checkpoint(folder: Path) -> Path:
    return folder / "checkpoints" / "best.ckpt"


def keeps_files(trainer: Trainer) -> bool:
    """Whether a run leaves anything on disk: fast_dev_run does not."""
    return not trainer.fast_dev_run  # type: ignore[attr-defined]  # set by Lightning at run time


def show(trainer: Trainer, name: str, picture: Path) -> None:
    """Hand a picture to every logger that takes images."""
    for logger in trainer.loggers:
        if isinstance(logger, WandbLogger):
            logger.log_image(name, [str(picture)])


def newest_config(folder: Path) -> Path | None:
    """The config of the last command that trained here: config.yaml, or config-<highest number>.yaml of a resume."""

    def number(path: Path) -> int:
        return int(path.stem.rpartition("-")[2]) if "-" in path.stem else 1

    named = [path for path in folder.glob("config*.yaml") if re.fullmatch(r"config(-\d{1,9})?", path.stem)]
    return max(named, key=number, default=None)


def folder_of(checkpoint: Path) -> Path | None:
    """The run folder that a checkpoint lies in, None for one kept elsewhere."""
    folder = checkpoint.parent.parent
    return folder if checkpoint.parent.name == "checkpoints" and (folder / "config.yaml").is_file() else None


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


class _Writer(ExperimentWriter):
    """Goes on with the metrics.csv that is there, instead of deleting it."""

    def _check_log_dir_exists(self) -> None:
        self._written = 0
        if os.path.isfile(self.metrics_file_path):
            self.metrics_keys, rows = self._read()
            self._written = len(rows)

    @property
    def rows(self) -> int:
        """How many there are, also of those not yet on disk."""
        return self._written + len(self.metrics)

    def _read(self) -> tuple[list[str], list[dict[str, Any]]]:
        with open(self.metrics_file_path, newline="") as file:
            reader = csv.DictReader(file)
            return list(reader.fieldnames or []), list(reader)

    def _rewrite(self, rows: list[dict[str, Any]]) -> None:
        """Another file in one move: a kill in between leaves one of the two whole."""
        partial = f"{self.metrics_file_path}.partial"
        with open(partial, "w", newline="") as file:
            writer = csv.DictWriter(file, fieldnames=self.metrics_keys)
            writer.writeheader()
            writer.writerows(rows)
        os.replace(partial, self.metrics_file_path)
        self._written = len(rows)

    def _rewrite_with_new_header(self, fieldnames: list[str]) -> None:
        self._rewrite(self._read()[1])

    def forget_behind(self, count: int, owed: dict[str, Any] | None) -> None:
        """Keep the ``count`` rows that there were at a checkpoint, and put the one that was to follow behind them.

        A file with fewer rows is not the one that the checkpoint speaks of, and is left alone.
        """
        rows = self._read()[1] if os.path.isfile(self.metrics_file_path) else []
        if not rows or len(rows) < count:
            return
        self.metrics_keys = sorted({*self.metrics_keys, *(owed or {})})
        self._rewrite(rows[:count] + ([owed] if owed else []))

    def forget_from(self, step: int, inside_epoch: bool) -> None:
        """Drop what a run resumed after ``step`` steps writes again: later rows, and means of an unfinished epoch.

        For checkpoints that do not say how many rows there were.
        """
        if not os.path.isfile(self.metrics_file_path):
            return
        rows = [row for row in self._read()[1] if int(row["step"]) < step]
        if inside_epoch:
            rows = [row for row in rows if not (row.get("train/loss") and int(row["step"]) == step - 1)]
        self._rewrite(rows)

    def save(self) -> None:
        if self.metrics:  # and no hparams.yaml: config.yaml says it all
            written = self._written + len(self.metrics)
            super(ExperimentWriter, self).save()
            self._written = written


class MetricsCSV(CSVLogger):
    """metrics.csv in the run folder, one row per logged step, kept across a resume."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, name="", version="")

    @property
    @rank_zero_experiment
    def experiment(self) -> _Writer:
        if self._experiment is None:
            self._experiment = _Writer(log_dir=self.log_dir)
        return self._experiment  # type: ignore[return-value]

    def log_hyperparams(self, params: Any = None) -> None:
        """config.yaml holds them."""
