"""W = exp(A), and its dynamic trivialization W = B exp(A)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from lit_rnn.init import SkewInit, henaff_
from lit_rnn.parametrizations.orthogonal import OrthogonalMap


class Exponential(OrthogonalMap):
    """W = exp(A) with A = -A^T: every rotation, nothing else (SO(n), det W = 1).

    A is stored as its n(n-1)/2 entries above the diagonal, so that ``numel`` counts what is free. The exponential
    runs in float32 or better, with autocast off.

    With ``trivialized=True`` the map is taken around a base point that can move: W = B exp(A), started at
    B = exp(A_0), A = 0, where A_0 is what ``init`` draws. `rebase_` moves B onto W (Lezcano-Casado 2019, dtriv).

    Sources: Lezcano-Casado and Martinez-Rubio 2019 (expRNN); Lezcano-Casado 2019 (dynamic trivializations).

    Args:
        size: n.
        init: Fills the skew generator; see `lit_rnn.init`.
        trivialized: Keep a movable base point.
    """

    base: Tensor | None
    _above: Tensor

    def __init__(self, size: int, init: SkewInit = henaff_, trivialized: bool = False) -> None:
        super().__init__()
        self.size = size
        above = torch.triu_indices(size, size, 1)
        self.register_buffer("_above", above[0] * size + above[1], persistent=False)
        generator = init(torch.empty(size, size))
        start = generator[above[0], above[1]]
        self.skew = nn.Parameter(torch.zeros_like(start) if trivialized else start)
        # exp(A_0) in float64: the base carries its rounding error for the whole run
        self.register_buffer("base", torch.matrix_exp(generator.double()).to(start) if trivialized else None)

    def generator(self) -> Tensor:
        """A, (n, n), from its free entries."""
        A = self.skew.new_zeros(self.size * self.size).index_put((self._above,), self.skew).view(self.size, self.size)
        return A - A.mT

    def forward(self) -> Tensor:
        with torch.autocast(self.skew.device.type, enabled=False):
            A = self.generator()
            W = torch.matrix_exp(A if A.dtype.itemsize >= 4 else A.float())
            return W if self.base is None else self.base.to(W.dtype) @ W

    def _apply(self, fn: Any, recurse: bool = True) -> Exponential:
        """Moved to a finer dtype (``precision: 64-true``), B is made orthogonal to that dtype's rounding."""
        coarse = self.skew.dtype
        super()._apply(fn, recurse)
        if self.base is not None and self.skew.dtype.itemsize > coarse.itemsize:
            self.project_()
        return self

    @torch.no_grad()
    def rebase_(self) -> None:
        """B <- B exp(A), A <- 0: the same W, seen from itself. In place, so optimizers and DDP keep their tensors."""
        self._moving_base().copy_(self())
        self.skew.zero_()

    @torch.no_grad()
    def project_(self) -> None:
        """B <- its nearest orthogonal matrix, the polar factor U V^T of its SVD, computed in float64."""
        base = self._moving_base()
        U, _, Vh = torch.linalg.svd(base.double())
        base.copy_(U @ Vh)

    def _moving_base(self) -> Tensor:
        if self.base is None:
            raise RuntimeError("Exponential has no base point to move: build it with trivialized=True.")
        return self.base

    def extra_repr(self) -> str:
        form = "exp(A)" if self.base is None else "B exp(A)"
        return f"W = {form} in SO({self.size}), A skew with {self.skew.numel()} free numbers"
