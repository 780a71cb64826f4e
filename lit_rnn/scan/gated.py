"""The cells beyond the plain recurrence on the CPU, as one call into C++ (`gated.cpp`).

Every one is one product of the state, z = W s_{t-1} + u_t, and a function of s_{t-1} and z that gives s_t; or two of
them, the second product reading what the first function gave; or z = u_t alone. With delta_t the loss's gradient by
z_t, the gradient by u_t is delta_t, and that by W is sum_t delta_t s_{t-1}^T: products over many steps, formed here.
C++ runs the two recursions, keeps the states and what z became, and sums the gradients by the vectors of a cell
(biases, peepholes). Cells that are linear in their state keep the states alone: their z is formed again.
"""

from __future__ import annotations

import ctypes
import itertools
from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from datamodules.errors import require
from lit_rnn import cells
from lit_rnn.cells.base import Cell, State
from lit_rnn.cells.linear import StateSpaceCell
from lit_rnn.scan.drive import Drive, DriveGradients, drive_by, drive_of
from lit_rnn.scan.native import Memory, addresses, function, packed, packed_shape, readable, runs_natively
from lit_rnn.scan.packed import Blocks, Trail, ends, size, split, together
from lit_rnn.scan.plans import KERNELS, NUMBERS, Plan, Product, is_gated, parts_of
from lit_rnn.scan.readout import read_out
from lit_rnn.scan.recurrence import refuse_a_graph

_NOTHING = (0, 0, 0, 0)  # of a product that there is none of


def runs_gated(cell: Cell) -> bool:
    """Whether gated.cpp computes what ``cell`` does, and can here."""
    if not is_gated(cell):
        return False
    like = next(itertools.chain(cell.recurrent_parameters(), cell.parameters()))
    return runs_natively("gated", like.dtype, like.device)


def run_gated(cell: Cell, x: Tensor, state: State, w: Any, last_only: bool, blocks: Blocks) -> tuple[Tensor, State]:
    """Packed outputs (N, output_size), or the last (R, output_size), and final state of such a cell."""
    plan, matrices, vectors, by = parts_of(cell, w)
    given = [vector for vector in vectors if vector is not None]
    dtype = next(itertools.chain(matrices, given, cell.parameters())).dtype
    drive = drive_of(cell, x, w, dtype, blocks) if by is None else drive_by(by, x, dtype)
    seen = plan.outputs or slice(0, state[0].shape[-1])
    with torch.autocast(x.device.type, enabled=False):  # the states stay in W's precision
        vector = torch.cat([vector.flatten() for vector in given]).to(dtype) if given else None
        beside = state[0].new_zeros(len(state[0]), plan.beside)
        start = torch.cat((*state, beside), dim=-1).to(dtype)
        inputs = (*drive, start, vector, *matrices)
        keep = torch.is_grad_enabled() and any(tensor is not None and tensor.requires_grad for tensor in inputs)
        y, final = _Gated.apply(plan, seen, last_only, keep, blocks, *inputs)
    y = final[:, seen] if last_only else y
    if isinstance(cell, cells.StatisticalRUCell):
        y = torch.relu(cell.output(y))
    if isinstance(cell, StateSpaceCell):
        y = read_out(cell, y, x[ends(blocks, x.device)] if last_only else x)
    return y, final[:, : final.shape[-1] - plan.beside].split(cell.state_sizes, dim=-1)


class _Gated(torch.autograd.Function):
    """The first columns of all states, (N, seen), None if ``last_only``, and the record (R, .) of every row's last."""

    @staticmethod
    def forward(
        ctx: Any,
        plan: Plan,
        seen: slice,
        last_only: bool,
        keep: bool,
        blocks: Blocks,
        x: Tensor,
        V: Tensor | None,
        c: Tensor | None,
        start: Tensor,
        vector: Tensor | None,
        *matrices: Tensor,
    ) -> tuple[Tensor | None, Tensor]:
        drive = Drive(x, V, c)
        parts = drive.parts(blocks)
        trail = Trail(together(parts), keep or not last_only)
        memory, final = start.new_empty(trail.size, start.shape[1]), torch.empty_like(start)
        hold = keep and not plan.drives_again  # z of all steps
        kept = start.new_empty(len(x) if hold else len(start), plan.kept)
        call = _Call("forward", plan, seen, hold, torch.get_num_threads(), start.dtype, vector, matrices)
        last = start
        for part in parts:
            drives = split(drive.of(part.rows), part.blocks)
            zs = part.of(kept) if hold else [kept[None, : block.rows] for block in part.blocks]
            for number, (block, u, z) in enumerate(zip(part.blocks, drives, zs, strict=True), part.number):
                call.of(*block)
                states = trail.enter(memory, number, last)
                call(call.drive(u), call.states(states), call.kept(z, None if hold else 1))
                last = states[-1]
                trail.put_ended(last, final, number)
        ctx.set_materialize_grads(False)
        ctx.plan, ctx.seen, ctx.blocks = plan, seen, blocks
        ctx.save_for_backward(x, V, c, memory, kept if hold else None, vector, *matrices)
        return None if last_only else trail.states(memory[:, seen]), final

    @staticmethod
    def backward(ctx: Any, grad: Tensor | None, grad_last: Tensor | None) -> tuple[Tensor | None, ...]:
        refuse_a_graph()
        x, V, c, memory, kept, vector, *matrices = ctx.saved_tensors
        _, _, _, _, _, by_x, by_V, by_c, by_start, _, *by_W = ctx.needs_input_grad
        drive, at, plan = Drive(x, V, c), ctx.plan.drive_at, ctx.plan
        parts = drive.parts(ctx.blocks)
        trail = Trail(together(parts))
        by_drive = DriveGradients(drive, (by_x, by_V, by_c))
        by_matrices = [W.new_zeros(W.shape) if needed else None for W, needed in zip(matrices, by_W, strict=True)]
        total = memory.new_zeros(ctx.blocks[0].rows, plan.record)  # by every row's last state, then by those before
        if grad_last is not None:
            total += grad_last
        threads = torch.get_num_threads()
        by = None if vector is None else vector.new_zeros(threads, len(vector))
        room = memory.new_empty(max(size(part.blocks) for part in parts), plan.kept)
        call = _Call("backward", plan, ctx.seen, True, threads, memory.dtype, vector, matrices)
        for part in reversed(parts):
            deltas = room[: size(part.blocks)]
            zs = split(readable(drive.of(part.rows)), part.blocks) if kept is None else part.of(kept)
            here = zip(part.blocks, split(deltas, part.blocks), part.of(grad), zs, strict=True)
            for number, (block, delta, direct, z) in reversed(list(enumerate(here, part.number))):
                call.of(*block)
                states = trail.block(memory, number)
                call(
                    None if direct is None else call.seen(direct),
                    call.states(states),
                    call.kept(z),
                    call.by_last(total[: block.rows]),
                    call.kept(delta),
                    None if by is None else Memory("The gradient by the vectors", by, (threads, plan.vectors)),
                )
                for product, by_matrix in zip(plan.products, by_matrices, strict=True):
                    if by_matrix is not None:
                        _add_by_matrix(by_matrix, product, states, delta)
            by_drive.add(part.rows, deltas[:, at : at + drive.width])
        found = by_drive.x, by_drive.V, by_drive.c, total if by_start else None, None if by is None else by.sum(0)
        return (*(None,) * 5, *found, *by_matrices)


def _add_by_matrix(by: Tensor, product: Product, states: Tensor, delta: Tensor) -> None:
    """Adds sum_t delta_t s^T over these steps and all rows, s what the product reads."""
    _, _, reads, writes, fresh = product
    by_z = delta[..., writes : writes + len(by)].flatten(0, 1)
    now, before = states[1:, :, reads : reads + fresh], states[:-1, :, reads + fresh : reads + by.shape[1]]
    for columns, part in zip(by.split((fresh, by.shape[1] - fresh), dim=1), (now, before), strict=True):
        if part.shape[-1]:
            _add_outer(columns, by_z, part.flatten(0, 1))


def _add_outer(to: Tensor, a: Tensor, b: Tensor) -> None:
    """Adds a^T b to (m, n), from a (rows, m) and b (rows, n): on AMD's processors torch's takes twice as long."""
    (rows, m), n = a.shape, b.shape[1]
    memory = ("Gradients", a, (rows, m)), ("States", b, (rows, n)), ("A sum", to, (m, n))
    at = addresses((Memory(*part, apart=True) for part in memory), to.dtype)
    numbers = rows, m, a.stride(0), n, b.stride(0), to.stride(0), torch.get_num_threads()
    function("gated", "outer", to.dtype)((ctypes.c_int * len(numbers))(*numbers), *at)


class _Call:
    """Calls into gated.cpp, some steps at a time: ``Shape``, numbers and packed weights, in the memory that C++ reads.

    Args:
        name: ``forward`` or ``backward``.
        plan: The cell.
        seen: Which columns of the states the outputs are.
        keep: Whether a backward follows.
        threads: On how many.
        dtype: Of all that is passed.
        vector: The cell's vectors, one after another.
        matrices: W of each product.
    """

    def __init__(
        self,
        name: Literal["forward", "backward"],
        plan: Plan,
        seen: slice,
        keep: bool,
        threads: int,
        dtype: torch.dtype,
        vector: Tensor | None,
        matrices: Sequence[Tensor],
    ) -> None:
        self.plan, self.width, self.dtype = plan, seen.stop - seen.start, dtype
        self.steps, self.rows = 0, 0
        accepted = f"up to {plan.record}, the width of the states"
        require(seen.stop <= plan.record, "The last column of the outputs", seen.stop, accepted)
        products = [(p.reads, p.columns, p.writes, p.rows) for p in plan.products]
        numbers = [
            *(KERNELS.index(plan.kind), 0, 0, threads),
            *(plan.record, plan.kept, keep, plan.drive, plan.drive_at, self.width, seen.start),
            *(plan.vectors, len(products)),
            *(number for product in (*products, _NOTHING, _NOTHING)[:2] for number in product),
            *plan.sizes,
        ]
        self.shape = (ctypes.c_int * 27)(*numbers)
        self.numbers = (ctypes.c_double * NUMBERS)(*plan.numbers)
        self.weights: list[Memory | None] = [None, None, None]
        if plan.vectors or vector is not None:
            self.weights[0] = Memory("The vectors of the cell", vector, (plan.vectors,))
        for number, (product, W) in enumerate(zip(plan.products, matrices, strict=True)):
            W, shape = (W.mT, product.shape[::-1]) if name == "forward" else (W, product.shape)
            memory = packed("gated", W, shape)
            self.weights[1 + number] = Memory("A recurrent matrix", memory, packed_shape(shape, self.dtype))
        self.run = function("gated", name, self.dtype)

    def __call__(self, *memory: Memory | None) -> None:
        self.run(self.shape, self.numbers, *addresses((*self.weights, *memory), self.dtype))

    def of(self, steps: int, rows: int) -> None:
        """The next call, and each `Memory` for it, is of so many."""
        self.steps, self.rows = steps, rows
        self.shape[1], self.shape[2] = steps, rows

    def drive(self, u: Tensor) -> Memory:
        return Memory("The drive", readable(u), (self.steps, self.rows, self.plan.drive))

    def states(self, states: Tensor) -> Memory:
        return Memory("The states", states, (1 + self.steps, self.rows, self.plan.record))

    def kept(self, kept: Tensor | None, steps: int | None = None) -> Memory:
        shape = self.steps if steps is None else steps, self.rows, self.plan.kept
        return Memory("What is kept of the gates", kept, shape)

    def seen(self, grad: Tensor) -> Memory:
        return Memory("The gradient by the outputs", readable(grad), (self.steps, self.rows, self.width))

    def by_last(self, total: Tensor) -> Memory:
        return Memory("The gradient by the last state", total, (self.rows, self.plan.record))
