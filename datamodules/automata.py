"""State tracking: in which state is a finite machine, after the symbols so far?"""

from __future__ import annotations

import functools
import itertools
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from datamodules.base import Batch
from datamodules.errors import require
from datamodules.lengths import LengthDataModule
from datamodules.task import Task

TEST_LENGTHS = (40, 64, 128, 256)


@dataclass(frozen=True)
class Machine:
    """A finite automaton that reads symbols drawn at random, independent of each other.

    Args:
        transitions: (S, A) int64: the state behind each symbol. Of a symbol that cannot come in a state, anything.
        labels: (S,) int64: what is asked of each state.
        start: The state before the first symbol.
        phases: The symbols that step t can read, all equally likely, are ``phases[t % len(phases)]``.
    """

    transitions: NDArray[np.int64]
    labels: NDArray[np.int64]
    start: int
    phases: tuple[range, ...]

    def read(self, words: NDArray[np.uint64]) -> NDArray[np.int64]:
        """(B, T) symbols that as many random words determine."""
        symbols = np.empty(words.shape, dtype=np.int64)
        for phase, allowed in enumerate(self.phases):
            drawn = words[:, phase :: len(self.phases)] % np.uint64(len(allowed))
            symbols[:, phase :: len(self.phases)] = drawn.astype(np.int64) + allowed.start
        return symbols

    def run(self, symbols: NDArray[np.int64]) -> NDArray[np.int64]:
        """(B, T) labels of the states behind each symbol."""
        states = np.empty_like(symbols)
        state = np.full(len(symbols), self.start)
        for t in range(symbols.shape[1]):
            state = states[:, t] = self.transitions[state, symbols[:, t]]
        return self.labels[states]

    def entropies(self, steps: int) -> NDArray[np.float64]:
        """(steps,) entropy in nats of the label behind each step, for who knows the step but not the symbols."""
        count = len(self.transitions)
        moves = [_mean_move(self.transitions[:, allowed], count) for allowed in self.phases]
        chances = np.eye(count)[self.start]
        found = np.empty(steps)
        for t in range(steps):
            chances = chances @ moves[t % len(moves)]
            found[t] = entropy(np.bincount(self.labels, weights=chances))
        return found


def _mean_move(targets: NDArray[np.int64], states: int) -> NDArray[np.float64]:
    """(S, S) the chances of going from one state to another when each column of (S, A) ``targets`` is as likely."""
    moves = np.zeros((states, states))
    for column in targets.T:
        moves[np.arange(states), column] += 1 / targets.shape[1]
    return moves


def entropy(chances: NDArray[Any]) -> float:
    """-sum p ln p, in nats."""
    positive = chances[chances > 0]
    return float(-(positive * np.log(positive)).sum())


class Tracking(LengthDataModule):
    """Base of tasks that ask for a machine's state: a label behind the last step, or behind every step.

    Training batches, and those of the validation and test splits, have a length each, drawn uniformly from ``shortest``
    to ``length`` as a function of the seed and the batch's first sample. ``val_lengths`` are measured beside, at just
    those: far longer than trained, a network that tracks keeps its accuracy, and one that guesses falls to chance.

    Chance is the mean entropy of the labels, for who knows the length and the step but not the inputs.

    Args:
        length: The longest sequence of training.
        shortest: The shortest.
        every_step: Whether a label is asked behind every step, rather than behind the last one.
        val_lengths: Other lengths at which validation and test measure.
        **kwargs: A curriculum, sizes, seed and workers: `LengthDataModule`.
    """

    task_options: ClassVar[tuple[str, ...]] = ("length", "shortest", "every_step")
    task_name = "tracking"

    def __init__(
        self,
        length: int = 40,
        shortest: int = 3,
        every_step: bool = False,
        val_lengths: Sequence[int] | None = TEST_LENGTHS,
        **kwargs: Any,
    ) -> None:
        super().__init__(val_lengths=None if val_lengths is None else list(val_lengths), **kwargs)
        require(
            1 <= shortest <= length, "data.init_args.shortest", shortest, f"from 1 to {length}, which is the length"
        )
        self.length, self.shortest, self.every_step = length, shortest, every_step

    def settle(self) -> None:
        super().settle()
        own = range(self.shortest, self.length + 1)
        self.task = replace(self.task, length=None, chance=self.chance_of(own))

    # ---- what a subclass says

    @property
    @abstractmethod
    def sizes(self) -> tuple[int, int]:
        """How many symbols, and how many labels, there are."""

    @abstractmethod
    def entropies(self, steps: int) -> NDArray[np.float64]:
        """(steps,) entropy of the label behind each step, as `Machine.entropies`."""

    @abstractmethod
    def sequences(self, words: NDArray[np.uint64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Symbols (B, T), and labels (B, T) of every step or (B,), that (B, T) random words determine."""

    # ----

    def steps_at(self, length: int) -> int:
        """How many steps a sequence of ``length`` has."""
        return length

    def check_length(self, length: int, key: str) -> None:
        require(length >= self.shortest, key, length, f"at least {self.shortest}, which is data.init_args.shortest")

    def chance_of(self, lengths: Sequence[int]) -> float:
        """Mean entropy over all that is asked, where each of ``lengths`` is as likely."""
        steps = [self.steps_at(length) for length in lengths]
        entropies = self.entropies(max(steps))
        if self.every_step:
            return float(sum(entropies[:count].sum() for count in steps) / sum(steps))
        return float(np.mean([entropies[count - 1] for count in steps]))

    def task_at(self, length: int) -> Task:
        symbols, labels = self.sizes
        return Task(
            name=self.task_name,
            inputs="symbols",
            input_size=symbols,
            targets="label_per_step" if self.every_step else "label",
            target_size=labels,
            length=self.steps_at(length),
            scored="all" if self.every_step else "last",
            chance=self.chance_of([length]),
            metric="accuracy",
            higher_is_better=True,
        )

    def changeable(self, inputs: Tensor) -> Tensor:
        """None: a symbol more or less is another state."""
        return torch.zeros_like(inputs, dtype=torch.bool)

    def words_at(self, length: int) -> int:
        return self.steps_at(length) + 1  # the last one draws the length

    def drawn(self, words: NDArray[np.uint64], longest: int) -> int:
        return self.shortest + int(words[0, -1] % np.uint64(longest - self.shortest + 1))

    def make_at(self, words: NDArray[np.uint64], length: int) -> Batch:
        symbols, labels = self.sequences(words[:, : self.steps_at(length)])
        asked = labels[:, -1] if labels.ndim == 2 and not self.every_step else labels
        return torch.from_numpy(symbols), torch.from_numpy(np.ascontiguousarray(asked))


class MachineTracking(Tracking):
    """A `Tracking` whose symbols drive a `Machine`."""

    @property
    @abstractmethod
    def machine(self) -> Machine:
        """The machine, made once."""

    @property
    def sizes(self) -> tuple[int, int]:
        return self.machine.transitions.shape[1], int(self.machine.labels.max()) + 1

    def entropies(self, steps: int) -> NDArray[np.float64]:
        return self.machine.entropies(steps)

    def sequences(self, words: NDArray[np.uint64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        symbols = self.machine.read(words)
        return symbols, self.machine.run(symbols)


class Parity(MachineTracking):
    """Is the number of ones even (0) or odd (1)? Bits are fair, so that chance is ln 2.

    Deletang et al. 2023 (`parity_check`), who train on lengths 1 to 40; Beck et al. 2024 (xLSTM) on 3 to 40 and test up
    to 256, as here.
    """

    task_name = "parity"

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.settle()

    @functools.cached_property
    def machine(self) -> Machine:
        return Machine(np.array([[0, 1], [1, 0]]), np.arange(2), 0, (range(2),))


class CycleNavigation(MachineTracking):
    """Where on a circle is who began at 0 and, at every step, goes back (0), stays (1) or goes on (2)?

    Deletang et al. 2023 (`cycle_navigation`), on a circle of five.

    Args:
        places: How many places the circle has.
        **kwargs: As of `Tracking`.
    """

    task_name = "cycle_navigation"
    task_options = (*Tracking.task_options, "places")

    def __init__(self, places: int = 5, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        require(2 <= places <= 1000, "data.init_args.places", places, "a whole number from 2 to 1,000")
        self.places = places
        self.settle()

    @functools.cached_property
    def machine(self) -> Machine:
        place = np.arange(self.places)
        return Machine((place[:, None] + np.arange(-1, 2)) % self.places, place, 0, (range(3),))


class PermutationWord(MachineTracking):
    """Which element of a group is the product of all so far? Asked behind every step.

    Elements are numbered in lexicographic order of their permutations, so that 0 is the identity. The state s and the
    symbol x become the permutation i -> x(s(i)): what is read comes last. Where all elements are drawn, every label
    behind every step is as likely as any other, and chance is ln |G|.

    Merrill et al. 2024 ("The illusion of state in state-space models"), whose groups of 60 are Z60 (solvable, abelian)
    and A5 (not solvable); Grazzi et al. 2025 draw from S5 only swaps, or swaps and 3-cycles: ``moved``.

    Args:
        group: S3 to S6 of all permutations, A3 to A6 of the even ones, or Z2 to Z720 of the rotations.
        moved: Draw only elements that move at most as many points as this; 2: the identity and swaps. None draws all.
        every_step: As of `Tracking`.
        **kwargs: As of `Tracking`.
    """

    task_name = "permutation_word"
    task_options = (*Tracking.task_options, "group", "moved")

    def __init__(self, group: str = "S5", moved: int | None = None, every_step: bool = True, **kwargs: Any) -> None:
        super().__init__(every_step=every_step, **kwargs)
        kind, points = group[:1], int(group[1:]) if group[1:].isdecimal() else 0
        known = (kind in "SA" and 3 <= points <= 6) or (kind == "Z" and 2 <= points <= 720)
        require(bool(group) and known, "data.init_args.group", group, "S3 to S6, A3 to A6, or Z2 to Z720")
        fits = moved is None or (kind in "SA" and (3 if kind == "A" else 2) <= moved <= points)
        accepted = f"null for {group}" if kind == "Z" else f"null, or from {3 if kind == 'A' else 2} to {points}"
        require(fits, "data.init_args.moved", moved, accepted)
        self.group, self.moved, self.points = group, moved, points
        self.settle()

    @functools.cached_property
    def elements(self) -> NDArray[np.int64]:
        """(|G|, points): each element as the image of every point, in lexicographic order."""
        if self.group[0] == "Z":
            return (np.arange(self.points) + np.arange(self.points)[:, None]) % self.points
        every = np.array(list(itertools.permutations(range(self.points))))
        if self.group[0] == "S":
            return every
        pairs = itertools.combinations(range(self.points), 2)
        inversions = sum((every[:, i] > every[:, j]).astype(np.int64) for i, j in pairs)
        return every[inversions % 2 == 0]

    @functools.cached_property
    def machine(self) -> Machine:
        elements = self.elements
        moved = (elements != np.arange(self.points)).sum(1)
        drawn = elements if self.moved is None else elements[moved <= self.moved]
        # the images of the first five points tell two elements apart, and their digits grow with the elements
        digits = self.points ** np.arange(min(self.points, 5))[::-1]
        products = drawn[:, elements[:, : len(digits)]]  # (|X|, |G|, digits): x(s(i))
        table = np.searchsorted((elements[:, : len(digits)] * digits).sum(1), (products * digits).sum(-1)).T
        return Machine(np.ascontiguousarray(table), np.arange(len(elements)), 0, (range(len(drawn)),))


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
        **kwargs: As of `Tracking`. ``every_step`` asks for the value of what there is so far, without brackets only.
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
