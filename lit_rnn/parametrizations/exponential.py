"""W = exp(A)."""

from __future__ import annotations

import functools
import math

import torch
from torch import Tensor

from lit_rnn.parametrizations.orthogonal import newton_schulz
from lit_rnn.parametrizations.queued import QueuedExponential, Series
from lit_rnn.parametrizations.skew import SkewMap


def exp_normal(A: Tensor, nearer: bool = False) -> Tensor:
    """exp(A) of a normal matrix (A A^H = A^H A) by Taylor's series with scaling and squaring.

    exp(A) = p(A / 2^s)^(2^s), p Taylor's polynomial of degree 12 in single and 16 in double precision, in the form of
    Paterson and Stockmeyer 1973: five or six products and s more. A is normal, so |A|_2 <= |A^4|_1^(1/4) decides s.

    On the CPU s is read. Elsewhere reading it would make the host wait, in every pass, for all that is queued: there a
    fixed number of squarings is done and the result of the s-th is taken (`QueuedExponential`, which gives NaN for an A
    that needs more).

    Autograd goes back through these products, two for each: the exact derivative of what was computed, at a quarter of
    the cost of ``torch.matrix_exp``, whose backward takes the exponential of a matrix twice the size.

    Args:
        A: (n, n), real or complex.
        nearer: A is skew-Hermitian, and one Newton-Schulz step towards the nearest orthogonal or unitary matrix takes
            back what rounding adds up over the squarings. Its derivative keeps the tangent part of the gradient, which
            is all of it.
    """
    if A.device.type == "cpu":
        return _read(A, nearer)
    return QueuedExponential.apply(Series(*_series(A), nearer), functools.partial(_read, nearer=nearer), A)


def _series(A: Tensor) -> tuple[int, float]:
    """A quarter of the degree, and theta: |A / 2^s| <= theta keeps the series' remainder below rounding."""
    return (3, 1.6) if torch.finfo(A.dtype).bits <= 32 else (4, 0.8)


def _read(A: Tensor, nearer: bool) -> Tensor:
    """`exp_normal` with a look at how large A is."""
    blocks, theta = _series(A)
    powers = [torch.eye(A.shape[-1], dtype=A.dtype, device=A.device), A, A @ A]
    powers += [powers[2] @ A, powers[2] @ powers[2]]
    size = torch.linalg.matrix_norm(powers[4].detach(), 1).item() ** 0.25
    if not math.isfinite(size):
        return powers[4] * math.nan
    squarings = max(0, math.ceil(math.log2(size / theta))) if size > 0 else 0
    powers = [power * 2.0 ** (-squarings * k) for k, power in enumerate(powers)]
    W = powers[4] / math.factorial(4 * blocks)
    for block in reversed(range(blocks)):
        if block < blocks - 1:
            W = W @ powers[4]
        for k in range(4):
            W = torch.add(W, powers[k], alpha=1 / math.factorial(4 * block + k))
    for _ in range(squarings):
        W = W @ W
    return newton_schulz(W) if nearer else W


class Exponential(SkewMap):
    """W = exp(A), A = -A^H: every rotation and nothing else (SO(n), det 1); with ``unitary``, all of U(n).

    With ``trivialized``, W = B exp(A). Cost O(n^3) per evaluation.

    Sources: Lezcano-Casado and Martinez-Rubio 2019 (expRNN); Lezcano-Casado 2019 (dynamic trivializations).
    Arguments as `SkewMap`.
    """

    formula = "exp(A)"

    def map(self, A: Tensor) -> Tensor:
        return exp_normal(A, nearer=torch.finfo(A.dtype).bits <= 32)
