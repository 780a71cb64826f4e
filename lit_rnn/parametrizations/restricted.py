"""The restricted-capacity unitary matrix of the first uRNN, and a free unitary matrix started from it."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from lit_rnn.parametrizations.orthogonal import OrthogonalMap


class RestrictedUnitary(OrthogonalMap):
    """W = D3 R2 F^-1 D2 P R1 F D1: a subset of U(n) of dimension 7n - 7 (n >= 6).

    D = diag(e^{iw}), w ~ U(-pi, pi) trained; R = I - 2 v v^H / |v|^2, v trained; F the unitary Fourier matrix; P fixed,
    a random permutation, (P x)_i = x_p(i). 7n stored numbers. W is multiplied out once per pass, O(n^2 log n), and
    applied as one product per step.

    Source: Arjovsky et al. 2016 (uRNN).

    Args:
        size: n.
    """

    permutation: Tensor

    def __init__(self, size: int) -> None:
        super().__init__(size)
        self.phases = nn.Parameter(torch.empty(3, size).uniform_(-math.pi, math.pi))
        bound = math.sqrt(6 / (2 + 2 * size))  # Glorot uniform of the released (2, 2n) array; only directions matter
        self.reflections = nn.Parameter(torch.empty(2, 2, size).uniform_(-bound, bound))
        self.register_buffer("permutation", torch.randperm(size))

    def matrix(self) -> Tensor:
        phases = self.read(self.phases)
        D1, D2, D3 = torch.polar(torch.ones_like(phases), phases)[:, :, None]
        v1, v2 = (torch.complex(*part)[:, None] for part in self.read(self.reflections))

        def reflect(v: Tensor, X: Tensor) -> Tensor:
            return X - v @ (v.mH @ X) * (2 / torch.linalg.vector_norm(v) ** 2)

        X = torch.diag(D1[:, 0])
        X = reflect(v1, torch.fft.fft(X, dim=0, norm="ortho"))
        X = torch.fft.ifft(D2 * X[self.permutation], dim=0, norm="ortho")
        return D3 * reflect(v2, X)

    def extra_repr(self) -> str:
        return f"W = D3 R2 F^-1 D2 P R1 F D1 in a {7 * self.size}-parameter subset of U({self.size})"


class FreeUnitary(OrthogonalMap):
    """W itself, n^2 complex entries, kept in U(n) (dimension n^2) by the optimizer's Riemannian step.

    Started as a random `RestrictedUnitary`. Source: Wisdom et al. 2016 (full-capacity uRNN).

    Args:
        size: n.
    """

    def __init__(self, size: int) -> None:
        super().__init__(size)
        start = RestrictedUnitary(size)
        start.double_precision = True
        self.entries = nn.Parameter(start().detach())

    def matrix(self) -> Tensor:
        return self.read(self.entries)

    def on_group(self) -> list[Tensor]:
        return [self.entries]

    def extra_repr(self) -> str:
        return f"W free in U({self.size}), kept there by a Riemannian optimizer"
