"""Long sequences: the states between chunks of steps are kept, and the steps between them run again in the backward.

One autograd operation over all chunks. `torch.utils.checkpoint` around each of them would call Python for every tensor
that a step saves, and keep a small tensor per chunk among the large ones that come and go, which leaves gaps in memory.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lit_rnn.cells.base import Cell, State
from lit_rnn.scan.packed import Blocks, chunks, size
from lit_rnn.scan.recurrence import refuse_a_graph
from lit_rnn.scan.stand_ins import StandIns, plus

Run = Callable[[Tensor, State, Any, Blocks], tuple[Tensor, State]]


class _Place(NamedTuple):
    """A chunk of steps.

    Args:
        blocks: Of it.
        rows: Its packed rows.
        starts: Where the state before it is kept.
        stay: How many rows go on behind it.
    """

    blocks: Blocks
    rows: slice
    starts: slice
    stay: int

    @property
    def ending(self) -> slice:
        """The rows of the batch that end in it."""
        return slice(self.stay, self.blocks[0].rows)

    def grown(self, through: Tensor | None, ended: Tensor | None) -> Tensor | None:
        """The gradient by the states after it, from that by those which go on and that by the final states."""
        rows = self.blocks[0].rows
        if through is None and (ended is None or self.stay == rows):
            return None
        like = through if through is not None else ended
        assert like is not None
        by = like.new_zeros(rows, *like.shape[1:])
        if through is not None:
            by[: self.stay] = through
        if ended is not None:
            by[self.ending] = ended[self.ending]
        return by


class _Plan(NamedTuple):
    cell: Cell
    run: Run
    rebuild: Callable[[Sequence[Tensor]], Any]  # w from its tensors
    every: int
    blocks: Blocks
    last_only: bool
    states: int  # how many tensors the state is
    weights: int  # and w

    def places(self) -> list[_Place]:
        """The chunks."""
        found: list[_Place] = []
        all_chunks = chunks(self.blocks, self.every)
        row, start = 0, 0
        for number, blocks in enumerate(all_chunks):
            stay = all_chunks[number + 1][0].rows if number + 1 < len(all_chunks) else 0
            end, after = row + size(blocks), start + blocks[0].rows
            found.append(_Place(blocks, slice(row, end), slice(start, after), stay))
            row, start = end, after
        return found

    def sorted(self, tensors: tuple[Tensor, ...]) -> tuple[State, State, State]:
        """State, w and parameters."""
        end = self.states + self.weights
        return tensors[: self.states], tensors[self.states : end], tensors[end:]


def recomputed(
    run: Run, cell: Cell, x: Tensor, state: State, w: Any, every: int, last_only: bool, blocks: Blocks
) -> tuple[Tensor, State]:
    """What ``run`` gives of packed ``x`` (N, I), ``state`` and the ``w`` of ``cell``, ``every`` steps at a time.

    Args:
        run: From some steps of x, the state before them, w and their blocks to the outputs (only the last of every row
            if ``last_only``) and the state after the last step of every row. Beside these it may depend on the
            parameters of ``cell``.
        cell: The recurrence.
        x: The inputs.
        state: The state before the first step.
        w: What ``cell.weights()`` gives, or what ``run`` takes for it.
        every: Steps whose states are in memory at a time.
        last_only: As in `lit_rnn.scan.scan`.
        blocks: Of x.
    """
    tensors: list[Tensor] = []
    plan = _Plan(cell, run, taken_apart(w, tensors), every, blocks, last_only, len(state), len(tensors))
    y, *after = _Recomputed.apply(plan, x, *state, *tensors, *cell.parameters())
    return y, tuple(after)


def taken_apart(w: Any, tensors: list[Tensor]) -> Callable[[Sequence[Tensor]], Any]:
    """Appends the tensors of ``w``, a (named) tuple of such or a tensor; gives what puts others in their places."""
    if isinstance(w, Tensor):
        place = len(tensors)
        tensors.append(w)
        return lambda others: others[place]
    if isinstance(w, tuple):
        parts = [taken_apart(part, tensors) for part in w]
        make = getattr(type(w), "_make", tuple)
        return lambda others: make(part(others) for part in parts)
    return lambda _: w


class _Recomputed(torch.autograd.Function):
    """Outputs and final state."""

    @staticmethod
    def forward(ctx: Any, plan: _Plan, x: Tensor, *rest: Tensor) -> tuple[Tensor, ...]:
        state, w, parameters = plan.sorted(rest)
        places = plan.places()
        starts = [part.new_empty(places[-1].starts.stop, *part.shape[1:]) for part in state]
        R, outputs, finals = len(state[0]), None, []
        for place in places:
            for start, part in zip(starts, state, strict=True):
                start[place.starts] = part
            y, after = plan.run(x[place.rows], state, plan.rebuild(w), place.blocks)
            if outputs is None:
                outputs = y.new_empty(R if plan.last_only else len(x), *y.shape[1:])
                finals = [part.new_empty(R, *part.shape[1:]) for part in after]
            outputs[place.ending if plan.last_only else place.rows] = y[place.stay :] if plan.last_only else y
            for final, part in zip(finals, after, strict=True):
                final[place.ending] = part[place.stay :]
            state = tuple(part[: place.stay] for part in after)
        assert outputs is not None
        device = x.device.type
        mode = {"enabled": torch.is_autocast_enabled(device), "dtype": torch.get_autocast_dtype(device)}
        ctx.plan, ctx.autocast = plan, {"device_type": device, **mode}
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(x, *starts, *w, *parameters)
        return outputs, *finals

    @staticmethod
    def backward(ctx: Any, grad: Tensor | None, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        refuse_a_graph()
        plan: _Plan = ctx.plan
        x, *rest = ctx.saved_tensors
        starts, w, parameters = plan.sorted(tuple(rest))
        by_x_asked, *asked = ctx.needs_input_grad[1:]
        w = tuple(part.detach().requires_grad_(need) for part, need in zip(w, asked[plan.states :], strict=False))
        stand_ins = StandIns(plan.cell, [parameter for parameter in parameters if parameter.requires_grad])
        of_w = [part for part in w if part.requires_grad]
        fixed = [*of_w, *stand_ins.leaves]
        totals: list[Tensor | None] = [None] * len(fixed)
        by_x = torch.zeros_like(x) if by_x_asked else None
        through: list[Tensor | None] = [None] * plan.states
        for place in reversed(plan.places()):
            own = x[place.rows].detach().requires_grad_(by_x_asked)
            before = tuple(start[place.starts].detach().requires_grad_() for start in starts)
            with torch.enable_grad(), torch.autocast(**ctx.autocast), stand_ins.at_work():
                y, after = plan.run(own, before, plan.rebuild(w), place.blocks)
            of_all = None if plan.last_only or grad is None else grad[place.rows]
            direct = place.grown(None, grad) if plan.last_only else of_all
            by_after = map(place.grown, through, grads)
            pairs = [(out, by) for out, by in zip((y, *after), (direct, *by_after), strict=True) if by is not None]
            if not pairs:  # nothing has looked at these steps
                continue
            outs, by_outs = zip(*pairs, strict=True)
            leaves = [*before, *fixed, *([own] if by_x_asked else [])]
            found = torch.autograd.grad(outs, leaves, by_outs, allow_unused=True)
            through = list(found[: plan.states])
            totals = [plus(total, by) for total, by in zip(totals, found[plan.states :], strict=False)]
            if by_x is not None and found[-1] is not None:
                by_x[place.rows] = found[-1]
        summed = iter([*totals[: len(of_w)], *stand_ins.by_parameter(totals[len(of_w) :])])
        by_fixed = [next(summed) if tensor.requires_grad else None for tensor in (*w, *parameters)]
        return None, by_x, *through, *by_fixed
