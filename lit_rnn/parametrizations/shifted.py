"""Matrices between antisymmetric and symmetric, shifted to the left: the maps of the ODE cells."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from datamodules.errors import require
from lit_rnn.parametrizations.skew import triangle


class Shifted(nn.Module):
    """beta (M - M^T) + (1 - beta)(M + M^T) - gamma I, M free: n^2 numbers.

    beta = 1 is antisymmetric, beta = 0 symmetric, as in the released code. The symmetric part decides growth: real
    parts of eigenvalues are at most (1 - beta) lambda_max(M + M^T) - gamma.

    Args:
        size: n.
        beta: In [0, 1].
        gamma: Damping, 0 or positive.
        std: M starts at N(0, std^2).

    Source: Erichson et al. 2021, equation of A and W; released `models.py`.
    """

    def __init__(self, size: int, beta: float, gamma: float, std: float) -> None:
        super().__init__()
        require(0 <= beta <= 1, "model.init_args.beta", beta, "from 0 to 1")
        require(gamma >= 0, "model.init_args.gamma", gamma, "0 or positive")
        require(std >= 0, "model.init_args.init_std", std, "0 or positive")
        self.size, self.beta, self.gamma = size, beta, gamma
        self.free = nn.Parameter(torch.randn(size, size) * std)

    def forward(self) -> Tensor:
        M, identity = self.free, torch.eye(self.size, dtype=self.free.dtype, device=self.free.device)
        return self.beta * (M - M.mT) + (1 - self.beta) * (M + M.mT) - self.gamma * identity

    def extra_repr(self) -> str:
        return f"{self.size}, beta = {self.beta:g}, gamma = {self.gamma:g}"


class Antisymmetric(nn.Module):
    """M - M^T - gamma I, M strictly upper triangular: n(n-1)/2 numbers. Every eigenvalue has real part -gamma.

    Args:
        size: n.
        gamma: Damping, 0 or positive.
        std: The free numbers start at N(0, std^2).

    Source: Chang et al. 2019.
    """

    _above: Tensor

    def __init__(self, size: int, gamma: float, std: float) -> None:
        super().__init__()
        require(gamma >= 0, "model.init_args.gamma", gamma, "0 or positive")
        require(std >= 0, "model.init_args.init_std", std, "0 or positive")
        self.size, self.gamma = size, gamma
        rows, columns = torch.triu_indices(size, size, 1)
        self.register_buffer("_above", rows * size + columns, persistent=False)
        self.free = nn.Parameter(torch.randn(len(rows)) * std)

    def forward(self) -> Tensor:
        M = triangle(self.free, self._above, self.size)
        return M - M.mT - self.gamma * torch.eye(self.size, dtype=M.dtype, device=M.device)

    def extra_repr(self) -> str:
        return f"{self.size}, gamma = {self.gamma:g}"
