"""The plain RNN."""

from __future__ import annotations

import functools
from typing import Any, Literal

import torch
from torch import Tensor

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
        orthogonal_penalty: c; c |W^T W - I|_F^2 is added to the training loss (Vorontsov et al. 2017).
        **kwargs: Options of `SequenceModel`.
    """

    def __init__(
        self,
        task: dict[str, Any] | Task,
        hidden_size: int,
        nonlinearity: Nonlinearity = "tanh",
        init: Literal["orthogonal", "identity"] = "orthogonal",
        lam: float = 1.0,
        orthogonal_penalty: float = 0.0,
        **kwargs: Any,
    ) -> None:
        require(orthogonal_penalty >= 0, "model.init_args.orthogonal_penalty", orthogonal_penalty, "0 or positive")
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

    def penalty(self) -> Tensor | None:
        strength = self.options.orthogonal_penalty
        if not strength:
            return None
        matrices = [matrix for cell in self.cell_list() for matrix in cell.recurrent_matrices().values()]
        return strength * sum(((W.mT @ W).sub(torch.eye(len(W), device=W.device)) ** 2).sum() for W in matrices)
