"""The plain RNN."""

from __future__ import annotations

import functools
from typing import Any, Literal

from datamodules import Task
from datamodules.errors import require
from lit_rnn.activations import Nonlinearity
from lit_rnn.cells import Cell, VanillaRNNCell
from lit_rnn.init import identity_, orthogonal_
from lit_rnn.models.base import SequenceModel

INITS = {"orthogonal": orthogonal_, "identity": identity_}


class VanillaRNN(SequenceModel):
    """h_t = f(W h_{t-1} + V x_t + b), W free after its named start.

    Args:
        task: The Task, or its dict.
        hidden_size: n.
        nonlinearity: f.
        init: Start of W: ``orthogonal`` (lam Q) or ``identity`` (lam I).
        lam: Scale of that start.
        **kwargs: Options of `SequenceModel`.
    """

    def __init__(
        self,
        task: dict[str, Any] | Task,
        hidden_size: int,
        nonlinearity: Nonlinearity = "tanh",
        init: Literal["orthogonal", "identity"] = "orthogonal",
        lam: float = 1.0,
        **kwargs: Any,
    ) -> None:
        require(init in INITS, "model.init_args.init", init, f"one of {', '.join(INITS)}")
        super().__init__(task, hidden_size, **kwargs)

    def build_cell(self, input_size: int) -> Cell:
        options = self.options
        return VanillaRNNCell(
            input_size,
            options.hidden_size,
            options.nonlinearity,
            functools.partial(INITS[options.init], lam=options.lam),
            options.learn_initial_state,
        )
