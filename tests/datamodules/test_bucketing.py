"""Batches of sequences of similar length: an order that is a function of (seed, epoch), and less padding."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from datamodules import IndexedBatches, Parts, SequenceDataModule, Task
from lit_rnn.callbacks.progress import _told_of_padding

SAMPLES, BATCH = 203, 4


class _Split(IndexedBatches):
    def __init__(self) -> None:
        self.lengths = np.random.default_rng(0).integers(1, 100, SAMPLES)

    def __len__(self) -> int:
        return SAMPLES

    def __getitem__(self, indices: np.ndarray) -> Parts:
        assert self.lengths is not None
        lengths = torch.from_numpy(self.lengths[indices])
        inputs = torch.zeros(len(indices), int(lengths.max()), 1)
        inputs[:, 0, 0] = torch.from_numpy(indices)
        return Parts(inputs, torch.zeros(len(indices), dtype=torch.int64), None, lengths)


class Ragged(SequenceDataModule):
    def __init__(self, bucket_by_length: bool = True, seed: int = 1) -> None:
        super().__init__(BATCH, seed)
        self.bucket_by_length = bucket_by_length
        self.task = Task("ragged", "values", 1, "label", 2, None, "last", 1.0, "accuracy", True)

    def split(self, name: str) -> _Split:
        return _Split()


def samples(batch: Parts) -> list[int]:
    return batch.inputs[:, 0, 0].long().tolist()


def epochs(data: Ragged, count: int, rank: int = 0, world: int = 1) -> list[list[list[int]]]:
    loader = data.loader("train", rank, world)
    return [[samples(batch) for batch in loader] for _ in range(count)]  # type: ignore[arg-type]


def test_an_epoch_is_of_its_seed_and_number_and_gives_every_sample_once() -> None:
    first, second = epochs(Ragged(), 2)
    assert (first, second) == tuple(epochs(Ragged(), 2))
    assert first != second and first != epochs(Ragged(seed=2), 1)[0]
    for epoch in (first, second):
        given = [sample for batch in epoch for sample in batch]
        assert len(given) == len(set(given)) == SAMPLES // BATCH * BATCH
        assert all(len(batch) == BATCH for batch in epoch)


def test_batches_are_of_similar_length_and_not_in_the_order_of_length() -> None:
    lengths = _Split().lengths
    assert lengths is not None
    (epoch,) = epochs(Ragged(), 1)
    spans = [int(np.ptp(lengths[batch])) for batch in epoch]
    assert np.mean(spans) < 5 < 40 < np.mean([np.ptp(lengths[batch]) for batch in epochs(Ragged(False), 1)[0]])
    longest = [int(lengths[batch].max()) for batch in epoch]
    assert longest != sorted(longest) and longest != sorted(longest, reverse=True)


@pytest.mark.parametrize("world", [2, 3])
def test_ranks_share_no_sample_and_have_similar_lengths_at_a_step(world: int) -> None:
    lengths = _Split().lengths
    assert lengths is not None
    ranks = [epochs(Ragged(), 1, rank, world)[0] for rank in range(world)]
    given = [sample for rank in ranks for batch in rank for sample in batch]
    assert len(given) == len(set(given)) == SAMPLES // (world * BATCH) * world * BATCH
    assert len({len(rank) for rank in ranks}) == 1
    at_once = [np.concatenate(step) for step in zip(*ranks, strict=True)]
    assert np.mean([np.ptp(lengths[step]) for step in at_once]) < 15


def test_resumed_inside_an_epoch_it_goes_on_with_the_same_batches() -> None:
    whole = [batch for epoch in epochs(Ragged(), 2) for batch in epoch]
    loader = Ragged().loader("train")
    iterator = iter(loader)
    for _ in range(7):
        next(iterator)
    state = loader.state_dict()
    again = Ragged().loader("train")
    again.load_state_dict(state)
    rest = [samples(batch) for _ in range(2) for batch in again]  # type: ignore[arg-type]
    assert rest == whole[7:]


def test_evaluation_keeps_the_order_of_the_split() -> None:
    given = [sample for batch in Ragged().loader("val") for sample in samples(batch)]  # type: ignore[arg-type]
    assert given == list(range(SAMPLES))


def test_the_header_says_how_much_is_padding() -> None:
    data = Ragged()
    loader = data.train_dataloader()
    lengths = _Split().lengths
    assert lengths is not None
    padded = [int(lengths[batch].max()) * BATCH for batch in epochs(Ragged(), 1)[0]]
    real = [int(lengths[batch].sum()) for batch in epochs(Ragged(), 1)[0]]
    share = 1 - sum(real) / sum(padded)
    assert loader.padding(True) == pytest.approx(share) and share < 0.06 < 0.3 < loader.padding(False)
    told = _told_of_padding(data)
    assert told.startswith(f"unequal lengths: {share:.0%} of the steps are padding (") and "without bucket" in told
    plain = Ragged(bucket_by_length=False)
    plain.train_dataloader()
    assert "with bucket_by_length" in _told_of_padding(plain)
