"""oRNN: products of Householder reflections."""

from __future__ import annotations

from torch import nn

from lit_rnn.activations import NonlinearityOrModReLU
from lit_rnn.cells.orthogonal import OrthogonalCell
from lit_rnn.init import xavier_
from lit_rnn.parametrizations import Householder


class HouseholderRNNCell(OrthogonalCell):
    """h_t = f(W h_{t-1} + V x_t + b) or modReLU(W h_{t-1} + V x_t; b),  W = H_1 .. H_m with H_k = I - 2 u_k u_k^T.

    det W = (-1)^m; m = n reaches all of that component of O(n), m < n a subset of dimension m n - m(m+1)/2. W is
    multiplied out once per pass, O(m n^2). V is Glorot uniform, h_0 learned from U(-sqrt(3/(2n)), sqrt(3/(2n))).

    The released f is ``leaky_relu`` (slope 0.1, b inside, started at zero). Its "modReLU" is another function, of pairs
    of units by their squared modulus; its last reflection for m = n is a free factor of the last unit, started at -1 or
    1, where here it is always the reflection -1.

    Source: Mhammedi et al. 2017, "Efficient Orthogonal Parametrisation of Recurrent Neural Networks Using Householder
    Reflections".

    Args:
        input_size: Width I of x_t.
        hidden_size: n, odd or even.
        reflections: m, 1 to n; None takes n.
        learn_initial_state: Keep h_0 zero if false.
        nonlinearity: ``modrelu``, so that the orthogonal cells differ only in W, or f: ``leaky_relu``, tanh, ..
        linear: No f and no b; see `OrthogonalCell`.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        reflections: int | None = None,
        learn_initial_state: bool = True,
        nonlinearity: NonlinearityOrModReLU = "modrelu",
        linear: bool = False,
    ) -> None:
        recurrent = Householder(hidden_size, reflections)
        super().__init__(input_size, hidden_size, recurrent, learn_initial_state, nonlinearity, linear)
        xavier_(self.input.weight)
        for start in self.initial:
            nn.init.uniform_(start, -((1.5 / hidden_size) ** 0.5), (1.5 / hidden_size) ** 0.5)
