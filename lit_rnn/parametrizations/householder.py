"""Products of Householder reflections."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from datamodules.errors import require
from lit_rnn.parametrizations.orthogonal import OrthogonalMap
from lit_rnn.parametrizations.skew import triangle


class Householder(OrthogonalMap):
    """W = H_1 .. H_m, H_k = I - 2 u_k u_k^T, u_k of unit length with zeros above row k: O(n) with det (-1)^m.

    m = n reaches all of that component of O(n), m < n a subset of dimension m n - m(m+1)/2. Stored are the entries of
    the u_k that may differ from zero, column by column, before normalisation: m n - m(m-1)/2 numbers. Evaluated in
    compact WY form, W = I - U T U^T with T^-1 = I/2 + the strict upper triangle of U^T U, by one triangular solve,
    O(m n^2).

    Source: Mhammedi et al. 2017 (oRNN).

    Args:
        size: n.
        reflections: m; None takes n.
    """

    _lower: Tensor

    def __init__(self, size: int, reflections: int | None = None) -> None:
        super().__init__(size)
        m = size if reflections is None else reflections
        require(1 <= m <= size, "model.init_args.reflections", m, f"null or from 1 to hidden_size = {size}")
        columns, rows = torch.triu_indices(m, size)  # column by column below and on the diagonal
        self.register_buffer("_lower", columns * size + rows, persistent=False)
        self.reflections = m
        self.vectors = nn.Parameter(torch.randn(len(rows)))

    def matrix(self) -> Tensor:
        n, m = self.size, self.reflections
        entries = self.read(self.vectors)
        U = triangle(entries, self._lower, n)[:m].mT
        U = U / torch.linalg.vector_norm(U, dim=0)
        half = 0.5 * torch.eye(m, dtype=U.dtype, device=U.device)
        inner = torch.linalg.solve_triangular(half + torch.triu(U.mT @ U, 1), U.mT, upper=True)
        return torch.eye(n, dtype=U.dtype, device=U.device) - U @ inner

    def extra_repr(self) -> str:
        det = -1 if self.reflections % 2 else 1
        return (
            f"W = product of {self.reflections} reflections in O({self.size}) with det {det}, "
            f"{self.vectors.numel()} stored numbers"
        )
