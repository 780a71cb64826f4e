"""The copying memory task (Hochreiter and Schmidhuber 1997; Arjovsky et al. 2016)."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any, Literal

from torch import Tensor

from datamodules.base import Batch
from datamodules.errors import require, whole
from datamodules.on_device import OnDevice, below
from datamodules.task import Task


class CopyMemory(OnDevice):
    """Recall K symbols after a delay: x = (s_1 .. s_K, blanks, marker, blanks), y = (blanks, s_1 .. s_K).

    Blank is 0, data symbols are 1..alphabet, the marker is alphabet + 1; both sequences have delay + 2K steps and
    the loss averages over all of them. Answering blank, then any data symbol, costs K ln(alphabet) / (delay + 2K).

    Two layouts are published, one step apart:

    - ``common`` (uRNN, scoRNN, scuRNN, EURNN, GORU, nnRNN, NRU): delay - 1 blanks, marker, K blanks. The first answer
      is due one step after the marker.
    - ``exprnn`` (the released expRNN and GeoTorch code): delay blanks, marker, K - 1 blanks. The first answer is due
      at the marker.

    Variable copying (Chandar et al. 2019) draws a delay for ``same_length`` samples at a time, uniformly from 1 to
    ``delay``: published is one for every batch of 10. In a batch of several delays the shorter are padded. The shown
    losses weigh every step alike, so chance is K ln(alphabet) / ((1 + delay) / 2 + 2K). At ``val_lengths`` every sample
    has just that delay.

    Args:
        delay: T of the papers (L in the expRNN code), at least 1; the longest one with ``variable``.
        variable: Draw delays.
        same_length: How many samples, one after another, have a drawn delay in common.
        symbols: K, how many symbols to recall.
        alphabet: How many different data symbols there are.
        protocol: The layout.
        raw: Feed every symbol as its number, one value a step, as the released nnRNN code does unless told otherwise:
            0 is blank, 1 to ``alphabet`` are data, alphabet + 1 the marker.
        **kwargs: Other lengths, a curriculum, sizes, seed, workers and device: `OnDevice`.
    """

    task_options = ("delay", "symbols", "alphabet", "protocol", "variable", "raw", "same_length")
    length_option = "delay"

    def __init__(
        self,
        delay: int = 100,
        symbols: int = 10,
        alphabet: int = 8,
        protocol: Literal["common", "exprnn"] = "common",
        variable: bool = False,
        raw: bool = False,
        same_length: int = 10,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        whole(symbols, "data.init_args.symbols", 1)
        require(alphabet >= 2, "data.init_args.alphabet", alphabet, "at least 2, or there is nothing to remember")
        self.delay, self.symbols, self.alphabet, self.protocol = delay, symbols, alphabet, protocol
        whole(same_length, "data.init_args.same_length", 1)
        self.variable, self.raw = variable, raw
        if variable:
            self.same_length = same_length
        else:
            self.tell_unread("same_length", same_length, "variable: false")
        self.bounds = (0.0, alphabet + 1.0) if raw else None
        self.settle()
        if variable:
            chance = symbols * math.log(alphabet) / ((1 + delay) / 2 + 2 * symbols)
            self.task = replace(self.task, name="variable_copy_memory", length=None, chance=chance)

    def check_length(self, length: int, key: str) -> None:
        require(length >= 1, key, length, "at least 1: the marker needs a step between symbols and answers")

    def task_at(self, length: int) -> Task:
        steps = length + 2 * self.symbols
        return Task(
            name="copy_memory",
            inputs="values" if self.raw else "symbols",
            input_size=1 if self.raw else self.alphabet + 2,
            targets="label_per_step",
            target_size=self.alphabet + 1,
            length=steps,
            scored="all",
            recall=self.symbols,
            chance=self.symbols * math.log(self.alphabet) / steps,
            metric="accuracy",
            higher_is_better=True,
        )

    def words_at(self, length: int) -> int:
        return self.symbols + self.variable

    def changeable(self, inputs: Tensor) -> Tensor:
        """The blanks: neither the symbols nor the marker."""
        return inputs == 0

    def made(self, words: Tensor, length: int) -> Batch:
        data = below(words[:, : self.symbols], self.alphabet) + 1
        inputs = data.new_zeros(len(data), length + 2 * self.symbols)
        targets = inputs.clone()
        inputs[:, : self.symbols] = data
        inputs[:, self.symbols + length - (self.protocol == "common")] = self.alphabet + 1
        targets[:, -self.symbols :] = data
        return inputs[..., None].float() if self.raw else inputs, targets
