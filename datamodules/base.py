"""SequenceDataModule: loaders, seeds, sharding over ranks and workers, exact resume."""

from __future__ import annotations

import functools
import inspect
import warnings
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pytorch_lightning import LightningDataModule
from torch import Tensor

from datamodules.arguments import ChecksKinds
from datamodules.batch import Batch as Batch
from datamodules.batch import Parts
from datamodules.checks import check_batch
from datamodules.errors import UserError, as_in_yaml, require, whole
from datamodules.loader import IndexedBatches as IndexedBatches
from datamodules.loader import Indices as Indices
from datamodules.loader import SequenceLoader as SequenceLoader
from datamodules.task import Task

Split = Literal["train", "val", "test"]

MOST_WORKERS = 1024

SPLIT_IDS: dict[Split, int] = {"train": 0, "val": 1, "test": 2}


def random_words(seed: int, split: Split, indices: Indices, count: int) -> NDArray[np.uint64]:
    """(len(indices), count) uniform 64-bit words; row i depends on (seed, split, indices[i]) and on nothing else.

    Philox is counter-based: sample k owns blocks k*b to (k+1)*b of the stream keyed by (seed, split), so any worker
    on any rank reads its samples without generating the others (Salmon et al. 2011).
    """
    blocks = -(-count // 4)  # a Philox block holds four words

    def read(first: int, samples: int) -> NDArray[np.uint64]:
        stream = np.random.Philox(key=[seed, SPLIT_IDS[split]], counter=first * blocks)
        return stream.random_raw(samples * blocks * 4).reshape(samples, blocks * 4)[:, :count]

    if np.all(np.diff(indices) == 1):
        return read(int(indices[0]), len(indices))
    return np.concatenate([read(int(i), 1) for i in indices])


def unit_interval(words: NDArray[np.uint64]) -> NDArray[np.float64]:
    """Uniform words as doubles in [0, 1), with 53 random bits each."""
    return (words >> np.uint64(11)).astype(np.float64) * 2.0**-53


def entropy(chances: NDArray[Any]) -> float:
    """-sum p ln p, in nats."""
    positive = chances[chances > 0]
    return float(-(positive * np.log(positive)).sum())


class SequenceDataModule(LightningDataModule, metaclass=ChecksKinds):
    """Base of all data: a `Task`, three splits, and loaders for them.

    Args:
        batch_size: Sequences per step and process.
        seed: Seeds what is generated and the order of training; None takes the run's ``seed_everything`` (0 outside
            the command line).
        num_workers: Processes that prepare batches; 0 prepares them in the training process.
    """

    options_at: ClassVar[str] = "data.init_args"

    task: Task
    """Known right after construction, before any data is read."""

    bounds: tuple[float, float] | None = None
    """The values that inputs can take, None where there is no limit."""

    bucket_by_length: bool = False
    """Whether training batches are of sequences of similar length; an option of data whose splits know ``lengths``."""

    draws_splits: bool = False
    """Whether a split is drawn from the training sequences: another order or number of them draws another."""

    task_options: ClassVar[tuple[str, ...]] = ()
    """Options that decide what is asked, or which samples a split has: attributes of these names hold them.

    A checkpoint keeps them, and a command on it compares. Sizes of batches and of generated splits are none, nor is
    the seed of what is drawn afresh.
    """

    def __init__(self, batch_size: int = 128, seed: int | None = None, num_workers: int = 0) -> None:
        super().__init__()
        whole(batch_size, "data.init_args.batch_size", 1)
        accepted = f"a whole number from 0 to {MOST_WORKERS:,}, as each is a process"
        require(0 <= num_workers <= MOST_WORKERS, "data.init_args.num_workers", num_workers, accepted)
        require(seed is None or 0 <= seed < 2**63, "data.init_args.seed", seed, "null or a whole number of at least 0")
        self.batch_size, self.num_workers = batch_size, num_workers
        self.seed = 0 if seed is None else seed
        self.train_loader: SequenceLoader | None = None
        self._train_state: dict[str, Any] | None = None

    @abstractmethod
    def split(self, name: Split) -> IndexedBatches:
        """The split called ``name``, read or generated when asked for."""

    def tell_unread(self, key: str, value: object, beside: str) -> None:
        """Tell of an option that is not at its default and that another one, ``beside``, leaves without effect."""
        known = inspect.signature(type(self).__init__).parameters.get(key)
        if known is not None and value != known.default:
            told = f"data.init_args.{key} is {as_in_yaml(value)}, which has no effect with {beside}."
            warnings.warn(told, stacklevel=2)

    def definition(self) -> dict[str, Any]:
        """The `task_options`, as primitives."""
        return {name: getattr(self, name) for name in self.task_options}

    def fingerprint(self) -> str | None:
        """What tells the files that were read from others, wherever they lie: 16 hexadecimal digits of a SHA-256.

        None where the options say all, as of what is generated or published. A run keeps it, for ``compare``, and
        so does every checkpoint: training goes on only where it is the same.
        """
        return None

    def learned(self) -> dict[str, Any]:
        """What was measured on the training split, as primitives: every checkpoint keeps it. Here nothing."""
        return {}

    def learn(self, kept: Mapping[str, Any]) -> None:
        """Use what the data of a checkpoint had `learned`, so that inputs mean what they meant in training.

        Raises:
            UserError: if it cannot be that of this data.
        """

    def told(self) -> str:
        """What the header of a run says of the data, in one line; empty for nothing."""
        return ""

    def changeable(self, inputs: Tensor) -> Tensor:
        """Which entries of ``inputs`` may be changed without a change of the right answer: bool, shaped as they are.

        Here all; padding, marks and what the answer is made of are for subclasses to hold.
        """
        return torch.ones_like(inputs, dtype=torch.bool)

    @functools.cached_property
    def _validation(self) -> IndexedBatches:
        return self._checked_split("val")

    def _checked_split(self, name: Split) -> IndexedBatches:
        """`split`, which may be somebody's own."""
        batches = self.split(name)
        if not isinstance(batches, IndexedBatches):
            raise UserError(
                f"{type(self).__name__}.split({name!r}) returns {type(batches).__name__}, but it must return an "
                "IndexedBatches, which answers an array of indices with one batch."
            )
        return batches

    def other_tasks(self) -> dict[int, Task]:
        """The Tasks of the other lengths at which validation and test measure too, by length; here there are none."""
        return {}

    def other_splits(self, name: Split) -> Sequence[IndexedBatches]:
        """A split for each of `other_tasks`."""
        return []

    def epoch_ended(self, metric: float) -> None:
        """Told the headline metric of every training epoch at its end, the same to all processes."""

    def examples(self, count: int) -> Batch:
        """The first ``count`` sequences of the validation split, or all, as one batch: for pictures and tables."""
        whole(count, "count", 1)
        indices = np.arange(min(count, len(self._validation)))
        batch = self._validation[indices]
        self._check_batch("val", batch, 0, indices)
        return batch

    def _check_batch(self, split: Split, batch: Batch, number: int, indices: Indices) -> None:
        check_batch(batch, self.task, type(self).__name__, split, number, indices)

    def loader(self, split: Split, rank: int = 0, world_size: int = 1) -> SequenceLoader:
        """The loader of one rank of ``world_size``."""
        batches = self._validation if split == "val" else self._checked_split(split)
        return self._loader_of(batches, split, rank, world_size)

    def _loader_of(self, batches: IndexedBatches, split: Split, rank: int, world_size: int) -> SequenceLoader:
        batches = batches.read_by(self.batch_size * world_size)
        # overfitting means the same few batches again and again: neither shuffled nor fresh
        overfit = bool(getattr(self.trainer, "overfit_batches", 0))
        if overfit and batches.endless:
            batches.endless = False
        return SequenceLoader(
            batches,
            self.batch_size,
            train=split == "train",
            shuffle=split == "train" and not batches.endless and not batches.ordered and not overfit,
            seed=self.seed,
            rank=rank,
            world_size=world_size,
            num_workers=self.num_workers,
            bucket=self.bucket_by_length,
            pin=self.device().type == "cuda",
            check=functools.partial(self._check_batch, split),
        )

    def _processes(self) -> tuple[int, int]:
        """This process's number, and how many there are."""
        return (0, 1) if self.trainer is None else (self.trainer.global_rank, self.trainer.world_size)

    def device(self) -> torch.device:
        """Where the trainer computes; the CPU where there is none."""
        return torch.device("cpu") if self.trainer is None else self.trainer.strategy.root_device

    def _own_loader(self, split: Split) -> SequenceLoader:
        return self.loader(split, *self._processes())

    def _measuring(self, split: Split) -> SequenceLoader | list[SequenceLoader]:
        """The loader of a split; with `other_splits` a list that goes on with theirs."""
        own = self._own_loader(split)
        others = [self._loader_of(batches, split, *self._processes()) for batches in self.other_splits(split)]
        return [own, *others] if others else own

    def _place(self) -> tuple[int, int] | None:
        """The epoch that the trainer is in, and how many of its batches are done, while it trains."""
        trainer = self.trainer
        if trainer is None or (trainer.state.fn, trainer.state.status) != ("fit", "running"):
            return None
        epochs: Any = trainer.fit_loop.epoch_progress.current
        between = epochs.started == epochs.processed
        batches: Any = trainer.fit_loop.epoch_loop.batch_progress.current
        return epochs.processed, 0 if between else batches.processed

    def train_dataloader(self) -> Any:
        self.train_loader = self._own_loader("train")
        self.train_loader.place = self._place
        if self._train_state is not None:
            self.train_loader.load_state_dict(self._train_state)
            self._train_state = None
        return self.train_loader

    def transfer_batch_to_device(self, batch: Batch, device: torch.device, dataloader_idx: int) -> Batch:
        """Inputs and targets; what says which steps count stays on the CPU: see `datamodules.batch.Parts`."""
        moved = super().transfer_batch_to_device(tuple(batch[:2]), device, dataloader_idx)
        parts = (*moved, *batch[2:])
        return Parts(*parts) if isinstance(batch, Parts) else parts

    def state_dict(self) -> dict[str, Any]:
        """Where training is in the data, which Lightning keeps inside an epoch only, and what is `learned`."""
        place = {} if self.train_loader is None else self.train_loader.state_dict()
        learned = self.learned()
        return {**place, "learned": learned} if learned else place

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        state = dict(state_dict)
        learned = state.pop("learned", None)
        if learned:
            self.learn(learned)
        self._train_state = state or None

    def place_of(self, state: dict[str, Any]) -> tuple[int, bool]:
        """How many of this run's batches are done in the epoch that ``state`` is of, and whether those are all.

        Raises:
            UserError: as `SequenceLoader.load_state_dict`.
        """
        loader = self._own_loader("train")
        loader.load_state_dict(state)
        return loader.position, loader.position == len(loader)

    def val_dataloader(self) -> Any:
        return self._measuring("val")

    def test_dataloader(self) -> Any:
        return self._measuring("test")

    def predict_dataloader(self) -> Any:
        """Predictions are made on the validation split: the test set is only for ``test``."""
        return self._own_loader("val")

    def beside_predictions(self) -> dict[str, NDArray[Any]]:
        """What ``predict`` keeps beside its numbers, so that they can be read without the data: here nothing.

        ``sequences`` are names, one for each sequence of `predict_dataloader` in the order of all processes together.
        """
        return {}

    @property
    def answers_known(self) -> bool:
        """Whether the targets of `predict_dataloader` mean anything."""
        return True


def data_of(trainer: Any) -> SequenceDataModule | None:
    """A trainer's data, where they are of this kind."""
    data = getattr(trainer, "datamodule", None)
    return data if isinstance(data, SequenceDataModule) else None


class Generated(IndexedBatches):
    """A split whose samples are computed from (seed, split, index) by ``make(indices, split)``."""

    def __init__(self, owner: GeneratedDataModule, split: Split) -> None:
        self.owner, self.name = owner, split
        self.endless = split == "train" and not owner.reuse

    def __len__(self) -> int:
        return self.owner.samples[self.name]

    def __getitem__(self, indices: Indices) -> Batch:
        return self.owner.make(random_words(self.owner.seed, self.name, indices, self.owner.words_per_sample))


class GeneratedDataModule(SequenceDataModule):
    """Synthetic data: nothing is stored, sample i of a split is a function of (seed, split, i).

    Args:
        train_samples: Samples in one training epoch, over all processes together.
        val_samples: Samples in the validation split.
        test_samples: Samples in the test split.
        reuse: Train on the same ``train_samples`` sequences in every epoch, reshuffled (as the released scoRNN code
            does), instead of on fresh ones.
        batch_size: Sequences per step and process.
        seed: Seeds the samples and their order; None takes the run's ``seed_everything``.
        num_workers: Processes that prepare batches.
    """

    words_per_sample: int

    def __init__(
        self,
        train_samples: int = 12_800,
        val_samples: int = 1_000,
        test_samples: int = 10_000,
        reuse: bool = False,
        batch_size: int = 128,
        seed: int | None = None,
        num_workers: int = 0,
    ) -> None:
        super().__init__(batch_size, seed, num_workers)
        self.samples: dict[Split, int] = {"train": train_samples, "val": val_samples, "test": test_samples}
        for name, count in self.samples.items():
            whole(count, f"data.init_args.{name}_samples", 1)
        self.reuse = reuse

    @abstractmethod
    def make(self, words: NDArray[np.uint64]) -> Batch:
        """The batch that (B, words_per_sample) uniform 64-bit words determine."""

    def split(self, name: Split) -> Generated:
        return Generated(self, name)
