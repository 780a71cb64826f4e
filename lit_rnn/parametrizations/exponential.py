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
        return torch.matrix_exp(A)
