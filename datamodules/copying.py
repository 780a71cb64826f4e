"""The copying memory task (Hochreiter and Schmidhuber 1997; Arjovsky et al. 2016)."""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from datamodules.base import Batch, GeneratedDataModule
from datamodules.errors import require
from datamodules.task import Task


class CopyMemory(GeneratedDataModule):
    """Recall K symbols after a delay: x = (s_1 .. s_K, blanks, marker, blanks), y = (blanks, s_1 .. s_K).

    Blank is 0, data symbols are 1..alphabet, the marker is alphabet + 1; both sequences have delay + 2K steps and
    the loss averages over all of them. Answering blank, then any data symbol, costs K ln(alphabet) / (delay + 2K).

    Two layouts are published, one step apart:

    - ``common`` (uRNN, scoRNN, scuRNN, EURNN, GORU, nnRNN, NRU): delay - 1 blanks, marker, K blanks. The first answer
      is due one step after the marker.
    - ``exprnn`` (the released expRNN and GeoTorch code): delay blanks, marker, K - 1 blanks. The first answer is due
      at the marker.

    Variable copying (Chandar et al. 2019) draws the delay of each batch uniformly from 1 to ``delay``, as a function of
    the seed and the batch's first sample. The shown losses weigh every step alike, so chance is
    K ln(alphabet) / ((1 + delay) / 2 + 2K).

    Args:
        delay: T of the papers (L in the expRNN code), at least 1; the longest one with ``variable``.
        variable: Draw a delay for every batch.
        symbols: K, how many symbols to recall.
        alphabet: How many different data symbols there are.
        protocol: The layout.
        **kwargs: Sizes, seed and workers of `GeneratedDataModule`.
    """

    task_options = ("delay", "symbols", "alphabet", "protocol", "variable")

    def __init__(
        self,
        delay: int = 100,
        symbols: int = 10,
        alphabet: int = 8,
        protocol: Literal["common", "exprnn"] = "common",
        variable: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        require(
            delay >= 1, "data.init_args.delay", delay, "at least 1: the marker needs a step between symbols and answers"
        )
        require(symbols >= 1, "data.init_args.symbols", symbols, "a whole number of at least 1")
        require(alphabet >= 2, "data.init_args.alphabet", alphabet, "at least 2, or there is nothing to remember")
        require(protocol in ("common", "exprnn"), "data.init_args.protocol", protocol, "common or exprnn")
        self.delay, self.symbols, self.alphabet, self.protocol = delay, symbols, alphabet, protocol
        self.variable = variable
        self.words_per_sample = symbols + variable
        mean_delay = (1 + delay) / 2 if variable else delay
        self.task = Task(
            name="variable_copy_memory" if variable else "copy_memory",
            inputs="symbols",
            input_size=alphabet + 2,
            targets="label_per_step",
            target_size=alphabet + 1,
            length=None if variable else delay + 2 * symbols,
            scored="all",
            recall=symbols,
            chance=symbols * math.log(alphabet) / (mean_delay + 2 * symbols),
            metric="accuracy",
            higher_is_better=True,
        )

    def changeable(self, inputs: Tensor) -> Tensor:
        """The blanks: neither the symbols nor the marker."""
        return inputs == 0

    def make(self, words: NDArray[np.uint64]) -> Batch:
        delay = int(words[0, -1] % np.uint64(self.delay)) + 1 if self.variable else self.delay
        data = (words[:, : self.symbols] % np.uint64(self.alphabet)).astype(np.int64) + 1
        inputs = np.zeros((len(words), delay + 2 * self.symbols), dtype=np.int64)
        targets = np.zeros_like(inputs)
        inputs[:, : self.symbols] = data
        inputs[:, self.symbols + delay - (self.protocol == "common")] = self.alphabet + 1
        targets[:, -self.symbols :] = data
        return torch.from_numpy(inputs), torch.from_numpy(targets)
