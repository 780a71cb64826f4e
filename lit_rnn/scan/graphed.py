"""A cell's steps, forward and backward, as graphs that are recorded once and replayed, for any cell on a GPU.

Autograd launches every kernel of every step from the host, which takes longer than the small ones run. Here the kernels
of up to `LONGEST` steps are one launch each way. The backward goes through time with the gradients by states and drive
alone; those by the weights come from several steps at a time, taken as rows of one batch, since rows do not depend
on one another.

A recording, a `Segment`, works on memory of its own: inputs are copied in, outputs out. It keeps what its backward
needs until its next forward. A pass that comes back later, because the cell was run twice before the backward, or
because there was no memory for a recording for each part of the sequence, first replays the forward from the inputs and
states that it has saved.
"""

from __future__ import annotations

import collections
import contextlib
import logging
import time
import weakref
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from lit_rnn.cells.base import Cell, State
from lit_rnn.dtypes import rounds_as_ieee
from lit_rnn.scan.compiled import compiled_step, held_step, quiet, refusals_told, steps
from lit_rnn.scan.packed import Blocks, block_by_block, places
from lit_rnn.scan.recompute import taken_apart
from lit_rnn.scan.recurrence import refuse_a_graph
from lit_rnn.scan.segment import Segment, Shared, copy, memory

log = logging.getLogger(__name__)

LONGEST = 256  # steps of a recording: a power of two; recording takes as long as three passes of the loop
WASTE = 4  # times as many steps as there are, at most, where rows of unequal lengths are run as if they were equal
KINDS = 6  # of passes that a cell keeps recordings for
_OF_TORCH = frozenset(vars(nn.Module())) - {"training"}  # what any module has, its parameters and buffers among it

_recordings: weakref.WeakKeyDictionary[Cell, collections.OrderedDict[_Kind, _Recordings]] = weakref.WeakKeyDictionary()


class _Kind(NamedTuple):
    """The passes that the same recordings serve."""

    batch: int
    mode: Any  # all else that a step may depend on, but its tensors' numbers


def run_recorded(cell: Cell, u: Tensor, state: State, w: Any, blocks: Blocks, compiled: bool) -> tuple[Tensor, State]:
    """Outputs of packed rows u (N, G), (N, .), and the states after the last step of every row.

    Rows of unequal lengths are run as those of the longest, each with its state held behind its end: else there would
    be recordings for every number of rows. Where that is more than `WASTE` times the steps, block by block.
    """
    steps, rows = sum(block.steps for block in blocks), blocks[0].rows
    if len(blocks) == 1 or steps * rows > WASTE * len(u):
        return block_by_block(lambda u, state: run_graphed(cell, u, state, w, compiled), u, state, blocks)
    place = places(blocks, u.device)
    marked = torch.cat((u, torch.ones_like(u[:, :1])), dim=-1)
    whole = u.new_zeros(steps * rows, marked.shape[1]).index_copy(0, place, marked)
    y, state = run_graphed(cell, whole.unflatten(0, (steps, rows)), state, w, compiled, held=True)
    return y.flatten(0, 1).index_select(0, place), state


def run_graphed(
    cell: Cell, u: Tensor, state: State, w: Any, compiled: bool = False, held: bool = False
) -> tuple[Tensor, State]:
    """As `lit_rnn.scan.compiled.steps`, recorded and replayed.

    Args:
        cell: The recurrence.
        u: Its drive, (T, B, G); (T, B, G + 1) if ``held``.
        state: The state before the first step.
        w: What ``cell.weights()`` gives.
        compiled: A step by torch.compile is recorded.
        held: A row's state stays where the last column of u is 0.

    Every batch size, with and without gradients, is recorded anew, for about the time of three passes of the loop. A
    batch smaller than another that is recorded already, such as an epoch's ragged last one, is filled up to as many
    rows. The last `KINDS` kinds are kept.

    A sequence is cut into parts of 2^k steps, so that a few recordings serve all lengths.

    Raises:
        UserError: where a step draws random numbers, which the backward could not draw again.
    """
    tensors: list[Tensor] = []
    rebuild = taken_apart(w, tensors)
    parameters = tuple(cell.parameters())
    grad = torch.is_grad_enabled()
    learning = grad and any(leaf.requires_grad for leaf in (u, *state, *tensors, *parameters))
    asked = tuple(grad and leaf.requires_grad for leaf in (u, *tensors, *parameters))
    kind = _Kind(u.shape[1], (compiled, held, learning, asked, *_mode(cell, u, state, tensors)))
    kept = _recordings.setdefault(cell, collections.OrderedDict())
    if not kind.batch:
        return _in_the_loop(cell, u, state, w, held)
    if kind not in kept:
        larger = [other.batch for other in kept if kind.mode == other.mode and kind.batch < other.batch]
        if larger:
            u, state = _filled(u, 1, min(larger)), tuple(_filled(part, 0, min(larger)) for part in state)
            y, state = run_graphed(cell, u, state, w, compiled, held)
            return y[:, : kind.batch], tuple(part[: kind.batch] for part in state)
        kept[kind] = _Recordings(cell, u, state, tensors, rebuild, learning, compiled, held)
    kept.move_to_end(kind)
    while len(kept) > KINDS:
        kept.popitem(last=False)
    places = kept[kind].places(len(u))
    y, *final = _Graphed.apply(_Plan(kept[kind], places, len(state), len(tensors)), u, *state, *tensors, *parameters)
    return y, tuple(final)


def forget(cell: Cell, compiled: bool, learning: bool) -> None:
    """Free the recordings of such passes: they hold memory as long as the cell lives."""
    kept = _recordings.get(cell, collections.OrderedDict())
    for kind in [kind for kind in kept if (kind.mode[0], kind.mode[2]) == (compiled, learning)]:
        del kept[kind]


def _filled(tensor: Tensor, dim: int, rows: int) -> Tensor:
    """With its first row again behind the last, up to as many: numbers that a step can work with."""
    first = tensor.narrow(dim, 0, 1)
    return torch.cat((tensor, first.repeat_interleave(rows - tensor.shape[dim], dim)), dim)


def _in_the_loop(cell: Cell, u: Tensor, state: State, w: Any, held: bool) -> tuple[Tensor, State]:
    if not held:
        return steps(cell, u, state, w)
    outputs = []
    for u_t in u.unbind(0):
        y, state = held_step(cell, u_t, state, w)
        outputs.append(y)
    return torch.stack(outputs), state


def _mode(cell: Cell, u: Tensor, state: State, w: Sequence[Tensor]) -> tuple[Any, ...]:
    """What recordings depend on beside batch and gradients, such as where the tensors lie that they read in place."""
    device = u.device
    stream = torch.cuda.current_stream(device).cuda_stream if u.is_cuda else 0
    autocast = torch.is_autocast_enabled(device.type), torch.get_autocast_dtype(device.type)
    sums = rounds_as_ieee(), torch.are_deterministic_algorithms_enabled()
    given = tuple((tensor.shape, tensor.dtype) for tensor in w), tuple(part.dtype for part in state)
    read = (*cell.parameters(), *cell.buffers())
    places = tuple((tensor.data_ptr(), tensor.dtype) for tensor in read)
    settings = tuple(
        (name, _settled(value))
        for module in cell.modules()
        for name, value in vars(module).items()
        if name not in _OF_TORCH
    )
    return u.shape[2:], u.dtype, device, stream, autocast, sums, given, places, settings


def _settled(value: Any, depth: int = 2) -> Any:
    """An attribute of a module by its value where that is a number or a text, a tensor by its place; of lists and the
    like all that they hold, as far down as ``depth``."""
    if isinstance(value, Tensor):
        return value.data_ptr()
    if depth and isinstance(value, dict):
        return tuple((key, _settled(one, depth - 1)) for key, one in value.items())
    if depth and isinstance(value, list | tuple):
        return tuple(_settled(one, depth - 1) for one in value)
    return value if isinstance(value, bool | int | float | str | None) else None


def _parts(T: int) -> list[int]:
    """T as a sum of `LONGEST` and smaller powers of two, falling."""
    whole, rest = divmod(T, LONGEST)
    return [LONGEST] * whole + [1 << bit for bit in reversed(range(rest.bit_length())) if rest >> bit & 1]


class _Recordings:
    """Those for one kind of passes. w is in memory that they share.

    Args:
        cell: Whose steps; held weakly, and what is recorded lives as long as it does.
        u: A drive like those to come, (T, B, G).
        state: A state like those to come.
        w: The tensors of its w.
        rebuild: Makes w of its tensors.
        learning: Whether a backward may follow.
        compiled: Whether steps are compiled.
        held: Whether rows may have ended, as in `held_step`.
    """

    def __init__(
        self,
        cell: Cell,
        u: Tensor,
        state: State,
        w: Sequence[Tensor],
        rebuild: Callable[[Sequence[Tensor]], Any],
        learning: bool,
        compiled: bool,
        held: bool,
    ) -> None:
        self.learning = learning
        self._loaded: object = None
        with torch.inference_mode(False), torch.no_grad():
            read = [memory(part, learning and part.requires_grad) for part in w]
            self._u = memory(u[:1], learning and u.requires_grad)
            self._state = [memory(part, learning) for part in state]
        self._shared = Shared(read, rebuild, [part for part in read if part.requires_grad], learning, held)
        self._segments: dict[int, list[Segment]] = collections.defaultdict(list)
        self._cell, self._step = weakref.ref(cell), compiled_step(cell, held) if compiled else None
        self._told = f"{type(cell).__name__} for batches of {u.shape[1]}"

    def load(self, w: Sequence[Tensor], owner: object) -> None:
        """Put the w of a pass where it is read, unless it is there."""
        if self._loaded is not owner:
            copy([part.data for part in self._shared.w], w)
            self._loaded = owner

    def places(self, T: int) -> list[tuple[slice, Segment]]:
        """Which steps each recording runs. What is not recorded yet is."""
        found: list[tuple[slice, Segment]] = []
        used: collections.Counter[int] = collections.Counter()
        start = 0
        for count in _parts(T):
            there = self._segments[count]
            # with gradients one for each part, where there is memory: else the backward has to run the forward again
            if not there or (self.learning and used[count] == len(there) and there[0].recorder.has_room()):
                there.append(self._recorded(count, first=not there))
            found.append((slice(start, start + count), there[used[count] % len(there)]))
            used[count] += 1
            start += count
        return found

    def _recorded(self, count: int, first: bool) -> Segment:
        begun = time.perf_counter()
        with torch.inference_mode(False), quiet():
            torch.clear_autocast_cache()  # casts from outside would be read, and never done again
            segment = Segment(self._shared, count, self._u, self._state)
            cell = self._cell()
            assert cell is not None
            with refusals_told(cell) if self._step else contextlib.nullcontext():
                segment.record(cell, self._step, first)
            torch.clear_autocast_cache()
        log.info("recorded %d steps of %s in %.1f s", count, self._told, time.perf_counter() - begun)
        return segment


class _Plan(NamedTuple):
    recordings: _Recordings
    places: list[tuple[slice, Segment]]
    states: int  # how many tensors the state is
    weights: int  # and w

    def sorted(self, tensors: Sequence[Any]) -> tuple[Sequence[Any], Sequence[Any], Sequence[Any]]:
        """State, w and parameters."""
        end = self.states + self.weights
        return tensors[: self.states], tensors[self.states : end], tensors[end:]


class _Graphed(torch.autograd.Function):
    """Outputs (T, B, .) and final state."""

    @staticmethod
    def forward(ctx: Any, plan: _Plan, u: Tensor, *rest: Tensor) -> tuple[Tensor, ...]:
        state, w, parameters = plan.sorted(rest)
        outputs: Tensor | None = None
        starts: list[Tensor] = []
        ctx.plan, ctx.owner, ctx.who = plan, object(), []
        plan.recordings.load(w, ctx.owner)
        for place, segment in plan.places:
            if plan.recordings.learning and starts:
                state = tuple(part.clone() for part in state)
            starts.extend(state)
            ctx.who.append(object())
            segment.forward(u[place], tuple(state), ctx.who[-1])
            state = segment.after
            if outputs is None:
                outputs = torch.empty((len(u), *segment.y.shape[1:]), dtype=segment.y.dtype, device=u.device)
            outputs[place] = segment.y
        assert outputs is not None
        if plan.recordings.learning:
            ctx.set_materialize_grads(False)
            ctx.save_for_backward(u, *starts, *w, *parameters)
        return outputs, *(part.clone() for part in state)

    @staticmethod
    def backward(ctx: Any, grad: Tensor | None, *through: Tensor | None) -> tuple[Tensor | None, ...]:
        refuse_a_graph()
        plan: _Plan = ctx.plan
        u, *rest = ctx.saved_tensors
        count = plan.states * len(plan.places)
        starts, (w, parameters) = rest[:count], plan.sorted(rest[count - plan.states :])[1:]
        by_u_asked, *asked = ctx.needs_input_grad[1:]
        fixed = [tensor for tensor in (*w, *parameters) if tensor.requires_grad]
        totals: list[Tensor | None] = [None] * len(fixed)
        by_u = torch.empty_like(u, memory_format=torch.contiguous_format) if by_u_asked else None
        plan.recordings.load(w, ctx.owner)
        for number, (place, segment) in reversed([*enumerate(plan.places)]):
            # before the forward is replayed: that may overwrite the memory which these come from
            segment.load_gradients([None if grad is None else grad[place], *through])
            if segment.last is not ctx.who[number]:
                before = starts[plan.states * number :][: plan.states]
                segment.forward(u[place], tuple(before), ctx.who[number])
            segment.backward()
            through = segment.gradients[: plan.states]
            found = segment.gradients[plan.states :]
            if by_u is not None:
                by_u[place] = 0 if found[0] is None else found[0]
                found = found[1:]
            both = [*zip(totals, found, strict=True)]
            pairs = [(total, by) for total, by in both if total is not None and by is not None]
            if pairs:
                torch._foreach_add_(*map(list, zip(*pairs, strict=True)))
            totals = [by.clone() if total is None and by is not None else total for total, by in both]
        summed = iter(totals)
        by_fixed = [next(summed) if tensor.requires_grad else None for tensor in (*w, *parameters)]
        by_state = [by.clone() if need and by is not None else None for need, by in zip(asked, through, strict=False)]
        return None, by_u, *by_state, *by_fixed
