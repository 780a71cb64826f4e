"""Curves of a run, read from its metrics.csv."""

from __future__ import annotations

import csv
from pathlib import Path


def read_curve(metrics: Path, column: str) -> tuple[list[int], list[float]]:
    """Steps and values of one column of a metrics.csv, where it has values; two empty lists if there is none."""
    if not metrics.is_file():
        return [], []
    with metrics.open(newline="") as file:
        points = [(int(row["step"]) + 1, float(row[column])) for row in csv.DictReader(file) if row.get(column)]
    return [step for step, _ in points], [value for _, value in points]
