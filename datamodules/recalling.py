"""Recall by content: associative recall, induction heads, selective copying and the flip-flop."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from datamodules.base import Batch, unit_interval
from datamodules.denoising import scattered
from datamodules.errors import require, whole
from datamodules.lengths import LengthDataModule
from datamodules.on_device import OnDevice
from datamodules.task import Task


def distinct(words: NDArray[np.uint64], count: int) -> NDArray[np.int64]:
    """(B, K) different whole numbers below ``count``, every choice and order as likely: K steps of Fisher and Yates.

    Args:
        words: (B, K) uniform random words, K <= count.
        count: How many numbers there are to choose from.
    """
    rows, numbers = np.arange(len(words)), np.tile(np.arange(count), (len(words), 1))
    for place, word in enumerate(words.T):
        other = place + (word % np.uint64(count - place)).astype(np.int64)
        numbers[rows, other], numbers[rows, place] = numbers[rows, place], numbers[rows, other]
    return numbers[:, : words.shape[1]]


class AssociativeRecall(LengthDataModule):
    """Multi-query associative recall (MQAR): pairs of a key and its value, then keys again: which value had each?

    Keys are 1 to V/2 - 1 and values V/2 to V - 1, each at most once in a sequence. The pairs take the first 2K steps;
    behind them each key comes back once, at an even distance, where the gaps of length g are drawn with weights
    g^(power - 1) (all different), and is asked there. All other steps hold random symbols of the whole alphabet, so
    that a key can also stand where it is not asked. Only the K asked steps are scored, and a guess costs ln(V - V/2).

    Arora et al. 2024 (Zoology), as their generator has it, one pass over the pairs. Theirs draws training data afresh
    for every run, but once; here it is fresh in every epoch unless ``reuse``.

    Args:
        length: T, even.
        pairs: K, with 4 K <= T.
        vocabulary: V, above T.
        power: Of the law of the gaps: 1 draws all alike, below 1 near ones more often.
        random_others: Whether the steps that are not asked hold random symbols, or 0.
        **kwargs: Other lengths, a curriculum, sizes, seed and workers: `LengthDataModule`.
    """

    task_options = ("length", "pairs", "vocabulary", "power", "random_others")

    def __init__(
        self,
        length: int = 64,
        pairs: int = 8,
        vocabulary: int = 8192,
        power: float = 0.01,
        random_others: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        whole(pairs, "data.init_args.pairs", 1)
        accepted = f"from {2 * pairs + 2} to 1,000,000, for {pairs} different keys beside 0 and as many values"
        require(2 * pairs + 2 <= vocabulary <= 10**6, "data.init_args.vocabulary", vocabulary, accepted)
        require(math.isfinite(power), "data.init_args.power", power, "a number")
        self.length, self.pairs, self.vocabulary = length, pairs, vocabulary
        self.power, self.random_others = power, random_others
        self.settle()

    def check_length(self, length: int, key: str) -> None:
        least = 4 * self.pairs
        require(length >= least and length % 2 == 0, key, length, f"even, and at least {least} for {self.pairs} pairs")
        accepted = f"below {self.vocabulary:,}, which is data.init_args.vocabulary"
        require(length < self.vocabulary, key, length, accepted)

    def task_at(self, length: int) -> Task:
        return Task(
            name="associative_recall",
            inputs="symbols",
            input_size=self.vocabulary,
            targets="label_per_step",
            target_size=self.vocabulary,
            length=length,
            scored="mask",
            chance=math.log(self.vocabulary - self.vocabulary // 2),
            metric="accuracy",
            higher_is_better=True,
        )

    def changeable(self, inputs: Tensor) -> Tensor:
        """What stands behind the pairs and is none of their keys: it is asked nowhere, and says nothing of a pair."""
        context = 2 * self.pairs
        free = (inputs.unsqueeze(-1) != inputs[..., None, :context:2]).all(-1)
        free[..., :context] = False
        return free

    def words_at(self, length: int) -> int:
        return 2 * self.pairs + length // 2 - self.pairs + length

    def make_at(self, words: NDArray[np.uint64], length: int) -> Batch:
        pairs, half, context = self.pairs, self.vocabulary // 2, 2 * self.pairs
        space = (length - context) // 2
        for_keys, for_values, for_gaps, others = np.split(words, np.cumsum([pairs, pairs, space]), axis=1)
        keys = distinct(for_keys, half - 1) + 1
        values = distinct(for_values, self.vocabulary - half) + half
        # one after the other without replacement is the order of weighted exponential times
        times = -np.log1p(-unit_interval(for_gaps)) / np.arange(1, space + 1) ** (self.power - 1.0)
        asked = context + 2 * np.argsort(times, axis=1)[:, :pairs]
        inputs = (others % np.uint64(self.vocabulary)).astype(np.int64)
        if not self.random_others:
            inputs[:] = 0
        inputs[:, 0:context:2], inputs[:, 1:context:2] = keys, values
        labels, mask = np.zeros_like(inputs), np.zeros(inputs.shape, dtype=bool)
        np.put_along_axis(inputs, asked, keys, axis=1)
        np.put_along_axis(labels, asked, values, axis=1)
        np.put_along_axis(mask, asked, True, axis=1)
        return torch.from_numpy(inputs), torch.from_numpy(labels), torch.from_numpy(mask)


class InductionHeads(LengthDataModule):
    """Which symbol stood behind the marker, when the marker came up the first time?

    T - 1 random symbols, with the marker at a random place that leaves one step for what stands behind it, and the
    marker again at the last step, where the symbol is asked. Symbols are 0 to alphabet - 1, the marker is alphabet: a
    guess costs ln(alphabet).

    Gu and Dao 2023 (Mamba): an alphabet of 16, training at T = 256, test up to 2^20.

    Args:
        length: T, at least 3.
        alphabet: How many symbols there are beside the marker.
        **kwargs: Other lengths, a curriculum, sizes, seed and workers: `LengthDataModule`.
    """

    task_options = ("length", "alphabet")

    def __init__(self, length: int = 256, alphabet: int = 16, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        require(alphabet >= 2, "data.init_args.alphabet", alphabet, "at least 2, or there is nothing to remember")
        self.length, self.alphabet = length, alphabet
        self.settle()

    def check_length(self, length: int, key: str) -> None:
        require(length >= 3, key, length, "at least 3: the marker, a symbol, and the marker again")

    def task_at(self, length: int) -> Task:
        return Task(
            name="induction_heads",
            inputs="symbols",
            input_size=self.alphabet + 1,
            targets="label",
            target_size=self.alphabet,
            length=length,
            scored="last",
            chance=math.log(self.alphabet),
            metric="accuracy",
            higher_is_better=True,
        )

    def changeable(self, inputs: Tensor) -> Tensor:
        """What follows the symbol that is asked, but the last marker: one before could become the first marker."""
        marked = inputs == self.alphabet
        free = torch.zeros_like(marked)
        free[..., 2:] = (marked.cumsum(-1) > 0)[..., :-2]
        return free & ~marked

    def words_at(self, length: int) -> int:
        return length

    def make_at(self, words: NDArray[np.uint64], length: int) -> Batch:
        rows = np.arange(len(words))
        inputs = (words % np.uint64(self.alphabet)).astype(np.int64)
        place = (words[:, -1] % np.uint64(length - 2)).astype(np.int64)
        inputs[rows, place] = inputs[:, -1] = self.alphabet
        return torch.from_numpy(inputs), torch.from_numpy(inputs[rows, place + 1])


class SelectiveCopy(OnDevice):
    """Copy K symbols that lie scattered among noise, in their order, when K markers ask for them.

    Noise is 0, data symbols are 1 to alphabet, the marker is alphabet + 1. The symbols lie at random places of the
    first ``delay`` steps; the K markers behind them ask for one each, and only those steps are scored: a guess costs
    ln(alphabet). `Denoise` differs in that blanks follow one marker.

    Gu and Dao 2023 (Mamba): 16 symbols among 4,096 steps, an alphabet of 16 with the noise and the marker: 14 here.

    Args:
        delay: Steps among which the symbols are scattered; a sequence has delay + K.
        symbols: K.
        alphabet: How many different data symbols there are.
        **kwargs: Other lengths, a curriculum, sizes, seed, workers and device: `OnDevice`.
    """

    task_options = ("delay", "symbols", "alphabet")
    length_option = "delay"

    def __init__(self, delay: int = 256, symbols: int = 16, alphabet: int = 14, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        whole(symbols, "data.init_args.symbols", 1)
        require(alphabet >= 2, "data.init_args.alphabet", alphabet, "at least 2, or there is nothing to remember")
        self.delay, self.symbols, self.alphabet = delay, symbols, alphabet
        self.settle()

    def check_length(self, length: int, key: str) -> None:
        require(length >= self.symbols, key, length, f"at least {self.symbols}, the symbols scattered in it")

    def task_at(self, length: int) -> Task:
        return Task(
            name="selective_copy",
            inputs="symbols",
            input_size=self.alphabet + 2,
            targets="label_per_step",
            target_size=self.alphabet + 1,
            length=length + self.symbols,
            scored="mask",
            recall=self.symbols,
            chance=math.log(self.alphabet),
            metric="accuracy",
            higher_is_better=True,
        )

    def changeable(self, inputs: Tensor) -> Tensor:
        """None: noise that is changed would be a symbol to copy."""
        return torch.zeros_like(inputs, dtype=torch.bool)

    def words_at(self, length: int) -> int:
        return self.symbols + length

    def made(self, words: Tensor, length: int) -> Batch:
        inputs, data = scattered(words, self.symbols, self.alphabet, length + self.symbols)
        inputs[:, length:] = self.alphabet + 1
        labels, mask = torch.zeros_like(inputs), torch.zeros(inputs.shape, dtype=torch.bool)
        labels[:, length:], mask[:, length:] = data, True
        return inputs, labels, mask


WRITE, READ, IGNORE = 2, 3, 4


class FlipFlop(LengthDataModule):
    """A bit is written, much is to be ignored, and then it is read: which bit is it?

    Steps come in twos, an instruction and a bit: bits are 0 and 1, write is 2, read 3 and ignore 4. The first is a
    write and the last a read; of the others a share ``ignored`` is ignore, and the rest are writes and reads alike. The
    bit behind a write or ignore is fair; behind a read it is the one written last, and asked at the read itself, one
    step before it stands there. Only reads are scored, and a guess costs ln 2.

    Liu et al. 2023 ("Exposing attention glitches with flip-flop language modeling"): T = 512, ``ignored`` 0.8, tested
    at 0.98 and 0.1 too.

    Args:
        length: T of every sequence, even, at least 4: none is drawn, other than in state tracking.
        ignored: The share of ignore instructions.
        **kwargs: Other lengths, a curriculum, sizes, seed and workers: `LengthDataModule`.
    """

    task_options = ("length", "ignored")

    def __init__(self, length: int = 512, ignored: float = 0.8, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        require(0 <= ignored <= 1, "data.init_args.ignored", ignored, "a number from 0 to 1")
        self.length, self.ignored = length, ignored
        self.settle()

    def check_length(self, length: int, key: str) -> None:
        require(length >= 4 and length % 2 == 0, key, length, "even and at least 4, for a write and a read")

    def task_at(self, length: int) -> Task:
        return Task(
            name="flip_flop",
            inputs="symbols",
            input_size=5,
            targets="label_per_step",
            target_size=2,
            length=length,
            scored="mask",
            chance=math.log(2),
            metric="accuracy",
            higher_is_better=True,
        )

    def changeable(self, inputs: Tensor) -> Tensor:
        """The bits behind ignore."""
        free = (inputs == IGNORE).roll(1, -1)
        free[..., 0] = False
        return free

    def words_at(self, length: int) -> int:
        return length

    def make_at(self, words: NDArray[np.uint64], length: int) -> Batch:
        drawn, rows = unit_interval(words[:, ::2]), np.arange(len(words))
        instructions = np.where(drawn < self.ignored, IGNORE, np.where(drawn < (1 + self.ignored) / 2, WRITE, READ))
        instructions[:, 0], instructions[:, -1] = WRITE, READ
        bits = (words[:, 1::2] >> np.uint64(63)).astype(np.int64)
        written = np.maximum.accumulate(np.where(instructions == WRITE, np.arange(length // 2), 0), axis=1)
        kept = bits[rows[:, None], written]
        reads = instructions == READ
        inputs = np.stack([instructions, np.where(reads, kept, bits)], axis=-1).reshape(len(words), length)
        labels, mask = np.zeros_like(inputs), np.zeros(inputs.shape, dtype=bool)
        labels[:, ::2], mask[:, ::2] = np.where(reads, kept, 0), reads
        return torch.from_numpy(inputs), torch.from_numpy(labels), torch.from_numpy(mask)
