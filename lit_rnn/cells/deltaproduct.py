"""DeltaProduct: several generalised Householder steps on a matrix, for every input."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from datamodules.errors import require, whole, whole_or_null
from lit_rnn.cells.base import Cell, State
from lit_rnn.dtypes import as_plain

UNIT, RMS = 1e-6, 1e-5  # inside the roots of the norms of q and k, and of the outputs, as released


def normed(v: Tensor, size: int, eps: float) -> Tensor:
    """v / sqrt(|v|^2 / size + eps), (.., d); in single precision or better, as eps^(-3/2) is no number of float16."""
    precise = as_plain(v)
    return (precise * torch.rsqrt(precise.square().sum(-1, keepdim=True) / size + eps)).to(v.dtype)


class DeltaProductCell(Cell):
    """H <- H + beta_j k_j (v_j - H^T k_j)^T for j = 1 .. m, of every head;  y_t = norm(H_t^T q_t / sqrt(d)).

    That is H_t = P_m .. P_1 H_{t-1} + .. with P_j = I - beta_j k_j k_j^T, which keeps what is across k_j and multiplies
    what is along it by 1 - beta_j |k_j|^2. With beta = 2 sigma(.) in (0, 2) this may be negative, down to a reflection:
    one reflection keeps parity, two make a rotation. With beta in (0, 1) it may not. k_j, v_j, q and beta_j depend on
    x_t alone: q, k, v = silu of linear maps, q and k of length 1. norm is an RMSNorm with a scale to learn over each
    head's d_v outputs, the same for all heads.

    The state is heads matrices (d, d_v), d_v = n / heads, kept flat: (B, heads d d_v). I heads (d + m (d + d_v + 1)) +
    d_v numbers; a step costs 2 m + 1 products of (d, d_v) with a vector for every head and sequence. Maps start Glorot
    uniform with gain 2^-2.5. Neither the short convolutions before it nor the gates around it of a published layer.

    Source: Siems et al. 2025, "DeltaProduct: Improving State-Tracking in Linear RNNs via Householder Products",
    equations 4 to 6; released `gated_deltaproduct.py` of flash-linear-attention without gate and convolution.

    Args:
        input_size: Width I of x_t.
        hidden_size: n, width of y_t, a multiple of heads.
        householder: m, steps for each input.
        heads: How many matrices.
        key_size: d of each head; None takes d_v.
        negative: beta in (0, 2) instead of (0, 1).
        learn_initial_state: Train H_0 instead of keeping it zero.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        householder: int = 2,
        heads: int = 1,
        key_size: int | None = None,
        negative: bool = True,
        learn_initial_state: bool = False,
    ) -> None:
        whole(householder, "model.init_args.householder", 1)
        whole(heads, "model.init_args.heads", 1)
        whole_or_null(key_size, "model.init_args.key_size", 1)
        divides = f"a multiple of model.init_args.heads, {heads}"
        require(hidden_size % heads == 0, "model.init_args.hidden_size", hidden_size, divides)
        d_v = hidden_size // heads
        d = d_v if key_size is None else key_size
        super().__init__(input_size, hidden_size, (heads * d * d_v,), learn_initial_state)
        self.householder, self.heads, self.key_size, self.value_size = householder, heads, d, d_v
        self.negative = negative
        self.sizes = (
            heads * d,
            heads * householder * d,
            heads * householder * d_v,
            heads * householder,
        )  # q, k, v, beta
        self.input = nn.Linear(input_size, sum(self.sizes), bias=False)
        self.scale = nn.Parameter(torch.ones(d_v))
        for matrix in self.input_matrices():
            nn.init.xavier_uniform_(matrix, 2**-2.5)

    def weights(self) -> None:
        return None

    def drive(self, x: Tensor, w: Any) -> Tensor:
        """[q | k | v | beta], as they are used; k and v by step and, in it, by head."""
        q, k, v, beta = self.input(x).split(self.sizes, dim=-1)
        q, k = (
            normed(nn.functional.silu(part).unflatten(-1, (-1, self.key_size)), 1, UNIT).flatten(-2) for part in (q, k)
        )
        beta = torch.sigmoid(beta) * (2 if self.negative else 1)
        return torch.cat((q * self.key_size**-0.5, k, nn.functional.silu(v), beta), dim=-1)

    def matrices(self, H: Tensor) -> Tensor:
        """The state (B, heads d d_v) as matrices (B, heads, d, d_v)."""
        return H.unflatten(-1, (self.heads, self.key_size, self.value_size))

    def terms(self, u: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """q (.., heads, d), and for each head's m steps k (.., heads, m, d), v (.., heads, m, d_v) and beta
        (.., heads, m, 1), from drives u (.., G)."""
        q, k, v, beta = u.split(self.sizes, dim=-1)
        k, v, beta = (part.unflatten(-1, (self.householder, self.heads, -1)).transpose(-3, -2) for part in (k, v, beta))
        return q.unflatten(-1, (self.heads, -1)), k, v, beta

    def read(self, o: Tensor) -> Tensor:
        """y (.., n) from H^T q / sqrt(d) of every head, (.., heads, d_v)."""
        return (self.scale * normed(o, self.value_size, RMS)).flatten(-2)

    def step(self, u: Tensor, state: State, w: None) -> tuple[Tensor, State]:
        q, *by_step = self.terms(u)
        H = self.matrices(state[0])
        for k_j, v_j, beta_j in zip(*(part.split(1, dim=-2) for part in by_step), strict=True):
            H = H + k_j.mT * (beta_j * (v_j - k_j @ H))  # rows (B, heads, 1, .)
        return self.read((q.unsqueeze(-2) @ H).squeeze(-2)), (H.flatten(1),)

    def input_matrices(self) -> list[Tensor]:
        """Of q, k, v and beta."""
        return list(self.input.weight.split(self.sizes))

    def recurrent_matrices(self) -> dict[str, Tensor]:
        """None: what multiplies the state depends on the input alone."""
        return {}

    def recurrent_parameters(self) -> list[nn.Parameter]:
        return []

    def extra_repr(self) -> str:
        signs = "(-1, 1)" if self.negative else "(0, 1)"
        return f"{self.householder} steps, {self.heads} heads of {self.key_size} x {self.value_size}, {signs}"
