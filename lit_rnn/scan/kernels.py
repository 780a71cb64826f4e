"""torch's own kernels (oneDNN, cuDNN) for the cells that are exactly theirs."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from lit_rnn.cells.base import Cell, State
from lit_rnn.cells.gated import GRUCell, LSTMCell
from lit_rnn.cells.plain import PlainCell
from lit_rnn.dtypes import rounds_as_ieee
from lit_rnn.scan.checks import check
from lit_rnn.scan.drive import is_linear
from lit_rnn.scan.recurrence import refuse_a_graph

_PLAIN: dict[Any, Any] = {torch.tanh: torch.rnn_tanh, torch.relu: torch.rnn_relu}


def kernel_of(cell: Cell) -> Any:
    """torch's function that computes ``cell``, None where there is none."""
    if not is_linear(getattr(cell, "input", cell)):
        return None
    if type(cell) is LSTMCell and cell.peephole is None and cell.output is None:
        return torch.lstm
    if type(cell) is GRUCell and cell.candidate_bias is not None:
        return torch.gru
    untouched = isinstance(cell, PlainCell) and (type(cell).step, type(cell).drive, type(cell).read) == (
        PlainCell.step,
        PlainCell.drive,
        PlainCell.read,
    )
    return _PLAIN.get(cell.activation) if untouched and isinstance(cell, PlainCell) else None


def run_kernel(cell: Cell, x: Tensor, state: State, w: Any) -> tuple[Tensor, State]:
    """Outputs (T, B, n) and final state from inputs x (T, B, I)."""
    W, b = w if isinstance(w, tuple) else (w, None)
    linear = cell.get_submodule("input")
    bias = linear.bias if linear.bias is not None else W.new_zeros(len(W))
    weights = [linear.weight, W, bias, W.new_zeros(len(W)) if b is None else b]
    n = state[0].shape[1]
    rows = n * {torch.lstm: 4, torch.gru: 3}.get(kernel_of(cell), 1)
    shapes = (rows, x.shape[2]), (rows, n), (rows,), (rows,)
    for weight, shape in zip(weights, shapes, strict=True):  # torch does not look at all of them
        check(
            "A weight", weight, shape, weight.dtype if torch.is_autocast_enabled(x.device.type) else x.dtype, x.device
        )
    # cuDNN goes back only through a forward that was told to train; without dropout that is all it means
    options = {
        "has_biases": True,
        "num_layers": 1,
        "dropout": 0.0,
        "train": torch.is_grad_enabled(),
        "bidirectional": False,
        "batch_first": False,
    }
    start, kernel = tuple(part[None].contiguous() for part in state), kernel_of(cell)

    def run(x: Tensor, *rest: Tensor) -> tuple[Tensor, ...]:
        start, weights = rest[:-4], list(rest[-4:])
        with warnings.catch_warnings():  # cuDNN copies the weights into one piece, which takes microseconds
            warnings.filterwarnings("ignore", "RNN module weights are not part of single contiguous chunk")
            found: tuple[Tensor, ...] = kernel(x, start if len(start) > 1 else start[0], weights, **options)
        return found

    if not (x.is_cuda and rounds_as_ieee()):
        y, *final = run(x, *start, *weights)
    elif torch.is_grad_enabled():
        y, *final = InIeee.apply(run, x, *start, *weights)
    else:
        with in_ieee():
            y, *final = run(x, *start, *weights)
    return y, tuple(part[0] for part in final)


@contextlib.contextmanager
def in_ieee() -> Iterator[None]:
    """cuDNN without TF32, which torch lets it take unless it is told otherwise; here it does as other products do."""
    rnn: Any = torch.backends.cudnn.rnn
    before = rnn.fp32_precision
    rnn.fp32_precision = "ieee"
    try:
        yield
    finally:
        rnn.fp32_precision = before


class InIeee(torch.autograd.Function):
    """Some tensors through ``run`` and back, with cuDNN `in_ieee` both times."""

    @staticmethod
    def forward(ctx: Any, run: Callable[..., tuple[Tensor, ...]], *tensors: Tensor) -> tuple[Tensor, ...]:
        needed = ctx.needs_input_grad[1:]
        inputs = [tensor.detach().requires_grad_(need) for tensor, need in zip(tensors, needed, strict=True)]
        with torch.enable_grad(), in_ieee():
            outputs = run(*inputs)
        ctx.inputs, ctx.outputs = inputs, outputs
        ctx.set_materialize_grads(False)
        return tuple(output.detach() for output in outputs)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        refuse_a_graph()
        used = [(out, grad) for out, grad in zip(ctx.outputs, grads, strict=True) if grad is not None]
        outs, by = zip(*used, strict=True)
        leaves = [tensor for tensor in ctx.inputs if tensor.requires_grad]
        with in_ieee():
            found = iter(torch.autograd.grad(outs, leaves, by, retain_graph=True, allow_unused=True))
        return None, *(next(found) if tensor.requires_grad else None for tensor in ctx.inputs)
