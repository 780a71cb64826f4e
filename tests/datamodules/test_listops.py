"""ListOps against a reader of its expressions, and the chances of its values against all small ones."""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from typing import Any

import numpy as np
import pytest
import torch

from datamodules import ListOps, Parts, UserError
from datamodules.listops import CLOSE, MAX, MED, MIN, SM, value_chances

SMALL: dict[str, Any] = {"max_depth": 4, "max_args": 4, "min_length": 5, "max_length": 30, "seed": 1}
MEANING = {MIN: min, MAX: max, MED: lambda v: int(np.median(v)), SM: lambda v: sum(v) % 10}


def read(symbols: list[int]) -> tuple[int, int, int]:
    """Value, depth and most arguments of an expression, whose symbols are taken from the list."""
    first = symbols.pop(0)
    if first < 10:
        return first, 1, 0
    values, depths, most = [], [], []
    while symbols[0] != CLOSE:
        value, depth, arguments = read(symbols)
        values.append(value)
        depths.append(depth)
        most.append(arguments)
    symbols.pop(0)
    return MEANING[first](values), 1 + max(depths), max(len(values), *most)


def test_by_hand() -> None:
    """[MAX 4 [SM 3 9 ] 0 ] from the draws that make it: operator, how many arguments, expression or digit, digit."""
    digit, expression = 0.9, 0.1
    draws = iter([0.25, 0.15, digit, 0.45, expression, 0.75, 0.0, digit, 0.35, digit, 0.95, digit, 0.05])
    written: list[int] = []
    assert ListOps(min_length=5, max_length=100)._write(written, draws.__next__, 1) == 4
    assert written == [MAX, 4, SM, 3, 9, CLOSE, 0, CLOSE] and not list(draws)


def test_every_value_is_that_of_the_expression() -> None:
    data = ListOps(**SMALL)
    inputs, targets, _, lengths, _ = Parts.of(data.split("val")[np.arange(300)])
    assert lengths is not None and lengths.min() >= 6 and lengths.max() == inputs.shape[1] <= 29
    depths, most = set(), set()
    for row, length, target in zip(inputs.tolist(), lengths.tolist(), targets.tolist(), strict=True):
        symbols = row[:length]
        value, depth, arguments = read(symbols)
        assert not symbols and value == target and not any(row[length:])
        depths.add(depth)
        most.add(arguments)
    assert max(depths) == 4 and max(most) == 4


def outcomes(depth: int, most_depth: int, most_arguments: int) -> dict[tuple[int, int], float]:
    """The chances of (value, length) of an expression, over all there are."""
    argument: dict[tuple[int, int], float] = defaultdict(float)
    deeper = depth + 1 < most_depth
    for value in range(10):
        argument[value, 1] += (0.75 if deeper else 1) / 10
    if deeper:
        for outcome, chance in outcomes(depth + 1, most_depth, most_arguments).items():
            argument[outcome] += chance / 4
    found: dict[tuple[int, int], float] = defaultdict(float)
    for n in range(2, most_arguments + 1):
        for chosen in itertools.product(argument.items(), repeat=n):
            chance = math.prod(share for _, share in chosen) / 4 / (most_arguments - 1)
            values, length = [value for (value, _), _ in chosen], 2 + sum(length for (_, length), _ in chosen)
            for operate in MEANING.values():
                found[operate(values), length] += chance
    return found


@pytest.mark.parametrize(("depth", "arguments", "low", "high"), [(2, 4, 4, 6), (3, 2, 4, 9), (4, 2, 4, 10)])
def test_the_chances_of_values_are_those_of_all_expressions(depth: int, arguments: int, low: int, high: int) -> None:
    expected = np.zeros(10)
    for (value, length), chance in outcomes(1, depth, arguments).items():
        if low < length < high:
            expected[value] += chance
    assert 0.01 < expected.sum() < 0.99
    np.testing.assert_allclose(value_chances(depth, arguments, low, high), expected, atol=1e-10)


def test_chance_as_long_range_arena_has_it() -> None:
    data = ListOps()
    assert (data.samples, data.batch_size) == ({"train": 96_000, "val": 2_000, "test": 2_000}, 32)
    assert data.task.chance == pytest.approx(2.24873, abs=1e-5) and data.task.input_size == 15
    lengths = Parts.of(data.split("val")[np.arange(3)]).lengths
    assert lengths is not None and lengths.min() > 500 and lengths.max() < 2000


def test_a_sample_is_a_function_of_seed_split_and_index() -> None:
    whole, backwards = (
        ListOps(**SMALL).split("test")[np.arange(6)],
        ListOps(**SMALL).split("test")[np.arange(5, -1, -1)],
    )
    for one, two in zip(whole, backwards, strict=True):
        assert torch.equal(one, two.flip(0))
    assert not torch.equal(whole[0][0], ListOps(**SMALL).split("val")[np.arange(6)][0][0])
    assert not torch.equal(whole[1], ListOps(**SMALL | {"seed": 2}).split("test")[np.arange(6)][1])


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"max_depth": 1}, "max_depth is 1"),
        ({"max_args": 1}, "max_args is 1"),
        ({"max_length": 5}, "max_length is 5"),
        ({"min_length": 29}, "min_length is 29"),
        ({"max_depth": 2, "max_args": 3, "min_length": 10}, "min_length is 10.*0 of them"),
    ],
)
def test_what_cannot_be_is_refused_by_name(options: dict[str, int], named: str) -> None:
    with pytest.raises(UserError, match=f"data.init_args.{named}"):
        ListOps(**SMALL | options)
