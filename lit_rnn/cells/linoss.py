"""LinOSS: linear oscillatory state-space models."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from lit_rnn.cells.linear import Constant, StateSpaceCell, dense

Discretization = Literal["IM", "IMEX"]


class LinOSSCell(StateSpaceCell):
    """z_t = z_{t-1} + dt (B x_t - A s);  s_t = s_{t-1} + dt z_t;  y_t = G(Re(C s_t) + D x_t);
    ``IM``: s in the first equation is s_t, implicit Euler;  ``IMEX``: it is s_{t-1}.

    Forced harmonic oscillators s'' = B x - A s, uncoupled, with A = relu(a) >= 0 and dt = sigma(b), unit by unit; B is
    complex, and so are s and z. Both are linear in (z, s). The eigenvalues of a step have modulus
    1 / sqrt(1 + dt^2 A) with ``IM``, which forgets, and 1 with ``IMEX``, which keeps volume, as long as dt^2 A <= 4.

    State (z, s), each [Re | Im] (B, 2N). 2N + 2N(I + n) + nI numbers, and 2n(n + 1) of G, which is a gated linear unit
    (`StateSpaceCell`); a step costs a (B, 2N) x (2N, n) product for y, and O(N). a and b start at U(0, 1), B at
    U(-1/sqrt(I), 1/sqrt(I)), C at U(-1/sqrt(N), 1/sqrt(N)), D at N(0, 1 / I), G as torch's linear maps.

    Source: Rusch and Rus 2025, "Oscillatory State-Space Models", equations 3 to 6; released `models/LinOSS.py`, whose D
    is a vector from N(0, 1).

    Args:
        input_size: Width I of x_t.
        hidden_size: n, width of y_t.
        state_size: N, complex units; None takes n.
        discretization: ``IM`` or ``IMEX``.
        glu: Whether G is there; without it y is linear in x.
        learn_initial_state: Train (z_0, s_0) instead of keeping them zero.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        state_size: int | None = None,
        discretization: Discretization = "IM",
        glu: bool = True,
        learn_initial_state: bool = False,
    ) -> None:
        super().__init__(input_size, hidden_size, state_size, 2, glu, learn_initial_state)
        self.discretization = discretization
        self.a = nn.Parameter(torch.rand(self.units))
        self.b = nn.Parameter(torch.rand(self.units))
        for linear, fan_in in ((self.B, input_size), (self.C, self.units)):
            nn.init.uniform_(linear.weight, -(fan_in**-0.5), fan_in**-0.5)
        nn.init.normal_(self.D.weight, std=input_size**-0.5)

    def _blocks(self) -> tuple[Tensor, Tensor]:
        """The map of (z, s), (2, 2, N), and what of B x enters z and s, (2, N)."""
        A, dt = torch.relu(self.a), torch.sigmoid(self.b)
        one = torch.ones_like(dt)
        if self.discretization == "IMEX":
            return torch.stack((one, -dt * A, dt, 1 - dt**2 * A)).unflatten(0, (2, 2)), torch.stack((dt, dt**2))
        shrunk = 1 / (1 + dt**2 * A)  # 1 - dt^2 A shrunk = shrunk
        M = torch.stack((shrunk, -dt * A * shrunk, dt * shrunk, shrunk)).unflatten(0, (2, 2))
        return M, torch.stack((dt * shrunk, dt**2 * shrunk))

    def weights(self) -> Constant:
        M, into = self._blocks()
        return Constant(None, M.repeat(1, 1, 2), into.repeat(1, 2))  # real and imaginary parts alike

    def terms(self, u: Tensor, w: Constant) -> tuple[Tensor, Tensor]:
        return w.A, w.into * u[..., None, : 2 * self.units]

    def seen(self, h: Tensor) -> Tensor:
        return h[..., 1, :]

    def into_state(self) -> Tensor:
        """What x_t adds to (z, s), complex."""
        into = self._blocks()[1]
        return (into[..., None] * torch.complex(*self.B.weight.chunk(2))).flatten(0, 1)

    def recurrent_matrices(self) -> dict[str, Tensor]:
        """The map of one step on (z, s), (2N, 2N), the same for real and imaginary parts."""
        return {"recurrent": dense(self._blocks()[0])}

    def recurrent_parameters(self) -> list[nn.Parameter]:
        return [self.a, self.b]

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, {self.discretization}"
