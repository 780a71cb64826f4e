"""Complex maps onto unitary matrices against dense complex128 constructions.

A skew-Hermitian generator is A = S + iH: S skew from its numbers above the diagonal, H symmetric from those on and
above it, row by row. Gradients: torch leaves dl/dRe W + i dl/dIm W in W.grad, which is 2 conj(G) for the papers'
halved, conjugate form G = (dl/dRe W - i dl/dIm W) / 2, with which dl = 2 Re tr(G^T dW).

scuRNN's gradient by hand. With W = (I+A)^-1 (I-A) D, D = diag(d), d = e^{i theta}, Z = (I+A)^-1 (I-A),
    dW = -(I+A)^-1 dA (W + D) + Z i diag(d dtheta),
so dl = -2 Re tr(U^T dA) + 2 Re(i diag(G^T Z) d) . dtheta, with U = (I+A)^-T G (D + W^T). Put dA = dS + i dH and let
g = U^T - conj(U), the paper's dl/dA: the numbers of S have 2 Re g_ij, those of H off the diagonal 2 Im g_ij, where two
entries of A move, and those on it Im g_ii, where one does.
"""

import copy
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from scipy import linalg, stats
from torch import Tensor, nn
from torch.func import functional_call

from datamodules import UserError
from lit_rnn.init import cayley_
from lit_rnn.parametrizations import Cayley, Exponential, RestrictedUnitary, Rotations, UnitaryScaledCayley, drift

C128 = torch.complex128
Array = np.ndarray
Numbers = dict[str, Array]


# -- dense constructions ---------------------------------------------------------------------------


def generator(p: Numbers, n: int) -> Array:
    A = np.zeros((n, n), dtype=complex)
    A[np.triu_indices(n, 1)] = p["skew"]
    A = A - A.T
    H = np.zeros((n, n))
    H[np.triu_indices(n)] = p["symmetric"]
    return A + 1j * (H + np.triu(H, 1).T)


def free_of(A: Array) -> Numbers:
    """The numbers of a skew-Hermitian A, the other way round."""
    n = len(A)
    return {"skew": A.real[np.triu_indices(n, 1)], "symmetric": A.imag[np.triu_indices(n)]}


def cayley_of(A: Array) -> Array:
    eye = np.eye(len(A))
    return np.linalg.inv(eye + A) @ (eye - A)


def mapped(p: Numbers, n: int, f: Callable[[Array], Array]) -> Array:
    return p.get("base", np.eye(n)) @ f(generator(p, n))


def scaled_dense(p: Numbers, n: int) -> Array:
    return cayley_of(generator(p, n)) @ np.diag(np.exp(1j * p["phase"]))


def reflection(v: Array) -> Array:
    return np.eye(len(v)) - 2 * np.outer(v, v.conj()) / np.vdot(v, v).real


def restricted_dense(p: Numbers, n: int) -> Array:
    """D3 R2 F^-1 D2 Pi R1 F D1, every factor written out."""
    D1, D2, D3 = (np.diag(np.exp(1j * w)) for w in p["phases"])
    R1, R2 = (reflection(re + 1j * im) for re, im in p["reflections"])
    k = np.arange(n)
    F = np.exp(-2j * math.pi * np.outer(k, k) / n) / math.sqrt(n)
    Pi = np.zeros((n, n))
    Pi[k, p["permutation"]] = 1  # (Pi x)[i] = x[p[i]]
    return D3 @ R2 @ F.conj().T @ D2 @ Pi @ R1 @ F @ D1


Layers = list[list[tuple[int, int]]]
# pairs of every layer, by hand
TUNABLE_4: Layers = [[(0, 1), (2, 3)], [(1, 2)], [(0, 1), (2, 3)], [(1, 2)]]
EVEN_8, ODD_8 = [(0, 1), (2, 3), (4, 5), (6, 7)], [(1, 2), (3, 4), (5, 6)]
TUNABLE_8: Layers = [EVEN_8, ODD_8, EVEN_8, ODD_8, EVEN_8, ODD_8, EVEN_8, ODD_8]
FFT_4: Layers = [[(0, 1), (2, 3)], [(0, 2), (1, 3)]]
FFT_8: Layers = [EVEN_8, [(0, 2), (1, 3), (4, 6), (5, 7)], [(0, 4), (1, 5), (2, 6), (3, 7)]]
FFT_2: Layers = [[(0, 1)]]


def rotations_dense(p: Numbers, n: int, layers: Layers) -> Array:
    """diag(e^{i omega}) L_last ... L_0 of rotations [[e^{i phi} cos, -sin], [e^{i phi} sin, cos]]."""
    W, number = np.eye(n, dtype=complex), 0
    for layer in layers:
        for i, j in layer:
            R = np.eye(n, dtype=complex)
            c, s, turn = math.cos(p["theta"][number]), math.sin(p["theta"][number]), np.exp(1j * p["phi"][number])
            R[i, i], R[i, j], R[j, i], R[j, j] = turn * c, -s, turn * s, c
            W = R @ W
            number += 1
    assert number == len(p["theta"]) == len(p["phi"])
    return np.diag(np.exp(1j * p["omega"])) @ W


# -- the maps under test ---------------------------------------------------------------------------


@dataclass(frozen=True)
class Case:
    """A map at one size: how to build it, its dense construction, and what its manifold is."""

    build: Callable[[], Any]
    dense: Callable[[Numbers], Array]
    n: int
    shapes: dict[str, tuple[int, ...]]  # of the free numbers
    dimension: int | None  # of the manifold it reaches, seen from a generic point; None: no closed form at this size


def half(n: int) -> int:
    return n * (n - 1) // 2


def cases() -> Iterator[tuple[str, Case]]:
    for n in (1, 2, 3, 5, 8):
        skew_hermitian = {"skew": (half(n),), "symmetric": (half(n + 1),)}
        for trivialized in (False, True):
            for map_class, f in ((Exponential, linalg.expm), (Cayley, cayley_of)):
                yield (
                    f"{map_class.__name__}{'-trivialized' * trivialized}-{n}",
                    Case(
                        lambda n=n, m=map_class, t=trivialized: m(n, trivialized=t, unitary=True),
                        lambda p, n=n, f=f: mapped(p, n, f),
                        n,
                        skew_hermitian,
                        n * n,
                    ),
                )
        yield (
            f"UnitaryScaledCayley-{n}",  # n^2 + n numbers for n^2 dimensions
            Case(
                lambda n=n: UnitaryScaledCayley(n),
                lambda p, n=n: scaled_dense(p, n),
                n,
                {**skew_hermitian, "phase": (n,)},
                n * n,
            ),
        )
        yield (
            f"RestrictedUnitary-{n}",
            # seven of the 7n numbers do not matter: length and phase of each vector, two of three global phases, and a
            # turn of both mirrors in the plane they span (R2 R_b with b = F^-1 D2 Pi v1 only sees the angle between)
            Case(
                lambda n=n: RestrictedUnitary(n),
                lambda p, n=n: restricted_dense(p, n),
                n,
                {"phases": (3, n), "reflections": (2, 2, n)},
                7 * n - 7 if n == 8 else None,
            ),
        )
    for n, capacity, layers in (
        (2, 2, TUNABLE_4),
        (4, 2, TUNABLE_4),
        (4, 4, TUNABLE_4),
        (8, 4, TUNABLE_8),
        (8, 8, TUNABLE_8),
    ):
        pairs = [[(0, 1)], []] if n == 2 else layers[:capacity]
        count = capacity * (n - 1) // 2
        yield (
            f"Rotations-tunable-{n}-{capacity}",
            Case(
                lambda n=n, c=capacity: Rotations(n, c, unitary=True),
                lambda p, n=n, x=pairs: rotations_dense(p, n, x),
                n,
                {"theta": (count,), "phi": (count,), "omega": (n,)},
                capacity * (n - 1) + n,  # e^{i phi} on the column that enters a rotation: no angle is lost
            ),
        )
    for n, layers in ((2, FFT_2), (4, FFT_4), (8, FFT_8)):
        count = n * int(math.log2(n)) // 2
        yield (
            f"Rotations-fft-{n}",
            Case(
                lambda n=n: Rotations(n, layout="fft", unitary=True),
                lambda p, n=n, x=layers: rotations_dense(p, n, x),
                n,
                {"theta": (count,), "phi": (count,), "omega": (n,)},
                n * int(math.log2(n)) + n,
            ),
        )


CASES = dict(cases())
each_map = pytest.mark.parametrize("name", CASES)


def numbers(module: nn.Module) -> Numbers:
    return {name: tensor.detach().numpy().copy() for name, tensor in module.state_dict().items()}


def random_unitary(n: int, seed: int) -> Array:
    rng = np.random.default_rng(seed)
    return np.linalg.qr(rng.normal(size=(n, n)) + 1j * rng.normal(size=(n, n)))[0]


def fill(module: Any, seed: int = 0, scale: float = 1.0) -> Any:
    """Every free number ours, and a base point that is a random unitary matrix."""
    rng = np.random.default_rng(seed)
    with torch.no_grad():
        for _, parameter in sorted(module.named_parameters()):
            parameter.copy_(torch.tensor(scale * rng.normal(size=tuple(parameter.shape))))
        for key, buffer in module.named_buffers():
            if key == "base":
                buffer.copy_(torch.tensor(random_unitary(len(buffer), seed)))
    return module


def make(name: str, seed: int = 0) -> Any:
    return fill(CASES[name].build().double(), seed)


def value(module: nn.Module) -> Array:
    return module().detach().numpy()


def close(actual: Tensor | Array, expected: Any, atol: float = 1e-12) -> None:
    np.testing.assert_allclose(np.asarray(actual), expected, rtol=0, atol=atol)


def put(module: nn.Module, **values: Array) -> None:
    with torch.no_grad():
        for key, array in values.items():
            module.get_parameter(key).copy_(torch.tensor(array))


def defect(W: Array) -> float:
    return float(np.abs(W.conj().T @ W - np.eye(len(W))).max())


# -- every map -------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [0, 1])
@each_map
def test_map_is_its_dense_construction(name: str, seed: int) -> None:
    module, case = make(name, seed), CASES[name]
    W = module()
    assert W.shape == (case.n, case.n)
    assert W.dtype == C128, "double() must bring the complex parts along"
    close(W.detach(), case.dense(numbers(module)))


@each_map
def test_free_numbers_are_real_and_as_many_as_the_formula_says(name: str) -> None:
    parameters = dict(CASES[name].build().named_parameters())
    assert {key: tuple(p.shape) for key, p in parameters.items()} == CASES[name].shapes
    assert not any(p.is_complex() for p in parameters.values())


@each_map
def test_reaches_a_manifold_of_the_dimension_it_promises(name: str) -> None:
    """The rank of d(Re W, Im W) / d(free numbers) at a generic point."""
    module, case = make(name, seed=3), CASES[name]
    keys, values = zip(*module.named_parameters(), strict=True)
    columns = torch.autograd.functional.jacobian(
        lambda *args: torch.view_as_real(functional_call(module, dict(zip(keys, args, strict=True)), ())),
        tuple(v.detach() for v in values),
    )
    J = torch.cat([c.reshape(2 * case.n**2, -1) for c in columns], dim=1)
    rank = int(torch.linalg.matrix_rank(J, atol=1e-9))
    assert rank == case.dimension if case.dimension is not None else rank <= case.n**2


@each_map
def test_matrix_is_unitary_and_not_real(name: str) -> None:
    bilinear = []
    for seed in range(5):
        module = make(name, seed)
        W = value(module)
        assert defect(W) <= 1e-13
        assert float(module.drift()) <= 1e-13
        bilinear.append(np.abs(W.T @ W - np.eye(len(W))).max())
    assert max(bilinear) > 0.5


@each_map
def test_gradcheck(name: str) -> None:
    module = make(name, seed=2)
    found = {key: v.detach().clone().requires_grad_() for key, v in module.named_parameters() if v.numel()}

    def function(*values: Tensor) -> Tensor:
        return functional_call(module, dict(zip(found, values, strict=True)), ())

    assert torch.autograd.gradcheck(function, tuple(found.values()), atol=1e-7, rtol=1e-6)


@each_map
def test_nothing_is_cached_between_calls(name: str) -> None:
    module = make(name)
    module()
    fill(module, seed=7)
    close(value(module), CASES[name].dense(numbers(module)))


@each_map
def test_a_copy_is_independent_and_a_state_dict_is_complete(name: str) -> None:
    """The fixed random permutation of the restricted product belongs to the network: it must travel too."""
    module = make(name)
    before = value(module).copy()
    twin = copy.deepcopy(module)
    torch.manual_seed(99)
    other = CASES[name].build().double()
    other.load_state_dict(module.state_dict())
    np.testing.assert_array_equal(value(twin), before)
    np.testing.assert_array_equal(value(other), before)
    fill(twin, seed=8)
    np.testing.assert_array_equal(value(module), before)


SINGLE: dict[str, Callable[[], nn.Module]] = {
    "exp": lambda: Exponential(65, unitary=True),
    "exp trivialized": lambda: Exponential(64, trivialized=True, unitary=True),
    "cayley": lambda: Cayley(65, unitary=True),
    "cayley trivialized": lambda: Cayley(64, trivialized=True, unitary=True),
    "scaled": lambda: UnitaryScaledCayley(65),
    "restricted": lambda: RestrictedUnitary(65),
    "tunable": lambda: Rotations(64, 64, unitary=True),
    "fft": lambda: Rotations(64, layout="fft", unitary=True),
}


@pytest.mark.parametrize("build", SINGLE.values(), ids=SINGLE)
def test_single_precision_stays_unitary_under_autocast(build: Callable[[], Any]) -> None:
    """Unitary maps run in complex64 or better, whatever the precision around them."""
    module = build()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        W = module()
    assert W.dtype == torch.complex64
    measured = defect(W.detach().to(C128).numpy())
    assert measured < 2e-5
    close(float(module.drift()), measured, atol=2e-6)
    (W.real.square() + W.imag.square()).sum().backward()  # constant on the manifold
    for parameter in module.parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all()


@pytest.mark.parametrize("build", SINGLE.values(), ids=SINGLE)
def test_moved_to_double_precision_a_fresh_map_is_unitary_to_its_rounding(build: Callable[[], Any]) -> None:
    """Module.double() leaves complex tensors alone: a base point has to be brought along, and made unitary again."""
    module = build().double()
    assert module().dtype == C128
    assert defect(value(module)) < 1e-12


# -- drift -----------------------------------------------------------------------------------------


def test_drift_conjugates() -> None:
    """iI is unitary and not orthogonal; a complex symmetric involution is orthogonal in the bilinear sense only."""
    assert float(drift(1j * torch.eye(3, dtype=C128))) == 0
    s = math.sqrt(2)
    bilinear = torch.tensor([[s, 1j], [-1j, s]], dtype=C128)  # W^T W = I
    close((bilinear.T @ bilinear).numpy(), np.eye(2), atol=1e-15)
    close(float(drift(bilinear)), abs(2 * s), atol=1e-12)
    scaled = 1.01 * torch.tensor(random_unitary(5, 0))
    close(float(drift(scaled)), 1.01**2 - 1, atol=1e-13)


@pytest.mark.parametrize("map_class", [Exponential, Cayley])
def test_drift_sees_a_base_that_has_left_the_group(map_class: Callable[..., Any]) -> None:
    module = fill(map_class(5, trivialized=True, unitary=True).double())
    with torch.no_grad():
        module.base.add_(0.01j)
    assert defect(value(module)) > 1e-3
    close(float(module.drift()), defect(value(module)), atol=1e-13)


# -- exp and Cayley of a skew-Hermitian generator --------------------------------------------------


def test_generator_reads_both_triangles_row_by_row() -> None:
    module = Exponential(3, unitary=True).double()
    put(module, skew=np.array([1.0, 2.0, 3.0]), symmetric=np.array([4.0, 5.0, 6.0, 7.0, 8.0, 9.0]))
    A = module.generator().detach().numpy()
    expected = [[4j, 1 + 5j, 2 + 6j], [-1 + 5j, 7j, 3 + 8j], [-2 + 6j, -3 + 8j, 9j]]
    np.testing.assert_array_equal(A, expected)


@pytest.mark.parametrize("trivialized", [False, True])
@pytest.mark.parametrize("map_class", [Exponential, Cayley])
def test_unitary_map_starts_real(map_class: Callable[..., Any], trivialized: bool) -> None:
    """H starts at zero: the spectrum is that of the real initialiser."""
    torch.manual_seed(5)
    module = map_class(9, cayley_, trivialized=trivialized, unitary=True)
    torch.manual_seed(5)
    A = cayley_(torch.empty(9, 9)).double().numpy()
    assert not module.symmetric.any()
    assert module.skew.any().item() is not trivialized
    close(value(module), linalg.expm(A) if map_class is Exponential else cayley_of(A), atol=5e-6)


def test_the_circle_is_one_by_one() -> None:
    """n = 1: exp(i h), and (1 - ih) / (1 + ih) = exp(-2i arctan h)."""
    for h in (0.3, -2.0, 3.0):
        for map_class, angle in ((Exponential, h), (Cayley, -2 * math.atan(h))):
            module = map_class(1, unitary=True).double()
            put(module, symmetric=np.array([h]))
            close(value(module), [[np.exp(1j * angle)]])


@pytest.mark.parametrize("n", [2, 3, 8])
def test_determinant_is_anywhere_on_the_circle(n: int) -> None:
    """det exp(A) = exp(i tr H); det of the Cayley map is the product over eigenvalues i lambda of A."""
    for seed in range(3):
        exponential, cayley = (fill(m(n, unitary=True).double(), seed) for m in (Exponential, Cayley))
        A = generator(numbers(exponential), n)
        close(np.linalg.det(value(exponential)), np.exp(np.trace(A)), atol=1e-11)
        rates = np.linalg.eigvalsh(-1j * generator(numbers(cayley), n))
        close(np.linalg.det(value(cayley)), np.exp(-2j * np.arctan(rates).sum()), atol=1e-11)


@pytest.mark.parametrize("n", [1, 2, 3, 8])
def test_exp_reaches_any_unitary_matrix(n: int) -> None:
    """U(n) is connected and compact: every element has a logarithm, here from its Schur form (U is normal)."""
    U = random_unitary(n, seed=n)
    T, Q = linalg.schur(U, output="complex")
    A = Q @ np.diag(1j * np.angle(np.diag(T))) @ Q.conj().T
    module = Exponential(n, unitary=True).double()
    put(module, **free_of((A - A.conj().T) / 2))
    close(value(module), U, atol=1e-11)


@pytest.mark.parametrize("n", [1, 2, 3, 8])
def test_cayley_reaches_any_unitary_matrix_but_those_with_the_eigenvalue_minus_one(n: int) -> None:
    U = random_unitary(n, seed=n)
    assert np.abs(linalg.eigvals(U) + 1).min() > 1e-2
    module = Cayley(n, unitary=True).double()
    A = cayley_of(U)
    put(module, **free_of((A - A.conj().T) / 2))
    close(value(module), U, atol=1e-10)


@pytest.mark.parametrize("n", [1, 2, 3, 8])
def test_cayley_stays_away_from_the_eigenvalue_minus_one(n: int) -> None:
    """I + W = 2 (I + A)^-1, so the distance from the spectrum to -1 is 2 / sqrt(1 + |A|^2): never 0."""
    module = Cayley(n, unitary=True).double()
    for scale in (0.1, 1.0, 30.0):
        fill(module, seed=n, scale=scale)
        bound = 2 / math.sqrt(1 + np.linalg.norm(generator(numbers(module), n), 2) ** 2)
        close(np.abs(linalg.eigvals(value(module)) + 1).min(), bound, atol=1e-10)


def test_every_direction_is_the_frechet_derivative() -> None:
    """<G, B L(A, E)> for each of the n^2 basis elements E of the skew-Hermitian matrices, by SciPy."""
    n = 4
    module = fill(Exponential(n, trivialized=True, unitary=True).double(), seed=2)
    rng = np.random.default_rng(7)
    G = rng.normal(size=(n, n)) + 1j * rng.normal(size=(n, n))
    module().backward(torch.tensor(G))
    p = numbers(module)
    A = generator(p, n)
    for key, number in (("skew", half(n)), ("symmetric", half(n + 1))):
        expected = []
        for k in range(number):
            zero = {"skew": np.zeros(half(n)), "symmetric": np.zeros(half(n + 1))}
            E = generator({**zero, key: np.eye(number)[k]}, n)
            expected.append(np.vdot(G, p["base"] @ linalg.expm_frechet(A, E, compute_expm=False)).real)
        close(module.get_parameter(key).grad, expected, atol=1e-11)


@pytest.mark.parametrize(("map_class", "factor"), [(Exponential, 1.0), (Cayley, -2.0)])
def test_gradient_at_a_rebased_point_is_the_skew_hermitian_part(map_class: Callable[..., Any], factor: float) -> None:
    """At A = 0, dW = B dA under exp and -2 B dA under Cayley; M = B^H G, G as torch leaves it."""
    n = 5
    module = fill(map_class(n, trivialized=True, unitary=True).double())
    put(module, skew=np.zeros(half(n)), symmetric=np.zeros(half(n + 1)))
    rng = np.random.default_rng(1)
    G = rng.normal(size=(n, n)) + 1j * rng.normal(size=(n, n))
    module().backward(torch.tensor(G))
    M = factor * numbers(module)["base"].conj().T @ G
    close(module.skew.grad, (M - M.T).real[np.triu_indices(n, 1)])
    close(module.symmetric.grad, ((M + M.T).imag / (1 + np.eye(n)))[np.triu_indices(n)])


@pytest.mark.parametrize("map_class", [Exponential, Cayley])
@pytest.mark.parametrize("n", [1, 2, 3, 8])
def test_rebase_moves_the_base_and_leaves_the_matrix(map_class: Callable[..., Any], n: int) -> None:
    module = fill(map_class(n, trivialized=True, unitary=True).double(), seed=n)
    before, base, old = value(module).copy(), module.base, numbers(module)["base"]
    assert np.abs(before - old).max() > 0.05
    module.rebase_()
    close(module.base, before)
    close(value(module), before, atol=1e-13)
    assert not module.skew.any() and not module.symmetric.any()
    assert module.base is base and module.base.dtype == C128


@pytest.mark.parametrize("map_class", [Exponential, Cayley])
@pytest.mark.parametrize("n", [1, 3, 8])
def test_projection_is_the_polar_factor(map_class: Callable[..., Any], n: int) -> None:
    module = fill(map_class(n, trivialized=True, unitary=True).double(), seed=n)
    rng = np.random.default_rng(n)
    noise = rng.normal(size=(n, n)) + 1j * rng.normal(size=(n, n))
    moved = numbers(module)["base"] + 0.1 / math.sqrt(n) * noise
    with torch.no_grad():
        module.base.copy_(torch.tensor(moved))
    module.project_()
    close(module.base, linalg.polar(moved)[0])


# -- scuRNN's map ----------------------------------------------------------------------------------


def hand_gradient(p: Numbers, G: Array) -> Numbers:
    """From G in the halved, conjugate form to the free numbers: see the top of this file."""
    n = len(G)
    A, d = generator(p, n), np.exp(1j * p["phase"])
    eye, Z = np.eye(n), cayley_of(A)
    U = np.linalg.inv(eye + A).T @ G @ (np.diag(d) + (Z @ np.diag(d)).T)
    g = U.T - U.conj()
    return {
        "skew": 2 * g.real[np.triu_indices(n, 1)],
        "symmetric": ((2 - eye) * g.imag)[np.triu_indices(n)],
        "phase": 2 * (1j * np.diag(G.T @ Z) * d).real,
    }


@pytest.mark.parametrize("n", [1, 2, 3, 8, 17])
def test_unitary_scaled_cayley_has_the_papers_gradient(n: int) -> None:
    module = fill(UnitaryScaledCayley(n).double(), seed=n)
    rng = np.random.default_rng(9)
    G = rng.normal(size=(n, n)) + 1j * rng.normal(size=(n, n))
    module().backward(torch.tensor(2 * G.conj()))
    for key, expected in hand_gradient(numbers(module), G).items():
        close(module.get_parameter(key).grad, expected, atol=1e-10)


def test_the_hand_derived_gradient_is_the_difference_quotient() -> None:
    """The oracle itself: l = 2 Re tr(G^T W) has the halved, conjugate gradient G."""
    n, step, rng = 4, 1e-6, np.random.default_rng(4)
    p = {"skew": rng.normal(size=6), "symmetric": rng.normal(size=10), "phase": rng.normal(size=4)}
    G = rng.normal(size=(n, n)) + 1j * rng.normal(size=(n, n))

    def loss(key: str, k: int, h: float) -> float:
        return 2 * np.sum(G * scaled_dense({**p, key: p[key] + h * np.eye(len(p[key]))[k]}, n)).real

    for key, expected in hand_gradient(p, G).items():
        quotients = [(loss(key, k, step) - loss(key, k, -step)) / (2 * step) for k in range(len(p[key]))]
        close(expected, quotients, atol=1e-7)


def test_unitary_scaled_cayley_reaches_the_eigenvalue_minus_one() -> None:
    """A = 0 and theta = pi: W = -I, which no Cayley map alone comes to."""
    module = UnitaryScaledCayley(3).double()
    put(module, skew=np.zeros(3), symmetric=np.zeros(6), phase=np.full(3, math.pi))
    close(value(module), -np.eye(3))


def test_phases_multiply_columns() -> None:
    """W = Z D, D on the right: each column turns by its own phase."""
    plain, turned = (fill(UnitaryScaledCayley(5).double()) for _ in range(2))
    theta = np.array([0.1, -0.7, 2.0, 3.0, -1.5])
    put(plain, phase=np.zeros(5))
    put(turned, phase=theta)
    close(value(turned), value(plain) * np.exp(1j * theta)[None, :])


def test_unitary_scaled_cayley_starts_from_real_blocks_and_phases_anywhere() -> None:
    torch.manual_seed(0)
    module = UnitaryScaledCayley(400)
    assert not module.symmetric.any()
    theta = module.phase.detach().double().numpy()
    assert stats.kstest(theta, "uniform", args=(0, 2 * math.pi)).pvalue > 1e-4
    A = np.zeros((400, 400))
    A[np.triu_indices(400, 1)] = module.skew.detach().numpy()
    s = A[0:-1:2, 1::2].diagonal()
    assert stats.kstest(-2 * np.arctan(s), "uniform", args=(0, math.pi / 2)).pvalue > 1e-4
    assert np.count_nonzero(A) == np.count_nonzero(s)


# -- the restricted product ------------------------------------------------------------------------


@pytest.mark.parametrize("n", [1, 2, 3, 8, 17])
def test_restricted_product_is_the_chain_of_numpy_transforms(n: int) -> None:
    """The factors applied one after the other to each unit vector, with NumPy's orthonormal FFT."""
    module = fill(RestrictedUnitary(n).double(), seed=n)
    p = numbers(module)
    d1, d2, d3 = np.exp(1j * p["phases"])
    v1, v2 = p["reflections"][:, 0] + 1j * p["reflections"][:, 1]
    for k in range(n):
        x = d1 * np.eye(n)[k]
        x = np.fft.fft(x, norm="ortho")
        x = x - 2 * v1 * np.vdot(v1, x) / np.vdot(v1, v1)
        x = x[p["permutation"]]
        x = d2 * x
        x = np.fft.ifft(x, norm="ortho")
        x = x - 2 * v2 * np.vdot(v2, x) / np.vdot(v2, v2)
        close(value(module)[:, k], d3 * x)


def test_a_permutation_reads_from_where_it_points() -> None:
    """(Pi x)[i] = x[p[i]], told apart from its inverse by a cycle."""
    n = 5
    module = fill(RestrictedUnitary(n).double())
    assert "permutation" in dict(module.named_buffers())
    with torch.no_grad():
        module.permutation.copy_(torch.tensor([1, 2, 3, 4, 0]))
    W = value(module)
    close(W, restricted_dense(numbers(module), n))
    with torch.no_grad():
        module.permutation.copy_(torch.tensor([4, 0, 1, 2, 3]))
    assert np.abs(value(module) - W).max() > 0.1


def test_permutations_are_drawn_with_the_seed() -> None:
    drawn = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        drawn.append(RestrictedUnitary(50).permutation.tolist())
    assert sorted(drawn[0]) == list(range(50)) and drawn[0] != list(range(50))
    assert drawn[0] == drawn[1] != drawn[2]


def test_without_permutation_and_with_matching_reflections_two_diagonals_remain() -> None:
    """Pi = I, D2 = I and v1 = F v2: F^-1 R1 F = R2, R2 R2 = I, so W = D3 D1."""
    n = 6
    module = RestrictedUnitary(n).double()
    rng = np.random.default_rng(0)
    v2 = rng.normal(size=n) + 1j * rng.normal(size=n)
    v1 = np.fft.fft(v2, norm="ortho")
    phases = rng.uniform(-3, 3, size=(3, n))
    phases[1] = 0
    put(module, phases=phases, reflections=np.array([[v1.real, v1.imag], [v2.real, v2.imag]]))
    with torch.no_grad():
        module.permutation.copy_(torch.arange(n))
    close(value(module), np.diag(np.exp(1j * (phases[0] + phases[2]))))


def test_restricted_product_starts_as_the_paper_says() -> None:
    """Phases U(-pi, pi); reflection vectors uniform and symmetric (Glorot)."""
    torch.manual_seed(0)
    module = RestrictedUnitary(500)
    phases = module.phases.detach().double().numpy().ravel()
    assert stats.kstest(phases, "uniform", args=(-math.pi, 2 * math.pi)).pvalue > 1e-4
    v = module.reflections.detach().double().numpy().ravel()
    limit = np.abs(v).max()
    assert stats.kstest(v, "uniform", args=(-limit, 2 * limit)).pvalue > 1e-4


def test_length_and_phase_of_a_reflection_vector_do_not_matter() -> None:
    module, other = (fill(RestrictedUnitary(7).double()) for _ in range(2))
    with torch.no_grad():
        other.permutation.copy_(module.permutation)
        v = torch.view_as_complex(module.reflections.mT.contiguous()) * torch.tensor([[2 * np.exp(0.7j)], [-0.3j]])
        other.reflections.copy_(torch.view_as_real(v).mT)
    close(value(other), value(module))


# -- rotations -------------------------------------------------------------------------------------


def test_angles_start_anywhere_on_the_circle() -> None:
    torch.manual_seed(0)
    module = Rotations(64, 64, unitary=True)
    for angles in (module.theta, module.phi, module.omega):
        uniform = stats.kstest(angles.detach().double().numpy(), "uniform", args=(-math.pi, 2 * math.pi))
        assert uniform.pvalue > 1e-4


@pytest.mark.parametrize("layout", ["tunable", "fft"])
def test_one_pair_of_angles_moves_one_pair_of_units(layout: str) -> None:
    n = 8
    pairs = [pair for layer in (TUNABLE_8[:4] if layout == "tunable" else FFT_8) for pair in layer]
    module = Rotations(n, 4, layout, unitary=True).double()
    for number, (i, j) in enumerate(pairs):
        one = np.eye(len(pairs))[number]
        put(module, theta=0.3 * one, phi=0.5 * one, omega=np.zeros(n))
        turn, c, s = np.exp(0.5j), math.cos(0.3), math.sin(0.3)
        expected = np.eye(n, dtype=complex)
        expected[np.ix_([i, j], [i, j])] = [[turn * c, -s], [turn * s, c]]
        close(value(module), expected)


def test_output_phases_multiply_rows() -> None:
    """diag(e^{i omega}) comes last, on the left."""
    plain, turned = (fill(Rotations(4, 4, unitary=True).double()) for _ in range(2))
    omega = np.array([0.1, -0.7, 2.0, 3.0])
    put(plain, omega=np.zeros(4))
    put(turned, omega=omega)
    close(value(turned), np.exp(1j * omega)[:, None] * value(plain))


def test_real_rotations_are_unitary_ones_without_phases() -> None:
    real, unitary = Rotations(8, 4).double(), Rotations(8, 4, unitary=True).double()
    fill(real)
    put(unitary, theta=numbers(real)["theta"], phi=np.zeros(14), omega=np.zeros(8))
    close(value(unitary), value(real))


@pytest.mark.parametrize(
    ("build", "given"),
    [
        (lambda: Rotations(5, unitary=True), "5"),
        (lambda: Rotations(8, 3, unitary=True), "3"),
        (lambda: Rotations(8, 10, unitary=True), "10"),
        (lambda: Rotations(6, layout="fft", unitary=True), "6"),
    ],
)
def test_what_a_design_does_not_admit_is_refused_in_a_sentence(build: Callable[[], object], given: str) -> None:
    with pytest.raises(UserError) as refusal:
        build()
    sentence = str(refusal.value)
    assert given in sentence and sentence.endswith(".") and len(sentence.split()) > 5
