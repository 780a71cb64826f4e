"""Synthetic data that are made where the trainer computes: the same bits as on the CPU, many batches at once.

NumPy's Philox (Salmon et al. 2011) in integer operations of torch, which are exact on every device.
"""

from __future__ import annotations

import functools
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from datamodules.base import SPLIT_IDS, Batch, Generated, Indices, Split
from datamodules.batch import near
from datamodules.errors import require
from datamodules.lengths import AnyLength, LengthDataModule, of_lengths

_ROUNDS = 10
_FACTORS = 0xD2E7470EE14C6C93, 0xCA5A826395121157
_STEPS = 0x9E3779B97F4A7C15, 0xBB67AE8584CAA73B  # of the key, from round to round
_HALF = 0xFFFFFFFF

WORDS = 2**20
"""Random words that are made at once: about 500 operations, which cost more to launch than to do for a batch alone."""


def _signed(word: int) -> int:
    """The int64 of the same bits."""
    word %= 2**64
    return word - 2**64 if word >= 2**63 else word


def _upper(words: Tensor) -> Tensor:
    return (words >> 32) & _HALF


def _product(a: int, b: Tensor) -> tuple[Tensor, Tensor]:
    """The upper and the lower 64 bits of a b, of unsigned words."""
    low, high = a & _HALF, a >> 32
    b_low, b_high = b & _HALF, _upper(b)
    cross, other = low * b_high, high * b_low
    middle = _upper(low * b_low) + (cross & _HALF) + (other & _HALF)
    return high * b_high + _upper(cross) + _upper(other) + _upper(middle), b * _signed(a)


def words_on(device: torch.device, seed: int, split: Split, indices: Indices, count: int) -> Tensor:
    """`datamodules.base.random_words` as int64 of the same bits, (len(indices), count), made on ``device``."""
    blocks = -(-count // 4)
    if np.all(np.diff(indices) == 1):
        samples = torch.arange(int(indices[0]), int(indices[0]) + len(indices), device=device)
    else:
        samples = torch.from_numpy(indices).to(device, non_blocking=True)
    first = samples[:, None] * blocks + torch.arange(1, blocks + 1, device=device)  # NumPy counts before it draws
    zero = torch.zeros_like(first)
    counter = [first, zero, zero, zero]
    key = [seed, SPLIT_IDS[split]]
    for _ in range(_ROUNDS):
        (upper0, lower0), (upper2, lower2) = (
            _product(a, counter[place]) for a, place in zip(_FACTORS, (0, 2), strict=True)
        )
        counter = [
            upper2 ^ counter[1] ^ _signed(key[0]),
            lower2,
            upper0 ^ counter[3] ^ _signed(key[1]),
            lower0,
        ]
        key = [number + step for number, step in zip(key, _STEPS, strict=True)]
    return torch.stack(counter, dim=-1).flatten(1)[:, :count]


def below(words: Tensor, number: int) -> Tensor:
    """The unsigned words modulo ``number``."""
    halved = (words >> 1) & (2**63 - 1)
    return (halved % number * 2 + (words & 1)) % number


def uniform(words: Tensor) -> Tensor:
    """`datamodules.base.unit_interval`."""
    return ((words >> 11) & (2**53 - 1)).double() * 2.0**-53


class Ahead(AnyLength):
    """The training split, made on the device of the trainer."""

    owner: OnDevice

    def ahead(self, given: Sequence[Indices]) -> Iterator[Batch]:
        owner, count, device = self.owner, self.owner.words_per_sample, self.owner.device()
        together = max(1, WORDS // (count * owner.batch_size))
        for start in range(0, len(given), together):
            some = given[start : start + together]
            words = words_on(device, owner.seed, self.name, np.concatenate(some), count)
            for indices, rows in zip(some, words.split([len(indices) for indices in some]), strict=True):
                lengths = owner.lengths_of(self.name, indices, owner.own_length)  # on the host
                yield of_lengths(lengths, functools.partial(_made, owner, rows))


def _made(owner: OnDevice, words: Tensor, rows: Indices, length: int) -> Batch:
    some = words if len(rows) == len(words) else words[near(torch.from_numpy(rows), words)]
    return owner.made(some, length)


class OnDevice(LengthDataModule):
    """Synthetic data that can be made on a GPU.

    Args:
        on_device: Make the training batches where the trainer computes, many at once, and not in ``num_workers``: the
            same bits as on the CPU, and a run may go on with the other. Their numbers are not looked at, for which the
            host would have to wait. Without a curriculum.
        **kwargs: Other lengths, sizes, seed and workers: `LengthDataModule`.
    """

    def __init__(self, on_device: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        key = "data.init_args.on_device"
        require(not on_device or self.stages is None, key, on_device, "false with a curriculum")
        self.on_device = on_device

    def split(self, name: Split) -> Generated:
        return Ahead(self, name) if self.on_device and name == "train" else super().split(name)

    @abstractmethod
    def made(self, words: Tensor, length: int) -> Batch:
        """`make_at` of words as int64 of the same bits, on any device; a mask stays on the CPU."""

    def make_at(self, words: NDArray[np.uint64], length: int) -> Batch:
        return self.made(torch.from_numpy(words.view(np.int64)), length)
