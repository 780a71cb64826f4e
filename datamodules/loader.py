"""SequenceLoader: the batches of one rank in an order that is a function of (seed, epoch)."""

from __future__ import annotations

import atexit
import contextlib
import multiprocessing
import os
import signal
import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from multiprocessing.queues import Queue
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset

from datamodules.batch import Batch
from datamodules.errors import UserError, one_line, require

Indices = NDArray[np.int64]

_SHUFFLE_ID = 3  # keys the generator that orders the training set, so that order never repeats a sample's randomness
_POOL = 100  # batches that are sorted by length together: chance stays, and padding nearly goes


class IndexedBatches(Dataset[Batch], ABC):
    """A split that answers an array of indices with one whole batch.

    ``endless`` splits are functions of the index and go on past ``len``: every epoch is made of fresh samples.
    """

    endless = False
    ordered = False
    """Whether batches go on from the ones before, so that their order is fixed."""
    lengths: Indices | None = None
    """How many steps each sample has, where that differs and is known: what bucketing goes by."""

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def __getitem__(self, indices: Indices) -> Batch: ...

    def ahead(self, given: Sequence[Indices]) -> Iterator[Batch] | None:
        """The training batches of these indices, one after another, where this process makes them, several at once;
        None: each by `__getitem__`, in ``num_workers``."""
        return None

    def read_by(self, rows: int) -> IndexedBatches:
        """The split as it is where batches have ``rows`` rows, of all processes together."""
        return self


class Entry(NamedTuple):
    """Where a run came into an epoch that another number of processes, or another batch size, had begun.

    Args:
        epoch: Which.
        position: The first batch, counted in batches of this run.
        samples: How many samples of the epoch were done, those of all processes.
        order_rows: The rows of a batch, those of all processes, of the run that began it: bucketing goes by them.
    """

    epoch: int
    position: int
    samples: int
    order_rows: int


def _begin_worker(worker: int) -> None:
    """What stops a job reaches all of its processes, and the main one still needs its batches to finish a step.

    A batch that cannot be handed over ends the worker: Python would drop it, and the main process wait for it.
    """
    for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1):
        signal.signal(signum, signal.SIG_IGN)
    Queue._on_queue_feeder_error = staticmethod(_not_handed_over)  # type: ignore[attr-defined]  # Python's own hook


def _not_handed_over(error: BaseException, _: object) -> None:
    os.write(2, f"warning: A batch cannot be handed to the main process: {one_line(error)}.\n".encode())
    os._exit(1)


_with_workers: weakref.WeakSet[Any] = weakref.WeakSet()  # torch's iterators that have some


@atexit.register
def end_workers() -> None:
    """Of iterators that something still holds, such as the error that a batch raised.

    torch ends them when an iterator is let go of: where the collector finds it in a circle, after five seconds, since
    its queues are closed before; once the interpreter ends, not at all, and Python would wait for them without end.
    """
    for batches in list(_with_workers):
        batches.__del__()


class _Workers(DataLoader[Batch]):
    """Ends the workers that have begun where another one cannot be started: they would be waited for in the end."""

    def __iter__(self) -> Iterator[Batch]:  # type: ignore[override]  # torch's type has no name outside
        before = multiprocessing.active_children()
        try:
            batches = super().__iter__()
        except BaseException as error:  # an interrupt too
            for process in multiprocessing.active_children():
                if process not in before:
                    with contextlib.suppress(RuntimeError):  # torch's, of a worker that was killed
                        process.kill()  # they take no other signal
                        process.join()
            if not isinstance(error, OSError):
                raise
            raise UserError(
                f"data.init_args.num_workers is {self.num_workers}, but not all of these processes can be started "
                f"({error.strerror}): they need open files (ulimit -n), processes (ulimit -u) and room in /dev/shm; "
                "give fewer, or 0."
            ) from error
        if self.num_workers:
            _with_workers.add(batches)
            for worker in vars(batches)["_workers"]:
                worker.terminate = worker.kill  # torch's last resort where they do not end as told: see _begin_worker
        return batches


class SequenceLoader:
    """The batches of one rank, in an order that is a function of (seed, epoch), from any position on.

    Training: every ``iter()`` is one epoch of ``len(split)`` samples over all ranks together; what does not fill a
    batch on every rank is left out. Evaluation: every sample exactly once over all ranks, batch sizes differing by at
    most one and the same number of batches on each rank, none empty, so that metrics are exact and no collective call
    waits.

    Not a ``DataLoader`` itself: Lightning would then put its own sampler in.

    Args:
        split: Where samples come from.
        batch_size: Samples a batch.
        train: Whether this is training.
        shuffle: Whether the order changes from epoch to epoch.
        seed: Of the order.
        rank: This process.
        world_size: Of so many.
        num_workers: Processes that prepare batches.
        bucket: Training batches are of sequences of similar length: a hundred batches at a time are sorted by length,
            cut, and shuffled. The split must know its ``lengths``.
        pin: Put batches into page-locked memory, from which they are copied to a GPU while the host goes on.
        place: Tells the epoch and how many of its batches are done, at the moment when the next is asked for: a
            training loop knows, however many iterators and loaders it made. Where it tells none, what was iterated
            over is counted.
        check: Refuses a batch that is not what its task says; given it, its number in the epoch, and its samples.
    """

    def __init__(
        self,
        split: IndexedBatches,
        batch_size: int,
        *,
        train: bool,
        shuffle: bool,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
        num_workers: int = 0,
        bucket: bool = False,
        pin: bool = False,
        place: Callable[[], tuple[int, int] | None] = lambda: None,
        check: Callable[[Batch, int, Indices], None] = lambda *_: None,
    ) -> None:
        self.place, self.check = place, check
        self.split, self.batch_size, self.train, self.shuffle, self.seed = split, batch_size, train, shuffle, seed
        self.rank, self.world_size, self.num_workers = rank, world_size, num_workers
        self.bucket, self.pin = bucket, pin
        self.epoch = 0
        self.position = 0  # batches already given in this epoch
        self.regrouped: dict[str, Any] | None = None
        """The state that training went on from, if its batches were of other processes or sizes."""
        self.seed_before = seed
        """That of the state which training went on from."""
        self._entry: Entry | None = None
        self._resumed = False
        self.rows = batch_size * world_size
        if train:
            require(
                len(split) >= self.rows,
                "data.init_args.batch_size",
                batch_size,
                f"at most {len(split) // world_size}: the training split has {len(split)} samples "
                f"for {world_size} process(es)",
            )
        elif len(split) < world_size:
            raise UserError(
                f"The evaluation split has {len(split)} samples for {world_size} processes, but each needs one: "
                "lower trainer.devices, or raise the split's size in data.init_args."
            )
        # evaluation: no more batches than every rank can put a sample in
        rows = self.rows
        self._steps = len(split) // rows if train else min(-(-len(split) // rows), len(split) // world_size)

    def __len__(self) -> int:
        return self._steps

    def given(self) -> Indices:
        """Which samples this rank gets in the current epoch, one after another."""
        return np.concatenate(self._batches(self.bucket))

    def padding(self, bucket: bool) -> float | None:
        """Share of padding among all steps of this rank's current epoch; None where lengths are equal, or not known."""
        lengths = self.split.lengths
        if lengths is None:
            return None
        given = [lengths[indices] for indices in self._batches(bucket)]
        return 1 - sum(int(some.sum()) for some in given) / sum(len(some) * int(some.max()) for some in given)

    def _batches(self, bucket: bool) -> list[Indices]:
        """This rank's index arrays for the current epoch."""
        size, steps = len(self.split), self._steps
        if not self.train:
            return np.array_split(np.arange(size), steps * self.world_size)[self.rank :: self.world_size]
        order = np.arange(size)
        entry = self._entry if self._entry is not None and self._entry.epoch == self.epoch else None
        if self.shuffle:
            generator = np.random.Generator(np.random.Philox(key=[self.seed, _SHUFFLE_ID], counter=self.epoch << 64))
            order = generator.permutation(size)
            if bucket and self.split.lengths is not None:
                rows = self.rows if entry is None else entry.order_rows
                whole = size - size % rows
                bucketed = _bucketed(order[:whole], self.split.lengths, size // rows, generator)
                order = np.concatenate([bucketed, order[whole:]])
        if self.split.endless:
            order = order + self.epoch * size
        used = order[: steps * self.rows]
        given = list(used.reshape(steps, self.world_size, self.batch_size)[:, self.rank])
        if entry is not None and entry.position < steps:  # what was left of this batch, every process its share
            left = order[entry.samples : (entry.position + 1) * self.rows]
            given[entry.position] = left.reshape(self.world_size, -1)[self.rank]
        return given

    def __iter__(self) -> Iterator[Batch]:
        place = self.place()
        if place is not None:
            self.epoch, self.position = place
        elif self.position >= self._steps or (self.position > 0 and not self._resumed):
            self.position = 0
            self.epoch += int(self.train)
        self._resumed = False
        given = self._batches(self.bucket)
        batches: Iterable[Batch] | None = self.split.ahead(given[self.position :]) if self.train else None
        if batches is None:
            batches = _Workers(
                self.split,
                batch_size=None,
                sampler=given[self.position :],
                num_workers=self.num_workers,
                pin_memory=self.pin,
                worker_init_fn=_begin_worker if self.num_workers else None,
                generator=torch.Generator(),  # else it draws its base seed from the model's random numbers
            )
        for batch in batches:
            self.check(batch, self.position, given[self.position])
            self.position += 1
            yield batch

    def state_dict(self) -> dict[str, Any]:
        epoch, position = self.place() or (self.epoch, self.position)
        state = {"epoch": epoch, "position": position, "steps": self._steps, "rows": self.rows, "seed": self.seed}
        entry = self._entry if self._entry is not None and self._entry.epoch == epoch else None
        return {
            **state,
            "size": len(self.split),
            "processes": self.world_size,
            "samples": entry.samples if entry and entry.position == position else position * self.rows,
            "order_rows": entry.order_rows if entry else self.rows,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from there.

        Where batches were of another number of processes, or of another size, the rest of the epoch is cut into those
        of this run: no sample is seen twice, and none is left out but those that fill no batch at the epoch's end.

        Raises:
            UserError: if the data are others, or the rest of the epoch cannot be shared by this run's processes.
        """
        self._check_place(state)
        inside = 0 < state["position"] < state["steps"]
        self.seed_before = state.get("seed", self.seed)
        if inside and self.seed_before != self.seed:  # some samples would come twice, and others not at all
            raise UserError(
                f"data.init_args.seed is {self.seed}, but the checkpoint was made inside an epoch whose order is that "
                f"of seed {self.seed_before}: resume with that one, or from the end of an epoch."
            )
        regrouped = "rows" in state and (state["rows"], state["processes"]) != (self.rows, self.world_size)
        rows = state.get("rows", self.rows)
        # streams have as many samples as their number asks for
        size = len(self.split) if self.split.ordered or "rows" not in state else state["size"]
        if inside and (size != len(self.split) or (rows == self.rows and state["steps"] != self._steps)):
            raise UserError(
                f"The checkpoint was made inside an epoch of {state['steps']} batches, but the data now gives "
                f"{self._steps}: resume with the same data.init_args and trainer.devices."
            )
        self.epoch, self.position = state["epoch"], state["position"]
        self._resumed = True
        self.regrouped = state if regrouped else None
        if rows != self.rows and state["position"] > 0:
            self.position = self._regroup(state) if inside else self._steps
        off_grid = "rows" in state and state["samples"] != self.position * self.rows
        if inside and (off_grid or state.get("order_rows", self.rows) != self.rows):
            self._entry = Entry(self.epoch, self.position, state["samples"], state["order_rows"])

    def _check_place(self, state: dict[str, Any]) -> None:
        """Refuse what is no place in the data."""
        counts = [state.get(key) for key in ("epoch", "position", "steps")]
        counts += [state[key] for key in ("rows", "processes", "samples", "order_rows", "size", "seed") if key in state]
        if not all(isinstance(count, int) and 0 <= count < 2**63 for count in counts):
            raise UserError("The checkpoint does not say where training was in the data: go on from another.")

    def _regroup(self, state: dict[str, Any]) -> int:
        """The batch to go on with."""
        was = f"{state['processes']} process(es) of {state['rows'] // state['processes']} sequences a batch"
        same = f"{state['rows']} sequences a step over all processes (data.init_args.batch_size times trainer.devices)"
        if self.split.ordered:
            raise UserError(
                f"The checkpoint was made inside an epoch by {was}, and its streams go on from batch to batch: resume "
                f"with {same}."
            )
        position, rest = divmod(state["samples"], self.rows)
        if position < self._steps and (self.rows - rest) % self.world_size:
            raise UserError(
                f"The checkpoint was made inside an epoch by {was}, after {state['samples']} of {len(self.split)} "
                f"samples; the {self.rows - rest} up to the next batch of this run cannot be shared equally by "
                f"{self.world_size} processes: resume with {same}."
            )
        return min(position, self._steps)


def _bucketed(order: Indices, lengths: Indices, steps: int, generator: np.random.Generator) -> Indices:
    """As many samples in another order: the batches of ``steps`` steps each of similar lengths, and shuffled."""
    batches = order.reshape(steps, -1)
    sorted_ = []
    for pool in np.array_split(batches, -(-steps // _POOL)):
        samples = pool.ravel()
        sorted_.append(samples[np.argsort(lengths[samples], kind="stable")].reshape(pool.shape))
    return np.concatenate(sorted_)[generator.permutation(steps)].ravel()
