"""Some steps of a cell, recorded both ways: see `lit_rnn.scan.graphed`."""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from datamodules.errors import UserError
from lit_rnn.cells.base import Cell, State, check_step
from lit_rnn.graphs import RECORDERS, Recorder, Results
from lit_rnn.scan.compiled import Step, held_step, plain_step
from lit_rnn.scan.stand_ins import StandIns, plus

TOGETHER = 16  # steps whose gradients by the weights are computed at once


def memory(like: Tensor, learns: bool, steps: int | None = None) -> Tensor:
    """Zeros, contiguous, as a leaf of a graph."""
    shape = like.shape if steps is None else (steps, *like.shape[1:])
    return torch.zeros(shape, dtype=like.dtype, device=like.device).requires_grad_(learns)


def copy(into: Sequence[Tensor], values: Sequence[Tensor]) -> None:
    if into:
        torch._foreach_copy_(list(into), list(values))


class Shared(NamedTuple):
    """What all recordings of a kind have in common.

    Args:
        w: The tensors of w, in memory where it is read.
        rebuild: Makes w of its tensors.
        fixed: Those of them whose gradients are asked for.
        learning: Whether a backward may follow.
        held: Whether rows may have ended, as in `held_step`.
    """

    w: list[Tensor]
    rebuild: Callable[[Sequence[Tensor]], Any]
    fixed: list[Tensor]
    learning: bool
    held: bool


class Segment:
    """Some steps in memory of their own, which they are read from and written to at every replay.

    Args:
        shared: By all recordings of a kind.
        count: How many.
        u: One step of the drive, (1, B, G).
        state: The state before them.
    """

    def __init__(self, shared: Shared, count: int, u: Tensor, state: Sequence[Tensor]) -> None:
        self.recorder: Recorder = RECORDERS[u.device.type](u.device)
        self.w, self.rebuild, self.fixed, self.learning, held = shared
        self._step: Step = held_step if held else plain_step
        with torch.no_grad():
            self.u = memory(u, u.requires_grad, count)
            self.state = [memory(part, part.requires_grad) for part in state]
        self._states: list[State] = []
        self._outs: tuple[Tensor, ...] = ()
        self._by: list[Tensor] = []
        self.last: object = None  # who ran it last
        self.results: Results = ()
        self.gradients: Results = ()

    def record(self, cell: Cell, compiled: Step | None, first: bool) -> None:
        """Record both ways, behind a pass that warms up if it is the ``first`` of its kind."""
        owner = weakref.ref(cell)

        def forward() -> Results:
            alive = owner()
            assert alive is not None
            with torch.set_grad_enabled(self.learning), _frozen(alive):
                w = self.rebuild([part.detach() for part in self.w] if compiled else self.w)
                outputs: list[Tensor] = []
                self._states = [tuple(self.state)]
                for u_t in self.u.unbind(0):
                    stepped = (compiled or self._step)(alive, u_t, self._states[-1], w)
                    if not outputs:
                        check_step(alive, stepped, self._states[-1])
                    y, after = stepped
                    outputs.append(y)
                    # as tensors of their own, whose gradients are those through later steps alone
                    self._states.append(tuple(part.view_as(part) for part in after))
                self._outs = (torch.stack(outputs), *self._states[-1])
            # they hold the graph, and that holds what the backward reads
            return tuple(part.detach() for part in self._outs)

        def backward() -> Results:
            alive = owner()
            assert alive is not None
            outs, by = _learned(self._outs, self._by)
            learned = [part for state in self._states[1:-1] for part in state if part.requires_grad]
            leaves = [*self.state, *([self.u] if self.u.requires_grad else [])]
            found = torch.autograd.grad(outs, [*leaves, *learned], by, retain_graph=True, allow_unused=True)
            by_learned = iter(found[len(leaves) :])
            by_states = [[next(by_learned) if p.requires_grad else None for p in state] for state in self._states[1:-1]]
            return *found[: len(leaves)], *self._by_fixed(alive, compiled, [*by_states, self._by[1:]])

        def both() -> None:
            forward()
            self._by = [torch.zeros_like(part) for part in self._outs]
            if self.learning:
                backward()
            self._outs, self._states = (), []

        if first:
            before = _drawn(self.u.device)
            if not self.recorder.warm_up(both):
                raise UserError(
                    "A step reads a number on the host, where a recorded one runs without it: set "
                    "model.init_args.backend to loop."
                )
            if not torch.equal(before, _drawn(self.u.device)):
                raise UserError(
                    "A step draws random numbers, which a recorded one cannot draw again for its backward: set "
                    "model.init_args.backend to loop."
                )
        self.results, self._replay = self.recorder.record(forward)
        self._by = [torch.zeros_like(part) for part in (self.y, *self.after)]
        if self.learning:
            self.gradients, self._replay_backward = self.recorder.record(backward)

    def _by_fixed(self, cell: Cell, compiled: Step | None, by_states: Sequence[Sequence[Tensor | None]]) -> Results:
        """The gradients by w and parameters: from many steps at once, as rows of one batch, instead of step by step."""
        parameters = StandIns(cell, [parameter for parameter in cell.parameters() if parameter.requires_grad])
        leaves = [*self.fixed, *parameters.leaves]
        totals: list[Tensor | None] = [None] * len(leaves)
        if not leaves:
            return ()
        for start in range(0, len(self.u), TOGETHER):
            part = slice(start, start + TOGETHER)
            before = [torch.cat(parts).detach() for parts in zip(*self._states[:-1][part], strict=True)]
            by_after = [
                torch.cat([torch.zeros_like(p) if by is None else by for by, p in zip(each, parts, strict=True)])
                for each, parts in zip(
                    zip(*by_states[part], strict=True), zip(*self._states[1:][part], strict=True), strict=True
                )
            ]
            # shorter parts are of many lengths, each of which would be compiled
            step = compiled if compiled and len(self.u) >= TOGETHER else self._step
            with torch.enable_grad(), parameters.at_work():
                y, after = step(cell, self.u.data[part].flatten(0, 1), tuple(before), self.rebuild(self.w))
            outs, by = _learned((y, *after), (self._by[0][part].flatten(0, 1), *by_after))
            if outs:
                found = torch.autograd.grad(outs, leaves, by, allow_unused=True)
                totals = [plus(a, b) for a, b in zip(totals, found, strict=True)]
        return *totals[: len(self.fixed)], *parameters.by_parameter(totals[len(self.fixed) :])

    @property
    def y(self) -> Tensor:
        (y, *_) = self.results
        assert y is not None
        return y

    @property
    def after(self) -> State:
        return self.results[1:]  # type: ignore[return-value]  # results of a forward are all there

    def forward(self, u: Tensor, state: State, who: object) -> None:
        copy([self.u.data, *(part.data for part in self.state)], [u, *state])
        self._replay()
        self.last = who

    def load_gradients(self, grads: Sequence[Tensor | None]) -> None:
        """By y and by the state after; None for zero."""
        for place, grad in zip(self._by, grads, strict=True):
            if grad is None:
                place.zero_()
            else:
                place.copy_(grad)

    def backward(self) -> None:
        self._replay_backward()


def _learned(outs: Sequence[Tensor], by: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
    """Those of ``outs`` that depend on a leaf, and the gradients by them."""
    places = [place for place, out in enumerate(outs) if out.requires_grad]
    return [outs[place] for place in places], [by[place] for place in places]


@contextlib.contextmanager
def _frozen(cell: Cell) -> Iterator[None]:
    """Parameters that ask for no gradient: what is compiled would compute it, wanted or not, and a graph that is kept
    would keep the nodes that add to ``.grad``, made on the stream of the recording."""
    asking = [parameter for parameter in cell.parameters() if parameter.requires_grad]
    for parameter in asking:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in asking:
            parameter.requires_grad_()


def _drawn(device: torch.device) -> Tensor:
    """The state of the device's random numbers."""
    return torch.cuda.get_rng_state(device) if device.type == "cuda" else torch.get_rng_state()
