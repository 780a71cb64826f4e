"""Long series as parallel streams, cut into chunks: data for truncated backpropagation through time."""

from __future__ import annotations

from abc import abstractmethod
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from datamodules.base import SequenceDataModule, Split
from datamodules.batch import Parts
from datamodules.errors import UserError, require, whole
from datamodules.loader import IndexedBatches, Indices


class Series(NamedTuple):
    """One long sequence with a target at every step.

    Args:
        inputs: (N,) symbols, of any integer dtype, or (N, I) values.
        targets: (N,) classes or (N, O) numbers.
        begins: (N,) bool, where a document begins: the state is reset before that step. None: nowhere.
    """

    inputs: Tensor
    targets: Tensor
    begins: Tensor | None = None

    @classmethod
    def of_symbols(cls, symbols: Tensor, begins: Tensor | None = None) -> Series:
        """To predict every next symbol of (N + 1,)."""
        return cls(symbols[:-1], symbols[1:], None if begins is None else begins[:-1])


class Streams(IndexedBatches):
    """A series as S streams side by side, each going on where its last chunk ended.

    Stream s is the s-th of S equal parts of the series; sample c S + s is its chunk number c. So the batches that a
    `SequenceLoader` forms in order are consecutive chunks, and every process has streams of its own. Training leaves
    out what does not divide by S, fewer than S steps; evaluation counts every step, by a mask in the last chunk.

    Args:
        series: What is cut.
        chunk: Steps in a chunk.
        streams: S.
        even: Whether all streams are of one length.
        carry: The share of chunks, drawn by ``seed``, whose state goes on from the one before.
        seed: Of that.
    """

    ordered = True

    def __init__(
        self, series: Series, chunk: int, streams: int, even: bool, carry: float = True, seed: int | None = None
    ) -> None:
        N = len(series.inputs)
        if streams > N:
            raise UserError(
                f"data.init_args.batch_size makes {streams} streams over all processes, but the series has {N} steps: "
                "lower it, or trainer.devices."
            )
        self.series, self.chunk, self.streams, self.even = series, chunk, streams, even
        self.carry, self.seed = carry, seed
        shortest, rest = divmod(N, streams)
        self.sizes = np.full(streams, shortest) + (np.arange(streams) < (0 if even else rest))
        self.starts = np.concatenate(([0], self.sizes.cumsum()[:-1]))
        self.goes_on = np.random.default_rng(seed or 0).random(len(self)) < carry  # each chunk, from the one before

    def read_by(self, rows: int) -> Streams:
        if rows == self.streams:
            return self
        return Streams(self.series, self.chunk, rows, self.even, self.carry, self.seed)

    def __len__(self) -> int:
        return -(-int(self.sizes[0]) // self.chunk) * self.streams

    def __getitem__(self, indices: Indices) -> Parts:
        number, stream = np.divmod(indices, self.streams)
        step = number[:, None] * self.chunk + np.arange(self.chunk)
        inside = step < self.sizes[stream][:, None]
        used = max(1, int(inside.any(0).sum()))
        step, inside = step[:, :used], inside[:, :used]
        last = self.sizes[stream][:, None] - 1
        place = torch.from_numpy(self.starts[stream][:, None] + np.minimum(step, last))
        inputs, targets, begins = self.series
        anew = ~self.goes_on[indices][:, None] & (step % self.chunk == 0)
        reset = torch.from_numpy((step == 0) | anew)
        if begins is not None:
            reset |= begins[place] & torch.from_numpy(inside)
        mask = None if inside.all() else torch.from_numpy(inside)
        return Parts(_wide(inputs[place]), _wide(targets[place]), mask, None, reset)


def _wide(part: Tensor) -> Tensor:
    """Symbols as int64: a series may keep them in fewer bytes."""
    return part if part.is_floating_point() else part.long()


class StreamDataModule(SequenceDataModule):
    """Base of data that is one long series a split, such as text: batches are consecutive chunks of parallel streams.

    The model carries its states from batch to batch, cut off from the gradient: truncated backpropagation through time
    over ``tbptt`` steps. It begins anew where a stream or a document does.

    Args:
        tbptt: Steps in a chunk.
        batch_size: Streams of one process.
        seed: Of what a subclass draws, and of ``carry``.
        num_workers: Processes that prepare batches.
        carry: The share of training chunks, drawn by ``seed``, that go on with the states of the one before; true is
            all, false none. With all, a network hardly sees how a text begins, once a stream and epoch, and may not
            find its way from there; with none, one whose state grows from chunk to chunk, as NRU's memory does, can be
            trained at all. Validation and test always carry, unless it is false: then every chunk is a sequence of its
            own there, too.
    """

    def __init__(
        self,
        tbptt: int = 100,
        batch_size: int = 32,
        seed: int | None = None,
        num_workers: int = 0,
        carry: bool | float = True,
    ) -> None:
        super().__init__(batch_size, seed, num_workers)
        whole(tbptt, "data.init_args.tbptt", 1)
        require(0 <= carry <= 1, "data.init_args.carry", carry, "true, false or a share from 0 to 1")
        self.tbptt, self.carry = tbptt, carry

    @abstractmethod
    def series(self, name: Split) -> Series:
        """All of a split."""

    def split(self, name: Split) -> Streams:
        series = self.series(name)
        kind = f"{type(self).__name__}.series({name!r})"
        if not isinstance(series, Series):
            raise UserError(
                f"{kind} returns {type(series).__name__}, but it must return a datamodules.Series(inputs, targets)."
            )
        for part, tensor in series._asdict().items():
            fits = isinstance(tensor, Tensor) and tensor.dim() > 0 and len(tensor) == len(series.inputs)
            if not (fits or (tensor is None and part == "begins")):
                given = tuple(tensor.shape) if isinstance(tensor, Tensor) else type(tensor).__name__
                raise UserError(f"{kind} returns {part} {given}, but it must be a tensor with as many steps as inputs.")
        train = name == "train"
        carry = self.carry if train else self.carry > 0
        return Streams(series, self.tbptt, self.batch_size, even=train, carry=carry, seed=self.seed)
