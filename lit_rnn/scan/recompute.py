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
from lit_rnn.scan.drive import slices
from lit_rnn.scan.recurrence import refuse_a_graph

Run = Callable[[Tensor, State, Any], tuple[Tensor, State]]


class _Plan(NamedTuple):
    run: Run
    rebuild: Callable[[Sequence[Tensor]], Any]  # w from its tensors
    every: int
    last_only: bool
    states: int  # how many tensors the state is
    weights: int  # and w

    def sorted(self, tensors: tuple[Tensor, ...]) -> tuple[State, State, State]:
        """State, w and parameters."""
        end = self.states + self.weights
        return tensors[: self.states], tensors[self.states : end], tensors[end:]


def recomputed(
    run: Run, cell: Cell, x: Tensor, state: State, w: Any, every: int, last_only: bool
) -> tuple[Tensor, State]:
    """What ``run`` gives of ``x`` (T, B, I), ``state`` and the weights ``w`` of ``cell``, ``every`` steps at a time.

    Args:
        run: From some steps of x, the state before them and w to the outputs (the last alone if ``last_only``) and the
            state after them. Beside these it may depend on the parameters of ``cell``.
        cell: The recurrence.
        x: The inputs.
        state: The state before the first step.
        w: What ``cell.weights()`` gives, or what ``run`` takes for it.
        every: Steps whose states are in memory at a time.
        last_only: As in `lit_rnn.scan.scan`.
    """
    tensors: list[Tensor] = []
    plan = _Plan(run, _taken_apart(w, tensors), every, last_only, len(state), len(tensors))
    y, *after = _Recomputed.apply(plan, x, *state, *tensors, *cell.parameters())
    return y, tuple(after)


def _taken_apart(w: Any, tensors: list[Tensor]) -> Callable[[Sequence[Tensor]], Any]:
    """Appends the tensors of ``w``, a (named) tuple of such or a tensor; gives what puts others in their places."""
    if isinstance(w, Tensor):
        place = len(tensors)
        tensors.append(w)
        return lambda others: others[place]
    if isinstance(w, tuple):
        parts = [_taken_apart(part, tensors) for part in w]
        make = getattr(type(w), "_make", tuple)
        return lambda others: make(part(others) for part in parts)
    return lambda _: w


class _Recomputed(torch.autograd.Function):
    """Outputs and final state."""

    @staticmethod
    def forward(ctx: Any, plan: _Plan, x: Tensor, *rest: Tensor) -> tuple[Tensor, ...]:
        state, w, parameters = plan.sorted(rest)
        chunks = slices(len(x), plan.every)
        starts = [part.new_empty(len(chunks), *part.shape) for part in state]
        outputs: Tensor | None = None
        for number, steps in enumerate(chunks):
            for start, part in zip(starts, state, strict=True):
                start[number] = part
            y, state = plan.run(x[steps], state, plan.rebuild(w))
            if not plan.last_only:
                outputs = y.new_empty(len(x), *y.shape[1:]) if outputs is None else outputs
                outputs[steps] = y
        device = x.device.type
        mode = {"enabled": torch.is_autocast_enabled(device), "dtype": torch.get_autocast_dtype(device)}
        ctx.plan, ctx.autocast = plan, {"device_type": device, **mode}
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(x, *starts, *w, *parameters)
        return y if outputs is None else outputs, *state

    @staticmethod
    def backward(ctx: Any, grad: Tensor | None, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        refuse_a_graph()
        plan: _Plan = ctx.plan
        x, *rest = ctx.saved_tensors
        starts, w, parameters = plan.sorted(tuple(rest))
        by_x_asked, *asked = ctx.needs_input_grad[1:]
        w = tuple(part.detach().requires_grad_(need) for part, need in zip(w, asked[plan.states :], strict=False))
        fixed = [tensor for tensor in (*w, *parameters) if tensor.requires_grad]
        totals = [torch.zeros_like(tensor) for tensor in fixed]
        by_x = torch.zeros_like(x) if by_x_asked else None
        through = list(grads)
        for number, steps in reversed(list(enumerate(slices(len(x), plan.every)))):
            own = x[steps].detach().requires_grad_(by_x_asked)
            before = tuple(start[number].detach().requires_grad_() for start in starts)
            with torch.enable_grad(), torch.autocast(**ctx.autocast):
                y, after = plan.run(own, before, plan.rebuild(w))
            if plan.last_only:
                direct = grad if steps.stop == len(x) else None
            else:
                direct = None if grad is None else grad[steps]
            pairs = [(out, by) for out, by in zip((y, *after), (direct, *through), strict=True) if by is not None]
            if not pairs:  # nothing has looked at these steps
                continue
            outs, by_outs = zip(*pairs, strict=True)
            leaves = [*before, *fixed, *([own] if by_x_asked else [])]
            found = torch.autograd.grad(outs, leaves, by_outs, allow_unused=True)
            through = list(found[: plan.states])
            for total, by in zip(totals, found[plan.states :], strict=False):
                if by is not None:
                    total += by
            if by_x is not None and found[-1] is not None:
                by_x[steps] = found[-1]
        summed = iter(totals)
        by_fixed = [next(summed) if tensor.requires_grad else None for tensor in (*w, *parameters)]
        return None, by_x, *through, *by_fixed
