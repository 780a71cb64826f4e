"""The rivals against NumPy loops written from the papers' equations, unit by unit, and how they start."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from datamodules import PixelMNIST, UserError
from lit_rnn import cells, models
from lit_rnn.cells import Cell
from lit_rnn.models.base import count_parameters
from lit_rnn.scan import scan
from tests.oracles.maps import Array, Numbers
from tests.oracles.modules import fill, numbers

T, B, I, N = 5, 2, 3, 4  # noqa: E741
PIXELS = PixelMNIST().task
States = list[Array]  # each (size,), of one sequence


def sigma(a: Any) -> Any:
    return 1 / (1 + np.exp(-a))


def dot(M: Array, v: Array) -> Array:
    """M v by its definition."""
    return np.array([sum(M[r, k] * v[k] for k in range(M.shape[1])) for r in range(M.shape[0])])


def cornn(p: Numbers, x: Array, state: States) -> tuple[Array, States]:
    y, z = state
    W, W_z = p["recurrent.weight"][:N], p["recurrent.weight"][N:]
    acceleration = np.tanh(dot(W, y) + dot(W_z, z) + dot(p["input.weight"], x) + p["input.bias"]) - 2.7 * y - 4.7 * z
    z = z + 0.042 * acceleration
    y = y + 0.042 * z
    return y, [y, z]


def unicornn(p: Numbers, x: Array, state: States) -> tuple[Array, States]:
    y, z = state
    s = 0.19 * sigma(p["c"])
    z = z - s * (np.tanh(p["w"] * y + dot(p["input.weight"], x) + p["input.bias"]) + 30.65 * y)
    y = y + s * z
    return y, [y, z]


def lem(p: Numbers, x: Array, state: States) -> tuple[Array, States]:
    y, z = state
    V, W, b = (np.split(p[name], 4) for name in ("input.weight", "recurrent.weight", "input.bias"))
    s, r = (0.7 * sigma(dot(W[g], y) + dot(V[g], x) + b[g]) for g in (0, 1))
    z = (1 - s) * z + s * np.tanh(dot(W[2], y) + dot(V[2], x) + b[2])
    y = (1 - r) * y + r * np.tanh(dot(W[3], z) + dot(V[3], x) + b[3])
    return y, [y, z]


def slstm(p: Numbers, x: Array, state: States) -> tuple[Array, States]:
    """Without stabiliser: the gates as they are, on c e^m and n e^m."""
    h, c, n, m = state
    V, W, b = (np.split(p[name], 4) for name in ("input.weight", "recurrent.weight", "input.bias"))
    i, f, z, o = (dot(V[g], x) + dot(W[g], h) + b[g] for g in range(4))
    true_c = sigma(f) * c * np.exp(m) + np.exp(i) * np.tanh(z)
    true_n = sigma(f) * n * np.exp(m) + np.exp(i)
    h = sigma(o) * true_c / true_n
    m = np.maximum(np.log(sigma(f)) + m, i)
    return h, [h, true_c * np.exp(-m), true_n * np.exp(-m), m]


CASES: dict[str, tuple[Callable[[], Cell], Callable[[Numbers, Array, States], tuple[Array, States]]]] = {
    "CoRNN": (lambda: cells.CoRNNCell(I, N), cornn),
    "UnICORNN": (lambda: cells.UnICORNNCell(I, N), unicornn),
    "LEM": (lambda: cells.LEMCell(I, N, 0.7), lem),
    "SLSTM": (lambda: cells.SLSTMCell(I, N), slstm),
}


def filled(name: str) -> Cell:
    torch.manual_seed(0)
    return fill(CASES[name][0]().double(), seed=1, scale=0.5)  # type: ignore[no-any-return]


@pytest.mark.parametrize("name", CASES)
def test_equals_its_equations(name: str) -> None:
    cell, step = filled(name), CASES[name][1]
    rng = np.random.default_rng(0)
    x = rng.normal(size=(T, B, I))
    start = [np.abs(rng.normal(size=(B, size))) for size in cell.state_sizes]  # n of sLSTM is positive
    y, final = scan(cell, torch.tensor(x), tuple(map(torch.tensor, start)), backend="loop")
    for k in range(B):
        state = [part[k] for part in start]
        for t in range(T):
            out, state = step(numbers(cell), x[t, k], state)
            np.testing.assert_allclose(y[t, k].detach().numpy(), out, rtol=1e-11, atol=1e-11)
        for mine, theirs in zip(final, state, strict=True):
            np.testing.assert_allclose(mine[k].detach().numpy(), theirs, rtol=1e-11, atol=1e-11)


class Scan(nn.Module):
    def __init__(self, cell: Cell) -> None:
        super().__init__()
        self.cell = cell

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return scan(self.cell, x, backend="loop")[0]


@pytest.mark.parametrize("name", CASES)
def test_gradients_by_differences(name: str) -> None:
    """From the cell's own start, by inputs and every parameter."""
    cell = filled(name)
    module, names = Scan(cell), [name for name, _ in cell.named_parameters()]

    def run(x: torch.Tensor, *values: torch.Tensor) -> Any:
        given = {f"cell.{name}": value for name, value in zip(names, values, strict=True)}
        return torch.func.functional_call(module, given, (x,))

    x = torch.randn(3, 1, I, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(run, (x, *cell.parameters()), fast_mode=True)


# ---- what their papers say of them


def test_a_step_of_unicornn_keeps_volume() -> None:
    """The Jacobian by (y, z) has determinant 1, whatever the weights."""
    cell = filled("UnICORNN")
    u, w = torch.randn(1, N, dtype=torch.float64), cell.weights()

    def step(state: torch.Tensor) -> torch.Tensor:
        return torch.cat(cell.step(u, state[None].split(N, dim=-1), w)[1], dim=-1)[0]

    J = torch.autograd.functional.jacobian(step, torch.randn(2 * N, dtype=torch.float64))
    assert float(torch.linalg.det(J)) == pytest.approx(1, abs=1e-9)


def test_slstm_stays_finite_where_its_gates_do_not() -> None:
    """exp(1000) is no number of float32, nor is exp(-1000), and the first step divides by i'."""
    for size in (1000.0, -1000.0):
        cell = cells.SLSTMCell(I, N)
        with torch.no_grad():
            cell.input.bias[:N] = size
        y, final = scan(cell, torch.randn(T, B, I))
        assert y.isfinite().all() and all(part.isfinite().all() for part in final)
        y.sum().backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in cell.parameters())
        assert cell.input.weight.grad is not None and cell.input.weight.grad[3 * N :].any()


def test_slstm_does_not_see_its_stabiliser() -> None:
    cell = filled("SLSTM")
    x = torch.randn(T, B, I, dtype=torch.float64)
    h, c, n, m = (torch.rand(B, N, dtype=torch.float64) for _ in range(4))
    moved = scan(cell, x, (h, c * math.exp(-2), n * math.exp(-2), m + 2))[0]
    torch.testing.assert_close(scan(cell, x, (h, c, n, m))[0], moved, rtol=1e-12, atol=1e-12)


# ---- starts and sizes


def test_starts() -> None:
    torch.manual_seed(0)
    n = 400

    def bounded(values: torch.Tensor, bound: float, low: float | None = None) -> None:
        low = -bound if low is None else low
        values = values.detach()
        assert float(values.max()) <= bound and float(values.min()) >= low
        assert float(values.std()) == pytest.approx((bound - low) / 12**0.5, rel=0.1)

    cornn = cells.CoRNNCell(3, n)
    for parameter in cornn.parameters():
        bounded(parameter, (3 + 2 * n) ** -0.5)
    unicornn = cells.UnICORNNCell(3, n)
    bounded(unicornn.w, 1, 0)
    bounded(unicornn.c, 0.1)
    bounded(unicornn.input.weight, (6 / 65 / 3) ** 0.5)
    assert not unicornn.input.bias.any()
    lem = cells.LEMCell(3, n)
    bounded(lem.input.weight, n**-0.5)
    bounded(lem.recurrent.weight, n**-0.5)
    assert float(lem.input.bias.detach().std()) == pytest.approx((2 / 3 / n) ** 0.5, rel=0.1)  # a sum of two
    slstm = cells.SLSTMCell(3, n)
    assert float(slstm.input.weight.detach().std()) == pytest.approx((2 / 15) ** 0.5, rel=0.1)
    i, f, z, o = slstm.input.bias.detach().split(n)
    assert not slstm.recurrent.weight.any() and not any(b.any() for b in (i, z, o))
    assert (float(f[0]), float(f[-1])) == (5, -7) and float(f[1]) == pytest.approx(5 - 12 * (1 / 399) ** 0.3)


@pytest.mark.parametrize(
    ("name", "options", "count"),
    [
        ("CoRNN", {"hidden_size": 256}, 134_154),
        ("UnICORNN", {"hidden_size": 256, "layers": 3}, 136_202),
        ("LEM", {"hidden_size": 128}, 67_850),
        ("SLSTM", {"hidden_size": 64}, 4 * 64 * 66 + 650),
    ],
)
def test_sizes(name: str, options: dict[str, Any], count: int) -> None:
    assert count_parameters(getattr(models, name)(PIXELS, **options)) == count


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("CoRNN", {"step_size": 0.0}, "step_size is 0.0, but it must be positive"),
        ("CoRNN", {"gamma": -1.0}, "gamma"),
        ("CoRNN", {"epsilon": -1.0}, "epsilon"),
        ("UnICORNN", {"step_size": -1.0}, "step_size"),
        ("UnICORNN", {"alpha": -1.0}, "alpha"),
        ("LEM", {"step_size": 0.0}, "step_size"),
        ("SLSTM", {"learn_initial_state": True}, "learn_initial_state is True, but it must be false"),
    ],
)
def test_what_is_refused(name: str, options: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        getattr(models, name)(PIXELS, 4, **options)
