"""LipschitzRNN and AntisymmetricRNN against NumPy loops written from the equations."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from datamodules import PixelMNIST
from datamodules.errors import UserError
from lit_rnn.cells import AntisymmetricRNNCell, LipschitzRNNCell
from lit_rnn.models import AntisymmetricRNN, LipschitzRNN
from lit_rnn.scan import scan
from tests.oracles.maps import Array
from tests.oracles.modules import numbers

T, B, I, N = 7, 3, 2, 5  # noqa: E741


def lipschitz(p: dict[str, Array], x: Array, h: Array, eps: float, beta: float, gamma: float) -> Array:
    A, W = (
        beta * (M - M.T) + (1 - beta) * (M + M.T) - gamma * np.eye(N)
        for M in (p["recurrent.A.free"], p["recurrent.W.free"])
    )
    out = []
    for x_t in x:
        z = [p["input.weight"] @ x_t[k] + p["input.bias"] for k in range(B)]
        h = np.stack([h[k] + eps * (A @ h[k]) + eps * np.tanh(W @ h[k] + z[k]) for k in range(B)])
        out.append(h)
    return np.stack(out)


def antisymmetric(p: dict[str, Array], x: Array, h: Array, eps: float, gamma: float) -> Array:
    M = np.zeros((N, N))
    M[np.triu_indices(N, 1)] = p["recurrent.free"]
    W = M - M.T - gamma * np.eye(N)
    out = []
    for x_t in x:
        z = [p["input.weight"] @ x_t[k] + p["input.bias"] for k in range(B)]
        h = np.stack([h[k] + eps * np.tanh(W @ h[k] + z[k]) for k in range(B)])
        out.append(h)
    return np.stack(out)


CASES: list[tuple[Callable[..., Any], Callable[..., Array], tuple[float, ...]]] = [
    (lambda *o: LipschitzRNNCell(I, N, *o), lipschitz, (0.1, 0.75, 0.3)),
    (lambda *o: LipschitzRNNCell(I, N, *o), lipschitz, (1.0, 0.2, 0.0)),
    (lambda *o: AntisymmetricRNNCell(I, N, *o), antisymmetric, (0.1, 0.3)),
    (lambda *o: AntisymmetricRNNCell(I, N, *o), antisymmetric, (1.0, 0.0)),
]


@pytest.mark.parametrize(("make", "oracle", "options"), CASES)
def test_equals_its_equation(make: Any, oracle: Any, options: tuple[float, ...]) -> None:
    cell = make(*options).double()
    rng = np.random.default_rng(0)
    with torch.no_grad():
        for parameter in cell.parameters():
            parameter.copy_(torch.tensor(rng.normal(scale=0.5, size=tuple(parameter.shape))))
    x, h = rng.normal(size=(T, B, I)), rng.normal(size=(B, N))
    y, (last,) = scan(cell, torch.tensor(x), (torch.tensor(h),))
    expected = oracle(numbers(cell), x, h, *options)
    np.testing.assert_allclose(y.detach().numpy(), expected, rtol=1e-12, atol=1e-12)
    assert torch.equal(last, y[-1])
    flat = [p.detach().requires_grad_() for p in cell.parameters()]

    def run(*parameters: torch.Tensor) -> torch.Tensor:
        names = dict(zip([name for name, _ in cell.named_parameters()], parameters, strict=True))
        return torch.func.functional_call(
            nn.ModuleList([Scan(cell)])[0], {f"cell.{k}": v for k, v in names.items()}, x2
        )

    class Scan(nn.Module):
        def __init__(self, cell: Any) -> None:
            super().__init__()
            self.cell = cell

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return scan(self.cell, x)[0]

    x2 = torch.tensor(x[:3, :1])
    assert torch.autograd.gradcheck(run, flat)


def test_spectra_of_the_matrices() -> None:
    W = AntisymmetricRNNCell(I, 9, gamma=0.25, init_std=9.0).double().recurrent_matrices()["recurrent"].detach()
    torch.testing.assert_close(torch.linalg.eigvals(W).real, torch.full((9,), -0.25, dtype=torch.float64))
    matrices = LipschitzRNNCell(I, 9, beta=1.0, gamma=0.5, init_std=9.0).double().recurrent_matrices()
    assert set(matrices) == {"A", "W"}
    for M in matrices.values():
        torch.testing.assert_close(M + M.mT, -torch.eye(9, dtype=torch.float64))
    for M in LipschitzRNNCell(I, 9, beta=0.0, init_std=9.0).recurrent_matrices().values():
        assert torch.equal(M, M.mT)


def test_starts() -> None:
    """M ~ N(0, (init_std / n)^2), U Xavier normal, b zero, as in the released code."""
    torch.manual_seed(0)
    cell = LipschitzRNNCell(3, 400, init_std=6.0)
    for name in ("A", "W"):
        assert float(cell.recurrent[name].free.detach().std()) == pytest.approx(6 / 400, rel=0.02)
    assert float(AntisymmetricRNNCell(3, 400, init_std=2.0).recurrent.free.detach().std()) == pytest.approx(
        2 / 400, rel=0.02
    )
    assert float(cell.input.weight.detach().std()) == pytest.approx((2 / 403) ** 0.5, rel=0.1)
    assert not cell.input.bias.any()


def test_sizes() -> None:
    task = PixelMNIST().task

    def count(model: nn.Module) -> int:
        return sum(p.numel() for p in model.parameters())

    for n in (1, 7, 128):
        assert count(LipschitzRNN(task, n)) == 2 * n * n + n * 2 + n * 10 + 10
        assert count(AntisymmetricRNN(task, n)) == n * (n - 1) // 2 + n * 2 + n * 10 + 10
    assert count(LipschitzRNN(task, 128)) == 34_314 and count(AntisymmetricRNN(task, 128)) == 9_674
    groups = LipschitzRNN(task, 8, layers=2).parameter_groups()
    assert len(groups["recurrent"]) == 4


def test_bad_input() -> None:
    for options, words in (
        ({"step_size": 0.0}, "step_size"),
        ({"gamma": -1.0}, "gamma"),
        ({"init_std": -1.0}, "init_std"),
    ):
        for make in (LipschitzRNNCell, AntisymmetricRNNCell):
            with pytest.raises(UserError, match=words):
                make(I, N, **options)  # type: ignore[operator]
    with pytest.raises(UserError, match="beta"):
        LipschitzRNNCell(I, N, beta=1.1)
