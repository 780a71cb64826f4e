"""Every orthogonal and unitary cell is its equations, written out over time in `tests.oracles.cells`.

W is rebuilt from its free numbers (`tests.oracles.maps`); complex cells have V = V_re + i V_im stacked as [Re | Im],
and give [Re h | Im h] or Re h. The GORU has its gates.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from scipy import linalg
from torch import Tensor, nn
from torch.func import functional_call

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
from lit_rnn.scan import scan
from tests.lit_rnn.cells.test_cells import Run
from tests.oracles.cells import complex_rnn, goru, modrelu_rnn
from tests.oracles.maps import (
    FFT,
    TUNABLE,
    Array,
    Numbers,
    exponential_dense,
    generator,
    householder_dense,
    random_unitary,
    restricted_dense,
    rotations_dense,
    scaled_dense,
    schur_dense,
    scornn_gradient,
    scurnn_gradient,
    signs_of,
    skew_matrix,
)
from tests.oracles.modules import below, close, numbers

F64, C128 = torch.float64, torch.complex128
T, B, I = 7, 3, 4  # noqa: E741


# -- the equations, in NumPy -----------------------------------------------------------------------


def free_matrix(p: Numbers, n: int) -> Array:
    (W,) = (v for key, v in p.items() if key.startswith("recurrent."))
    return W


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


def of(dense: Callable[..., Array], *given: Any) -> Callable[[Numbers, int], Array]:
    """W by its dense construction, from the numbers of ``recurrent``."""
    return lambda p, n: dense(below(p), n, *given)


CASES: dict[str, Case] = {
    "ScoRNN": Case(ScoRNNCell, of(scaled_dense), 5, 3),
    "ScoRNN-one": Case(lambda *s, **k: ScoRNNCell(*s, negatives=1, **k), of(scaled_dense, 1), 5, 3),
    "ScoRNN-released": Case(
        lambda *s, **k: ScoRNNCell(*s, released_order=True, **k), of(scaled_dense, None, True), 5, 3
    ),
    "RealEURNN": Case(lambda *s, **k: RealEURNNCell(*s, capacity=4, **k), of(rotations_dense, TUNABLE[6]), 6, 6),
    "Householder": Case(
        lambda i, n, **k: HouseholderRNNCell(i, n, reflections=3, **k), of(householder_dense, 3), 5, 5, learned=True
    ),
    "NnRNN": Case(NnRNNCell, of(schur_dense), 4, 4),
    "NnRNN-released": Case(lambda *s, **k: NnRNNCell(*s, upper="released", **k), of(schur_dense, True), 4, 4),
    "GORU": Case(GORUCell, of(rotations_dense, FFT[4]), 4, 4, loop=goru),
    "GORU-tunable": Case(
        lambda *s, **k: GORUCell(*s, capacity=4, layout="tunable", **k),
        of(rotations_dense, TUNABLE[6]),
        6,
        6,
        loop=goru,
    ),
    "ScuRNN": Case(ScuRNNCell, of(scaled_dense), 5, 3, True, "both", True),
    "ScuRNN-released": Case(
        lambda *s, **k: ScuRNNCell(*s, released_order=True, **k),
        of(scaled_dense, None, True),
        5,
        3,
        True,
        "both",
        True,
    ),
    "URNN": Case(URNNCell, of(restricted_dense), 5, 5, True, "both", True),
    "FullURNN": Case(FullURNNCell, free_matrix, 5, 3, True, "both", True),
    "UnitaryExpRNN": Case(UnitaryExpRNNCell, of(exponential_dense), 5, 3, True, "both"),
    "EURNN": Case(lambda *s, **k: EURNNCell(*s, capacity=4, **k), of(rotations_dense, TUNABLE[6]), 6, 6, True, "real"),
    "EURNN-fft": Case(
        lambda *s, **k: EURNNCell(*s, layout="fft", **k), of(rotations_dense, FFT[4]), 4, 4, True, "real"
    ),
}
each_cell = pytest.mark.parametrize("name", CASES)
COMPLEX = [name for name, case in CASES.items() if case.is_complex]
ISOMETRIES = [name for name in CASES if not name.startswith(("GORU", "NnRNN"))]


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


def plain_gradient(case: Case, cell: nn.Module, x: Array, h: Array, G: Array) -> Array:
    """dl/dW for l = <G, y>, by autograd through a loop that knows nothing of how W came about."""
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
    return W.grad.numpy()


@pytest.mark.parametrize("name", ["ScoRNN", "ScoRNN-one", "ScoRNN-released"])
def test_scornn_has_the_papers_gradient(name: str) -> None:
    """`tests.oracles.maps` derives it. In the released order the column matrix is W^T: dl/dW is transposed."""
    case, cell, (x, h) = CASES[name], make(name), draw(name)
    G = np.random.default_rng(3).normal(size=(T, B, case.n))
    slope = plain_gradient(case, cell, x, h, G)
    if name.endswith("released"):
        slope = slope.T
    A, D = generator(below(numbers(cell)), case.n), signs_of(case.n, 1 if name.endswith("one") else case.n // 2)
    loop(cell, x, h)[0].backward(torch.tensor(G))
    scale = np.abs(slope).max()
    close(cell.recurrent.skew.grad, scornn_gradient(A, D, slope), atol=1e-11 * scale)


def test_scurnn_has_the_papers_gradient() -> None:
    """With G in the halved, conjugate form: `tests.oracles.maps` derives it."""
    case, cell, (x, h) = CASES["ScuRNN"], make("ScuRNN"), draw("ScuRNN")
    n = case.n
    S = np.random.default_rng(3).normal(size=(T, B, 2 * n))
    slope = plain_gradient(case, cell, x, h, S)
    loop(cell, x, h)[0].backward(torch.tensor(S))
    bound = 1e-11 * np.abs(slope).max()
    for key, expected in scurnn_gradient(below(numbers(cell)), slope.conj() / 2).items():
        close(cell.recurrent.get_parameter(key).grad, expected, bound)


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
    P = linalg.expm(skew_matrix(numbers(cell)["recurrent.basis.skew"], 4))
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
