"""The first unitary networks: restricted and full capacity."""

from __future__ import annotations

from torch import nn

from lit_rnn.cells.orthogonal import UnitaryCell
from lit_rnn.parametrizations import FreeUnitary, RestrictedUnitary


class _URNNCell(UnitaryCell):
    """What both share: V Glorot uniform, h_0 learned from U(-sqrt(3/(2n)), sqrt(3/(2n)))."""

    def __init__(
        self, input_size: int, hidden_size: int, recurrent: nn.Module, learn_initial_state: bool, linear: bool
    ) -> None:
        super().__init__(
            input_size,
            hidden_size,
            recurrent,
            learn_initial_state=learn_initial_state,
            initial_bound=(3 / (2 * hidden_size)) ** 0.5,
            linear=linear,
        )


class URNNCell(_URNNCell):
    """h_t = modReLU(W h_{t-1} + V x_t; b) with complex h, W = D3 R2 F^-1 D2 P R1 F D1.

    W reaches a subset of U(n) of dimension 7n - 7 (n >= 6), with 7n numbers. It is multiplied out once per pass,
    O(n^2 log n), and a step costs one complex product.

    Source: Arjovsky, Shah and Bengio 2016, "Unitary Evolution Recurrent Neural Networks".

    Args:
        input_size: Width I of x_t.
        hidden_size: n, complex units.
        learn_initial_state: Keep h_0 zero if false.
        linear: No f and no b; see `UnitaryCell`.
    """

    def __init__(
        self, input_size: int, hidden_size: int, learn_initial_state: bool = True, linear: bool = False
    ) -> None:
        super().__init__(input_size, hidden_size, RestrictedUnitary(hidden_size), learn_initial_state, linear)


class FullURNNCell(_URNNCell):
    """h_t = modReLU(W h_{t-1} + V x_t; b) with complex h and W any unitary matrix.

    W is n^2 complex entries on U(n), a manifold of dimension n^2; a Riemannian optimizer keeps it there
    (`lit_rnn.optim`). It starts as a random restricted product. Nothing is computed per pass; the optimizer's
    retraction costs O(n^3) per step.

    Source: Wisdom et al. 2016, "Full-Capacity Unitary Recurrent Neural Networks".

    Args:
        input_size: Width I of x_t.
        hidden_size: n, complex units.
        learn_initial_state: Keep h_0 zero if false.
        linear: No f and no b; see `UnitaryCell`.
    """

    def __init__(
        self, input_size: int, hidden_size: int, learn_initial_state: bool = True, linear: bool = False
    ) -> None:
        super().__init__(input_size, hidden_size, FreeUnitary(hidden_size), learn_initial_state, linear)
