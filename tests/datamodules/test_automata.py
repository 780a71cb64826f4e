"""State tracking against machines written again: by counting, by sympy's permutations, and by Python's arithmetic."""

from __future__ import annotations

import math
from collections import Counter
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from sympy.combinatorics import Permutation, PermutationGroup
from sympy.combinatorics.named_groups import AlternatingGroup, CyclicGroup, SymmetricGroup

from datamodules import CycleNavigation, ModularArithmetic, Parity, PermutationWord, UserError
from datamodules.automata import Tracking
from datamodules.base import random_words
from datamodules.batch import Parts
from lit_rnn.models import ExpRNN
from tests.trainers import quiet_trainer

SMALL: dict[str, Any] = {"train_samples": 60, "val_samples": 40, "test_samples": 40, "batch_size": 10, "seed": 1}
KINDS: dict[str, tuple[type[Tracking], dict[str, Any]]] = {
    "parity": (Parity, {}),
    "parity, every step": (Parity, {"every_step": True}),
    "cycle": (CycleNavigation, {}),
    "cycle of 3, every step": (CycleNavigation, {"places": 3, "every_step": True}),
    "S3": (PermutationWord, {"group": "S3"}),
    "S4 by swaps": (PermutationWord, {"group": "S4", "moved": 2}),
    "A5": (PermutationWord, {"group": "A5"}),
    "Z60": (PermutationWord, {"group": "Z60"}),
    "arithmetic": (ModularArithmetic, {}),
    "arithmetic, every step": (ModularArithmetic, {"every_step": True, "modulus": 3}),
    "arithmetic without *": (ModularArithmetic, {"multiply": False}),
    "brackets": (ModularArithmetic, {"brackets": True}),
    "brackets and *": (ModularArithmetic, {"brackets": True, "multiply": True, "modulus": 3}),
}


def made(kind: str, **options: Any) -> Tracking:
    cls, own = KINDS[kind]
    return cls(**{**SMALL, **own, **options})


def named(group: str) -> PermutationGroup:
    make = {"S": SymmetricGroup, "A": AlternatingGroup, "Z": CyclicGroup}[group[0]]
    return make(int(group[1:]))


def permutations(group: str) -> list[tuple[int, ...]]:
    return sorted(tuple(element.array_form) for element in named(group).elements)


def answer(data: Tracking, symbols: list[int]) -> int:
    """What is asked behind the last of ``symbols``."""
    if isinstance(data, Parity):
        return symbols.count(1) % 2
    if isinstance(data, CycleNavigation):
        return (symbols.count(2) - symbols.count(0)) % data.places
    if isinstance(data, PermutationWord):
        elements = permutations(data.group)
        drawn = [e for e in elements if data.moved is None or sum(i != p for i, p in enumerate(e)) <= data.moved]
        state = Permutation(len(elements[0]) - 1)
        for symbol in symbols:
            state = state * Permutation(drawn[symbol])  # sympy's product: the left one is applied first
        return elements.index(tuple(state.array_form))
    assert isinstance(data, ModularArithmetic)
    letters = [*map(str, range(data.modulus)), "+", "-", "*", "(", ")"]
    written = "".join(letters[symbol] for symbol in symbols)
    return int(eval(written.rstrip("+-*"))) % data.modulus  # digits, operators and brackets alone


@pytest.mark.parametrize("kind", KINDS)
def test_every_label_is_that_of_the_machine_written_again(kind: str) -> None:
    data = made(kind, val_lengths=None)
    inputs, targets = data.split("val")[np.arange(12)]
    steps = range(1, inputs.shape[1] + 1) if data.every_step else [inputs.shape[1]]
    for row, labels in zip(inputs.tolist(), targets.view(12, -1).tolist(), strict=True):
        assert labels == [answer(data, row[:step]) for step in steps]
    assert inputs.max() < data.task.input_size and targets.max() < data.task.target_size


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_tracked_is_the_answer_behind_every_step(kind: str) -> None:
    """At times as many steps as the longest of training; half an expression with brackets has no value."""
    data = made(kind)
    tracked = data.tracked(3, times=2)
    if kind.startswith("brackets"):
        assert tracked is None
        return
    assert tracked is not None and tracked.trained == data.steps_at(data.length)
    assert tracked.inputs.shape == tracked.elements.shape == (3, 2 * tracked.trained)
    for symbols, elements in zip(tracked.inputs.tolist(), tracked.elements.tolist(), strict=True):
        whole = [t for t in range(len(symbols)) if "arithmetic" not in kind or t % 2 == 0]
        assert [elements[t] for t in whole] == [answer(data, symbols[: t + 1]) for t in whole]
    assert int(tracked.elements.max()) < tracked.kinds == data.task.target_size


@pytest.mark.parametrize("kind", KINDS)
def test_chance_is_the_entropy_over_all_short_sequences(kind: str) -> None:
    """Counted over every sequence of length 3, or 5 with brackets: each is as likely where those of one form are."""
    length = 5 if "brackets" in kind else 3
    data = made(kind, length=length, shortest=length, val_lengths=None)
    if isinstance(data, PermutationWord) and data.group in ("A5", "Z60"):
        assert math.isclose(data.task.chance, math.log(60))
        return
    symbols = range(data.task.input_size)
    m = getattr(data, "modulus", 0)
    operators = range(m, m + 2 + bool(getattr(data, "multiply", 0)))
    forms: list[Any] = [symbols] * length
    if "brackets" in kind:
        forms = [[m + 3], range(m), operators, range(m), [m + 4]]
    elif m:
        forms = [range(m), operators, range(m)]
    rows = [list(row) for row in product(*forms)]
    asked = range(1, length + 1) if data.every_step else [length]
    entropies = []
    for step in asked:
        counts = Counter(answer(data, row[:step]) for row in rows)
        entropies.append(-sum(c / len(rows) * math.log(c / len(rows)) for c in counts.values()))
    assert math.isclose(data.task.chance, sum(entropies) / len(entropies), rel_tol=1e-12)


def test_chance_of_brackets_agrees_with_the_shares_of_what_is_drawn() -> None:
    data = made("brackets and *", length=9, shortest=9, val_lengths=None, val_samples=20_000)
    _, values = data.split("val")[np.arange(20_000)]
    shares = torch.bincount(values).double() / len(values)
    assert abs(-(shares * shares.log()).sum().item() - data.task.chance) < 0.002
    assert data.task.chance < math.log(3) - 0.01  # zero is more likely than a third


def test_chance_over_lengths_is_a_mean_weighted_by_what_is_asked() -> None:
    """A walk on a circle: after one step one of three places, after two one of five."""
    one, two = math.log(3), -sum(c / 9 * math.log(c / 9) for c in (1, 2, 3, 2, 1))
    options = {"length": 2, "shortest": 1, "val_lengths": [1, 2]}
    last, every = made("cycle", **options), made("cycle", every_step=True, **options)
    assert math.isclose(last.task.chance, (one + two) / 2)
    assert math.isclose(every.task.chance, (one + one + two) / 3)
    assert [task.chance for task in last.other_tasks().values()] == pytest.approx([one, two])


def test_the_product_of_permutations_by_hand() -> None:
    """S3 in order: 012 021 102 120 201 210. First 021, then 102: 0 -> 0 -> 1, 1 -> 2 -> 2, 2 -> 1 -> 0."""
    machine = PermutationWord(group="S3", **SMALL).machine
    assert machine.run(np.array([[1, 2]])).tolist() == [[1, 3]]  # 120
    assert machine.run(np.array([[2, 1]])).tolist() == [[2, 4]]  # 201
    assert PermutationWord(group="S6", **SMALL).machine.transitions.shape == (720, 720)
    assert PermutationWord(group="S5", moved=2, **SMALL).task.input_size == 11
    assert PermutationWord(group="A5", moved=3, **SMALL).task.input_size == 21


@pytest.mark.parametrize("group", ["S3", "S4", "A5", "S5", "Z60"])
def test_a_group_s_elements_and_all_products_are_sympy_s(group: str) -> None:
    """In lexicographic order; behind state s, symbol x leads to sympy's s * x, which applies s first."""
    data = PermutationWord(group=group, **SMALL)
    members = sorted(named(group).elements, key=lambda element: element.array_form)
    assert data.elements.tolist() == [element.array_form for element in members]
    number = {element: place for place, element in enumerate(members)}
    table = [[number[state * symbol] for symbol in members] for state in members]
    np.testing.assert_array_equal(data.machine.transitions, table)
    np.testing.assert_array_equal(data.machine.labels[data.machine.transitions], table)


def read(data: Tracking, symbols: list[list[int]]) -> tuple[list[list[int]], list[Any]]:
    """Inputs and targets of words that are ``symbols``, and one more that would draw a length."""
    words = np.pad(np.array(symbols, dtype=np.uint64), ((0, 0), (0, 1)))
    inputs, targets = data.make_at(words, len(symbols[0]))
    return inputs.tolist(), targets.tolist()


def test_parity_by_hand() -> None:
    """Ones so far: 0, 1, 2, 2, 3, 3, 4."""
    bits = [[0, 1, 1, 0, 1, 0, 1]]
    assert read(Parity(every_step=True, **SMALL), bits) == (bits, [[0, 1, 0, 0, 1, 1, 0]])
    assert read(Parity(**SMALL), bits) == (bits, [0])
    assert read(Parity(**SMALL), [[0, 1, 1, 0, 1]]) == ([[0, 1, 1, 0, 1]], [1])


def test_cycle_navigation_by_hand() -> None:
    """On a circle of five from 0: back, back, stay, on, on, on, on."""
    moves = [[0, 0, 1, 2, 2, 2, 2]]
    assert read(CycleNavigation(every_step=True, **SMALL), moves) == (moves, [[4, 3, 3, 4, 0, 1, 2]])
    assert read(CycleNavigation(**SMALL), moves) == (moves, [2])


def test_arithmetic_by_hand() -> None:
    """Deletang et al.'s examples modulo 5, and what stands so far."""
    machine = ModularArithmetic(**SMALL).machine
    plus, minus, times = 5, 6, 7
    assert machine.run(np.array([[1, plus, 2, times, 3]]))[0].tolist() == [1, 1, 3, 3, 2]
    assert machine.run(np.array([[1, minus, 1, minus, 1]]))[0, -1] == 4
    assert machine.run(np.array([[0, times, 1, plus, 4, times, 3, minus, 2]]))[0, -1] == 0


def test_brackets_by_hand() -> None:
    """Modulo 5. Words in turn: the left part's length less 1, the operator, and what the parts are made of."""
    data = ModularArithmetic(brackets=True, multiply=True, **SMALL)
    plus, minus, times = range(3)
    made_of = {
        "((1-2)*(3+4))": ([4, times, 0, minus, 1, 2, 0, plus, 3, 4], 3),  # -1 * 7 = -7
        "((-3)-(2*-1))": ([3, minus, 3, 0, times, 2, 1], 4),  # -3 + 2 = -1
        "((4)-((2)-1))": ([2, minus, 4, 2, minus, 2, 1], 3),  # 4 - 1
        "(-3+(-2+(0)))": ([1, plus, 3, 1, plus, 2, 0], 0),  # -3 - 2 = -5
    }
    words = np.array([row + [0] * (14 - len(row)) for row, _ in made_of.values()], dtype=np.uint64)
    inputs, values = data.make_at(words, 13)
    assert ["".join("01234+-*()"[symbol] for symbol in row) for row in inputs.tolist()] == list(made_of)
    assert values.tolist() == [value for _, value in made_of.values()]


@pytest.mark.parametrize("kind", ["parity", "arithmetic", "brackets"])
def test_lengths(kind: str) -> None:
    """Of training from 3 to 40, batch by batch; at the others just those, an even one less one without brackets."""
    data = made(kind, train_samples=2000, same_length=10)
    lengths = {batch[0].shape[1] for batch in data.loader("train")}
    assert min(lengths) == 3 and max(lengths) == 39 + (kind != "arithmetic")
    assert len(lengths) > (15 if kind == "arithmetic" else 30)
    for (length, task), split in zip(data.other_tasks().items(), data.other_splits("test"), strict=True):
        assert split[np.arange(2)][0].shape == (2, length - (kind == "arithmetic")) == (2, task.length)
    assert list(data.other_tasks()) == [40, 64, 128, 256]


@pytest.mark.parametrize("kind", ["parity", "cycle of 3, every step", "S3", "arithmetic", "brackets"])
def test_a_drawn_length_is_a_function_of_seed_split_and_index(kind: str) -> None:
    """Whichever samples it is asked for with: a word alone says which it is, and 3 samples have it in common."""
    data = made(kind, same_length=3, length=12)
    for name in ("train", "val", "test"):
        split = data.split(name)
        batch = Parts.of(split[np.arange(40)])
        assert batch.lengths is not None and batch.inputs.shape[1] == int(batch.lengths.max())
        assert {len(set(group.tolist())) for group in batch.lengths[:39].view(13, 3)} == {1}
        assert len(set(batch.lengths.tolist())) > 3
        for index, length in enumerate(batch.lengths.tolist()):
            inputs, targets = split[np.arange(index, index + 1)]
            word = int(random_words(1, name, np.array([index // 3 * 3]), data.words_at(12))[0, -1])
            assert inputs.shape[1] == length == data.steps_at(3 + word % 10)
            assert torch.equal(batch.inputs[index, :length], inputs[0]) and not batch.inputs[index, length:].any()
            assert torch.equal(batch.targets[index][:length] if data.every_step else batch.targets[index], targets[0])
            # the same symbols whatever the length: the first of those of the longest
            if kind == "parity":
                whole = data.make_at(random_words(1, name, np.array([index]), 13), 12)[0]
                assert torch.equal(inputs, whole[:, :length])


@pytest.mark.parametrize("every_step", [True, False])
def test_a_batch_of_mixed_lengths_is_scored_as_its_sequences_alone(every_step: bool) -> None:
    """What is asked counts once each, and padding never."""
    model = ExpRNN(Parity(every_step=every_step).task, 5)
    options = {"every_step": every_step, "same_length": 1, "length": 9, "val_lengths": None}
    together, alone = (made("parity", batch_size=rows, **options) for rows in (40, 1))
    found = [quiet_trainer().validate(model, data, verbose=False)[0] for data in (together, alone)]
    assert found[0] == pytest.approx(found[1], rel=1e-6)
    assert len(found[0]) >= 2


@pytest.mark.parametrize("kind", KINDS)
def test_a_sample_is_a_function_of_seed_split_and_index(kind: str) -> None:
    first, again = made(kind, val_lengths=[50]), made(kind, val_lengths=[50])
    (split,), (other,) = first.other_splits("test"), again.other_splits("test")
    whole, backwards = split[np.arange(6)], other[np.arange(5, -1, -1)]
    for one, two in zip(whole, backwards, strict=True):
        assert torch.equal(one, two.flip(0))
    assert not torch.equal(whole[0], made(kind, val_lengths=[50], seed=2).other_splits("test")[0][np.arange(6)][0])


@pytest.mark.parametrize(
    ("cls", "options", "names"),
    [
        (Parity, {"shortest": 0}, "shortest is 0"),
        (Parity, {"shortest": 41}, "shortest is 41"),
        (Parity, {"same_length": 0}, "same_length is 0"),
        (Parity, {"shortest": 5, "val_lengths": [4]}, "val_lengths is 4"),
        (CycleNavigation, {"places": 1}, "places is 1"),
        (PermutationWord, {"group": "S9"}, "group is 'S9'"),
        (PermutationWord, {"group": ""}, "group is ''"),
        (PermutationWord, {"group": 5}, "group is 5"),
        (PermutationWord, {"group": "SA5"}, "group is 'SA5'"),
        (PermutationWord, {"group": "Z60", "moved": 2}, "moved is 2"),
        (PermutationWord, {"group": "A5", "moved": 2}, "moved is 2"),
        (ModularArithmetic, {"modulus": 1}, "modulus is 1"),
        (ModularArithmetic, {"brackets": True, "every_step": True}, "every_step is true"),
    ],
)
def test_what_cannot_be_is_refused_by_name(cls: type[Tracking], options: dict[str, Any], names: str) -> None:
    with pytest.raises(UserError, match=f"data.init_args.{names}"):
        cls(**SMALL, **options)
