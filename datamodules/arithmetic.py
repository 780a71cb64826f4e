"""State tracking by arithmetic: what is the value of an expression?"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datamodules.automata import Machine, Tracking
from datamodules.base import entropy
from datamodules.errors import require

PLUS, MINUS, TIMES = range(3)
OPEN, CLOSE = 3, 4


class ModularArithmetic(Tracking):
    """What is the value of a sum of products modulo m?

    Symbols 0 to m - 1 are the digits, m to m + 2 are + - and *, and with ``brackets`` m + 3 and m + 4 are ( and ).

    Without brackets digits and operators take turns, each as likely as the others of its kind, and * binds closer: a
    finite machine of 4 m^2 states can tell the value. Those expressions have odd lengths: an even one is read as one
    less. With brackets an expression of length T >= 5 is (L o R), where the length of L is uniform from 1 to T - 4 and
    that of R is what is left; shorter ones are d, -d, (d) and (-d). That takes a stack.

    Deletang et al. 2023 (`modular_arithmetic` and `modular_arithmetic_brackets`, whose default is + and - alone).

    Args:
        modulus: m.
        brackets: Whether there are brackets.
        multiply: Whether * is among the operators; None: without brackets alone, as published.
        **kwargs: Lengths, curriculum, sizes, seed and workers, as `Tracking` takes them. ``every_step`` asks for the
            value of what there is so far, without brackets only.
    """

    task_options = (*Tracking.task_options, "modulus", "brackets", "multiply")

    def __init__(self, modulus: int = 5, brackets: bool = False, multiply: bool | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        require(2 <= modulus <= 50, "data.init_args.modulus", modulus, "a whole number from 2 to 50")
        can = not (brackets and self.every_step)
        require(can, "data.init_args.every_step", True, "false with brackets: half an expression has no value")
        self.modulus, self.brackets = modulus, brackets
        self.multiply = not brackets if multiply is None else multiply
        self.task_name = "modular_arithmetic_brackets" if brackets else "modular_arithmetic"
        self.settle()

    def steps_at(self, length: int) -> int:
        return length if self.brackets or length % 2 else length - 1

    def check_length(self, length: int, key: str) -> None:
        super().check_length(length, key)
        require(length <= 2000 or not self.brackets, key, length, "at most 2,000 with brackets")

    @property
    def sizes(self) -> tuple[int, int]:
        return self.modulus + (5 if self.brackets else 3), self.modulus

    @functools.cached_property
    def machine(self) -> Machine:
        """Without brackets. Its state is what is added up, the product that goes on, and the operator that waits.

        Two operators wait at most: a minus is kept in the product's sign. No operator waits behind a digit.
        """
        m = self.modulus
        total, product, waits = (axis.ravel() for axis in np.indices((m, m, 4)))
        none = 3

        def state(total: NDArray[np.int64], product: NDArray[np.int64], waits: Any) -> NDArray[np.int64]:
            return (total % m * m + product % m) * 4 + waits

        digit = np.arange(m)[:, None]
        times = waits == TIMES
        sign = np.where(waits == MINUS, -1, 1)
        behind_digit = state(
            np.where(times, total, total + product), np.where(times, product * digit, sign * digit), none
        )
        behind_operator = [state(total, product, np.full_like(total, operator)) for operator in range(3)]
        operators = range(m, m + 2 + self.multiply)
        return Machine(
            np.ascontiguousarray(np.concatenate([behind_digit, behind_operator]).T),
            (total + product) % m,
            int(state(np.array(0), np.array(0), PLUS)),
            (range(m), operators),
        )

    def entropies(self, steps: int) -> NDArray[np.float64]:
        if not self.brackets:
            return self.machine.entropies(steps)
        return np.array([entropy(chances) for chances in self._values(steps)])

    def _values(self, steps: int) -> NDArray[np.float64]:
        """(steps, m) chances of each value of an expression with brackets, by its length from 1 on."""
        m = self.modulus
        found = np.full((steps, m), 1 / m)  # of d, -d, (d) and (-d); of sums and differences of anything uniform
        if not self.multiply:
            return found
        value = np.arange(m)
        by = [value[:, None] + value, value[:, None] - value, value[:, None] * value]
        for length in range(5, steps + 1):
            pairs = sum(np.outer(found[left - 1], found[length - left - 4]) for left in range(1, length - 3))
            chances = [np.bincount(result.ravel() % m, weights=np.ravel(pairs), minlength=m) for result in by]
            found[length - 1] = sum(chances) / (3 * (length - 4))
        return found

    def sequences(self, words: NDArray[np.uint64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        if not self.brackets:
            symbols = self.machine.read(words)
            return symbols, self.machine.run(symbols)
        symbols = np.empty(words.shape, dtype=np.int64)
        values = np.empty(len(words), dtype=np.int64)
        for row, own in enumerate(words.tolist()):
            written, values[row] = self._expression(words.shape[1], iter(own))
            symbols[row] = written
        return symbols, values

    def _expression(self, length: int, words: Any) -> tuple[list[int], int]:
        """An expression of this length and its value; it takes at most one word a symbol."""
        m = self.modulus
        if length < 5:
            digit = next(words) % m
            minus = length in (2, 4)
            written = [m + MINUS, digit] if minus else [digit]
            return [m + OPEN, *written, m + CLOSE] if length > 2 else written, (-digit if minus else digit) % m
        left_length = 1 + next(words) % (length - 4)
        operator = next(words) % (2 + self.multiply)
        left, a = self._expression(left_length, words)
        right, b = self._expression(length - left_length - 3, words)
        value = (a + b, a - b, a * b)[operator] % m
        return [m + OPEN, *left, m + operator, *right, m + CLOSE], value
