"""expRNN and its dynamic trivialization, real and complex."""

from __future__ import annotations

from torch import nn

from lit_rnn.cells.orthogonal import OrthogonalCell, UnitaryCell
from lit_rnn.init import SkewInit, henaff_
from lit_rnn.parametrizations import Exponential, SkewMap


class ExpRNNCell(OrthogonalCell):
    """h_t = modReLU(W h_{t-1} + V x_t; b),  W = exp(A),  A = -A^T.

    W reaches all of SO(n) (det 1) with n(n-1)/2 free numbers. A step costs one (B, n) x (n, n) product; the map,
    O(n^3), is paid once per pass.

    Source: Lezcano-Casado and Martinez-Rubio 2019, "Cheap Orthogonal Constraints in Neural Networks".

    Args:
        input_size: Width I of x_t.
        hidden_size: n; odd n works and starts with one eigenvalue 1.
        init: Fills A; see `lit_rnn.init`.
        learn_initial_state: Train h_0 instead of keeping it zero.
        map_class: `Exponential`, or `Cayley`: W = (I + A)^-1 (I - A), which misses the eigenvalue -1.
        linear: No f and no b; see `OrthogonalCell`.
    """

    trivialized = False

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        init: SkewInit = henaff_,
        learn_initial_state: bool = False,
        map_class: type[SkewMap] = Exponential,
        linear: bool = False,
    ) -> None:
        recurrent = map_class(hidden_size, init, self.trivialized)
        super().__init__(input_size, hidden_size, recurrent, learn_initial_state, linear=linear)


class DtrivRNNCell(ExpRNNCell):
    """h_t = modReLU(W h_{t-1} + V x_t; b),  W = B exp(A): expRNN seen from a base point B that can be moved onto W.

    Moving it (``recurrent.rebase_()``) changes the gradient's coordinates, not the network; `lit_rnn.models.DtrivRNN`
    does so every K optimizer steps. Manifold, cost and initialisation as `ExpRNNCell`.

    Source: Lezcano-Casado 2019, "Trivializations for Gradient-Based Optimization on Manifolds".
    """

    trivialized = True


class UnitaryExpRNNCell(UnitaryCell):
    """h_t = modReLU(W h_{t-1} + V x_t; b) with complex h, W = exp(A), A = -A^H, or W = B exp(A).

    W reaches all of U(n) with n^2 free numbers (the Cayley map misses the eigenvalue -1). V is Kaiming normal, as in
    the real cell. Source and map as `ExpRNNCell`.

    Args:
        input_size: Width I of x_t.
        hidden_size: n, complex units.
        init: Fills the real part of A; its imaginary part starts at zero.
        learn_initial_state: Train h_0 instead of keeping it zero.
        map_class: `Exponential` or `Cayley`.
        trivialized: Keep a movable base point.
        linear: No f and no b; see `UnitaryCell`.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        init: SkewInit = henaff_,
        learn_initial_state: bool = False,
        map_class: type[SkewMap] = Exponential,
        trivialized: bool = False,
        linear: bool = False,
    ) -> None:
        recurrent = map_class(hidden_size, init, trivialized, unitary=True)
        kaiming_ = nn.init.kaiming_normal_
        super().__init__(input_size, hidden_size, recurrent, kaiming_, learn_initial_state, linear=linear)
