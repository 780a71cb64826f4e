"""NRU: the non-saturating recurrent unit."""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from datamodules.errors import require, whole
from lit_rnn.activations import identity
from lit_rnn.cells.base import Cell, State

NRUForm = Literal["released", "paper"]


class _Weights(NamedTuple):
    hidden: Tensor  # (H, H + M): the columns of h_{t-1} and m_{t-1}
    gates: Tensor  # all four maps: the columns of h_t and m_{t-1}
    gates_of_x: Tensor  # and those of x_t, of which the released form has none
    bias: Tensor


def unit_rows(v: Tensor, eps: float = 1e-12) -> Tensor:
    """Rows (..., M) divided by their L5 norm; a row without an entry beyond eps becomes zero, with zero gradient.

    Each row is scaled by its largest entry first, so that fifth powers neither overflow nor vanish.
    """
    largest = v.detach().abs().amax(-1, keepdim=True)
    zero = largest <= eps
    scaled = torch.where(zero, 0.0, v / largest.masked_fill(zero, 1.0))  # float16 takes eps for 0
    fifth = scaled.square().square() * scaled.abs()  # several times as fast as pow(5)
    return scaled / (fifth.sum(-1, keepdim=True) + zero).pow(0.2)


class NRUCell(Cell):
    """h_t = ReLU(W h_{t-1} + W_m m_{t-1} + V x_t + b);  m_t = m_{t-1} + sum_i (alpha_i v_i - beta_i u_i) / k.

    With c = [h_t; m_{t-1}]: alpha, beta in R^k linear in c; [p; q] = P c + b in R^{2s}, s = sqrt(k M); the outer
    product p q^T, cut row by row into k rows of M and each divided by its L5 norm, gives v_1 .. v_k, and a second map
    the erased u_1 .. u_k. State (h, m), output h.

    Nothing saturates, and m is a pure sum whose terms are proportional to m: at its start the released form, H 212 and
    M 256, makes m grow by 3 to 4 % a step, to 1e9 to 1e14 over 784 steps; smaller ones may overflow float32. Clip
    gradients.

    That is the ``released`` form. The ``paper`` form differs: a sum over heads instead of the mean, an outer product
    of two vectors in R^{sqrt M} for each head, and c = [h_t; m_{t-1}; x_t].

    A step costs products of (B, H + M) with (H + M, H) and (H + M, 2k + 4s), and per sequence 2 M multiplications where
    k divides s and ``use_relu`` is off, else 2 k M and the rows' norms.
    Every map starts at U(-1/sqrt(fan in), 1/sqrt(fan in)), torch's default. (H + M + I + 1) H + 2 (H + M + 1)(2s + k)
    numbers in the released form, 2H more with ``layer_norm``.

    Source: Chandar et al. 2019, "Towards Non-saturating Recurrent Units for Modelling Long-term Dependencies".

    Args:
        input_size: Width I of x_t.
        hidden_size: H.
        memory_size: M; k M (released) or M (paper) must be a perfect square.
        heads: k.
        use_relu: ReLU on alpha, beta and the outer products (before they are normalised).
        layer_norm: LayerNorm inside the ReLU of h_t.
        form: ``released`` or ``paper``.
        learn_initial_state: Train (h_0, m_0) instead of keeping them zero.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        memory_size: int,
        heads: int = 4,
        use_relu: bool = False,
        layer_norm: bool = False,
        form: NRUForm = "released",
        learn_initial_state: bool = False,
    ) -> None:
        whole(heads, "model.init_args.heads", 1)
        squared = memory_size * (heads if form == "released" else 1)
        side = math.isqrt(max(squared, 0))
        require(
            squared >= 1 and side * side == squared,
            "model.init_args.memory_size",
            memory_size,
            f"such that {'heads * memory_size' if form == 'released' else 'memory_size'} is a perfect square, "
            f"because each outer product is square; with heads {heads}, {squared} is not",
        )
        super().__init__(input_size, hidden_size, (hidden_size, memory_size), learn_initial_state)
        self.memory_size, self.heads, self.use_relu, self.form = memory_size, heads, use_relu, form
        self.input = nn.Linear(input_size, hidden_size)
        self.recurrent = nn.Linear(hidden_size, hidden_size, bias=False)
        self.memory = nn.Linear(memory_size, hidden_size, bias=False)
        self.norm = nn.LayerNorm(hidden_size) if layer_norm else nn.Identity()
        read = hidden_size + memory_size + (input_size if form == "paper" else 0)
        vectors = 2 * side * (1 if form == "released" else heads)
        self.alpha, self.beta = nn.Linear(read, heads), nn.Linear(read, heads)
        self.write, self.erase = nn.Linear(read, vectors), nn.Linear(read, vectors)
        self.products = 2 if form == "released" else 2 * heads  # outer products: written ones, then erased ones
        self.signs: Tensor
        self.register_buffer("signs", torch.tensor([1.0, -1.0]).repeat_interleave(heads), persistent=False)
        # a row of M is whole rows of its outer product, and nothing is cut off by a ReLU
        self.separable = not use_relu and (form == "paper" or side % heads == 0)
        self.rectify = torch.relu if use_relu else identity
        bound = (input_size + hidden_size + memory_size) ** -0.5  # one map of [x; h; m] in the paper
        for parameter in (self.input.weight, self.input.bias, self.recurrent.weight, self.memory.weight):
            nn.init.uniform_(parameter, -bound, bound)

    def weights(self) -> _Weights:
        scale = 1 / self.heads if self.form == "released" else 1.0
        maps = ((self.alpha, scale), (self.beta, scale), (self.write, 1.0), (self.erase, 1.0))
        gates = torch.cat([factor * linear.weight for linear, factor in maps])
        bias = torch.cat([factor * linear.bias for linear, factor in maps])
        gates, gates_of_x = gates.tensor_split([sum(self.state_sizes)], dim=1)
        return _Weights(torch.cat((self.recurrent.weight, self.memory.weight), dim=1), gates, gates_of_x, bias)

    def drive(self, x: Tensor, w: _Weights) -> Tensor:
        u = self.input(x)
        return u if self.form == "released" else torch.cat((u, nn.functional.linear(x, w.gates_of_x, w.bias)), dim=-1)

    def step(self, u: Tensor, state: State, w: _Weights) -> tuple[Tensor, State]:
        h, m = state
        u, u_gates = u.tensor_split([self.hidden_size], dim=-1)
        h = torch.relu(self.norm(torch.addmm(u, torch.cat((h, m), dim=-1), w.hidden.mT)))
        gates = torch.addmm(w.bias if self.form == "released" else u_gates, torch.cat((h, m), dim=-1), w.gates.mT)
        weights, factors = gates.tensor_split([2 * self.heads], dim=-1)
        weights = self.rectify(weights) * self.signs  # [alpha, -beta], over k if it is a mean
        p, q = factors.unflatten(-1, (self.products, 2, -1)).unbind(-2)
        change = self._separate(p, q, weights) if self.separable else self._rows(p, q, weights)
        return h, (h, m + change)

    def _separate(self, p: Tensor, q: Tensor, weights: Tensor) -> Tensor:
        """sum_i w_i v_i of rows v_i that are outer products themselves: the norm of one is the product of its factors'.

        So p's part and q are normalised each, the parts of one outer product are summed before they meet its q, and no
        k rows of M are ever formed.
        """
        parts = p.unflatten(-1, (2 * self.heads // self.products, -1))  # (B, products, parts of each, r)
        left = (weights.view(*parts.shape[:-1], 1) * unit_rows(parts)).sum(-2)
        return torch.bmm(left.mT, unit_rows(q)).flatten(1)

    def _rows(self, p: Tensor, q: Tensor, weights: Tensor) -> Tensor:
        """sum_i w_i v_i, v_i cut from the outer products."""
        rows = (p[..., :, None] * q[..., None, :]).reshape(p.shape[0], 2 * self.heads, self.memory_size)
        return torch.bmm(weights[:, None], unit_rows(self.rectify(rows)))[:, 0]

    def recurrent_matrices(self) -> dict[str, Tensor]:
        return {"hidden": self.recurrent.weight}

    def extra_repr(self) -> str:
        return f"{self.form} form, {self.heads} heads, memory {self.memory_size}"
