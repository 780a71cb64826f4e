"""torch's own kernels (oneDNN, cuDNN) for the cells that are exactly theirs."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lit_rnn.cells.base import Cell, State
from lit_rnn.cells.gated import GRUCell, LSTMCell
from lit_rnn.cells.plain import PlainCell
from lit_rnn.scan.checks import check

_PLAIN: dict[Any, Any] = {torch.tanh: torch.rnn_tanh, torch.relu: torch.rnn_relu}


def kernel_of(cell: Cell) -> Any:
    """torch's function that computes ``cell``, None where there is none."""
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
    start = tuple(part[None].contiguous() for part in state)
    y, *final = kernel_of(cell)(x, start if len(start) > 1 else start[0], weights, **options)
    return y, tuple(part[0] for part in final)
