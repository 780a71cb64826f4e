"""The statistical recurrent unit."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from datamodules.errors import require, whole
from lit_rnn.cells.base import Cell, State


class StatisticalRUCell(Cell):
    """r_t = ReLU(W_r mu_{t-1} + b_r);  phi_t = ReLU(V x_t + W_phi r_t + b_phi);
    mu_t^(a) = a mu_{t-1}^(a) + (1 - a) phi_t for every a;  y_t = ReLU(W_o mu_t + b_o).

    Moving averages of the same statistics at several time scales; no gates. Not Lei et al.'s simple recurrent unit.
    State mu, one block of ``statistics_size`` per a. A step costs products with (P, r), (r, p) and (P, n), P = p times
    the number of averages. Glorot uniform with gain sqrt(2), biases zero.

    Source: Oliva, Poczos and Schneider 2017, "The Statistical Recurrent Unit".

    Args:
        input_size: Width I of x_t.
        hidden_size: n, width of y_t.
        statistics_size: p, width of phi_t.
        summary_size: Width of r_t.
        alphas: The averages' decays a, each in [0, 1).
        learn_initial_state: Train mu_0 instead of keeping it zero.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        statistics_size: int,
        summary_size: int,
        alphas: Sequence[float] = (0.0, 0.5, 0.9, 0.99, 0.999),
        learn_initial_state: bool = False,
    ) -> None:
        for name, size in (("statistics_size", statistics_size), ("summary_size", summary_size)):
            whole(size, f"model.init_args.{name}", 1)
        require(
            len(alphas) > 0 and all(0 <= a < 1 for a in alphas), "model.init_args.alphas", alphas, "numbers in [0, 1)"
        )
        total = len(alphas) * statistics_size
        super().__init__(input_size, hidden_size, (total,), learn_initial_state)
        self.summary = nn.Linear(total, summary_size)
        self.input = nn.Linear(input_size, statistics_size)
        self.recurrent = nn.Linear(summary_size, statistics_size, bias=False)
        self.output = nn.Linear(total, hidden_size)
        self.alphas = tuple(alphas)
        gain, joint = 2**0.5, input_size + summary_size  # V and W_phi are one map of [x; r] in the paper
        for linear in (self.summary, self.output):
            nn.init.xavier_uniform_(linear.weight, gain)
        for linear in (self.input, self.recurrent):
            nn.init.uniform_(linear.weight, -(bound := gain * (6 / (joint + statistics_size)) ** 0.5), bound)
        for linear in (self.summary, self.input, self.output):
            nn.init.zeros_(linear.bias)

    def weights(self) -> tuple[Tensor, Tensor]:
        """W_phi, and the decays (A, 1) in its precision."""
        W = self.recurrent.weight  # numbers that a kernel is told, not a tensor that is copied to the GPU
        return W, torch.cat([W.new_full((1, 1), alpha) for alpha in self.alphas])

    def step(self, u: Tensor, state: State, w: tuple[Tensor, Tensor]) -> tuple[Tensor, State]:
        (mu,), (W, decays) = state, w
        r = torch.relu(self.summary(mu))
        phi = torch.relu(torch.addmm(u, r, W.mT))
        averages = mu.unflatten(-1, (len(decays), -1))
        mu = torch.lerp(phi[:, None].expand_as(averages), averages, decays.expand_as(averages)).flatten(-2)
        return torch.relu(self.output(mu)), (mu,)

    def recurrent_matrices(self) -> dict[str, Tensor]:
        """None is square; W_phi W_r is how a unit of phi depends on mu."""
        return {}

    def recurrent_parameters(self) -> list[nn.Parameter]:
        return [p for linear in (self.recurrent, self.summary) for p in linear.parameters() if p.dim() == 2]
