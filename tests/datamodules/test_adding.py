"""The adding problem against the papers: halves of both protocols, uniform values, chance by simulation, bad input."""

import numpy as np
import pytest
import torch
from scipy import stats

from datamodules import Adding, UserError
from datamodules.adding import value_first
from lit_rnn.models import VanillaRNN


def make(**options):
    sizes = {"train_samples": 16, "val_samples": 16, "test_samples": 16, "batch_size": 8, "seed": 0}
    return Adding(**sizes | options)


def draw(data, split="val"):
    """All samples of a split, in one pass: inputs and targets as NumPy arrays."""
    data.prepare_data()
    data.setup("test" if split == "test" else "fit")
    batches = list(data.loader(split, rank=0, world_size=1))
    return tuple(torch.cat([batch[part] for batch in batches]).numpy() for part in (0, 1))


def marks(inputs):
    """The two marked steps of every sequence, (B, 2), earlier one first."""
    steps = np.nonzero(inputs[:, :, 1])[1]
    return steps.reshape(len(inputs), 2)


# The scoRNN code halves at floor((T - 1) / 2), the uRNN code at floor(T / 2); they differ for even T.
HALVES = [
    ("scornn", 10, 4),
    ("urnn", 10, 5),
    ("scornn", 11, 5),
    ("urnn", 11, 5),
    ("scornn", 3, 1),
    ("urnn", 2, 1),
    ("urnn", 3, 1),
    ("scornn", 4, 1),
    ("urnn", 4, 2),
]


@pytest.mark.parametrize("split", ["train", "val", "test"])
@pytest.mark.parametrize("protocol", ["scornn", "urnn"])
def test_one_sequence_by_hand(split, protocol):
    """A value and a mark at each step, two marks in all, and the sum of the two marked values as the only target."""
    inputs, targets = draw(make(length=12, protocol=protocol), split)
    assert inputs.shape == (16, 12, 2)
    assert targets.shape == (16, 1)
    assert inputs.dtype == targets.dtype == np.float32
    for x, y in zip(inputs, targets, strict=True):
        value, mark = x[:, 0].tolist(), x[:, 1].tolist()
        assert sorted(mark) == [0.0] * 10 + [1.0] * 2
        first = mark.index(1.0)
        second = mark.index(1.0, first + 1)
        assert first < {"scornn": 5, "urnn": 6}[protocol] <= second
        assert y[0] == pytest.approx(value[first] + value[second], abs=1e-6)


@pytest.mark.parametrize(("protocol", "length", "half"), HALVES)
def test_marks_fill_their_halves_exactly(protocol, length, half):
    inputs, _ = draw(make(length=length, protocol=protocol, val_samples=1000, batch_size=500))
    positions = marks(inputs)
    assert set(positions[:, 0].tolist()) == set(range(half))
    assert set(positions[:, 1].tolist()) == set(range(half, length))


@pytest.mark.parametrize(
    ("protocol", "length", "half"), [("scornn", 750, 374), ("urnn", 750, 375), ("scornn", 200, 99), ("urnn", 200, 100)]
)
def test_marks_are_uniform_over_the_halves_of_the_papers_lengths(protocol, length, half):
    inputs, _ = draw(make(length=length, protocol=protocol, val_samples=1500, batch_size=500, seed=5))
    first, second = marks(inputs).T
    assert first.max() < half <= second.min()
    for steps, start, width in ((first, 0, half), (second, half, length - half)):
        edges = np.linspace(0, width, 9).astype(int)
        counts = np.histogram(steps - start, bins=edges - 0.5)[0]
        assert counts.sum() == 1500
        assert stats.chisquare(counts, 1500 * np.diff(edges) / width).pvalue > 1e-5
    early = 2 * (first < half / 2) + (second < half + (length - half) / 2)
    joint = np.bincount(early, minlength=4).reshape(2, 2)
    assert stats.chi2_contingency(joint).pvalue > 1e-5


def test_the_default_protocol_is_scornn():
    default, _ = draw(make(length=10))
    named, _ = draw(make(length=10, protocol="scornn"))
    assert (default == named).all()


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_values_are_uniform_marked_or_not(split):
    sizes = {"train_samples": 2000, "val_samples": 2000, "test_samples": 2000, "batch_size": 500}
    inputs, _ = draw(make(length=10, seed=11, **sizes), split)
    value, marked = inputs[..., 0], inputs[..., 1] == 1
    assert value.min() >= 0 and value.max() <= 1
    for sample in (value[marked], value[~marked], value[:, 0], value[:, -1]):
        assert stats.kstest(sample, "uniform").pvalue > 1e-5
    for left, right in ((value[:, :-1], value[:, 1:]), (value[:-1], value[1:])):
        assert abs(np.corrcoef(left.ravel(), right.ravel())[0, 1]) < 5 / np.sqrt(left.size)


@pytest.mark.parametrize("protocol", ["scornn", "urnn"])
def test_chance_by_simulation(protocol):
    """The mean squared error of the constant 1 is 1/6, and no other constant does better."""
    data = make(length=6, protocol=protocol, val_samples=20000, batch_size=5000)
    _, targets = draw(data)
    y = targets[:, 0].astype(np.float64)
    five_sigma = 5 * np.sqrt(1 / 15 - 1 / 36) / np.sqrt(len(y))
    assert ((y - 1) ** 2).mean() == pytest.approx(1 / 6, abs=five_sigma)
    assert data.task.chance == pytest.approx(((y - 1) ** 2).mean(), abs=five_sigma)
    assert y.mean() == pytest.approx(1, abs=5 * np.sqrt(1 / 6) / np.sqrt(len(y)))


@pytest.mark.parametrize(
    ("key", "options"),
    [
        ("length", {"length": 1}),
        ("length", {"length": 0}),
        ("length", {"length": -750}),
        ("length", {"length": 2, "protocol": "scornn"}),
        ("length", {"length": 1, "protocol": "urnn"}),
        ("train_samples", {"train_samples": 0}),
        ("val_samples", {"val_samples": -1}),
        ("test_samples", {"test_samples": 0}),
        ("batch_size", {"batch_size": 0}),
        ("protocol", {"protocol": "exprnn"}),
    ],
)
def test_bad_input_is_one_sentence_naming_the_key(key, options):
    with pytest.raises(UserError) as caught:
        make(**options)
    message = str(caught.value)
    assert "\n" not in message
    assert key in message
    assert str(options[key]) in message


def test_the_mark_first_is_the_same_sequence_with_its_channels_exchanged():
    """Words by hand: 2^64 k / 8 is the number k / 8; h = 2, so the marks are at steps 0.5 * 2 and 2 + 0.25 * 2."""
    words = np.array([[4, 2, 1, 3, 5, 7]], dtype=np.uint64) << np.uint64(61)
    inputs, targets = make(length=4, protocol="urnn", mark_first=True).make(words)
    assert inputs.tolist() == [[[0, 0.125], [1, 0.375], [1, 0.625], [0, 0.875]]]
    assert targets.tolist() == [[1.0]]
    other, same = make(length=4, protocol="urnn").make(words)
    assert torch.equal(other, inputs.flip(-1)) and torch.equal(same, targets)
    assert torch.equal(value_first(inputs[0]), other[0]) and torch.equal(value_first(other[0]), other[0])
    free = make(length=4, protocol="urnn", mark_first=True).changeable(inputs)
    assert free.tolist() == [[[False, True], [False, False], [False, False], [False, True]]]


def test_the_source_of_a_chain_reads_the_mark_where_it_is_first():
    data = make(length=4, protocol="urnn", mark_first=True)
    V = VanillaRNN(data.task, 5, init="chain").cell_list()[0].input.weight
    assert (V[0] @ torch.tensor([1.0, 0.0])).item() == pytest.approx(0.9) and not (V[0] @ torch.tensor([0.0, 1.0]))


def test_an_unknown_protocol_is_told_the_known_ones():
    with pytest.raises(UserError, match="scornn") as caught:
        make(protocol="half")
    assert "urnn" in str(caught.value)
