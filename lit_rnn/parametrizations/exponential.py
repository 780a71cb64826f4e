"""W = exp(A)."""

from __future__ import annotations

import torch
from torch import Tensor

from lit_rnn.parametrizations.skew import SkewMap


class Exponential(SkewMap):
    """W = exp(A), A = -A^H: every rotation and nothing else (SO(n), det 1); with ``unitary``, all of U(n).

    With ``trivialized``, W = B exp(A). Cost O(n^3) per evaluation.

    Sources: Lezcano-Casado and Martinez-Rubio 2019 (expRNN); Lezcano-Casado 2019 (dynamic trivializations).
    Arguments as `SkewMap`.
    """

    formula = "exp(A)"

    def map(self, A: Tensor) -> Tensor:
        W = torch.matrix_exp(A)
        if torch.finfo(A.dtype).bits > 32:
            return W
        # single precision loses 1e-5 at n = 128: one Newton-Schulz step towards the nearest orthogonal matrix takes it
        # back to rounding, and its derivative keeps the tangent part of the gradient, which is all of it
        return 1.5 * W - 0.5 * W @ (W.mH @ W)
