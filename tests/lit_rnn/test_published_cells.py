"""Forms of a network that one published code has: its recurrence and its start, written out in NumPy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from datamodules import PixelMNIST
from datamodules.errors import UserError
from lit_rnn.cells import Cell, HouseholderRNNCell
from lit_rnn.models import HouseholderRNN
from lit_rnn.models.base import count_parameters
from lit_rnn.scan import scan

F64 = torch.float64
Array = np.ndarray
PIXELS = PixelMNIST().task
T, B, I, N = 7, 3, 2, 6  # noqa: E741


def drawn(cell: Cell, seed: int = 0) -> tuple[Cell, dict[str, Array], Tensor]:
    """The cell in float64 with numbers of ours everywhere, those numbers, and inputs."""
    rng = np.random.default_rng(seed)
    cell = cell.double()
    for parameter in cell.parameters():
        parameter.data = torch.tensor(rng.normal(scale=0.7, size=tuple(parameter.shape)))
    p = {name: parameter.detach().numpy().copy() for name, parameter in cell.named_parameters()}
    return cell, p, torch.tensor(rng.normal(size=(T, B, I)))


def close(a: Tensor, b: Array) -> None:
    np.testing.assert_allclose(a.detach().numpy(), b, rtol=0, atol=1e-12)


# -- oRNN (Mhammedi et al. 2017) -------------------------------------------------------------------

FUNCTIONS: dict[str, Callable[[Array], Array]] = {
    "leaky_relu": lambda z: np.where(z < 0, 0.1 * z, z),
    "tanh": np.tanh,
}


@pytest.mark.parametrize("backend", ["loop", "fused", "native"])
@pytest.mark.parametrize("f", FUNCTIONS)
@pytest.mark.parametrize("m", [1, 4, N])
def test_ornn_with_its_bias_inside(f: Any, m: int, backend: Any) -> None:
    """h_t = f(H_1 .. H_m h_{t-1} + V x_t + b), u_k zero above row k."""
    cell, p, x = drawn(HouseholderRNNCell(I, N, m, nonlinearity=f), seed=m)
    W, taken = np.eye(N), 0
    for k in range(m):
        u = np.concatenate([np.zeros(k), p["recurrent.vectors"][taken : (taken := taken + N - k)]])
        W = W @ (np.eye(N) - 2 * np.outer(u, u) / (u @ u))
    h, expected = np.tile(p["initial.0"], (B, 1)), []
    for x_t in x.numpy():
        h = FUNCTIONS[f](h @ W.T + x_t @ p["input.weight"].T + p["input.bias"])
        expected.append(h)
    y, (final,) = scan(cell, x, backend=backend)
    close(y, np.stack(expected))
    close(final, h)


def test_ornn_starts_as_released() -> None:
    """V Glorot uniform, b zero, h_0 within sqrt(3 / 2n); as many numbers as with modReLU, whose b lies outside."""
    torch.manual_seed(0)
    model = HouseholderRNN(PIXELS, 200, nonlinearity="leaky_relu", decoder_init="xavier")
    cell = model.cell_list()[0]
    assert not cell.input.bias.any()
    V, h = cell.input.weight.detach().abs(), cell.initial[0].detach().abs()
    for x, bound in ((V, (6 / 201) ** 0.5), (h, (3 / 400) ** 0.5)):
        assert 0.95 * bound < x.max() <= bound
    assert count_parameters(model) == count_parameters(HouseholderRNN(PIXELS, 200))


def test_an_unknown_nonlinearity_is_one_sentence() -> None:
    accepted = "modrelu, tanh, relu, leaky_relu, elu, identity"
    with pytest.raises(UserError, match=f"model.init_args.nonlinearity is 'OPLU', but it must be one of {accepted}."):
        HouseholderRNN(PIXELS, 8, nonlinearity="OPLU")  # type: ignore[arg-type]
