"""Attacks by name: what each may change, what it records, and which are refused where."""

from __future__ import annotations

import functools
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from datamodules import Adding, CopyMemory, Denoise, PixelDigits, PixelMNIST, SequenceDataModule
from datamodules.errors import UserError
from lit_rnn.models import GRU, LSTM, SequenceModel, VanillaRNN
from lit_rnn.robustness import ATTACKS, Effort, Examples, check_size, clean, evaluate, off_by, refusal, worst_case
from lit_rnn.robustness.surroundings import gradients_in_time, nearest_other_class

SMALL = {"train_samples": 8, "val_samples": 8, "test_samples": 8, "batch_size": 8, "seed": 0}
QUICK = Effort(steps=3, restarts=2, queries=6, draws=3)


class Blank(PixelMNIST):
    """Random images with the blank step behind them."""

    def images(self, name: Any) -> tuple[Tensor, Tensor]:
        g = torch.Generator().manual_seed(0)
        return torch.randint(256, (8, 784, 1), generator=g, dtype=torch.uint8), torch.arange(8)


def examples_of(data: SequenceDataModule, model: type[SequenceModel], embedded: bool = False) -> Examples:
    torch.manual_seed(0)
    net = model(data.task, 6)
    batch = data.split("val")[np.arange(6)]
    x, mask = batch[0], data.changeable(batch[0])
    symbols = data.task.inputs == "symbols"
    if embedded:
        x = net.encode(x)
        mask = mask[..., None].expand_as(x)
    return Examples(
        net,
        x,
        batch[1],
        mask,
        None if symbols else (0.0, 1.0),
        batch[2] if len(batch) > 2 else None,
        None if data.task.classifies else off_by(0.04),
        data.task.input_size if symbols and not embedded else 0,
        batch_size=4,
    )


CASES: dict[str, Any] = {
    "digits": lambda: examples_of(PixelDigits(pixels_per_step=8), VanillaRNN),
    "blank step": lambda: examples_of(Blank(protocol="nru", pixels_per_step=56), GRU),
    "adding": lambda: examples_of(Adding(length=9, **SMALL), LSTM),
    "copying": lambda: examples_of(CopyMemory(delay=4, symbols=2, **SMALL), LSTM),
    "denoising": lambda: examples_of(Denoise(delay=4, symbols=2, **SMALL), GRU),
    "copying, embedded": lambda: examples_of(CopyMemory(delay=4, symbols=2, **SMALL), LSTM, True),
}
PAIRS = [(case, name) for case in CASES for name in ATTACKS if refusal(CASES[case](), name) is None]


@pytest.mark.parametrize(("case", "name"), PAIRS)
def test_what_decides_the_answer_is_never_touched(case: str, name: str) -> None:
    e = CASES[case]()
    eps = 2 if ATTACKS[name].unit == "swaps" else 0.3
    for norm in (math.inf, 2.0) if ATTACKS[name].unit == "ball" else (math.inf,):
        result, moved = evaluate(e, name, norm, eps, QUICK)
        assert moved.shape == e.x.shape and moved.dtype == e.x.dtype
        assert torch.equal(moved[~e.mask], e.x[~e.mask])
        if name in ("noise", "fgsm"):  # others leave alone who is fooled
            assert not torch.equal(moved, e.x)
        if ATTACKS[name].unit == "ball":
            size = (moved - e.x).flatten(1).double()
            assert float(torch.linalg.vector_norm(size, ord=norm, dim=1).max()) <= eps + 1e-6
        if e.bounds:
            assert moved.min() >= 0 and moved.max() <= 1
        value, fooled = e.judge(moved)
        np.testing.assert_array_equal(result.fooled, fooled.numpy())
        np.testing.assert_allclose(result.loss, value.double().numpy(), rtol=1e-5, atol=1e-6)
        assert result.eps == eps and result.norm == (norm if ATTACKS[name].unit == "ball" else ATTACKS[name].unit)
        assert result.settings["seed"] == 0 and result.kind == ATTACKS[name].kind


def test_every_case_has_its_attacks() -> None:
    ball = {"fgsm", "pgd", "search", "uniform", "noise", "multiplicative"}
    expected = {
        "digits": ball | {"pgd_margin", "salt_and_pepper"},
        "blank step": ball | {"pgd_margin", "salt_and_pepper"},
        "adding": ball | {"pgd_over", "pgd_under", "salt_and_pepper"},
        "copying": {"swaps", "random_swaps"},
        "denoising": {"swaps", "random_swaps"},
        "copying, embedded": ball | {"pgd_margin"},
    }
    assert {case: {name for c, name in PAIRS if c == case} for case in CASES} == expected


def sums(x: Tensor) -> Tensor:
    """Two logits of each example, computed apart from all others."""
    total = (x * torch.arange(1, x.shape[1] + 1).view(-1, *[1] * (x.dim() - 2))).double().flatten(1).sum(1)
    return torch.stack([total, torch.full_like(total, 15.0)], 1)


@pytest.mark.parametrize("name", [name for name in ATTACKS if name not in ("fgsm", "pgd_over", "pgd_under")])
def test_what_is_drawn_for_an_example_does_not_depend_on_the_batch(name: str) -> None:
    """Nor on how many others there are; roots may round otherwise elsewhere in a tensor."""
    same = functools.partial(torch.testing.assert_close, rtol=0, atol=1e-6)
    swaps = ATTACKS[name].unit == "swaps"
    g = torch.Generator().manual_seed(1)
    x = torch.randint(4, (130, 5), generator=g) if swaps else torch.rand(130, 5, 2, generator=g)
    y, eps = sums(x).argmax(1), 2 if swaps else 0.2
    e = Examples(sums, x, y, torch.ones_like(x).bool(), None if swaps else (0.0, 1.0), vocabulary=4 * swaps)
    for norm in (math.inf, 2.0) if ATTACKS[name].unit == "ball" else (math.inf,):
        result, moved = evaluate(e, name, norm, eps, QUICK, seed=3)
        for batch_size in (130, 30):
            again, others = evaluate(replace(e, batch_size=batch_size), name, norm, eps, QUICK, seed=3)
            same(others, moved)
            np.testing.assert_array_equal(again.fooled, result.fooled)
        fewer = replace(e, x=x[:110], y=y[:110], mask=e.mask[:110])
        same(evaluate(fewer, name, norm, eps, QUICK, seed=3)[1], moved[:110])
        alone = (
            evaluate(replace(e, x=x[rows], y=y[rows], mask=e.mask[rows]), name, norm, eps, QUICK, seed)[1]
            for rows, seed in ((slice(100), 3), (slice(100, None), 4))
        )
        same(torch.cat(list(alone)), moved)


def test_the_numbers_are_those_of_the_whole_set() -> None:
    """Batches of four and two: who is fooled at eps 0, against the model itself; and attacks only add to them."""
    e = CASES["digits"]()
    with torch.no_grad():
        wrong = (e.model(e.x).argmax(1) != e.y).numpy()
    np.testing.assert_array_equal(clean(e).fooled, wrong)
    results = [evaluate(e, name, math.inf, 0.2, QUICK)[0] for name in ("fgsm", "pgd", "pgd_margin", "search")]
    for result in results[1:]:
        assert (result.fooled >= wrong).all(), "doing nothing is in the ball"
    assert worst_case(results).sum() == np.stack([r.fooled for r in results]).any(0).sum()
    still, _ = evaluate(e, "pgd", math.inf, 0.0, QUICK)
    np.testing.assert_array_equal(still.fooled, wrong)


def test_effort_is_recorded_and_used() -> None:
    e = CASES["digits"]()
    calls = [0]

    def counted(x: Tensor) -> Tensor:
        calls[0] += 1
        return torch.stack((x.sum((1, 2)) + 100, x.sum((1, 2))), 1)  # nobody is ever fooled

    watched = Examples(counted, e.x, torch.zeros(6, dtype=torch.int64), e.mask, e.bounds)
    for name, passes in (("pgd", 1 + 2 * (3 + 2)), ("search", 1 + 6), ("uniform", 1 + 3), ("fgsm", 1)):
        calls[0] = 0
        result, _ = evaluate(watched, name, math.inf, 0.2, QUICK)
        assert calls[0] == passes + 1, name  # and once to judge
        wanted = {"pgd": {"steps": 3, "restarts": 2}, "search": {"queries": 6}, "uniform": {"draws": 3}, "fgsm": {}}[
            name
        ]
        assert wanted.items() <= dict(result.settings).items()


@pytest.mark.parametrize(
    ("case", "name", "norm", "eps", "words"),
    [
        ("digits", "pgd", math.inf, 1.5, "eps is 1.5"),
        ("digits", "pgd", math.inf, -0.1, "eps is -0.1"),
        ("digits", "pgd", 2.0, 8.5, "at most 8"),
        ("digits", "noise", math.inf, 2.0, "the width of the data's range"),
        ("digits", "salt_and_pepper", math.inf, 1.2, "from 0 to 1"),
        ("copying", "swaps", math.inf, 1.5, "whole number of swaps, from 0 to the 5"),
        ("copying", "swaps", math.inf, 6, "whole number of swaps, from 0 to the 5"),
    ],
)
def test_sizes_beyond_the_data_are_refused(case: str, name: str, norm: float, eps: float, words: str) -> None:
    with pytest.raises(UserError, match=words):
        check_size(CASES[case](), name, norm, eps)
    check_size(CASES[case](), name, norm, 1)


def test_no_effort_is_refused() -> None:
    for name in ("steps", "restarts", "queries", "draws"):
        with pytest.raises(UserError, match=name):
            Effort(**{name: 0})


def test_zero_gradients_count_from_the_first_input_that_is_not_0() -> None:
    """A ReLU at its kink until something is read is no masking; a network whose gradients are 0 afterwards is."""

    def network(x: torch.Tensor) -> torch.Tensor:
        h = torch.zeros(len(x), 1)
        for step in x.unbind(1):
            h = torch.relu(h + step)
        return torch.cat((h, -h), 1)

    x = torch.tensor([[0.0, 0.0, 1.0], [0.0, 1.0, 0.0], [0.0, 1.0, -2.0]])[..., None]
    y, free = torch.zeros(3, dtype=torch.int64), torch.ones_like(x, dtype=torch.bool)
    for batch_size in (1, 3):
        zero, _ = gradients_in_time(Examples(network, x, y, free, batch_size=batch_size))
        # nothing read yet; the second is alive, the third dies at its last step; 1 of 3 that have begun
        np.testing.assert_allclose(zero["cross_entropy"], [np.nan, 1 / 2, 1 / 3], rtol=1e-12)


def test_padding_is_no_entry_that_might_be_changed() -> None:
    """Of 3 + 1 real steps of two channels, of which the second decides the answer."""
    x, lengths = torch.zeros(2, 3, 2), torch.tensor([3, 1])
    mask = (torch.arange(3) < lengths[:, None])[..., None].repeat(1, 1, 2)
    y = torch.zeros(2, dtype=torch.int64)
    assert Examples(torch.nn.Identity(), x, y, mask, lengths=lengths).free == 1
    mask[..., 1] = False
    assert Examples(torch.nn.Identity(), x, y, mask, lengths=lengths).free == 1 / 2
    assert Examples(torch.nn.Identity(), x, y, mask).free == pytest.approx(1 / 3)


def test_the_nearest_of_another_class_is_near_in_what_may_change() -> None:
    """By hand: 0, 1 and 3 along one entry; noise is held in the other, and no attack is kept away by it."""
    x = torch.tensor([[[0.0, 50]], [[1.0, -50]], [[3.0, 0]]])
    mask = torch.tensor([True, False]).expand(3, 1, 2)
    assert nearest_other_class(Examples(torch.nn.Identity(), x, torch.tensor([0, 1, 0]), mask)) == 1
    assert nearest_other_class(Examples(torch.nn.Identity(), x, torch.tensor([0, 1, 1]), mask)) == 1
    assert nearest_other_class(Examples(torch.nn.Identity(), x, torch.tensor([0, 0, 1]), mask)) == 2
    assert nearest_other_class(Examples(torch.nn.Identity(), x, torch.tensor([1, 1, 1]), mask)) is None


def test_gradients_in_time_are_means_over_the_examples_that_reach_there() -> None:
    """The margin of a sum and its negative grows by 2 with every real entry, however many sequences have ended."""
    lengths, x = torch.tensor([4, 2, 1]), torch.rand(3, 5, 1)
    real = (torch.arange(5) < lengths[:, None])[..., None]

    def model(x: Tensor, lengths: Tensor) -> Tensor:
        total = x.where((torch.arange(5) < lengths[:, None])[..., None], 0).sum((1, 2))
        return torch.stack((total, -total), dim=1)

    e = Examples(model, x.where(real, 0), torch.zeros(3, dtype=torch.long), real, lengths=lengths, batch_size=2)
    np.testing.assert_allclose(gradients_in_time(e)[1], [2, 2, 2, 2, math.nan])
