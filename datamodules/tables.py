"""Sequences from tables, one row a step: ``.csv``, ``.parquet``, and a folder of files for each class."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datamodules.arrays import Layout, Place, as_texts, composed, load_array, of_arrays, read_arrays
from datamodules.errors import UserError, did_you_mean, one_line
from datamodules.extras import needed
from datamodules.sequences import SPLITS, Sequences, joined

_MISSING = ("", "na", "n/a", "nan", "null", "none", "?")
SUFFIXES = (".csv", ".parquet")
_COLUMNS = ("sequence", "step", "split", "target_columns", "input_columns", "ignored_columns")


@dataclass(frozen=True)
class Table:
    """Columns by name, texts or numbers, and where each row stands."""

    source: str
    columns: Mapping[str, NDArray[Any]]
    at: Place

    def texts(self, name: str, what: str) -> NDArray[np.str_]:
        return as_texts(self.columns[name], self.at, what)

    def numbers(
        self, name: str, otherwise: str = "name the column in data.init_args.ignored_columns"
    ) -> NDArray[np.float64]:
        """A column as numbers, NaN where a cell is empty; ``otherwise``: what else one may do about one that is none.

        Raises:
            UserError: naming the first row that has neither.
        """
        cells = self.columns[name]
        if cells.dtype.kind != "U":
            return cells.astype(np.float64)
        low = np.char.lower(np.char.strip(cells))
        texts = np.where(np.isin(low, _MISSING), "nan", low)
        try:
            return texts.astype(np.float64)
        except ValueError:
            row = next(row for row, text in enumerate(texts) if not _is_number(text))
            raise UserError(
                f"{self.at(row)} has {str(cells[row])!r} in column {name}, but it must be a number: correct it, or "
                f"{otherwise}."
            ) from None


def _is_number(text: str) -> bool:
    try:
        np.array(text).astype(np.float64)
    except ValueError:
        return False
    return True


# ---- files


def read(path: Path, layout: Layout, key: str = "data.init_args.path") -> Sequences:
    """The sequences of a file or folder, by what it is called and holds.

    Raises:
        UserError: if it is none of those, or not whole, with file and line.
    """
    if not path.exists():
        raise UserError(f"{key} is {str(path)!r}, but there is no such file or folder.")
    if path.is_dir() and not any(path.glob("*.npy")):
        return read_classes(path, layout)
    if path.is_dir() or path.suffix == ".npz":
        layout.refuse_columns(path, *_COLUMNS)
        return read_arrays(path, layout)
    if path.suffix in SUFFIXES:
        return of_table(read_table(path), layout)
    more = (
        ": a single .npy holds inputs alone, so name the folder with x.npy and y.npy" if path.suffix == ".npy" else ""
    )
    raise UserError(
        f"{key} is {str(path)!r}, but it must be a .npz, .csv or .parquet file, a folder with x.npy and y.npy, or a "
        f"folder with one folder for each class{more}."
    )


def read_table(path: Path) -> Table:
    """A file's columns."""
    return _read_csv(path) if path.suffix == ".csv" else _read_parquet(path)


def _read_csv(path: Path) -> Table:
    rows: list[list[str]] = []
    lines: list[int] = []
    line = 0
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file, strict=True)
            header = [composed(name.strip()) for name in next(reader, [])]
            _check_header(header, path)
            for row in reader:
                line = reader.line_num
                if not row:
                    continue
                if len(row) != len(header):
                    raise UserError(f"{path}, line {line} has {len(row)} fields, but its header has {len(header)}.")
                rows.append(row)
                lines.append(line)
    except (csv.Error, UnicodeDecodeError, OSError) as error:
        raise UserError(
            f"{path} cannot be read after line {line} ({one_line(error)}): CSV in UTF-8 is accepted."
        ) from error
    if not rows:
        raise UserError(f"{path} holds no sequences: there is no row after its header.")
    columns = {name: np.array(cells) for name, cells in zip(header, zip(*rows, strict=True), strict=True)}
    return Table(str(path), columns, lambda row: f"{path}, line {lines[row]}")


def _check_header(header: list[str], path: Path) -> None:
    if not header:
        raise UserError(f"{path} is empty: a header and a row for each step are accepted.")
    if len(header) == 1 and any(mark in header[0] for mark in ";\t"):
        raise UserError(f"{path}, line 1 has no commas: save it with commas between its columns.")
    twice = next((name for i, name in enumerate(header) if name in header[:i]), None)
    if twice is not None:
        raise UserError(f"{path}, line 1 names column {twice!r} twice.")
    if "" in header:
        raise UserError(f"{path}, line 1 has no name for column {header.index('') + 1}: give it one, or take it out.")


def _read_parquet(path: Path) -> Table:
    pq = needed("pyarrow.parquet", path, "parquet")
    try:
        table = pq.read_table(str(path))
    except Exception as error:  # a damaged file raises whatever its bytes say
        raise UserError(f"{path} is no whole Parquet file ({one_line(error)[:200]}).") from error
    header = [composed(name) for name in table.column_names]
    _check_header(header, path)
    if not table.num_rows:
        raise UserError(f"{path} holds no sequences: it has no rows.")
    columns = {name: _column(cells, name, path) for name, cells in zip(header, table.columns, strict=True)}
    return Table(str(path), columns, lambda row: f"{path}, row {row}")


def _column(cells: Any, name: str, path: Path) -> NDArray[Any]:
    values = cells.to_pylist()
    if all(isinstance(value, str | None) for value in values):
        return np.array(["" if value is None else value for value in values], dtype=str)
    if all(isinstance(value, int | float | None) for value in values):
        whole = not any(value is None or isinstance(value, float) for value in values)
        return np.array([np.nan if value is None else value for value in values], dtype=None if whole else float)
    raise UserError(f"{path}: column {name!r} holds {cells.type}, but it must hold numbers or text.")


# ---- one row a step


def of_table(table: Table, layout: Layout) -> Sequences:
    """Sequences of a long table: rows with the same name in the sequence column, in order of its first appearance.

    Raises:
        UserError: naming the row that is wrong.
    """
    roles = {"sequence_column": (layout.sequence,), "target_columns": layout.target_columns}
    inputs = _input_columns(table, layout, roles)
    if layout.labels and len(layout.target_columns) != 1:
        raise UserError(
            f"data.init_args.target_columns names {len(layout.target_columns)} columns, but a label is one: leave one."
        )
    names, order, lengths = grouped(table, layout)
    starts = lengths.cumsum() - lengths

    def at(step: int) -> str:
        return table.at(int(order[step]))

    def of_sequence(name: str, column: NDArray[Any]) -> NDArray[Any]:
        """One value for each sequence."""
        sorted_ = column[order]
        same = np.repeat(sorted_[starts], lengths, axis=0)
        other = np.flatnonzero((sorted_ != same) & ~((sorted_ != sorted_) & (same != same)))  # NaN is NaN
        if len(other):
            raise UserError(
                f"{at(int(other[0]))} has {str(sorted_[other[0]])!r} in column {name}, but its sequence began "
                f"with {str(same[other[0]])!r}: a sequence has one, unless data.init_args.targets is label_per_step or "
                "frame_per_step."
            )
        return sorted_[starts]

    otherwise = (
        "name another in data.init_args.target_columns, or set data.init_args.targets to label or label_per_step"
    )
    read = [
        table.texts(name, "a label") if layout.labels else table.numbers(name, otherwise)
        for name in layout.target_columns
    ]
    given = [
        column[order] if layout.per_step else of_sequence(name, column)
        for name, column in zip(layout.target_columns, read, strict=True)
    ]
    splits = None
    if layout.split in table.columns and layout.split not in layout.ignored_columns:
        splits = of_sequence(layout.split, table.texts(layout.split, "a split"))
        wrong = np.flatnonzero(~np.isin(splits, SPLITS))
        if len(wrong):
            where = at(int(starts[wrong[0]]))
            raise UserError(
                f"{where} has {str(splits[wrong[0]])!r} in column {layout.split}, but it must be train, val or test."
            )
    values = inputs_of(table, layout, inputs)[order]
    targets = given[0] if layout.labels else np.stack(given, axis=1)
    return Sequences(table.source, values, targets, lengths, at, names, splits, inputs)


def grouped(table: Table, layout: Layout) -> tuple[NDArray[np.str_], NDArray[np.int64], NDArray[np.int64]]:
    """What the sequences are called, in order of their first appearance; the rows, one after another; the lengths."""
    ids = table.texts(layout.sequence, "the name of a sequence")
    blank = np.flatnonzero(ids == "")
    if len(blank):
        raise UserError(f"{table.at(int(blank[0]))} has nothing in column {layout.sequence}.")
    _, first, codes = np.unique(ids, return_index=True, return_inverse=True)
    group = np.argsort(np.argsort(first, kind="stable"), kind="stable")[codes]
    return ids[np.sort(first)], order_of(table, layout, group), np.bincount(group).astype(np.int64)


def _input_columns(table: Table, layout: Layout, roles: Mapping[str, tuple[str, ...]]) -> tuple[str, ...]:
    """The columns of inputs, in order: those named, or all that nothing else claims. ``roles``: others, by option."""
    there, asked = list(table.columns), layout.input_columns
    named = {**roles, "input_columns": asked, "ignored_columns": layout.ignored_columns}
    for field in ("step", "split"):  # which need not be there, unless somebody gave them another name
        if getattr(layout, field) != getattr(Layout, field):
            named[f"{field}_column"] = (getattr(layout, field),)
    for key, names in named.items():
        for number, name in enumerate(names):
            if name in names[:number]:
                raise UserError(f"data.init_args.{key} names {name!r} twice: leave one out.")
            if key != "ignored_columns" and name in layout.ignored_columns:
                raise UserError(
                    f"data.init_args.ignored_columns names {name!r}, which is also what data.init_args.{key} "
                    f"{'is' if key.endswith('column') else 'holds'}: leave it out of one."
                )
            if name not in there:
                raise UserError(
                    f"data.init_args.{key} names {name!r}, but {table.source}, line 1 has "
                    f"{', '.join(there)}{did_you_mean(name, there)}."
                )
    claimed = {
        layout.step,
        layout.split,
        *layout.ignored_columns,
        *(name for names in roles.values() for name in names),
    }
    rest = tuple(name for name in there if name not in claimed)
    stray = [name for name in rest if name not in asked]
    if asked and stray:
        raise UserError(
            f"{table.source}, line 1 has a column {stray[0]!r} that no option names: add it to "
            "data.init_args.input_columns or ignored_columns."
        )
    found = asked or rest
    if not found:
        raise UserError(f"{table.source}, line 1 has {', '.join(there)}, and none of them is left for the inputs.")
    if layout.inputs == "symbols" and len(found) > 1:
        raise UserError(
            f"{table.source}, line 1 has the input columns {', '.join(found)}, but a step of symbols is one symbol: "
            "name it in data.init_args.input_columns, and the others in ignored_columns."
        )
    return found


def inputs_of(table: Table, layout: Layout, names: tuple[str, ...]) -> NDArray[Any]:
    """(rows, I) numbers, or (rows,) texts of symbols."""
    if layout.inputs == "symbols":
        return table.texts(names[0], "a symbol")
    return np.stack([table.numbers(name) for name in names], axis=1)


def order_of(table: Table, layout: Layout, group: NDArray[np.int64]) -> NDArray[np.int64]:
    """The rows sequence by sequence, by the step column where there is one, else as they stand."""
    if layout.step not in table.columns or layout.step in layout.ignored_columns:
        return np.argsort(group, kind="stable")
    step = table.numbers(layout.step)
    order = np.lexsort((step, group))
    missing = np.flatnonzero(np.isnan(step))
    if len(missing):
        raise UserError(f"{table.at(int(missing[0]))} has nothing in column {layout.step}.")
    twice = np.flatnonzero((np.diff(step[order]) == 0) & (np.diff(group[order]) == 0))
    if len(twice):
        rows = sorted(order[twice[0] : twice[0] + 2].tolist())
        raise UserError(f"{table.at(rows[1])} has the same sequence and {layout.step} as {table.at(rows[0])}.")
    return order


# ---- a folder for each class


def read_classes(folder: Path, layout: Layout) -> Sequences:
    """``CLASS/FILE``, one sequence a file, or ``train/CLASS/FILE``, ``val/...`` and ``test/...``.

    Raises:
        UserError: naming the file that is none, or the folder that has none.
    """
    if layout.targets != "label":
        raise UserError(
            f"data.init_args.targets is {layout.targets!r}, but {folder} has a folder for each class, which is a "
            "label: set it to label, or give x.npy and y.npy, a .npz, .csv or .parquet."
        )
    layout.refuse_columns(folder, "sequence", "split", "target_columns")
    inside = _folders(folder)
    names = [path.name for path in inside]
    if "train" in names and set(names) <= set(SPLITS):
        return joined([_read_classes(path, layout).of_split(path.name) for path in inside], str(folder))
    return _read_classes(folder, layout)


def visible(folder: Path) -> list[Path]:
    """What is in it, by name, without what a file browser hides."""
    return sorted(path for path in folder.iterdir() if not path.name.startswith("."))


def _folders(folder: Path) -> list[Path]:
    inside = visible(folder)
    stray = [path for path in inside if not path.is_dir()]
    if stray or not inside:
        held = f"{stray[0].name} in it" if stray else "nothing in it"
        raise UserError(f"{folder} has {held}, but it must hold one folder for each class, or x.npy and y.npy.")
    return inside


def _read_classes(folder: Path, layout: Layout) -> Sequences:
    parts = []
    for inside in _folders(folder):
        files = visible(inside)
        if not files:
            raise UserError(f"{inside} holds no sequences: the class {inside.name!r} has no file.")
        parts += [_read_one(path, layout, composed(inside.name)) for path in files]
    return joined(parts, str(folder))


def _read_one(path: Path, layout: Layout, label: str) -> Sequences:
    """One sequence: (T,) or (T, I) of a ``.npy``, or the rows of a table."""
    if path.suffix == ".npy":
        layout.refuse_columns(path, *_COLUMNS)
        array = load_array(path)
        read = of_arrays([array], [label], None, None, layout, str(path), lambda step: f"{path}, step {step}")
        return replace(read, names=np.array([str(path)]))
    if path.suffix not in SUFFIXES:
        raise UserError(f"{path} is neither .npy, .csv nor .parquet, but each file of a class is one sequence.")
    table = read_table(path)
    said = [name for name in (layout.sequence, layout.split, *layout.target_columns) if name in table.columns]
    said = [name for name in said if name not in (*layout.input_columns, *layout.ignored_columns)]
    if said:
        raise UserError(
            f"{path}, line 1 has a column {said[0]!r}, but where each class has a folder, folders say the class and "
            "the split, and a file is a sequence: name it in data.init_args.ignored_columns."
        )
    names = _input_columns(table, layout, {})
    return replace(of_rows(table, layout, names), targets=np.array([label]))


def of_rows(table: Table, layout: Layout, names: tuple[str, ...]) -> Sequences:
    """All rows as one sequence, called as its file; ``names``: its input columns."""
    order = order_of(table, layout, np.zeros(len(table.columns[names[0]]), dtype=np.int64))
    values = inputs_of(table, layout, names)[order]
    lengths = np.array([len(values)], dtype=np.int64)
    called, nothing = np.array([table.source]), np.empty((1, 0))
    return Sequences(
        table.source, values, nothing, lengths, lambda step: table.at(int(order[step])), called, None, names
    )
