"""Every orthogonal and unitary cell against an independent float64 / complex128 loop over time, in NumPy.

h_t = modReLU(W h_{t-1} + V x_t; b) in the column convention, W from its map (test_maps_*.py rebuild those); complex
cells have V = V_re + i V_im stacked as [Re | Im], and give [Re h | Im h] or Re h. The GORU has its gates.
"""

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from scipy import linalg, stats
from torch import Tensor, nn
from torch.func import functional_call

from datamodules import CopyMemory, PixelMNIST, UserError
from lit_rnn import models
from lit_rnn.cells import (
    EURNNCell,
    FullURNNCell,
    GORUCell,
    HouseholderRNNCell,
    NnRNNCell,
    RealEURNNCell,
    ScoRNNCell,
    ScuRNNCell,
    UnitaryExpRNNCell,
    URNNCell,
)
from lit_rnn.init import henaff_
from lit_rnn.parametrizations import Householder, RestrictedUnitary, Rotations, SchurForm
from lit_rnn.scan import scan

F64, C128 = torch.float64, torch.complex128
T, B, I = 7, 3, 4  # noqa: E741
Array = np.ndarray
Numbers = dict[str, Array]


# -- the equations, in NumPy -----------------------------------------------------------------------


def sigmoid(z: Array) -> Array:
    return 1 / (1 + np.exp(-z))


def numbers(module: nn.Module) -> Numbers:
    return {name: tensor.detach().numpy().copy() for name, tensor in module.state_dict().items()}


def generator(p: Numbers, n: int) -> Array:
    A = np.zeros((n, n), dtype=complex if "recurrent.symmetric" in p else float)
    A[np.triu_indices(n, 1)] = p["recurrent.skew"]
    A = A - A.T
    if "recurrent.symmetric" in p:
        H = np.zeros((n, n))
        H[np.triu_indices(n)] = p["recurrent.symmetric"]
        A = A + 1j * (H + np.triu(H, 1).T)
    return A


def cayley_of(A: Array) -> Array:
    eye = np.eye(len(A))
    return np.linalg.inv(eye + A) @ (eye - A)


def signs_of(n: int, negatives: int) -> Array:
    return np.diag([1.0] * (n - negatives) + [-1.0] * negatives)


def from_map(build: Callable[[], nn.Module]) -> Callable[[Numbers, int], Array]:
    """W through a map of our own with the cell's numbers in it."""

    def matrix(p: Numbers, n: int) -> Array:
        module = build().double()
        prefix = "recurrent."
        state = {key.removeprefix(prefix): torch.tensor(v) for key, v in p.items() if key.startswith(prefix)}
        module.load_state_dict(state)
        return module().detach().numpy()

    return matrix


def free_matrix(p: Numbers, n: int) -> Array:
    (W,) = (v for key, v in p.items() if key.startswith("recurrent."))
    return W


def modrelu_rnn(p: Numbers, W: Array, x: Array, h: Array) -> tuple[Array, Array, float]:
    """Real. Also how near any unit came to the jump at 0 or the corner at -b."""
    out, margin, b = [], math.inf, p["activation.bias"]
    for x_t in x:
        z = np.stack([W @ h[k] + p["input.weight"] @ x_t[k] for k in range(len(h))])
        margin = min(margin, np.abs(z).min(), np.abs(np.abs(z) + b).min())
        h = np.sign(z) * np.maximum(np.abs(z) + b, 0)
        out.append(h)
    return np.stack(out), h, margin


def complex_rnn(p: Numbers, W: Array, x: Array, h: Array) -> tuple[Array, Array, float]:
    """z relu(r + b) / r with r = sqrt(re^2 + im^2 + 1e-5), one modulus in both places; smooth but where r = -b."""
    n = len(W)
    V = p["input.weight"][:n] + 1j * p["input.weight"][n:]
    out, margin, b = [], math.inf, p["activation.bias"]
    for x_t in x:
        z = np.stack([W @ h[k] + V @ x_t[k] for k in range(len(h))])
        r = np.sqrt(z.real**2 + z.imag**2 + 1e-5)
        margin = min(margin, np.abs(r + b).min())
        h = z * np.maximum(r + b, 0) / r
        out.append(h)
    return np.stack(out), h, margin


def goru(p: Numbers, Q: Array, x: Array, h: Array) -> tuple[Array, Array, float]:
    """r, g = sigmoid(W h + U x + b); c = modReLU(r * (Q h) + U_c x; b_c); h' = g h + (1 - g) c. Order r, g, c."""
    n = len(Q)
    W_r, W_g = p["gates.weight"][:n], p["gates.weight"][n:]
    b_r, b_g = p["gates.bias"][:n], p["gates.bias"][n:]
    U_r, U_g, U_c = np.split(p["input.weight"], 3)
    out, margin, b = [], math.inf, p["activation.bias"]
    for x_t in x:
        rows = []
        for k in range(len(h)):
            r = sigmoid(W_r @ h[k] + U_r @ x_t[k] + b_r)
            g = sigmoid(W_g @ h[k] + U_g @ x_t[k] + b_g)
            z = r * (Q @ h[k]) + U_c @ x_t[k]
            margin = min(margin, np.abs(z).min(), np.abs(np.abs(z) + b).min())
            rows.append(g * h[k] + (1 - g) * np.sign(z) * np.maximum(np.abs(z) + b, 0))
        h = np.stack(rows)
        out.append(h)
    return np.stack(out), h, margin


# -- the cells under test --------------------------------------------------------------------------


@dataclass(frozen=True)
class Case:
    """A cell: how to build it at a size, its matrix, its loop, and what it gives out."""

    build: Callable[..., Any]
    matrix: Callable[[Numbers, int], Array]
    n: int
    small: int  # for gradcheck
    is_complex: bool = False
    reads: str = "h"  # what y is: h, both (Re and Im), or real (the real part)
    learned: bool = False  # whether the initial state is trained by default
    loop: Callable[..., tuple[Array, Array, float]] | None = None

    def run(self, p: Numbers, x: Array, h: Array, transpose: bool = False) -> tuple[Array, Array, float]:
        W = self.matrix(p, h.shape[1])
        loop = self.loop or (complex_rnn if self.is_complex else modrelu_rnn)
        out, end, margin = loop(p, W.T if transpose else W, x, h)
        if self.reads == "both":
            out = np.concatenate([out.real, out.imag], axis=-1)
        return out.real if self.reads == "real" else out, end, margin


CASES: dict[str, Case] = {
    "ScoRNN": Case(ScoRNNCell, lambda p, n: cayley_of(generator(p, n)) @ signs_of(n, n // 2), 5, 3),
    "ScoRNN-one": Case(
        lambda *s, **k: ScoRNNCell(*s, negatives=1, **k), lambda p, n: cayley_of(generator(p, n)) @ signs_of(n, 1), 5, 3
    ),
    "ScoRNN-released": Case(
        lambda *s, **k: ScoRNNCell(*s, released_order=True, **k),
        lambda p, n: signs_of(n, n // 2) @ cayley_of(generator(p, n)).T,
        5,
        3,
    ),
    "RealEURNN": Case(lambda *s, **k: RealEURNNCell(*s, capacity=4, **k), from_map(lambda: Rotations(6, 4)), 6, 6),
    "Householder": Case(
        lambda i, n, **k: HouseholderRNNCell(i, n, reflections=3, **k),
        from_map(lambda: Householder(5, 3)),
        5,
        5,
        learned=True,
    ),
    "NnRNN": Case(NnRNNCell, from_map(lambda: SchurForm(4)), 4, 4),
    "NnRNN-released": Case(
        lambda *s, **k: NnRNNCell(*s, upper="released", **k), from_map(lambda: SchurForm(4, upper="released")), 4, 4
    ),
    "GORU": Case(GORUCell, from_map(lambda: Rotations(4, layout="fft")), 4, 4, loop=goru),
    "GORU-tunable": Case(
        lambda *s, **k: GORUCell(*s, capacity=4, layout="tunable", **k),
        from_map(lambda: Rotations(6, 4)),
        6,
        6,
        loop=goru,
    ),
    "ScuRNN": Case(
        ScuRNNCell,
        lambda p, n: cayley_of(generator(p, n)) @ np.diag(np.exp(1j * p["recurrent.phase"])),
        5,
        3,
        True,
        "both",
        True,
    ),
    "ScuRNN-released": Case(
        lambda *s, **k: ScuRNNCell(*s, released_order=True, **k),
        lambda p, n: np.diag(np.exp(1j * p["recurrent.phase"])) @ cayley_of(generator(p, n)).T,
        5,
        3,
        True,
        "both",
        True,
    ),
    "URNN": Case(URNNCell, from_map(lambda: RestrictedUnitary(5)), 5, 5, True, "both", True),
    "FullURNN": Case(FullURNNCell, free_matrix, 5, 3, True, "both", True),
    "UnitaryExpRNN": Case(UnitaryExpRNNCell, lambda p, n: linalg.expm(generator(p, n)), 5, 3, True, "both"),
    "EURNN": Case(
        lambda *s, **k: EURNNCell(*s, capacity=4, **k),
        from_map(lambda: Rotations(6, 4, unitary=True)),
        6,
        6,
        True,
        "real",
    ),
    "EURNN-fft": Case(
        lambda *s, **k: EURNNCell(*s, layout="fft", **k),
        from_map(lambda: Rotations(4, layout="fft", unitary=True)),
        4,
        4,
        True,
        "real",
    ),
}
each_cell = pytest.mark.parametrize("name", CASES)
COMPLEX = [name for name, case in CASES.items() if case.is_complex]
ISOMETRIES = [name for name in CASES if not name.startswith(("GORU", "NnRNN"))]


def random_unitary(n: int, rng: np.random.Generator) -> Array:
    return np.linalg.qr(rng.normal(size=(n, n)) + 1j * rng.normal(size=(n, n)))[0]


def make(name: str, seed: int = 0, inputs: int = I, n: int | None = None, **options: Any) -> Any:
    """A float64 cell in which every number is ours; a free complex matrix gets a random unitary one."""
    cell = CASES[name].build(inputs, n or CASES[name].n, **options).double()
    rng = np.random.default_rng(seed)
    with torch.no_grad():
        for _, parameter in sorted(cell.named_parameters()):
            if parameter.is_complex():
                parameter.copy_(torch.tensor(random_unitary(len(parameter), rng)))
            else:
                parameter.copy_(torch.tensor(rng.normal(scale=0.5, size=tuple(parameter.shape))))
    return cell


def draw(
    name: str, seed: int = 1, shape: tuple[int, int, int] = (T, B, I), n: int | None = None
) -> tuple[Array, Array]:
    """Inputs and a state, as h."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=shape)
    h = rng.normal(size=(shape[1], n or CASES[name].n))
    return x, h + 1j * rng.normal(size=h.shape) if CASES[name].is_complex else h


def loop(cell: nn.Module, x: Array, h: Array | None = None) -> tuple[Tensor, tuple[Tensor, ...]]:
    return scan(cell, torch.tensor(x), None if h is None else (torch.tensor(h),), backend="loop")


def close(actual: Tensor | Array, expected: Any, atol: float = 1e-12) -> None:
    actual = actual.detach().numpy() if isinstance(actual, Tensor) else actual
    np.testing.assert_allclose(actual, expected, rtol=0, atol=atol)


# -- the recurrence --------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [0, 1])
@each_cell
def test_scan_equals_the_equations(name: str, seed: int) -> None:
    case, cell, (x, h) = CASES[name], make(name, seed), draw(name)
    y, (end,) = loop(cell, x, h)
    expected, expected_end, _ = case.run(numbers(cell), x, h)
    assert cell.input_size == I and cell.hidden_size == case.n
    assert cell.output_size == case.n * (2 if case.reads == "both" else 1)
    assert y.shape == (T, B, cell.output_size) and not y.is_complex()
    assert end.dtype == (C128 if case.is_complex else F64)
    close(y, expected)
    close(end, expected_end)


@each_cell
def test_the_transposed_rule_is_another_network(name: str) -> None:
    case, cell, (x, h) = CASES[name], make(name), draw(name)
    wrong = case.run(numbers(cell), x, h, transpose=True)[0]
    assert np.abs(loop(cell, x, h)[0].detach().numpy() - wrong).max() > 0.1


@each_cell
def test_recurrent_matrix_is_the_w_of_the_equation(name: str) -> None:
    case, cell = CASES[name], make(name)
    p, matrices = numbers(cell), cell.recurrent_matrices()
    W = case.matrix(p, case.n)
    if case.loop is goru:
        expected = {"reset": p["gates.weight"][: case.n], "update": p["gates.weight"][case.n :], "candidate": W}
    else:
        expected = {"recurrent": W}
    assert set(matrices) == set(expected)
    for key, matrix in expected.items():
        close(matrices[key], matrix)


@each_cell
def test_the_map_runs_once_per_pass(name: str) -> None:
    cell, (x, h) = make(name), draw(name)
    calls: list[int] = []
    cell.recurrent.register_forward_hook(lambda *_: calls.append(1))
    loop(cell, x, h)
    assert len(calls) <= 1
    before = cell.weights
    cell.weights = lambda: (calls.append(2), before())[1]
    loop(cell, x, h)
    assert calls.count(2) == 1


@each_cell
def test_a_carried_state_joins_two_scans_into_one(name: str) -> None:
    cell, (x, h) = make(name), draw(name)
    whole, (end,) = loop(cell, x, h)
    first, (middle,) = loop(cell, x[:3], h)
    second, (last,) = loop(cell, x[3:], middle.detach().numpy())
    close(torch.cat([first, second]), whole.detach().numpy(), atol=1e-14)
    close(last, end.detach().numpy(), atol=1e-14)


@each_cell
def test_sequences_of_a_batch_do_not_meet(name: str) -> None:
    cell, (x, h) = make(name), draw(name)
    y, _ = loop(cell, x, h)
    alone, _ = loop(cell, x[:, 1:2], h[1:2])
    close(y[:, 1:2], alone.detach().numpy(), atol=1e-14)


# -- the initial state -----------------------------------------------------------------------------


def learned_vector(cell: nn.Module) -> Tensor:
    (key,) = set(dict(cell.named_parameters())) & {"initial.0"}
    return cell.get_parameter(key)


@each_cell
def test_initial_state_is_trained_where_the_paper_trains_it(name: str) -> None:
    case = CASES[name]
    default, learned, fixed = (
        sum(p.numel() for p in make(name, **options).parameters())
        for options in ({}, {"learn_initial_state": True}, {"learn_initial_state": False})
    )
    assert learned - fixed == case.n * (2 if case.is_complex else 1)
    assert default == (learned if case.learned else fixed)


@each_cell
def test_without_a_state_the_scan_starts_at_zero_or_at_what_is_learned(name: str) -> None:
    case, (x, _) = CASES[name], draw(name)
    fixed, learned = make(name, learn_initial_state=False), make(name, learn_initial_state=True)
    (start,) = fixed.initial_state(B)
    assert start.shape == (B, case.n) and not start.any() and start.dtype == (C128 if case.is_complex else F64)
    close(loop(fixed, x)[0], case.run(numbers(fixed), x, start.numpy())[0])
    (start,) = learned.initial_state(B)
    vector = learned_vector(learned).detach().numpy()
    row = vector[: case.n] + 1j * vector[case.n :] if case.is_complex else vector
    close(start, np.broadcast_to(row, (B, case.n)), atol=0)
    close(loop(learned, x)[0], case.run(numbers(learned), x, start.detach().numpy())[0])


@each_cell
def test_learned_initial_state_gets_the_gradient_summed_over_the_batch(name: str) -> None:
    case, cell, (x, _) = CASES[name], make(name, learn_initial_state=True), draw(name)
    G = torch.tensor(np.random.default_rng(2).normal(size=(T, B, cell.output_size)))
    given = cell.initial_state(B)[0].detach().clone().requires_grad_()
    y, _ = scan(cell, torch.tensor(x), (given,), backend="loop")
    (g,) = torch.autograd.grad(y, given, G)
    total = torch.cat([g.real.sum(0), g.imag.sum(0)]) if case.is_complex else g.sum(0)
    (actual,) = torch.autograd.grad(loop(cell, x)[0], learned_vector(cell), G)
    assert total.abs().max() > 1e-6
    close(actual, total.numpy(), atol=1e-13)


# -- derivatives -----------------------------------------------------------------------------------


class Run(nn.Module):
    """A scan as a function of (parameters, inputs, initial state)."""

    def __init__(self, cell: nn.Module) -> None:
        super().__init__()
        self.cell = cell

    def forward(self, x: Tensor, *state: Tensor) -> tuple[Tensor, ...]:
        y, final = scan(self.cell, x, state or None, backend="loop")
        return (y, *final)


@pytest.mark.parametrize("learned", [False, True])
@each_cell
def test_gradcheck_of_a_short_scan(name: str, learned: bool) -> None:
    """Parameters, inputs and the initial state, given or learned; at a draw that is not within 2e-3 of a kink."""
    t, b, i, n = 3, 2, 2, CASES[name].small
    for seed in range(40):
        run = Run(make(name, seed=seed, inputs=i, n=n, learn_initial_state=learned))
        x, h = draw(name, seed=seed + 1, shape=(t, b, i), n=n)
        start = run.cell.initial_state(b)[0].detach().numpy() if learned else h
        if CASES[name].run(numbers(run.cell), x, start)[2] > 2e-3:
            break
    else:
        pytest.fail("no draw away from the kinks")
    names = [key for key, _ in run.named_parameters()]
    values = [value.detach().clone().requires_grad_() for _, value in run.named_parameters()]
    given = () if learned else (torch.tensor(h).requires_grad_(),)

    def function(*args: Tensor) -> tuple[Tensor, ...]:
        return functional_call(run, dict(zip(names, args[: len(names)], strict=True)), args[len(names) :])

    arguments = (*values, torch.tensor(x).requires_grad_(), *given)
    assert torch.autograd.gradcheck(function, arguments, atol=1e-7, rtol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, F64])
@pytest.mark.parametrize("bias", [-0.01, 0.0, 0.01])
@each_cell
def test_nothing_is_nan_at_zero_input_and_zero_state(name: str, bias: float, dtype: torch.dtype) -> None:
    """modReLU's corner: the state stays at zero, and every gradient is finite."""
    cell = CASES[name].build(I, CASES[name].n, learn_initial_state=True)
    cell = cell.double() if dtype == F64 else cell
    with torch.no_grad():
        cell.activation.bias.fill_(bias)
        learned_vector(cell).zero_()
    x = torch.zeros(T, B, I, dtype=dtype, requires_grad=True)
    y, (h,) = scan(cell, x, backend="loop")
    assert not y.any() and not h.any()
    gradients = torch.autograd.grad((y + y.square()).sum(), [x, *cell.parameters()])
    for gradient in gradients:
        assert gradient.isfinite().all()


@pytest.mark.parametrize("name", COMPLEX)
def test_one_dead_unit_does_not_poison_the_others(name: str) -> None:
    """A unit at z = 0 exactly, beside living ones: its gradient is finite, theirs is as without it."""
    cell = make(name)
    x = torch.zeros(1, 2, I, dtype=F64)
    h = torch.zeros(2, CASES[name].n, dtype=C128)
    h[1] = torch.tensor(draw(name)[1][0])
    y, _ = scan(cell, x, (h,), backend="loop")
    together = torch.autograd.grad(y.square().sum(), list(cell.parameters()), allow_unused=True)
    y, _ = scan(cell, x[:, 1:], (h[1:],), backend="loop")
    alone = torch.autograd.grad(y.square().sum(), list(cell.parameters()), allow_unused=True)
    for one, other in zip(together, alone, strict=True):
        if one is not None:
            assert one.isfinite().all()
            close(one, other.numpy(), atol=1e-13)


def plain_gradient(case: Case, cell: nn.Module, x: Array, h: Array, G: Array) -> tuple[Array, Array]:
    """W and dl/dW for l = <G, y>, by autograd through a loop that knows nothing of how W came about."""
    p = {key: torch.tensor(v) for key, v in numbers(cell).items()}
    W = torch.tensor(case.matrix(numbers(cell), h.shape[1]), requires_grad=True)
    V, state, total = p["input.weight"], torch.tensor(h), torch.zeros((), dtype=F64)
    for x_t, G_t in zip(torch.tensor(x), torch.tensor(G), strict=True):
        if case.is_complex:
            z = state @ W.T + torch.complex(*(x_t @ V.T).chunk(2, dim=-1))
            r = (z.real**2 + z.imag**2 + 1e-5).sqrt()
            state = z * torch.relu(r + p["activation.bias"]) / r
            total = total + (torch.cat([state.real, state.imag], -1) * G_t).sum()
        else:
            z = state @ W.T + x_t @ V.T
            state = z.sign() * torch.relu(z.abs() + p["activation.bias"])
            total = total + (state * G_t).sum()
    total.backward()
    assert W.grad is not None
    return W.detach().numpy(), W.grad.numpy()


@pytest.mark.parametrize("name", ["ScoRNN", "ScoRNN-one", "ScoRNN-released"])
def test_scornn_has_the_papers_gradient(name: str) -> None:
    """V = (I+A)^-T (dl/dW)(D + W^T), dl/dA = V^T - V, read for W h (columns).

    dW = -(I+A)^-1 dA (W + D), so dl = -<V, dA>, and the number at (i, j), i < j, has V_ji - V_ij. In the released
    order the column matrix is W^T, and dl/dW the transpose of its gradient.
    """
    case, cell, (x, h) = CASES[name], make(name), draw(name)
    G = np.random.default_rng(3).normal(size=(T, B, case.n))
    W, slope = plain_gradient(case, cell, x, h, G)
    if name.endswith("released"):
        W, slope = W.T, slope.T
    A, D = generator(numbers(cell), case.n), signs_of(case.n, 1 if name.endswith("one") else case.n // 2)
    V = np.linalg.inv(np.eye(case.n) + A).T @ slope @ (D + W.T)
    loop(cell, x, h)[0].backward(torch.tensor(G))
    scale = np.abs(slope).max()
    close(cell.recurrent.skew.grad, (V.T - V)[np.triu_indices(case.n, 1)], atol=1e-11 * scale)


def test_scurnn_has_the_papers_gradient() -> None:
    """With the halved, conjugate G: U = (I+A)^-T G (D + W^T), dl/dA = U^T - conj(U), dl/dtheta = 2 Re(i diag(G^T Z) d).

    A number of the real part of A has twice the real part of dl/dA, one of the imaginary part twice the imaginary part
    off the diagonal, where it sits in two places, and once on it.
    """
    case, cell, (x, h) = CASES["ScuRNN"], make("ScuRNN"), draw("ScuRNN")
    n = case.n
    S = np.random.default_rng(3).normal(size=(T, B, 2 * n))
    W, slope = plain_gradient(case, cell, x, h, S)
    G = slope.conj() / 2
    p = numbers(cell)
    A, d = generator(p, n), np.exp(1j * p["recurrent.phase"])
    U = np.linalg.inv(np.eye(n) + A).T @ G @ (np.diag(d) + W.T)
    g = U.T - U.conj()
    loop(cell, x, h)[0].backward(torch.tensor(S))
    bound = 1e-11 * np.abs(slope).max()
    close(cell.recurrent.skew.grad, 2 * g.real[np.triu_indices(n, 1)], bound)
    close(cell.recurrent.symmetric.grad, ((2 - np.eye(n)) * g.imag)[np.triu_indices(n)], bound)
    close(cell.recurrent.phase.grad, 2 * (1j * np.diag(G.T @ cayley_of(A)) * d).real, bound)


# -- closed forms over time ------------------------------------------------------------------------


def silent(name: str) -> Any:
    """No input, no bias: what remains is the matrix, as modReLU with b = 0 is the identity."""
    cell = make(name)
    with torch.no_grad():
        cell.input.weight.zero_()
        cell.activation.bias.zero_()
    return cell


@pytest.mark.parametrize("name", ISOMETRIES)
def test_without_bias_and_input_the_state_keeps_its_length_and_so_does_the_gradient(name: str) -> None:
    case, cell, (_, h) = CASES[name], silent(name), draw(name)
    steps = 100
    given = torch.tensor(h, requires_grad=True)
    _, (end,) = scan(cell, torch.zeros(steps, B, I, dtype=F64), (given,), backend="loop")
    W = case.matrix(numbers(cell), case.n)
    close(end, h @ np.linalg.matrix_power(W, steps).T, atol=1e-10)
    close(end.abs().square().sum(1), np.square(np.abs(h)).sum(1), atol=1e-10)
    G = torch.tensor(draw(name, seed=9)[1])
    (back,) = torch.autograd.grad(end, given, G)
    close(back, G.numpy() @ np.linalg.matrix_power(W, steps).conj(), atol=1e-10)
    close(back.abs().square().sum(1), np.square(np.abs(G.numpy())).sum(1), atol=1e-10)


def test_nnrnn_multiplies_by_its_gains() -> None:
    """gamma in one plane, T = 0: the state shrinks by gamma^t there and turns elsewhere."""
    cell, (_, h) = silent("NnRNN"), draw("NnRNN")
    with torch.no_grad():
        cell.recurrent.upper.zero_()
        cell.recurrent.gains.copy_(torch.tensor([0.5, 1.0]))
    _, (end,) = loop(cell, np.zeros((10, B, I)), h)
    A = np.zeros((4, 4))
    A[np.triu_indices(4, 1)] = numbers(cell)["recurrent.basis.skew"]
    P = linalg.expm(A - A.T)
    before, after = h @ P, end.detach().numpy() @ P
    close(np.linalg.norm(after[:, :2], axis=1), 0.5**10 * np.linalg.norm(before[:, :2], axis=1))
    close(np.linalg.norm(after[:, 2:], axis=1), np.linalg.norm(before[:, 2:], axis=1))


@pytest.mark.parametrize(("which", "gate"), [("keep", 200.0), ("replace", -200.0)])
def test_saturated_goru_gates(which: str, gate: float) -> None:
    """g = 1 keeps the state for ever; g = 0 with r = 1 and no input is the rotation alone, with r = 0 forgets."""
    cell, (x, h) = silent("GORU"), draw("GORU")
    n = CASES["GORU"].n
    with torch.no_grad():
        cell.gates.weight.zero_()
        cell.gates.bias[:n], cell.gates.bias[n:] = 200.0, gate
    _, (end,) = loop(cell, x, h)
    if which == "keep":
        close(end, h)
        return
    close(end, h @ np.linalg.matrix_power(CASES["GORU"].matrix(numbers(cell), n), T).T)
    with torch.no_grad():
        cell.gates.bias[:n] = -200.0
    _, (end,) = loop(cell, x, h)
    close(end, np.zeros_like(h), atol=1e-80)


def test_released_order_is_the_transposed_network_and_another_one() -> None:
    paper, released, (x, h) = make("ScoRNN"), make("ScoRNN-released"), draw("ScoRNN")
    released.load_state_dict(paper.state_dict())
    W = CASES["ScoRNN"].matrix(numbers(paper), 5)
    close(released.recurrent_matrices()["recurrent"], W.T)
    close(loop(released, x, h)[0], modrelu_rnn(numbers(paper), W.T, x, h)[0])
    assert (loop(paper, x, h)[0] - loop(released, x, h)[0]).abs().max() > 0.1


# -- how a cell starts -----------------------------------------------------------------------------


def uniform(values: Tensor, limit: float) -> None:
    v = values.detach().double().numpy().ravel()
    assert np.abs(v).max() <= limit * (1 + 1e-6)
    assert stats.kstest(v, "uniform", args=(-limit, 2 * limit)).pvalue > 1e-4


def test_scornn_starts_as_the_released_code() -> None:
    """U ~ U(-0.01, 0.01), no bias but modReLU's b = 0, half of the signs negative."""
    torch.manual_seed(0)
    cell = ScoRNNCell(20, 101)
    uniform(cell.input.weight, 0.01)
    assert not cell.activation.bias.any() and cell.activation.bias.requires_grad
    assert cell.recurrent.signs.sum() == 51 - 50
    close(np.linalg.det(cell.recurrent().detach().double().numpy()), 1.0, atol=1e-4)


def test_scurnn_starts_as_the_released_code() -> None:
    """U Glorot uniform over its 2n columns, h_0 ~ U(-0.01, 0.01), b ~ U(-0.01, 0.01)."""
    torch.manual_seed(0)
    cell = ScuRNNCell(20, 400)
    uniform(cell.input.weight, math.sqrt(6 / (20 + 800)))
    uniform(learned_vector(cell), 0.01)
    uniform(cell.activation.bias, 0.01)


@pytest.mark.parametrize("cell_class", [URNNCell, FullURNNCell])
def test_urnns_start_as_the_released_code(cell_class: Callable[..., Any]) -> None:
    """V Glorot uniform over its 2n columns, h_0 ~ U(+-sqrt(3 / 2n)), b ~ U(-0.01, 0.01)."""
    torch.manual_seed(0)
    cell = cell_class(20, 200)
    uniform(cell.input.weight, math.sqrt(6 / (20 + 400)))
    uniform(learned_vector(cell), math.sqrt(3 / 400))
    uniform(cell.activation.bias, 0.01)


def test_full_capacity_urnn_starts_unitary_dense_and_not_real() -> None:
    torch.manual_seed(0)
    W = FullURNNCell(3, 64).double().recurrent_matrices()["recurrent"].detach().numpy()
    assert W.dtype == complex
    assert np.abs(W.conj().T @ W - np.eye(64)).max() < 1e-12, "Module.double() leaves complex tensors alone"
    assert np.abs(W.T @ W - np.eye(64)).max() > 0.1 and np.count_nonzero(np.abs(W) > 1e-6) > 0.95 * 64**2


@pytest.mark.parametrize("cell_class", [EURNNCell, RealEURNNCell])
def test_eurnns_start_as_the_released_code(cell_class: Callable[..., Any]) -> None:
    torch.manual_seed(0)
    cell = cell_class(20, 200)
    uniform(cell.input.weight, 0.01)
    uniform(cell.recurrent.theta, math.pi)


def test_goru_starts_as_the_released_code() -> None:
    """W, U ~ U(-0.01, 0.01), b_r = 2, b_c = 0.01."""
    torch.manual_seed(0)
    cell = GORUCell(20, 64)
    uniform(cell.input.weight, 0.01)
    uniform(cell.gates.weight, 0.01)
    assert cell.gates.bias[:64].tolist() == [2.0] * 64
    close(cell.activation.bias, np.full(64, 0.01), atol=1e-8)


def test_householder_rnn_starts_as_the_released_code() -> None:
    """W_in Glorot uniform, h_0 ~ U(+-sqrt(3 / 2n))."""
    torch.manual_seed(0)
    cell = HouseholderRNNCell(20, 400, reflections=4)
    uniform(cell.input.weight, math.sqrt(6 / 420))
    uniform(learned_vector(cell), math.sqrt(3 / 800))


def test_nnrnn_starts_orthogonal_at_its_named_initialiser() -> None:
    torch.manual_seed(0)
    cell = NnRNNCell(3, 100, henaff_)
    W = cell.recurrent_matrices()["recurrent"].detach().double().numpy()
    close(W.T @ W, np.eye(100), atol=2e-5)
    assert np.abs(np.angle(linalg.eigvals(cell.recurrent.basis().detach().double().numpy()))).max() > 2.5


# -- models ----------------------------------------------------------------------------------------


MODELS: dict[str, tuple[dict[str, Any], str]] = {
    "ScoRNN": ({"negatives": 2}, r"\bO\(8\) with det 1|\bSO\(8\)"),
    "ScuRNN": ({}, r"\bU\(8\)"),
    "URNN": ({}, r"subset of U\(8\)"),
    "FullURNN": ({}, r"\bU\(8\)"),
    "EURNN": ({"capacity": 4}, r"\bU\(8\)"),
    "GORU": ({}, r"\bSO\(8\)"),
    "HouseholderRNN": ({"reflections": 3}, r"\bO\(8\) with det -1"),
    "NnRNN": ({}, r"\bSO\(8\)"),
}


@pytest.mark.parametrize("name", MODELS)
def test_printing_a_model_names_its_manifold(name: str) -> None:
    options, pattern = MODELS[name]
    assert re.search(pattern, repr(getattr(models, name)(PixelMNIST().task, 8, **options)))


@pytest.mark.parametrize("task", [PixelMNIST().task, CopyMemory(delay=5).task], ids=["label", "label_per_step"])
@pytest.mark.parametrize("name", MODELS)
def test_a_model_decodes_its_cell_and_trains_every_parameter(name: str, task: Any) -> None:
    model = getattr(models, name)(task, 8, **MODELS[name][0]).double()
    x = torch.randint(task.input_size, (B, 12)) if task.inputs == "symbols" else torch.rand(B, 12, 1, dtype=F64)
    out = model(x)
    entry = nn.functional.one_hot(x, task.input_size).double() if task.inputs == "symbols" else x
    y, _ = scan(model.cells[0], entry.transpose(0, 1), backend="loop")
    close(out, model.decoder(y.transpose(0, 1) if task.per_step else y[-1]).detach().numpy(), atol=1e-13)
    out.square().sum().backward()
    for key, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), key
    assert model.cells[0].recurrent_parameters()


@pytest.mark.parametrize("name", MODELS)
def test_groups_are_a_partition(name: str) -> None:
    model = getattr(models, name)(PixelMNIST().task, 8, **MODELS[name][0])
    groups = model.configure_optimizers().param_groups
    grouped = [id(p) for group in groups for p in group["params"]]
    assert len(set(grouped)) == len(grouped)
    assert set(grouped) == {id(p) for p in model.parameters()}
    named = {group["name"]: {id(p) for p in group["params"]} for group in groups}
    assert {"recurrent", "other"} <= set(named)
    assert all(id(p) in named["other"] for p in model.decoder.parameters())
    if name == "ScuRNN":  # other, recurrent, phase, with rates of their own
        assert named["phase"] == {id(model.cells[0].recurrent.phase)}
        assert id(model.cells[0].recurrent.skew) in named["recurrent"]


def step_loss(model: Any, x: Tensor, labels: Tensor, monkeypatch: pytest.MonkeyPatch) -> tuple[Tensor, float]:
    """The loss that is differentiated, and the one that is logged."""
    logged: dict[str, Any] = {}
    monkeypatch.setattr(model, "log", lambda key, value, **_: logged.setdefault(key, value))
    loss = model.training_step((x, labels), 0)
    return loss, float(logged["train/loss"].compute())


def test_nnrnn_penalises_gains_in_the_loss_and_not_in_the_log(monkeypatch: pytest.MonkeyPatch) -> None:
    """+ delta sum (gamma - 1)^2; the released code adds it in place to what it logs."""
    torch.manual_seed(0)
    x, labels = torch.rand(B, 5, 1, dtype=F64), torch.tensor([1, 2, 3])
    slopes, gains = [], torch.tensor([1.0, 0.5, 1.5, 1.0], dtype=F64)
    state = None
    for delta in (0.0, 0.3):
        model = models.NnRNN(PixelMNIST().task, 8, gain_penalty=delta).double()
        state = state or {key: v.clone() for key, v in model.state_dict().items()}
        model.load_state_dict(state)
        with torch.no_grad():
            model.cells[0].recurrent.gains.copy_(gains)
        loss, logged = step_loss(model, x, labels, monkeypatch)
        cross_entropy = nn.functional.cross_entropy(model(x), labels).item()
        assert math.isclose(loss.item(), cross_entropy + delta * 0.5, rel_tol=1e-12)
        assert math.isclose(logged, cross_entropy, rel_tol=1e-6)
        loss.backward()
        slopes.append(model.cells[0].recurrent.gains.grad.clone())
    close(slopes[1] - slopes[0], (2 * 0.3 * (gains - 1)).numpy())


def test_nnrnn_decays_only_what_lies_above_the_blocks() -> None:
    model = models.NnRNN(PixelMNIST().task, 8, upper_decay=0.25)
    decays = {
        group["name"]: (group["weight_decay"], group["params"]) for group in model.configure_optimizers().param_groups
    }
    decayed = [p for decay, params in decays.values() if decay for p in params]
    assert [id(p) for p in decayed] == [id(model.cells[0].recurrent.upper)]
    assert 0.25 in [decay for decay, _ in decays.values()]


@pytest.mark.parametrize(
    ("name", "size", "options"),
    [
        ("EURNN", 7, {}),
        ("EURNN", 8, {"capacity": 3}),
        ("EURNN", 8, {"capacity": 10}),
        ("EURNN", 6, {"layout": "fft"}),
        ("GORU", 12, {}),
        ("NnRNN", 7, {}),
        ("HouseholderRNN", 4, {"reflections": 5}),
        ("ScoRNN", 4, {"negatives": 5}),
    ],
)
def test_a_model_refuses_what_its_design_does_not_admit(name: str, size: int, options: dict[str, Any]) -> None:
    with pytest.raises(UserError) as refusal:
        getattr(models, name)(PixelMNIST().task, size, **options)
    sentence = str(refusal.value)
    key = next(iter(options), "hidden_size")
    key = "hidden_size" if key == "layout" else key
    assert f"model.init_args.{key}" in sentence and str(options.get(key, size)) in sentence and sentence.endswith(".")


@pytest.mark.parametrize("name", ["ScoRNN", "ScuRNN", "URNN", "FullURNN", "HouseholderRNN"])
@pytest.mark.parametrize("n", [1, 2, 3, 17])
def test_odd_and_tiny_sizes_work(name: str, n: int) -> None:
    model = getattr(models, name)(PixelMNIST().task, n)
    out = model(torch.rand(2, 5, 1))
    assert out.shape == (2, 10) and out.isfinite().all()
