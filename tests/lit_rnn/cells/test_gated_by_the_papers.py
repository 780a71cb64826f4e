"""The gated cells against NumPy float64 implementations written from the papers' equations and from nothing else.

Every recurrence is written here a second time, one sample and one step at a time, so that a slip in a batched or fused
form of the same equations shows.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from lit_rnn.cells import (
    Cell,
    GRUCell,
    JANETCell,
    LayerNormRNNCell,
    LSTMCell,
    NRUCell,
    StatisticalRUCell,
    VanillaRNNCell,
)

Vector = NDArray[np.float64]
Weights = dict[str, Vector]
Step = Callable[[Weights, Vector, tuple[Vector, ...]], tuple[Vector, tuple[Vector, ...]]]

INPUTS, HIDDEN, STEPS, BATCH = 3, 5, 4, 3


def sigma(a: Vector) -> Vector:
    return 1.0 / (1.0 + np.exp(-a))


def relu(a: Vector) -> Vector:
    return np.where(a > 0, a, 0.0)


def layer_norm(a: Vector, gain: Vector, offset: Vector) -> Vector:
    centred = a - a.mean()
    return centred / np.sqrt((centred**2).mean() + 1e-5) * gain + offset


def l5_normalised(v: Vector) -> Vector:
    return v / max((np.abs(v) ** 5).sum() ** 0.2, 1e-12)


def blocks(p: Weights, count: int, x: Vector, h: Vector) -> list[Vector]:
    """U x + W h + b, gate by gate."""
    return np.split(p["input.weight"] @ x + p["input.bias"] + p["recurrent.weight"] @ h, count)


def layer_norm_rnn(f: Callable[[Vector], Vector]) -> Step:
    def step(p: Weights, x: Vector, state: tuple[Vector, ...]) -> tuple[Vector, tuple[Vector, ...]]:
        a = p["input.weight"] @ x + p["recurrent.weight"] @ state[0] + p["input.bias"]
        h = f(layer_norm(a, p["norm.weight"], p["norm.bias"]))
        return h, (h,)

    return step


def lstm(p: Weights, x: Vector, state: tuple[Vector, ...]) -> tuple[Vector, tuple[Vector, ...]]:
    h, c = state
    i, f, g, o = blocks(p, 4, x, h)
    w_ci, w_cf, w_co = p.get("peephole", np.zeros((3, len(h))))
    i = sigma(i + w_ci * c)
    f = sigma(f + w_cf * c)
    c = f * c + i * np.tanh(g)
    h = sigma(o + w_co * c) * np.tanh(c)
    return h, (h, c)


def gru_after(p: Weights, x: Vector, state: tuple[Vector, ...]) -> tuple[Vector, tuple[Vector, ...]]:
    (h,) = state
    n = len(h)
    U, b, W = p["input.weight"], p["input.bias"], p["recurrent.weight"]
    r = sigma(U[:n] @ x + b[:n] + W[:n] @ h)
    z = sigma(U[n : 2 * n] @ x + b[n : 2 * n] + W[n : 2 * n] @ h)
    c = np.tanh(U[2 * n :] @ x + b[2 * n :] + r * (W[2 * n :] @ h + p["candidate_bias"]))
    h = (1 - z) * c + z * h
    return h, (h,)


def gru_before(p: Weights, x: Vector, state: tuple[Vector, ...]) -> tuple[Vector, tuple[Vector, ...]]:
    (h,) = state
    n = len(h)
    U, b, W = p["input.weight"], p["input.bias"], p["recurrent.weight"]
    r = sigma(U[:n] @ x + b[:n] + W[:n] @ h)
    z = sigma(U[n : 2 * n] @ x + b[n : 2 * n] + W[n : 2 * n] @ h)
    c = np.tanh(U[2 * n :] @ x + b[2 * n :] + W[2 * n :] @ (r * h))
    h = (1 - z) * c + z * h
    return h, (h,)


def janet(beta: float) -> Step:
    def step(p: Weights, x: Vector, state: tuple[Vector, ...]) -> tuple[Vector, tuple[Vector, ...]]:
        s, j = blocks(p, 2, x, state[0])
        h = sigma(s) * state[0] + (1 - sigma(s - beta)) * np.tanh(j)
        return h, (h,)

    return step


def nru(heads: int, use_relu: bool, norm: bool, paper: bool) -> Step:
    """Section 2.2 (released: mean over heads, one shared outer product) or 2.1 (paper: sum, one product a head)."""
    gate = relu if use_relu else (lambda a: a)

    def vectors(p: Weights, name: str, c: Vector, M: int) -> list[Vector]:
        pq = p[f"{name}.weight"] @ c + p[f"{name}.bias"]
        if paper:  # the paper orders no rows; the cell's are [p_1; q_1; p_2; q_2; ..]
            rows = [np.outer(*np.split(head, 2)).ravel() for head in np.split(pq, heads)]
        else:
            rows = list(np.outer(*np.split(pq, 2)).reshape(heads, M))
        return [l5_normalised(gate(row)) for row in rows]

    def step(p: Weights, x: Vector, state: tuple[Vector, ...]) -> tuple[Vector, tuple[Vector, ...]]:
        h, m = state
        W = np.hstack([p["input.weight"], p["recurrent.weight"], p["memory.weight"]])
        a = W @ np.concatenate([x, h, m]) + p["input.bias"]
        h = relu(layer_norm(a, p["norm.weight"], p["norm.bias"]) if norm else a)
        c = np.concatenate([h, m, x] if paper else [h, m])
        alpha = gate(p["alpha.weight"] @ c + p["alpha.bias"])
        beta = gate(p["beta.weight"] @ c + p["beta.bias"])
        change = np.zeros_like(m)
        for i, (v, u) in enumerate(zip(vectors(p, "write", c, len(m)), vectors(p, "erase", c, len(m)), strict=True)):
            change += alpha[i] * v - beta[i] * u
        m = m + (change if paper else change / heads)
        return h, (h, m)

    return step


def statistical(alphas: tuple[float, ...]) -> Step:
    def step(p: Weights, x: Vector, state: tuple[Vector, ...]) -> tuple[Vector, tuple[Vector, ...]]:
        (mu,) = state
        r = relu(p["summary.weight"] @ mu + p["summary.bias"])
        W_phi = np.hstack([p["input.weight"], p["recurrent.weight"]])
        phi = relu(W_phi @ np.concatenate([x, r]) + p["input.bias"])
        averages = np.split(mu, len(alphas))
        mu = np.concatenate([a * old + (1 - a) * phi for a, old in zip(alphas, averages, strict=True)])
        return relu(p["output.weight"] @ mu + p["output.bias"]), (mu,)

    return step


class Case(NamedTuple):
    build: Callable[[], Cell]
    step: Step


def _cases() -> dict[str, Case]:
    cases: dict[str, Case] = {
        "LayerNormRNN relu": Case(lambda: LayerNormRNNCell(INPUTS, HIDDEN), layer_norm_rnn(relu)),
        "LayerNormRNN tanh": Case(
            lambda: LayerNormRNNCell(INPUTS, HIDDEN, nonlinearity="tanh"), layer_norm_rnn(np.tanh)
        ),
        "LSTM": Case(lambda: LSTMCell(INPUTS, HIDDEN), lstm),
        "LSTM peepholes": Case(lambda: LSTMCell(INPUTS, HIDDEN, peepholes=True), lstm),
        "GRU after": Case(lambda: GRUCell(INPUTS, HIDDEN), gru_after),
        "GRU before": Case(lambda: GRUCell(INPUTS, HIDDEN, reset="before"), gru_before),
        "JANET": Case(lambda: JANETCell(INPUTS, HIDDEN), janet(1.0)),
        "JANET no beta": Case(lambda: JANETCell(INPUTS, HIDDEN, beta=0.0), janet(0.0)),
        "StatisticalRU": Case(
            lambda: StatisticalRUCell(INPUTS, HIDDEN, statistics_size=7, summary_size=4),
            statistical((0.0, 0.5, 0.9, 0.99, 0.999)),
        ),
        "StatisticalRU two averages": Case(
            lambda: StatisticalRUCell(INPUTS, HIDDEN, statistics_size=3, summary_size=2, alphas=(0.25, 0.75)),
            statistical((0.25, 0.75)),
        ),
    }
    # k M, or M in the paper's form, a perfect square
    for form, M, k in (("released", 8, 2), ("released", 9, 1), ("released", 9, 4), ("paper", 9, 2), ("paper", 4, 3)):
        for use_relu in (False, True):
            for norm in (False, True):
                options: dict[str, Any] = {"heads": k, "use_relu": use_relu, "layer_norm": norm, "form": form}
                cases[f"NRU {form} M{M} k{k}{' relu' * use_relu}{' norm' * norm}"] = Case(
                    lambda M=M, options=options: NRUCell(INPUTS, HIDDEN, M, **options),
                    nru(k, use_relu, norm, form == "paper"),
                )
    return cases


CASES = _cases()
each_cell = pytest.mark.parametrize("name", CASES)


def generic(cell: Cell, dtype: torch.dtype) -> Cell:
    """The cell with every parameter moved off its start, biases and gains included."""
    with torch.no_grad():
        for parameter in cell.parameters():
            parameter.add_(0.15 * torch.randn_like(parameter))
    return cell.to(dtype)


def generic_state(cell: Cell, dtype: torch.dtype) -> tuple[Tensor, ...]:
    return tuple(torch.randn(s.shape, dtype=dtype) for s in cell.initial_state(BATCH))


def stepped(cell: Cell, x: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, tuple[Tensor, ...]]:
    w = cell.weights()
    u = cell.drive(x, w)
    outputs = []
    for t in range(len(x)):
        y, state = cell.step(u[t], state, w)
        outputs.append(y)
    return torch.stack(outputs), state


def by_the_paper(
    cell: Cell, step: Step, x: Tensor, state: tuple[Tensor, ...], jitter: float = 0.0
) -> list[NDArray[np.float64]]:
    """Outputs (T, B, n) and final states in NumPy, sample by sample; ``jitter`` moves every number relatively."""
    signs = np.random.default_rng(0)

    def array(tensor: Tensor) -> Vector:
        exact = tensor.detach().double().numpy()
        return exact * (1 + jitter * signs.choice([-1.0, 1.0], exact.shape))

    p = {name: array(parameter) for name, parameter in cell.named_parameters()}
    xs, starts = array(x), [array(part) for part in state]
    outputs, finals = [], []
    for b in range(x.shape[1]):
        s = tuple(part[b] for part in starts)
        ys = []
        for t in range(len(x)):
            y, s = step(p, xs[t, b], s)
            ys.append(y)
        outputs.append(ys)
        finals.append(s)
    return [np.array(outputs).transpose(1, 0, 2), *(np.array(parts) for parts in zip(*finals, strict=True))]


@each_cell
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-6)], ids=["f64", "f32"])
def test_outputs_and_states_are_those_of_the_equations(name: str, dtype: torch.dtype, tolerance: float) -> None:
    cell = generic(CASES[name].build(), dtype)
    x, state = torch.randn(STEPS, BATCH, INPUTS, dtype=dtype), generic_state(cell, dtype)
    with torch.no_grad():
        y, final = stepped(cell, x, state)
    assert y.dtype == dtype
    assert y.abs().max() > 0.05, "a dead cell proves nothing"
    expected = by_the_paper(cell, CASES[name].step, x, state)
    # the NRU divides by norms that may be small: what one rounding of the inputs moves cannot be asked for
    moved = by_the_paper(cell, CASES[name].step, x, state, jitter=torch.finfo(dtype).eps)
    for ours, theirs, shaken in zip([y, *final], expected, moved, strict=True):
        allowed = max(tolerance * max(1.0, np.abs(theirs).max()), 4 * np.abs(shaken - theirs).max())
        assert np.abs(ours.double().numpy() - theirs).max() <= allowed


@each_cell
def test_states_start_at_zero(name: str) -> None:
    cell = CASES[name].build()
    assert all(not s.any() for s in cell.initial_state(BATCH))
    y, _ = stepped(cell, torch.randn(1, BATCH, INPUTS), cell.initial_state(BATCH))
    assert y.shape == (1, BATCH, cell.output_size)


@each_cell
def test_gradients_are_those_of_finite_differences(name: str) -> None:
    cell = generic(CASES[name].build(), torch.float64)
    names = [n for n, _ in cell.named_parameters()]
    x = torch.randn(2, 2, INPUTS, dtype=torch.float64, requires_grad=True)
    state = tuple(s[:2].clone().requires_grad_() for s in generic_state(cell, torch.float64))
    parameters = [p.detach().clone().requires_grad_() for p in cell.parameters()]

    class Run(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cell = cell

        def forward(self, x: Tensor, *state: Tensor) -> tuple[Tensor, ...]:
            y, final = stepped(self.cell, x, state)
            return (y, *final)

    run = Run()

    def function(x: Tensor, *rest: Tensor) -> tuple[Tensor, ...]:
        values = {f"cell.{n}": p for n, p in zip(names, rest[len(state) :], strict=True)}
        return torch.func.functional_call(run, values, (x, *rest[: len(state)]))

    assert torch.autograd.gradcheck(function, (x, *state, *parameters), fast_mode=True)


@pytest.mark.parametrize("form", ["released", "paper"])
@pytest.mark.parametrize("use_relu", [False, True])
def test_an_all_zero_row_neither_changes_the_memory_nor_breaks_the_gradient(form: str, use_relu: bool) -> None:
    cell = NRUCell(INPUTS, HIDDEN, 9, heads=1, use_relu=use_relu, form=form).double()
    with torch.no_grad():
        for linear in (cell.write, cell.erase):
            linear.weight.zero_()
            # p < 0 < q: with the ReLU every product is cut off; without it, p = 0 makes the row zero
            linear.bias[:3] = -1.0 if use_relu else 0.0
            linear.bias[3:] = 1.0
        # positive gates, so that the gradient goes through the outer products
        cell.alpha.bias.fill_(2.0)
        cell.beta.bias.fill_(1.0)
    x = torch.randn(2, BATCH, INPUTS, dtype=torch.float64, requires_grad=True)
    state = generic_state(cell, torch.float64)
    y, (_, m) = stepped(cell, x, state)
    torch.testing.assert_close(m, state[1], rtol=0, atol=1e-12)
    (y.sum() + m.sum()).backward()
    assert all(torch.isfinite(p.grad).all() for p in (x, *cell.parameters()) if p.grad is not None)


def test_the_heads_of_the_released_nru_share_one_outer_product() -> None:
    """k rows of p q^T, row-major: with p = e_1 every head but the first is empty."""
    cell = NRUCell(1, 2, 4, heads=4).double()  # s = 4: each head is one row p_i q^T
    with torch.no_grad():
        for parameter in cell.parameters():
            parameter.zero_()
        cell.write.bias[0] = 1.0
        cell.write.bias[4:] = torch.tensor([1.0, 2.0, 3.0, 4.0])
        cell.alpha.bias.copy_(torch.tensor([8.0, 5.0, 5.0, 5.0]))
        _, (_, m) = stepped(cell, torch.zeros(1, 1, 1, dtype=torch.float64), cell.initial_state(1))
    q = np.array([1.0, 2.0, 3.0, 4.0])
    np.testing.assert_allclose(m[0].numpy(), 8.0 / 4 * q / (q**5).sum() ** 0.2, rtol=1e-14)


# -- against torch's own modules -------------------------------------------------------------------------------------


def _torch_pair(kind: str) -> tuple[Cell, nn.Module]:
    if kind == "LSTM":
        cell, module = LSTMCell(INPUTS, HIDDEN).double(), nn.LSTM(INPUTS, HIDDEN).double()
        with torch.no_grad():
            cell.input.bias.copy_(module.bias_ih_l0 + module.bias_hh_l0)
    else:
        cell, module = GRUCell(INPUTS, HIDDEN).double(), nn.GRU(INPUTS, HIDDEN).double()
        with torch.no_grad():
            cell.input.bias.copy_(module.bias_ih_l0)
            cell.input.bias[: 2 * HIDDEN] += module.bias_hh_l0[: 2 * HIDDEN]
            cell.candidate_bias.copy_(module.bias_hh_l0[2 * HIDDEN :])
    with torch.no_grad():
        cell.input.weight.copy_(module.weight_ih_l0)
        cell.recurrent.weight.copy_(module.weight_hh_l0)
    return cell, module


@pytest.mark.parametrize("kind", ["LSTM", "GRU"])
def test_torch_weight_for_weight(kind: str) -> None:
    cell, module = _torch_pair(kind)
    x = torch.randn(20, BATCH, INPUTS, dtype=torch.float64, requires_grad=True)
    state = tuple(s.requires_grad_() for s in generic_state(cell, torch.float64))
    y, final = stepped(cell, x, state)
    theirs, last = module(x, tuple(s[None] for s in state) if kind == "LSTM" else state[0][None])
    last = last if kind == "LSTM" else (last,)
    torch.testing.assert_close(y, theirs, rtol=0, atol=1e-12)
    for ours, other in zip(final, last, strict=True):
        torch.testing.assert_close(ours, other[0], rtol=0, atol=1e-12)

    cotangent = torch.randn_like(y)
    shared = [x, *state]
    ours = torch.autograd.grad((y * cotangent).sum(), [*shared, cell.input.weight, cell.recurrent.weight])
    other = torch.autograd.grad((theirs * cotangent).sum(), [*shared, module.weight_ih_l0, module.weight_hh_l0])
    for a, b in zip(ours, other, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-11)


# -- gates come apart -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("build", "gates"),
    [
        (lambda: LSTMCell(INPUTS, HIDDEN), ["input", "forget", "cell", "output"]),
        (lambda: GRUCell(INPUTS, HIDDEN), ["reset", "update", "candidate"]),
        (lambda: GRUCell(INPUTS, HIDDEN, reset="before"), ["reset", "update", "candidate"]),
        (lambda: JANETCell(INPUTS, HIDDEN), ["forget", "candidate"]),
    ],
    ids=["LSTM", "GRU", "GRU before", "JANET"],
)
def test_each_gates_matrix_is_the_rows_that_gate_uses(build: Callable[[], Cell], gates: list[str]) -> None:
    cell = build()
    matrices = cell.recurrent_matrices()
    assert list(matrices) == gates
    for matrix, rows in zip(matrices.values(), cell.recurrent.weight.split(HIDDEN), strict=True):
        assert torch.equal(matrix, rows)


# -- the published sizes ----------------------------------------------------------------------------------------------

# nonnormal_nru.md 2.3, readout included: inputs, outputs, cell, total
PUBLISHED = [
    ("copy NRU", 10, 9, lambda i: NRUCell(i, 80, 64, heads=4), 23569),
    ("copy LSTM", 10, 9, lambda i: LSTMCell(i, 70, peepholes=True), 23529),
    ("copy GRU", 10, 9, lambda i: GRUCell(i, 82, reset="before"), 23625),
    ("copy JANET", 10, 9, lambda i: JANETCell(i, 101), 23542),
    ("copy RNN", 10, 9, lambda i: LayerNormRNNCell(i, 143), 23604),
    ("copy SRU", 10, 9, lambda i: StatisticalRUCell(i, 60, 55, 16), 23010),
    ("psMNIST NRU", 1, 10, lambda i: NRUCell(i, 212, 256, heads=4), 165554),
    ("psMNIST LSTM", 1, 10, lambda i: LSTMCell(i, 200, peepholes=True), 164210),
    ("psMNIST GRU", 1, 10, lambda i: GRUCell(i, 232, reset="before"), 165194),
    ("psMNIST JANET", 1, 10, lambda i: JANETCell(i, 283), 164150),
    ("psMNIST RNN", 1, 10, lambda i: LayerNormRNNCell(i, 400), 165610),
    ("psMNIST SRU", 1, 10, lambda i: StatisticalRUCell(i, 150, 155, 50), 164770),
]


@pytest.mark.parametrize(
    ("inputs", "outputs", "build", "total"), [p[1:] for p in PUBLISHED], ids=[p[0] for p in PUBLISHED]
)
def test_published_parameter_counts(inputs: int, outputs: int, build: Callable[[int], Cell], total: int) -> None:
    cell = build(inputs)
    readout = nn.Linear(cell.output_size, outputs)
    assert sum(p.numel() for m in (cell, readout) for p in m.parameters()) == total


# -- the published starts ---------------------------------------------------------------------------------------------


def assert_uniform(values: Tensor, bound: float) -> None:
    """All inside the bound, the outer tenth not empty, the second moment that of U(-bound, bound) within 5 sigma."""
    flat = values.detach().double().flatten()
    assert flat.abs().max() <= bound * (1 + 1e-6)
    assert flat.abs().max() > 0.9 * bound
    # var(v^2) = bound^4 (1/5 - 1/9)
    assert abs((flat**2).mean() - bound**2 / 3) < 5 * bound**2 * math.sqrt(4 / 45 / len(flat))


@pytest.mark.parametrize("form", ["released", "paper"])
def test_the_nru_starts_as_linear_maps_of_the_concatenated_vector(form: str) -> None:
    inputs, H, M = 10, 80, 64
    cell = NRUCell(inputs, H, M, heads=4, form=form)
    of_all = 1 / math.sqrt(inputs + H + M)
    for weight in (cell.input.weight, cell.recurrent.weight, cell.memory.weight, cell.input.bias):
        assert_uniform(weight, of_all)
    of_c = of_all if form == "paper" else 1 / math.sqrt(H + M)
    for linear in (cell.write, cell.erase, cell.alpha, cell.beta):
        assert_uniform(torch.cat([linear.weight.flatten(), linear.bias]), of_c)


def test_the_statistical_unit_starts_glorot_uniform_with_gain_sqrt_2() -> None:
    inputs, n, p, r = 10, 60, 55, 16
    cell = StatisticalRUCell(inputs, n, p, r)
    fans = {"summary.weight": (5 * p, r), "output.weight": (5 * p, n)}
    for name, (fan_in, fan_out) in fans.items():
        assert_uniform(cell.get_parameter(name), math.sqrt(2) * math.sqrt(6 / (fan_in + fan_out)))
    # W_phi [x; r] is one matrix in the reference
    joint = math.sqrt(2) * math.sqrt(6 / (inputs + r + p))
    assert_uniform(torch.cat([cell.input.weight, cell.recurrent.weight], 1), joint)
    assert not any(b.any() for name, b in cell.named_parameters() if name.endswith("bias"))


@pytest.mark.parametrize("t_max", [120, 785])
@pytest.mark.parametrize("integers", [False, True])
def test_chrono_bias(t_max: int, integers: bool) -> None:
    n = 500
    torch.manual_seed(3)
    lstm_bias = LSTMCell(1, n, t_max=t_max, chrono_integers=integers, init="glorot").input.bias.detach()
    i, f, g, o = lstm_bias.split(n)
    assert torch.equal(i, -f)
    assert not g.any() and not o.any()
    s, j = JANETCell(1, n, t_max=t_max, chrono_integers=integers).input.bias.detach().split(n)
    assert not j.any()
    for bias in (f, s):
        u = bias.double().exp()
        top = t_max if integers else t_max - 1
        assert u.min() >= 1 - 1e-5 and u.max() <= top * (1 + 1e-5)
        assert u.max() > 0.9 * top and u.min() < 0.1 * top
        # u uniform, so its mean is that of the interval within 5 sigma
        assert abs(u.mean() - (1 + top) / 2) < 5 * (top - 1) / math.sqrt(12 * n)
        if integers:
            torch.testing.assert_close(u, u.round(), rtol=1e-5, atol=0)


def test_forget_biases_start_at_one_and_the_others_at_zero() -> None:
    for peepholes in (False, True):
        i, f, g, o = LSTMCell(2, 4, peepholes=peepholes, init="glorot").input.bias.detach().split(4)
        assert torch.equal(f, torch.ones(4)) and not any(b.any() for b in (i, g, o))
    s, j = JANETCell(2, 4).input.bias.detach().split(4)
    assert torch.equal(s, torch.ones(4)) and not j.any()
    assert not GRUCell(2, 4, reset="before", init="glorot").input.bias.any()


@pytest.mark.parametrize("build", [LSTMCell, GRUCell])
def test_plain_gates_start_as_torchs(build: Callable[..., Cell]) -> None:
    inputs, n = 20, 50
    cell = build(inputs, n)
    for matrix in (cell.input.weight, cell.recurrent.weight):
        assert_uniform(matrix, 1 / math.sqrt(n))
    if build is LSTMCell:
        assert torch.equal(cell.input.bias[n : 2 * n], torch.ones(n))


def test_the_nru_papers_lstm_starts_glorot_normal_and_orthogonal_gate_by_gate() -> None:
    """nonnormal_nru.md 3: W_x Xavier normal, W_h orthogonal per gate, peepholes U(0, 1)."""
    inputs, n = 40, 120
    cell = LSTMCell(inputs, n, peepholes=True, init="glorot")
    for W in cell.recurrent_matrices().values():
        torch.testing.assert_close(W @ W.mT, torch.eye(n), rtol=0, atol=1e-5)
    for U in cell.input.weight.split(n):
        std = math.sqrt(2 / (inputs + n))
        assert abs(U.std() / std - 1) < 5 / math.sqrt(2 * U.numel())
        assert U.abs().max() > 3 * std, "normal, not uniform"
    peephole = cell.peephole.detach()
    assert peephole.min() >= 0 and peephole.max() <= 1
    assert abs(peephole.mean() - 0.5) < 5 / math.sqrt(12 * peephole.numel())


def test_rnn_orth_and_rnn_id_are_the_relu_cell_with_a_norm() -> None:
    """W_h orthogonal or the identity; b 0; the norm starts as gain 1, offset 0."""
    orth = LayerNormRNNCell(INPUTS, 30)
    torch.testing.assert_close(orth.recurrent.weight @ orth.recurrent.weight.mT, torch.eye(30), rtol=0, atol=1e-5)
    assert torch.equal(LayerNormRNNCell(INPUTS, 30, init=nn.init.eye_).recurrent.weight, torch.eye(30))
    assert not orth.input.bias.any() and not orth.norm.bias.any() and torch.equal(orth.norm.weight, torch.ones(30))
    # without the norm it is the vanilla cell: same weights, normalised by hand
    plain = VanillaRNNCell(INPUTS, 30, nonlinearity="identity")
    plain.load_state_dict({k: v for k, v in orth.state_dict().items() if not k.startswith("norm")})
    x, state = torch.randn(1, BATCH, INPUTS), (torch.randn(BATCH, 30),)
    pre, _ = stepped(plain, x, state)
    post, _ = stepped(orth, x, state)
    torch.testing.assert_close(post, nn.functional.layer_norm(pre, (30,)).relu(), rtol=0, atol=1e-6)
