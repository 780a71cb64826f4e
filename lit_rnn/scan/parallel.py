"""Recurrences that are linear in their state, by an associative scan: log2 T stages instead of T steps."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lit_rnn.cells.base import Cell, State
from lit_rnn.cells.deltaproduct import DeltaProductCell
from lit_rnn.cells.linear import LinearCell, applied
from lit_rnn.scan.chunked import run_chunked

# Numbers in one step from which it fills the processor: then the steps are taken one by one, which is half the work.
WIDE = {"cpu": 2**12}
WIDE_ELSEWHERE = 2**21


def runs_parallel(cell: Cell) -> bool:
    """Whether its step is one of those that are linear in the state as this file knows them."""
    return any(isinstance(cell, kind) and type(cell).step is kind.step for kind in (LinearCell, DeltaProductCell))


def run_parallel(cell: LinearCell | DeltaProductCell, u: Tensor, state: State, w: Any) -> tuple[Tensor, State]:
    """Outputs (T, B, output_size) and final state from drive u (T, B, G)."""
    if isinstance(cell, DeltaProductCell):
        return run_chunked(cell, u, state, w)
    A, b = cell.terms(u, w)
    h = states(A, b, torch.stack(state, dim=-2))
    return cell.read(h, u, w), h[-1].unbind(-2)


def states(A: Tensor, b: Tensor, before: Tensor) -> Tensor:
    """h_t = A_t h_{t-1} + b_t for t = 0 .. T-1 from h_{-1} = ``before``.

    Args:
        A: (T, B, k, k, n), or (k, k, n) where it is the same at all steps.
        b: (T, B, k, n).
        before: (B, k, n).
    """
    dtype = torch.promote_types(A.dtype, torch.promote_types(b.dtype, before.dtype))  # under autocast they differ
    A, b, before = A.to(dtype), b.to(dtype), before.to(dtype)
    first = b[:1] + applied(A if A.dim() == 3 else A[:1], before[None])
    return _Scan.apply(A, torch.cat((first, b[1:])))


class _Scan(torch.autograd.Function):
    """The states from h_{-1} = 0.

    Gradients run backwards by the same recurrence, g_t = A_{t+1}^T g_{t+1} + dL/dh_t, so that they are scanned as well:
    by b_t it is g_t, by A_t g_t h_{t-1}^T, unit by unit. Only the states are kept.
    """

    @staticmethod
    def forward(ctx: Any, A: Tensor, b: Tensor) -> Tensor:
        h = _scanned(A, b)
        ctx.save_for_backward(A, h)
        return h

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor]:
        A, h = ctx.saved_tensors
        back = A.transpose(-3, -2)
        if A.dim() > 3:  # A_{t+1} at t; the last one multiplies nothing
            back = back.roll(-1, 0).flip(0)
        g = _Scan.apply(back, grad.flip(0)).flip(0)
        if not ctx.needs_input_grad[0]:
            return None, g
        columns = h[:-1].split(1, dim=-2)
        if A.dim() == 3:
            return torch.stack([(g[1:] * column).sum((0, 1)) for column in columns], dim=-2), g
        by_A = torch.stack([g[1:] * column for column in columns], dim=-2)
        return torch.cat((torch.zeros_like(A[:1]), by_A)), g


def _scanned(A: Tensor, b: Tensor) -> Tensor:
    if len(b) == 1 or b[0].numel() >= WIDE.get(b.device.type, WIDE_ELSEWHERE):
        return _one_by_one(A, b)
    return _halved(A, b)


def _one_by_one(A: Tensor, b: Tensor) -> Tensor:
    h = b.clone(memory_format=torch.contiguous_format)
    steps = h.unbind(0)
    columns = [column.unbind(0) if A.dim() > 3 else [column] * len(h) for column in A.unbind(-2)]
    for t in range(1, len(h)):
        for j, column in enumerate(columns):
            steps[t].addcmul_(column[t], steps[t - 1][..., j : j + 1, :])
    return h


def _halved(A: Tensor, b: Tensor) -> Tensor:
    """Two steps are one: h_t = A_t A_{t-1} h_{t-2} + A_t b_{t-1} + b_t gives every second state, and these the rest."""
    even = len(b) // 2 * 2
    earlier, later = (A, A) if A.dim() == 3 else (A[0:even:2], A[1:even:2])
    pairs = (later.unsqueeze(-2) * earlier.unsqueeze(-4)).sum(-3)
    h = torch.empty_like(b, memory_format=torch.contiguous_format)
    h[1::2] = _scanned(pairs, b[1::2] + applied(later, b[0:even:2]))
    h[0] = b[0]
    h[2::2] = b[2::2] + applied(A if A.dim() == 3 else A[2::2], h[1:-1:2])
    return h
