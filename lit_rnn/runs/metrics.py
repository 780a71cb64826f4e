"""metrics.csv of a run folder: rows are kept across a resume, and those that a resume writes again are dropped."""

from __future__ import annotations

import csv
import os
from pathlib import Path
from typing import Any

from lightning_fabric.loggers.logger import rank_zero_experiment
from pytorch_lightning.loggers import CSVLogger
from pytorch_lightning.loggers.csv_logs import ExperimentWriter


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

        A file with fewer rows does not belong to the checkpoint, and is left alone.
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
