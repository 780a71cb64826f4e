"""Lengths, and steps at which a sequence begins anew, as the packed rows of `lit_rnn.scan.packed`."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from datamodules.batch import near
from datamodules.errors import UserError
from lit_rnn.cells.base import Cell, State
from lit_rnn.dtypes import described
from lit_rnn.scan import packed
from lit_rnn.scan.packed import Block, Blocks


class Runs(NamedTuple):
    """Runs of steps of a batch (T, B), the longest first.

    Args:
        blocks: How many of them are at work at which step.
        place: (N,), of each packed row its row in ``x.flatten(0, 1)``.
        row: (R,), of each run the row of the batch.
        fresh: (R,) bool: it begins with the cell's own initial state; None where none does.
        last: (B,), of each row of the batch the run that it ends with.
    """

    blocks: Blocks
    place: Tensor
    row: Tensor
    fresh: Tensor | None
    last: Tensor

    def start(self, cell: Cell, state: State) -> State:
        """The state before the first step of each run, from that of each row."""
        own = tuple(part.index_select(0, self.row) for part in state)
        if self.fresh is None:
            return own
        new, fresh = cell.initial_state(len(self.row)), self.fresh[:, None]
        return tuple(torch.where(fresh, n.to(o.dtype), o) for n, o in zip(new, own, strict=True))

    def unpacked(self, y: Tensor, steps: int) -> Tensor:
        """Packed outputs (N, .) as (steps, B, .), zero where no run is."""
        return _Unpacked.apply(y, self.place, steps * len(self.last)).unflatten(0, (steps, len(self.last)))


class _Unpacked(torch.autograd.Function):
    """Rows of y (N, .) put to their places among ``rows`` of them, the others zero, without the copies of autograd."""

    @staticmethod
    def forward(ctx: Any, y: Tensor, place: Tensor, rows: int) -> Tensor:
        ctx.save_for_backward(place)
        return y.new_zeros(rows, y.shape[1]).index_add_(0, place, y)  # half the time of index_copy_

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        return grad.index_select(0, ctx.saved_tensors[0]), None, None


def runs_of(x: Tensor, lengths: Tensor | None, reset: Tensor | None) -> Runs | None:
    """The runs of x (T, B, I); None where every row is one run of all steps.

    Raises:
        UserError: unless ``lengths`` is int64 (B,) from 1 to T, and ``reset`` bool (T, B).
    """
    T, B = x.shape[:2]
    whole = _checked_lengths(lengths, T, B)
    reset = _checked_reset(reset, T, B)
    if not B or (reset is None and whole.min() == T):
        return None
    # in NumPy: most of these are small, and cost what it takes to call them
    row, first = np.arange(B), np.zeros(B, dtype=np.int64)
    if reset is not None:
        begins = reset.numpy().T.copy()
        begins[:, 0] = True
        begins &= np.arange(T) < whole[:, None]
        row, first = begins.nonzero()  # row by row, in the order of time
    ends = np.append(row[1:] != row[:-1], True)  # of its row
    length = np.where(ends, whole[row], np.append(first[1:], 0)) - first
    order = np.argsort(-length, kind="stable")
    number = np.empty_like(order)
    number[order] = np.arange(len(order))
    last = number[ends]
    row, first, length = row[order], first[order], length[order]
    blocks = _blocks(length)
    rows = packed.rows_of_steps(blocks).numpy()
    run = np.arange(int(length.sum())) - np.repeat(rows.cumsum() - rows, rows)
    place = (first * B + row)[run] + np.repeat(np.arange(len(rows)) * B, rows)
    fresh = None if reset is None else reset.numpy()[first, row]
    moved = (None if part is None else near(torch.from_numpy(part), x) for part in (place, row, fresh, last))
    return Runs(blocks, *moved)  # type: ignore[arg-type]  # None is fresh alone


def _blocks(length: NDArray[np.int64]) -> Blocks:
    """From the lengths of runs, the longest first."""
    last = np.flatnonzero(np.append(length[1:], 0) < length)[::-1]  # of those of one length, the shortest first
    steps = np.diff(length[last], prepend=0)
    return tuple(map(Block, steps.tolist(), (last + 1).tolist()))


def check_lengths(lengths: Tensor, B: int) -> None:
    """Raise `UserError` unless lengths are int64 (B,); how large they are is looked at where x is scanned."""
    if not isinstance(lengths, Tensor) or lengths.dtype != torch.int64 or lengths.shape != (B,):
        raise UserError(f"lengths is {described(lengths)}, but it must be int64 ({B},), one number a sequence.")


def _checked_lengths(lengths: Tensor | None, T: int, B: int) -> NDArray[np.int64]:
    if lengths is None:
        return np.full(B, T)
    check_lengths(lengths, B)
    whole: NDArray[np.int64] = lengths.cpu().numpy()
    if B and not (whole.min() > 0 and whole.max() <= T):
        wrong = next(length for length in whole.tolist() if not 1 <= length <= T)
        raise UserError(f"lengths holds {wrong}, but a length must be from 1 to {T}, the steps of the inputs.")
    return whole


def _checked_reset(reset: Tensor | None, T: int, B: int) -> Tensor | None:
    if reset is None:
        return None
    if not isinstance(reset, Tensor) or reset.dtype != torch.bool or reset.shape != (T, B):
        raise UserError(f"reset is {described(reset)}, but it must be bool ({T}, {B}), true where a sequence begins.")
    reset = reset.cpu()
    return reset if bool(reset.any()) else None
