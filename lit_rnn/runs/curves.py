"""Curves of a run, read from its metrics.csv."""

from __future__ import annotations

import csv
import io
from pathlib import Path

from datamodules.errors import UserError, one_line


def parse_rows(content: bytes) -> tuple[list[str], list[dict[str, str]], str | None]:
    """Columns and rows of a metrics.csv, and what is wrong with it, if anything is.

    A last row without an end, as a kill leaves it, is left out.
    """
    text = content.decode(errors="replace").replace("\0", "?")
    try:
        lines = list(csv.reader(io.StringIO(text[: text.rfind("\n") + 1], newline="")))
    except csv.Error as error:  # a field of more than 131,072 characters
        return [], [], one_line(error)
    if not lines:
        return [], [], None
    keys, rows = lines[0], lines[1:]
    if "step" not in keys or len(set(keys)) < len(keys):
        return [], [], "its first line names no columns"
    step = keys.index("step")
    whole = [row for row in rows if len(row) == len(keys) and row[step].isdecimal()]
    damage = None if len(whole) == len(rows) else f"{len(rows) - len(whole)} of its {len(rows)} rows are not whole"
    return keys, [dict(zip(keys, row, strict=True)) for row in whole], damage


def read_curve(metrics: Path, column: str) -> tuple[list[int], list[float]]:
    """Steps and values of one column of a metrics.csv, where it has values; two empty lists if there is none.

    Args:
        metrics: The file.
        column: Its column.

    Raises:
        UserError: if a value is no number.
    """
    if not metrics.is_file():
        return [], []
    rows = parse_rows(metrics.read_bytes())[1]
    try:
        points = [(int(row["step"]) + 1, float(row[column])) for row in rows if row.get(column)]
    except ValueError as error:
        raise UserError(f"{metrics} is damaged ({one_line(error)}): recreate it or remove it.") from error
    return [step for step, _ in points], [value for _, value in points]


def is_whole(metrics: Path, steps: int) -> bool:
    """Whether the rows of a metrics.csv reach the last of so many optimizer steps: those of half a copy do not."""
    return max(read_curve(metrics, "step")[0], default=0) >= steps
