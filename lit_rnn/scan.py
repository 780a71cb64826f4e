"""scan: a cell over time."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor

from datamodules.errors import require
from lit_rnn.cells.base import Cell, State

Backend = Literal["auto", "loop"]


def scan(cell: Cell, x: Tensor, state: State | None = None, backend: Backend = "auto") -> tuple[Tensor, State]:
    """Run ``cell`` over a sequence, time first.

    Args:
        cell: The recurrence; ``weights`` and ``drive`` are called once, ``step`` at every time step.
        x: (T, B, input_size), T >= 1.
        state: The state before the first step; None takes ``cell.initial_state(B)``.
        backend: See `choose_backend`.

    Returns:
        The outputs (T, B, output_size) and the state after the last step.
    """
    choose_backend(backend)
    w = cell.weights()
    state = cell.initial_state(x.shape[1]) if state is None else state
    outputs = []
    for u in cell.drive(x, w).unbind(0):
        y, state = cell.step(u, state, w)
        outputs.append(y)
    return torch.stack(outputs), state


def choose_backend(asked: Backend) -> Literal["loop"]:
    """The backend that ``asked`` means: ``loop``, one Python step per time step, is the only one there is."""
    require(asked in get_args(Backend), "model.init_args.backend", asked, f"one of {', '.join(get_args(Backend))}")
    return "loop"
