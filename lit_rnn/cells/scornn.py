"""scoRNN and scuRNN: scaled Cayley transforms."""

from __future__ import annotations

from torch import nn

from lit_rnn.activations import ModReLU
from lit_rnn.cells.orthogonal import OrthogonalCell, UnitaryCell
from lit_rnn.init import SkewInit, cayley_
from lit_rnn.parametrizations import ScaledCayley, UnitaryScaledCayley


class ScoRNNCell(OrthogonalCell):
    """h_t = modReLU(W h_{t-1} + V x_t; b),  W = (I + A)^-1 (I - A) D,  A = -A^T,  D fixed signs.

    W reaches almost all of the component of O(n) with det (-1)^rho, n(n-1)/2 free numbers. The map is one solve,
    O(n^3), per pass. V starts at U(-0.01, 0.01), b at zero.

    Source: Helfrich, Willmott and Ye 2018, "Orthogonal Recurrent Neural Networks with Scaled Cayley Transform".

    Args:
        input_size: Width I of x_t.
        hidden_size: n, odd or even.
        negatives: rho, the entries of D that are -1; None takes n // 2. The released scripts take n/2 on copying and
            adding and n/10 on pixel MNIST.
        init: Fills A; see `lit_rnn.init`.
        released_order: The matrix of the released code, D Z^T acting on columns, instead of the paper's Z D.
        learn_initial_state: Train h_0 instead of keeping it zero.
        linear: No f and no b; see `OrthogonalCell`.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        negatives: int | None = None,
        init: SkewInit = cayley_,
        released_order: bool = False,
        learn_initial_state: bool = False,
        linear: bool = False,
    ) -> None:
        recurrent = ScaledCayley(hidden_size, init, negatives, released_order)
        super().__init__(input_size, hidden_size, recurrent, learn_initial_state, linear=linear)
        nn.init.uniform_(self.input.weight, -0.01, 0.01)
        if isinstance(self.activation, ModReLU):
            nn.init.zeros_(self.activation.bias)


class ScuRNNCell(UnitaryCell):
    """h_t = modReLU(W h_{t-1} + V x_t; b) with complex h, W = (I + A)^-1 (I - A) diag(e^{i theta}), A = -A^H.

    W reaches all of U(n); A has n^2 and theta n free numbers. h_0 is learned, from U(-0.01, 0.01); V is Glorot uniform.

    Source: Maduranga, Helfrich and Ye 2019, "Complex Unitary Recurrent Neural Networks using Scaled Cayley Transform".

    Args:
        input_size: Width I of x_t.
        hidden_size: n, complex units.
        init: Fills the real part of A.
        learn_initial_state: Keep h_0 zero if false.
        released_order: The matrix of the released code, D Z^T acting on columns, instead of the paper's Z D.
        linear: No f and no b; see `UnitaryCell`.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        init: SkewInit = cayley_,
        learn_initial_state: bool = True,
        released_order: bool = False,
        linear: bool = False,
    ) -> None:
        recurrent = UnitaryScaledCayley(hidden_size, init, released_order)
        super().__init__(input_size, hidden_size, recurrent, learn_initial_state=learn_initial_state, linear=linear)
