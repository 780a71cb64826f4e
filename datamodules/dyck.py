"""Dyck: brackets of several kinds, nested to a bounded depth."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from datamodules.automata import Tracking
from datamodules.base import entropy
from datamodules.errors import require


class Dyck(Tracking):
    """Which bracket may close next, after the brackets so far?

    Of K kinds, symbols 0 to K - 1 open a bracket and K to 2K - 1 close one, each the one opened last. Where nothing is
    open a bracket opens, at depth m one closes, and in between both are equally likely; the kind of one that opens is
    uniform. Labels 0 to K - 1 are the kind that may close next, K says that none is open.

    These are the sequences of Dyck-(K, m) as Hewitt et al. 2020 ("RNNs can generate bounded hierarchical languages with
    optimal memory") draw them, cut at length T instead of ended where nothing is open. They train a language model and
    then ask whether it gives the closing bracket that fits most of what it gives to closing ones: that bracket is the
    label here. Theirs have K = 2, 8, 32, 128 and m = 3, 5, with tests on lengths twice those of training.

    A predictor that knows the step t alone knows the chance q_t that nothing is open, a birth and death chain on 0..m,
    and no more of the kind than that it is uniform: chance is the mean of the entropy of (q_t, (1 - q_t)/K, ..).

    Args:
        depth: m, the most brackets that are open at a time.
        kinds: K.
        every_step: Whether the label is asked at every step, or at the last alone.
        **kwargs: Lengths, curriculum, sizes, seed and workers, as `Tracking` takes them.
    """

    task_name = "dyck"
    task_options = (*Tracking.task_options, "depth", "kinds")

    def __init__(self, depth: int = 5, kinds: int = 8, every_step: bool = True, **kwargs: Any) -> None:
        super().__init__(every_step=every_step, **kwargs)
        require(1 <= depth <= 1000, "data.init_args.depth", depth, "a whole number from 1 to 1,000")
        require(1 <= kinds <= 1000, "data.init_args.kinds", kinds, "a whole number from 1 to 1,000")
        self.depth, self.kinds = depth, kinds
        self.settle()

    @property
    def sizes(self) -> tuple[int, int]:
        return 2 * self.kinds, self.kinds + 1

    def entropies(self, steps: int) -> NDArray[np.float64]:
        opens = np.full(self.depth + 1, 0.5)
        opens[0], opens[-1] = 1.0, 0.0
        chances, found = np.eye(self.depth + 1)[0], np.empty(steps)
        for t in range(steps):
            up, down = chances * opens, chances * (1 - opens)
            chances = np.append(0, up[:-1]) + np.append(down[1:], 0)
            found[t] = entropy(np.append(chances[0], np.full(self.kinds, (1 - chances[0]) / self.kinds)))
        return found

    def sequences(self, words: NDArray[np.uint64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        rows, symbols, labels = np.arange(len(words)), *np.empty((2, *words.shape), dtype=np.int64)
        stack = np.full((len(words), self.depth + 1), self.kinds)  # below all brackets lies the label of none
        height = np.zeros(len(words), dtype=np.int64)
        kinds, heads = (words % np.uint64(self.kinds)).astype(np.int64), words >> np.uint64(63) == 1
        for t in range(words.shape[1]):
            opens = (height == 0) | ((height < self.depth) & heads[:, t])
            symbols[:, t] = np.where(opens, kinds[:, t], self.kinds + stack[rows, height])
            height += np.where(opens, 1, -1)
            stack[rows[opens], height[opens]] = kinds[opens, t]
            labels[:, t] = stack[rows, height]
        return symbols, labels
