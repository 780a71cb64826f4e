"""metrics.csv of a run folder: rows are kept across a resume, and those that a resume writes again are dropped."""

from __future__ import annotations

import contextlib
import csv
import io
import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lightning_fabric.loggers.logger import rank_zero_experiment
from pytorch_lightning.loggers import CSVLogger
from pytorch_lightning.loggers.csv_logs import ExperimentWriter

from lit_rnn.files import cannot_write, set_aside, write_file
from lit_rnn.runs.curves import parse_rows

Row = dict[str, Any]


class _Writer(ExperimentWriter):
    """Goes on with the metrics.csv that is there, instead of deleting it.

    Rows are appended, and are on the disk where a checkpoint counts them (`flush`): to have each there when it is
    logged would cost a small network as much as its step. A file with other columns replaces the one before in one
    move.
    """

    def _check_log_dir_exists(self) -> None:
        self.path = Path(self.metrics_file_path)
        self._written, self._repaired = 0, False
        self._columns: list[str] = []  # of the file
        if self.path.is_file():
            content = self.path.read_bytes()
            self.metrics_keys, rows, damage = parse_rows(content)
            self._written, self._columns = len(rows), list(self.metrics_keys)
            if damage is not None:
                set_aside(self.path, damage)
                self._repaired = True
            if damage is not None or not content.endswith(b"\n"):  # a kill may cut the last row
                self._rewrite(rows)

    @property
    def rows(self) -> int:
        """How many there are, also of those not yet on disk."""
        return self._written + len(self.metrics)

    def _read(self) -> list[Row]:
        return parse_rows(self.path.read_bytes())[1] if self.path.is_file() else []

    def _rewrite(self, rows: list[Row]) -> None:
        if rows:
            write_file(self.path, _text(self.metrics_keys, rows, header=True))
        else:
            self.path.unlink(missing_ok=True)
            self.metrics_keys = []
        self._written, self._columns = len(rows), list(self.metrics_keys)

    def forget_behind(self, count: int, owed: Row | None, step: int, inside_epoch: bool, own: bool) -> None:
        """Keep the ``count`` rows that there were at a checkpoint, and put the one that was to follow behind them.

        A file with fewer rows has lost some, which a warning says, and is cut as by `forget_from`; where the checkpoint
        is not the run's ``own``, they are not those of the file, which is left as it is.
        """
        rows = self._read()
        if len(rows) < count and (own or self._repaired):
            if not self._repaired:
                warnings.warn(
                    f"{self.path} has {len(rows)} of the {count} rows that it had when the checkpoint was saved: those "
                    "of the other steps are lost, and the curves have a gap.",
                    stacklevel=2,
                )
            self.forget_from(step, inside_epoch)
        elif rows and len(rows) >= count:
            self.metrics_keys = sorted({*self.metrics_keys, *(owed or {})})
            self._rewrite(rows[:count] + ([owed] if owed else []))

    def forget_from(self, step: int, inside_epoch: bool) -> None:
        """Drop what a run resumed after ``step`` steps writes again: later rows, and means of an unfinished epoch.

        For checkpoints that do not say how many rows there were, and for a run that starts again.
        """
        rows = [row for row in self._read() if int(row["step"]) < step]
        if inside_epoch:
            rows = [row for row in rows if not (row.get("train/loss") and int(row["step"]) == step - 1)]
        self._rewrite(rows)

    def save(self) -> None:
        """Put what was logged on the disk; and no hparams.yaml: config.yaml says it all."""
        if not self.metrics:
            return
        self._record_new_keys()
        if self.metrics_keys != self._columns or not self.path.is_file():  # also where an attempt has failed
            self._rewrite([*self._read(), *self.metrics])
        else:
            self._append(_text(self.metrics_keys, self.metrics, header=False).encode())
            self._written += len(self.metrics)
        self.metrics = []

    def flush(self) -> None:
        """Have on the disk what was saved."""
        try:
            with contextlib.suppress(FileNotFoundError), self.path.open("r+b") as file:
                os.fsync(file.fileno())
        except OSError as error:
            raise cannot_write(self.path, error) from error

    def _append(self, data: bytes) -> None:
        try:
            with self.path.open("r+b", buffering=0) as file:
                end = file.seek(0, os.SEEK_END)
                try:
                    if file.write(data) != len(data):  # the disk is full: a second attempt says so
                        file.write(data)
                except OSError:
                    file.truncate(end)  # half a row would be in the way of the next
                    raise
        except OSError as error:
            raise cannot_write(self.path, error) from error


def _text(keys: Sequence[str], rows: Sequence[Row], header: bool) -> str:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, fieldnames=keys)
    if header:
        writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


class MetricsCSV(CSVLogger):
    """metrics.csv in the run folder, one row per logged step, kept across a resume."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, name="", version="")

    @property
    @rank_zero_experiment
    def experiment(self) -> _Writer:
        if self._experiment is None:
            self._experiment = _Writer(log_dir=self.log_dir)
        return self._experiment  # type: ignore[return-value]  # made here alone

    def log_hyperparams(self, params: Any = None) -> None:
        """config.yaml holds them."""

    def finalize(self, status: str) -> None:
        super().finalize(status)
        if self._experiment is not None:
            self.experiment.flush()
