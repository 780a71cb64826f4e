"""Sequences of unequal lengths, and such that begin anew in their midst, as rows that only ever become fewer.

Rows of a batch do not depend on one another. A batch is cut into runs, each from where a sequence begins, or begins
anew, to its end; they lie side by side, the longest first, so that at every step the first so many of them are
at work. What lies behind an end is never read: it can neither cost time nor do harm. Every backend works on such packed
rows, (N, .) for N steps of all runs together, step by step; a batch of equal lengths is one block of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from datamodules.batch import near


class Block(NamedTuple):
    """Steps of the same rows."""

    steps: int
    rows: int

    @property
    def size(self) -> int:
        return self.steps * self.rows


Blocks = tuple[Block, ...]


def size(blocks: Sequence[Block]) -> int:
    """N: how many packed rows they are."""
    return sum(block.size for block in blocks)


def rows_of_steps(blocks: Sequence[Block]) -> Tensor:
    """How many rows each step has, (steps,) int32."""
    steps, rows = zip(*blocks, strict=True)
    return torch.from_numpy(np.repeat(np.array(rows, dtype=np.int32), steps))


def split(tensor: Tensor, blocks: Sequence[Block]) -> list[Tensor]:
    """Packed rows (N, .) as (steps, rows, .) of each block."""
    parts = tensor.split([block.size for block in blocks])
    return [part.unflatten(0, tuple(block)) for part, block in zip(parts, blocks, strict=True)]


class Piece(NamedTuple):
    """Steps of one call: blocks, their packed rows, and how many rows the step before them has."""

    blocks: Blocks
    rows: slice
    before: int

    @property
    def stay(self) -> int:
        """How many rows its last step has."""
        return self.blocks[-1].rows

    def inside(self, part: Part) -> slice:
        """Its rows among those of the part that it is of."""
        return slice(self.rows.start - part.rows.start, self.rows.stop - part.rows.start)


class Part(NamedTuple):
    """Steps that are worked on together.

    Args:
        number: Of its first block among all.
        rows: Its packed rows.
        blocks: Its steps.
        before: How many rows the step before them has; of the first of all, as many as it has itself.
    """

    number: int
    rows: slice
    blocks: Blocks
    before: int

    def of(self, tensor: Tensor | None) -> list[Tensor | None]:
        """What is there of each block, (steps, rows, .), of all packed rows (N, .)."""
        return [None] * len(self.blocks) if tensor is None else [*split(tensor[self.rows], self.blocks)]

    def pieces(self, whole: bool) -> list[Piece]:
        """All of it at once, or block by block."""
        if whole:
            return [Piece(self.blocks, self.rows, self.before)]
        found, row, before = [], self.rows.start, self.before
        for block in self.blocks:
            found.append(Piece((block,), slice(row, row + block.size), before))
            row, before = row + block.size, block.rows
        return found


def chunks(blocks: Sequence[Block], every: int) -> list[Blocks]:
    """``every`` steps at a time, the last of them as many as are left."""
    found: list[list[Block]] = []
    room = 0
    for steps, rows in blocks:
        while steps:
            if not room:
                found.append([])
                room = every
            taken = min(steps, room)
            found[-1].append(Block(taken, rows))
            steps, room = steps - taken, room - taken
    return [tuple(chunk) for chunk in found]


def parts(blocks: Sequence[Block], most: int) -> list[Part]:
    """About ``most`` packed rows at a time, at least one step; blocks that are longer are cut."""
    whole = size(blocks)
    if whole <= most:
        return [Part(0, slice(0, whole), tuple(blocks), blocks[0].rows)]
    groups: list[list[Block]] = []
    room = 0
    for steps, rows in blocks:
        longest = max(1, most // max(1, rows))
        while steps:
            block = Block(min(steps, longest), rows)
            if not groups or block.size > room:
                groups.append([])
                room = most
            groups[-1].append(block)
            steps, room = steps - block.steps, room - block.size
    found, number, row, before = [], 0, 0, blocks[0].rows
    for group in groups:
        end = row + size(group)
        found.append(Part(number, slice(row, end), tuple(group), before))
        number, row, before = number + len(group), end, group[-1].rows
    return found


def together(parts: Sequence[Part]) -> Blocks:
    """The blocks of all of them."""
    return tuple(block for part in parts for block in part.blocks)


def ends(blocks: Sequence[Block], device: torch.device) -> Tensor | slice:
    """Where in packed rows the last step of every run is, (R,)."""
    if len(blocks) == 1:
        return slice(size(blocks) - blocks[0].rows, None)
    steps, rows = np.array(blocks).T
    begins = (steps * rows).cumsum() - rows  # of the last step of each block
    ended = rows - np.append(rows[1:], 0)
    last = np.repeat(begins[::-1], ended[::-1])  # where the last step of each run begins
    return torch.from_numpy(last + np.arange(len(last))).to(device, non_blocking=True)


def places(blocks: Sequence[Block], device: torch.device) -> Tensor:
    """Of each packed row its row in the rectangle of all steps of all runs, step by step, (N,)."""
    steps, rows = np.array(blocks).T
    of_step = np.repeat(rows, steps)
    begins = np.arange(len(of_step)) * rows[0] - (of_step.cumsum() - of_step)
    return torch.from_numpy(np.arange(of_step.sum()) + np.repeat(begins, of_step)).to(device, non_blocking=True)


def block_by_block(
    run: Callable[[Tensor, tuple[Tensor, ...]], tuple[Tensor, tuple[Tensor, ...]]],
    u: Tensor,
    state: tuple[Tensor, ...],
    blocks: Blocks,
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Of packed rows u (N, .), by what ``run`` makes of (steps, rows, .) and the state before them."""
    outputs, ended = [], []
    following = [block.rows for block in blocks[1:]] + [0]
    for part, stay in zip(split(u, blocks), following, strict=True):
        y, state = run(part, state)
        outputs.append(y.flatten(0, 1))
        if stay:
            halves = [part.tensor_split([stay]) for part in state]
            state, gone = zip(*halves, strict=True)
        ended.append(gone if stay else state)
    if len(blocks) == 1:
        return outputs[0], state
    return torch.cat(outputs), tuple(torch.cat(parts) for parts in zip(*reversed(ended), strict=True))


class Chain:
    """The states of all steps in one memory, (R + N, width): packed rows, behind the states before the first of them.

    Args:
        memory: That.
        rows: R.
    """

    def __init__(self, memory: Tensor, rows: int) -> None:
        self.memory, self.first = memory, rows
        self._last = memory[:rows]

    @classmethod
    def begun(cls, before: Tensor, size: int) -> Chain:
        """With room for as many packed rows behind the states ``before`` (R, width)."""
        memory = before.new_empty(len(before) + size, before.shape[1])
        memory[: len(before)] = before
        return cls(memory, len(before))

    @property
    def states(self) -> Tensor:
        """Of all steps, packed."""
        return self.memory[self.first :]

    def at(self, piece: Piece) -> tuple[Tensor, Tensor]:
        """The states before a piece, as many as it has rows at first, and those of its own steps."""
        start = self.first + piece.rows.start
        before = self.memory[start - piece.before : start - piece.before + piece.blocks[0].rows]
        return before, self.memory[start : self.first + piece.rows.stop]

    def again(self, piece: Piece) -> tuple[Tensor, Tensor]:
        """`at`, of the piece behind the last one that was asked for, in whose memory it is put."""
        before, h = self.memory[: piece.blocks[0].rows], self.states[: size(piece.blocks)]
        before.copy_(self._last[: len(before)])
        self._last = h[-piece.stay :]
        return before, h

    def previous(self, piece: Piece) -> Tensor:
        """The state that each of its own comes from: in the same order, and without a copy where rows stay the same."""
        before, h = self.at(piece)
        rows = len(before)
        if len(piece.blocks) == 1:
            if piece.before != rows:
                return torch.cat((before, h[:-rows]))
            start = self.first + piece.rows.start - rows
            return self.memory[start : start + len(h)]
        now = rows_of_steps(piece.blocks).numpy()
        back = np.repeat(np.append(piece.before, now[:-1]), now)
        start = self.first + piece.rows.start
        return self.memory.index_select(0, near(torch.from_numpy(np.arange(start, start + len(h)) - back), h))


class Trail:
    """Where the states of all steps lie in one memory: those of each block behind the state that it goes on from.

    Args:
        blocks: The steps; rows only ever become fewer.
        whole: Whether states are kept; else a block takes the memory of the one before it.
    """

    def __init__(self, blocks: Sequence[Block], whole: bool = True) -> None:
        self.blocks, self.whole = tuple(blocks), whole
        self._starts: list[int] = []
        self.size, rows = 0, -1
        for block in blocks:
            start = 0 if not whole else self.size - rows if block.rows == rows else self.size
            self._starts.append(start)
            self.size, rows = max(self.size, start + (1 + block.steps) * block.rows), block.rows

    def block(self, memory: Tensor, number: int) -> Tensor:
        """(1 + steps, rows, width)."""
        (steps, rows), start = self.blocks[number], self._starts[number]
        return memory[start : start + (1 + steps) * rows].unflatten(0, (1 + steps, rows))

    def enter(self, memory: Tensor, number: int, before: Tensor) -> Tensor:
        """`block`, behind the first of the states ``before``."""
        here = self.block(memory, number)
        if not (self.whole and number and self.blocks[number - 1].rows == here.shape[1]):  # else they are there
            here[0] = before[: here.shape[1]]
        return here

    def states(self, memory: Tensor) -> Tensor:
        """Of all steps, packed (N, width): a view where rows stay the same."""
        rows = {block.rows for block in self.blocks}
        if len(rows) == 1:
            return memory[rows.pop() :]
        return torch.cat([self.block(memory, number)[1:].flatten(0, 1) for number in range(len(self.blocks))])

    def put_ended(self, last: Tensor, final: Tensor, number: int) -> None:
        """Put the states ``last`` after block ``number`` of the rows that end with it into ``final`` (R, width)."""
        stays = self.blocks[number + 1].rows if number + 1 < len(self.blocks) else 0
        final[stays : len(last)] = last[stays:]
