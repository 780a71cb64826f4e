"""Certificates: exact numbers, and no attack ever beats one."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from datamodules.errors import UserError
from lit_rnn.cells import ExpRNNCell, LayerNormRNNCell, LSTMCell, UnitaryExpRNNCell, VanillaRNNCell
from lit_rnn.robustness import (
    certified_radius,
    clopper_pearson_lower,
    fgsm,
    interval_bounds,
    lipschitz_bound,
    pgd,
    random_search,
    smooth_certify,
    smoothed_radius,
)
from lit_rnn.scan import scan
from tests.oracles.cells import NONLINEARITIES

F64 = torch.float64
B, T, I, N, C = 8, 6, 2, 8, 4  # noqa: E741


class Net(nn.Module):
    def __init__(self, cell: Any, classes: int = C) -> None:
        super().__init__()
        self.cell, self.decoder = cell, nn.Linear(cell.output_size, classes)
        self.double()

    def forward(self, x: Tensor) -> Tensor:
        return self.decoder(scan(self.cell, x.transpose(0, 1))[0][-1])


def net_of(name: str, seed: int = 0) -> Net:
    torch.manual_seed(seed)
    if name in ("tanh", "relu", "leaky_relu", "elu", "identity"):
        net = Net(VanillaRNNCell(I, N, nonlinearity=name))  # type: ignore[arg-type]
        with torch.no_grad():
            net.cell.recurrent.weight.mul_(0.95)
    else:
        net = Net({"modrelu": ExpRNNCell, "complex": UnitaryExpRNNCell}[name](I, N))
        with torch.no_grad():
            net.cell.activation.bias.copy_(-torch.rand(N) * 0.1)
    return net


def margins(z: Tensor, y: Tensor) -> Tensor:
    own = nn.functional.one_hot(y, z.shape[1]).bool()
    return z[own] - z.masked_fill(own, -math.inf).amax(1)


NAMES = ("tanh", "relu", "leaky_relu", "elu", "identity", "modrelu", "complex")


def attacks(net: Net, x: Tensor, y: Tensor, eps: float, norm: float) -> list[Tensor]:
    return [
        fgsm(net, x, y, eps, norm=norm),
        pgd(net, x, y, eps, norm=norm, loss="margin", steps=20, restarts=2),
        random_search(net, x, y, eps, norm=norm, queries=40),
    ]


# ---- Lipschitz


@pytest.mark.parametrize("steps", [1, 5, 300])
def test_the_bound_of_a_scalar_linear_network_is_attained(steps: int) -> None:
    """h_T = sum_k w^k u x_{T-k}: the gradient's norm is the bound."""
    cell = VanillaRNNCell(1, 1, nonlinearity="identity").double()
    with torch.no_grad():
        cell.recurrent.weight.fill_(-0.97), cell.input.weight.fill_(0.3)
    decoder = torch.tensor([[2.0]], dtype=F64)
    exact = 2 * 0.3 * math.sqrt(sum(0.97 ** (2 * k) for k in range(steps)))
    assert lipschitz_bound(cell, decoder, steps) == pytest.approx(exact, rel=1e-13)
    x = torch.zeros(steps, 1, 1, dtype=F64, requires_grad=True)
    (gradient,) = torch.autograd.grad(2 * scan(cell, x)[0][-1].sum(), x)
    assert float(gradient.norm()) == pytest.approx(exact, rel=1e-12)


def test_a_decoder_of_zeros_bounds_whatever_grows_before_it() -> None:
    cell = VanillaRNNCell(1, 1, nonlinearity="identity").double()
    with torch.no_grad():
        cell.recurrent.weight.fill_(2.0)
    assert lipschitz_bound(cell, torch.ones(1, 1, dtype=F64), 1000) == math.inf
    assert lipschitz_bound(cell, torch.zeros(1, 1, dtype=F64), 1000) == 0


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("seed", range(3))
def test_no_jacobian_and_no_attack_beats_the_lipschitz_bound(name: str, seed: int) -> None:
    net = net_of(name, seed)
    L = lipschitz_bound(net.cell, net.decoder, T)
    x = torch.randn(B, T, I, dtype=F64)
    for example in x[:3]:
        jacobian = torch.autograd.functional.jacobian(lambda x: net(x[None])[0], example)
        assert float(torch.linalg.matrix_norm(jacobian.flatten(1), ord=2)) <= L * (1 + 1e-12)
    for scale in (1e-3, 1.0):
        step = scale * torch.randn_like(x)
        change = (net(x + step) - net(x)).norm(dim=1) / step.flatten(1).norm(dim=1)
        assert float(change.detach().max()) <= L * (1 + 1e-12)
    z = net(x).detach()
    y = z.argmax(1)
    radius = certified_radius(margins(z, y).numpy(), L)
    for k in range(seed, B, 3):  # of each seed others: attacks are most of the time
        for moved in attacks(net, x[k : k + 1], y[k : k + 1], float(radius[k]) * 0.999999, 2.0):
            assert int(net(moved).argmax(1)) == int(y[k])


def test_the_radius() -> None:
    np.testing.assert_allclose(certified_radius([3.0, 0.0, -1.0, math.nan], 1.5), [math.sqrt(2), 0, 0, 0])
    assert certified_radius(1.0, math.inf) == 0 and certified_radius(1.0, 0.0) == math.inf
    cell = VanillaRNNCell(I, N)
    with torch.no_grad():
        cell.recurrent.weight.mul_(3)
    assert lipschitz_bound(cell, torch.eye(N), 2000) == math.inf


def test_the_radius_of_two_linear_logits_is_exact() -> None:
    """Logits s and -s: they differ by 2 s, the bound's worst direction (1, -1) / sqrt 2 is attained."""
    cell = VanillaRNNCell(1, 1, nonlinearity="identity").double()
    with torch.no_grad():
        cell.recurrent.weight.fill_(0.9), cell.input.weight.fill_(1.0)
    decoder = torch.tensor([[1.0], [-1.0]], dtype=F64)
    x = torch.ones(1, T, 1, dtype=F64)
    s = float(scan(cell, x.transpose(0, 1))[0][-1].detach())
    weights = 0.9 ** np.arange(T)
    distance = s / np.linalg.norm(weights)
    assert certified_radius(2 * s, lipschitz_bound(cell, decoder, T)) == pytest.approx(distance, rel=1e-12)


@pytest.mark.parametrize("name", ["modrelu", "complex"])
def test_modrelu_with_a_positive_bias_is_refused(name: str) -> None:
    net = net_of(name)
    with torch.no_grad():
        net.cell.activation.bias[2] = 0.01
    with pytest.raises(UserError, match=r"modReLU's largest b is 0\.01"):
        lipschitz_bound(net.cell, net.decoder, T)
    if name == "modrelu":  # and rightly: it jumps by 2 b across zero
        small = torch.tensor([-1e-9, 1e-9], dtype=F64)[:, None].expand(2, N)
        jump = net.cell.activation(small)[:, 2]
        assert float((jump[1] - jump[0]).detach()) == pytest.approx(0.02)


def test_other_cells_are_refused() -> None:
    for cell in (LSTMCell(I, N), LayerNormRNNCell(I, N)):
        with pytest.raises(UserError, match=type(cell).__name__):
            lipschitz_bound(cell, torch.eye(N), T)
        with pytest.raises(UserError, match=type(cell).__name__):
            interval_bounds(cell, nn.Linear(N, C), torch.zeros(1, T, I), torch.zeros(1, T, I))
    cell = VanillaRNNCell(I, N)
    cell.activation = nn.functional.softplus
    with pytest.raises(UserError, match="the bound needs"):
        lipschitz_bound(cell, torch.eye(N), T)


# ---- intervals


@pytest.mark.parametrize("name", ["tanh", "relu", "leaky_relu", "elu", "identity", "modrelu", "modrelu, b > 0"])
@pytest.mark.parametrize("eps", [0.0, 1e-3, 0.1])
def test_nothing_leaves_the_intervals(name: str, eps: float) -> None:
    net = net_of(name.split(",")[0], 5)
    if "b > 0" in name:
        with torch.no_grad():
            net.cell.activation.bias.neg_()
    x = torch.randn(B, T, I, dtype=F64)
    low, high = interval_bounds(net.cell, net.decoder, x - eps, x + eps)
    z = net(x).detach()
    y = z.argmax(1)
    if eps == 0:
        torch.testing.assert_close(low, z, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(high, z, rtol=1e-12, atol=1e-12)
        return
    inputs = [x + eps * (2 * torch.rand_like(x) - 1), x + eps * torch.randn_like(x).sign()]
    inputs += attacks(net, x, y, eps, math.inf)
    for moved in inputs:
        outputs = net(moved)
        assert bool((outputs >= low - 1e-10).all()) and bool((outputs <= high + 1e-10).all())
    certified = margins_of_intervals(low, high, y) > 0
    for moved in inputs:
        assert bool((net(moved).argmax(1) == y)[certified].all())


Ends = list[tuple[float, float]]


def by_scalars(W: np.ndarray, ends: Ends) -> Ends:
    """W z where each z_j is between its ends, one product after another."""
    rows = [[sorted((w * low, w * high)) for w, (low, high) in zip(row, ends, strict=True)] for row in W]
    return [(sum(low for low, _ in row), sum(high for _, high in row)) for row in rows]


@pytest.mark.parametrize("name", ["tanh", "relu", "leaky_relu", "elu", "identity", "modrelu"])
def test_intervals_are_those_of_numbers_one_by_one(name: str) -> None:
    """No narrower, and no wider: each number as f of its own sum of intervals."""
    net = net_of(name, 4)
    p = {key: value.detach().numpy() for key, value in net.state_dict().items()}
    W = net.cell.weights().detach().numpy()
    threshold, bias = p.get("cell.activation.bias", np.zeros(N)), p.get("cell.input.bias", np.zeros(N))
    x = np.random.default_rng(0).normal(size=(2, T, I))
    below, above = x - 0.3, x + np.array([[[0.1], [0.0]] * 3])

    def f(z: float, unit: int) -> float:
        if name == "modrelu":
            return float(np.sign(z) * max(abs(z) + threshold[unit], 0))
        return float(NONLINEARITIES[name](np.array(z)))

    found = interval_bounds(net.cell, net.decoder, torch.tensor(below), torch.tensor(above))
    for k in range(2):
        h: Ends = [(0.0, 0.0)] * N
        for t in range(T):
            driven = by_scalars(p["cell.input.weight"], list(zip(below[k, t], above[k, t], strict=True)))
            sums = zip(by_scalars(W, h), driven, bias, strict=True)
            h = [(f(a + c + b, j), f(d + e + b, j)) for j, ((a, d), (c, e), b) in enumerate(sums)]
        z = by_scalars(p["decoder.weight"], h)
        for end in (0, 1):
            expected = [pair[end] + b for pair, b in zip(z, p["decoder.bias"], strict=True)]
            np.testing.assert_allclose(found[end][k].numpy(), expected, rtol=1e-12, atol=1e-12)


def margins_of_intervals(low: Tensor, high: Tensor, y: Tensor) -> Tensor:
    own = nn.functional.one_hot(y, low.shape[1]).bool()
    return low[own] - high.masked_fill(own, -math.inf).amax(1)


def test_one_step_of_a_linear_network_is_exact() -> None:
    """The bound on one logit is eps |w|_1 on either side."""
    net = net_of("identity")
    x = torch.randn(B, 1, I, dtype=F64)
    low, high = interval_bounds(net.cell, nn.Linear(N, N).double().requires_grad_(False), x, x)
    eye = nn.Linear(N, N, bias=False).double()
    with torch.no_grad():
        eye.weight.copy_(torch.eye(N))
    low, high = interval_bounds(net.cell, eye, x - 0.1, x + 0.1)
    expected = 0.2 * net.cell.input.weight.detach().abs().sum(1)
    torch.testing.assert_close(high - low, expected.expand(B, N), rtol=1e-12, atol=1e-12)


def test_intervals_refuse_what_they_cannot_do() -> None:
    net, x = net_of("complex"), torch.zeros(1, T, I, dtype=F64)
    with pytest.raises(UserError, match="real"):
        interval_bounds(net.cell, net.decoder, x, x)
    net = net_of("tanh")
    with pytest.raises(UserError, match="x_low"):
        interval_bounds(net.cell, net.decoder, x + 1, x)


# ---- smoothing


def test_exact_numbers_of_smoothing() -> None:
    """All votes agree, alpha = 0.001: the radius over sigma depends on the number of votes alone."""
    for n, radius in ((100_000, 3.8115), (10_000, 3.1986), (1000, 2.4633)):
        p = clopper_pearson_lower(n, n, 0.001)
        assert float(p) == pytest.approx(0.001 ** (1 / n), rel=1e-12)
        assert float(smoothed_radius(p, 1.0)) == pytest.approx(radius, abs=5e-5)
        assert float(smoothed_radius(p, 0.25)) == pytest.approx(radius / 4, abs=5e-5)
    np.testing.assert_array_equal(smoothed_radius([0.0, 0.3, 0.5, 1.0], 1.0), [0, 0, 0, np.inf])
    assert clopper_pearson_lower(0, 10) == 0


@pytest.mark.parametrize("n", [7, 40])
def test_clopper_pearson_solves_the_binomial_tail(n: int) -> None:
    from scipy import stats

    for k in range(1, n + 1):
        p = float(clopper_pearson_lower(k, n, 0.05))
        assert stats.binom.sf(k - 1, n, p) == pytest.approx(0.05, rel=1e-8)


def test_smoothing_a_half_space() -> None:
    """For a linear classifier p = Phi(distance / sigma), and the smoothed radius stays below the distance, near it."""
    w = torch.tensor([0.6, 0.8], dtype=F64)
    x = torch.tensor([[[1.0, 0.0]], [[0.0, -1.0]], [[1e-3, 0.0]]], dtype=F64)

    def model(x: Tensor) -> Tensor:
        s = (x[:, 0] * w).sum(1)
        return torch.stack((s, -s), 1)

    found = smooth_certify(model, x, 0.5, n=5000)
    assert found.label.tolist() == [0, 1, -1] and found.radius[2] == 0
    distance = np.array([0.6, 0.8])
    assert (found.radius[:2] <= distance).all() and (found.radius[:2] > distance * 0.9).all()
    again = smooth_certify(model, x, 0.5, n=5000, batch_size=77)
    np.testing.assert_array_equal(found.label, again.label)


def test_a_network_that_answers_nan_is_certified_nothing() -> None:
    found = smooth_certify(lambda x: torch.full((len(x), 3), math.nan), torch.zeros(2, T, I), 0.5, n=200)
    assert found.label.tolist() == [-1, -1] and not found.radius.any()


def test_no_attack_beats_smoothing() -> None:
    """The smoothed class, asked again at attacked inputs inside the radius, is the same."""
    net = net_of("tanh", 3)
    x = torch.randn(4, T, I, dtype=F64)
    state = torch.random.get_rng_state()
    found = smooth_certify(net, x, 0.3, n=2000)
    assert torch.equal(torch.random.get_rng_state(), state)
    sure = np.flatnonzero(found.label >= 0)
    assert len(sure) > 0
    for k in sure:
        y = torch.tensor([found.label[k]])
        for moved in attacks(net, x[k : k + 1], y, float(found.radius[k]) * 0.99, 2.0):
            assert smooth_certify(net, moved, 0.3, n=2000, seed=5).label[0] in (found.label[k], -1)


def test_bad_input() -> None:
    for call in (
        lambda: smoothed_radius(1.2, 1.0),
        lambda: smoothed_radius(0.9, -1.0),
        lambda: clopper_pearson_lower(3, 2),
        lambda: clopper_pearson_lower(1, 2, 0.0),
        lambda: smooth_certify(lambda x: x, torch.zeros(1, 2, 2), 0.0),
        lambda: smooth_certify(lambda x: x, torch.zeros(1, 2, 2, dtype=torch.int64), 1.0),
        lambda: lipschitz_bound(VanillaRNNCell(I, N), torch.eye(N), 0),
    ):
        with pytest.raises(UserError):
            call()
