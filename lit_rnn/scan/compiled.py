"""Chunks of steps through torch.compile, for any cell."""

from __future__ import annotations

import logging
import time
import types
import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from lit_rnn.cells.base import Cell, State

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
        code = steps.__code__.replace(co_name=f"steps_of_{type(cell).__name__}")
        copy = types.FunctionType(code, steps.__globals__)
        _chunks[cell] = torch.compile(copy, fullgraph=True, dynamic=False)
        _seen[cell] = set()
    return _chunks[cell]


def run_compiled(cell: Cell, u: Tensor, state: State, w: Any) -> tuple[Tensor, State]:
    """As `steps`; whole chunks compiled, the ragged rest in the loop.

    A first pass with new sizes compiles for some tens of seconds, or seconds where torch's cache on disk holds it
    (``TORCHINDUCTOR_CACHE_DIR``). Shapes are static, so that ``TORCHINDUCTOR_CUDAGRAPHS=1`` can make CUDA graphs of the
    chunks.
    """
    whole, rest = divmod(len(u), CHUNK)
    state = tuple(part.contiguous() for part in state)
    # one split for all: slices would each fill a tensor as long as u with zeros in the backward
    chunks = u.split([CHUNK] * whole + [rest] * (rest > 0))
    sizes = (u.shape[1:], u.dtype, u.device, torch.is_grad_enabled(), torch.is_inference_mode_enabled())
    outputs = []
    for chunk in chunks:
        if len(chunk) < CHUNK:
            y, state = steps(cell, chunk, state, w)
        else:
            run, start = _compiled(cell), time.perf_counter()
            y, state = run(cell, chunk, state, w)
            if sizes not in _seen[cell]:
                _seen[cell].add(sizes)
                log.info(
                    "compiled %d steps of %s for batches of %d in %.0f s",
                    *(CHUNK, type(cell).__name__, u.shape[1], time.perf_counter() - start),
                )
        outputs.append(y)
    return torch.cat(outputs), state
