"""The Schur form of the non-normal RNN."""

from __future__ import annotations

import math
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from datamodules.errors import one_of, require
from lit_rnn.dtypes import KeepsKind
from lit_rnn.init import SkewInit, henaff_
from lit_rnn.parametrizations.exponential import Exponential

UpperEntries = Literal["outside_blocks", "released"]


class SchurForm(KeepsKind):
    """W = P (Theta + T) P^T: a real matrix in real Schur form, with its normal and non-normal parts told apart.

    P = exp(A) orthogonal (``basis``); Theta has 2x2 blocks gamma_i R(theta_i) (``gains``, ``angles``), the complex
    eigenvalues gamma_i e^{+-i theta_i}; T is strictly upper triangular above the blocks (``upper``), zero at the start:
    W starts orthogonal. gamma = 1 and T = 0 is SO(n). n^2 - n/2 numbers: n(n-1)/2 of A, n of Theta, n(n-2)/2 of T; W
    reaches a set of dimension n^2 - n, as turning P inside a block turns T and nothing else.

    The released T also has t_i, above the diagonal of block i: n/2 entries more, n^2 numbers in all, and W
    any real matrix. With a = gamma_i cos theta_i and b = gamma_i sin theta_i the block is [[a, t_i - b], [b, a]], its
    eigenvalues a +- sqrt(b (t_i - b)): gamma_i is no longer their modulus, nor Theta all that is normal.

    The released code leaves A uninitialised whatever its options; here A is what ``init`` draws.

    Source: Kerg et al. 2019 (nnRNN).

    Args:
        size: n, even.
        init: Fills A.
        upper: The entries of T: ``outside_blocks`` (real Schur form), or ``released``.
    """

    in_single = True
    _above: Tensor

    def __init__(self, size: int, init: SkewInit = henaff_, upper: UpperEntries = "outside_blocks") -> None:
        super().__init__()
        require(size % 2 == 0, "model.init_args.hidden_size", size, "even: the Schur form has 2x2 blocks")
        known = get_args(UpperEntries)
        one_of(upper, "model.init_args.upper", known)
        self.size = size
        self.basis = Exponential(size, init)
        self.angles = nn.Parameter(torch.empty(size // 2).uniform_(0, 2 * math.pi))
        self.gains = nn.Parameter(torch.ones(size // 2))
        rows, columns = torch.triu_indices(size, size, 1)
        above = (rows // 2 < columns // 2) | (upper == "released")
        self.register_buffer("_above", torch.stack((rows[above], columns[above])), persistent=False)
        self.upper = nn.Parameter(torch.zeros(int(above.sum())))

    def penalty(self) -> Tensor:
        """sum_i (gamma_i - 1)^2."""
        return ((self.gains - 1) ** 2).sum()

    def forward(self) -> Tensor:
        return self.basis.computed(self.matrix)

    def matrix(self) -> Tensor:
        """W, in the precision that its basis is computed in."""
        P = self.basis.matrix()
        gains, angles, upper = map(self.basis.read, (self.gains, self.angles, self.upper))
        real, imaginary = gains * torch.cos(angles), gains * torch.sin(angles)
        blocks = torch.stack((real, -imaginary, imaginary, real), dim=-1).view(-1, 2, 2)
        form = torch.block_diag(*blocks)
        form = form.index_put(tuple(self._above), upper, accumulate=True)
        return P @ form @ P.mT

    def extra_repr(self) -> str:
        return f"W = P (Theta + T) P^T, n = {self.size}, not constrained; orthogonal at the start"
