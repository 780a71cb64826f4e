"""DeltaProduct on the CPU, some steps at a time, as calls into C++ (`deltaproduct.cpp`).

The map of the inputs and the gradient by it are formed here, a few steps at a time. A step's matrices are more numbers
than all that drives it: only those before the first step of every call are kept, and the backward runs the steps from
there again.
"""

from __future__ import annotations

import ctypes
from typing import Any, TypeGuard

import torch
from torch import Tensor

from lit_rnn.cells.base import Cell, State
from lit_rnn.cells.deltaproduct import RMS, UNIT, DeltaProductCell
from lit_rnn.scan.drive import Drive, DriveGradients, drive_by
from lit_rnn.scan.native import Memory, addresses, function, readable, runs_natively
from lit_rnn.scan.packed import Block, Blocks, Part, ends, parts, size, split
from lit_rnn.scan.recurrence import refuse_a_graph

STEPS = 16, 64
"""At least and at most so many in a call: kept are T / steps matrices a sequence, and while it is run again all of its
own."""
ROWS = 2048
"""Packed rows in a call, where that leaves it so many steps: enough for the products over them."""
_SAID_IN = ("step", "drive", "terms", "matrices", "read")


class _Shape(ctypes.Structure):
    """As in deltaproduct.cpp."""

    _fields_ = [
        *((name, ctypes.c_int) for name in ("steps", "rows", "threads", "heads", "m", "d", "d_v", "largest")),
        ("unit", ctypes.c_double),
        ("rms", ctypes.c_double),
    ]


def is_deltaproduct(cell: Cell) -> TypeGuard[DeltaProductCell]:
    """Whether deltaproduct.cpp computes what ``cell`` does."""
    if not isinstance(cell, DeltaProductCell):
        return False
    return all(getattr(type(cell), name) is getattr(DeltaProductCell, name) for name in _SAID_IN)


def runs_deltaproduct(cell: Cell) -> bool:
    """Whether it does, and can here."""
    return is_deltaproduct(cell) and runs_natively("deltaproduct", cell.scale.dtype, cell.scale.device)


def run_deltaproduct(
    cell: DeltaProductCell, x: Tensor, state: State, last_only: bool, blocks: Blocks
) -> tuple[Tensor, State]:
    """Packed outputs (N, output_size), or the last (R, output_size), and final state."""
    scale = cell.scale
    drive, start = drive_by(cell.input, x, scale.dtype), state[0].to(scale.dtype)
    numbers = (cell.heads, cell.householder, cell.key_size, cell.value_size, 2 if cell.negative else 1, UNIT, RMS)
    keep = torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in (*drive, start, scale))
    y, final = _Products.apply(numbers, keep, blocks, *drive, start, scale)
    return (y[ends(blocks, y.device)] if last_only else y), (final,)


def _calls(blocks: Blocks) -> list[Part]:
    rows = max(1, blocks[0].rows)
    return parts(blocks, rows * min(max(STEPS[0], ROWS // rows), STEPS[1]))


class _Products(torch.autograd.Function):
    """Packed outputs (N, n), and the state of every row after its last step, (R, .)."""

    @staticmethod
    def forward(
        ctx: Any,
        numbers: tuple[Any, ...],
        keep: bool,
        blocks: Blocks,
        x: Tensor,
        V: Tensor | None,
        c: Tensor | None,
        start: Tensor,
        scale: Tensor,
    ) -> tuple[Tensor, Tensor]:
        drive, call = Drive(x, V, c), _Call("forward", numbers, scale)
        y, final = start.new_empty(len(x), call.heads * call.d_v), torch.empty_like(start)
        state, before = start.clone(memory_format=torch.contiguous_format), []
        for part in _calls(blocks):
            here = zip(
                part.blocks, split(drive.of(part.rows), part.blocks), split(y[part.rows], part.blocks), strict=True
            )
            for block, z, outputs in here:
                final[block.rows : len(state)] = state[block.rows :]  # later steps overwrite what goes on
                state = state[: block.rows]
                if keep:
                    before.append(state.clone())
                call.of(block)
                call(call.drive(z), call.norm(), call.state(state), call.outputs(outputs))
        final[: len(state)] = state
        ctx.numbers, ctx.blocks = numbers, blocks
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(x, V, c, scale, *before)
        return y, final

    @staticmethod
    def backward(ctx: Any, grad: Tensor | None, grad_last: Tensor | None) -> tuple[Tensor | None, ...]:
        refuse_a_graph()
        x, V, c, scale, *before = ctx.saved_tensors
        drive, call = Drive(x, V, c), _Call("backward", ctx.numbers, scale)
        by_drive = DriveGradients(drive, ctx.needs_input_grad[3:6])
        rows, n = ctx.blocks[0].rows, call.heads * call.d_v
        through = scale.new_zeros(rows, call.heads * call.d * call.d_v)
        if grad_last is not None:
            through += grad_last
        grad = scale.new_zeros(1, 1).expand(len(x), n) if grad is None else grad
        by_scale = scale.new_zeros(call.shape.threads, call.d_v)
        whole = torch.empty_like(x, memory_format=torch.contiguous_format) if V is None else None
        for part in reversed(_calls(ctx.blocks)):
            delta = scale.new_empty(size(part.blocks), call.width) if whole is None else whole[part.rows]
            drives, by_drives = split(drive.of(part.rows), part.blocks), split(delta, part.blocks)
            here = zip(part.blocks, drives, split(grad[part.rows], part.blocks), by_drives, strict=True)
            for block, z, direct, by_z in reversed(list(here)):
                call.of(block)
                call(
                    call.drive(z),
                    call.norm(),
                    call.state(before.pop()),
                    call.outputs(direct),
                    call.state(through[: block.rows]),
                    call.drive(by_z),
                    Memory("The gradient by the scale", by_scale, (call.shape.threads, call.d_v)),
                )
            if whole is None:
                by_drive.add(part.rows, delta)
        of_start, of_scale = ctx.needs_input_grad[6:]
        by_x = by_drive.x if whole is None else whole
        by_start, by_norm = through if of_start else None, by_scale.sum(0) if of_scale else None
        return None, None, None, by_x, by_drive.V, by_drive.c, by_start, by_norm


class _Call:
    """Calls into deltaproduct.cpp, some steps at a time: ``_Shape``, and what it says of the memory that C++ reads."""

    def __init__(self, name: str, numbers: tuple[Any, ...], scale: Tensor) -> None:
        self.heads, m, self.d, self.d_v, *_ = numbers
        self.width = self.heads * (self.d + m * (self.d + self.d_v + 1))
        self.shape = _Shape(0, 0, torch.get_num_threads(), *numbers)
        self.run, self.scale = function("deltaproduct", name, scale.dtype), readable(scale)

    def __call__(self, *memory: Memory) -> None:
        self.run(ctypes.byref(self.shape), *addresses(memory, self.scale.dtype))

    def of(self, block: Block) -> None:
        """The next call, and each `Memory` for it, is of these steps and rows."""
        self.shape.steps, self.shape.rows = self.block = block

    def drive(self, u: Tensor) -> Memory:
        return Memory("The drive", readable(u), (*self.block, self.width))

    def norm(self) -> Memory:
        return Memory("The scale of the norm", self.scale, (self.d_v,))

    def state(self, state: Tensor) -> Memory:
        return Memory("The state", state, (self.block.rows, self.heads * self.d * self.d_v))

    def outputs(self, y: Tensor) -> Memory:
        return Memory("The outputs", readable(y), (*self.block, self.heads * self.d_v))
