"""The adding problem (Hochreiter and Schmidhuber 1997)."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor

from datamodules.base import Batch
from datamodules.errors import require
from datamodules.on_device import OnDevice, uniform
from datamodules.task import Task


def value_first(x: Tensor) -> Tensor:
    """A sequence (T, 2) of `Adding` as (u_t, m_t), whichever stands first: the marks are only zeros and ones."""
    first, second = ((x == 0) | (x == 1)).all(0).tolist()
    return x.flip(-1) if first and not second else x


class Adding(OnDevice):
    """Add the two marked numbers of a long sequence: y = sum of u_t where m_t = 1.

    Inputs (B, T, 2): channel 0 is u_t ~ U(0, 1), channel 1 the mark m_t, 1 at exactly one step of each half. The
    squared error counts at the last step; always answering 1 costs Var(u + u') = 1/6.

    Args:
        length: T, the number of steps.
        protocol: Where the halves meet. ``scornn`` (scoRNN, scuRNN code): [0, h) and [h, T) with h = (T - 1) // 2;
            ``urnn``: h = T // 2.
        mark_first: Channel 0 is m_t and channel 1 u_t, as in Orhan and Pitkow's code (2020): a start that sends channel
            0 to the source of a chain sends the marks there.
        **kwargs: Other lengths, a curriculum, sizes, seed, workers and device: `OnDevice`.
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

    def made(self, words: Tensor, length: int) -> Batch:
        half = (length - 1) // 2 if self.protocol == "scornn" else length // 2
        drawn = uniform(words)
        values = drawn[:, 2:].float()
        first = (drawn[:, :1] * half).long()
        second = half + (drawn[:, 1:2] * (length - half)).long()
        marks = torch.zeros_like(values).scatter_(1, first, 1.0).scatter_(1, second, 1.0)
        channels = (marks, values) if self.mark_first else (values, marks)
        return torch.stack(channels, dim=-1), values.gather(1, first) + values.gather(1, second)
