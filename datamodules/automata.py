"""State tracking: in which state is a finite machine, after the symbols so far?"""

from __future__ import annotations

import functools
import itertools
import re
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from datamodules.base import Batch, entropy, random_words
from datamodules.errors import require, whole
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


class Tracked(NamedTuple):
    """Sequences with what must be tracked to solve them."""

    inputs: Tensor  # (B, T) symbols
    elements: Tensor  # (B, T) from 0 on: what is to be known behind each
    trained: int  # of the T steps, how many there are in the longest sequence of training
    kinds: int  # how many different elements there are


class Tracking(LengthDataModule):
    """Base of tasks that ask for a machine's state: a label behind the last step, or behind every step.

    Samples 0 to ``same_length`` - 1 of a split have one length, drawn uniformly from ``shortest`` to ``length``, the
    next as many another, and so on; in a batch of several lengths the shorter are padded. ``val_lengths`` are measured
    beside, at just those: far longer than trained, a network that tracks keeps its accuracy, and one that guesses falls
    to chance.

    Chance is the mean entropy of the labels, for who knows the length and the step but not the inputs.

    Args:
        length: The longest sequence of training.
        shortest: The shortest.
        every_step: Whether a label is asked behind every step, rather than behind the last one.
        val_lengths: Other lengths at which validation and test measure.
        same_length: How many samples, one after another, have their length in common: a batch that holds just those has
            no padding. 1 draws a length for each.
        **kwargs: A curriculum, sizes, seed and workers: `LengthDataModule`.
    """

    task_options: ClassVar[tuple[str, ...]] = ("length", "shortest", "every_step", "same_length")
    task_name = "tracking"

    def __init__(
        self,
        length: int = 40,
        shortest: int = 3,
        every_step: bool = False,
        val_lengths: Sequence[int] | None = TEST_LENGTHS,
        same_length: int = 64,
        **kwargs: Any,
    ) -> None:
        super().__init__(val_lengths=None if val_lengths is None else list(val_lengths), **kwargs)
        require(
            1 <= shortest <= length, "data.init_args.shortest", shortest, f"from 1 to {length}, which is the length"
        )
        whole(same_length, "data.init_args.same_length", 1)
        self.length, self.shortest, self.every_step, self.same_length = length, shortest, every_step, same_length

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

    def tracked(self, sequences: int = 256, times: int = 4) -> Tracked | None:
        """Validation sequences so many times as long as the longest of training, with the label behind every step.

        None where there is a label behind the last step alone: half an expression with brackets has no value.
        """
        trained = self.steps_at(self.length)
        words = random_words(self.seed, "val", np.arange(sequences), times * trained)
        symbols, labels = self.sequences(words)
        if labels.ndim == 1:
            return None
        return Tracked(torch.from_numpy(symbols), torch.from_numpy(labels), trained, self.sizes[1])

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
        return self.steps_at(length) + 1

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
        **kwargs: Lengths, curriculum, sizes, seed and workers, as `Tracking` takes them.
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
        every_step: Whether the element is asked at every step, or at the last alone.
        **kwargs: Lengths, curriculum, sizes, seed and workers, as `Tracking` takes them.
    """

    task_name = "permutation_word"
    task_options = (*Tracking.task_options, "group", "moved")

    def __init__(self, group: str = "S5", moved: int | None = None, every_step: bool = True, **kwargs: Any) -> None:
        super().__init__(every_step=every_step, **kwargs)
        found = re.fullmatch("([SAZ])([0-9]{1,3})", group) if isinstance(group, str) else None
        kind, points = (found[1], int(found[2])) if found else ("", 0)
        known = (kind in ("S", "A") and 3 <= points <= 6) or (kind == "Z" and 2 <= points <= 720)
        require(known, "data.init_args.group", group, "S3 to S6, A3 to A6, or Z2 to Z720")
        fits = moved is None or (kind in ("S", "A") and (3 if kind == "A" else 2) <= moved <= points)
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
