"""The robust designs of the literature: Euler steps of damped differential equations."""

from __future__ import annotations

from typing import Any

from datamodules.task import Task
from lit_rnn.cells import AntisymmetricRNNCell, Cell, LipschitzRNNCell
from lit_rnn.models.base import SequenceModel


class LipschitzRNN(SequenceModel):
    """h' = A h + tanh(W h + U x + b), A and W between antisymmetric and symmetric (Erichson et al. 2021).

    2n^2 + n(I + 1) + O(n + 1) parameters: 34,314 on pixel MNIST with n = 128.

    Args:
        task: The Task, or its dict.
        hidden_size: n.
        step_size: eps of the Euler step.
        beta: 1 makes A and W antisymmetric, 0 symmetric.
        gamma: Damping of both.
        init_std: n times the standard deviation that they start with; 0.1 in the released driver, which starts U and b
            as torch does (``input_init: torch``).
        **kwargs: Options of `SequenceModel`.
    """

    training_options = frozenset(("init_std",))

    def __init__(
        self,
        task: dict[str, Any] | Task,
        hidden_size: int,
        step_size: float = 0.03,
        beta: float = 0.75,
        gamma: float = 0.001,
        init_std: float = 1.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(task, hidden_size, **kwargs)

    def build_cell(self, input_size: int) -> Cell:
        o = self.options
        return LipschitzRNNCell(
            input_size, o.hidden_size, o.step_size, o.beta, o.gamma, o.init_std, o.learn_initial_state
        )


class AntisymmetricRNN(SequenceModel):
    """h' = tanh((M - M^T - gamma I) h + V x + b) (Chang et al. 2019).

    n(n-1)/2 + n(I + 1) + O(n + 1) parameters: 9,674 on pixel MNIST with n = 128.

    Args:
        task: The Task, or its dict.
        hidden_size: n.
        step_size: eps of the Euler step.
        gamma: Damping.
        init_std: n times the standard deviation that M starts with.
        **kwargs: Options of `SequenceModel`.
    """

    training_options = frozenset(("init_std",))

    def __init__(
        self,
        task: dict[str, Any] | Task,
        hidden_size: int,
        step_size: float = 0.1,
        gamma: float = 0.01,
        init_std: float = 1.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(task, hidden_size, **kwargs)

    def build_cell(self, input_size: int) -> Cell:
        o = self.options
        return AntisymmetricRNNCell(input_size, o.hidden_size, o.step_size, o.gamma, o.init_std, o.learn_initial_state)
