"""The recurrences that people choose today, under the same protocol."""

from __future__ import annotations

from typing import Any

from datamodules.errors import require
from datamodules.task import Task
from lit_rnn.cells import Cell, CoRNNCell, LEMCell, SLSTMCell, UnICORNNCell
from lit_rnn.models.base import SequenceModel


class CoRNN(SequenceModel):
    """Coupled oscillators: y'' = tanh(W y + W' y' + V x + b) - gamma y - epsilon y' (Rusch and Mishra 2021).

    2n^2 + n(I + 1) + O(n + 1) parameters: 134,154 on pixel MNIST with n = 256.

    Args:
        task: The Task, or its dict.
        hidden_size: n.
        step_size: dt of the Euler step.
        gamma: Squared frequency.
        epsilon: Damping.
        **kwargs: Options of `SequenceModel`.
    """

    def __init__(
        self,
        task: dict[str, Any] | Task,
        hidden_size: int,
        step_size: float = 0.042,
        gamma: float = 2.7,
        epsilon: float = 4.7,
        **kwargs: Any,
    ) -> None:
        super().__init__(task, hidden_size, **kwargs)

    def build_cell(self, input_size: int) -> Cell:
        o = self.options
        return CoRNNCell(input_size, o.hidden_size, o.step_size, o.gamma, o.epsilon, o.learn_initial_state)


class UnICORNN(SequenceModel):
    """Undamped, independent oscillators in several layers (Rusch and Mishra 2021).

    n(I + 3) numbers in the first layer and n(n + 3) in each other: 136,202 parameters on pixel MNIST with three layers
    of 256, the decoder's among them.

    Args:
        task: The Task, or its dict.
        hidden_size: n.
        step_size: dt, the longest step.
        alpha: Squared frequency.
        **kwargs: Options of `SequenceModel`.
    """

    def __init__(
        self,
        task: dict[str, Any] | Task,
        hidden_size: int,
        step_size: float = 0.19,
        alpha: float = 30.65,
        **kwargs: Any,
    ) -> None:
        super().__init__(task, hidden_size, **kwargs)

    def build_cell(self, input_size: int) -> Cell:
        o = self.options
        return UnICORNNCell(input_size, o.hidden_size, o.step_size, o.alpha, o.learn_initial_state)


class LEM(SequenceModel):
    """Long expressive memory: two equations with learned time steps (Rusch et al. 2022).

    4n(n + I + 1) + O(n + 1) parameters: 67,850 on pixel MNIST with n = 128, where the paper's 68K counts each bias
    twice.

    Args:
        task: The Task, or its dict.
        hidden_size: n.
        step_size: dt, the largest step.
        **kwargs: Options of `SequenceModel`.
    """

    def __init__(self, task: dict[str, Any] | Task, hidden_size: int, step_size: float = 1.0, **kwargs: Any) -> None:
        super().__init__(task, hidden_size, **kwargs)

    def build_cell(self, input_size: int) -> Cell:
        o = self.options
        return LEMCell(input_size, o.hidden_size, o.step_size, o.learn_initial_state)


class SLSTM(SequenceModel):
    """sLSTM: an LSTM with an exponential input gate, normalised and stabilised (Beck et al. 2024).

    The cell alone, with one head: neither the convolution before it nor the projections behind it of an xLSTM block.

    Args:
        task: The Task, or its dict.
        hidden_size: n.
        **kwargs: Options of `SequenceModel`, without learn_initial_state: the state that it starts from is empty.
    """

    def __init__(self, task: dict[str, Any] | Task, hidden_size: int, **kwargs: Any) -> None:
        super().__init__(task, hidden_size, **kwargs)

    def build_cell(self, input_size: int) -> Cell:
        o = self.options
        accepted = "false: SLSTM starts from a memory that is empty, n_0 = 0"
        require(not o.learn_initial_state, "model.init_args.learn_initial_state", o.learn_initial_state, accepted)
        return SLSTMCell(input_size, o.hidden_size)
