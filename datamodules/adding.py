"""The adding problem (Hochreiter and Schmidhuber 1997)."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from datamodules.base import Batch, unit_interval
from datamodules.errors import require
from datamodules.lengths import LengthDataModule
from datamodules.task import Task


def value_first(x: Tensor) -> Tensor:
    """A sequence (T, 2) of `Adding` as (u_t, m_t), whichever stands first: the marks are only zeros and ones."""
    first, second = ((x == 0) | (x == 1)).all(0).tolist()
    return x.flip(-1) if first and not second else x


class Adding(LengthDataModule):
    """Add the two marked numbers of a long sequence: y = sum of u_t where m_t = 1.

    Inputs (B, T, 2): channel 0 is u_t ~ U(0, 1), channel 1 the mark m_t, 1 at exactly one step of each half. The
    squared error counts at the last step; always answering 1 costs Var(u + u') = 1/6.

    Args:
        length: T, the number of steps.
        protocol: Where the halves meet. ``scornn`` (scoRNN, scuRNN code): [0, h) and [h, T) with h = (T - 1) // 2;
            ``urnn``: h = T // 2.
        mark_first: Channel 0 is m_t and channel 1 u_t, as in Orhan and Pitkow's code (2020): a start that sends channel
            0 to the source of a chain sends the marks there.
        **kwargs: Other lengths, a curriculum, sizes, seed and workers: `LengthDataModule`.
    """

    bounds = (0.0, 1.0)
    task_options = ("length", "protocol", "mark_first")

    def __init__(
        self,
        length: int = 200,
        protocol: Literal["scornn", "urnn"] = "scornn",
        mark_first: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        require(protocol in ("scornn", "urnn"), "data.init_args.protocol", protocol, "scornn or urnn")
        self.length, self.protocol = length, protocol
        self.mark_first = mark_first
        self.value, self.mark = (1, 0) if mark_first else (0, 1)
        self.settle()

    def check_length(self, length: int, key: str) -> None:
        shortest = 3 if self.protocol == "scornn" else 2
        require(length >= shortest, key, length, f"at least {shortest}, one step for each mark")

    def task_at(self, length: int) -> Task:
        return Task(
            name="adding",
            inputs="values",
            input_size=2,
            targets="value",
            target_size=1,
            length=length,
            scored="last",
            chance=1 / 6,
            metric="within_0.04",
            higher_is_better=True,
        )

    def words_at(self, length: int) -> int:
        return length + 2

    def changeable(self, inputs: Tensor) -> Tensor:
        """The numbers that are not marked: neither the marks nor what is added."""
        free = torch.zeros_like(inputs, dtype=torch.bool)
        free[..., self.value] = inputs[..., self.mark] == 0
        return free

    def make_at(self, words: NDArray[np.uint64], length: int) -> Batch:
        half = (length - 1) // 2 if self.protocol == "scornn" else length // 2
        uniform = unit_interval(words)
        rows = np.arange(len(words))
        inputs = np.zeros((len(words), length, 2), dtype=np.float32)
        inputs[:, :, self.value] = uniform[:, 2:]
        first = (uniform[:, 0] * half).astype(np.int64)
        second = half + (uniform[:, 1] * (length - half)).astype(np.int64)
        inputs[rows, first, self.mark] = inputs[rows, second, self.mark] = 1
        targets = inputs[rows, first, self.value] + inputs[rows, second, self.value]
        return torch.from_numpy(inputs), torch.from_numpy(targets[:, None])
