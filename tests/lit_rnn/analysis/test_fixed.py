"""Fixed and slow points: of networks made by hand, whose points and eigenvalues are known, and of any cell."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy.optimize import brentq, minimize_scalar
from torch import Tensor

from datamodules import UserError
from lit_rnn import cells
from lit_rnn.analysis import fixed_points, flat_state
from lit_rnn.analysis.steps import StepMap
from lit_rnn.cells import Cell


def tanh_network(W: list[list[float]], b: float = 0.0) -> Cell:
    cell = cells.VanillaRNNCell(1, len(W)).double()
    with torch.no_grad():
        cell.recurrent.weight.copy_(torch.tensor(W, dtype=torch.float64))
        cell.input.weight.fill_(0.0)
        cell.input.bias.fill_(b)
    return cell


def starts(count: int, width: int, scale: float = 1.0) -> np.ndarray:
    return scale * np.random.default_rng(0).normal(size=(count, width))


def test_two_stable_points_and_a_saddle() -> None:
    """h = tanh(W h), W = [[1, 0.6], [0.6, 1]]. On the diagonal s = tanh(1.6 s): 0 and -+s. There the Jacobian is
    (1 - s^2) W, whose eigenvalues are 1.6 along the diagonal and 0.4 across it; off it nothing stands still."""
    s = brentq(lambda s: math.tanh(1.6 * s) - s, 0.1, 2.0, xtol=1e-15)
    found = fixed_points(tanh_network([[1.0, 0.6], [0.6, 1.0]]), [0.0], starts(40, 2))
    order = np.argsort(found.points[:, 0])
    np.testing.assert_allclose(found.points[order], [[-s, -s], [0, 0], [s, s]], rtol=0, atol=1e-9)
    slope = 1 - s * s
    expected = [[0.4 * slope, 1.6 * slope], [0.4, 1.6], [0.4 * slope, 1.6 * slope]]
    np.testing.assert_allclose(np.sort(found.eigenvalues[order].real, axis=1), expected, rtol=0, atol=1e-8)
    assert found.fixed.all() and found.speed.max() < 1e-12
    assert found.growing[order].tolist() == [0, 1, 0]
    assert [found.kinds[place] for place in order] == ["stable", "unstable", "stable"]
    assert found.starts.sum() == 40 and found.starts.min() > 0


def test_a_slow_point_is_where_the_state_is_slowest() -> None:
    """h = tanh(2 h + b): just beyond the b at which two of its points meet, none is left there but a bottleneck."""
    bend = math.sqrt(0.5)  # tanh' = 1/2 at tanh = -bend: the points meet where h = -bend
    b = math.atanh(-bend) + 2 * bend + 0.01
    slowest = minimize_scalar(
        lambda h: (math.tanh(2 * h + b) - h) ** 2, bounds=(-0.9, -0.5), method="bounded", options={"xatol": 1e-12}
    )
    found = fixed_points(tanh_network([[2.0]], b), [0.0], np.linspace(-1, 1, 41)[:, None], slow=0.5)
    assert found.kinds == ["stable", "slow"] and found.points[0, 0] > 0.9
    assert found.points[1, 0] == pytest.approx(slowest.x, abs=1e-5)
    assert found.speed[1] == pytest.approx(math.sqrt(slowest.fun), rel=1e-8) and found.speed[1] > 1e-3
    assert len(fixed_points(tanh_network([[2.0]], b), [0.0], np.linspace(-1, 1, 41)[:, None], slow=1e-3).speed) == 1


@pytest.mark.parametrize("unitary", [False, True])
def test_a_linear_network_has_one_which_is_a_solve(unitary: bool) -> None:
    """h = W h + V x, so that h = (I - W)^-1 V x, and the Jacobian is W everywhere."""
    torch.manual_seed(1)
    cell: Cell = (cells.UnitaryExpRNNCell if unitary else cells.ExpRNNCell)(3, 6, linear=True).double()
    W, V = cell.weights().detach().numpy(), cell.input.weight.detach().numpy()
    V = V[:6] + 1j * V[6:] if unitary else V
    h = np.linalg.solve(np.eye(6) - W, V @ [1.0, -2.0, 0.5])
    width = 12 if unitary else 6
    found = fixed_points(cell, [1.0, -2.0, 0.5], starts(5, width))
    expected = np.concatenate((h.real, h.imag)) if unitary else h
    np.testing.assert_allclose(found.points, [expected], rtol=0, atol=1e-9)
    assert found.kinds == ["marginal"]
    angles = np.angle(np.linalg.eigvals(W))
    angles = np.concatenate((angles, -angles)) if unitary else angles  # W beside its conjugate
    np.testing.assert_allclose(np.sort(np.angle(found.eigenvalues[0])), np.sort(angles), rtol=0, atol=1e-9)


MAKERS: dict[str, Callable[[], Cell]] = {
    "ExpRNN": lambda: cells.ExpRNNCell(2, 4),
    "URNN": lambda: cells.URNNCell(2, 4),
    "LSTM": lambda: cells.LSTMCell(2, 4),
    "GRU": lambda: cells.GRUCell(2, 4),
    "LEM": lambda: cells.LEMCell(2, 4),
    "CoRNN": lambda: cells.CoRNNCell(2, 4),
    "LinOSS": lambda: cells.LinOSSCell(2, 4),
    "MinGRU": lambda: cells.MinGRUCell(2, 4),
    "DeltaProduct": lambda: cells.DeltaProductCell(2, 4, heads=2),
}


@pytest.mark.parametrize("name", MAKERS)
def test_of_any_cell_the_state_stays_where_it_is_put(name: str) -> None:
    """One step of the cell itself from each point that is found, and finite differences for the eigenvalues' sums."""
    torch.manual_seed(0)
    cell, x = MAKERS[name]().double(), torch.tensor([0.3, -0.2], dtype=torch.float64)
    like = cell.initial_state(1)
    width = flat_state(like).shape[1]
    found = fixed_points(cell, x, starts(8, width, 0.5))
    w = cell.weights()
    u = cell.drive(x[None, None], w)[0]

    def step(s: Tensor) -> Tensor:
        sizes = [part.shape[-1] * (1 + part.is_complex()) for part in like]
        state = (
            torch.complex(*part.chunk(2, -1)) if of.is_complex() else part
            for part, of in zip(s.split(sizes, -1), like, strict=True)
        )
        return flat_state(cell.step(u.expand(len(s), -1), tuple(state), w)[1]).detach()

    points = torch.from_numpy(found.points)
    for point, speed, fixed, values in zip(points, found.speed, found.fixed, found.eigenvalues, strict=True):
        assert float((step(point[None]) - point).norm()) == pytest.approx(speed, abs=1e-12)
        assert fixed == (speed <= 1e-8 * max(1.0, float(point.norm())))
        moves = 1e-6 * torch.eye(width, dtype=torch.float64)
        J = (step(point + moves) - step(point - moves)) / 2e-6
        assert values.sum().real == pytest.approx(float(J.trace()), abs=1e-6)
        assert (values**2).sum().real == pytest.approx(float((J @ J).trace()), abs=1e-5)
    assert len(points)


@pytest.mark.parametrize(("W", "b"), [([[2.0]], 0.9), ([[2.886, -3.614], [0.591, -0.803]], 1.5)])
def test_searches_that_converge_slowly_to_a_slow_point_are_not_given_up(W: list[list[float]], b: float) -> None:
    """There |r| does not fall any more, while steps grow shorter by the same factor from one to the next."""
    begun = np.random.default_rng(1).uniform(-1, 1, size=(40, len(W)))
    found = fixed_points(tanh_network(W, b), [0.0], begun, slow=10.0)
    assert found.starts.sum() == 40 and "slow" in found.kinds


def test_searches_that_go_on_without_end_are_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """sLSTM with W = 0 stands still where m = i, n = 1 / (1 - sigma(f)), c = n tanh(z) and h = sigma(o) tanh(z). A
    search that starts with m above i ever lowers |r| a little, by more of m: nothing new is written then."""
    cell = cells.SLSTMCell(1, 3).double()
    gates = torch.tensor([0.5, 3.0, 0.7, -0.2], dtype=torch.float64)
    with torch.no_grad():
        cell.input.weight.zero_()
        cell.input.bias.copy_(gates.repeat_interleave(3))
    i, f, z, o = gates.tolist()
    n, t = 1 + math.exp(f), math.tanh(z)
    point = np.repeat([t / (1 + math.exp(-o)), n * t, n, i], 3)
    above = np.repeat([0.0, 0.0, 0.0, 3.0], 3)
    begun = np.concatenate([point + 0.01 * np.abs(starts(6, 12)) * (above == 0), point + above + 0.1 * starts(6, 12)])
    calls, inside = [], StepMap.with_jacobian

    def counted(self: StepMap, u: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
        calls.append(len(s))
        return inside(self, u, s)

    monkeypatch.setattr(StepMap, "with_jacobian", counted)
    found = fixed_points(cell, [0.0], begun)
    np.testing.assert_allclose(found.points, [point], rtol=0, atol=1e-7)
    assert found.kinds == ["stable"] and found.starts.tolist() == [6]
    assert len(calls) <= 201, "of 500 iterations"


def test_refusals() -> None:
    cell = cells.GRUCell(2, 4)
    with pytest.raises(UserError, match=r"x is 'an array of shape \(3,\)', but it must be a vector \(2,\)"):
        fixed_points(cell, [0.0, 0.0, 0.0], starts(3, 4))
    with pytest.raises(UserError, match=r"starts is 'an array of shape \(3, 5\)', but it must be states \(S, 4\)"):
        fixed_points(cell, [0.0, 0.0], starts(3, 5))
    with pytest.raises(UserError, match="starts is 'an array with NaN"):
        fixed_points(cell, [0.0, 0.0], starts(3, 4) * np.nan)
