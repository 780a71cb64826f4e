"""Copying memory against the papers: two layouts by hand, uniform symbols, chance by simulation, bad input."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

from datamodules import CopyMemory, UserError
from tests.datamodules.test_adding import draw


def make(**options):
    sizes = {"train_samples": 16, "val_samples": 16, "test_samples": 16, "batch_size": 8, "seed": 0}
    return CopyMemory(**sizes | options)


def significant(counts):
    """p-value of a chi-square test of `counts` that should be uniform below 1e-5: no accident."""
    return stats.chisquare(counts).pvalue < 1e-5


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_common_layout_by_hand(split):
    """3 symbols, delay 4: s s s | 3 blanks, marker, 3 blanks; answers after 7 blanks, one step after the marker."""
    inputs, targets = draw(make(delay=4, symbols=3, alphabet=8), split)
    assert inputs.shape == targets.shape == (16, 10)
    assert inputs.dtype == targets.dtype == np.int64
    for x, y in zip(inputs, targets, strict=True):
        s = x[:3].tolist()
        assert all(1 <= symbol <= 8 for symbol in s)
        assert x.tolist() == [*s, 0, 0, 0, 9, 0, 0, 0]
        assert y.tolist() == [0, 0, 0, 0, 0, 0, 0, *s]


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_exprnn_layout_by_hand(split):
    """3 symbols, delay 4: s s s | 4 blanks, marker, 2 blanks; the first answer is due at the marker's own step."""
    inputs, targets = draw(make(delay=4, symbols=3, alphabet=8, protocol="exprnn"), split)
    assert inputs.shape == targets.shape == (16, 10)
    assert inputs.dtype == targets.dtype == np.int64
    for x, y in zip(inputs, targets, strict=True):
        s = x[:3].tolist()
        assert all(1 <= symbol <= 8 for symbol in s)
        assert x.tolist() == [*s, 0, 0, 0, 0, 9, 0, 0]
        assert y.tolist() == [0, 0, 0, 0, 0, 0, 0, *s]


@pytest.mark.parametrize(("protocol", "after"), [("common", 1), ("exprnn", 0)])
@pytest.mark.parametrize(("delay", "symbols", "alphabet"), [(1, 1, 2), (1, 10, 8), (100, 10, 8), (13, 4, 30)])
def test_layout_in_general(protocol, after, delay, symbols, alphabet):
    data = make(delay=delay, symbols=symbols, alphabet=alphabet, protocol=protocol)
    inputs, targets = draw(data)
    length = delay + 2 * symbols
    assert inputs.shape == targets.shape == (16, length)
    sequence, marker = inputs[:, :symbols], np.flatnonzero(inputs[0] == alphabet + 1)
    assert ((sequence >= 1) & (sequence <= alphabet)).all()
    assert marker.tolist() == [delay + symbols - after]
    assert (inputs[:, marker[0]] == alphabet + 1).all()
    assert (np.delete(inputs, [*range(symbols), marker[0]], axis=1) == 0).all()
    assert (targets[:, : delay + symbols] == 0).all()
    assert (targets[:, delay + symbols :] == sequence).all()
    assert data.task.length == length
    assert inputs.max() == data.task.input_size - 1
    assert targets.max() < data.task.target_size


def test_the_protocols_differ_in_the_marker_alone():
    """Same seed, same symbols: the marker of the expRNN layout comes one step later."""
    common, y_common = draw(make(delay=5))
    exprnn, y_exprnn = draw(make(delay=5, protocol="exprnn"))
    assert (y_common == y_exprnn).all()
    assert (common[:, :10] == exprnn[:, :10]).all()
    assert np.flatnonzero((common != exprnn).any(axis=0)).tolist() == [14, 15]
    assert (common[:, 14] == 9).all()
    assert (exprnn[:, 15] == 9).all()


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_symbols_are_uniform_and_independent(split):
    sizes = {"train_samples": 4000, "val_samples": 4000, "test_samples": 4000, "batch_size": 1000}
    inputs, _ = draw(make(delay=1, seed=17, **sizes), split)
    sequence = inputs[:, :10] - 1
    assert len(sequence) == 4000
    assert not significant(np.bincount(sequence.ravel(), minlength=8))
    for position in range(10):
        assert not significant(np.bincount(sequence[:, position], minlength=8)), position
    neighbours = 8 * sequence[:, :-1] + sequence[:, 1:]
    assert not significant(np.bincount(neighbours.ravel(), minlength=64))
    ends = 8 * sequence[:, 0] + sequence[:, -1]
    assert not significant(np.bincount(ends, minlength=64))
    successive_samples = 8 * sequence[:-1] + sequence[1:]
    assert not significant(np.bincount(successive_samples.ravel(), minlength=64))


def test_a_small_odd_alphabet_is_uniform_too():
    inputs, _ = draw(make(delay=1, symbols=5, alphabet=3, val_samples=3000, batch_size=1000))
    assert not significant(np.bincount(inputs[:, :5].ravel() - 1, minlength=3))


def test_neighbouring_seeds_are_independent():
    """The first sample of 300 seeds in a row is as random as 300 samples of one seed."""
    first = np.stack([draw(make(delay=1, seed=seed, val_samples=1))[0][0, :10] for seed in range(300)]) - 1
    assert not significant(np.bincount(first.ravel(), minlength=8))
    assert not significant(np.bincount((8 * first[:-1] + first[1:]).ravel(), minlength=64))


@pytest.mark.parametrize("protocol", ["common", "exprnn"])
def test_chance_by_simulation(protocol):
    """Class frequencies per step, counted on one split, score `chance` on another: no memory does better."""
    data = make(
        delay=20, symbols=10, alphabet=8, protocol=protocol, train_samples=4000, val_samples=4000, batch_size=500
    )
    _, seen = draw(data, "train")
    _, unseen = draw(data, "val")
    frequency = np.stack([(seen == symbol).mean(axis=0) for symbol in range(9)])
    with np.errstate(divide="ignore"):
        loss = -np.log(frequency)[unseen, np.arange(40)].mean()
    assert loss == pytest.approx(10 * math.log(8) / 40, rel=5e-3)
    assert data.task.chance == pytest.approx(loss, rel=5e-3)


def test_raw_numbers_are_the_symbols():
    """As nnRNN's code feeds them: the sequences of the one-hot task, one number a step, targets the same."""
    symbols, raw = make(delay=6), make(delay=6, raw=True)
    x, y = symbols.split("val")[np.arange(16)]
    numbers, same = raw.split("val")[np.arange(16)]
    assert numbers.dtype == torch.float32 and numbers.shape == (16, 26, 1)
    assert torch.equal(numbers[..., 0].long(), x) and torch.equal(same, y)
    assert (raw.task.inputs, raw.task.input_size, raw.bounds) == ("values", 1, (0, 9))
    assert raw.task.chance == symbols.task.chance and torch.equal(raw.changeable(numbers), numbers == 0)


def test_reuse_repeats_the_same_sequences_in_another_order():
    data = make(delay=2, reuse=True, train_samples=64, batch_size=16)
    data.prepare_data()
    data.setup("fit")
    loader = data.loader("train", rank=0, world_size=1)
    epochs = [torch.cat([x for x, _ in loader]).tolist() for _ in range(3)]
    assert len(epochs[0]) == 64
    assert sorted(epochs[0]) == sorted(epochs[1]) == sorted(epochs[2])
    assert epochs[0] != epochs[1] != epochs[2] != epochs[0]


def test_without_reuse_every_epoch_is_fresh():
    data = make(delay=2, train_samples=64, batch_size=16)
    data.prepare_data()
    data.setup("fit")
    loader = data.loader("train", rank=0, world_size=1)
    rows = [tuple(row) for _ in range(5) for x, _ in loader for row in x.tolist()]
    assert len(rows) == len(set(rows)) == 5 * 64


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("delay", 0),
        ("delay", -5),
        ("symbols", 0),
        ("symbols", -1),
        ("alphabet", 0),
        ("alphabet", -8),
        ("train_samples", 0),
        ("train_samples", -64),
        ("val_samples", 0),
        ("val_samples", -3),
        ("test_samples", 0),
        ("test_samples", -3),
        ("batch_size", 0),
        ("batch_size", -16),
        ("num_workers", -1),
        ("protocol", "lstm"),
    ],
)
def test_bad_input_is_one_sentence_naming_the_key(key, value):
    with pytest.raises(UserError) as caught:
        make(**{key: value})
    message = str(caught.value)
    assert "\n" not in message
    assert key in message
    assert str(value) in message


def test_a_negative_delay_is_refused_in_the_exprnn_layout():
    with pytest.raises(UserError, match="delay"):
        make(delay=-1, protocol="exprnn")


def test_an_unknown_protocol_is_told_the_known_ones():
    with pytest.raises(UserError, match="common") as caught:
        make(protocol="lstm")
    assert "exprnn" in str(caught.value)


@pytest.mark.parametrize("seed", [-1, 2**63, 2**40])
def test_an_odd_seed_works_or_is_refused_in_a_sentence(seed):
    try:
        inputs, _ = draw(make(delay=2, seed=seed))
    except UserError as error:
        assert "seed" in str(error)
    else:
        assert inputs.shape == (16, 22)
