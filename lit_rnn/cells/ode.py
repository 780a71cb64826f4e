"""Cells that are Euler steps of a damped differential equation."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from datamodules.errors import require
from lit_rnn.cells.base import Cell, State
from lit_rnn.parametrizations.shifted import Antisymmetric, Shifted


class _EulerCell(Cell):
    """h_t = h_{t-1} + eps h'(h_{t-1}, x_t); U x_t + b is the drive. U starts Xavier normal, b at zero."""

    def __init__(self, input_size: int, hidden_size: int, step_size: float, learn_initial_state: bool) -> None:
        super().__init__(input_size, hidden_size, learn_initial_state=learn_initial_state)
        require(step_size > 0, "model.init_args.step_size", step_size, "positive")
        self.step_size = step_size
        self.input = nn.Linear(input_size, hidden_size)
        nn.init.xavier_normal_(self.input.weight)
        nn.init.zeros_(self.input.bias)

    def extra_repr(self) -> str:
        return f"eps = {self.step_size:g}"


class LipschitzRNNCell(_EulerCell):
    """h_t = h_{t-1} + eps (A h_{t-1} + tanh(W h_{t-1} + U x_t + b)).

    A and W are each beta (M - M^T) + (1 - beta)(M + M^T) - gamma I with an M of their own: 2n^2 + n(I + 1)
    parameters. States of h' = A h + tanh(W h + U x + b) approach one another where lambda_max((A + A^T) / 2) < -|W|_2.
    A step costs one (B, n) x (n, 2n) product.

    Source: Erichson et al. 2021, "Lipschitz Recurrent Neural Networks"; conventions of the released `models.py`: its
    beta = 1 is antisymmetric, one beta and one gamma for both, M ~ N(0, (init_std / n)^2). It multiplies rows, h A,
    which is this with M transposed.

    Args:
        input_size: Width I of x_t.
        hidden_size: n.
        step_size: eps.
        beta: In [0, 1].
        gamma: 0 or positive.
        init_std: n times the standard deviation of M's entries.
        learn_initial_state: Train h_0 instead of keeping it zero.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        step_size: float = 0.03,
        beta: float = 0.75,
        gamma: float = 0.001,
        init_std: float = 1.0,
        learn_initial_state: bool = False,
    ) -> None:
        super().__init__(input_size, hidden_size, step_size, learn_initial_state)
        maps = {name: Shifted(hidden_size, beta, gamma, init_std / hidden_size) for name in ("A", "W")}
        self.recurrent = nn.ModuleDict(maps)

    def weights(self) -> Tensor:
        return torch.cat((self.recurrent["A"](), self.recurrent["W"]()))

    def step(self, u: Tensor, state: State, w: Tensor) -> tuple[Tensor, State]:
        (h,) = state
        linear, inner = (h @ w.mT).chunk(2, dim=-1)
        h = h + self.step_size * (linear + torch.tanh(inner + u))
        return h, (h,)

    def recurrent_matrices(self) -> dict[str, Tensor]:
        """A and W of h', as they are: an eigenvalue a of A alone is 1 + eps a in the map of one step."""
        return {name: module() for name, module in self.recurrent.items()}


class AntisymmetricRNNCell(_EulerCell):
    """h_t = h_{t-1} + eps tanh((M - M^T - gamma I) h_{t-1} + V x_t + b), without gate.

    n(n-1)/2 + n(I + 1) parameters. Every eigenvalue of W = M - M^T - gamma I has real part -gamma: near the border of
    stability, as a long memory needs. A step costs one (B, n) x (n, n) product.

    Source: Chang et al. 2019, "AntisymmetricRNN: A Dynamical System View on Recurrent Neural Networks".

    Args:
        input_size: Width I of x_t.
        hidden_size: n.
        step_size: eps; the paper tries 0.01, 0.1, 1.
        gamma: Damping, 0 or positive: it makes up for Euler's method, which grows what only turns.
        init_std: n times the standard deviation of M's entries.
        learn_initial_state: Train h_0 instead of keeping it zero.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        step_size: float = 0.1,
        gamma: float = 0.01,
        init_std: float = 1.0,
        learn_initial_state: bool = False,
    ) -> None:
        super().__init__(input_size, hidden_size, step_size, learn_initial_state)
        self.recurrent = Antisymmetric(hidden_size, gamma, init_std / hidden_size)

    def weights(self) -> Tensor:
        return self.recurrent()

    def step(self, u: Tensor, state: State, w: Tensor) -> tuple[Tensor, State]:
        (h,) = state
        h = h + self.step_size * torch.tanh(torch.addmm(u, h, w.mT))
        return h, (h,)

    def recurrent_matrices(self) -> dict[str, Tensor]:
        return {"recurrent": self.weights()}
