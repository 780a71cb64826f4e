"""Dyck against a reader with a stack, and chance against all short sequences."""

from __future__ import annotations

import math
from collections import defaultdict
from typing import Any

import numpy as np
import pytest
import torch

from datamodules import Dyck, UserError

SMALL: dict[str, Any] = {"train_samples": 60, "val_samples": 40, "test_samples": 40, "batch_size": 10, "seed": 1}


def closers(symbols: list[int], kinds: int, depth: int) -> list[int]:
    """The kind that may close behind each symbol; refuses what is not well nested."""
    stack: list[int] = []
    found = []
    for symbol in symbols:
        if symbol < kinds:
            stack.append(symbol)
        else:
            assert stack.pop() == symbol - kinds
        assert len(stack) <= depth
        found.append(stack[-1] if stack else kinds)
    return found


def test_by_hand() -> None:
    """( [ ] ) ( of kinds ( = 1 and [ = 0, two deep: a word's remainder is the kind, its first bit opens."""
    opens = 1 << 63
    words = np.array([[1, opens, opens + 1, 0, opens + 1]], dtype=np.uint64)
    symbols, labels = Dyck(depth=2, kinds=2, **SMALL).sequences(words)
    assert symbols.tolist() == [[1, 0, 2, 3, 1]]
    assert labels.tolist() == [[1, 0, 1, 2, 1]]


@pytest.mark.parametrize(("depth", "kinds"), [(1, 1), (3, 2), (5, 8)])
def test_every_label_is_that_of_a_stack(depth: int, kinds: int) -> None:
    data = Dyck(depth, kinds, length=60, shortest=60, val_lengths=None, **SMALL)
    symbols, labels = data.split("val")[np.arange(40)]
    for row, own in zip(symbols.tolist(), labels.tolist(), strict=True):
        assert own == closers(row, kinds, depth)
    assert labels.unique().tolist() == list(range(kinds + 1)) and symbols.unique().tolist() == list(range(2 * kinds))
    assert data.task.input_size == 2 * kinds and data.task.target_size == kinds + 1
    last = Dyck(depth, kinds, every_step=False, length=60, shortest=60, val_lengths=None, **SMALL).split("val")[
        np.arange(40)
    ]
    assert torch.equal(last[0], symbols) and torch.equal(last[1], labels[:, -1])


@pytest.mark.parametrize(("depth", "kinds", "T"), [(1, 2, 3), (2, 2, 5), (3, 1, 6), (2, 3, 4)])
def test_chance_by_all_sequences(depth: int, kinds: int, T: int) -> None:
    """Each with its chance: a half for opening and for closing where both can be, and 1 / K for a kind."""
    reached: dict[tuple[int, ...], float] = {(): 1.0}
    entropies = []
    for _ in range(T):
        after: dict[tuple[int, ...], float] = defaultdict(float)
        for stack, chance in reached.items():
            opens = 1.0 if not stack else 0.0 if len(stack) == depth else 0.5
            for kind in range(kinds if opens else 0):
                after[(*stack, kind)] += chance * opens / kinds
            if opens < 1:
                after[stack[:-1]] += chance * (1 - opens)
        reached = after
        labels: dict[int, float] = defaultdict(float)
        for stack, chance in reached.items():
            labels[stack[-1] if stack else kinds] += chance
        entropies.append(-sum(p * math.log(p) for p in labels.values()))
    every = Dyck(depth, kinds, length=T, shortest=T, val_lengths=None, **SMALL)
    assert every.task.chance == pytest.approx(sum(entropies) / T, rel=1e-12)
    last = Dyck(depth, kinds, every_step=False, length=T, shortest=T, val_lengths=None, **SMALL)
    assert last.task.chance == pytest.approx(entropies[-1], rel=1e-12)


def test_a_sample_is_a_function_of_seed_split_and_index() -> None:
    (split,), (other,) = (Dyck(val_lengths=[50], **SMALL).other_splits("test") for _ in range(2))
    whole, backwards = split[np.arange(6)], other[np.arange(5, -1, -1)]
    for one, two in zip(whole, backwards, strict=True):
        assert torch.equal(one, two.flip(0))
    different = Dyck(val_lengths=[50], **SMALL | {"seed": 2}).other_splits("test")[0][np.arange(6)]
    assert not torch.equal(whole[0], different[0])


@pytest.mark.parametrize(("options", "named"), [({"depth": 0}, "depth is 0"), ({"kinds": 0}, "kinds is 0")])
def test_what_cannot_be_is_refused_by_name(options: dict[str, int], named: str) -> None:
    with pytest.raises(UserError, match=f"data.init_args.{named}"):
        Dyck(**SMALL, **options)
