"""The drive of a recurrence in C++ or with a hand-written backward: a few steps of it at a time.

A drive V x_t + c is never whole in memory, and neither is delta_t, the loss's gradient by it: dL/dV = sum_t delta_t
x_t^T, dL/dc = sum_t delta_t and dL/dx_t = V^T delta_t are formed from a few steps at a time. What remains of a pass
over T steps is the states. A cell with a drive of its own gives it whole.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, TypeGuard

import torch
from torch import Tensor, nn

from lit_rnn.cells.base import Cell
from lit_rnn.cells.orthogonal import UnitaryCell
from lit_rnn.scan import packed
from lit_rnn.scan.checks import is_just
from lit_rnn.scan.packed import Blocks, Part

# Numbers in a part: few enough to stay in the cache, enough for the products over its steps to be large.
PART = 2**20
# On a GPU: enough for a launch to cost nothing beside its work.
PART_ON_GPU = 2**26


class Drive(NamedTuple):
    """u = V x + c, or u = x where V is None; x is packed rows (N, I), V (G, I), c (G,)."""

    x: Tensor
    V: Tensor | None = None
    c: Tensor | None = None

    @property
    def width(self) -> int:
        return self.x.shape[-1] if self.V is None else len(self.V)

    def parts(self, blocks: Blocks) -> list[Part]:
        """The steps that are worked on together; all of them where the drive is whole anyway."""
        numbers = PART_ON_GPU if self.x.is_cuda else PART
        return packed.parts(blocks, len(self.x) if self.V is None else numbers // max(1, self.width))

    def of(self, part: slice) -> Tensor:
        x = self.x[part]
        return x if self.V is None else nn.functional.linear(x, self.V, self.c)


def driven(cell: Cell, x: Tensor, w: Any, blocks: Blocks) -> Tensor:
    """``cell.drive`` of packed rows (N, I), (N, G)."""
    shape = tuple(blocks[0]) if len(blocks) == 1 else (1, len(x))
    return cell.drive(x.unflatten(0, shape), w).flatten(0, 1)


def drive_of(cell: Cell, x: Tensor, w: Any, dtype: torch.dtype, blocks: Blocks, reads_bf16: bool = False) -> Drive:
    """The drive of ``cell`` in ``dtype``, a complex one as halves; in parts where a `nn.Linear` of that precision.

    Under autocast it is made in bfloat16, and stays so for who ``reads_bf16``: the same numbers in half the memory.
    """
    if drives_by_inputs(cell) and (in_parts := _in_parts(cell.input, x, dtype)):
        return in_parts
    u = driven(cell, x, w, blocks)
    u = halves(u) if u.is_complex() else u
    return Drive(u if reads_bf16 and u.dtype == torch.bfloat16 else u.to(dtype))


def drive_by(linear: nn.Module, x: Tensor, dtype: torch.dtype) -> Drive:
    """``linear`` of packed rows (N, I) in ``dtype``, as `drive_of`."""
    return _in_parts(linear, x, dtype) or Drive(linear(x).to(dtype))


def _in_parts(linear: nn.Module, x: Tensor, dtype: torch.dtype) -> Drive | None:
    if not is_linear(linear) or torch.is_autocast_enabled(x.device.type):
        return None
    drive = Drive(x, linear.weight, linear.bias)
    return drive if all(tensor is None or tensor.dtype == dtype for tensor in drive) else None


def drives_by_inputs(cell: Cell) -> bool:
    """Whether the drive is ``cell.input`` of the inputs, as real or complex numbers, and nothing else."""
    return type(cell).drive in (Cell.drive, UnitaryCell.drive)


def halves(z: Tensor) -> Tensor:
    """Complex (..., n) as [Re | Im], (..., 2n)."""
    return torch.cat((z.real, z.imag), dim=-1)


def is_linear(module: nn.Module) -> TypeGuard[nn.Linear]:
    """Whether its weight and bias say all that ``module`` does."""
    return is_just(module, nn.Linear)


class DriveGradients:
    """The loss's gradients by x, V and c, from those by parts of the drive.

    Args:
        drive: What was driven.
        needed: Whether by x, V and c.
    """

    def __init__(self, drive: Drive, needed: Sequence[bool]) -> None:
        self.drive, self.needed = drive, needed
        by_x, by_V, by_c = needed
        x, V, c = drive
        self.x = torch.empty_like(x, memory_format=torch.contiguous_format) if by_x and V is not None else None
        self.V = torch.zeros_like(V) if by_V and V is not None else None
        self.c = torch.zeros_like(c) if by_c and c is not None else None

    def add(self, part: slice, delta: Tensor) -> None:
        """delta (rows of the part, G) is the gradient by that part of the drive."""
        x, V, _ = self.drive
        if V is None:  # the one part is all
            self.x = delta if self.needed[0] else None
        elif self.x is not None:
            torch.matmul(delta, V, out=self.x[part])
        if self.V is not None:
            self.V.addmm_(delta.mT, x[part])
        if self.c is not None:
            self.c += delta.sum(0)
