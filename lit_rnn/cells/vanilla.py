"""The plain recurrent network, its recurrent matrix free."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from lit_rnn import activations
from lit_rnn.activations import NonlinearityOrModReLU
from lit_rnn.cells.base import State
from lit_rnn.cells.plain import PlainCell
from lit_rnn.init import dense_, orthogonal_


class VanillaRNNCell(PlainCell):
    """h_t = f(W h_{t-1} + V x_t + b), W unconstrained (Elman 1990).

    A step costs one (B, n) x (n, n) product.

    Args:
        input_size: Width I of x_t.
        hidden_size: n.
        nonlinearity: f: tanh, relu, leaky_relu (slope 0.1 below zero), elu, identity, or modrelu, which has a threshold
            beside b.
        init: Fills W; see `lit_rnn.init`. b starts at zero.
        learn_initial_state: Train h_0 instead of keeping it zero.
        input_init: Fills V; by default N(0, 0.81 / n), std 0.9 / sqrt(n) (Orhan and Pitkow 2020).
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        nonlinearity: NonlinearityOrModReLU = "tanh",
        init: Callable[[Tensor], Tensor] = orthogonal_,
        learn_initial_state: bool = False,
        input_init: Callable[[Tensor], Tensor] = dense_,
    ) -> None:
        W = nn.Linear(hidden_size, hidden_size, bias=False)
        V = nn.Linear(input_size, hidden_size)
        f = activations.nonlinearity(nonlinearity, hidden_size)
        super().__init__(input_size, hidden_size, W, V, f, learn_initial_state=learn_initial_state)
        self.nonlinearity = nonlinearity
        init(W.weight)
        input_init(V.weight)
        nn.init.zeros_(V.bias)

    def extra_repr(self) -> str:
        return f"f = {self.nonlinearity}, W unconstrained"


class LayerNormRNNCell(VanillaRNNCell):
    """h_t = f(LN(W h_{t-1} + V x_t + b)), LN with gain and offset: 2n numbers more (Ba et al. 2016).

    The RNN-orth and RNN-id baselines of the NRU paper, with f = relu. Arguments as `VanillaRNNCell`.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        nonlinearity: NonlinearityOrModReLU = "relu",
        init: Callable[[Tensor], Tensor] = orthogonal_,
        learn_initial_state: bool = False,
        input_init: Callable[[Tensor], Tensor] = dense_,
    ) -> None:
        super().__init__(input_size, hidden_size, nonlinearity, init, learn_initial_state, input_init)
        self.norm = nn.LayerNorm(hidden_size)

    def step(self, u: Tensor, state: State, w: Tensor) -> tuple[Tensor, State]:
        h = self.activation(self.norm(torch.addmm(u, state[0], w.mT)))
        return h, (h,)
