"""Maps from the Lie algebra: A = -A^H from free numbers, W = map(A), or W = B map(A) around a base point."""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor, nn

from lit_rnn.init import SkewInit, henaff_
from lit_rnn.parametrizations.orthogonal import OrthogonalMap, double


def triangle(entries: Tensor, index: Tensor, size: int) -> Tensor:
    """(n, n) with ``entries`` at the flat positions ``index`` and zeros elsewhere."""
    return entries.new_zeros(size * size).index_put_((index,), entries).view(size, size)


class SkewMap(OrthogonalMap):
    """W = map(A), A = -A^H, where ``map`` is what a subclass says.

    A real A is stored as its n(n-1)/2 entries above the diagonal (``skew``). A complex one is S + iH, S skew and H
    symmetric: n(n+1)/2 entries of H on and above the diagonal (``symmetric``, started at zero) come on top, n^2 in all.
    So ``numel`` counts what is free.

    With ``trivialized`` the map is taken around a base point that can move: W = B map(A), started at B = map(A_0),
    A = 0, where A_0 is what ``init`` draws. `rebase_` moves B onto W (Lezcano-Casado 2019, dtriv).

    Args:
        size: n.
        init: Fills the real skew generator; see `lit_rnn.init`.
        trivialized: Keep a movable base point.
        unitary: Complex A and W.
    """

    base: Tensor | None
    _above: Tensor
    _upper: Tensor

    formula = "map(A)"

    def __init__(self, size: int, init: SkewInit = henaff_, trivialized: bool = False, unitary: bool = False) -> None:
        super().__init__(size)
        rows, columns = torch.triu_indices(size, size, 1)
        self.register_buffer("_above", rows * size + columns, persistent=False)
        generator = init(torch.empty(size, size))
        start = generator[rows, columns]
        self.skew = nn.Parameter(torch.zeros_like(start) if trivialized else start)
        if unitary:
            rows, columns = torch.triu_indices(size, size)
            self.register_buffer("_upper", rows * size + columns, persistent=False)
        self.symmetric = nn.Parameter(torch.zeros(len(rows))) if unitary else None
        base = None
        if trivialized:  # in float64: the base carries its rounding error for the whole run
            base = self.map(double(generator)).to(start.dtype.to_complex() if unitary else start.dtype)
        self.register_buffer("base", base)

    @abstractmethod
    def map(self, A: Tensor) -> Tensor:
        """The orthogonal or unitary matrix of a skew-Hermitian A."""

    def generator(self) -> Tensor:
        """A, (n, n), from its free entries."""
        S = triangle(self.read(self.skew), self._above, self.size)
        S = S - S.mT
        if self.symmetric is None:
            return S
        H = triangle(self.read(self.symmetric), self._upper, self.size)
        return torch.complex(S, H + H.mT - torch.diag(torch.diagonal(H)))

    def matrix(self) -> Tensor:
        W = self.map(self.generator())
        return W if self.base is None else self.read(self.base) @ W

    def on_group(self) -> list[Tensor]:
        return [] if self.base is None else [self.base]

    @torch.no_grad()
    def rebase_(self) -> None:
        """B <- B map(A), A <- 0: the same W, seen from itself. In place: optimizers and DDP keep their tensors."""
        if self.base is None:
            raise RuntimeError(f"{type(self).__name__} has no base point to move: build it with trivialized=True.")
        self.base.copy_(double(self.base) @ self.map(double(self.generator())))  # so that rounding does not add up
        for parameter in self.parameters():
            parameter.zero_()

    def extra_repr(self) -> str:
        form = self.formula if self.base is None else f"B {self.formula}"
        if self.symmetric is None:
            return f"W = {form} in SO({self.size}), A skew-symmetric with {self.skew.numel()} free numbers"
        return f"W = {form} in U({self.size}), A skew-Hermitian with {self.size**2} free numbers"
