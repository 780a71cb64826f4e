"""How much memory a network's weights will take, before any of it is asked for."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from lit_rnn.memory import require_memory
from lit_rnn.models.blocks import MIXERS

LARGE = 10**8  # entries of matrices from which on it is worth a look
LAYER = 4096  # bytes that a layer takes beside its entries: its modules are dictionaries


def check_size(model: Any) -> None:
    """Refuse layers whose weights this machine's memory cannot hold.

    Two layers are built without memory, on torch's device ``meta``, and all others are at least like the second. Where
    a cell cannot be built there, only a vector of n numbers is counted for it, which every cell has.

    Args:
        model: A `SequenceModel` with its options and task, before it has cells.

    Raises:
        UserError: with the number.
    """
    o, task = model.options, model.task
    width = o.embedding_size or o.encoder_size or task.input_size
    if (
        o.layers * o.hidden_size * (o.hidden_size + width + task.target_size * task.labels) + width * task.input_size
        < LARGE
    ):
        return
    first = upper = 4 * o.hidden_size
    try:
        with torch.random.fork_rng(devices=[]), torch.device("meta"):
            lowest = model.build_cell(width)
            mixer = 0 if o.mixing == "none" else _bytes(MIXERS[o.mixing](lowest.output_size))
            upper = _bytes(model.build_cell(lowest.output_size)) + mixer
            first = _bytes(lowest) + mixer
    except Exception:  # a cell may need numbers to start with; what it refuses, it refuses again when built in earnest
        upper = first
    outside = 4 * (task.target_size * task.labels * o.hidden_size + (o.embedding_size or 0) * task.input_size)
    needed = first + (o.layers - 1) * upper + o.layers * LAYER + outside
    key = "layers" if o.layers * LAYER > first + outside else "hidden_size"
    what = f"{type(model).__name__} of that size with {task.input_size:,} inputs and {task.target_size:,} outputs"
    require_memory(needed, f"model.init_args.{key}", o[key], what)


def _bytes(cell: nn.Module) -> int:
    return sum(tensor.nbytes for tensor in (*cell.parameters(), *cell.buffers()))
