"""The denoising task (Jing et al. 2019; Chandar et al. 2019)."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from datamodules.base import Batch, GeneratedDataModule
from datamodules.errors import require
from datamodules.task import Task


class Denoise(GeneratedDataModule):
    """Recall K symbols scattered among blanks: K data symbols at random places of the first ``delay`` steps, then a
    marker and K blanks, during which they are due in their order.

    Blank is 0, data symbols are 1..alphabet, the marker is alphabet + 1. The mask holds the last K steps, and the loss
    averages over them only: a guess costs ln(alphabet). This is the NRU paper's task; the GORU code draws the places
    with replacement, has a longer alphabet and averages over all steps.

    Args:
        delay: Steps among which the symbols are scattered, at least ``symbols``; a sequence has delay + K + 1.
        symbols: K, how many symbols to recall.
        alphabet: How many different data symbols there are.
        **kwargs: Sizes, seed and workers of `GeneratedDataModule`.
    """

    task_options = ("delay", "symbols", "alphabet")

    def __init__(self, delay: int = 100, symbols: int = 10, alphabet: int = 8, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        require(symbols >= 1, "data.init_args.symbols", symbols, "a whole number of at least 1")
        require(delay >= symbols, "data.init_args.delay", delay, f"at least {symbols}, the symbols scattered in it")
        require(alphabet >= 2, "data.init_args.alphabet", alphabet, "at least 2, or there is nothing to remember")
        self.delay, self.symbols, self.alphabet = delay, symbols, alphabet
        self.words_per_sample = symbols + delay
        self.task = Task(
            name="denoise",
            inputs="symbols",
            input_size=alphabet + 2,
            targets="label_per_step",
            target_size=alphabet + 1,
            length=delay + symbols + 1,
            scored="mask",
            recall=symbols,
            chance=math.log(alphabet),
            metric="accuracy",
            higher_is_better=True,
        )

    def changeable(self, inputs: Tensor) -> Tensor:
        """The blanks behind the marker: one among the symbols would, if changed, be a symbol to recall."""
        free = torch.zeros_like(inputs, dtype=torch.bool)
        free[:, self.delay + 1 :] = True
        return free

    def make(self, words: NDArray[np.uint64]) -> Batch:
        data = (words[:, : self.symbols] % np.uint64(self.alphabet)).astype(np.int64) + 1
        places = np.sort(np.argsort(words[:, self.symbols :], axis=1)[:, : self.symbols], axis=1)
        inputs = np.zeros((len(words), self.delay + self.symbols + 1), dtype=np.int64)
        targets = np.zeros_like(inputs)
        np.put_along_axis(inputs, places, data, axis=1)
        inputs[:, self.delay] = self.alphabet + 1
        targets[:, -self.symbols :] = data
        mask = np.zeros(inputs.shape, dtype=bool)
        mask[:, -self.symbols :] = True
        return torch.from_numpy(inputs), torch.from_numpy(targets), torch.from_numpy(mask)
