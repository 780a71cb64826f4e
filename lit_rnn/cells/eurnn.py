"""EURNN and GORU: networks on layers of 2x2 rotations."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from lit_rnn.activations import ModReLU
from lit_rnn.cells.base import Cell, State
from lit_rnn.cells.orthogonal import OrthogonalCell, UnitaryCell
from lit_rnn.init import small_
from lit_rnn.parametrizations import Rotations
from lit_rnn.parametrizations.rotations import RotationLayout


class EURNNCell(UnitaryCell):
    """h_t = modReLU(W h_{t-1} + V x_t; b) with complex h, W layers of 2x2 rotations; y_t = Re h_t.

    W reaches a subset of U(n), all of it at capacity n; see `Rotations` for layouts, sizes and counts.
    h_0 is zero, V starts at U(-0.01, 0.01), b at zero. The released modReLU is z relu(r + b) / r with r = |z| + 0.01,
    the same at b = 0; here r = sqrt(|z|^2 + 1e-5) in all networks (`lit_rnn.activations.complex_modrelu`).

    Source: Jing et al. 2017, "Tunable Efficient Unitary Neural Networks (EUNN) and their application to RNNs".

    Args:
        input_size: Width I of x_t.
        hidden_size: n, complex units: even, a power of two for ``fft``.
        capacity: Layers of ``tunable``: even, 2 to n.
        layout: ``tunable`` or ``fft``.
        learn_initial_state: Train h_0 instead of keeping it zero.
        linear: No f and no b; see `UnitaryCell`.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        capacity: int = 2,
        layout: RotationLayout = "tunable",
        learn_initial_state: bool = False,
        linear: bool = False,
    ) -> None:
        recurrent = Rotations(hidden_size, capacity, layout, unitary=True)
        super().__init__(
            input_size, hidden_size, recurrent, small_, learn_initial_state, real_output=True, linear=linear
        )
        if isinstance(self.activation, ModReLU):
            nn.init.zeros_(self.activation.bias)


class RealEURNNCell(OrthogonalCell):
    """`EURNNCell` with real h and W: rotation angles only, inside SO(n), det 1.

    The released sign(z) relu(|z| + 0.01 + b) with b = 0 is this with b = 0.01.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        capacity: int = 2,
        layout: RotationLayout = "tunable",
        learn_initial_state: bool = False,
        linear: bool = False,
    ) -> None:
        recurrent = Rotations(hidden_size, capacity, layout)
        super().__init__(input_size, hidden_size, recurrent, learn_initial_state, linear=linear)
        small_(self.input.weight)
        if isinstance(self.activation, ModReLU):
            nn.init.zeros_(self.activation.bias)


class GORUCell(Cell):
    """r, g = sigma(W_{r,g} h_{t-1} + U_{r,g} x_t + b_{r,g}); c = modReLU(r (Q h_{t-1}) + U_c x_t; b_c);
    h_t = g h_{t-1} + (1 - g) c,  Q layers of real 2x2 rotations inside SO(n).

    2n^2 + 3nI + 3n numbers beside Q's. A step costs one (B, n) x (n, 3n) product. Dense maps start at U(-0.01, 0.01),
    b_r = 2, b_c = 0.01, b_g = 0. The released code adds 0.001 inside modReLU's relu, which is b_c = 0.011 here, and
    leaves b_g to TensorFlow: Glorot uniform of a vector, U(-sqrt(3/n), sqrt(3/n)).

    Source: Jing et al. 2019, "Gated Orthogonal Recurrent Units: On Learning to Forget".

    Args:
        input_size: Width I of x_t.
        hidden_size: n: even, a power of two for ``fft``.
        capacity: Layers of ``tunable``.
        layout: ``fft`` (the paper's) or ``tunable``.
        learn_initial_state: Train h_0 instead of keeping it zero.
        released_biases: Start b_c and b_g as the released code does.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        capacity: int = 2,
        layout: RotationLayout = "fft",
        learn_initial_state: bool = False,
        released_biases: bool = False,
    ) -> None:
        super().__init__(input_size, hidden_size, learn_initial_state=learn_initial_state)
        self.recurrent = Rotations(hidden_size, capacity, layout)
        self.gates = nn.Linear(hidden_size, 2 * hidden_size)
        self.input = nn.Linear(input_size, 3 * hidden_size, bias=False)
        self.activation = ModReLU(hidden_size)
        small_(self.gates.weight)
        small_(self.input.weight)
        nn.init.constant_(self.gates.bias[:hidden_size], 2.0)
        nn.init.zeros_(self.gates.bias[hidden_size:])
        nn.init.constant_(self.activation.bias, 0.011 if released_biases else 0.01)
        if released_biases:
            nn.init.uniform_(self.gates.bias[hidden_size:], -((3 / hidden_size) ** 0.5), (3 / hidden_size) ** 0.5)

    def weights(self) -> tuple[Tensor, Tensor]:
        Q = self.recurrent()
        return torch.cat((self.gates.weight.to(Q.dtype), Q)), self.gates.bias

    def drive(self, x: Tensor, w: Any) -> Tensor:
        u = self.input(x)
        gates = 2 * self.hidden_size
        return torch.cat((u[..., :gates] + w[1], u[..., gates:]), dim=-1)

    def step(self, u: Tensor, state: State, w: tuple[Tensor, Tensor]) -> tuple[Tensor, State]:
        (h,) = state
        u_r, u_g, u_c = u.chunk(3, dim=-1)
        W_r, W_g, Q = (h @ w[0].mT).chunk(3, dim=-1)
        r, g = torch.sigmoid(u_r + W_r), torch.sigmoid(u_g + W_g)
        c = self.activation(r * Q + u_c)
        h = c + g * (h - c)
        return h, (h,)

    def input_matrices(self) -> list[Tensor]:
        return list(self.input.weight.split(self.hidden_size))

    def recurrent_matrices(self) -> dict[str, Tensor]:
        reset, update = self.gates.weight.chunk(2)
        return {"reset": reset, "update": update, "candidate": self.recurrent()}
