"""ListOps: the value of nested MIN, MAX, MED and SM of digits."""

from __future__ import annotations

import functools
import math
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from datamodules.base import Batch, GeneratedDataModule, entropy
from datamodules.errors import require
from datamodules.task import Task

MIN, MAX, MED, SM, CLOSE = range(10, 15)
_OPERATES = 0.25  # the chance that an argument is an expression, not a digit
_OPERATIONS: dict[int, Callable[[list[int]], int]] = {
    MIN: min,
    MAX: max,
    MED: lambda values: sum(sorted(values)[(len(values) - 1) // 2 : len(values) // 2 + 1]) // (2 - len(values) % 2),
    SM: lambda values: sum(values) % 10,
}


class ListOps(GeneratedDataModule):
    """What is the value of an expression such as ``[MAX 4 [SM 3 9 ] 0 ]``? One of ten digits; here 4.

    Symbols 0 to 9 are the digits, 10 to 13 are ``[MIN``, ``[MAX``, ``[MED`` and ``[SM``, and 14 is ``]``. MED is the
    median, of an even number of values the mean of the middle two, rounded down; SM is the sum modulo 10. All operators
    are equally likely, and so are all numbers of arguments from 2 to ``max_args``. An argument is an expression with
    chance 1/4, and otherwise, or at depth ``max_depth``, a uniform digit. Expressions are drawn until one has more
    than ``min_length`` and less than ``max_length`` symbols. Sequences are of unequal lengths.

    That is the generator of Long Range Arena (Tay et al. 2021; the grammar is Nangia and Bowman's, 2018), whose
    parentheses its own reader drops. Its defaults are those here. It draws 96,000 training samples once, no two alike;
    here they are fresh in every epoch unless ``reuse``, and may by chance be alike.

    Chance is the entropy of the value of such an expression, which is not uniform, in a closed form: `value_chances`.

    Args:
        max_depth: Of operators within one another; digits at this depth are leaves.
        max_args: Arguments of an operator.
        min_length: A sequence has more symbols than this.
        max_length: And less than this.
        train_samples: Samples in one training epoch, over all processes together.
        val_samples: Samples in the validation split.
        test_samples: Samples in the test split.
        batch_size: Sequences per step and process.
        **kwargs: ``reuse``, seed and workers of `GeneratedDataModule`.
    """

    task_options = ("max_depth", "max_args", "min_length", "max_length")

    def __init__(
        self,
        max_depth: int = 10,
        max_args: int = 10,
        min_length: int = 500,
        max_length: int = 2000,
        train_samples: int = 96_000,
        val_samples: int = 2_000,
        test_samples: int = 2_000,
        batch_size: int = 32,
        **kwargs: Any,
    ) -> None:
        super().__init__(train_samples, val_samples, test_samples, batch_size=batch_size, **kwargs)
        require(2 <= max_depth <= 50, "data.init_args.max_depth", max_depth, "a whole number from 2 to 50")
        require(2 <= max_args <= 50, "data.init_args.max_args", max_args, "a whole number from 2 to 50")
        accepted = "a whole number from 6 to 10,000: [MIN 1 2 ] has 4 symbols"
        require(6 <= max_length <= 10_000, "data.init_args.max_length", max_length, accepted)
        accepted = f"from 1 to {max_length - 2}, so that a length is left below max_length"
        require(1 <= min_length <= max_length - 2, "data.init_args.min_length", min_length, accepted)
        self.max_depth, self.max_args = max_depth, max_args
        self.min_length, self.max_length = min_length, max_length
        chances = value_chances(max_depth, max_args, min_length, max_length)
        share = float(chances.sum())
        accepted = (
            f"such that one expression in 1,000 or more is of a length between it and {max_length}; with max_depth "
            f"{max_depth} and max_args {max_args} it is {round(share, 9):.1g} of them"
        )
        require(share >= 1e-3, "data.init_args.min_length", min_length, accepted)
        self.words_per_sample = 1
        self.task = Task(
            name="listops",
            inputs="symbols",
            input_size=15,
            targets="label",
            target_size=10,
            length=None,
            scored="last",
            chance=entropy(chances / share),
            metric="accuracy",
            higher_is_better=True,
        )

    def changeable(self, inputs: Tensor) -> Tensor:
        """None: any digit can be the answer."""
        return torch.zeros_like(inputs, dtype=torch.bool)

    def make(self, words: NDArray[np.uint64]) -> Batch:
        drawn = [self._expression(random.Random(word)) for word in words[:, 0].tolist()]
        lengths = [len(written) for written, _ in drawn]
        inputs = torch.zeros(len(drawn), max(lengths), dtype=torch.int64)
        for row, (written, _) in zip(inputs, drawn, strict=True):
            row[: len(written)] = torch.tensor(written)
        return inputs, torch.tensor([value for _, value in drawn]), torch.tensor(lengths)

    def _expression(self, source: random.Random) -> tuple[list[int], int]:
        """The symbols of the first expression drawn that is of a length to have, and its value."""
        draw = source.random
        while True:
            written: list[int] = []
            value = self._write(written, draw, 1)
            if self.min_length < len(written) < self.max_length:
                return written, value

    def _write(self, written: list[int], draw: Callable[[], float], depth: int) -> int:
        """Write one expression behind what is ``written``, or the beginning of one too long; gives its value."""
        written.append(MIN + int(4 * draw()))
        operate = _OPERATIONS[written[-1]]
        values = []
        for _ in range(2 + int((self.max_args - 1) * draw())):
            if len(written) >= self.max_length:
                return 0
            if depth + 1 < self.max_depth and draw() < _OPERATES:
                values.append(self._write(written, draw, depth + 1))
            else:
                values.append(int(10 * draw()))
                written.append(values[-1])
        written.append(CLOSE)
        return operate(values)


@functools.lru_cache(maxsize=8)
def value_chances(max_depth: int, max_args: int, min_length: int, max_length: int) -> NDArray[np.float64]:
    """(10,) the chances that an expression has each value and a length between the two limits.

    With F_d(z)[v] = sum_l P(value v, length l) z^l of an expression at depth d, and G_d that of an argument, which is
    a digit or, above the greatest depth, with chance 1/4 an expression,

        F_d = z^2 / (4 (A - 1)) sum_{n=2}^{A} sum_op op_n(G_{d+1}),

    where op_n counts what n independent arguments give: powers of sums over values for MIN and MAX, of Fourier
    transforms over values for SM, and order statistics for MED. All is done at points z on a circle, inside the unit
    one so that lengths beyond the transform's do not fold back (by less than 1e-10), and one Fourier transform over it
    gives the lengths.
    """
    points = 1 << (2 * max_length - 1).bit_length()
    radius = 10.0 ** (-10 / points)
    z = radius * np.exp(-2j * np.pi * np.arange(points // 2 + 1) / points)
    digit = np.tile(z / 10, (10, 1))
    argument = digit
    for _ in range(max_depth - 1):  # from the deepest up
        expression = z**2 / (4 * (max_args - 1)) * _of_arguments(argument, max_args)
        argument = (1 - _OPERATES) * digit + _OPERATES * expression
    by_length = np.fft.irfft(expression, points, axis=1)[:, :max_length] / radius ** np.arange(max_length)
    return by_length[:, min_length + 1 :].sum(1)


def _of_arguments(each: NDArray[np.complex128], most: int) -> NDArray[np.complex128]:
    """(10, points): sum_{n=2}^{most} sum_op op_n of one argument's (10, points)."""
    none = np.zeros((1, each.shape[1]), dtype=complex)
    before = np.concatenate((none, each.cumsum(0)))
    below = _powers(before, most)  # [n][k]: all of n arguments are below k
    above = _powers(before[-1] - before, most)  # .. and from k on
    over_values = _powers(np.fft.fft(each, axis=0), most)
    found = np.zeros_like(each)
    for n in range(2, most + 1):
        found += np.diff(below[n] - above[n] + _median_below(below, above, n), axis=0)
        found += np.fft.ifft(over_values[n], axis=0)
    return found


def _powers(base: NDArray[np.complex128], most: int) -> list[NDArray[np.complex128]]:
    powers = [np.ones_like(base)]
    for _ in range(most):
        powers.append(powers[-1] * base)
    return powers


def _median_below(
    below: list[NDArray[np.complex128]], above: list[NDArray[np.complex128]], n: int
) -> NDArray[np.complex128]:
    """(11, points): [k], the median of n arguments is below k."""
    middle, rest = n // 2, (n - 1) // 2
    # the lower one of the middle two, or the middle one, is k or more: as many as ``rest`` at most are below
    found = np.zeros_like(below[n])
    for i in range(rest + 1):
        found += math.comb(n, i) * (below[i] * above[n - i])
    if n % 2 == 0:
        # of the middle two x = a < k and y >= 2k - a, whose mean is k or more, too: x < a and y >= b is to have half
        # of the arguments below a and the others from b on
        lower, upper = np.diff(below[middle], axis=0), math.comb(n, middle) * above[middle]
        for k in range(11):
            for a in range(max(0, 2 * k - 9), k):
                found[k] += lower[a] * upper[2 * k - a]
    return below[n][-1] - found
