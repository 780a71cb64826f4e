"""exp(A) and its gradient where the host must not wait: few operations, and none of their numbers is read.

On a GPU each small operation costs more to launch than to do, and autograd's own are half of them; so the backward is
written out. `lit_rnn.parametrizations.exponential` has the same series for the CPU, with autograd's.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

MOST_SQUARINGS = 10  # those that are done: |A|_2 up to 1,600, in double precision 800; a larger one gives NaN


class QueuedExponential(torch.autograd.Function):
    """exp(A) of a normal matrix, `exp_normal`'s series: p(A / 2^s)^(2^s) with the s-th of `MOST_SQUARINGS` squarings.

    In single precision a Newton-Schulz step follows, W (3 I - W^H W) / 2, as A is skew-Hermitian there.

    Args:
        blocks: A quarter of the degree of p, without its last term.
        theta: |A / 2^s| is at most that.
        nearer: Whether that step is taken.
        again: exp(A) by autograd, for gradients of gradients.
        A: (n, n), real or complex.
    """

    @staticmethod
    def forward(
        ctx: Any, blocks: int, theta: float, nearer: bool, again: Callable[[Tensor], Tensor], A: Tensor
    ) -> Tensor:
        n = len(A)
        powers = A.new_empty(5, n, n)
        powers[0].zero_().diagonal().fill_(1)
        powers[1].copy_(A)
        torch.mm(A, A, out=powers[2])
        torch.bmm(powers[2].expand(2, n, n), powers[1:3], out=powers[3:5])
        size = torch.linalg.vector_norm(powers[4], 1, dim=0).amax()  # |A|_2 is at most its fourth root
        needed = size.log2_().mul_(0.25).sub_(math.log2(theta)).ceil_()
        squarings = needed.nan_to_num_(nan=MOST_SQUARINGS + 1).clamp_(0, MOST_SQUARINGS + 1)
        scale = torch.pow(0.5, squarings)
        exponents = torch.arange(1, 5, dtype=scale.dtype, device=A.device)
        powers[1:].mul_(torch.pow(scale, exponents)[:, None, None])
        # 1 / k!, row by row of four
        C = torch.arange(1, 4 * blocks + 1, dtype=torch.float64, device=A.device).lgamma_().exp_().round_()
        C = C.reciprocal_().to(A.dtype).view(blocks, 4)
        terms = (C @ powers[:4].flatten(1)).view(blocks, n, n)
        squared = A.new_empty(MOST_SQUARINGS + 2, n, n)  # the last for what needs more
        squared[-1].fill_(math.nan)
        sums = terms  # in place: what the block and those above it add up to
        sums[-1].add_(powers[4], alpha=1 / math.factorial(4 * blocks))
        for block in reversed(range(1, blocks - 1)):
            sums[block].addmm_(sums[block + 1], powers[4])
        torch.addmm(sums[0], sums[1], powers[4], out=squared[0])
        for k in range(MOST_SQUARINGS):
            torch.mm(squared[k], squared[k], out=squared[k + 1])
        index = squarings.long()[None]
        W = squared.index_select(0, index)[0]
        gram = W.mH @ W if nearer else None
        ctx.blocks, ctx.again = blocks, again
        ctx.save_for_backward(A, powers, sums, squared, index, scale, C, W, gram)
        return W.clone() if gram is None else torch.addmm(W, W, gram, beta=1.5, alpha=-0.5)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        A, powers, sums, squared, index, scale, C, W, gram = ctx.saved_tensors
        if torch.is_grad_enabled():
            return *(None,) * 4, torch.autograd.grad(ctx.again(A), A, grad, create_graph=True)[0]
        if gram is not None:
            by_gram = W.mH @ grad
            grad = torch.addmm(grad, grad, gram, beta=1.5, alpha=-0.5).addmm_(W, by_gram + by_gram.mH, alpha=-0.5)
        by = torch.zeros_like(squared).index_copy_(0, index, grad[None])
        for k in reversed(range(MOST_SQUARINGS)):
            by[k].addmm_(squared[k].mH, by[k + 1]).addmm_(by[k + 1], squared[k].mH)
        by_terms = torch.empty_like(sums)
        by_terms[0].copy_(by[0])
        A4 = powers[4].mH
        by_A4 = torch.zeros_like(W)
        for block in range(1, ctx.blocks):
            by_A4.addmm_(sums[block].mH, by_terms[block - 1])
            torch.mm(by_terms[block - 1], A4, out=by_terms[block])
        by_A4.add_(by_terms[-1], alpha=1 / math.factorial(4 * ctx.blocks))
        _, by_A, by_A2, by_A3 = (C.mT @ by_terms.flatten(1)).view(4, *W.shape)
        A1, A2 = powers[1].mH, powers[2].mH
        by_A2.addmm_(A2, by_A4).addmm_(by_A4, A2).addmm_(by_A3, A1)
        by_A.addmm_(A2, by_A3).addmm_(A1, by_A2).addmm_(by_A2, A1)
        return *(None,) * 4, by_A * scale
