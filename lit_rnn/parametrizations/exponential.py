"""W = exp(A)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from lit_rnn.parametrizations.skew import SkewMap

MOST_SQUARINGS = 10  # that are queued where their number is not read: |A|_2 up to 1,600, in double precision 800


def exp_normal(A: Tensor) -> Tensor:
    """exp(A) of a normal matrix (A A^H = A^H A) by Taylor's series with scaling and squaring.

    exp(A) = p(A / 2^s)^(2^s), p Taylor's polynomial of degree 12 in single and 16 in double precision, in the form of
    Paterson and Stockmeyer 1973: five or six products and s more. A is normal, so |A|_2 <= |A^4|_1^(1/4) decides s.

    On the CPU s is read. Elsewhere reading it would make the host wait, in every pass, for all that is queued: there
    `MOST_SQUARINGS` are done and the result of the s-th is taken; an A that needs more gives NaN.

    Autograd goes back through these products, two for each: the exact derivative of what was computed, at a quarter of
    the cost of ``torch.matrix_exp``, whose backward takes the exponential of a matrix twice the size.

    Args:
        A: (n, n), real or complex.
    """
    powers, size = _powers(A)
    if A.device.type != "cpu":
        return _with_unread_squarings(powers, size)
    blocks, theta = _series(A)
    known = size.item() ** 0.25
    if not math.isfinite(known):
        return powers[4] * math.nan
    squarings = max(0, math.ceil(math.log2(known / theta))) if known > 0 else 0
    W = _taylor([power * 2.0 ** (-squarings * k) for k, power in enumerate(powers)], blocks)
    for _ in range(squarings):
        W = W @ W
    return W


def _series(A: Tensor) -> tuple[int, float]:
    """A quarter of the degree, and theta: |A / 2^s| <= theta keeps the series' remainder below rounding."""
    return (3, 1.6) if torch.finfo(A.dtype).bits <= 32 else (4, 0.8)


def _powers(A: Tensor) -> tuple[list[Tensor], Tensor]:
    """A^0 .. A^4, and |A^4|_1."""
    powers = [torch.eye(A.shape[-1], dtype=A.dtype, device=A.device), A, A @ A]
    powers += [powers[2] @ A, powers[2] @ powers[2]]
    return powers, torch.linalg.matrix_norm(powers[4].detach(), 1)


def _with_unread_squarings(powers: list[Tensor], size: Tensor) -> Tensor:
    """exp(A) from `_powers`, none of whose numbers is read."""
    blocks, theta = _series(powers[1])
    ratio = size**0.25 / theta
    squarings = torch.log2(ratio).ceil().clamp(0, MOST_SQUARINGS)
    fits = ratio <= 2.0**MOST_SQUARINGS  # false for NaN
    scale = torch.where(fits, torch.exp2(-squarings), math.nan)
    W = _taylor([power * scale**k for k, power in enumerate(powers)], blocks)
    squared = [W]
    for _ in range(MOST_SQUARINGS):
        squared.append(squared[-1] @ squared[-1])
    index = torch.where(fits, squarings, 0).long()
    return torch.stack(squared).index_select(0, index[None])[0]


def _taylor(powers: list[Tensor], blocks: int) -> Tensor:
    """sum of A^k / k! for k up to 4 ``blocks``, from A^0 .. A^4."""
    W = powers[4] / math.factorial(4 * blocks)
    for block in reversed(range(blocks)):
        if block < blocks - 1:
            W = W @ powers[4]
        for k in range(4):
            W = torch.add(W, powers[k], alpha=1 / math.factorial(4 * block + k))
    return W


class Exponential(SkewMap):
    """W = exp(A), A = -A^H: every rotation and nothing else (SO(n), det 1); with ``unitary``, all of U(n).

    With ``trivialized``, W = B exp(A). Cost O(n^3) per evaluation.

    Sources: Lezcano-Casado and Martinez-Rubio 2019 (expRNN); Lezcano-Casado 2019 (dynamic trivializations).
    Arguments as `SkewMap`.
    """

    formula = "exp(A)"

    def map(self, A: Tensor) -> Tensor:
        W = exp_normal(A)
        if torch.finfo(A.dtype).bits > 32:
            return W
        # rounding adds up over the squarings: one Newton-Schulz step towards the nearest orthogonal matrix takes it
        # back, and its derivative keeps the tangent part of the gradient, which is all of it
        return 1.5 * W - 0.5 * W @ (W.mH @ W)
