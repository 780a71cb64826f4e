"""The gated baselines."""

from __future__ import annotations

from typing import Any

from datamodules import Task
from lit_rnn.cells import Cell, GRUCell, LSTMCell
from lit_rnn.models.base import SequenceModel


class LSTM(SequenceModel):
    """Long short-term memory without peepholes (Hochreiter and Schmidhuber 1997; Gers et al. 2000).

    Args:
        task: The Task, or its dict.
        hidden_size: n.
        forget_bias: Start of the forget gate's bias.
        **kwargs: Options of `SequenceModel`.
    """

    def __init__(self, task: dict[str, Any] | Task, hidden_size: int, forget_bias: float = 1.0, **kwargs: Any) -> None:
        super().__init__(task, hidden_size, **kwargs)

    def build_cell(self, input_size: int) -> Cell:
        options = self.options
        return LSTMCell(input_size, options.hidden_size, options.forget_bias, options.learn_initial_state)


class GRU(SequenceModel):
    """Gated recurrent unit in torch's form (Cho et al. 2014).

    Args:
        task: The Task, or its dict.
        hidden_size: n.
        **kwargs: Options of `SequenceModel`.
    """

    def __init__(self, task: dict[str, Any] | Task, hidden_size: int, **kwargs: Any) -> None:
        super().__init__(task, hidden_size, **kwargs)

    def build_cell(self, input_size: int) -> Cell:
        return GRUCell(input_size, self.options.hidden_size, self.options.learn_initial_state)
