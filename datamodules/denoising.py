"""The denoising task (Jing et al. 2019; Chandar et al. 2019)."""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
from torch import Tensor

from datamodules.base import Batch
from datamodules.errors import require, whole
from datamodules.on_device import OnDevice, below
from datamodules.task import Task


def scattered(words: Tensor, symbols: int, alphabet: int, steps: int) -> tuple[Tensor, Tensor]:
    """(B, steps) blanks with K data symbols, 1 to alphabet, among them, and those symbols (B, K) in their order.

    Args:
        words: (B, K + places) uniform random words, as in `OnDevice.made`: the symbols lie at K different ones of the
            first ``places`` steps.
        symbols: K.
        alphabet: How many different data symbols there are.
        steps: Of a sequence.
    """
    data = below(words[:, :symbols], alphabet) + 1
    ranked = words[:, symbols:] ^ -(2**63)  # unsigned words in their order
    places = ranked.topk(symbols, largest=False).indices.sort().values
    return data.new_zeros(len(data), steps).scatter_(1, places, data), data


class Denoise(OnDevice):
    """Recall K symbols scattered among blanks: K data symbols at random places, then a marker and K blanks, during
    which they are due in their order.

    Blank is 0, data symbols are 1..alphabet, the marker is alphabet + 1. The K places are a uniformly drawn subset: no
    two symbols share one. Two protocols:

    - ``nru`` (Chandar et al. 2019): the places are among the first ``delay`` steps, and a sequence has delay + K + 1;
      8 data symbols. The mask holds the last K steps, and the loss averages over them only: a guess costs
      ln(alphabet).
    - ``goru`` (Jing et al. 2019): the places are among the first delay + K - 1 steps, and a sequence has delay + 2K,
      220 at a delay of 200; 9 data symbols. The loss averages over all steps: answering blank, then any data symbol,
      costs K ln(alphabet) / (delay + 2K). Their code draws the places with replacement, so that symbols collide and
      vanish, and one-hots the marker to a row of zeros; here it does neither.

    Args:
        delay: T of the papers: steps among which the symbols are scattered, at least ``symbols`` for ``nru``.
        symbols: K, how many symbols to recall.
        alphabet: How many different data symbols there are; null: the protocol's.
        protocol: ``nru`` or ``goru``.
        **kwargs: Other lengths, a curriculum, sizes, seed, workers and device: `OnDevice`.
    """

    task_options = ("delay", "symbols", "alphabet", "protocol")
    length_option = "delay"

    def __init__(
        self,
        delay: int = 100,
        symbols: int = 10,
        alphabet: int | None = None,
        protocol: Literal["nru", "goru"] = "nru",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        alphabet = (8 if protocol == "nru" else 9) if alphabet is None else alphabet
        whole(symbols, "data.init_args.symbols", 1)
        require(alphabet >= 2, "data.init_args.alphabet", alphabet, "at least 2, or there is nothing to remember")
        self.delay, self.symbols, self.alphabet, self.protocol = delay, symbols, alphabet, protocol
        self.settle()

    def check_length(self, length: int, key: str) -> None:
        shortest = self.symbols if self.protocol == "nru" else 1
        require(length >= shortest, key, length, f"at least {shortest}, so that {self.symbols} symbols find a place")

    def _places(self, length: int) -> int:
        """The steps before the marker."""
        return length if self.protocol == "nru" else length + self.symbols - 1

    def task_at(self, length: int) -> Task:
        steps, apart = self._places(length) + 1 + self.symbols, self.protocol == "nru"
        return Task(
            name="denoise",
            inputs="symbols",
            input_size=self.alphabet + 2,
            targets="label_per_step",
            target_size=self.alphabet + 1,
            length=steps,
            scored="mask" if apart else "all",
            recall=self.symbols,
            chance=math.log(self.alphabet) * (1 if apart else self.symbols / steps),
            metric="accuracy",
            higher_is_better=True,
        )

    def changeable(self, inputs: Tensor) -> Tensor:
        """The blanks behind the marker: one among the symbols would, if changed, be a symbol to recall."""
        free = torch.zeros_like(inputs, dtype=torch.bool)
        free[:, -self.symbols :] = True
        return free

    def words_at(self, length: int) -> int:
        return self.symbols + self._places(length)

    def made(self, words: Tensor, length: int) -> Batch:
        before = self._places(length)
        inputs, data = scattered(words, self.symbols, self.alphabet, before + 1 + self.symbols)
        targets = torch.zeros_like(inputs)
        inputs[:, before] = self.alphabet + 1
        targets[:, -self.symbols :] = data
        if self.protocol == "goru":
            return inputs, targets
        mask = torch.zeros(inputs.shape, dtype=torch.bool)
        mask[:, -self.symbols :] = True
        return inputs, targets, mask
