"""W = (I + A)^-1 (I - A), plain and scaled."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from datamodules.errors import require
from lit_rnn.init import SkewInit, cayley_
from lit_rnn.parametrizations.skew import SkewMap


def cayley(A: Tensor) -> Tensor:
    """(I + A)^-1 (I - A), by one solve; A = -A^H keeps I + A invertible, so that nobody need ask whether it was."""
    identity = torch.eye(A.shape[-1], dtype=A.dtype, device=A.device)
    return torch.linalg.solve_ex(identity + A, identity - A)[0]


def order(released: bool) -> str:
    """Which of the two scaled Cayley matrices, in words."""
    return "its transpose, D last (released code)" if released else "D first (paper)"


class Cayley(SkewMap):
    """W = (I + A)^-1 (I - A), A = -A^H: the rotations (unitary matrices) without eigenvalue -1, det 1 when real.

    An eigenvalue near -1 takes a large A: |s| = tan(angle / 2). With ``trivialized``, W = B (I + A)^-1 (I - A) reaches
    all of SO(n) as B moves. Cost O(n^3) per evaluation, one solve.

    Source: Helfrich et al. 2018. Arguments as `SkewMap`.
    """

    formula = "(I + A)^-1 (I - A)"

    def __init__(self, size: int, init: SkewInit = cayley_, trivialized: bool = False, unitary: bool = False) -> None:
        super().__init__(size, init, trivialized, unitary)

    def map(self, A: Tensor) -> Tensor:
        return cayley(A)


class ScaledCayley(Cayley):
    """W = (I + A)^-1 (I - A) D, D = diag(1 .. 1, -1 .. -1) fixed: O(n) with det (-1)^rho, almost everywhere.

    For the right D every orthogonal matrix is of this form with |A| <= 1 entrywise (Kahan 2006); for one fixed D those
    are missed whose W D has eigenvalue -1, a set of measure zero.

    Source: Helfrich et al. 2018 (scoRNN).

    Args:
        size: n.
        init: Fills A.
        negatives: rho, how many entries of D are -1 (the last ones); None takes n // 2.
        released_order: The paper writes h_t = f(W h_{t-1} + ...). The released code multiplies row vectors,
            h W = h Z D, which acts on column vectors as W^T = D Z^T: D last. True gives that matrix.
    """

    signs: Tensor

    def __init__(
        self, size: int, init: SkewInit = cayley_, negatives: int | None = None, released_order: bool = False
    ) -> None:
        super().__init__(size, init)
        negatives = size // 2 if negatives is None else negatives
        accepted = f"null or a whole number from 0 to hidden_size = {size}"
        require(0 <= negatives <= size, "model.init_args.negatives", negatives, accepted)
        signs = torch.ones(size)
        signs[size - negatives :] = -1
        self.register_buffer("signs", signs)
        self.negatives, self.released_order = negatives, released_order

    def matrix(self) -> Tensor:
        W = super().matrix() * self.signs
        return W.mT if self.released_order else W

    def extra_repr(self) -> str:
        det = -1 if self.negatives % 2 else 1
        return (
            f"W = (I + A)^-1 (I - A) D in O({self.size}) with det {det}, {self.negatives} entries -1 in D, "
            f"{order(self.released_order)}, {self.skew.numel()} free numbers"
        )


class UnitaryScaledCayley(Cayley):
    """W = (I + A)^-1 (I - A) diag(e^{i theta}), A = -A^H and theta trained: all of U(n).

    A starts from the real blocks of ``init``; ``phase`` theta ~ U(0, 2 pi). n^2 + n numbers.

    Source: Maduranga et al. 2019 (scuRNN).

    Args:
        size: n.
        init: Fills the real part of A.
        released_order: W^T = diag(e^{i theta}) Z^T, Z = (I + A)^-1 (I - A), instead, as for `ScaledCayley`.
    """

    def __init__(self, size: int, init: SkewInit = cayley_, released_order: bool = False) -> None:
        super().__init__(size, init, unitary=True)
        self.released_order = released_order
        self.phase = nn.Parameter(torch.empty(size).uniform_(0, 2 * math.pi))

    def matrix(self) -> Tensor:
        phase = self.read(self.phase)
        W = super().matrix() * torch.polar(torch.ones_like(phase), phase)
        return W.mT if self.released_order else W

    def extra_repr(self) -> str:
        return (
            f"W = (I + A)^-1 (I - A) diag(e^(i theta)) in U({self.size}), A skew-Hermitian, "
            f"{order(self.released_order)}, {self.size**2 + self.size} free numbers"
        )
