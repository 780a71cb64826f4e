"""Products of generalised Householder steps, a chunk of them at a time.

Within a chunk that begins with H, the step H_i = H_{i-1} + k_i w_i^T has w_i = beta_i (v_i - H_{i-1}^T k_i), so that

    H_i = H + sum_{j <= i} k_j w_j^T,    w_i + beta_i sum_{j < i} (k_i . k_j) w_j = beta_i (v_i - H^T k_i):

one triangular system (I + A) W = beta (V - K H) for all steps of the chunk, with A below the diagonal of beta K K^T.
Its solution is affine in H, W = U - Y H, and so is the state behind the chunk: H <- (I - K^T Y) H + K^T U. Only this
goes from chunk to chunk; U, Y and the outputs are products over all chunks at once. (I + A)^-1 has no entry above 2
where |k_i| <= 1 and beta <= 2, as the steps between two of them multiply nothing by more than 1.

Source: the WY form of Bischof and Van Loan 1987, as Yang et al. 2024, "Parallelizing Linear Transformers with the Delta
Rule over Sequence Length", have it for one step an input.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import pad

from lit_rnn.cells.base import State
from lit_rnn.cells.deltaproduct import DeltaProductCell
from lit_rnn.dtypes import as_plain

CHUNK = 16
"""Householder steps in a chunk: the triangular systems cost their number squared, from chunk to chunk goes a loop."""


def run_chunked(cell: DeltaProductCell, u: Tensor, state: State) -> tuple[Tensor, State]:
    """Outputs (T, B, output_size) and final state from drive u (T, B, G)."""
    H = cell.matrices(state[0])
    with torch.autocast(u.device.type, enabled=False):  # states keep their precision
        o, after = products(*map(as_plain, (*cell.terms(u), H)))
    return cell.read(o.to(u.dtype)), (after.to(H.dtype).flatten(1),)


def products(q: Tensor, k: Tensor, v: Tensor, beta: Tensor, H: Tensor) -> tuple[Tensor, Tensor]:
    """What q reads behind the steps of each input, H_t^T q_t, (T, .., d_v), and H_T.

    Args:
        q: (T, .., d).
        k: (T, .., m, d), no longer than 1.
        v: (T, .., m, d_v).
        beta: (T, .., m, 1), from 0 to 2.
        H: The state before, (.., d, d_v).
    """
    T, m, d, d_v = len(q), *k.shape[-2:], v.shape[-1]
    inputs = max(1, min(T, CHUNK // m))
    q, vk, beta = (_in_chunks(part, inputs) for part in (q[..., None, :], torch.cat((v, k), dim=-1), beta))
    k, scaled = vk[..., d_v:], beta * vk
    # [U | Y]; such a solver does not look above the diagonal, or at it
    UY = torch.linalg.solve_triangular(scaled[..., d_v:] @ k.mT, scaled, upper=False, unitriangular=True)
    added, lost = (k.mT @ UY).split((d_v, d), dim=-1)
    kept, begin = torch.eye(d, dtype=k.dtype, device=k.device) - lost, [H]
    for keep, add in zip(kept.unbind(0), added.unbind(0), strict=True):
        begin.append(keep @ begin[-1] + add)
    # q reads what the steps of its own input and of those before it have written
    of = torch.arange(inputs * m, device=q.device) // m
    own, through = ((q @ k.mT).masked_fill(of > of[::m, None], 0) @ UY).split((d_v, d), dim=-1)
    o = own + (q - through) @ torch.stack(begin[:-1])
    return o.movedim(-2, 1).flatten(0, 1)[:T], begin[-1]


def _in_chunks(rows: Tensor, inputs: int) -> Tensor:
    """(T, .., rows, width) as (chunks, .., inputs x rows, width); steps of zeros behind the last change nothing."""
    whole = pad(rows, (0,) * (2 * rows.dim() - 1) + (-len(rows) % inputs,))
    return whole.unflatten(0, (-1, inputs)).movedim(1, -3).flatten(-3, -2).contiguous()
