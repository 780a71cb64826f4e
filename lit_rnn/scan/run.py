"""scan: a cell over time, and which backend runs it."""

from __future__ import annotations

import contextlib
import itertools
import logging
from collections.abc import Callable
from typing import Any, Literal, cast, get_args

import torch
from torch import Tensor
from torch._compile import _disable_dynamo

from datamodules.errors import one_of, require, whole
from lit_rnn.cells.base import Cell, State
from lit_rnn.cells.deltaproduct import DeltaProductCell
from lit_rnn.cells.plain import PlainCell
from lit_rnn.dtypes import as_inputs, as_precise, first, mapped_first
from lit_rnn.graphs import records_on
from lit_rnn.scan import autotune
from lit_rnn.scan.checks import check_inputs, checked
from lit_rnn.scan.compiled import run_compiled, steps, tell_of_the_loop
from lit_rnn.scan.compiler import torch_compiles
from lit_rnn.scan.deltaproduct import run_deltaproduct, runs_deltaproduct
from lit_rnn.scan.drive import driven
from lit_rnn.scan.fused import kind_of, run_plain
from lit_rnn.scan.gated import run_gated, runs_gated
from lit_rnn.scan.gpu import runs_on, takes
from lit_rnn.scan.graphed import forget, run_recorded
from lit_rnn.scan.kernels import kernel_of, run_kernel
from lit_rnn.scan.native import runs_natively
from lit_rnn.scan.packed import Block, Blocks, block_by_block, ends
from lit_rnn.scan.parallel import run_parallel, runs_parallel
from lit_rnn.scan.reasons import reason
from lit_rnn.scan.recompute import recomputed
from lit_rnn.scan.rotations import layers_of
from lit_rnn.scan.unequal import runs_of

log = logging.getLogger(__name__)

Chosen = Literal["loop", "fused", "native", "triton", "streamed", "compiled", "graphed", "torch", "parallel"]
Backend = Literal["auto", Chosen]

# Time steps, over all passes, from which compiling pays: it takes about 40 s on two cores, and spares 0.3 ms a step of
# the smallest cells, more of larger ones (`benchmarks/README.md`).
COMPILE_FROM = 200_000
_STREAMED_BEYOND = 512  # units: up to there `triton` is faster on an H200, at 1,024 no more


def scan(
    cell: Cell,
    x: Tensor,
    state: State | None = None,
    backend: Backend = "auto",
    *,
    lengths: Tensor | None = None,
    reset: Tensor | None = None,
    last_only: bool = False,
    checkpoint_every: int | None = None,
    expected_passes: int | None = None,
    weight_map: Callable[[Tensor], Tensor] | None = None,
) -> tuple[Tensor, State]:
    """Run ``cell`` over a sequence, time first.

    Args:
        cell: The recurrence; ``weights`` and ``drive`` are called once, ``step`` at every time step.
        x: (T, B, input_size), T >= 1, in the type of the cell; B may be 0.
        state: The state before the first step, as ``cell.initial_state(B)``, which None takes.
        backend: See `choose_backend`. All give the same outputs and gradients.
        lengths: (B,), int64, from 1 to T: steps behind a sequence's end change nothing. Outputs there are zero, the
            final state is the one after its own last step, and what x holds there is not read. None: all have T.
        reset: (T, B), bool: where it is true a sequence begins anew, with the cell's own initial state before that
            step; no gradient crosses it. At the first step that state takes the place of ``state``.
        last_only: Return only the last output of every sequence, (1, B, output_size): what a label at the end needs,
            for less memory.
        checkpoint_every: Keep the states only at every so many steps, and run the steps between them again in the
            backward: about a third more time. Memory beyond inputs and outputs is then that of one chunk and T over
            ``checkpoint_every`` states, least near sqrt(T) steps. None keeps all.
        expected_passes: How many passes of this batch size are to come, if that is known: ``auto`` compiles where it
            pays, and ``compiled`` leaves batches of which no more are to come, as an epoch's ragged last one, to the
            loop, and says so once.
        weight_map: What the pass does to W, the first tensor of ``cell.weights()``, such as dropping entries of it.

    Returns:
        The outputs (T, B, output_size), in the dtype of x, and the state after the last step, in that of W.

    Raises:
        UserError: where the backend cannot run the cell, or x, the state, lengths or reset are refused.
    """
    if torch.compiler.is_dynamo_compiling():  # a model is compiled around it: steps in a row would take minutes
        return _uncompiled(
            cell,
            x,
            state,
            backend,
            lengths=lengths,
            reset=reset,
            last_only=last_only,
            checkpoint_every=checkpoint_every,
            expected_passes=expected_passes,
            weight_map=weight_map,
        )
    check_inputs(cell, x)
    runs = None if lengths is None and reset is None else runs_of(x, lengths, reset)
    steps_to_come = (expected_passes or 0) * len(x)
    chosen = choose_backend(backend, cell, steps_to_come)
    tried = backend == "auto" and x.numel() > 0 and not torch.compiler.is_compiling()
    if tried and autotune.measures(x.device):
        chosen = _fastest(cell, x, steps_to_come, last_only, runs is None) or chosen
    if runs is not None and backend == "auto" and chosen == "torch" and supports("native", cell):
        chosen = "native"  # one call for all lengths, not one for each
    if chosen in ("compiled", "graphed") and expected_passes == 0:
        tell_of_the_loop(cell, x.shape[1], f"not {chosen}: few of this size come")
        chosen = "loop"
    w = (layers_of(cell) if chosen == "native" and weight_map is None else None) or cell.weights()
    w = w if weight_map is None else mapped_first(w, weight_map)
    state = checked(cell, x, state, first(w))
    if chosen != "torch" or not torch.is_autocast_enabled(x.device.type):
        state = as_precise(state, _precise(cell, w))  # a pass in chunks starts each of them with what it ends with
    if runs is None:
        blocks: Blocks = (Block(*x.shape[:2]),)
        y, final = _packed(cell, x.flatten(0, 1), state, w, chosen, last_only, checkpoint_every, blocks)
        return (y[None] if last_only else y.unflatten(0, x.shape[:2])), final
    packed, start = x.flatten(0, 1).index_select(0, runs.place), runs.start(cell, state)
    y, final = _packed(cell, packed, start, w, chosen, last_only, checkpoint_every, runs.blocks)
    final = tuple(part.index_select(0, runs.last) for part in final)
    return (y.index_select(0, runs.last)[None] if last_only else runs.unpacked(y, len(x))), final


_uncompiled = _disable_dynamo(scan)  # not torch.compiler.disable, which takes seconds to import


def _fastest(cell: Cell, x: Tensor, steps_to_come: int, last_only: bool, one_length: bool) -> Chosen | None:
    """The backend that was the fastest for such inputs; measured now where enough steps are to come."""
    learns = torch.is_grad_enabled() and any(leaf.requires_grad for leaf in (x, *cell.parameters()))
    shape = autotune.representative(autotune.Shape(cell, len(x), x.shape[1], learns))
    names = _rivals(cell, steps_to_come)
    if not one_length:  # torch's kernels are called for each length
        names = [name for name in names if name != "torch"]
    known = autotune.remembered(shape, names)
    if known is not None or steps_to_come < autotune.MEASURE_FROM:
        return cast(Any, known)
    # the run's own random numbers stay as they are
    generator = torch.Generator(x.device).manual_seed(0)
    drawn = torch.randn((shape.steps, *x.shape[1:]), generator=generator, dtype=x.dtype, device=x.device)
    drawn.requires_grad_(learns and x.requires_grad)
    leaves = [leaf for leaf in (drawn, *cell.parameters()) if leaf.requires_grad]

    def a_pass(name: str) -> Callable[[], object]:
        def run() -> None:
            y, _ = scan(cell, drawn, backend=cast(Any, name), last_only=last_only, expected_passes=steps_to_come)
            if learns:
                torch.autograd.grad(y, leaves, torch.ones_like(y), allow_unused=True)

        return run

    known = autotune.measured(shape, names, a_pass)
    for loser in {"graphed", "compiled"} - {known}:
        forget(cell, loser == "compiled", learns)
    return cast(Any, known)


def _rivals(cell: Cell, steps_to_come: int) -> list[Chosen]:
    """The backends that are measured for a cell on a GPU."""
    left: set[str] = set()
    if steps_to_come < COMPILE_FROM:
        left.add("compiled")
    if cell.hidden_size <= _STREAMED_BEYOND:
        left.add("streamed")
    return [name for name in get_args(Chosen) if supports(name, cell) and name not in left]


def foreseen(asked: Backend, cell: Cell, passes: int, batch: int | None, steps: int | None) -> str:
    """The backend that training passes of this size will run by, as far as is known before the first."""
    to_come = passes * (steps or 0)
    if asked == "auto" and to_come >= autotune.MEASURE_FROM and autotune.measures(next(cell.parameters()).device):
        shape = autotune.representative(autotune.Shape(cell, steps or 0, batch or 0, True))
        return autotune.remembered(shape, _rivals(cell, to_come)) or "measured at the first pass"
    return choose_backend(asked, cell, to_come)


def _packed(
    cell: Cell,
    x: Tensor,
    state: State,
    w: Any,
    chosen: Chosen,
    last_only: bool,
    checkpoint_every: int | None,
    blocks: Blocks,
) -> tuple[Tensor, State]:
    """Of packed rows x (N, I): outputs (N, .), or the last of every row (R, .), and the state after it."""
    if checkpoint_every is None or not torch.is_grad_enabled():
        return _run(cell, x, state, w, chosen, last_only, blocks)
    key = "model.init_args.checkpoint_every"
    checkpoint_every = whole(checkpoint_every, key, 1)

    def run(x: Tensor, state: State, w: Any, blocks: Blocks) -> tuple[Tensor, State]:
        return _run(cell, x, state, w, chosen, last_only, blocks)

    return recomputed(run, cell, x, state, w, checkpoint_every, last_only, blocks)


def _run(
    cell: Cell, x: Tensor, state: State, w: Any, chosen: Chosen, last_only: bool, blocks: Blocks
) -> tuple[Tensor, State]:
    if chosen == "native" and isinstance(cell, DeltaProductCell):
        y, state = run_deltaproduct(cell, x, state, last_only, blocks)
    elif chosen == "native" and kind_of(cell) is None:
        y, state = run_gated(cell, x, state, w, last_only, blocks)
    elif chosen in ("fused", "native", "triton", "streamed"):
        plain = cast(PlainCell, cell)
        y, state = run_plain(plain, x, state, w, cast(Any, chosen), last_only, blocks)
    else:
        u = x if chosen == "torch" else driven(cell, x, w, blocks)
        holds = torch.is_autocast_enabled(x.device.type) and chosen not in ("torch", "parallel")
        if chosen != "torch":
            (u,) = as_precise((u,), _precise(cell, w))
        with torch.autocast(x.device.type, enabled=False) if holds else contextlib.nullcontext():
            if chosen == "graphed" or (chosen == "compiled" and x.is_cuda):
                y, state = run_recorded(cell, u, state, w, blocks, chosen == "compiled")
            else:
                run = _RUNS.get(chosen, steps)
                y, state = block_by_block(lambda u, state: run(cell, u, state, w), u, state, blocks)
        y = y[ends(blocks, y.device)] if last_only else y
    return y if torch.is_autocast_enabled(x.device.type) else as_inputs(y, x), state


def _precise(cell: Cell, w: Any) -> Any:
    """In whose precision the recurrence runs: that of W, or of the parameters where there is none."""
    return w if first(w) is not None else next(cell.parameters(), None)


_RUNS: dict[str, Callable[..., tuple[Tensor, State]]] = {
    "torch": run_kernel,
    "compiled": run_compiled,
    "parallel": run_parallel,
}


def supports(backend: Backend, cell: Cell, device: torch.device | None = None) -> bool:
    """Whether ``backend`` can run ``cell`` on this machine, where the cell is, or once it is on ``device``."""
    if backend == "fused":
        return kind_of(cell) is not None
    if backend == "parallel":
        return runs_parallel(cell)
    if backend in ("auto", "loop", "torch"):
        return backend != "torch" or kernel_of(cell) is not None
    device = device or next(cell.parameters()).device
    if backend == "graphed":
        return records_on(device)
    if backend == "compiled":
        return device.type != "cpu" or torch_compiles()
    kind = kind_of(cell)
    if backend == "native" and kind is None:
        return runs_gated(cell) or runs_deltaproduct(cell)
    like = next(itertools.chain(cell.recurrent_parameters(), cell.parameters()))
    if backend == "native":
        return runs_natively("plain", like.dtype, device)
    if backend == "streamed":
        return kind is not None and takes(like.dtype, device)
    return kind is not None and runs_on(cell.hidden_size, kind, like.dtype, device)


# of backends that run on one kind of them alone
_DEVICES = {"native": "cpu", "triton": "cuda", "streamed": "cuda", "graphed": "cuda"}


def check_backend(asked: Backend, cell: Cell) -> None:
    """Raise as `choose_backend` unless ``asked`` can run ``cell`` where it is, or on a GPU that it may be moved to.

    Where there is no GPU, a plain cell may still name ``triton``, and any cell ``graphed``: so does every network that
    was trained with them elsewhere. Training there is refused when it begins.
    """
    of_a_gpu = _DEVICES.get(asked) == "cuda"
    if of_a_gpu and not torch.cuda.is_available() and (asked == "graphed" or kind_of(cell) is not None):
        return
    choose_backend(asked, cell, device=torch.device("cuda") if of_a_gpu and torch.cuda.is_available() else None)


def backend_here(asked: Backend, cell: Cell) -> Backend:
    """``asked``, or ``auto`` where that is for another device than the cell is on: what was trained on a GPU is tested,
    analyzed and attacked on CPUs, by Lightning too once a fit has ended."""
    device = next(cell.parameters()).device.type
    return asked if _DEVICES.get(asked, device) == device or supports(asked, cell) else "auto"


def choose_backend(asked: Backend, cell: Cell, expected_steps: int = 0, device: torch.device | None = None) -> Chosen:
    """The backend that ``asked`` means for ``cell``.

    Under autocast only maps of whole sequences run in half precision, such as V of the drive: W, the states and what a
    step computes keep the precision of W. torch's own kernels do as torch does, states included.

    - ``loop``: one Python step per time step, autograd over all of them. The oracle, for every cell; the only one whose
      gradient can be differentiated again.
    - ``fused``: h_t = f(W h_{t-1} + u_t) with a hand-written backward that keeps only the states; for the plain cells
      (`lit_rnn.cells.PlainCell`), on any device. States stay in W's precision under autocast.
    - ``native``: both recursions in C++, for the CPU; compiled in seconds on first use. For all cells here but NRU with
      ``use_relu``, ``layer_norm`` or rows that cut across outer products (``separable`` false).
    - ``triton``: the plain cells on a GPU, all steps in one launch with W held in registers; where W is too large for
      one processor, several share it.
    - ``streamed``: the same with W read from the L2 cache at every step, for any number of units; float32 products in
      TF32 where ``torch.set_float32_matmul_precision`` allows it. ``auto`` tries it beyond 512 units.
    - ``compiled``: torch.compile over chunks of steps, for every cell whose step torch can compile; on the CPU with a
      C++ compiler and Python's headers. On a CUDA device over one step, recorded as in ``graphed``.
    - ``graphed``: the loop's own kernels in CUDA graphs, recorded once for each batch size and replayed, for every
      cell; nothing is compiled.
    - ``torch``: torch's own kernels, for LSTM without peepholes or output matrix, GRU with its reset after, tanh and
      relu VanillaRNN.
    - ``parallel``: an associative scan over time for cells that are linear in their state
      (`lit_rnn.cells.LinearCell`): LRU, LinOSS, minGRU and minLSTM; for DeltaProduct, products of its steps in chunks.
      On any device.
    - ``auto``: the first of ``native``, ``triton``, ``fused``, ``parallel`` and ``torch`` that can; where none can,
      ``compiled`` where ``expected_steps`` is at least 200,000, and ``loop`` below. With one thread, in float32,
      without autocast, ``torch`` for the LSTMs that it takes, where sequences are of one length: ``native`` needed up
      to 1.4 times as long there, for GRU and RNN a third to a half (`benchmarks/README.md`). On a CUDA device, where
      `autotune.MEASURE_FROM` steps are to come, `scan` measures all that can instead, once for each shape,
      and takes the fastest; ``lit_rnn autotune`` shows what was measured. Inside a transform of ``torch.func``, such as
      ``grad`` or ``vmap``, it is ``loop``.

    Args:
        asked: The name.
        cell: The cell.
        expected_steps: Time steps over all passes to come.
        device: Where the cell will be, if not where it is.

    Raises:
        UserError: where ``asked`` cannot run the cell.
    """
    key = "model.init_args.backend"
    one_of(asked, key, get_args(Backend))
    if torch._C._are_functorch_transforms_active():
        require(asked in ("auto", "loop"), key, asked, "auto or loop: torch.func transforms no other")
        return "loop"
    if asked != "auto":
        if not supports(asked, cell, device):
            able = [name for name in get_args(Chosen) if supports(name, cell, device)]
            why = reason(asked, cell, device or next(cell.parameters()).device)
            accepted = f"{', '.join(['auto', *able[:-1]])} or {able[-1]}"
            require(False, key, asked, f"{accepted}: {type(cell).__name__} {why}")
        return asked
    order: tuple[Chosen, ...] = ("native", "triton", "fused", "parallel", "torch")
    for name in ("torch", *order) if _is_faster_in_torch(cell) else order:
        if supports(name, cell):
            return name
    return "compiled" if expected_steps >= COMPILE_FROM and supports("compiled", cell) else "loop"


def _is_faster_in_torch(cell: Cell) -> bool:
    """Whether oneDNN's LSTM runs it, alone on its thread: on two it is as fast as ``native``."""
    if kernel_of(cell) is not torch.lstm or torch.get_num_threads() > 1 or not torch.backends.mkldnn.is_available():
        return False
    weight = cell.recurrent_parameters()[0]  # not recurrent.weight: a constraint computes it anew at every look
    return weight.dtype == torch.float32 and weight.device.type == "cpu" and not torch.is_autocast_enabled("cpu")
