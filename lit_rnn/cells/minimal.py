"""minGRU and minLSTM: gates that see the input alone."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from lit_rnn.cells.linear import LinearCell


def positive(x: Tensor) -> Tensor:
    """g(x) = x + 1/2 for x >= 0, else sigma(x): positive, and continuous at 0."""
    return torch.where(x >= 0, x + 0.5, torch.sigmoid(x))


class _MinimalCell(LinearCell):
    """h_t = a_t h_{t-1} + v_t;  the drive is [a | v]. All numbers start as torch's linear maps do."""

    def __init__(self, input_size: int, hidden_size: int, maps: int, positive: bool, learn_initial_state: bool) -> None:
        super().__init__(input_size, hidden_size, learn_initial_state=learn_initial_state)
        self.input = nn.Linear(input_size, maps * hidden_size)
        self.positive = positive

    def candidate(self, z: Tensor) -> Tensor:
        return positive(z) if self.positive else z

    def weights(self) -> None:
        return None

    def terms(self, u: Tensor, w: None) -> tuple[Tensor, Tensor]:
        a, v = u.chunk(2, dim=-1)
        return a[..., None, None, :], v[..., None, :]

    def input_matrices(self) -> list[Tensor]:
        return list(self.input.weight.split(self.hidden_size))

    def recurrent_matrices(self) -> dict[str, Tensor]:
        """None: what multiplies the state depends on the input alone."""
        return {}

    def recurrent_parameters(self) -> list[nn.Parameter]:
        return []


class MinGRUCell(_MinimalCell):
    """z_t = sigma(V_z x_t + b_z);  h_t = (1 - z_t) h_{t-1} + z_t g(V_h x_t + b_h).

    A GRU without reset gate whose other gate does not see the state: linear in h, with a diagonal of numbers in (0, 1).
    2n(I + 1) numbers, rows in the order h, z; a step costs O(n). g(x) = x + 1/2 for x >= 0, else sigma(x), as in the
    paper's log-space form, or g(x) = x.

    Source: Feng et al. 2024, "Were RNNs All We Needed?", section 3.1 and appendix B; released `minRNNs.py`, whose
    expansion and projection behind the cell are not here.

    Args:
        input_size: Width I of x_t.
        hidden_size: n.
        positive: Candidates above zero, as released; else g(x) = x.
        learn_initial_state: Train h_0 instead of keeping it zero.
    """

    def __init__(
        self, input_size: int, hidden_size: int, positive: bool = True, learn_initial_state: bool = False
    ) -> None:
        super().__init__(input_size, hidden_size, 2, positive, learn_initial_state)

    def drive(self, x: Tensor, w: Any) -> Tensor:
        h, z = self.input(x).chunk(2, dim=-1)
        return torch.cat((torch.sigmoid(-z), torch.sigmoid(z) * self.candidate(h)), dim=-1)


class MinLSTMCell(_MinimalCell):
    """f_t, i_t = sigma(V_f x_t + b_f), sigma(V_i x_t + b_i);
    h_t = (f_t h_{t-1} + i_t g(V_h x_t + b_h)) / (f_t + i_t).

    An LSTM whose gates do not see the state, normalised so that both add up to 1, without output gate: linear in h,
    with a diagonal of numbers in (0, 1). 3n(I + 1) numbers, rows in the order h, f, i; a step costs O(n). g as in
    `MinGRUCell`.

    Source: Feng et al. 2024, "Were RNNs All We Needed?", section 3.2 and appendix B; released `minRNNs.py`.

    Args:
        input_size: Width I of x_t.
        hidden_size: n.
        positive: Candidates above zero, as released; else g(x) = x.
        forget_bias: Added to b_f at the start.
        learn_initial_state: Train h_0 instead of keeping it zero.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        positive: bool = True,
        forget_bias: float = 0.0,
        learn_initial_state: bool = False,
    ) -> None:
        super().__init__(input_size, hidden_size, 3, positive, learn_initial_state)
        with torch.no_grad():
            self.input.bias[hidden_size : 2 * hidden_size] += forget_bias

    def drive(self, x: Tensor, w: Any) -> Tensor:
        h, f, i = self.input(x).chunk(3, dim=-1)
        # f / (f + i) = sigma(log f - log i), whose other half is i's, without 0 / 0
        ratio = nn.functional.logsigmoid(f) - nn.functional.logsigmoid(i)
        return torch.cat((torch.sigmoid(ratio), torch.sigmoid(-ratio) * self.candidate(h)), dim=-1)
