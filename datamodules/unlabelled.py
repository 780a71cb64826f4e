"""Sequences whose targets nobody knows, from files like those that a network was trained on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from datamodules import tables
from datamodules.arrays import Layout, arrays_of, inputs_of_arrays
from datamodules.errors import UserError
from datamodules.sequences import Sequences, joined


def read(path: Path, layout: Layout, columns: tuple[str, ...], key: str) -> Sequences:
    """The sequences of a file or folder, whatever else is there: targets, splits and other columns are not read.

    Args:
        path: A table with one row for each step; a ``.npz``, or a folder of ``.npy`` files, with ``x`` and if need be
            ``lengths``; a ``.npy`` of one sequence; or a folder in which each file is one sequence.
        layout: What the training files hold.
        columns: Their input columns; none where they hold arrays.
        key: The option that names ``path``.

    Raises:
        UserError: if there is no such thing, or if it is not whole.
    """
    if not path.exists():
        raise UserError(f"{key} is {str(path)!r}, but there is no such file or folder.")
    if path.suffix == ".npz" or (path / "x.npy").exists():
        arrays = arrays_of(path)
        if "x" not in arrays:
            raise UserError(f"{path} holds {', '.join(arrays) or 'no arrays'}, but it must hold x.")
        return inputs_of_arrays(arrays["x"](), arrays["lengths"]() if "lengths" in arrays else None, layout, str(path))
    if path.suffix in tables.SUFFIXES:
        table = _like(tables.read_table(path), layout, columns, (layout.sequence,))
        names, order, lengths = tables.grouped(table, layout)
        values = tables.inputs_of(table, layout, columns)[order]
        nothing = np.empty((len(lengths), 0))
        return Sequences(
            table.source, values, nothing, lengths, lambda step: table.at(int(order[step])), names, None, columns
        )
    files = tables.visible(path) if path.is_dir() else [path]
    if not files:
        raise UserError(f"{key} is {str(path)!r}, which is empty: give it a file for each sequence.")
    return joined([_read_one(file, layout, columns) for file in files], str(path))


def _read_one(path: Path, layout: Layout, columns: tuple[str, ...]) -> Sequences:
    """A file that is one sequence, and gives it its name."""
    if path.suffix in tables.SUFFIXES:
        return tables.of_rows(_like(tables.read_table(path), layout, columns, ()), layout, columns)
    if path.suffix == ".npy":
        one = inputs_of_arrays([arrays_of(path)["x"]()], None, layout, str(path), lambda step: f"{path}, step {step}")
        return replace(one, names=np.array([str(path)]))
    raise UserError(f"{path} is neither .npy, .npz, .csv nor .parquet, but sequences are read from those.")


def _like(table: tables.Table, layout: Layout, columns: tuple[str, ...], more: tuple[str, ...]) -> tables.Table:
    """The columns that the training files were read by, and ``more``.

    Raises:
        UserError: naming one that is missing.
    """
    if not columns:
        raise UserError(f"{table.source} is a table, but training was on arrays: give a .npz or .npy.")
    step = (layout.step,) if layout.step not in layout.ignored_columns else ()
    due = (*more, *(step if layout.step != Layout.step else ()), *columns)
    lacking = [name for name in due if name not in table.columns]
    if lacking:
        there = ", ".join(table.columns)
        raise UserError(f"{table.source}, line 1 has {there}, but no column {lacking[0]!r}, as training files have.")
    kept = (*more, *step, *columns)
    return replace(table, columns={name: table.columns[name] for name in kept if name in table.columns})
