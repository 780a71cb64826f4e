"""Recall by content, against slow readings of the definitions."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from datamodules import AssociativeRecall, FlipFlop, InductionHeads, SelectiveCopy, UserError
from datamodules.lengths import LengthDataModule
from datamodules.recalling import IGNORE, READ, WRITE, distinct

SMALL: dict[str, Any] = {"train_samples": 60, "val_samples": 400, "test_samples": 40, "batch_size": 10, "seed": 1}
KINDS: dict[str, tuple[type[LengthDataModule], dict[str, Any], int]] = {
    "recall": (AssociativeRecall, {"length": 24, "pairs": 5, "vocabulary": 31}, 30),
    "recall among zeros": (AssociativeRecall, {"length": 20, "pairs": 5, "vocabulary": 64, "random_others": False}, 30),
    "induction": (InductionHeads, {"length": 12, "alphabet": 4}, 30),
    "selective": (SelectiveCopy, {"delay": 9, "symbols": 4, "alphabet": 3}, 30),
    "flip-flop": (FlipFlop, {"length": 16, "ignored": 0.5}, 30),
}


def made(kind: str, **options: Any) -> LengthDataModule:
    cls, own, _ = KINDS[kind]
    return cls(**{**SMALL, **own, **options})


def rows(data: LengthDataModule, count: int = 60) -> list[list[list[int]]]:
    return [[part.tolist() for part in row] for row in zip(*data.split("val")[np.arange(count)], strict=True)]


@pytest.mark.parametrize("kind", ["recall", "recall among zeros"])
def test_each_key_comes_back_once_and_its_value_is_asked(kind: str) -> None:
    data = made(kind)
    K, V, T = 5, data.vocabulary, data.length
    for inputs, labels, mask in rows(data):
        keys, values = inputs[0 : 2 * K : 2], inputs[1 : 2 * K : 2]
        assert len(set(keys)) == len(set(values)) == K
        assert all(1 <= key < V // 2 for key in keys) and all(V // 2 <= value < V for value in values)
        asked = [t for t in range(T) if mask[t]]
        assert len(asked) == K and all(t >= 2 * K and t % 2 == 0 for t in asked)
        assert sorted(inputs[t] for t in asked) == sorted(keys)
        assert all(labels[t] == values[keys.index(inputs[t])] for t in asked)
        others = [inputs[t] for t in range(2 * K, T) if not mask[t]]
        assert set(others) == {0} if kind.endswith("zeros") else max(others) >= K
    assert math.isclose(data.task.chance, math.log(V - V // 2))


@pytest.mark.parametrize("kind", ["recall", "recall among zeros"])
def test_what_is_asked_nowhere_may_change(kind: str) -> None:
    """Any symbol in its place leaves every pair, and every question with its answer."""
    data, context = made(kind), 10
    inputs, labels, mask = (torch.as_tensor(part) for part in data.split("val")[np.arange(40)])
    free = data.changeable(inputs)
    assert not (free & mask).any() and not free[:, :context].any() and free[:, context:].float().mean() > 0.4
    changed = torch.where(free, torch.randint_like(inputs, data.vocabulary), inputs)
    for row, answers, asked in zip(changed.tolist(), labels.tolist(), mask.tolist(), strict=True):
        values = dict(zip(row[0:context:2], row[1:context:2], strict=True))
        assert all(values[row[t]] == answers[t] for t in range(data.length) if asked[t])


def test_gaps_follow_their_law_without_replacement() -> None:
    """One pair: the gap g = 1 to 4 has weight g^(power - 1); two pairs: the pair of gaps by drawing twice."""
    weights = np.arange(1, 5) ** -0.5
    one = made("recall", length=10, pairs=1, power=0.5, val_samples=40_000).split("val")[np.arange(40_000)][2]
    shares = one[:, 2::2].double().mean(0).numpy()
    np.testing.assert_allclose(shares, weights / weights.sum(), atol=0.01)
    two = made("recall", length=12, pairs=2, power=0.5, val_samples=40_000).split("val")[np.arange(40_000)]
    key, asked = two[0][:, 0], two[0][:, 4::2]
    first = ((asked == key[:, None]) & two[2][:, 4::2]).double().mean(0).numpy()
    np.testing.assert_allclose(first, weights / weights.sum(), atol=0.01)  # the first key's gap is drawn first
    p = weights / weights.sum()
    second = [sum(p[i] * p[j] / (1 - p[i]) for i in range(4) if i != j) for j in range(4)]
    np.testing.assert_allclose(two[2][:, 4::2].double().mean(0).numpy() - first, second, atol=0.01)


def test_distinct_numbers_are_every_choice_and_order_alike() -> None:
    words = np.random.default_rng(0).integers(0, 2**64, (60_000, 2), dtype=np.uint64)
    chosen = distinct(words, 4)
    counts = np.bincount(chosen[:, 0] * 4 + chosen[:, 1], minlength=16).reshape(4, 4)
    assert (counts.diagonal() == 0).all()
    np.testing.assert_allclose(counts[~np.eye(4, dtype=bool)] / 60_000, 1 / 12, atol=0.004)


def test_the_symbol_behind_the_first_marker_is_asked() -> None:
    data = made("induction")
    places = []
    for inputs, label in rows(data, 400):
        assert inputs[-1] == 4 and inputs.count(4) == 2
        places.append(inputs.index(4))
        assert inputs[places[-1] + 1] == label < 4
    assert set(places) == set(range(10))  # the last symbol that can be asked is at T - 2
    assert math.isclose(data.task.chance, math.log(4))
    x = torch.tensor([[1, 4, 2, 0, 4], [4, 0, 1, 2, 4], [0, 0, 4, 2, 4]])
    assert data.changeable(x).int().tolist() == [[0, 0, 0, 1, 0], [0, 0, 1, 1, 0], [0] * 5]
    # any symbol there, the marker too, leaves the question and its answer
    inputs, labels = (part for part in data.split("val")[np.arange(40)])
    changed = torch.where(data.changeable(inputs), torch.randint_like(inputs, 5), inputs)
    assert all(row[row.index(4) + 1] == label for row, label in zip(changed.tolist(), labels.tolist(), strict=True))


def test_scattered_symbols_are_copied_in_order() -> None:
    data = made("selective")
    for inputs, labels, mask in rows(data):
        symbols = [symbol for symbol in inputs[:9] if symbol]
        assert len(symbols) == 4 and all(1 <= symbol <= 3 for symbol in symbols)
        assert inputs[9:] == [4] * 4 and labels[9:] == symbols
        assert mask == [False] * 9 + [True] * 4
    assert math.isclose(data.task.chance, math.log(3)) and data.task.length == 13


def test_a_read_gives_the_bit_that_was_written_last() -> None:
    data = made("flip-flop")
    shares, answers = np.zeros(5), []
    for inputs, labels, mask in rows(data, 400):
        instructions, bits = inputs[::2], inputs[1::2]
        assert instructions[0] == WRITE and instructions[-1] == READ and set(bits) <= {0, 1}
        kept = None
        for place, (instruction, bit) in enumerate(zip(instructions, bits, strict=True)):
            kept = bit if instruction == WRITE else kept
            assert mask[2 * place] == (instruction == READ) and not mask[2 * place + 1]
            if instruction == READ:
                assert bit == labels[2 * place] == kept
                answers.append(bit)
            shares[instruction] += 0 < place < 7
    np.testing.assert_allclose(shares[[WRITE, READ, IGNORE]] / (400 * 6), [0.25, 0.25, 0.5], atol=0.03)
    assert abs(np.mean(answers) - 0.5) < 0.05 and math.isclose(data.task.chance, math.log(2))
    x = torch.tensor([[WRITE, 1, IGNORE, 0, READ, 1]])
    assert data.changeable(x).tolist() == [[False, False, False, True, False, False]]


def by_hand(data: LengthDataModule, words: list[int], length: int) -> list[Any]:
    """Inputs, targets and mask of one sequence whose random words are chosen."""
    batch = data.make_at(np.array([words], dtype=np.uint64), length)
    return [torch.as_tensor(part)[0].int().tolist() for part in batch]


def test_associative_recall_by_hand() -> None:
    """Keys 5 and 3 have the values 13 and 8. 3 is asked at step 4, 5 at step 8; at 6 and 11 they only stand there."""
    keys, values = [4, 1], [6, 0]  # of 1 to 6: the fifth, then the third; of 7 to 13: the last, then the second
    gaps = [1 << 62, 2 << 62, 0, 3 << 62]  # the first key takes the least, the second key the next
    others = [0, 0, 0, 0, 0, 11, 5, 0, 0, 2, 13, 3]
    data = AssociativeRecall(length=12, pairs=2, vocabulary=14, power=1, **SMALL)
    assert by_hand(data, [*keys, *values, *gaps, *others], 12) == [
        [5, 13, 3, 8, 3, 11, 5, 0, 5, 2, 13, 3],
        [0, 0, 0, 0, 8, 0, 0, 0, 13, 0, 0, 0],
        [0, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0],
    ]


def test_induction_heads_by_hand() -> None:
    """The marker is 4. The last word places the first one: at step 2, and at the last place that it can have."""
    data = InductionHeads(length=7, alphabet=4, **SMALL)
    assert by_hand(data, [2, 0, 1, 3, 1, 2, 2], 7) == [[2, 0, 4, 3, 1, 2, 4], 3]
    assert by_hand(data, [2, 0, 1, 3, 0, 1, 4], 7) == [[2, 0, 1, 3, 4, 1, 4], 1]


def test_selective_copy_by_hand() -> None:
    """3, 1 and 4 lie where the three least words are, and three markers, 5, ask for them."""
    data = SelectiveCopy(delay=6, symbols=3, alphabet=4, **SMALL)
    assert by_hand(data, [2, 0, 3, 9, 1, 1 << 63, 7, 0, 2], 6) == [
        [0, 3, 0, 0, 1, 4, 5, 5, 5],
        [0, 0, 0, 0, 0, 0, 3, 1, 4],
        [0, 0, 0, 0, 0, 0, 1, 1, 1],
    ]


def test_flip_flop_by_hand() -> None:
    """Write 1, ignore 0, read 1, write 0, ignore 1, read 0, write 1, read 1. What is drawn behind reads is not used."""
    write, read, ignore, one = 2 << 62, 3 << 62, 0, 1 << 63
    words = [write, one, ignore, 0, read, 0, write, 0, ignore, one, read, one, write, one, read, 0]
    assert by_hand(FlipFlop(length=16, ignored=0.5, **SMALL), words, 16) == [
        [2, 1, 4, 0, 3, 1, 2, 0, 4, 1, 3, 0, 2, 1, 3, 1],
        [0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0],
        [0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1, 0],
    ]


@pytest.mark.parametrize("kind", KINDS)
def test_a_sample_is_a_function_of_seed_split_and_index_at_every_length(kind: str) -> None:
    length = KINDS[kind][2]
    first, again = made(kind, val_lengths=[length]), made(kind, val_lengths=[length])
    for mine, theirs in (
        (first.split("test"), again.split("test")),
        (first.other_splits("test")[0], again.other_splits("test")[0]),
    ):
        for one, two in zip(mine[np.arange(6)], theirs[np.arange(5, -1, -1)], strict=True):
            assert torch.equal(one, two.flip(0))
    assert first.other_tasks()[length].length == first.other_splits("val")[0][np.arange(2)][0].shape[1]
    changed = first.changeable(first.split("val")[np.arange(3)][0])
    assert changed.shape == (3, first.task.length)


@pytest.mark.parametrize(
    ("kind", "options", "names"),
    [
        ("recall", {"length": 18}, "length is 18"),
        ("recall", {"length": 21}, "length is 21"),
        ("recall", {"vocabulary": 11}, "vocabulary is 11"),
        ("recall", {"vocabulary": 20}, "length is 24"),
        ("recall", {"pairs": 0}, "pairs is 0"),
        ("recall", {"power": math.nan}, "power is nan"),
        ("induction", {"length": 2}, "length is 2"),
        ("induction", {"alphabet": 1}, "alphabet is 1"),
        ("selective", {"delay": 3}, "delay is 3"),
        ("selective", {"val_lengths": [3]}, "val_lengths is 3"),
        ("flip-flop", {"length": 7}, "length is 7"),
        ("flip-flop", {"ignored": 1.5}, "ignored is 1.5"),
    ],
)
def test_what_cannot_be_is_refused_by_name(kind: str, options: dict[str, Any], names: str) -> None:
    with pytest.raises(UserError, match=f"data.init_args.{names}"):
        made(kind, **options)
