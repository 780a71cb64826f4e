"""nnRNN: the Schur form, normal and non-normal parts told apart."""

from __future__ import annotations

from lit_rnn.cells.orthogonal import OrthogonalCell
from lit_rnn.init import SkewInit, henaff_
from lit_rnn.parametrizations import SchurForm
from lit_rnn.parametrizations.schur import UpperEntries


class NnRNNCell(OrthogonalCell):
    """h_t = modReLU(W h_{t-1} + V x_t; b),  W = P (Theta + T) P^T.

    W is free, in a set of dimension n^2 - n or (``released``) any real matrix, and starts in SO(n); see `SchurForm`. It
    is computed once per pass, O(n^3).

    Source: Kerg et al. 2019, "Non-normal Recurrent Neural Network (nnRNN)".

    Args:
        input_size: Width I of x_t.
        hidden_size: n, even.
        init: Fills the generator of P; see `lit_rnn.init`.
        learn_initial_state: Train h_0 instead of keeping it zero.
        upper: The entries of T: ``outside_blocks`` of Theta, or ``released``, with one inside each.
        linear: No f and no b; see `OrthogonalCell`.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        init: SkewInit = henaff_,
        learn_initial_state: bool = False,
        upper: UpperEntries = "outside_blocks",
        linear: bool = False,
    ) -> None:
        recurrent = SchurForm(hidden_size, init, upper)
        super().__init__(input_size, hidden_size, recurrent, learn_initial_state, linear=linear)
