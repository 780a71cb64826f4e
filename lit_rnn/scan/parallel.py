"""Recurrences that are linear in their state, by an associative scan: log2 T stages instead of T steps."""

from __future__ import annotations

from collections.abc import Sequence
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
    if isinstance(cell, DeltaProductCell):
        return type(cell).step is DeltaProductCell.step and type(cell).matrices is DeltaProductCell.matrices
    return isinstance(cell, LinearCell) and type(cell).step is LinearCell.step


def run_parallel(cell: LinearCell | DeltaProductCell, u: Tensor, state: State, w: Any) -> tuple[Tensor, State]:
    """Outputs (T, B, output_size) and final state from drive u (T, B, G)."""
    if isinstance(cell, DeltaProductCell):
        return run_chunked(cell, u, state)
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
    return _Scan.apply(A.to(dtype), b.to(dtype), before.to(dtype))


class _Scan(torch.autograd.Function):
    """`states`.

    Gradients run backwards by nearly the same recurrence (`_Back`), g_t = A_{t+1}^T g_{t+1} + dL/dh_t: by b_t it is
    g_t, by A_t g_t h_{t-1}^T, unit by unit. Only the states are kept.
    """

    @staticmethod
    def forward(ctx: Any, A: Tensor, b: Tensor, before: Tensor) -> Tensor:
        memory = b.new_empty(len(b) + 1, *b.shape[1:])  # so that h_{t-1} at t is in one piece
        memory[0], h = before, memory[1:]
        h.copy_(b)
        h[0] += applied(A if A.dim() == 3 else A[0], before)
        _scan_(A, h)
        ctx.save_for_backward(A, h, before, memory)
        return h

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        A, h, before, memory = ctx.saved_tensors
        g = _Back.apply(A, grad)
        by_before = applied((A if A.dim() == 3 else A[0]).transpose(-3, -2), g[0]) if ctx.needs_input_grad[2] else None
        if not ctx.needs_input_grad[0]:
            return None, g, by_before
        twice = torch.is_grad_enabled()  # then gradients go on into the states
        return _outer(g, torch.cat((before[None], h[:-1])) if twice else memory[:-1], A.dim() == 3), g, by_before


class _Back(torch.autograd.Function):
    """g_t = A_{t+1}^T g_{t+1} + b_t, from the last step to the first. Its own gradient is a scan forwards again."""

    @staticmethod
    def forward(ctx: Any, A: Tensor, b: Tensor) -> Tensor:
        g = _scanned_back(A, b)
        ctx.save_for_backward(A, g)
        return g

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor]:
        A, g = ctx.saved_tensors
        start = torch.zeros_like(grad[0])
        h = _Scan.apply(A, grad, start)
        if not ctx.needs_input_grad[0]:
            return None, h
        return _outer(g, torch.cat((start[None], h[:-1])), A.dim() == 3), h


def _outer(g: Tensor, h: Tensor, summed: bool) -> Tensor:
    """g_t h_t^T of each unit, (.., k, k, n), or their sum over steps and batch, from (T, B, k, n)."""
    columns = h.split(1, dim=-2)
    return torch.stack([(g * column).sum((0, 1)) if summed else g * column for column in columns], dim=-2)


def _is_wide(h: Tensor) -> bool:
    return len(h) == 1 or h[0].numel() >= WIDE.get(h.device.type, WIDE_ELSEWHERE)


def _scan_(A: Tensor, h: Tensor) -> None:
    """From h_t = b_t to the states, in place; A_0 is not read."""
    if _is_wide(h):
        _one_by_one_([column[1:] for column in _columns(A, len(h))], h.unbind(0))
    else:
        _halved_(A, h)


def _scanned_back(A: Tensor, b: Tensor) -> Tensor:
    A = A.transpose(-3, -2)
    if _is_wide(b):
        g = b.clone(memory_format=torch.contiguous_format)
        _one_by_one_([column[:0:-1] for column in _columns(A, len(g))], g.unbind(0)[::-1])
        return g
    g = b.flip(0)
    _halved_(A if A.dim() == 3 else A.roll(-1, 0).flip(0), g)  # A_{t+1} at t; the last one multiplies nothing
    return g.flip(0)


def _columns(A: Tensor, steps: int) -> list[Sequence[Tensor]]:
    """Of every step."""
    return [[column] * steps if A.dim() == 3 else column.unbind(0) for column in A.unbind(-2)]


def _one_by_one_(columns: Sequence[Sequence[Tensor]], h: Sequence[Tensor]) -> None:
    """Those of A of all steps behind the first."""
    for t in range(1, len(h)):
        for j, column in enumerate(columns):
            h[t].addcmul_(column[t - 1], h[t - 1][..., j : j + 1, :])


def _halved_(A: Tensor, h: Tensor) -> None:
    """Two steps are one: h_t = A_t A_{t-1} h_{t-2} + A_t b_{t-1} + b_t gives every second state, and these the rest."""
    even = len(h) // 2 * 2
    earlier, later = (A, A) if A.dim() == 3 else (A[0:even:2], A[1:even:2])
    seconds = h[1::2]
    seconds += applied(later, h[0:even:2])
    half = seconds.contiguous()
    _scan_((later.unsqueeze(-2) * earlier.unsqueeze(-4)).sum(-3), half)
    seconds.copy_(half)
    h[2::2] += applied(A if A.dim() == 3 else A[2::2], h[1:-1:2])
