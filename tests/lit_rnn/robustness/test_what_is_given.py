"""What an attack or a certificate cannot take is told in a sentence, where torch failed inside or went on silently."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from datamodules import UserError
from lit_rnn import robustness
from lit_rnn.cells import LSTMCell, VanillaRNNCell
from lit_rnn.models import LSTM
from lit_rnn.scan import scan
from tests.lit_rnn.models.test_plain_trainer import TASK

X, Y = torch.rand(2, 3, 2), torch.tensor([0, 1])


def values(x: Tensor) -> Tensor:
    return x.sum(1)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"model": None}, "model is of type NoneType"),
        ({"model": lambda x: (values(x),)}, "The model returns tuple"),
        ({"model": lambda x: values(x).detach()}, "No gradient reaches the inputs"),
        ({"x": X.numpy()}, "x is of type ndarray"),
        ({"y": [0, 1]}, "y is of type list"),
        ({"y": torch.tensor([1, 2])}, "y is .1, 2., but it must be classes from 0 to 1"),
        ({"y": Y[:, None]}, r"y is 'torch.int64 \(2, 1\)', but it must be classes \(2,\) or numbers \(2, 2\)"),
        ({"y": torch.rand(2), "loss": "squared_error"}, "numbers"),  # torch spread it over the outputs
        ({"mask": np.ones((2, 3, 2))}, "mask is of type ndarray"),
        ({"scored": torch.ones(2, 3)}, r"scored is \(2, 3\)"),
        ({"lengths": [3, 2]}, "lengths is of type list"),
        ({"eps": None}, "eps is null"),
        ({"eps": True}, "eps is true"),
        ({"norm": "l2"}, "norm is 'l2', but it must be inf or 2"),
        ({"bounds": 1.0}, "bounds is 1.0"),
        ({"bounds": (None, 1)}, "bounds is .None, 1."),
        ({"step_size": "x"}, "step_size is 'x'"),
    ],
)
def test_of_pgd(options: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        robustness.pgd(**{"model": values, "x": X, "y": Y, "eps": 0.1, "steps": 1, **options})


def test_classes_may_be_small_integers() -> None:
    expected = robustness.pgd(values, X, Y, 0.1, steps=1)
    assert torch.equal(robustness.pgd(values, X, Y.to(torch.int32), 0.1, steps=1), expected)


@pytest.mark.parametrize("wrong", ["a", None, True, np.nan, -1, np.inf])
def test_what_is_no_number(wrong: Any) -> None:
    for argument, call in (
        ("sigma", lambda: robustness.additive_noise(X, wrong)),
        ("sigma", lambda: robustness.smooth_certify(values, X, wrong, 2, 2)),
        ("sigma", lambda: robustness.smoothed_radius(0.6, wrong)),
        ("share", lambda: robustness.salt_and_pepper(X, wrong)),
        *((("tolerance", lambda: robustness.off_by(wrong)),) if wrong != np.inf else ()),
        ("alpha", lambda: robustness.clopper_pearson_lower(1, 2, wrong)),
        ("window", lambda: robustness.random_search(values, X, Y, 0.1, queries=2, window=wrong)),
    ):
        with pytest.raises(UserError, match=rf"^{argument} is "):
            call()


def test_a_decoder_reads_the_cell() -> None:
    """One of another width gave a bound of nothing."""
    decoder: Any
    for decoder in (torch.eye(3), torch.ones(4), None):
        with pytest.raises(UserError, match="decoder"):
            robustness.lipschitz_bound(VanillaRNNCell(2, 4), decoder, 3)


def test_intervals_are_as_wide_as_the_cell() -> None:
    cell, x = VanillaRNNCell(2, 4), torch.rand(1, 5, 3)
    with pytest.raises(UserError, match=r"x_low is .*but it must be 2 wide"):
        robustness.interval_bounds(cell, torch.nn.Linear(4, 2), x, x)
    with pytest.raises(UserError, match=r"decoder.weight is .*but it must be 4 wide"):
        robustness.interval_bounds(cell, torch.nn.Linear(3, 2), x[..., :2], x[..., :2])


def test_symbols_begin_at_nought() -> None:
    """A negative one was counted from the end of the vocabulary."""
    x = torch.tensor([[0, -1, 2]])
    with pytest.raises(UserError, match="x is -1, but it must be a symbol from 0 to 3"):
        robustness.symbol_swap(lambda x: torch.rand(1, 2), x, Y[:1], 1, 4)


@pytest.mark.parametrize("seed", [-1, 2**63, 2**64, 0.5, True, None])
def test_seeds_are_those_of_torch(seed: Any) -> None:
    """The largest of all is one: torch refused 2^64 by an overflow."""
    for call in (
        lambda: robustness.additive_noise(X, 0.1, seed=seed),
        lambda: robustness.smooth_certify(values, X, 0.1, 2, 2, seed=seed),
    ):
        with pytest.raises(UserError, match=r"^seed is .*at least 0, below 2\^63"):
            call()
    robustness.additive_noise(X, 0.1, seed=2**63 - 1)


def test_a_model_is_no_cell_to_scan() -> None:
    x = torch.rand(3, 2, 2)
    cell: Any
    for cell in (LSTM(TASK, 4), torch.nn.LSTM(2, 4), None):
        with pytest.raises(UserError, match="cell is of type"):
            scan(cell, x)
    every: Any
    for every in (2.5, True, 0):
        with pytest.raises(UserError, match="checkpoint_every"):
            scan(LSTMCell(2, 4), x, checkpoint_every=every)
