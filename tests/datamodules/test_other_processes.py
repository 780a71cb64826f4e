"""An epoch that one number of processes began is ended by another: no sample twice, none left out."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from datamodules import UserError
from datamodules.batch import Batch
from datamodules.loader import IndexedBatches, Indices, SequenceLoader
from datamodules.streams import Series, Streams


class Numbers(IndexedBatches):
    """Sample i is the number i."""

    def __init__(self, size: int, endless: bool = False, lengths: NDArray[np.int64] | None = None) -> None:
        self.size, self.endless, self.lengths = size, endless, lengths

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, indices: Indices) -> Batch:
        return torch.from_numpy(indices), torch.from_numpy(indices)


def loaders(split: Any, processes: int, batch_size: int, **options: Any) -> list[SequenceLoader]:
    options = {"train": True, "shuffle": not split.endless and not split.ordered, "seed": 5} | options
    return [SequenceLoader(split, batch_size, rank=r, world_size=processes, **options) for r in range(processes)]


def steps(of_all: list[SequenceLoader], count: int | None = None) -> list[list[int]]:
    """The samples of the next ``count`` steps, or of those up to the epoch's end, all processes together."""
    iterators = [iter(loader) for loader in of_all]
    found = []
    while count is None or len(found) < count:
        batches = [next(iterator, None) for iterator in iterators]
        if batches[0] is None:
            assert batches == [None] * len(of_all)
            break
        sizes = {len(batch[0]) for batch in batches if batch is not None}
        assert len(sizes) == 1, "gradients are means over processes, so that all have to have as many samples"
        found.append([i for batch in batches if batch is not None for i in batch[0].tolist()])
    return found


def resumed(of_all: list[SequenceLoader], split: Any, processes: int, batch_size: int, **options: Any) -> Any:
    following = loaders(split, processes, batch_size, **options)
    for loader in following:
        loader.load_state_dict(of_all[0].state_dict())
    return following


# processes and batch size before and after; 96 samples divide by all
CHANGES = {
    "2 to 1": ((2, 4), (1, 4)),
    "1 to 2": ((1, 4), (2, 4)),
    "2 to 4": ((2, 4), (4, 4)),
    "2 to 4, a batch of all as before": ((2, 4), (4, 2)),
    "2 to 1, a batch of all as before": ((2, 4), (1, 8)),
    "4 to 3": ((4, 4), (3, 4)),
}


@pytest.mark.parametrize("endless", [False, True])
@pytest.mark.parametrize("change", CHANGES)
def test_every_sample_of_the_epoch_once(change: str, endless: bool) -> None:
    before, after = CHANGES[change]
    split = Numbers(96, endless)
    whole = 96 // (before[0] * before[1])
    exact = 0
    for done in range(1, whole):
        first = loaders(split, *before)
        steps(first)
        seen = steps(first, done)  # in the second epoch
        assert len(seen) == done
        try:
            second = resumed(first, split, *after)
        except UserError as error:
            assert change == "4 to 3" and "cannot be shared equally by 3 processes" in str(error)
            continue
        exact += 1
        following = steps(second)
        counts = Counter(i for step in seen + following for i in step)
        assert counts == Counter(range(96 * endless, 96 * endless + 96)), done
        # the next epoch is the third, in this run's own batches
        assert steps(second) == steps(resumed_at(split, after, epoch=2))
    assert exact == (1 if change == "4 to 3" else whole - 1)  # 48 of 96 samples are whole batches of three, too


def resumed_at(split: Any, after: tuple[int, int], epoch: int) -> list[SequenceLoader]:
    of_all = loaders(split, *after)
    for loader in of_all:
        loader.epoch = epoch
    return of_all


def test_as_many_sequences_a_batch_are_the_same_batches() -> None:
    split = Numbers(96)
    whole, first = loaders(split, 2, 4), loaders(split, 2, 4)
    steps(first, 5)
    rest = [sorted(step) for step in steps(whole)[5:]]
    assert [sorted(step) for step in steps(resumed(first, split, 1, 8))] == rest


@pytest.mark.parametrize("bucket", [False, True])
def test_stopped_again_and_again(bucket: bool) -> None:
    """Before any batch, in the midst of the first that is cut short, and on another number each time."""
    lengths = np.random.default_rng(0).integers(1, 50, 96)
    split = Numbers(96, lengths=lengths)
    of_all, seen = loaders(split, 2, 4, bucket=bucket), []
    seen += steps(of_all, 3)
    for processes, count in [(4, 0), (4, 1), (2, 1), (4, 0), (2, 0), (4, 2), (1, 2), (2, 1), (1, 1), (4, None)]:
        of_all = resumed(of_all, split, processes, 4, bucket=bucket)
        seen += steps(of_all, count)
    assert Counter(i for step in seen for i in step) == Counter(range(96))


def test_what_fills_no_batch_is_all_that_is_left_out() -> None:
    split = Numbers(90)
    first = loaders(split, 2, 4)
    seen = steps(first, 5)
    counts = Counter(i for step in seen + steps(resumed(first, split, 4, 4)) for i in step)
    assert set(counts.values()) == {1} and len(counts) == 80  # five batches of sixteen


def test_streams_go_on_with_their_own_number() -> None:
    series = Series(torch.arange(240), torch.arange(240))
    split = Streams(series, chunk=5, streams=8, even=True)
    first = loaders(split, 2, 4)
    steps(first, 2)
    with pytest.raises(UserError, match=r"streams go on from batch to batch: resume with 8 sequences a step"):
        resumed(first, split.read_by(4), 1, 4)
    assert len(steps(resumed(first, split, 1, 8))) == 4
    steps(first)  # at an epoch's end all streams begin anew
    assert len(steps(resumed(first, split.read_by(4), 1, 4))) == len(split.read_by(4)) // 4


def test_other_data_is_refused() -> None:
    first = loaders(Numbers(96), 2, 4)
    steps(first, 3)
    for processes in (1, 2):
        with pytest.raises(UserError, match=r"same data\.init_args"):
            resumed(first, Numbers(104), processes, 4)
