"""The parenthesis task (Foerster et al. 2017; Jing et al. 2019)."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from datamodules.base import Batch, entropy
from datamodules.errors import whole
from datamodules.lengths import LengthDataModule
from datamodules.task import Task


class Parenthesis(LengthDataModule):
    """How many brackets of each type are open? One count for every type, at every step.

    Each step reads one of 2K + N symbols, all equally likely: 2k opens a bracket of type k, 2k + 1 closes one, and
    those from 2K on are noise. With c_k = 0 at first, the label of type k is the count behind the step:

        opens:   c_k <- min(c_k + 1, most)
        closes:  c_k <- max(c_k - 1, 0)

    So a bracket that closes none changes nothing, nor does one that opens beyond ``most``. Every step has K labels of
    most + 1 classes; loss and accuracy are means over steps and types. GORU's script has K = 10, N = 10, most = 10 and
    200 steps; its softmax has 21 classes, of which 10 never come. Foerster et al. have K = 2, N = 1 and most = 5.

    A predictor that does not look knows the step t alone. The count of a type is a birth and death chain on 0..most
    that goes up and down with chance 1 / (2K + N) each and stays at its ends: p_{t+1} = p_t M, p_0 = (1, 0, .., 0).
    Chance is the mean over t = 1..T of the entropy of p_t, the same for all types.

    Args:
        length: T, the number of steps.
        types: K.
        noise: N, how many different symbols mean nothing.
        most: The highest count.
        **kwargs: Other lengths, a curriculum, sizes, seed and workers: `LengthDataModule`.
    """

    task_options = ("length", "types", "noise", "most")

    def __init__(self, length: int = 200, types: int = 10, noise: int = 10, most: int = 10, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        whole(types, "data.init_args.types", 1)
        whole(noise, "data.init_args.noise")
        whole(most, "data.init_args.most", 1)
        self.length, self.types, self.noise, self.most = length, types, noise, most
        self.settle()

    def check_length(self, length: int, key: str) -> None:
        whole(length, key, 1)

    def _chance(self, steps: int) -> float:
        """Mean over the steps of the entropy of one type's count."""
        share, counts = 1 / (2 * self.types + self.noise), np.zeros(self.most + 1)
        counts[0], total = 1.0, 0.0
        for _ in range(steps):
            up, down = share * counts, share * counts
            up[-1] = down[0] = 0.0  # at its ends it stays
            counts = counts - up - down
            counts[1:] += up[:-1]
            counts[:-1] += down[1:]
            total += entropy(counts)
        return total / steps

    def task_at(self, length: int) -> Task:
        return Task(
            name="parenthesis",
            inputs="symbols",
            input_size=2 * self.types + self.noise,
            targets="label_per_step",
            target_size=self.most + 1,
            length=length,
            scored="all",
            chance=self._chance(length),
            metric="accuracy",
            higher_is_better=True,
            labels=self.types,
        )

    def changeable(self, inputs: Tensor) -> Tensor:
        """Nothing: what is noise would, if changed, be a bracket."""
        return torch.zeros_like(inputs, dtype=torch.bool)

    def words_at(self, length: int) -> int:
        return length

    def make_at(self, words: NDArray[np.uint64], length: int) -> Batch:
        symbols = (words % np.uint64(2 * self.types + self.noise)).astype(np.int64)
        change = np.zeros((*symbols.shape, self.types), dtype=np.int64)
        rows, steps = np.nonzero(symbols < 2 * self.types)
        read = symbols[rows, steps]
        change[rows, steps, read // 2] = 1 - 2 * (read % 2)
        counts = np.zeros((len(symbols), self.types), dtype=np.int64)
        targets = np.empty_like(change)
        for t in range(length):
            counts = targets[:, t] = np.clip(counts + change[:, t], 0, self.most)
        if self.types == 1:
            targets = targets[..., 0]
        return torch.from_numpy(symbols), torch.from_numpy(targets)
