"""Sequences from arrays: in Python, in ``.npz`` files, and in folders of ``.npy`` files."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from numbers import Real
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from datamodules.errors import UserError, as_in_yaml, one_line
from datamodules.loader import Indices
from datamodules.sequences import SPLITS, Sequences, joined

_PARTS = ("x", "y", "lengths", "splits")
Place = Callable[[int], str]


@dataclass(frozen=True)
class Layout:
    """What is in the files, and under which names; see `datamodules.SequenceFiles`."""

    inputs: Literal["values", "symbols"]
    targets: Literal["label", "value", "label_per_step", "frame_per_step"]
    sequence: str = "sequence"
    step: str = "step"
    split: str = "split"
    target_columns: tuple[str, ...] = ("target",)
    input_columns: tuple[str, ...] = ()
    ignored_columns: tuple[str, ...] = ()

    def refuse_columns(self, source: object, *names: str) -> None:
        """Refuse columns that somebody named, fields of this class, where nothing is read by them.

        Raises:
            UserError: naming the option.
        """
        for name in names:
            given = getattr(self, name)
            if given != getattr(Layout, name):
                shown = as_in_yaml(list(given) if isinstance(given, tuple) else given)
                raise UserError(f"{_option(name)} is {shown}, but {source} has no such columns: leave it out.")

    @property
    def per_step(self) -> bool:
        return self.targets.endswith("per_step")

    @property
    def labels(self) -> bool:
        return self.targets.startswith("label")


def composed(text: str) -> str:
    """A text whose letters with marks are one character each (NFC): files from macOS may have them in two."""
    return unicodedata.normalize("NFC", text)


def _option(field: str) -> str:
    """The option that gives a field of `Layout`."""
    return f"data.init_args.{field if field.endswith('columns') else f'{field}_column'}"


def load_array(path: Path, name: str | None = None) -> NDArray[Any]:
    """An array of a ``.npy`` file, or the one called ``name`` of a ``.npz``; pickles are never read.

    Raises:
        UserError: if it is none, or holds Python objects.
    """
    where = str(path) if name is None else f"array {name} of {path}"
    try:
        with path.open("rb") as file:
            found = np.load(file, allow_pickle=False)
            array = found if name is None else found[name]
    except Exception as error:  # a damaged file raises whatever its bytes say
        raise UserError(
            f"{where} cannot be read ({one_line(error) or type(error).__name__}): a whole array of numbers or text is "
            "accepted, and no Python objects."
        ) from error
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "biufU":
        raise UserError(f"{where} holds {getattr(array, 'dtype', 'no array')}, but it must hold numbers or text.")
    return array


Arrays = Mapping[str, Callable[[], NDArray[Any]]]
"""By name, read when asked for."""


def arrays_of(path: Path) -> Arrays:
    """The arrays of a ``.npz``, of a single ``.npy``, which is called ``x``, or of a folder with such files by name."""
    if path.is_dir():
        return {file.stem: partial(load_array, file) for file in sorted(path.glob("*.npy"))}
    if path.suffix == ".npy":
        return {"x": partial(load_array, path)}
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            names = list(archive.files)
    except Exception as error:  # as above
        reason = one_line(error) or type(error).__name__
        raise UserError(f"{path} cannot be read ({reason}): a whole .npz file is accepted.") from error
    return {name: partial(load_array, path, name) for name in names}


def read_arrays(path: Path, layout: Layout) -> Sequences:
    """Of ``x``, ``y`` and if need be ``lengths`` and ``splits``; or of ``x_train``, ``y_train`` and so on."""
    arrays, source = arrays_of(path), str(path)
    suffixes = [f"_{split}" for split in SPLITS if f"x_{split}" in arrays] or [""]
    known = [f"{part}{suffix}" for suffix in suffixes for part in _PARTS]
    stray = [name for name in arrays if name not in known]
    lacking = [name for suffix in suffixes for name in (f"x{suffix}", f"y{suffix}") if name not in arrays]
    if stray or lacking:
        held = ", ".join(arrays) or "no arrays"
        raise UserError(
            f"{source} holds {held}, but it must hold x and y, and may hold lengths and splits, or x_train, y_train "
            "and so on for train, val and test, and nothing else."
        )
    parts = []
    for suffix in suffixes:
        given = {part: arrays[f"{part}{suffix}"]() for part in _PARTS if f"{part}{suffix}" in arrays}
        where = f"{source} ({suffix[1:]})" if suffix else source
        read = of_arrays(given["x"], given["y"], given.get("lengths"), given.get("splits"), layout, where)
        parts.append(read.of_split(suffix[1:]) if suffix else read)
    return joined(parts, source)


def of_arrays(
    x: Any, y: Any, lengths: Any, splits: Any, layout: Layout, source: str, at: Place | None = None
) -> Sequences:
    """Sequences from arrays.

    Args:
        x: (N, T) or (N, T, I), filled up behind ``lengths`` where those are given; or (S,) or (S, I), one sequence
            after another, where ``lengths`` sum to S; or a list of (T_i,) or (T_i, I).
        y: (N,) or (N, O), or per step as ``x`` is.
        lengths: (N,).
        splits: (N,) of train, val and test.
        layout: What both are.
        source: Their file, for sentences.
        at: Where a step stands, if not as sequence and step of the source.

    Raises:
        UserError: if they do not fit together.
    """
    read = inputs_of_arrays(x, lengths, layout, source, at)
    steps, begins, N = read.lengths, read.starts, len(read.lengths)
    if layout.per_step:
        y_steps, y_rows = _rows("y", y, lengths, source)
        if not np.array_equal(y_steps, steps):
            raise UserError(f"{source}: y does not have the steps of x, but targets are {layout.targets}.")
    else:
        if isinstance(y, list | tuple) and len({np.shape(one) for one in y}) > 1:
            raise UserError(
                f"{source}: y has a list of its own length for each sequence, but data.init_args.targets is "
                f"{layout.targets}: set it to label_per_step or frame_per_step."
            )
        y_rows = _array("y", y, source)
        if len(y_rows) != N:
            raise UserError(
                f"{source} has {N} sequences in x, but {len(y_rows)} targets in y; data.init_args.targets is "
                f"{layout.targets}."
            )

    def row_at(row: int) -> str:
        return read.at(row if layout.per_step else int(begins[row]))

    targets: NDArray[Any]
    if layout.labels:
        targets = as_texts(_flat(y_rows, source), row_at, "label")
    else:
        targets = _numbers(y_rows, len(y_rows), "y", source)
    return replace(read, targets=targets, splits=_checked_splits(splits, N, source))


def inputs_of_arrays(x: Any, lengths: Any, layout: Layout, source: str, at: Place | None = None) -> Sequences:
    """As `of_arrays`, of sequences without targets."""
    steps, rows = _rows("x", x, lengths, source)
    N, S = len(steps), int(steps.sum())
    begins = np.concatenate(([0], steps.cumsum()))

    def place(step: int) -> str:
        number = int(np.searchsorted(begins, step, side="right")) - 1
        return f"{source}, sequence {number}, step {step - int(begins[number])}"

    where = at or place
    inputs: NDArray[Any]
    if layout.inputs == "symbols":
        if rows.ndim > 1 and rows.shape[1:] != (1,):
            raise UserError(f"{source}: x has {rows.shape[1]} channels, but a step of symbols is one symbol.")
        inputs = as_texts(rows.reshape(S), where, "inputs")
    else:
        inputs = _numbers(rows, S, "x", source)
    return Sequences(source, inputs, np.empty((N, 0)), steps, where, np.arange(N).astype(str))


def _array(name: str, value: Any, source: str) -> NDArray[Any]:
    try:
        array = np.asarray(value)
    except (ValueError, TypeError, RuntimeError) as error:  # ragged, or a tensor that NumPy cannot take
        raise UserError(f"{source}: {name} is no array ({one_line(error)}).") from error
    if array.dtype.kind == "O":
        array = _of_one_kind(array)
    if array.dtype.kind not in "biufU" or array.ndim == 0:
        given = f"holds {array.dtype}" if array.ndim else f"is of type {type(value).__name__}"
        raise UserError(f"{source}: {name} {given}, but it must be an array of numbers or text.")
    return array


def _of_one_kind(array: NDArray[Any]) -> NDArray[Any]:
    """Python objects, as pandas keeps text, as the texts or the numbers that they all are; others as they stand."""
    alike = any(all(isinstance(one, kind) for one in array.flat) for kind in (str, Real))
    return np.array(array.tolist()) if alike and array.ndim else array


def _rows(name: str, value: Any, lengths: Any, source: str) -> tuple[Indices, NDArray[Any]]:
    """The lengths, and all steps one after another."""
    if isinstance(value, list | tuple) or getattr(getattr(value, "dtype", None), "kind", "") == "O":
        if lengths is not None:
            raise UserError(f"{source}: {name} is a list, whose sequences have their own lengths: leave lengths out.")
        each = [_array(f"{name} of sequence {i}", one, source) for i, one in enumerate(value)]
        if not each:
            raise UserError(f"{source} holds no sequences.")
        for i, one in enumerate(each):
            if one.ndim and not len(one):
                raise UserError(f"{source}: {name} of sequence {i} has no steps, but it must have at least one.")
            if one.ndim not in (1, 2) or one.shape[1:] != each[0].shape[1:]:
                raise UserError(
                    f"{source}: {name} of sequence {i} has shape {one.shape}, but it must be as sequence 0, of shape "
                    f"{each[0].shape}, but for the number of steps."
                )
        return np.array([len(one) for one in each], dtype=np.int64), np.concatenate(each)
    array = _array(name, value, source)
    if array.size == 0:
        raise UserError(f"{source} holds no sequences: {name} has shape {array.shape}.")
    if lengths is None:
        if array.ndim not in (2, 3):
            raise UserError(
                f"{source}: {name} has shape {array.shape}, but it must be (sequences, steps) or (sequences, steps, "
                "width), or come with lengths."
            )
        return np.full(len(array), array.shape[1], dtype=np.int64), array.reshape(-1, *array.shape[2:])
    steps = _array("lengths", lengths, source)
    if steps.ndim != 1 or steps.dtype.kind not in "iu" or len(steps) == 0 or int(steps.min()) < 1:
        raise UserError(f"{source}: lengths must be whole numbers of at least 1, one for each sequence.")
    steps = steps.astype(np.int64)
    if int(steps.sum()) == len(array) and array.ndim < 3:
        return steps, array
    if array.ndim not in (2, 3) or len(steps) != len(array) or int(steps.max()) > array.shape[1]:
        raise UserError(
            f"{source}: {name} has shape {array.shape}, and {len(steps)} lengths up to {int(steps.max())} fit neither "
            "its sequences nor, by their sum, its steps."
        )
    return steps, array[np.arange(array.shape[1]) < steps[:, None]]


def _numbers(rows: NDArray[Any], count: int, name: str, source: str) -> NDArray[np.float64]:
    if rows.dtype.kind == "U":
        raise UserError(
            f"{source}: {name} holds text, but numbers are asked for: see data.init_args.inputs and targets."
        )
    return rows.reshape(count, -1).astype(np.float64)


def _flat(rows: NDArray[Any], source: str) -> NDArray[Any]:
    if rows.ndim > 1 and rows.shape[1:] != (1,):
        raise UserError(f"{source}: y has rows of shape {rows.shape[1:]}, but a label is one number or text.")
    return rows.reshape(len(rows))


def as_texts(values: NDArray[Any], at: Place, what: str) -> NDArray[np.str_]:
    """Labels or symbols as texts, whole numbers without a point; empty where one is missing.

    Raises:
        UserError: for numbers that are not whole.
    """
    if values.dtype.kind == "f":
        missing = np.isnan(values)
        broken = np.flatnonzero(~missing & ((values != np.floor(values)) | (np.abs(values) >= 2.0**63)))
        if len(broken):
            raise UserError(
                f"{at(int(broken[0]))} has {values[broken[0]]} as {what}, but names are text or whole numbers below "
                "2**63; for numbers set data.init_args.targets to value or frame_per_step, and inputs to values."
            )
        texts = np.where(missing, 0, values).astype(np.int64).astype(str)
        return np.where(missing, "", texts)
    texts = np.char.strip((values.astype(np.int64) if values.dtype.kind == "b" else values).astype(str))
    return texts if all(map(str.isascii, texts.flat)) else np.array([composed(text) for text in texts.tolist()])


def _checked_splits(splits: Any, N: int, source: str) -> NDArray[np.str_] | None:
    if splits is None:
        return None
    names = _array("splits", splits, source).astype(str)
    if names.shape != (N,) or not set(names.tolist()) <= set(SPLITS):
        raise UserError(f"{source}: splits must be train, val or test, one for each of the {N} sequences.")
    return names
