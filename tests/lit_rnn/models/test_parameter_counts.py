"""Published model sizes on pixel MNIST (one input, ten classes) from the parameter counts of the equations."""

from collections.abc import Callable
from typing import Any

import pytest
from torch import nn

from datamodules import PixelMNIST
from lit_rnn.cells import ExpRNNCell
from lit_rnn.models import GRU, LSTM, DtrivRNN, ExpRNN, VanillaRNN

IN, OUT = 1, 10
Count = Callable[[int], int]


def trainable(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters() if p.requires_grad)


def orthogonal(n: int) -> int:
    """A skew generator, V, the bias of modReLU, and the affine readout: n(n-1)/2 + n in + n + n out + out."""
    return n * (n - 1) // 2 + n * IN + n + n * OUT + OUT


def vanilla(n: int) -> int:
    return n * n + n * IN + n + n * OUT + OUT


def lstm(n: int) -> int:
    """Four gates with one bias vector each."""
    return 4 * n * (IN + n + 1) + n * OUT + OUT


def gru(n: int) -> int:
    """Three gates with one bias vector each, and the candidate's second bias inside the reset gate."""
    return 3 * n * (IN + n + 1) + n + n * OUT + OUT


@pytest.mark.parametrize("model", [ExpRNN, DtrivRNN])
@pytest.mark.parametrize(("n", "published"), [(170, 16_415), (360, 68_950), (512, 136_970)])
def test_orthogonal_models_have_the_published_size(model: Callable[..., nn.Module], n: int, published: int) -> None:
    assert orthogonal(n) == published
    assert trainable(model(PixelMNIST().task, n)) == published


@pytest.mark.parametrize(("n", "thousands"), [(128, 68), (512, 1058)])
def test_lstm_has_the_published_size(n: int, thousands: int) -> None:
    assert round(lstm(n) / 1000) == thousands
    assert trainable(LSTM(PixelMNIST().task, n)) == lstm(n)


@pytest.mark.parametrize("n", [1, 7, 128])
@pytest.mark.parametrize(
    ("model", "closed_form"),
    [(ExpRNN, orthogonal), (DtrivRNN, orthogonal), (VanillaRNN, vanilla), (LSTM, lstm), (GRU, gru)],
)
def test_model_size_is_its_closed_form(model: Callable[..., nn.Module], closed_form: Count, n: int) -> None:
    assert trainable(model(PixelMNIST().task, n)) == closed_form(n)


def test_the_lower_half_of_the_generator_is_not_counted() -> None:
    """The released code registers n^2 numbers for A and uses n(n-1)/2 of them."""
    cell: Any = ExpRNNCell(IN, 170)
    assert trainable(cell) == 170 * 169 // 2 + 170 * IN + 170
