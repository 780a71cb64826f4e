"""Chunks of steps through torch.compile, for any cell."""

from __future__ import annotations

import contextlib
import logging
import time
import types
import warnings
import weakref
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from datamodules.errors import UserError, one_line
from lit_rnn.cells.base import Cell, State, check_step
from lit_rnn.scan.recurrence import refuse_a_graph

log = logging.getLogger(__name__)

Step = Callable[[Cell, Tensor, State, Any], tuple[Tensor, State]]

CHUNK = 10  # steps: twice as many compile twice as long and run some percent faster

_chunks: weakref.WeakKeyDictionary[Cell, Callable[..., tuple[Tensor, State]]] = weakref.WeakKeyDictionary()
_seen: weakref.WeakKeyDictionary[Cell, set[_Kind]] = weakref.WeakKeyDictionary()
_told: weakref.WeakSet[Cell] = weakref.WeakSet()
_refused: weakref.WeakSet[Cell] = weakref.WeakSet()  # whose steps torch cannot compile


class _Kind(NamedTuple):
    """The passes that one compilation serves."""

    batch: int
    mode: Any  # all else: width, type and place, what learns, inference mode


def steps(cell: Cell, u: Tensor, state: State, w: Any) -> tuple[Tensor, State]:
    """The loop: outputs (T, B, output_size) and final state from drive u (T, B, G)."""
    outputs: list[Tensor] = []
    for u_t in u.unbind(0):
        stepped = cell.step(u_t, state, w)
        if not outputs and not torch.compiler.is_compiling():  # they are all alike
            check_step(cell, stepped, state)
        y, state = stepped
        outputs.append(y)
    return torch.stack(outputs), state


def _compiled(cell: Cell) -> Callable[..., tuple[Tensor, State]]:
    """`steps`, compiled, one for each cell: what torch has compiled hangs on the code object, and may not be many."""
    if cell not in _chunks:
        _chunks[cell] = _own(steps, cell)
        _seen[cell] = set()
    return _chunks[cell]


def _own(function: Any, cell: Cell, **options: Any) -> Callable[..., tuple[Tensor, State]]:
    torch._functorch.config.donated_buffer = False  # else a backward refuses retain_graph
    code = function.__code__.replace(co_name=f"{function.__name__}_of_{type(cell).__name__}")
    copy = types.FunctionType(code, function.__globals__)
    return torch.compile(copy, fullgraph=True, dynamic=False, **options)


def compiled_step(cell: Cell, held: bool) -> Step:
    """``cell.step``, or `held_step`, compiled to be recorded, so without graphs of torch's own."""
    run = _own(held_step if held else plain_step, cell, options={"triton.cudagraphs": False})
    return lambda cell, u, state, w: run(cell, u, state, w)


@contextlib.contextmanager
def refusals_told(cell: Cell) -> Iterator[None]:
    """Raises `UserError` where torch cannot compile a step of ``cell``."""
    from torch._dynamo.exc import TorchDynamoException  # takes seconds to import

    try:
        yield
    except TorchDynamoException as error:
        raise UserError(
            f"model.init_args.backend is compiled, but torch {torch.__version__} cannot compile a step of "
            f"{type(cell).__name__}: {_why(error)}. Set it to graphed or loop."
        ) from error


def plain_step(cell: Cell, u: Tensor, state: State, w: Any) -> tuple[Tensor, State]:
    return cell.step(u, state, w)


def held_step(cell: Cell, u: Tensor, state: State, w: Any) -> tuple[Tensor, State]:
    """A step of rows of which some have ended: where the last column of u is 0, the state stays."""
    goes_on = u[..., -1:].real > 0
    y, after = cell.step(u[..., :-1], state, w)
    return y, tuple(torch.where(goes_on, new, old) for new, old in zip(after, state, strict=True))


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without warnings of torch.compile that ask nothing of anybody."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The .grad attribute of a Tensor")  # torch looks at it itself
        warnings.filterwarnings("ignore", "Torchinductor does not support code generation for complex")  # nor need it
        warnings.filterwarnings("ignore", "TensorFloat32 tensor cores")  # float32 is float32 unless it is asked for
        yield


@contextlib.contextmanager
def _compiling(cell: Cell, batch: int, new: bool) -> Iterator[None]:
    """Around a pass that may compile; one that is ``new`` does, and the log says so."""
    start = time.perf_counter()
    with quiet():
        yield
    if new:
        seconds = time.perf_counter() - start
        log.info("compiled %d steps of %s for batches of %d in %.0f s", CHUNK, type(cell).__name__, batch, seconds)


def tell_of_the_loop(cell: Cell, batch: int, why: str) -> None:
    """Once for each cell: what was asked for does not run everywhere."""
    if cell not in _told:
        _told.add(cell)
        log.warning("%s: batches of %d run in the loop, %s", type(cell).__name__, batch, why)


def _why_not(kind: _Kind, seen: set[_Kind]) -> str | None:
    """Why another compilation would not pay, or would not be done."""
    limit = torch._dynamo.config.recompile_limit
    if any(kind.mode == other.mode and kind.batch < other.batch for other in seen):
        return "it is compiled for larger ones"
    if len(seen) >= limit:
        return f"it is compiled for {limit} kinds of batches, torch's limit"
    return None


def _why(error: Exception) -> str:
    """Why torch cannot compile something, in one line."""
    lines = filter(None, map(one_line, str(error).splitlines()))
    return next((line for line in lines if not line.endswith(":")), type(error).__name__)


def run_compiled(cell: Cell, u: Tensor, state: State, w: Any) -> tuple[Tensor, State]:
    """As `steps`; whole chunks compiled, the ragged rest in the loop.

    Every batch size, with and without gradients, is a compilation of its own. Not worth one is a batch smaller than
    another that is compiled already, and no cell gets more of them than torch allows
    (``torch._dynamo.config.recompile_limit``, 8 by default): those batches run in the loop, which is logged once. So
    does a cell whose step torch cannot compile, such as one that looks at a value to decide what to compute.

    A first pass with new sizes compiles for some tens of seconds, or seconds where torch's cache on disk holds it
    (``TORCHINDUCTOR_CACHE_DIR``). A CUDA device has `lit_rnn.scan.graphed` instead.
    """
    from torch._dynamo.exc import FailOnRecompileLimitHit, TorchDynamoException  # takes seconds to import

    run, seen = _compiled(cell), _seen[cell]
    learning = tuple(torch.is_grad_enabled() and leaf.requires_grad for leaf in (u, *state, *cell.parameters()))
    mode = u.shape[2:], u.dtype, u.device, learning, torch.is_inference_mode_enabled()
    kind = _Kind(u.shape[1], mode)
    new = kind not in seen
    if len(u) < CHUNK or not kind.batch or cell in _refused:  # nothing to compile
        return steps(cell, u, state, w)
    if new and (why := _why_not(kind, seen)):
        tell_of_the_loop(cell, kind.batch, f"not compiled: {why}")
        return steps(cell, u, state, w)
    try:
        with _compiling(cell, kind.batch, new):
            y, final = _in_chunks(run, cell, u, state, w, any(learning))
    except FailOnRecompileLimitHit:  # whatever it is that differs from pass to pass, such as a number in the cell
        why = "not compiled: something else than the batch's size makes torch compile it anew"
        tell_of_the_loop(cell, kind.batch, why)
        return steps(cell, u, state, w)
    except TorchDynamoException as error:
        _refused.add(cell)
        tell_of_the_loop(cell, kind.batch, f"not compiled: torch {torch.__version__} cannot: {_why(error)}")
        return steps(cell, u, state, w)
    seen.add(kind)
    if any(learning):
        for part in (y, *final):
            part.register_hook(lambda _: refuse_a_graph())
    return y, final


def _in_chunks(
    run: Callable[..., tuple[Tensor, State]], cell: Cell, u: Tensor, state: State, w: Any, learning: bool
) -> tuple[Tensor, State]:
    whole, rest = divmod(len(u), CHUNK)
    # one split for all: slices would each fill a tensor as long as u with zeros in the backward
    chunks = u.split([CHUNK] * whole + [rest] * (rest > 0))
    if learning:  # so that the first chunk is compiled like those that go on from another
        state = tuple(part if part.requires_grad else part.clone().requires_grad_() for part in state)
    state = tuple(part.contiguous() for part in state)
    outputs = []
    for chunk in chunks:
        y, state = run(cell, chunk, state, w) if len(chunk) == CHUNK else steps(cell, chunk, state, w)
        outputs.append(y)
    return torch.cat(outputs), state
