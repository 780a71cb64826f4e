"""Chunks of steps through torch.compile, for any cell."""

from __future__ import annotations

import contextlib
import logging
import time
import types
import warnings
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from lit_rnn.cells.base import Cell, State
from lit_rnn.scan.recurrence import refuse_a_graph

log = logging.getLogger(__name__)

CHUNK = 10  # steps: twice as many compile twice as long and run some percent faster

_chunks: weakref.WeakKeyDictionary[Cell, Callable[..., tuple[Tensor, State]]] = weakref.WeakKeyDictionary()
_seen: weakref.WeakKeyDictionary[Cell, set[Any]] = weakref.WeakKeyDictionary()


def steps(cell: Cell, u: Tensor, state: State, w: Any) -> tuple[Tensor, State]:
    """The loop: outputs (T, B, output_size) and final state from drive u (T, B, G)."""
    outputs = []
    for u_t in u.unbind(0):
        y, state = cell.step(u_t, state, w)
        outputs.append(y)
    return torch.stack(outputs), state


def _compiled(cell: Cell) -> Callable[..., tuple[Tensor, State]]:
    """`steps`, compiled, one for each cell: what torch has compiled hangs on the code object, and may not be many."""
    if cell not in _chunks:
        torch._functorch.config.donated_buffer = False  # else a backward refuses retain_graph
        code = steps.__code__.replace(co_name=f"steps_of_{type(cell).__name__}")
        copy = types.FunctionType(code, steps.__globals__)
        _chunks[cell] = torch.compile(copy, fullgraph=True, dynamic=False)
        _seen[cell] = set()
    return _chunks[cell]


@contextlib.contextmanager
def _told(cell: Cell, batch: int) -> Iterator[None]:
    """Around a pass that compiles, which is told in the log."""
    start = time.perf_counter()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The .grad attribute of a Tensor")  # torch looks at it itself
        warnings.filterwarnings("ignore", "Torchinductor does not support code generation for complex")  # nor need it
        yield
    seconds = time.perf_counter() - start
    log.info("compiled %d steps of %s for batches of %d in %.0f s", CHUNK, type(cell).__name__, batch, seconds)


def run_compiled(cell: Cell, u: Tensor, state: State, w: Any) -> tuple[Tensor, State]:
    """As `steps`; whole chunks compiled, the ragged rest in the loop.

    A first pass with new sizes compiles for some tens of seconds, or seconds where torch's cache on disk holds it
    (``TORCHINDUCTOR_CACHE_DIR``). Shapes are static, so that ``TORCHINDUCTOR_CUDAGRAPHS=1`` can make CUDA graphs of the
    chunks.
    """
    run, (whole, rest) = _compiled(cell), divmod(len(u), CHUNK)
    # one split for all: slices would each fill a tensor as long as u with zeros in the backward
    chunks = u.split([CHUNK] * whole + [rest] * (rest > 0))
    learning = tuple(torch.is_grad_enabled() and leaf.requires_grad for leaf in (u, *state, *cell.parameters()))
    if any(learning):  # so that the first chunk is compiled like those that go on from another
        state = tuple(part if part.requires_grad else part.clone().requires_grad_() for part in state)
    state = tuple(part.contiguous() for part in state)
    sizes = (u.shape[1:], u.dtype, u.device, learning, torch.is_inference_mode_enabled())
    new = whole > 0 and sizes not in _seen[cell]
    outputs = []
    with _told(cell, u.shape[1]) if new else contextlib.nullcontext():
        for chunk in chunks:
            y, state = run(cell, chunk, state, w) if len(chunk) == CHUNK else steps(cell, chunk, state, w)
            outputs.append(y)
    if new:
        _seen[cell].add(sizes)
    y = torch.cat(outputs)
    if any(learning):
        for part in (y, *state):
            part.register_hook(lambda _: refuse_a_graph())
    return y, state
