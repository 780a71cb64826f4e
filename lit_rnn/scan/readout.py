"""What a state-space cell reads off its states, in C++ (`readout.cpp`): y = C h + D x, gelu and a gated linear unit.

Its products are most of what such a layer costs. They see one row at a time, whatever step and sequence it is of.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from lit_rnn.cells.linear import StateSpaceCell
from lit_rnn.scan.drive import is_linear
from lit_rnn.scan.native import Memory, addresses, function, packed, packed_shape, readable, runs_natively
from lit_rnn.scan.recurrence import refuse_a_graph


def read_out(cell: StateSpaceCell, h: Tensor, x: Tensor) -> Tensor:
    """``cell.output`` of what C reads of states, h (N, .), and of inputs x (N, I): (N, n).

    In torch under autocast, where the maps are more than their weights and biases, and where rows are so few that it
    would not pay to pack the weights.
    """
    maps = [cell.C, cell.D, *([] if cell.glu is None else [cell.glu])]
    weights = [weight for linear in maps for weight in linear.parameters()]
    plain = all(map(is_linear, maps)) and len(weights) == (2 if cell.glu is None else 4)
    plain = plain and type(cell).output is StateSpaceCell.output and all(t.dtype == h.dtype for t in (x, *weights))
    few = len(h) < cell.output_size or torch.is_autocast_enabled(h.device.type)
    if few or not plain or not runs_natively("readout", h.dtype, h.device):
        return cell.output(h, cell.D(x).to(h.dtype))
    keep = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in (h, x, *weights))
    read: Tensor = _Read.apply(keep, h, x, *weights, *[None] * (4 - len(weights)))
    return read


class _Read(torch.autograd.Function):
    """y (N, n) from h (N, seen), x (N, I), C (n, seen), D (n, I), and G (2n, n) and b (2n,) or None."""

    @staticmethod
    def forward(
        ctx: Any, keep: bool, h: Tensor, x: Tensor, C: Tensor, D: Tensor, G: Tensor | None, b: Tensor | None
    ) -> Tensor:
        h, x = h if h.stride(1) == 1 and not h.is_neg() else readable(h), readable(x)
        (N, _), n = h.shape, len(C)
        o = h.new_empty(N, n)
        y, z = (h.new_empty(N, n), h.new_empty(N, 2 * n)) if keep and G is not None else (None, None)
        matrices = [None if M is None else M.mT for M in (C, D, G)]
        kept = ("b", None if b is None else readable(b), 2 * n), ("y", y, N, n), ("z", z, N, 2 * n)
        _call("forward", h, x, n, [], matrices, [*kept, ("The outputs", o, N, n)])
        ctx.save_for_backward(h, x, C, D, G, b, y, z)
        return o

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        refuse_a_graph()
        h, x, C, D, G, b, y, z = ctx.saved_tensors
        (N, seen), I, n = h.shape, x.shape[1], len(C)  # noqa: E741
        of_h, of_x, *of_weights = ctx.needs_input_grad[1:]
        by_h, by_x = (t.new_empty(t.shape) if needed else None for t, needed in ((h, of_h), (x, of_x)))
        threads = torch.get_num_threads()
        sums = [
            weight.new_zeros(threads, *weight.shape) if needed else None
            for weight, needed in zip((C, D, G, b), of_weights, strict=True)
        ]
        shapes = (n, seen), (n, I), (2 * n, n), (2 * n,)
        by_weights = [("A gradient", by, threads, *shape) for by, shape in zip(sums, shapes, strict=True)]
        by_rows = ("The gradient by h", by_h, N, seen), ("The gradient by x", by_x, N, I)
        given = [("The gradient by the outputs", readable(grad), N, n)]
        _call("backward", h, x, n, given, (C, D, G), [("y", y, N, n), ("z", z, N, 2 * n), *by_rows, *by_weights])
        return None, by_h, by_x, *(None if total is None else total.sum(0) for total in sums)


def _call(
    name: str,
    h: Tensor,
    x: Tensor,
    n: int,
    before: Sequence[tuple[Any, ...]],
    matrices: Sequence[Tensor | None],
    behind: Sequence[tuple[Any, ...]],
) -> None:
    """Into readout.cpp: h, x and the matrices packed, and what comes ``before`` and ``behind``: name, tensor, shape."""
    (N, seen), I = h.shape, x.shape[1]  # noqa: E741
    weights: list[Memory | None] = []
    for M, columns, rows in zip(matrices, (seen, I, n), (n, n, 2 * n), strict=True):
        shape = (columns, rows) if name == "forward" else (rows, columns)
        memory = None if M is None else packed("readout", M, shape)
        weights.append(None if memory is None else Memory("A matrix", memory, packed_shape(shape, h.dtype)))
    first, last = (
        [None if t is None else Memory(what, t, tuple(shape)) for what, t, *shape in part] for part in (before, behind)
    )
    at = addresses([*first, Memory("h", h, (N, seen), apart=True), Memory("x", x, (N, I)), *weights, *last], h.dtype)
    numbers = N, torch.get_num_threads(), seen, h.stride(0), n, I
    function("readout", name, h.dtype)((ctypes.c_int * len(numbers))(*numbers), *at)
