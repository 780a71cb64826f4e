"""What every orthogonal parametrization shares."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn


def drift(W: Tensor) -> Tensor:
    """max |W^T W - I|, measured in float64: how far W is from orthogonal. A 0-dimensional tensor."""
    W = W.detach().double()
    return (W.mT @ W - torch.eye(W.shape[-1], dtype=W.dtype, device=W.device)).abs().max()


class OrthogonalMap(nn.Module, ABC):
    """A module whose call gives an (n, n) orthogonal matrix from free parameters."""

    @abstractmethod
    def forward(self) -> Tensor: ...

    @torch.no_grad()
    def drift(self) -> Tensor:
        """`drift` of the matrix as it stands."""
        return drift(self())
