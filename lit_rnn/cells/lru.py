"""LRU: the linear recurrent unit."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from datamodules.errors import require
from lit_rnn.cells.linear import Constant, StateSpaceCell, dense


class LRUCell(StateSpaceCell):
    """h_t = lambda h_{t-1} + gamma B x_t with complex h;  y_t = G(Re(C h_t) + D x_t);
    lambda = exp(-exp(nu) + i exp(theta)), unit by unit.

    |lambda| < 1 whatever nu is. State (Re h, Im h). 3N + 2N(I + n) + nI numbers, and 2n(n + 1) of G, which is a gated
    linear unit (`StateSpaceCell`); a step costs a (B, 2N) x (2N, n) product for y, and O(N).

    lambda starts uniform on the ring between r_min and r_max, its phase at U(0, max_phase); gamma, trained as its
    logarithm, at sqrt(1 - |lambda|^2); B at N(0, 1 / (2I)), C at N(0, 1 / N), real and imaginary parts each, D at
    N(0, 1 / I); G's matrix at N(0, 1 / n), its biases at zero.

    Source: Orvieto et al. 2023, "Resurrecting Recurrent Neural Networks for Long Sequences", section 3 and appendix A;
    starts as in Zucchet's `minimal-LRU`, whose D is a vector from N(0, 1).

    Args:
        input_size: Width I of x_t.
        hidden_size: n, width of y_t.
        state_size: N, complex units; None takes n.
        r_min: Smallest |lambda| to start with, from 0.
        r_max: Largest, up to 1.
        max_phase: Largest phase to start with.
        glu: Whether G is there; without it y is linear in x.
        learn_initial_state: Train h_0 instead of keeping it zero.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        state_size: int | None = None,
        r_min: float = 0.0,
        r_max: float = 1.0,
        max_phase: float = 6.28,
        glu: bool = True,
        learn_initial_state: bool = False,
    ) -> None:
        require(0 <= r_min < 1, "model.init_args.r_min", r_min, "from 0 to below 1")
        require(r_min < r_max <= 1, "model.init_args.r_max", r_max, "above model.init_args.r_min and at most 1")
        require(0 < max_phase < math.inf, "model.init_args.max_phase", max_phase, "positive")
        super().__init__(input_size, hidden_size, state_size, 1, glu, learn_initial_state)
        N, almost = self.units, 1e-6  # u is neither 0 nor 1, whose logarithms of logarithms are no numbers
        squared = torch.empty(N).uniform_(almost, 1 - almost) * (r_max**2 - r_min**2) + r_min**2
        self.nu = nn.Parameter(torch.log(-0.5 * torch.log(squared)))
        self.theta = nn.Parameter(torch.log(max_phase * torch.empty(N).uniform_(almost, 1)))
        self.log_gamma = nn.Parameter(0.5 * torch.log1p(-squared))
        nn.init.normal_(self.B.weight, std=(2 * input_size) ** -0.5)
        nn.init.normal_(self.C.weight, std=N**-0.5)
        nn.init.normal_(self.D.weight, std=input_size**-0.5)
        if self.glu is not None:
            nn.init.normal_(self.glu.weight, std=hidden_size**-0.5)
            nn.init.zeros_(self.glu.bias)

    def _blocks(self) -> Tensor:
        """Multiplication by lambda, of real and imaginary parts: (2, 2, N)."""
        modulus, phase = torch.exp(-torch.exp(self.nu)), torch.exp(self.theta)
        real, imaginary = modulus * torch.cos(phase), modulus * torch.sin(phase)
        return torch.stack((real, -imaginary, imaginary, real)).unflatten(0, (2, 2))

    def weights(self) -> Constant:
        return Constant(None, self._blocks(), torch.exp(self.log_gamma).repeat(2, 1))

    def terms(self, u: Tensor, w: Constant) -> tuple[Tensor, Tensor]:
        return w.A, w.into * u[..., : 2 * self.units].unflatten(-1, (2, -1))

    def into_state(self) -> Tensor:
        """gamma B, as [Re | Im]."""
        return torch.exp(self.log_gamma).repeat(2)[:, None] * self.B.weight

    def recurrent_matrices(self) -> dict[str, Tensor]:
        """lambda as the real matrix (2N, 2N) of [Re | Im]."""
        return {"recurrent": dense(self._blocks())}

    def recurrent_parameters(self) -> list[nn.Parameter]:
        return [self.nu, self.theta]
