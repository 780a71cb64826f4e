"""Sequences as they were read: one after another, each step knowing where it stood; and their splits and statistics."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from datamodules.batch import Parts
from datamodules.errors import UserError
from datamodules.loader import IndexedBatches, Indices

SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class Sequences:
    """N sequences of S steps together, not yet numbered, filled or split.

    Args:
        source: The file or folder, for sentences.
        inputs: (S, I) numbers, NaN where one is missing, or (S,) texts of symbols, empty where one is missing.
        targets: (N,) or (S,) texts of labels, or (N, O) or (S, O) numbers.
        lengths: (N,) steps of each sequence, at least one.
        at: Where a step stands, as a person finds it: ``a.csv, line 12``.
        names: (N,) what each sequence is called in its file; its number where it has no name.
        splits: (N,) names of splits where they are given.
        columns: What the inputs are called.
    """

    source: str
    inputs: NDArray[Any]
    targets: NDArray[Any]
    lengths: Indices
    at: Callable[[int], str]
    names: NDArray[np.str_]
    splits: NDArray[np.str_] | None = None
    columns: tuple[str, ...] = ()

    @property
    def starts(self) -> Indices:
        """(N,) the first step of each sequence."""
        return np.concatenate(([0], self.lengths.cumsum()[:-1])).astype(np.int64)

    def of_split(self, name: str) -> Sequences:
        """The same, all given to one split.

        Raises:
            UserError: if the file says something else of them.
        """
        if self.splits is not None:
            raise UserError(
                f"{self.source} has splits of its own: leave out data.init_args.val_path and test_path, or its splits."
            )
        return replace(self, splits=np.full(len(self.lengths), name))


def joined(parts: Sequence[Sequences], source: str) -> Sequences:
    """All in one, in their order.

    Raises:
        UserError: if their inputs or targets are of different widths or names.
    """
    if len(parts) == 1:
        return parts[0]
    first = parts[0]
    for part in parts[1:]:
        for what, one, other in (
            ("inputs", first.inputs, part.inputs),
            ("targets", first.targets, part.targets),
        ):
            if one.shape[1:] != other.shape[1:]:
                raise UserError(
                    f"{part.source} has {what} of width {_width(other)}, but {first.source} of width {_width(one)}: "
                    "all sequences must have the same."
                )
        if part.columns != first.columns:
            raise UserError(
                f"{part.source} has the input columns {', '.join(part.columns) or 'none'}, but {first.source} has "
                f"{', '.join(first.columns) or 'none'}: all files must have the same, in the same order."
            )
    ends = np.cumsum([len(part.inputs) for part in parts])

    def at(step: int) -> str:
        number = int(np.searchsorted(ends, step, side="right"))
        return parts[number].at(step - int(ends[number - 1] if number else 0))

    given = [part.splits for part in parts if part.splits is not None]
    return Sequences(
        source,
        np.concatenate([part.inputs for part in parts]),
        np.concatenate([part.targets for part in parts]),
        np.concatenate([part.lengths for part in parts]),
        at,
        np.concatenate([part.names for part in parts]),
        np.concatenate(given) if given else None,
        first.columns,
    )


def _width(array: NDArray[Any]) -> int:
    return array.shape[1] if array.ndim > 1 else 1


# ---- names to numbers


def numbered(texts: NDArray[np.str_]) -> tuple[NDArray[np.int64], list[str]]:
    """Each text's place in the sorted vocabulary, and that: whole numbers by value, if all are, else texts."""
    names, codes = np.unique(texts, return_inverse=True)
    try:
        rank = np.argsort([int(name) for name in names], kind="stable")
    except ValueError:
        return codes.astype(np.int64), names.tolist()
    places = np.empty_like(rank)
    places[rank] = np.arange(len(rank))
    return places[codes].astype(np.int64), names[rank].tolist()


def filled_forward(values: NDArray[np.float64], starts: Indices, lengths: Indices) -> NDArray[np.float64]:
    """Every missing number replaced by the last one before it in its own sequence; NaN where there is none."""
    steps = np.arange(len(values))[:, None]
    last = np.maximum.accumulate(np.where(np.isnan(values), -1, steps), axis=0)
    begins = np.repeat(starts, lengths)[:, None]
    filled = np.take_along_axis(values, np.maximum(last, 0), axis=0)
    return np.where(last >= begins, filled, np.nan)


# ---- splits


def drawn_splits(
    sequences: Sequences,
    shares: Mapping[str, float],
    seed: int,
    classes: NDArray[np.int64] | None,
    names: list[str],
    everywhere: bool,
) -> NDArray[np.str_]:
    """(N,) which split each sequence is in: as given, and what is not given is drawn from the training sequences.

    Drawn class by class where there are classes, so that each split has its share of every one. A function of the
    order of the sequences and the seed.

    Args:
        sequences: What is split.
        shares: Of the training sequences, for ``val`` and ``test``; 0 draws none.
        seed: Of the draw.
        classes: (N,) the class of each.
        names: Of the classes.
        everywhere: Refuse a class with too few sequences for every split, instead of leaving all to training.

    Raises:
        UserError: naming that class.
    """
    N = len(sequences.lengths)
    result = np.full(N, "train", dtype="<U5") if sequences.splits is None else sequences.splits.astype("<U5")
    wanted = {name: share for name, share in shares.items() if share > 0 and not (result == name).any()}
    if not (result == "train").any():
        raise UserError(f"{sequences.source} has no training sequence: its splits are {', '.join(np.unique(result))}.")
    groups = np.zeros(N, dtype=np.int64) if classes is None else classes
    generator = np.random.Generator(np.random.Philox(key=[seed, 0]))
    for group in np.unique(groups):
        members = generator.permutation(np.flatnonzero((groups == group) & (result == "train")))
        counts = {name: max(1, int(share * len(members) + 0.5)) for name, share in wanted.items()}
        if counts and sum(counts.values()) >= len(members):
            if not len(members) or (classes is not None and not everywhere):
                continue  # `check_classes` speaks of what training lacks
            who = "there are" if classes is None else f"class {names[group]!r} has"
            raise UserError(
                f"{sequences.source}: {who} {len(members)} sequence(s) to draw {' and '.join(wanted)} from, and "
                "training must keep one: give more, or the splits, or set data.init_args.test_share to 0, "
                "or targets to value if they are numbers."
            )
        first = 0
        for name, count in counts.items():
            result[members[first : first + count]] = name
            first += count
    return result


def check_classes(
    sequences: Sequences, splits: NDArray[np.str_], classes: NDArray[np.int64], names: list[str], everywhere: bool
) -> None:
    """Refuse a training split, or where ``everywhere`` any split, that leaves a class out.

    Raises:
        UserError: naming the split and the class, and where that stands.
    """
    for split in SPLITS if everywhere else ("train",):
        inside = classes[splits == split]
        missing = np.setdiff1d(classes, inside)
        if len(missing) and (len(inside) or split == "train"):
            there = sequences.at(int(sequences.starts[np.flatnonzero(classes == missing[0])[0]]))
            raise UserError(
                f"The {split} split of {sequences.source} has no sequence of class {names[missing[0]]!r}, which "
                f"{there} has: put one there, or leave the splits out, and they are drawn class by class."
            )


# ---- what a split gives


class Statistics(NamedTuple):
    """Of the training split's inputs, channel by channel."""

    mean: NDArray[np.float64]
    std: NDArray[np.float64]

    @classmethod
    def of(cls, values: NDArray[np.float64]) -> Statistics:
        """Over all steps of all sequences, what is missing left out; a constant channel gets the deviation 1."""
        mean, std = np.nanmean(values, axis=0), np.nanstd(values, axis=0)
        return cls(mean, np.where(std > 1e-12 * np.abs(mean), std, 1.0))

    @classmethod
    def in_checkpoint(cls, kept: Mapping[str, Any], width: int, whose: str) -> Statistics:
        """What `primitives` gave for a checkpoint, of ``width`` channels.

        Raises:
            UserError: if there is no such thing.
        """
        try:
            found = cls(*(np.asarray(kept[name], dtype=np.float64) for name in cls._fields))
            sound = all(part.shape == (width,) and np.isfinite(part).all() for part in found) and (found.std > 0).all()
        except (KeyError, TypeError, ValueError):
            sound = False
        if not sound:
            raise UserError(f"The checkpoint has no statistics of {width} inputs for {whose}.")
        return found

    def primitives(self) -> dict[str, list[float]]:
        """As a checkpoint keeps them."""
        return {name: part.tolist() for name, part in self._asdict().items()}

    def applied(self, values: NDArray[np.float64], standardize: bool) -> NDArray[np.float32]:
        """Standardised if asked to; what is still missing is the mean."""
        whole = np.where(np.isnan(values), self.mean, values)
        return ((whole - self.mean) / self.std if standardize else whole).astype(np.float32)


def contents(*arrays: NDArray[Any]) -> str:
    """What tells data from other data of the same shape."""
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(f"{array.dtype.str}{array.shape}".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()[:16]


class StoredSplit(IndexedBatches):
    """The sequences of one split, filled up with zeros to the longest of each batch.

    Args:
        inputs: (S, I) float32 or (S,) int64, one sequence after another.
        targets: One row for each sequence, or for each step.
        lengths: (n,).
        per_step: Which of both.
        equal: Whether all sequences, also those of other splits, are equally long.
    """

    def __init__(self, inputs: Tensor, targets: Tensor, lengths: Indices, per_step: bool, equal: bool) -> None:
        self.inputs, self.targets, self.per_step = inputs, targets, per_step
        self.steps = lengths
        self.starts = lengths.cumsum() - lengths
        self.lengths = None if equal else lengths

    def __len__(self) -> int:
        return len(self.steps)

    def __getitem__(self, indices: Indices) -> Parts:
        steps = self.steps[indices][:, None]
        number = np.arange(int(steps.max()))
        place = torch.from_numpy(self.starts[indices][:, None] + np.minimum(number, steps - 1))
        padding = None if self.lengths is None else torch.from_numpy(number >= steps)

        def read(rows: Tensor) -> Tensor:
            given = rows[place]
            if padding is not None:
                given[padding] = 0
            return given

        targets = read(self.targets) if self.per_step else self.targets[torch.from_numpy(indices)]
        lengths = None if self.lengths is None else torch.from_numpy(self.lengths[indices])
        return Parts(read(self.inputs), targets, None, lengths)
