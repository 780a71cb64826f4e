"""Every task: what one process trains and is measured on is what several do, and what a run that goes on does."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from itertools import chain, islice
from typing import Any

import numpy as np
import pytest
import torch

import datamodules
from datamodules import GeneratedDataModule, SequenceLoader
from datamodules.batch import Batch, Parts
from tests.tasks import BATCH, CASES, data_of

each_task = pytest.mark.parametrize("kind", CASES)


def test_no_task_is_left_out() -> None:
    classes = [value for name in datamodules.__all__ if inspect.isclass(value := getattr(datamodules, name))]
    generated = {cls for cls in classes if issubclass(cls, GeneratedDataModule) and not inspect.isabstract(cls)}
    assert generated and generated <= {cls for cls, *_ in CASES.values()}


def samples(batch: Batch) -> list[list[bytes]]:
    """Inputs, targets and mask of each, without padding."""
    parts = Parts.of(batch)
    whole = [parts.inputs.shape[1]] * len(parts.inputs)
    lengths = whole if parts.lengths is None else parts.lengths.tolist()
    arrays = [part.numpy() for part in parts[:3] if part is not None]
    return [[np.atleast_1d(a[b])[:length].tobytes() for a in arrays] for b, length in enumerate(lengths)]


def epochs(loader: SequenceLoader) -> Iterator[Batch]:
    """Two, of which the first has begun where the loader has."""
    return chain.from_iterable(iter(loader) for _ in range(2))


def same(ours: Batch, theirs: Batch) -> bool:
    pairs = [pair for pair in zip(Parts.of(ours), Parts.of(theirs), strict=True) if pair != (None, None)]
    return all(a is not None and b is not None and torch.equal(a, b) for a, b in pairs)


@each_task
def test_two_processes_train_on_the_batches_of_one(kind: str) -> None:
    """Of two epochs, each in its order, up to padding."""
    alone = list(epochs(data_of(kind).loader("train")))
    both = zip(*(epochs(data_of(kind, 2).loader("train", rank, 2)) for rank in (0, 1)), strict=True)
    for ours, (first, second) in zip(alone, both, strict=True):
        halves = samples(first), samples(second)
        assert len(halves[0]) == len(halves[1]) and samples(ours) == halves[0] + halves[1]
    half = len(alone) // 2
    assert half >= 6 and list(map(samples, alone[:half])) != list(map(samples, alone[half:]))


def measured(kind: str, split: Any, processes: int) -> list[list[Any]]:
    """The samples of a split, and of it at each other length, in the order of steps and processes."""
    data, found = data_of(kind, processes), []
    for batches in (data.split(split), *data.other_splits(split)):
        loaders = [data._loader_of(batches, split, rank, processes) for rank in range(processes)]
        found.append([sample for step in zip(*loaders, strict=True) for batch in step for sample in samples(batch)])
    return found


@each_task
@pytest.mark.parametrize("split", ["val", "test"])
def test_several_processes_are_measured_on_the_samples_of_one(kind: str, split: Any) -> None:
    """Each once, in batches of 12, 6, and one or two."""
    assert measured(kind, split, 1) == measured(kind, split, 2) == measured(kind, split, BATCH)


@each_task
def test_a_loader_goes_on_as_if_it_had_not_stopped(kind: str) -> None:
    """Behind the first batch, in mid-epoch, at an epoch's end, and within the second; the second of two processes."""
    whole = list(epochs(data_of(kind, 2).loader("train", 1, 2)))
    each = len(whole) // 2
    for stop in (1, 3, each, each + 4):
        stopped = data_of(kind, 2).loader("train", 1, 2)
        for _ in islice(epochs(stopped), stop):
            pass
        again = data_of(kind, 2).loader("train", 1, 2)
        again.load_state_dict(stopped.state_dict())
        rest = list(islice(epochs(again), len(whole) - stop))
        assert all(map(same, rest, whole[stop:])) and len(rest) == len(whole) - stop, stop


@each_task
def test_two_processes_go_on_where_one_stopped(kind: str) -> None:
    whole = [samples(batch) for batch in epochs(data_of(kind).loader("train"))]
    for stop in (3, len(whole) // 2 + 4):
        stopped = data_of(kind).loader("train")
        for _ in islice(epochs(stopped), stop):
            pass
        both = [data_of(kind, 2).loader("train", rank, 2) for rank in (0, 1)]
        for loader in both:
            loader.load_state_dict(stopped.state_dict())
        halves = zip(*(islice(epochs(loader), len(whole) - stop) for loader in both), strict=True)
        assert [samples(first) + samples(second) for first, second in halves] == whole[stop:], stop


def test_workers_make_the_same_batches() -> None:
    for kind in ("copying, variable", "list operations"):
        pairs = zip(*(data_of(kind, num_workers=workers).loader("train") for workers in (0, 2)), strict=True)
        assert all(same(*pair) for pair in pairs)
