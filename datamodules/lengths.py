"""Synthetic data of any length: measured at others than it trains on, and trained from short to long."""

from __future__ import annotations

import bisect
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from datamodules.base import Batch, Generated, GeneratedDataModule, Indices, Split, random_words
from datamodules.batch import Parts
from datamodules.errors import UserError, require
from datamodules.task import Task

_KEY = "data.init_args.curriculum"
_SHARES = ("accuracy", "f1", "auroc", "within_0.04")


@dataclass(frozen=True)
class Curriculum:
    """Shorter lengths that training begins with; the data's own comes last.

    Args:
        lengths: In their order, growing.
        steps: The number of training batches, counted from the first, at which each of them ends.
        threshold: Or the headline metric over a training epoch that ends each of them: the next epoch has the next.
    """

    lengths: tuple[int, ...]
    steps: tuple[int, ...] | None = None
    threshold: float | None = None

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> Curriculum:
        """From its options by name.

        Raises:
            UserError: naming the option that is wrong.
        """
        accepted = "a mapping such as {lengths: [10, 50], steps: [1000, 3000]} or {lengths: [10, 50], threshold: 0.99}"
        names = set(options) if isinstance(options, Mapping) else set()
        require(names in ({"lengths", "steps"}, {"lengths", "threshold"}), _KEY, options, accepted)
        lengths: Any = options["lengths"]
        steps: Any = options.get("steps")
        threshold: Any = options.get("threshold")
        grows = _grows(lengths) and len(lengths) > 0
        require(grows, f"{_KEY}.lengths", lengths, "a list of growing whole numbers")
        if threshold is not None:
            plain = isinstance(threshold, int | float) and not isinstance(threshold, bool)
            require(plain and np.isfinite(threshold), f"{_KEY}.threshold", threshold, "a number")
            return cls(tuple(lengths), None, float(threshold))
        fits = _grows(steps) and len(steps) == len(lengths)
        require(fits, f"{_KEY}.steps", steps, f"a list of {len(lengths)} growing whole numbers, one for each length")
        return cls(tuple(lengths), tuple(steps), None)

    def options(self) -> dict[str, Any]:
        """As primitives."""
        ends = {"threshold": self.threshold} if self.steps is None else {"steps": list(self.steps)}
        return {"lengths": list(self.lengths), **ends}

    def stage(self, batch: int) -> int:
        """Which length, by its place, training batch number ``batch`` has, from 0; behind the last is the data's own.

        Of a curriculum by steps.
        """
        assert self.steps is not None
        return bisect.bisect_right(self.steps, batch)


def _grows(numbers: Any) -> bool:
    """Whether it is a list of growing whole numbers from 1 on."""
    if not isinstance(numbers, Sequence) or isinstance(numbers, str):
        return False
    whole = all(isinstance(number, int) and not isinstance(number, bool) for number in numbers)
    return whole and all(low < high for low, high in zip([0, *numbers], numbers, strict=False))


class OfLength(Generated):
    """A split whose samples are all of one other length: a function of (seed, split, index, length)."""

    owner: LengthDataModule

    def __init__(self, owner: LengthDataModule, split: Split, length: int) -> None:
        super().__init__(owner, split)
        self.length = length

    def __getitem__(self, indices: Indices) -> Batch:
        words = random_words(self.owner.seed, self.name, indices, self.owner.words_at(self.length))
        return self.owner.make_at(words, self.length)


def of_lengths(lengths: Indices, make: Callable[[Indices, int], Batch]) -> Batch:
    """One batch of rows of these lengths: ``make(rows, length)`` makes those of one; others are padded with zeros."""
    different, kind = np.unique(lengths, return_inverse=True)
    if len(different) == 1:
        return make(np.arange(len(lengths)), int(different[0]))
    rows = [np.flatnonzero(kind == number) for number in range(len(different))]
    made = [Parts.of(make(some, int(length))) for some, length in zip(rows, different, strict=True)]
    order = np.argsort(np.concatenate(rows))

    def joined(parts: Sequence[Tensor]) -> Tensor:
        every = [row for part in parts for row in part]
        every = [every[place] for place in order]
        return pad_sequence(every, batch_first=True) if every[0].dim() else torch.stack(every)

    steps = [part.inputs.shape[1] for part in made for _ in part.inputs]
    inputs, targets = joined([part.inputs for part in made]), joined([part.targets for part in made])
    return Parts(inputs, targets, lengths=torch.tensor(steps)[order])


class AnyLength(Generated):
    """A split whose samples may have a length each."""

    owner: LengthDataModule

    def __getitem__(self, indices: Indices) -> Batch:
        if self.owner.same_length is None:
            return super().__getitem__(indices)
        return self.owner.batch_of(self.name, indices, self.owner.own_length)


class Growing(AnyLength):
    """The training split under a curriculum.

    By steps, the length of a batch is a function of its samples' indices; else it is the owner's while an epoch lasts.

    Args:
        owner: Whose.
        rows: Rows of a batch, of all processes together.
    """

    def __init__(self, owner: LengthDataModule, rows: int) -> None:
        super().__init__(owner, "train")
        self.rows = rows
        self.limit = owner.batches_per_epoch(len(self) // rows)

    def read_by(self, rows: int) -> Growing:
        return Growing(self.owner, rows)

    def stage(self, indices: Indices) -> int:
        """That of the batch that begins with the first of ``indices``, whichever process has it."""
        curriculum = self.owner.stages
        assert curriculum is not None
        if curriculum.steps is None:
            return self.owner.stage
        epoch, place = divmod(int(indices[0]), len(self))
        return curriculum.stage(epoch * self.limit + place // self.rows)

    def __getitem__(self, indices: Indices) -> Batch:
        owner, stage = self.owner, self.stage(indices)
        assert owner.stages is not None
        if stage == len(owner.stages.lengths):
            return super().__getitem__(indices)
        return owner.batch_of(self.name, indices, owner.stages.lengths[stage])


class LengthDataModule(GeneratedDataModule):
    """Synthetic data whose sequences can be of any length.

    With ``val_lengths``, validation and test measure as many sequences at every other length too, on all processes and
    each exactly once: ``val/accuracy_at_500`` is the headline metric at 500, and ``val/loss_at_500`` the loss.
    ``val/accuracy`` stays that at the length of training.

    A subclass calls `settle` at the end of its constructor.

    Args:
        val_lengths: Other lengths at which validation and test measure: of delays where the data has a ``delay``.
        curriculum: Shorter lengths to train on first, and when each ends: {lengths: [10, 50], steps: [1000, 3000]}
            trains 1,000 batches at 10, up to the 3,000th at 50, and then at the data's own length;
            {lengths: [10, 50], threshold: 0.99} goes on after every epoch whose training metric is that good. Steps are
            batches of this run's size: after a resume with another size, or another number of processes, the samples
            seen so far count as batches of the new size.
        **kwargs: Sizes, seed and workers of `GeneratedDataModule`.
    """

    length_option: ClassVar[str] = "length"
    """The option that is the length."""

    same_length: int | None = None
    """Where lengths are drawn: how many samples, one after another, have one in common."""

    shortest = 1
    """The shortest that is drawn."""

    def __init__(
        self, val_lengths: list[int] | None = None, curriculum: dict[str, Any] | None = None, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.val_lengths = val_lengths
        self.stages = None if curriculum is None else Curriculum.of(curriculum)
        self.curriculum = None if self.stages is None else self.stages.options()
        self.stage = 0
        """How many lengths of a curriculum by a threshold are done."""

    # ---- what a subclass says

    @abstractmethod
    def check_length(self, length: int, key: str) -> None:
        """Refuse a length that cannot be, naming the option ``key``."""

    @abstractmethod
    def task_at(self, length: int) -> Task:
        """The Task at exactly this length."""

    @abstractmethod
    def words_at(self, length: int) -> int:
        """How many random words a sample needs; where lengths are drawn, the last of them is for that."""

    @abstractmethod
    def make_at(self, words: NDArray[np.uint64], length: int) -> Batch:
        """The batch of this length that (B, words_at(length)) uniform 64-bit words determine."""

    # ----

    @property
    def own_length(self) -> int:
        """That of training, or of its last stage."""
        return int(getattr(self, self.length_option))

    def settle(self) -> None:
        """Check all lengths and make the Task."""
        own, key = self.own_length, f"data.init_args.{self.length_option}"
        self.check_length(own, key)
        self.words_per_sample = self.words_at(own)
        self.task = self.task_at(own)
        others = self.val_lengths or []
        accepted = "null or a list of different whole numbers"
        require(len(set(others)) == len(others), "data.init_args.val_lengths", others, accepted)
        for length in others:
            self.check_length(length, "data.init_args.val_lengths")
        if self.stages is None:
            return
        for length in self.stages.lengths:
            self.check_length(length, f"{_KEY}.lengths")
        if self.stages.threshold is not None:
            threshold, metric = self.stages.threshold, self.task.metric
            if metric in _SHARES:
                require(0 <= threshold <= 1, f"{_KEY}.threshold", threshold, f"from 0 to 1, as {metric} is")
            elif not self.task.higher_is_better:
                require(threshold > 0, f"{_KEY}.threshold", threshold, f"above 0, which no {metric} is below")
        lengths = list(self.stages.lengths)
        require(lengths[-1] < own, f"{_KEY}.lengths", lengths, f"below {own}, which is {key} and comes last")
        require(not self.reuse, "data.init_args.reuse", True, "false with a curriculum, whose samples are fresh ones")

    def make(self, words: NDArray[np.uint64]) -> Batch:
        return self.make_at(words, self.own_length)

    def split(self, name: Split) -> Generated:
        if name == "train" and self.stages is not None:
            return Growing(self, self.batch_size)
        return AnyLength(self, name)

    def lengths_of(self, name: Split, indices: Indices, longest: int) -> Indices:
        """(B,) the length of each sample: drawn uniformly from `shortest` to ``longest``, or that."""
        if self.same_length is None:
            return np.full(len(indices), longest)
        firsts, group = np.unique(indices - indices % self.same_length, return_inverse=True)
        words = random_words(self.seed, name, firsts, self.words_at(longest))[:, -1]
        return (self.shortest + (words % np.uint64(longest - self.shortest + 1)).astype(np.int64))[group]

    def batch_of(self, name: Split, indices: Indices, longest: int) -> Batch:
        """Samples of lengths up to ``longest``."""
        words = random_words(self.seed, name, indices, self.words_at(longest))
        lengths = self.lengths_of(name, indices, longest)
        return of_lengths(lengths, lambda rows, length: self.make_at(words[rows], length))

    def definition(self) -> dict[str, Any]:
        return {**super().definition(), "curriculum": self.curriculum}

    # ---- other lengths

    def other_tasks(self) -> dict[int, Task]:
        return {length: self.task_at(length) for length in self.val_lengths or []}

    def other_splits(self, name: Split) -> list[OfLength]:
        return [OfLength(self, name, length) for length in self.val_lengths or []]

    # ---- the curriculum

    def batches_per_epoch(self, given: int) -> int:
        """How many of the ``given`` batches of an epoch the trainer takes."""
        limit = None if self.trainer is None else self.trainer.limit_train_batches
        if limit is None:
            return given
        return min(given, limit) if isinstance(limit, int) else int(given * limit)

    def told(self) -> str:
        if self.stages is None:
            return ""
        lengths, option = [*self.stages.lengths, self.own_length], self.length_option
        if self.stages.steps is None:
            way = f"the next when {self.task.metric} over a training epoch is {self.stages.threshold:g}"
            way += f"; now {lengths[self.stage]}" if self.stage else ""
        else:
            way = f"the next after {', '.join(f'{step:,}' for step in self.stages.steps)} batches"
        return f"curriculum: {option} {', '.join(f'{length:,}' for length in lengths)}, {way}"

    def epoch_ended(self, metric: float) -> None:
        if self.stages is None or self.stages.threshold is None or self.stage == len(self.stages.lengths):
            return
        higher = self.task.higher_is_better
        good = metric >= self.stages.threshold if higher else metric <= self.stages.threshold
        self.stage += int(good)

    def state_dict(self) -> dict[str, Any]:
        by_threshold = self.stages is not None and self.stages.threshold is not None
        return {**super().state_dict(), **({"stage": self.stage} if by_threshold else {})}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        state = dict(state_dict)
        stage, last = state.pop("stage", 0), 0 if self.stages is None else len(self.stages.lengths)
        if isinstance(stage, bool) or not isinstance(stage, int) or not 0 <= stage <= last:
            raise UserError(f"The checkpoint is in stage {stage!r} of the curriculum, but {_KEY} has {last}.")
        self.stage = stage
        super().load_state_dict(state)
