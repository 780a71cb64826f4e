"""Lyapunov exponents and step Jacobians against closed forms, products in one piece and finite differences."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from lit_rnn.analysis import lyapunov_spectrum, states_and_gradients, step_jacobians
from lit_rnn.cells import Cell, ExpRNNCell, GRUCell, JANETCell, LSTMCell, NRUCell, URNNCell, VanillaRNNCell
from tests.refusals import refusal

Matrix = NDArray[Any]


def gaussian(n: int, seed: int, steps: int | None = None) -> Matrix:
    shape = (n, n) if steps is None else (steps, n, n)
    return np.random.default_rng(seed).standard_normal(shape) / math.sqrt(n)


def constant(W: Matrix, steps: int) -> Iterator[Matrix]:
    return (W for _ in range(steps))


# -- lyapunov_spectrum ------------------------------------------------------------------------------------------------

TRIANGULAR = np.array([[0.9, 5.0, 1.0], [0.0, 0.5, 2.0], [0.0, 0.0, 0.2]])


def test_a_linear_map_has_the_logarithms_of_its_eigenvalues() -> None:
    """Without warm-up the bias is O(1 / T), and the published -.10456 for -.10536 is of that size."""
    expected = np.log([0.9, 0.5, 0.2])
    Q, _ = np.linalg.qr(gaussian(3, 0))
    for W in (TRIANGULAR, Q @ TRIANGULAR @ Q.T):
        np.testing.assert_allclose(lyapunov_spectrum(constant(W, 4000)), expected, atol=2e-3)
        np.testing.assert_allclose(lyapunov_spectrum(constant(W, 700), warmup=200), expected, atol=1e-9)


@pytest.mark.parametrize("n", [1, 2, 6, 20])
def test_a_linear_map_with_real_eigenvalues_of_distinct_size(n: int) -> None:
    eigenvalues = 1.5 * 0.8 ** np.arange(n) * (-1.0) ** np.arange(n)
    S = np.eye(n) + 0.3 * gaussian(n, n)
    W = S @ np.diag(eigenvalues) @ np.linalg.inv(S)
    np.testing.assert_allclose(
        lyapunov_spectrum(constant(W, 500), warmup=300), np.sort(np.log(abs(eigenvalues)))[::-1], atol=1e-8
    )


def test_a_complex_pair_shares_its_exponent() -> None:
    """Their mean converges; each swings by O(1 / T)."""
    a = 1.1
    W = 0.9 * np.array([[math.cos(a), -math.sin(a)], [math.sin(a), math.cos(a)]])
    S = np.array([[1.0, 3.0], [0.0, 1.0]])
    exponents = lyapunov_spectrum(constant(S @ W @ np.linalg.inv(S), 3000))
    np.testing.assert_allclose(exponents, math.log(0.9), atol=3e-3)
    assert exponents.sum() == pytest.approx(2 * math.log(0.9), abs=1e-12)


@pytest.mark.parametrize("n", [1, 3, 20, 100])
def test_orthogonal_maps_have_exponents_of_zero(n: int) -> None:
    Q = [np.linalg.qr(gaussian(n, seed))[0] for seed in range(5)]
    exponents = lyapunov_spectrum(Q[t % 5] for t in range(50))
    assert exponents.shape == (n,)
    assert abs(exponents).max() < 1e-13
    np.testing.assert_allclose(lyapunov_spectrum(0.9 * q for q in Q), math.log(0.9), atol=1e-13)


@pytest.mark.parametrize(("steps", "warmup"), [(1, 0), (2, 0), (2, 1), (17, 10), (300, 0), (300, 1), (300, 10)])
@pytest.mark.parametrize("n", [1, 4, 30])
def test_they_sum_to_the_mean_of_the_log_determinants(n: int, steps: int, warmup: int) -> None:
    """The best invariant: exact at every T."""
    J = gaussian(n, n + steps, steps)
    exponents = lyapunov_spectrum(J, warmup=warmup)
    assert exponents.sum() == pytest.approx(np.linalg.slogdet(J[warmup:])[1].mean(), abs=1e-10 * n)
    assert (np.diff(exponents) <= 0).all(), "descending"


@pytest.mark.parametrize("seed", range(5))
def test_the_factors_of_the_whole_product(seed: int) -> None:
    """QR of J_T .. J_1 in one piece: the R of a step-by-step factorisation multiply to its R."""
    J = gaussian(4, seed, 6)
    product = np.linalg.multi_dot(list(J[::-1]))
    R = np.linalg.qr(product)[1]
    expected = np.sort(np.log(abs(np.diag(R))) / 6)[::-1]
    np.testing.assert_allclose(lyapunov_spectrum(J), expected, atol=1e-10)


@pytest.mark.parametrize("seed", range(4))
def test_a_period_of_three_in_the_right_order(seed: int) -> None:
    """A cycle A, B, C has the eigenvalues of C B A; those of A B C are others."""
    A, B, C = gaussian(3, 10 + seed, 3)
    forward, backward = (np.sort(np.log(abs(np.linalg.eigvals(P))))[::-1] / 3 for P in (C @ B @ A, A @ B @ C))
    assert abs(forward - backward).max() > 1e-2, "the seed tells nothing"
    cycle = ((A, B, C)[t % 3] for t in range(4503))
    np.testing.assert_allclose(lyapunov_spectrum(cycle, warmup=1503), forward, atol=5e-3)


def test_henon() -> None:
    """a = 1.4, b = .3: the sum is ln b at every step; the largest is about .419."""

    def jacobians(steps: int) -> Iterator[Matrix]:
        x, y = 0.1, 0.1
        for _ in range(steps):
            yield np.array([[-2.8 * x, 1.0], [0.3, 0.0]])
            x, y = 1 - 1.4 * x * x + y, 0.3 * x

    exponents = lyapunov_spectrum(jacobians(20_000), warmup=100)
    assert exponents.sum() == pytest.approx(-1.2039728043, abs=1e-10)
    assert exponents[0] == pytest.approx(0.4186, abs=4e-3)


def test_natural_logarithms_per_step() -> None:
    assert lyapunov_spectrum([np.array([[math.e]])] * 3)[0] == pytest.approx(1.0, abs=1e-14)
    assert lyapunov_spectrum([np.array([[-2.0]]), np.array([[8.0]])])[0] == pytest.approx(math.log(4), abs=1e-14)


def test_a_long_product_neither_overflows_nor_underflows() -> None:
    exponents = lyapunov_spectrum(constant(np.diag([1e10, 1e-10]), 200))
    np.testing.assert_allclose(exponents, [10 * math.log(10), -10 * math.log(10)], rtol=1e-13)


def test_a_singular_step_has_an_exponent_of_minus_infinity() -> None:
    exponents = lyapunov_spectrum(constant(np.diag([0.5, 0.0]), 5))
    assert exponents[0] == pytest.approx(math.log(0.5)) and exponents[1] == -math.inf
    assert (lyapunov_spectrum(constant(np.zeros((3, 3)), 4)) == -math.inf).all()


def test_the_warm_up_is_not_counted_but_turns_the_frame() -> None:
    J = gaussian(4, 20, 30)
    J[:5] *= 1e3
    with_it = lyapunov_spectrum(J, warmup=5)
    Q = np.linalg.qr(np.linalg.multi_dot(list(J[4::-1])))[0]
    again = lyapunov_spectrum([J[5] @ Q, *J[6:]])  # the frame after the warm-up, as a rotated first step
    np.testing.assert_allclose(with_it, again, atol=1e-10)


@pytest.mark.parametrize("kind", ["array", "tensor", "list", "generator", "float32"])
def test_what_jacobians_may_be(kind: str) -> None:
    J = gaussian(3, 30, 12)
    expected = lyapunov_spectrum(J)
    given: Any = {
        "array": J,
        "tensor": torch.tensor(J),
        "list": [torch.tensor(j) for j in J],
        "generator": (j for j in J),
        "float32": torch.tensor(J, dtype=torch.float32),
    }[kind]
    np.testing.assert_allclose(
        np.asarray(lyapunov_spectrum(given)), expected, atol=1e-5 if kind == "float32" else 1e-12
    )


def test_an_iterator_is_read_one_step_at_a_time() -> None:
    alive: list[int] = []

    class Counted(np.ndarray):
        def __del__(self) -> None:
            if len(alive):
                alive.pop()

    peak = 0

    def jacobians() -> Iterator[Matrix]:
        nonlocal peak
        for t in range(50):
            alive.append(t)
            peak = max(peak, len(alive))
            yield gaussian(2, t).view(Counted)

    lyapunov_spectrum(jacobians())
    assert peak < 10, "all Jacobians in memory at once"


# -- step_jacobians ---------------------------------------------------------------------------------------------------

INPUTS, HIDDEN, STEPS, BATCH = 2, 4, 5, 3


def generic(cell: Cell) -> Cell:
    with torch.no_grad():
        for parameter in cell.parameters():
            if not parameter.is_complex():
                parameter.add_(0.3 * torch.randn_like(parameter))
    return cell.double()


def random_state(cell: Cell) -> tuple[Tensor, ...]:
    return tuple(torch.randn_like(s) for s in cell.initial_state(BATCH))


def flat(state: tuple[Tensor, ...]) -> Tensor:
    """[Re | Im] of a complex part."""
    parts = [torch.cat([s.real, s.imag], -1) if s.is_complex() else s for s in state]
    return torch.cat(parts, -1)


def unflat(v: Tensor, like: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    parts, at = [], 0
    for s in like:
        n = s.shape[-1]
        if s.is_complex():
            parts.append(torch.complex(v[..., at : at + n].contiguous(), v[..., at + n : at + 2 * n].contiguous()))
            at += 2 * n
        else:
            parts.append(v[..., at : at + n])
            at += n
    return tuple(parts)


def by_finite_differences(cell: Cell, x: Tensor, state: tuple[Tensor, ...]) -> NDArray[np.float64]:
    """Central differences of fourth order, column by column, along the trajectory."""
    h = 1e-3
    with torch.no_grad():
        w = cell.weights()
        u = cell.drive(x, w)
        J = []
        for t in range(len(x)):

            def after(v: Tensor, t: int = t, like: tuple[Tensor, ...] = state) -> Tensor:
                return flat(cell.step(u[t], unflat(v, like), w)[1])

            v = flat(state)
            columns = []
            for e in torch.eye(v.shape[-1], dtype=v.dtype) * h:
                near, far = after(v + e) - after(v - e), after(v + 2 * e) - after(v - 2 * e)
                columns.append((8 * near - far) / (12 * h))
            J.append(torch.stack(columns, -1).numpy())
            state = cell.step(u[t], state, w)[1]
    return np.array(J)


SMOOTH: dict[str, Callable[[], Cell]] = {
    "VanillaRNN": lambda: VanillaRNNCell(INPUTS, HIDDEN, nonlinearity="tanh"),
    "LSTM": lambda: LSTMCell(INPUTS, HIDDEN),
    "LSTM peepholes": lambda: LSTMCell(INPUTS, HIDDEN, peepholes=True),
    "GRU": lambda: GRUCell(INPUTS, HIDDEN),
    "GRU before": lambda: GRUCell(INPUTS, HIDDEN, reset="before"),
    "JANET": lambda: JANETCell(INPUTS, HIDDEN),
}


@pytest.mark.parametrize("name", SMOOTH)
def test_jacobians_by_finite_differences(name: str) -> None:
    cell = generic(SMOOTH[name]())
    x, state = torch.randn(STEPS, BATCH, INPUTS, dtype=torch.float64), random_state(cell)
    J = np.asarray(step_jacobians(cell, x, state))
    N = sum(s.shape[-1] for s in state)
    assert J.shape == (STEPS, BATCH, N, N)
    np.testing.assert_allclose(J, by_finite_differences(cell, x, state), atol=1e-8)


@pytest.mark.parametrize(
    "build",
    [
        lambda: ExpRNNCell(INPUTS, HIDDEN),
        lambda: VanillaRNNCell(INPUTS, HIDDEN, nonlinearity="relu"),
        lambda: NRUCell(INPUTS, HIDDEN, 9, heads=1),
        lambda: URNNCell(INPUTS, HIDDEN),
    ],
    ids=["ExpRNN", "relu", "NRU", "URNN"],
)
def test_jacobians_of_cells_with_kinks(build: Callable[[], Cell]) -> None:
    """Where a difference steps over a kink it is off; elsewhere both agree."""
    cell = generic(build())
    x, state = torch.randn(STEPS, BATCH, INPUTS, dtype=torch.float64), random_state(cell)
    J, expected = np.asarray(step_jacobians(cell, x, state)), by_finite_differences(cell, x, state)
    assert J.shape == expected.shape
    agree = abs(J - expected) <= 1e-6 * (1 + abs(expected).max())
    assert agree.mean() > 0.95


def test_vanilla_in_closed_form() -> None:
    """diag(1 - h_t^2) W, for every sample on its own."""
    cell = generic(VanillaRNNCell(INPUTS, HIDDEN))
    x, (h,) = torch.randn(STEPS, BATCH, INPUTS, dtype=torch.float64), random_state(cell)
    W = cell.recurrent_matrices()["recurrent"].detach()
    J = step_jacobians(cell, x, (h,))
    for t in range(STEPS):
        h = torch.tanh(h @ W.mT + x[t] @ cell.input.weight.mT + cell.input.bias).detach()
        expected = (1 - h**2)[:, :, None] * W
        np.testing.assert_allclose(np.asarray(J[t]), expected.numpy(), atol=1e-13)


def test_lstm_in_closed_form() -> None:
    """State (h, c), in this order: d c_t / d c_{t-1} = diag(f), d h_t / d c_{t-1} = diag(o (1 - tanh^2 c_t) f), ..."""
    cell = generic(LSTMCell(INPUTS, HIDDEN))
    x, (h, c) = torch.randn(1, BATCH, INPUTS, dtype=torch.float64), random_state(cell)
    J = np.asarray(step_jacobians(cell, x, (h, c)))[0]
    W = cell.recurrent.weight.detach().numpy()
    a = (x[0] @ cell.input.weight.mT + cell.input.bias + h @ cell.recurrent.weight.mT).detach().numpy()
    i, f, o = (1 / (1 + np.exp(-a[:, k * HIDDEN : (k + 1) * HIDDEN])) for k in (0, 1, 3))
    g = np.tanh(a[:, 2 * HIDDEN : 3 * HIDDEN])
    Wi, Wf, Wg, Wo = np.split(W, 4)
    for b in range(BATCH):
        old = c[b].numpy()
        new = f[b] * old + i[b] * g[b]
        dc_dh = np.diag(old * f[b] * (1 - f[b])) @ Wf + np.diag(g[b] * i[b] * (1 - i[b])) @ Wi
        dc_dh += np.diag(i[b] * (1 - g[b] ** 2)) @ Wg
        slope = np.diag(o[b] * (1 - np.tanh(new) ** 2))
        dh_dh = slope @ dc_dh + np.diag(np.tanh(new) * o[b] * (1 - o[b])) @ Wo
        expected = np.block([[dh_dh, slope @ np.diag(f[b])], [dc_dh, np.diag(f[b])]])
        np.testing.assert_allclose(J[b], expected, atol=1e-13)


def test_exprnn_is_an_orthogonal_matrix_with_rows_switched_off() -> None:
    """d modReLU(z; b) / d z is 1 where |z| + b > 0, else 0."""
    cell = generic(ExpRNNCell(INPUTS, HIDDEN))
    with torch.no_grad():
        cell.activation.bias.copy_(torch.tensor([-0.8, -0.3, 0.0, 0.5]))
    x, (h,) = torch.randn(STEPS, BATCH, INPUTS, dtype=torch.float64), random_state(cell)
    W = cell.recurrent_matrices()["recurrent"].detach()
    torch.testing.assert_close(W @ W.mT, torch.eye(HIDDEN, dtype=torch.float64), rtol=0, atol=1e-6)
    J = step_jacobians(cell, x, (h,))
    off = 0
    for t in range(STEPS):
        z = (h @ W.mT + x[t] @ cell.input.weight.mT).detach()
        on = (z.abs() + cell.activation.bias.detach() > 0).double()
        off += int((on == 0).sum())
        np.testing.assert_allclose(np.asarray(J[t]), (on[:, :, None] * W).numpy(), atol=1e-12)
        h = on * z.sign() * (z.abs() + cell.activation.bias.detach())
    assert 0 < off < STEPS * BATCH * HIDDEN, "both cases should occur"


def test_the_default_state_and_a_float32_cell() -> None:
    cell = LSTMCell(INPUTS, HIDDEN)
    x = torch.randn(STEPS, BATCH, INPUTS)
    J = step_jacobians(cell, x)
    np.testing.assert_allclose(
        np.asarray(J), np.asarray(step_jacobians(cell, x, cell.initial_state(BATCH))), rtol=0, atol=0
    )
    assert all(p.dtype == torch.float32 and p.grad is None for p in cell.parameters()), "the cell was changed"
    assert all(p.requires_grad for p in cell.parameters())
    double = LSTMCell(INPUTS, HIDDEN).double()
    double.load_state_dict(cell.state_dict())
    np.testing.assert_allclose(
        np.asarray(J), by_finite_differences(double, x.double(), double.initial_state(BATCH)), atol=1e-6
    )


# -- the two together -------------------------------------------------------------------------------------------------


def random_network(n: int, gain: float, seed: int) -> Cell:
    cell = VanillaRNNCell(1, n, nonlinearity="tanh").double()
    with torch.no_grad():
        cell.recurrent.weight.copy_(torch.tensor(gain * gaussian(n, seed)))
        cell.input.bias.zero_()
    return cell


def test_a_resting_network_has_the_exponents_of_its_matrix() -> None:
    cell = random_network(10, 0.5, 3)
    W = cell.recurrent_matrices()["recurrent"].detach().numpy()
    J = step_jacobians(cell, torch.zeros(600, 1, 1, dtype=torch.float64))
    np.testing.assert_allclose(np.asarray(J[-1, 0]), W, atol=1e-15)
    exponents = lyapunov_spectrum(J[:, 0])
    assert exponents.sum() == pytest.approx(np.linalg.slogdet(W)[1], abs=1e-10)
    np.testing.assert_allclose(exponents, np.sort(np.log(abs(np.linalg.eigvals(W))))[::-1], atol=3e-2)


def test_a_quiet_network_falls_to_rest_at_log_rho() -> None:
    """N = 100, g = .5, no input: the largest exponent tends to log rho(W) (-.6081 of -.6067 for some W)."""
    cell = random_network(100, 0.5, 4)
    W = cell.recurrent_matrices()["recurrent"].detach().numpy()
    state = (0.1 * torch.randn(1, 100, dtype=torch.float64),)
    J = step_jacobians(cell, torch.zeros(300, 1, 1, dtype=torch.float64), state)
    largest = lyapunov_spectrum(J[:, 0], warmup=100)[0]
    assert largest == pytest.approx(math.log(abs(np.linalg.eigvals(W)).max()), abs=2e-2)


def test_a_chaotic_network_is_slower_than_its_matrix() -> None:
    """N = 100, g = 3: about .29, far below log rho = 1.1; rho(W) > 1 does not give the rate."""
    cell = random_network(100, 3.0, 5)
    W = cell.recurrent_matrices()["recurrent"].detach().numpy()
    J = step_jacobians(cell, torch.zeros(400, 1, 1, dtype=torch.float64), (torch.randn(1, 100, dtype=torch.float64),))
    exponents = lyapunov_spectrum(J[:, 0], warmup=50)
    assert 0.1 < exponents[0] < 0.5 < math.log(abs(np.linalg.eigvals(W)).max())
    assert exponents.sum() == pytest.approx(np.linalg.slogdet(np.asarray(J[50:, 0]))[1].mean(), abs=1e-8)


# -- bad input --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "jacobians",
    [
        np.ones((5, 2, 3)),
        np.full((5, 2, 2), math.nan),
        np.full((5, 2, 2), math.inf),
        np.empty((0, 2, 2)),
        np.empty((4, 0, 0)),
    ],
    ids=["not square", "NaN", "infinite", "no steps", "no units"],
)
def test_bad_jacobians_are_refused(jacobians: Matrix) -> None:
    refusal(lambda: lyapunov_spectrum(jacobians), "jacobians")
    refusal(lambda: lyapunov_spectrum(iter(jacobians)), "jacobians")
    refusal(lambda: lyapunov_spectrum(torch.tensor(jacobians)), "jacobians")


def test_a_nan_in_one_late_step_is_refused() -> None:
    J = gaussian(3, 40, 9)
    J[7, 0, 1] = math.nan
    refusal(lambda: lyapunov_spectrum(J), "jacobians")


def test_jacobians_of_unequal_sizes_are_refused() -> None:
    refusal(lambda: lyapunov_spectrum([np.eye(2), np.eye(3)]), "jacobians")


@pytest.mark.parametrize("warmup", [-1, 5, 6])
def test_a_warm_up_that_leaves_nothing_is_refused(warmup: int) -> None:
    refusal(lambda: lyapunov_spectrum(gaussian(2, 50, 5), warmup=warmup), "warm")
    refusal(lambda: lyapunov_spectrum(iter(gaussian(2, 50, 5)), warmup=warmup), "warm")


def test_inputs_of_the_wrong_shape_are_refused() -> None:
    cell = VanillaRNNCell(INPUTS, HIDDEN)
    refusal(lambda: step_jacobians(cell, torch.randn(STEPS, INPUTS)), "x")
    refusal(lambda: step_jacobians(cell, torch.randn(STEPS, BATCH, INPUTS + 1)), "x")


def test_what_nothing_reaches_asks_for_no_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    """The zeros that torch 2.9 puts where no gradient is do ask for one."""
    grad = torch.autograd.grad
    monkeypatch.setattr(torch.autograd, "grad", lambda *of, **said: [g.requires_grad_() for g in grad(*of, **said)])
    cell, x = LSTMCell(2, 3), torch.zeros(4, 1, 2)
    (pair,) = states_and_gradients(cell, x, torch.sum)
    assert not any(part.requires_grad for part in (*pair, step_jacobians(cell, x)))
