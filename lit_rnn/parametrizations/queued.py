"""exp(A) and its gradient where the host must not wait: few operations, and none of their numbers is read.

On a GPU each small operation costs more to launch than to do, and autograd's own are half of them; so the backward is
written out, and both ways are recorded as CUDA graphs (`lit_rnn.graphs`). The same series for the CPU, with autograd's
backward, is in `lit_rnn.parametrizations.exponential`.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lit_rnn.dtypes import rounds_as_ieee
from lit_rnn.graphs import RECORDERS, Results, records_on

log = logging.getLogger(__name__)

MOST_SQUARINGS = 10  # those that are done: |A|_2 up to 1,600, in double precision 800; a larger one gives NaN
_MOST_RECORDINGS = 16  # sizes and types that have one; others do without


class Series(NamedTuple):
    """Which series it is.

    Args:
        blocks: A quarter of the degree of p, without its last term.
        theta: |A / 2^s| is at most that.
        nearer: Whether a Newton-Schulz step follows, W (3 I - W^H W) / 2, for a skew-Hermitian A.
    """

    blocks: int
    theta: float
    nearer: bool


class QueuedExponential(torch.autograd.Function):
    """exp(A) of a normal matrix, `exp_normal`'s series: p(A / 2^s)^(2^s) with the s-th of `MOST_SQUARINGS` squarings.

    Args:
        series: Which.
        again: exp(A) by autograd, for gradients of gradients.
        A: (n, n), real or complex.
    """

    @staticmethod
    def forward(ctx: Any, series: Series, again: Callable[[Tensor], Tensor], A: Tensor) -> Tensor:
        ctx.series, ctx.again = series, again
        ctx.recording = _recording(series, A) if ctx.needs_input_grad[2] else None
        if ctx.recording is not None:
            ctx.save_for_backward(A)
            ctx.who = object()
            return ctx.recording.forward(A, ctx.who)
        W, kept = _forward(series, A)
        ctx.save_for_backward(A, *kept)
        return W

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        A, *kept = ctx.saved_tensors
        if torch.is_grad_enabled():
            return None, None, torch.autograd.grad(ctx.again(A), A, grad, create_graph=True)[0]
        if ctx.recording is not None:
            return None, None, ctx.recording.backward(A, grad, ctx.who)
        return None, None, _backward(ctx.series, kept, grad)


class _Recording:
    """Both ways on memory of their own: A goes in, W or the gradient by A comes out.

    What the forward kept is there until another pass runs it; a backward behind that runs the forward again.
    """

    def __init__(self, series: Series, like: Tensor) -> None:
        recorder = RECORDERS[like.device.type](like.device)
        with torch.inference_mode(False), torch.no_grad(), torch.autocast(like.device.type, enabled=False):
            self._A, self._by = torch.zeros_like(like), torch.zeros_like(like)

            def forward() -> Results:
                W, self._kept = _forward(series, self._A)
                return (W,)

            def backward() -> Results:
                return (_backward(series, self._kept, self._by),)

            def both() -> None:
                forward()
                backward()

            recorder.warm_up(both)
            (self._W,), self._replay = recorder.record(forward)
            (self._by_A,), self._replay_backward = recorder.record(backward)
        self._last: object = None  # whose forward ran last

    def forward(self, A: Tensor, who: object) -> Tensor:
        self._A.copy_(A)
        self._replay()
        self._last = who
        assert self._W is not None
        return self._W.clone()

    def backward(self, A: Tensor, grad: Tensor, who: object) -> Tensor:
        if self._last is not who:
            self.forward(A, who)
        self._by.copy_(grad)
        self._replay_backward()
        assert self._by_A is not None
        return self._by_A.clone()


_recordings: dict[Any, _Recording | None] = {}


def _recording(series: Series, A: Tensor) -> _Recording | None:
    """That for such matrices, made if there is none; None where nothing can be, or need be, recorded."""
    if type(A) is not Tensor or not records_on(A.device) or torch.compiler.is_compiling():
        return None
    if A.is_cuda and torch.cuda.is_current_stream_capturing():  # it becomes part of what is recorded
        return None
    stream = torch.cuda.current_stream(A.device).cuda_stream if A.is_cuda else 0
    sums = rounds_as_ieee(), torch.are_deterministic_algorithms_enabled()
    kind = series, len(A), A.dtype, A.device, stream, sums
    if kind not in _recordings and len(_recordings) < _MOST_RECORDINGS:
        _recordings[kind] = _recorded(series, A)
    return _recordings.get(kind)


def _recorded(series: Series, A: Tensor) -> _Recording | None:
    try:
        return _Recording(series, A)
    except RuntimeError as error:
        log.warning("exp(A) with n = %d is not recorded, which makes it slower: %s", len(A), error)
        return None


def _forward(series: Series, A: Tensor) -> tuple[Tensor, list[Tensor]]:
    """W, and what the backward reads."""
    n, blocks = len(A), series.blocks
    powers = A.new_empty(5, n, n)
    powers[0].zero_().diagonal().fill_(1)
    powers[1].copy_(A)
    torch.mm(A, A, out=powers[2])
    torch.bmm(powers[2].expand(2, n, n), powers[1:3], out=powers[3:5])
    size = torch.linalg.vector_norm(powers[4], 1, dim=0).amax()  # |A|_2 is at most its fourth root
    needed = size.log2_().mul_(0.25).sub_(math.log2(series.theta)).ceil_()
    squarings = needed.nan_to_num_(nan=MOST_SQUARINGS + 1).clamp_(0, MOST_SQUARINGS + 1)
    scale = torch.pow(0.5, squarings)
    exponents = torch.arange(1, 5, dtype=scale.dtype, device=A.device)
    powers[1:].mul_(torch.pow(scale, exponents)[:, None, None])
    # 1 / k!, row by row of four
    C = torch.arange(1, 4 * blocks + 1, dtype=torch.float64, device=A.device).lgamma_().exp_().round_()
    C = C.reciprocal_().to(A.dtype).view(blocks, 4)
    sums = (C @ powers[:4].flatten(1)).view(blocks, n, n)  # of a block; later with those above it
    squared = A.new_empty(MOST_SQUARINGS + 2, n, n)  # the last for what needs more
    squared[-1].fill_(math.nan)
    sums[-1].add_(powers[4], alpha=1 / math.factorial(4 * blocks))
    for block in reversed(range(1, blocks - 1)):
        sums[block].addmm_(sums[block + 1], powers[4])
    torch.addmm(sums[0], sums[1], powers[4], out=squared[0])
    for k in range(MOST_SQUARINGS):
        torch.mm(squared[k], squared[k], out=squared[k + 1])
    index = squarings.long()[None]
    W = squared.index_select(0, index)[0]
    kept = [powers, sums, squared, index, scale, C]
    if not series.nearer:
        return W, kept
    gram = W.mH @ W
    return torch.addmm(W, W, gram, beta=1.5, alpha=-0.5), [*kept, W, gram]


def _backward(series: Series, kept: list[Tensor], grad: Tensor) -> Tensor:
    """The gradient by A."""
    powers, sums, squared, index, scale, C, *nearer = kept
    if nearer:
        W, gram = nearer
        by_gram = W.mH @ grad
        grad = torch.addmm(grad, grad, gram, beta=1.5, alpha=-0.5).addmm_(W, by_gram + by_gram.mH, alpha=-0.5)
    by = torch.zeros_like(squared).index_copy_(0, index, grad[None])
    for k in reversed(range(MOST_SQUARINGS)):
        by[k].addmm_(squared[k].mH, by[k + 1]).addmm_(by[k + 1], squared[k].mH)
    by_terms = torch.empty_like(sums)
    by_terms[0].copy_(by[0])
    A4 = powers[4].mH
    by_A4 = torch.zeros_like(grad)
    for block in range(1, series.blocks):
        by_A4.addmm_(sums[block].mH, by_terms[block - 1])
        torch.mm(by_terms[block - 1], A4, out=by_terms[block])
    by_A4.add_(by_terms[-1], alpha=1 / math.factorial(4 * series.blocks))
    _, by_A, by_A2, by_A3 = (C.mT @ by_terms.flatten(1)).view(4, *grad.shape)
    A1, A2 = powers[1].mH, powers[2].mH
    by_A2.addmm_(A2, by_A4).addmm_(by_A4, A2).addmm_(by_A3, A1)
    by_A.addmm_(A2, by_A3).addmm_(A1, by_A2).addmm_(by_A2, A1)
    return by_A * scale
