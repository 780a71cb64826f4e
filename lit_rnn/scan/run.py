"""scan: a cell over time, and which backend runs it."""

from __future__ import annotations

from typing import Literal, cast, get_args

import torch
from torch import Tensor

from datamodules.errors import require
from lit_rnn.cells.base import Cell, State
from lit_rnn.cells.plain import PlainCell
from lit_rnn.scan.fused import kind_of, run_fused

Backend = Literal["auto", "loop", "fused"]


def scan(cell: Cell, x: Tensor, state: State | None = None, backend: Backend = "auto") -> tuple[Tensor, State]:
    """Run ``cell`` over a sequence, time first.

    Args:
        cell: The recurrence; ``weights`` and ``drive`` are called once, ``step`` at every time step.
        x: (T, B, input_size), T >= 1.
        state: The state before the first step; None takes ``cell.initial_state(B)``.
        backend: See `choose_backend`. All give the same outputs and gradients.

    Returns:
        The outputs (T, B, output_size) and the state after the last step.
    """
    chosen = choose_backend(backend, cell)
    w = cell.weights()
    state = cell.initial_state(x.shape[1]) if state is None else state
    u = cell.drive(x, w)
    if chosen == "fused":
        return run_fused(cast(PlainCell, cell), u, state, w)
    outputs = []
    for u_t in u.unbind(0):
        y, state = cell.step(u_t, state, w)
        outputs.append(y)
    return torch.stack(outputs), state


def choose_backend(asked: Backend, cell: Cell) -> Literal["loop", "fused"]:
    """The backend that ``asked`` means for ``cell``.

    - ``loop``: one Python step per time step, autograd over all of them. The oracle, for every cell; the only one whose
      gradient can be differentiated again.
    - ``fused``: h_t = f(W h_{t-1} + u_t) with a hand-written backward that keeps the states alone; for the plain cells
      (`lit_rnn.cells.PlainCell`). States stay in W's precision under autocast.
    - ``auto``: ``fused`` where the cell is plain, else ``loop``.

    Raises:
        UserError: for ``fused`` with a cell that is not plain.
    """
    key = "model.init_args.backend"
    require(asked in get_args(Backend), key, asked, f"one of {', '.join(get_args(Backend))}")
    plain = kind_of(cell) is not None
    require(asked != "fused" or plain, key, asked, f"auto or loop: {type(cell).__name__} is not a plain recurrence")
    return "fused" if plain and asked != "loop" else "loop"
