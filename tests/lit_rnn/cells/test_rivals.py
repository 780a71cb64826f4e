"""The rivals against NumPy loops written from the papers' equations, unit by unit, and how they start."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn

from datamodules import PixelMNIST, UserError
from lit_rnn import cells, models
from lit_rnn.cells import Cell
from lit_rnn.cells.minimal import positive
from lit_rnn.models.base import count_parameters
from lit_rnn.scan import scan, supports
from tests.oracles.cells import sigmoid
from tests.oracles.maps import Array, Numbers
from tests.oracles.modules import fill, numbers

T, B, I, N = 5, 2, 3, 4  # noqa: E741
PIXELS = PixelMNIST().task
States = list[Array]  # each (size,), of one sequence


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
    s = 0.19 * sigmoid(p["c"])
    z = z - s * (np.tanh(p["w"] * y + dot(p["input.weight"], x) + p["input.bias"]) + 30.65 * y)
    y = y + s * z
    return y, [y, z]


def lem(p: Numbers, x: Array, state: States) -> tuple[Array, States]:
    y, z = state
    V, W, b = (np.split(p[name], 4) for name in ("input.weight", "recurrent.weight", "input.bias"))
    s, r = (0.7 * sigmoid(dot(W[g], y) + dot(V[g], x) + b[g]) for g in (0, 1))
    z = (1 - s) * z + s * np.tanh(dot(W[2], y) + dot(V[2], x) + b[2])
    y = (1 - r) * y + r * np.tanh(dot(W[3], z) + dot(V[3], x) + b[3])
    return y, [y, z]


def slstm(p: Numbers, x: Array, state: States) -> tuple[Array, States]:
    """Without stabiliser: the gates as they are, on c e^m and n e^m."""
    h, c, n, m = state
    V, W, b = (np.split(p[name], 4) for name in ("input.weight", "recurrent.weight", "input.bias"))
    i, f, z, o = (dot(V[g], x) + dot(W[g], h) + b[g] for g in range(4))
    true_c = sigmoid(f) * c * np.exp(m) + np.exp(i) * np.tanh(z)
    true_n = sigmoid(f) * n * np.exp(m) + np.exp(i)
    h = sigmoid(o) * true_c / true_n
    m = np.maximum(np.log(sigmoid(f)) + m, i)
    return h, [h, true_c * np.exp(-m), true_n * np.exp(-m), m]


def behind(p: Numbers, s: Array) -> Array:
    """gelu by tanh, and the gated linear unit."""
    if "glu.weight" not in p:
        return s
    g = 0.5 * s * (1 + np.tanh(math.sqrt(2 / math.pi) * (s + 0.044715 * s**3)))
    W, b = np.split(p["glu.weight"], 2), np.split(p["glu.bias"], 2)
    return (dot(W[0], g) + b[0]) * sigmoid(dot(W[1], g) + b[1])


def complex_of(M: Array, axis: int) -> Array:
    real, imaginary = np.split(M, 2, axis)
    return real + 1j * imaginary


def lru(p: Numbers, x: Array, state: States) -> tuple[Array, States]:
    """C is kept by what it does to [Re | Im], which is its conjugate."""
    h = state[0] + 1j * state[1]
    rotated = np.exp(-np.exp(p["nu"]) + 1j * np.exp(p["theta"])) * h
    h = rotated + np.exp(p["log_gamma"]) * dot(complex_of(p["B.weight"], 0), x)
    C = complex_of(p["C.weight"], 1).conj()
    return behind(p, dot(C, h).real + dot(p["D.weight"], x)), [h.real, h.imag]


def linoss(implicit: bool) -> Callable[[Numbers, Array, States], tuple[Array, States]]:
    def step(p: Numbers, x: Array, state: States) -> tuple[Array, States]:
        z, s = complex_of(state[0], 0), complex_of(state[1], 0)
        A, dt = np.maximum(p["a"], 0), sigmoid(p["b"])
        force = dot(complex_of(p["B.weight"], 0), x)
        if implicit:  # two unknowns for each oscillator
            pairs = [
                np.linalg.solve([[1, dt[k] * A[k]], [-dt[k], 1]], [z[k] + dt[k] * force[k], s[k]])
                for k in range(len(A))
            ]
            z, s = np.array(pairs).T
        else:
            z = z + dt * (force - A * s)
            s = s + dt * z
        C = complex_of(p["C.weight"], 1).conj()
        y = behind(p, dot(C, s).real + dot(p["D.weight"], x))
        return y, [np.concatenate((part.real, part.imag)) for part in (z, s)]

    return step


def g(v: Array) -> Array:
    return np.array([a + 0.5 if a >= 0 else sigmoid(a) for a in v])


def mingru(positive: bool) -> Callable[[Numbers, Array, States], tuple[Array, States]]:
    def step(p: Numbers, x: Array, state: States) -> tuple[Array, States]:
        candidate, gate = np.split(dot(p["input.weight"], x) + p["input.bias"], 2)
        z = sigmoid(gate)
        h = (1 - z) * state[0] + z * (g(candidate) if positive else candidate)
        return h, [h]

    return step


def minlstm(p: Numbers, x: Array, state: States) -> tuple[Array, States]:
    candidate, f, i = np.split(dot(p["input.weight"], x) + p["input.bias"], 3)
    f, i = sigmoid(f), sigmoid(i)
    h = f / (f + i) * state[0] + i / (f + i) * g(candidate)
    return h, [h]


def deltaproduct(m: int, heads: int, d: int, most: float) -> Callable[[Numbers, Array, States], tuple[Array, States]]:
    """By the matrices I - beta k k^T themselves."""

    def silu(v: Array) -> Array:
        return v * sigmoid(v)

    def step(p: Numbers, x: Array, state: States) -> tuple[Array, States]:
        d_v = N // heads
        ends = np.cumsum([heads * d, m * heads * d, m * heads * d_v])
        q, k, v, beta = np.split(dot(p["input.weight"], x), ends)
        q, k, v = silu(q).reshape(heads, d), silu(k).reshape(m, heads, d), silu(v).reshape(m, heads, d_v)
        beta = most * sigmoid(beta).reshape(m, heads)
        y, after = [], []
        for head, H in enumerate(state[0].reshape(heads, d, d_v)):
            for j in range(m):
                key = k[j, head] / math.sqrt((k[j, head] ** 2).sum() + 1e-6)
                P = np.eye(d) - beta[j, head] * np.outer(key, key)
                H = P @ H + beta[j, head] * np.outer(key, v[j, head])
            out = H.T @ q[head] / math.sqrt((q[head] ** 2).sum() + 1e-6) / math.sqrt(d)
            y.append(out / math.sqrt((out**2).mean() + 1e-5) * p["scale"])
            after.append(H)
        return np.concatenate(y), [np.stack(after).flatten()]

    return step


CASES: dict[str, tuple[Callable[[], Cell], Callable[[Numbers, Array, States], tuple[Array, States]]]] = {
    "CoRNN": (lambda: cells.CoRNNCell(I, N), cornn),
    "UnICORNN": (lambda: cells.UnICORNNCell(I, N), unicornn),
    "LEM": (lambda: cells.LEMCell(I, N, 0.7), lem),
    "SLSTM": (lambda: cells.SLSTMCell(I, N), slstm),
    "LRU": (lambda: cells.LRUCell(I, N), lru),
    "LRU, bare": (lambda: cells.LRUCell(I, N, 6, glu=False), lru),
    "LinOSS": (lambda: cells.LinOSSCell(I, N, 3), linoss(implicit=True)),
    "LinOSS, IMEX": (lambda: cells.LinOSSCell(I, N, 3, "IMEX", glu=False), linoss(implicit=False)),
    "MinGRU": (lambda: cells.MinGRUCell(I, N), mingru(positive=True)),
    "MinGRU, linear": (lambda: cells.MinGRUCell(I, N, positive=False), mingru(positive=False)),
    "MinLSTM": (lambda: cells.MinLSTMCell(I, N), minlstm),
    "DeltaProduct": (lambda: cells.DeltaProductCell(I, N), deltaproduct(2, 1, N, 2)),
    "DeltaProduct, heads": (lambda: cells.DeltaProductCell(I, N, 3, 2, 3, False), deltaproduct(3, 2, 3, 1)),
}


def filled(name: str) -> Cell:
    torch.manual_seed(0)
    return fill(CASES[name][0]().double(), seed=1, scale=0.5)  # type: ignore[no-any-return]


each_in_each = pytest.mark.parametrize(
    ("name", "backend"),
    [(name, b) for name, (make, _) in CASES.items() for b in ("loop", "native") if supports(b, make())],  # type: ignore[arg-type]
)


@each_in_each
def test_equals_its_equations(name: str, backend: Any) -> None:
    cell, step = filled(name), CASES[name][1]
    rng = np.random.default_rng(0)
    x = rng.normal(size=(T, B, I))
    start = [np.abs(rng.normal(size=(B, size))) for size in cell.state_sizes]  # n of sLSTM is positive
    y, final = scan(cell, torch.tensor(x), tuple(map(torch.tensor, start)), backend)
    for k in range(B):
        state = [part[k] for part in start]
        for t in range(T):
            out, state = step(numbers(cell), x[t, k], state)
            np.testing.assert_allclose(y[t, k].detach().numpy(), out, rtol=1e-11, atol=1e-11)
        for mine, theirs in zip(final, state, strict=True):
            np.testing.assert_allclose(mine[k].detach().numpy(), theirs, rtol=1e-11, atol=1e-11)


class Scan(nn.Module):
    def __init__(self, cell: Cell, backend: Any) -> None:
        super().__init__()
        self.cell, self.backend = cell, backend

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return scan(self.cell, x, backend=self.backend)[0]


@each_in_each
def test_gradients_by_differences(name: str, backend: Any) -> None:
    """From the cell's own start, by inputs and every parameter."""
    cell = filled(name)
    module, names = Scan(cell, backend), [name for name, _ in cell.named_parameters()]

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


def test_slstm_at_a_tie_of_its_stabiliser() -> None:
    """h is smooth where both sides of max are equal, though the stabilised state has a corner there: f = 800, i = m."""
    cell = cells.SLSTMCell(I, N).double()
    with torch.no_grad():
        cell.input.bias[N : 2 * N] = 800.0
    u = cell.input.bias.detach()[None].requires_grad_()
    h, c, n = (torch.full((1, N), v, dtype=torch.float64) for v in (0.1, 2.0, 0.5))
    m = torch.zeros(1, N, dtype=torch.float64, requires_grad=True)
    y, _ = cell.step(u, (h, c, n, m), cell.weights())
    by_u, by_m = torch.autograd.grad(y.sum(), (u, m))
    # h = (2 e^m + e^i tanh(0)) / (e^m / 2 + e^i) / 2
    torch.testing.assert_close(by_m, torch.full((1, N), 1 / 2.25, dtype=torch.float64))
    torch.testing.assert_close(by_u[:, :N], torch.full((1, N), -1 / 2.25, dtype=torch.float64))


def test_slstm_does_not_see_its_stabiliser() -> None:
    cell = filled("SLSTM")
    x = torch.randn(T, B, I, dtype=torch.float64)
    h, c, n, m = (torch.rand(B, N, dtype=torch.float64) for _ in range(4))
    moved = scan(cell, x, (h, c * math.exp(-2), n * math.exp(-2), m + 2))[0]
    torch.testing.assert_close(scan(cell, x, (h, c, n, m))[0], moved, rtol=1e-12, atol=1e-12)


def test_spectra_of_the_linear_ones() -> None:
    """lambda inside the unit circle; oscillators that forget with IM, and turn for ever with IMEX."""
    A, b = torch.tensor([0.5, 2.0, 9.0], dtype=torch.float64), torch.tensor([-1.0, 0.5, 0.3], dtype=torch.float64)
    for form, modulus in (("IM", (1 + torch.sigmoid(b) ** 2 * A) ** -0.5), ("IMEX", torch.ones(3))):
        cell = cells.LinOSSCell(I, N, 3, form).double()  # type: ignore[arg-type]
        with torch.no_grad():
            cell.a.copy_(A)
            cell.b.copy_(b)
        found = torch.linalg.eigvals(cell.recurrent_matrices()["recurrent"].detach()).abs().sort().values
        torch.testing.assert_close(found, modulus.double().repeat(2).sort().values)
    torch.manual_seed(0)
    cell = cells.LRUCell(I, 8, 200, r_min=0.6, r_max=0.9, max_phase=0.5)
    values = torch.linalg.eigvals(cell.recurrent_matrices()["recurrent"].detach().double())
    assert 0.6 <= float(values.abs().min()) < 0.61 and 0.89 < float(values.abs().max()) <= 0.9
    assert 0.45 < float(values.angle().abs().max()) <= 0.5
    assert float(values.abs().square().mean()) == pytest.approx((0.36 + 0.81) / 2, abs=0.02)  # uniform on the ring
    gamma = cell.log_gamma.detach().double().exp().sort().values
    torch.testing.assert_close(gamma, (1 - values.abs().square()).sqrt().sort().values[::2], rtol=1e-4, atol=1e-4)


def test_extreme_gates_of_minlstm_still_add_up_to_one() -> None:
    """sigma(-200) / (sigma(-200) + sigma(-200)) is 0 / 0 in float32."""
    cell = cells.MinLSTMCell(I, N)
    with torch.no_grad():
        cell.input.weight.zero_()
        cell.input.bias[N:] = -200
    a, v = cell.drive(torch.zeros(1, 1, I), None).chunk(2, dim=-1)
    torch.testing.assert_close(a, torch.full_like(a, 0.5))
    torch.testing.assert_close(v, 0.5 * (positive(cell.input.bias[:N])).expand_as(v))


# ---- starts and sizes


def bounded(values: torch.Tensor, bound: float, low: float | None = None) -> None:
    low = -bound if low is None else low
    values = values.detach()
    assert float(values.max()) <= bound and float(values.min()) >= low
    assert float(values.std()) == pytest.approx((bound - low) / 12**0.5, rel=0.1)


def test_starts() -> None:
    torch.manual_seed(0)
    n = 400
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


def test_starts_of_the_linear_ones() -> None:
    """As the authors' code draws them, matrix by matrix; D is full here."""
    torch.manual_seed(0)
    I, n, N = 100, 200, 300  # noqa: E741

    def normal(W: nn.Linear, std: float) -> None:
        assert stats.kstest(W.weight.detach().flatten().numpy(), "norm", args=(0, std)).pvalue > 1e-4

    lru, linoss = cells.LRUCell(I, n, N), cells.LinOSSCell(I, n, N)
    assert lru.glu is not None and not lru.glu.bias.any()
    for W, std in ((lru.B, (2 * I) ** -0.5), (lru.C, N**-0.5), (lru.D, I**-0.5), (lru.glu, n**-0.5)):
        normal(W, std)
    normal(linoss.D, I**-0.5)
    for values, bound in ((linoss.B.weight, I**-0.5), (linoss.C.weight, N**-0.5)):
        bounded(values, bound)
    bounded(linoss.a, 1, 0)
    bounded(linoss.b, 1, 0)
    minimal = cells.MinLSTMCell(I, n, forget_bias=3.0)
    bounded(minimal.input.weight, I**-0.5)
    bounded(minimal.input.bias - 3.0 * torch.tensor([0, 1, 0]).repeat_interleave(n), I**-0.5)
    product = cells.DeltaProductCell(I, n, 3, heads=2, key_size=30)
    rows = (60, 180, 600, 6)  # of q, three k, three v, three beta, for both heads
    for part, height in zip(product.input.weight.split(rows), rows, strict=True):
        bounded(part, 2**-2.5 * (6 / (I + height)) ** 0.5)
    assert (product.scale == 1).all()


@pytest.mark.parametrize(
    ("name", "options", "count"),
    [
        ("CoRNN", {"hidden_size": 256}, 134_154),
        ("UnICORNN", {"hidden_size": 256, "layers": 3}, 136_202),
        ("LEM", {"hidden_size": 128}, 67_850),
        ("SLSTM", {"hidden_size": 64}, 4 * 64 * 66 + 650),
        ("MinGRU", {"hidden_size": 64}, 2 * 64 * 2 + 650),
        ("MinLSTM", {"hidden_size": 64}, 3 * 64 * 2 + 650),
        ("LRU", {"hidden_size": 64, "state_size": 32}, 3 * 32 + 2 * 32 * 65 + 64 + 2 * 64 * 65 + 650),
        ("LinOSS", {"hidden_size": 64, "glu": False}, 2 * 64 + 2 * 64 * 65 + 64 + 650),
        ("DeltaProduct", {"hidden_size": 64, "heads": 4}, 4 * (16 + 2 * 33) + 16 + 650),
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
        ("LRU", {"r_min": 1.0}, "r_min"),
        ("LRU", {"r_min": 0.5, "r_max": 0.5}, "r_max"),
        ("LRU", {"max_phase": 0.0}, "max_phase"),
        ("LRU", {"state_size": 0}, "state_size"),
        ("LinOSS", {"discretization": "EX"}, "discretization is 'EX', but it must be IM or IMEX"),
        ("DeltaProduct", {"heads": 3}, "hidden_size is 4, but it must be a multiple of model.init_args.heads, 3"),
        ("DeltaProduct", {"householder": 0}, "householder"),
        ("DeltaProduct", {"key_size": 0}, "key_size"),
        (
            "LRU",
            {"weight_dropout": 0.1},
            "weight_dropout is 0.1, but it must be 0: the W of LRUCell is no matrix of weights",
        ),
        ("MinGRU", {"norm_penalty": 0.1}, "norm_penalty is 0.1, but it must be 0: MinGRUCell has no recurrent matrix"),
        ("DeltaProduct", {"recurrent_constraint": "spectral_norm"}, "recurrent_constraint"),
        ("SLSTM", {"learn_initial_state": True}, "learn_initial_state is true, but it must be false"),
    ],
)
def test_what_is_refused(name: str, options: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        getattr(models, name)(PIXELS, 4, **options)
