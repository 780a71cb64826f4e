"""A long series as parallel streams: what each batch holds, on every rank, and where states begin anew."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from datamodules import Parts, Series, StreamDataModule, Task, UserError
from datamodules.checks import check_batch
from datamodules.streams import Streams


class Counting(StreamDataModule):
    """Symbols 0, 1, 2, ... : every batch shows where in the series it is."""

    def __init__(self, size: int = 47, documents: tuple[int, ...] = (), **options: Any) -> None:
        super().__init__(**options)
        self.size, self.documents = size, documents
        self.task = Task("counting", "symbols", size, "next_symbol", size, None, "all", 1.0, "perplexity", False)

    def series(self, name: str) -> Series:
        begins = torch.zeros(self.size, dtype=torch.bool)
        begins[list(self.documents)] = True
        return Series.of_symbols(torch.arange(self.size), begins)


def batches(data: Counting, split: Any, rank: int = 0, world: int = 1) -> list[Parts]:
    return list(data.loader(split, rank, world))  # type: ignore[arg-type]


def test_streams_go_on_from_chunk_to_chunk() -> None:
    data = Counting(tbptt=4, batch_size=3)  # 46 steps: three streams of 15
    given = batches(data, "train")
    assert [batch.inputs.shape[1] for batch in given] == [4, 4, 4, 3]
    streams = torch.cat([batch.inputs for batch in given], dim=1)
    assert streams.tolist() == [list(range(0, 15)), list(range(15, 30)), list(range(30, 45))]
    assert torch.equal(torch.cat([batch.targets for batch in given], dim=1), streams + 1)
    for number, batch in enumerate(given):
        assert batch.mask is None and batch.lengths is None and batch.reset is not None
        assert batch.reset.tolist() == [[number == 0 and t == 0 for t in range(batch.inputs.shape[1])]] * 3


def test_without_carry_every_chunk_begins_anew() -> None:
    data = Counting(documents=(6,), tbptt=4, batch_size=3, carry=False)
    first, second, *_, last = batches(data, "train")
    assert first.inputs[0].tolist() == [0, 1, 2, 3] and last.inputs.shape[1] == 3
    assert first.reset is not None and second.reset is not None and last.reset is not None
    assert first.reset.tolist() == [[True, False, False, False]] * 3
    assert second.reset.tolist() == [[True, False, True, False], *[[True, False, False, False]] * 2], "at 6, too"
    assert last.reset.tolist() == [[True, False, False]] * 3
    (one, *_), (two, *_) = (batches(data, "train", rank, 2) for rank in range(2))
    assert one.reset is not None and two.reset is not None and one.reset[:, 0].all() and two.reset[:, 0].all()
    for split in ("val", "test"):
        assert all(batch.reset is not None and batch.reset[:, 0].all() for batch in batches(data, split))


@pytest.mark.parametrize("split", ["val", "test"])
def test_evaluation_carries_whatever_share_of_training_does(split: str) -> None:
    shared, all_of_it = (Counting(documents=(6,), tbptt=4, batch_size=3, carry=carry) for carry in (0.01, True))
    for given, kept in zip(batches(shared, split), batches(all_of_it, split), strict=True):
        assert given.reset is not None and kept.reset is not None
        assert torch.equal(given.reset, kept.reset)


def test_a_share_of_the_training_chunks_goes_on() -> None:
    def anew(carry: float, seed: int) -> torch.Tensor:
        found = [batch.reset for batch in batches(Counting(tbptt=1, batch_size=3, carry=carry, seed=seed), "train")]
        return torch.cat([reset for reset in found if reset is not None], dim=1)

    reset = anew(0.75, 1)
    assert reset[:, 0].all() and not reset.all() and not torch.equal(reset, anew(0.75, 2))
    assert torch.equal(reset, anew(0.75, 1)) and (reset <= anew(0.5, 1)).all()  # the same draws
    assert torch.equal(anew(1, 1), anew(True, 1)) and anew(0, 1).all()
    long = Streams(Series.of_symbols(torch.zeros(40_001, dtype=torch.long)), 4, 2, even=True, carry=0.9)
    begun = long[np.arange(2, len(long))].reset
    assert begun is not None and not begun[:, 1:].any()
    assert abs(float(begun[:, 0].float().mean()) - 0.1) < 0.02  # six standard deviations of 10,000 draws
    for wrong, accepted in ((1.5, "true, false or a share"), (-0.1, "true, false or a share"), (math.nan, "a number")):
        with pytest.raises(UserError, match=rf"data.init_args.carry is .* but it must be .*{accepted}"):
            Counting(carry=wrong)


def test_every_epoch_is_the_same() -> None:
    loader = Counting(tbptt=4, batch_size=3).loader("train")
    first, second = ([batch.inputs for batch in loader] for _ in range(2))  # type: ignore[union-attr]
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_evaluation_counts_every_step_once() -> None:
    given = batches(Counting(tbptt=4, batch_size=3), "val")
    kept = [batch.targets.flatten() if batch.mask is None else batch.targets[batch.mask] for batch in given]
    counted = torch.cat(kept).tolist()
    assert sorted(counted) == list(range(1, 47))


@pytest.mark.parametrize("split", ["train", "val"])
@pytest.mark.parametrize("world", [2, 3])
def test_every_rank_has_streams_of_its_own_that_go_on(split: str, world: int) -> None:
    """Together they are those of one process with as many streams."""
    ranks = [batches(Counting(tbptt=4, batch_size=2), split, rank, world) for rank in range(world)]
    one = batches(Counting(tbptt=4, batch_size=2 * world), split)
    for step, whole in zip(zip(*ranks, strict=True), one, strict=True):
        widest = whole.inputs.shape[1]
        parts = [part.inputs for part in step]
        assert all(part.shape[1] <= widest for part in parts)
        for rows, part in zip(whole.inputs.split(2), parts, strict=True):
            assert torch.equal(rows[:, : part.shape[1]], part)
    if split == "train":
        assert all(part.mask is None for rank in ranks for part in rank), "a rank with nothing to learn from"


def test_documents_begin_anew_inside_a_chunk() -> None:
    given = batches(Counting(tbptt=4, batch_size=3, documents=(0, 6, 15, 29)), "train")
    reset = torch.cat([batch.reset for batch in given if batch.reset is not None], dim=1)
    assert [(b, t) for b, t in reset.nonzero().tolist()] == [(0, 0), (0, 6), (1, 0), (1, 14), (2, 0)]


def test_batches_are_what_the_task_says() -> None:
    data = Counting(tbptt=4, batch_size=3, documents=(3,))
    for split in ("train", "val"):
        for number, batch in enumerate(batches(data, split)):
            check_batch(batch, data.task, "Counting", split, number, np.arange(3))
    assert data.examples(2).inputs.shape == (2, 4)  # type: ignore[union-attr]


def test_more_streams_than_steps_are_refused() -> None:
    with pytest.raises(UserError, match=r"batch_size makes 60 streams .* the series has 46 steps"):
        Counting(tbptt=4, batch_size=20).loader("train", 0, 3)
    with pytest.raises(UserError, match=r"data.init_args.tbptt is 0"):
        Counting(tbptt=0)


def test_values_and_numbers() -> None:
    series = Series(torch.arange(14.0).view(7, 2), torch.arange(7.0)[:, None])
    split = Streams(series, 2, 3, even=False)
    batch = split[np.array([0, 1, 2])]
    assert batch.inputs.shape == (3, 2, 2) and batch.targets.shape == (3, 2, 1)
    assert batch.targets[..., 0].tolist() == [[0, 1], [3, 4], [5, 6]]
    last = split[np.array([3, 4, 5])]
    assert last.mask is not None and last.mask.tolist() == [[True], [False], [False]]


@pytest.mark.parametrize(
    ("series", "words"),
    [
        ((torch.arange(9), torch.arange(9)), r"Other.series\('train'\) returns tuple, but it must return a .*Series"),
        (Series([1, 2], torch.arange(2)), "returns inputs list"),
        (Series(torch.arange(9), torch.arange(8)), r"returns targets \(8,\), .* as many steps as inputs"),
        (Series(torch.arange(9), torch.arange(9), torch.ones(8)), r"returns begins \(8,\)"),
    ],
)
def test_what_is_no_series_is_refused(series: Any, words: str) -> None:
    class Other(Counting):
        def series(self, name: Any) -> Any:
            return series

    with pytest.raises(UserError, match=words):
        Other().split("train")
