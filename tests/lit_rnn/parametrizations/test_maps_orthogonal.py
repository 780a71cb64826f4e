"""Real maps onto orthogonal matrices (and one, the Schur form, around them) against dense float64 constructions.

Every map is rebuilt in NumPy from its free numbers: Cayley by the explicit inverse, reflections and rotations one full
matrix at a time, LAPACK's own reflectors beside them. Conventions: a skew A holds its free numbers above the diagonal
row by row; h_t = f(W h_{t-1} + ...), columns. The exponential itself has its tests in test_parametrizations.py.

scoRNN's gradient by hand. With W = (I+A)^-1 (I-A) D,
    dW = -(I+A)^-1 dA (I+A)^-1 (I-A) D - (I+A)^-1 dA D = -(I+A)^-1 dA (W + D),
so dl = <G, dW> = -<V, dA> with V = (I+A)^-T G (D + W^T), G = dl/dW. A free number a_ij (i < j) sits at (i, j) and,
negated, at (j, i), hence dl/da_ij = (V^T - V)_ij: the paper's formula. It never says on which side W meets h; that is
in G alone. In the released code's order the column matrix is M = W^T, so there G = (dl/dM)^T.
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
from lit_rnn.init import cayley_, haar_, henaff_, torus_
from lit_rnn.parametrizations import Cayley, Exponential, Householder, Rotations, ScaledCayley, SchurForm

F64 = torch.float64
Array = np.ndarray
Numbers = dict[str, Array]


# -- dense constructions ---------------------------------------------------------------------------


def skew_matrix(free: Array, n: int) -> Array:
    A = np.zeros((n, n))
    A[np.triu_indices(n, 1)] = free
    return A - A.T


def cayley_of(A: Array) -> Array:
    eye = np.eye(len(A))
    return np.linalg.inv(eye + A) @ (eye - A)


def cayley_dense(p: Numbers, n: int) -> Array:
    return p.get("base", np.eye(n)) @ cayley_of(skew_matrix(p["skew"], n))


def signs_of(n: int, negatives: int) -> Array:
    return np.diag([1.0] * (n - negatives) + [-1.0] * negatives)


def scaled_dense(p: Numbers, n: int, negatives: int | None = None, released: bool = False) -> Array:
    W = cayley_of(skew_matrix(p["skew"], n)) @ signs_of(n, n // 2 if negatives is None else negatives)
    return W.T if released else W


def reflectors_of(free: Array, n: int, m: int) -> list[Array]:
    """u_1, ..., u_m: u_k is zero above row k and takes the next n - k + 1 free numbers."""
    vectors, taken = [], 0
    for k in range(m):
        vectors.append(np.concatenate([np.zeros(k), free[taken : taken + n - k]]))
        taken += n - k
    assert taken == len(free) == m * n - m * (m - 1) // 2
    return vectors


def reflection(u: Array) -> Array:
    return np.eye(len(u)) - 2 * np.outer(u, u) / (u @ u)


def householder_dense(p: Numbers, n: int, m: int | None = None) -> Array:
    W = np.eye(n)
    for u in reflectors_of(p["vectors"], n, n if m is None else m):
        W = W @ reflection(u)
    return W


Layers = list[list[tuple[int, int]]]
# pairs of every layer, by hand
TUNABLE_4: Layers = [[(0, 1), (2, 3)], [(1, 2)], [(0, 1), (2, 3)], [(1, 2)]]
EVEN_8, ODD_8 = [(0, 1), (2, 3), (4, 5), (6, 7)], [(1, 2), (3, 4), (5, 6)]
TUNABLE_8: Layers = [EVEN_8, ODD_8, EVEN_8, ODD_8, EVEN_8, ODD_8, EVEN_8, ODD_8]
FFT_4: Layers = [[(0, 1), (2, 3)], [(0, 2), (1, 3)]]
FFT_8: Layers = [EVEN_8, [(0, 2), (1, 3), (4, 6), (5, 7)], [(0, 4), (1, 5), (2, 6), (3, 7)]]
FFT_2: Layers = [[(0, 1)]]


def rotations_dense(p: Numbers, n: int, layers: Layers) -> Array:
    """L_last ... L_1 L_0, each rotation as a full matrix [[cos, -sin], [sin, cos]] on rows and columns i, j."""
    W, number = np.eye(n), 0
    for layer in layers:
        for i, j in layer:
            R = np.eye(n)
            c, s = math.cos(p["theta"][number]), math.sin(p["theta"][number])
            R[i, i], R[i, j], R[j, i], R[j, j] = c, -s, s, c
            W = R @ W
            number += 1
    assert number == len(p["theta"])
    return W


def schur_dense(p: Numbers, n: int, released: bool = False) -> Array:
    """P (Theta + T) P^T with Theta = blockdiag(gamma_i R(theta_i)) and T above its 2x2 blocks, row by row.

    The released T is the strict upper triangle, added to Theta.
    """
    inner = np.zeros((n, n))
    for k in range(n // 2):
        c, s = math.cos(p["angles"][k]), math.sin(p["angles"][k])
        inner[2 * k : 2 * k + 2, 2 * k : 2 * k + 2] = p["gains"][k] * np.array([[c, -s], [s, c]])
    free = iter(p["upper"])
    for i in range(n):
        for j in range(i + 1 if released else 2 * (i // 2) + 2, n):
            inner[i, j] += next(free)
    assert next(free, None) is None
    P = linalg.expm(skew_matrix(p["basis.skew"], n))
    return P @ inner @ P.T


# -- the maps under test ---------------------------------------------------------------------------


@dataclass(frozen=True)
class Case:
    """A map at one size: how to build it, its dense construction, and what its manifold is."""

    build: Callable[[], Any]
    dense: Callable[[Numbers], Array]
    n: int
    free: int  # numbers it registers
    dimension: int  # of the manifold it reaches, seen from a generic point
    det: int | None  # None: not orthogonal


def half(n: int) -> int:
    return n * (n - 1) // 2


def cases() -> Iterator[tuple[str, Case]]:
    for n in (1, 2, 3, 5, 8):
        yield f"Cayley-{n}", Case(lambda n=n: Cayley(n), lambda p, n=n: cayley_dense(p, n), n, half(n), half(n), 1)
        yield (
            f"Cayley-trivialized-{n}",
            Case(lambda n=n: Cayley(n, trivialized=True), lambda p, n=n: cayley_dense(p, n), n, half(n), half(n), 1),
        )
        for rho in sorted({0, 1, n // 2, n}):
            for released in (False, True):
                yield (
                    f"ScaledCayley-{n}-{rho}{'-released' * released}",
                    Case(
                        lambda n=n, r=rho, o=released: ScaledCayley(n, negatives=r, released_order=o),
                        lambda p, n=n, r=rho, o=released: scaled_dense(p, n, r, o),
                        n,
                        half(n),
                        half(n),
                        (-1) ** rho,
                    ),
                )
        for m in sorted({1, (n + 1) // 2, n}):
            yield (
                f"Householder-{n}-{m}",
                Case(
                    lambda n=n, m=m: Householder(n, m),
                    lambda p, n=n, m=m: householder_dense(p, n, m),
                    n,
                    m * n - m * (m - 1) // 2,
                    m * n - m * (m + 1) // 2,  # a reflection does not see the length of its vector
                    (-1) ** m,
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
                lambda n=n, c=capacity: Rotations(n, c),
                lambda p, n=n, x=pairs: rotations_dense(p, n, x),
                n,
                count,
                count,
                1,
            ),
        )
    for n, layers in ((2, FFT_2), (4, FFT_4), (8, FFT_8)):
        count = n * int(math.log2(n)) // 2
        yield (
            f"Rotations-fft-{n}",
            Case(
                lambda n=n: Rotations(n, layout="fft"),
                lambda p, n=n, x=layers: rotations_dense(p, n, x),
                n,
                count,
                count,
                1,
            ),
        )
    for n in (2, 4, 8):
        yield (
            f"SchurForm-{n}",
            # P may turn inside each of the n/2 invariant planes without moving W
            Case(lambda n=n: SchurForm(n), lambda p, n=n: schur_dense(p, n), n, n * n - n // 2, n * n - n, None),
        )
        yield (
            f"SchurForm-released-{n}",
            # any real matrix
            Case(
                lambda n=n: SchurForm(n, upper="released"),
                lambda p, n=n: schur_dense(p, n, released=True),
                n,
                n * n,
                n * n,
                None,
            ),
        )


CASES = dict(cases())
ORTHOGONAL = [name for name, case in CASES.items() if case.det is not None]
each_map = pytest.mark.parametrize("name", CASES)


def numbers(module: nn.Module) -> Numbers:
    return {name: tensor.detach().numpy().copy() for name, tensor in module.state_dict().items()}


def fill(module: Any, seed: int = 0, scale: float = 1.0) -> Any:
    """Every free number ours, and a base point that is a random rotation."""
    rng = np.random.default_rng(seed)
    with torch.no_grad():
        for _, parameter in sorted(module.named_parameters()):
            parameter.copy_(torch.tensor(scale * rng.normal(size=tuple(parameter.shape))))
        for key, buffer in module.named_buffers():
            if key == "base":
                n = len(buffer)
                buffer.copy_(torch.tensor(linalg.expm(skew_matrix(rng.normal(size=half(n)), n))))
    return module


def make(name: str, seed: int = 0) -> Any:
    return fill(CASES[name].build().double(), seed)


def value(module: nn.Module) -> Array:
    return module().detach().numpy()


def close(actual: Tensor | Array, expected: Any, atol: float = 1e-12) -> None:
    np.testing.assert_allclose(np.asarray(actual), expected, rtol=0, atol=atol)


def random_orthogonal(n: int, seed: int, det: int = 1) -> Array:
    """A generic element of one component of O(n)."""
    Q = linalg.expm(skew_matrix(np.random.default_rng(seed).normal(size=half(n)), n))
    Q[:, 0] *= det
    return Q


def put(module: nn.Module, **values: Array) -> None:
    with torch.no_grad():
        for key, array in values.items():
            module.get_parameter(key).copy_(torch.tensor(array))


# -- every map -------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [0, 1])
@each_map
def test_map_is_its_dense_construction(name: str, seed: int) -> None:
    module, case = make(name, seed), CASES[name]
    W = module()
    assert W.shape == (case.n, case.n) and W.dtype == F64
    close(W.detach(), case.dense(numbers(module)))


@each_map
def test_free_numbers_are_counted_as_the_formula_says(name: str) -> None:
    assert sum(p.numel() for p in CASES[name].build().parameters()) == CASES[name].free


@each_map
def test_reaches_a_manifold_of_the_dimension_it_promises(name: str) -> None:
    """The rank of dW / d(free numbers) at a generic point."""
    module, case = make(name, seed=3), CASES[name]
    keys, values = zip(*module.named_parameters(), strict=True)
    columns = torch.autograd.functional.jacobian(
        lambda *args: functional_call(module, dict(zip(keys, args, strict=True)), ()), tuple(v.detach() for v in values)
    )
    J = torch.cat([c.reshape(case.n**2, -1) for c in columns], dim=1)
    assert J.shape[1] == case.free
    rank = int(torch.linalg.matrix_rank(J, atol=1e-9)) if J.numel() else 0
    assert rank == case.dimension


@pytest.mark.parametrize("name", ORTHOGONAL)
def test_matrix_is_orthogonal_and_of_the_determinant_promised(name: str) -> None:
    for seed in range(5):
        module = make(name, seed)
        W = value(module)
        close(W.T @ W, np.eye(CASES[name].n), atol=1e-13)
        close(np.linalg.det(W), CASES[name].det)
        assert float(module.drift()) <= 1e-13


@each_map
def test_drift_is_the_largest_entry_of_the_defect(name: str) -> None:
    """For maps that have none, a base point off the manifold shows that it is measured. Of a Schur form, P drifts."""
    module = make(name)
    module = module.basis if name.startswith("SchurForm") else module
    if "base" in dict(module.named_buffers()):
        with torch.no_grad():
            module.base.mul_(1.01).add_(0.003)
    W = value(module)
    measured = float(module.drift())
    close(measured, np.abs(W.T @ W - np.eye(len(W))).max(), atol=1e-13)
    if "trivialized" in name:
        assert measured > 1e-3


@each_map
def test_gradcheck(name: str) -> None:
    module = make(name, seed=2)
    found = {key: v.detach().clone().requires_grad_() for key, v in module.named_parameters() if v.numel()}
    if not found:
        assert CASES[name].n == 1
        return

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
    module = make(name)
    before = value(module).copy()
    twin = copy.deepcopy(module)
    other = CASES[name].build().double()
    other.load_state_dict(module.state_dict())
    np.testing.assert_array_equal(value(twin), before)
    np.testing.assert_array_equal(value(other), before)
    fill(twin, seed=8)
    np.testing.assert_array_equal(value(module), before)


@pytest.mark.parametrize(
    "build",
    [
        lambda: Cayley(64),
        lambda: Cayley(65, trivialized=True),
        lambda: ScaledCayley(65),
        lambda: ScaledCayley(64, released_order=True),
        lambda: Householder(65),
        lambda: Householder(64, 7),
        lambda: Rotations(64, 8),
        lambda: Rotations(64, 64),
        lambda: Rotations(64, layout="fft"),
        lambda: SchurForm(64),  # T = 0 and gains 1 at the start
    ],
    ids=["cayley", "trivialized", "scaled", "released", "full", "thin", "tunable", "full capacity", "fft", "schur"],
)
def test_single_precision_stays_orthogonal_under_autocast(build: Callable[[], nn.Module]) -> None:
    """Orthogonal maps run in float32 or better, whatever the precision around them."""
    module = build()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        W = module()
    assert W.dtype == torch.float32
    assert np.abs(W.detach().double().numpy() @ W.detach().double().numpy().T - np.eye(len(W))).max() < 2e-5
    W.square().sum().backward()  # constant on the manifold
    for parameter in module.parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all()


# -- Cayley ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("s", [0.3, -1.7, 1.0, 40.0])
def test_cayley_of_the_plane_turns_by_twice_the_arctangent(s: float) -> None:
    """[[1 - s^2, -2s], [2s, 1 - s^2]] / (1 + s^2): against exp, which turns the other way, by s."""
    module = Cayley(2).double()
    put(module, skew=np.array([s]))
    close(value(module), np.array([[1 - s * s, -2 * s], [2 * s, 1 - s * s]]) / (1 + s * s))
    angle = math.atan2(value(module)[1, 0], value(module)[0, 0])
    assert math.isclose(angle, 2 * math.atan(s), abs_tol=1e-12)


@pytest.mark.parametrize("n", [2, 3, 8, 17])
def test_cayley_stays_away_from_the_eigenvalue_minus_one(n: int) -> None:
    """I + W = 2 (I + A)^-1, so the distance from the spectrum to -1 is 2 / sqrt(1 + |A|^2): never 0."""
    module = Cayley(n).double()
    for scale in (0.1, 1.0, 30.0):
        fill(module, seed=n, scale=scale)
        size = np.linalg.norm(skew_matrix(numbers(module)["skew"], n), 2)
        distance = np.abs(linalg.eigvals(value(module)) + 1).min()
        close(distance, 2 / math.sqrt(1 + size**2), atol=1e-10)
        close(np.linalg.svd(value(module) + np.eye(n), compute_uv=False)[-1], 2 / math.sqrt(1 + size**2), atol=1e-10)


def test_the_exponential_and_a_scaled_cayley_reach_the_eigenvalue_minus_one() -> None:
    """What the map before cannot do: a half turn, and a reflection."""
    turn, scaled = Exponential(2).double(), ScaledCayley(2, negatives=1).double()
    put(turn, skew=np.array([math.pi]))
    put(scaled, skew=np.array([0.0]))
    close(value(turn), -np.eye(2))
    close(value(scaled), np.diag([1.0, -1.0]))


@pytest.mark.parametrize("n", [2, 3, 8])
def test_cayley_reaches_any_rotation_without_the_eigenvalue_minus_one(n: int) -> None:
    """The chart inverts itself: A = (I + W)^-1 (I - W)."""
    target = random_orthogonal(n, seed=n)
    module = Cayley(n).double()
    put(module, skew=cayley_of(target)[np.triu_indices(n, 1)])
    close(value(module), target, atol=1e-11)


@pytest.mark.parametrize("negatives", [0, 1, 2, 3])
@pytest.mark.parametrize("n", [3, 8])
def test_scaled_cayley_reaches_any_matrix_of_its_determinant(n: int, negatives: int) -> None:
    target = random_orthogonal(n, seed=n, det=(-1) ** negatives)
    module = ScaledCayley(n, negatives=negatives).double()
    put(module, skew=cayley_of(target @ signs_of(n, negatives))[np.triu_indices(n, 1)])
    close(value(module), target, atol=1e-10)


def test_cayley_gradient_at_a_rebased_point_is_minus_twice_the_skew_part() -> None:
    """At A = 0, dW = -2 B dA: dl/da_ij = -2 (B^T G)_ij + 2 (B^T G)_ji."""
    n = 6
    module = fill(Cayley(n, trivialized=True).double())
    put(module, skew=np.zeros(half(n)))
    G = np.random.default_rng(1).normal(size=(n, n))
    module().backward(torch.tensor(G))
    M = numbers(module)["base"].T @ G
    close(module.skew.grad, -2 * (M - M.T)[np.triu_indices(n, 1)])


@pytest.mark.parametrize("n", [2, 3, 8, 17])
def test_cayley_rebase_moves_the_base_and_leaves_the_matrix(n: int) -> None:
    module = fill(Cayley(n, trivialized=True).double(), seed=n)
    p, skew, base = numbers(module), module.skew, module.base
    assert np.abs(p["base"] @ cayley_of(skew_matrix(p["skew"], n)) - p["base"]).max() > 0.1
    module.rebase_()
    close(module.base, cayley_dense(p, n))
    close(value(module), cayley_dense(p, n))
    assert not module.skew.any()
    assert module.skew is skew and module.base is base, "an optimizer holds these objects"
    assert module.skew.requires_grad and not module.base.requires_grad


@pytest.mark.parametrize("n", [1, 3, 8])
def test_cayley_projection_is_the_polar_factor(n: int) -> None:
    module = fill(Cayley(n, trivialized=True).double(), seed=n)
    moved = numbers(module)["base"] + 0.2 / math.sqrt(n) * np.random.default_rng(n).normal(size=(n, n))
    skew = numbers(module)["skew"]
    with torch.no_grad():
        module.base.copy_(torch.tensor(moved))
    module.project_()
    close(module.base, linalg.polar(moved)[0])
    close(numbers(module)["skew"], skew, atol=0)


def known_(A: Tensor) -> Tensor:
    n = len(A)
    with torch.no_grad():
        return A.copy_(torch.tensor(skew_matrix(np.random.default_rng(3).normal(size=half(n)), n)))


def test_static_cayley_starts_at_the_initial_generator_and_a_trivialized_one_has_it_in_its_base() -> None:
    A = known_(torch.empty(6, 6)).double().numpy()
    static, moving = Cayley(6, known_), Cayley(6, known_, trivialized=True)
    np.testing.assert_array_equal(static.skew.detach().numpy(), A[np.triu_indices(6, 1)].astype(np.float32))
    assert not moving.skew.any() and "base" in dict(moving.named_buffers())
    for module in (static, moving):
        close(value(module), cayley_of(A), atol=2e-6)
    close(moving.base, cayley_of(A), atol=2e-6)


# -- the released order ----------------------------------------------------------------------------


@pytest.mark.parametrize(("n", "negatives"), [(3, 1), (5, 2), (8, 4)])
def test_released_order_is_the_transpose_and_another_matrix(n: int, negatives: int) -> None:
    paper = fill(ScaledCayley(n, negatives=negatives).double())
    released = fill(ScaledCayley(n, negatives=negatives, released_order=True).double())
    np.testing.assert_array_equal(numbers(paper)["skew"], numbers(released)["skew"])
    Z, D = cayley_of(skew_matrix(numbers(paper)["skew"], n)), signs_of(n, negatives)
    close(value(paper), Z @ D)
    close(value(released), D @ Z.T)
    assert np.abs(Z @ D - D @ Z.T).max() > 0.1


def test_released_order_acts_as_a_row_vector_times_z_d() -> None:
    """h <- h W with W = Z D: what the released code computes, D last."""
    n = 5
    module = fill(ScaledCayley(n, released_order=True).double())
    Z = cayley_of(skew_matrix(numbers(module)["skew"], n))
    row = np.random.default_rng(0).normal(size=n)
    after = (row @ Z) * np.array([1, 1, 1, -1, -1])  # n // 2 negatives, the last ones
    close(value(module) @ row, after)


def test_in_the_plane_both_orders_are_one_reflection() -> None:
    """n = 2, one negative: Z D is symmetric, so the two conventions agree there and only there."""
    s = 0.4
    expected = np.array([[1 - s * s, 2 * s], [2 * s, s * s - 1]]) / (1 + s * s)
    for released in (False, True):
        module = ScaledCayley(2, negatives=1, released_order=released).double()
        put(module, skew=np.array([s]))
        close(value(module), expected)


@pytest.mark.parametrize(("n", "negatives", "rho"), [(1, None, 0), (2, None, 1), (7, None, 3), (8, None, 4), (8, 3, 3)])
def test_minus_ones_come_last_and_are_half_unless_told(n: int, negatives: int | None, rho: int) -> None:
    module = ScaledCayley(n, negatives=negatives)
    assert "signs" in dict(module.named_buffers())
    assert module.signs.tolist() == [1.0] * (n - rho) + [-1.0] * rho


# -- scoRNN's gradient by hand ---------------------------------------------------------------------


def hand_gradient(A: Array, D: Array, G: Array) -> Array:
    """(V^T - V)_ij for i < j, V = (I+A)^-T G (D + W^T): see the top of this file."""
    eye = np.eye(len(A))
    W = cayley_of(A) @ D
    V = np.linalg.inv(eye + A).T @ G @ (D + W.T)
    return (V.T - V)[np.triu_indices(len(A), 1)]


@pytest.mark.parametrize("released", [False, True])
@pytest.mark.parametrize(("n", "negatives"), [(2, 0), (2, 1), (3, 1), (5, 2), (8, 4), (8, 8), (17, 3)])
def test_scaled_cayley_has_the_papers_gradient(n: int, negatives: int, released: bool) -> None:
    module = fill(ScaledCayley(n, negatives=negatives, released_order=released).double(), seed=n)
    G = np.random.default_rng(9).normal(size=(n, n))
    module().backward(torch.tensor(G))
    A, D = skew_matrix(numbers(module)["skew"], n), signs_of(n, negatives)
    expected = hand_gradient(A, D, G.T if released else G)
    close(module.skew.grad, expected, atol=1e-11)
    if n > 2:
        assert np.abs(hand_gradient(A, D, G if released else G.T) - expected).max() > 0.1


def test_the_hand_derived_gradient_is_the_difference_quotient() -> None:
    """The oracle itself, by central differences."""
    n, rng = 5, np.random.default_rng(4)
    free, G, D, step = rng.normal(size=half(n)), rng.normal(size=(n, n)), signs_of(n, 2), 1e-6
    quotients = []
    for k in range(half(n)):
        ends = [np.sum(G * (cayley_of(skew_matrix(free + h * np.eye(half(n))[k], n)) @ D)) for h in (step, -step)]
        quotients.append((ends[0] - ends[1]) / (2 * step))
    close(hand_gradient(skew_matrix(free, n), D, G), quotients, atol=1e-7)


# -- spectra at the start --------------------------------------------------------------------------


def angles_of(W: Array) -> Array:
    """One angle of each conjugate pair, in [0, pi], sorted; n even."""
    return np.sort(np.abs(np.angle(linalg.eigvals(W))))[::2]


@pytest.mark.parametrize(
    "build", [lambda n: Cayley(n, cayley_), lambda n: Cayley(n, cayley_, trivialized=True), Cayley]
)
def test_cayley_start_under_the_cayley_map_is_a_quarter_circle(build: Callable[[int], nn.Module]) -> None:
    torch.manual_seed(0)
    angles = angles_of(value(build(400)).astype(float))
    assert angles.max() <= math.pi / 2 + 1e-5
    assert stats.kstest(angles, "uniform", args=(0, math.pi / 2)).pvalue > 1e-4


def test_cayley_start_under_the_exponential_is_at_most_one_radian() -> None:
    """tan(u/2) with u ~ U(0, pi/2): the other spectrum that goes by the same name."""
    torch.manual_seed(0)
    angles = angles_of(value(Exponential(400, cayley_)).astype(float))
    assert 0.95 < angles.max() <= 1 + 1e-5
    assert stats.kstest(2 * np.arctan(angles), "uniform", args=(0, math.pi / 2)).pvalue > 1e-4


@pytest.mark.parametrize("init", [henaff_, torus_])
def test_henaff_and_torus_start_under_the_exponential_is_the_whole_circle(init: Callable[[Tensor], Tensor]) -> None:
    torch.manual_seed(0)
    angles = angles_of(value(Exponential(400, init)).astype(float))
    assert stats.kstest(angles, "uniform", args=(0, math.pi)).pvalue > 1e-4


@pytest.mark.parametrize("trivialized", [False, True])
@pytest.mark.parametrize("init", [henaff_, cayley_, haar_, torus_])
@pytest.mark.parametrize("map_class", [Exponential, Cayley])
def test_start_is_the_map_of_the_generator_drawn(
    map_class: Callable[..., nn.Module], init: Callable[[Tensor], Tensor], trivialized: bool
) -> None:
    torch.manual_seed(5)
    W = value(map_class(9, init, trivialized=trivialized))
    torch.manual_seed(5)
    A = init(torch.empty(9, 9)).double().numpy()
    expected = linalg.expm(A) if map_class is Exponential else cayley_of(A)
    size = np.linalg.norm(A, 2)
    close(W, expected, atol=1e-5)
    if map_class is Cayley:
        close(np.abs(np.angle(linalg.eigvals(W.astype(float)))).max(), 2 * math.atan(size), atol=1e-4)


@pytest.mark.parametrize("map_class", [Exponential, Cayley])
def test_a_zero_generator_starts_at_the_identity(map_class: Callable[..., nn.Module]) -> None:
    close(value(map_class(5, nn.init.zeros_)), np.eye(5), atol=0)


# -- Householder -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("n", "m"), [(1, 1), (2, 1), (2, 2), (5, 1), (5, 3), (5, 5), (8, 8), (17, 6), (17, 17)])
def test_householder_product_is_lapacks(n: int, m: int) -> None:
    """dgeqrf leaves reflectors with a unit first entry below the diagonal; dormqr multiplies H_1 ... H_m onto I.

    LAPACK's tau is 2 / |v|^2 for all of them but the n-th of n, which it skips; ours is diag(1, ..., 1, -1).
    """
    a = np.random.default_rng(n + m).normal(size=(n, m))
    qr, tau, _, info = linalg.lapack.dgeqrf(a)
    assert info == 0
    vectors = [np.concatenate([[1.0], qr[k + 1 :, k]]) for k in range(m)]
    full = m == n
    for k in range(m - full):
        assert math.isclose(tau[k], 2 / (vectors[k] @ vectors[k]), rel_tol=1e-12)
    Q, _, info = linalg.lapack.dormqr("L", "N", qr, tau, np.eye(n, order="F"), 64 * n)
    assert info == 0
    if full:
        assert tau[-1] == 0
        Q[:, -1] *= -1
    module = Householder(n, m).double()
    scales = np.random.default_rng(0).uniform(0.3, 3, size=m)  # lengths do not matter
    put(module, vectors=np.concatenate([s * v for s, v in zip(scales, vectors, strict=True)]))
    close(value(module), Q)


def test_householder_by_hand() -> None:
    """n = 3, m = 2: u_1 = (1, 1, 0) / sqrt 2 swaps and negates the first two, u_2 = (0, 0, 1) negates the third."""
    module = Householder(3, 2).double()
    put(module, vectors=np.array([1.0, 1.0, 0.0, 0.0, 1.0]))
    close(value(module), [[0, -1, 0], [-1, 0, 0], [0, 0, -1]])
    put(module, vectors=np.array([3.0, 3.0, 0.0, 1.0, 1.0]))  # H_1 H_2, not H_2 H_1
    close(value(module), [[0, 0, 1], [-1, 0, 0], [0, -1, 0]])


@pytest.mark.parametrize("n", [1, 2, 3, 8])
def test_as_many_reflections_as_units_is_the_default_and_ends_in_a_sign(n: int) -> None:
    module = Householder(n).double()
    assert module.vectors.shape == (n * (n + 1) // 2,)
    fill(module)
    close(value(module), householder_dense(numbers(module), n, n))
    put(module, vectors=np.concatenate([np.eye(n)[k, k:] for k in range(n)]))
    close(value(module), -np.eye(n))


@pytest.mark.parametrize("n", [1, 2, 3, 8])
def test_householder_of_full_size_reaches_any_matrix_of_its_determinant(n: int) -> None:
    """u_k = (column k of what is left) - e_k sends that column to e_k; det (-1)^n leaves -1 in the corner."""
    target = random_orthogonal(n, seed=n, det=(-1) ** n)
    left, vectors = target.copy(), []
    for k in range(n - 1):
        u = left[:, k] - np.eye(n)[k]
        vectors.append(u[k:])
        left = reflection(u) @ left
    close(left, np.diag([1.0] * (n - 1) + [-1.0]), atol=1e-10)
    module = Householder(n).double()
    put(module, vectors=np.concatenate([*vectors, [1.0]]))
    close(value(module), target, atol=1e-10)


def test_a_few_reflections_leave_a_subspace_alone() -> None:
    """W - I has rank m: an (n - m)-dimensional space is fixed."""
    for n, m in ((8, 1), (8, 3), (17, 6)):
        W = value(fill(Householder(n, m).double()))
        assert np.linalg.matrix_rank(W - np.eye(n), tol=1e-10) == m


# -- rotations -------------------------------------------------------------------------------------


def test_rotations_start_anywhere_on_the_circle() -> None:
    torch.manual_seed(0)
    theta = Rotations(64, 64).theta.detach().double().numpy()
    assert len(theta) == 64 * 63 // 2
    assert stats.kstest(theta, "uniform", args=(-math.pi, 2 * math.pi)).pvalue > 1e-4


@pytest.mark.parametrize("number", range(6))
def test_one_angle_turns_one_pair(number: int) -> None:
    """n = 4, capacity 4: angles 0 and 1 turn (0, 1) and (2, 3), angle 2 turns (1, 2), and so again."""
    i, j = [(0, 1), (2, 3), (1, 2), (0, 1), (2, 3), (1, 2)][number]
    module = Rotations(4, 4).double()
    put(module, theta=0.3 * np.eye(6)[number])
    expected = np.eye(4)
    expected[np.ix_([i, j], [i, j])] = [[math.cos(0.3), -math.sin(0.3)], [math.sin(0.3), math.cos(0.3)]]
    close(value(module), expected)


@pytest.mark.parametrize("number", range(12))
def test_one_angle_of_the_butterfly_turns_one_pair(number: int) -> None:
    i, j = [pair for layer in FFT_8 for pair in layer][number]
    module = Rotations(8, layout="fft").double()
    put(module, theta=0.3 * np.eye(12)[number])
    expected = np.eye(8)
    expected[np.ix_([i, j], [i, j])] = [[math.cos(0.3), -math.sin(0.3)], [math.sin(0.3), math.cos(0.3)]]
    close(value(module), expected)


def test_the_first_layer_acts_first() -> None:
    """A quarter turn of (0, 1) then of (1, 2) carries e_0 to e_2; the other order leaves it at e_1."""
    module = Rotations(4, 2).double()
    quarter = math.pi / 2
    put(module, theta=np.array([quarter, 0.0, quarter]))
    close(value(module)[:, 0], [0, 0, 1, 0])


@pytest.mark.parametrize("capacity", [2, 4, 6])
def test_capacity_is_how_far_a_unit_reaches(capacity: int) -> None:
    """L layers carry a unit at most L places; from unit 0, whose first pair is in layer 0, just that far."""
    W = value(fill(Rotations(8, capacity).double()))
    distance = np.abs(np.subtract.outer(np.arange(8), np.arange(8)))
    close(W[distance > capacity], 0, atol=1e-15)
    assert abs(W[capacity, 0]) > 1e-6


def test_a_butterfly_reaches_everyone() -> None:
    assert np.abs(value(fill(Rotations(16, layout="fft").double()))).min() > 1e-9


# -- Schur form ------------------------------------------------------------------------------------


def test_schur_form_starts_orthogonal_with_angles_anywhere() -> None:
    torch.manual_seed(0)
    module = SchurForm(200)
    assert not module.upper.any() and (module.gains == 1).all()
    assert module.upper.shape == (200 * 198 // 2,) and module.gains.shape == module.angles.shape == (100,)
    angles = module.angles.detach().double().numpy()
    assert stats.kstest(angles, "uniform", args=(0, 2 * math.pi)).pvalue > 1e-4
    W = value(module).astype(float)
    close(W.T @ W, np.eye(200), atol=2e-5)
    assert np.abs(module.basis().detach().numpy() - np.eye(200)).max() > 0.1


@pytest.mark.parametrize("init", [henaff_, cayley_])
def test_schur_basis_starts_at_its_named_initialiser(init: Callable[[Tensor], Tensor]) -> None:
    """The released code starts it from uninitialised memory whatever the name says."""
    torch.manual_seed(0)
    module = SchurForm(400, init)
    assert isinstance(module.basis, Exponential)
    angles = angles_of(module.basis().detach().double().numpy())
    if init is henaff_:
        assert stats.kstest(angles, "uniform", args=(0, math.pi)).pvalue > 1e-4
    else:
        assert 0.9 < angles.max() <= 1 + 1e-5


def test_schur_eigenvalues_are_gains_and_angles_whatever_lies_above() -> None:
    module = make("SchurForm-8", seed=1)
    p = numbers(module)
    expected = p["gains"] * np.exp(1j * p["angles"])
    found = linalg.eigvals(value(module))
    for eigenvalue in np.concatenate([expected, expected.conj()]):
        assert np.abs(found - eigenvalue).min() < 1e-9
    with torch.no_grad():
        module.upper.zero_()
    normal = value(module)
    close(normal @ normal.T, normal.T @ normal)
    W = value(make("SchurForm-8", seed=1))
    assert np.abs(W @ W.T - W.T @ W).max() > 0.1  # T is what makes it non-normal


def test_schur_blocks_turn_counterclockwise_in_the_basis() -> None:
    module = SchurForm(4, nn.init.zeros_).double()
    put(module, angles=np.array([0.3, 1.1]), gains=np.array([1.0, 0.5]), upper=np.array([1.0, 2.0, 3.0, 4.0]))
    c, s, d, t = math.cos(0.3), math.sin(0.3), 0.5 * math.cos(1.1), 0.5 * math.sin(1.1)
    close(value(module), [[c, -s, 1, 2], [s, c, 3, 4], [0, 0, d, -t], [0, 0, t, d]])


def test_the_released_upper_entry_is_added_inside_each_block() -> None:
    """[[c, t - s], [s, c]]: eigenvalues c +- sqrt(s (t - s)), not of modulus gamma unless t = 0."""
    module = SchurForm(2, nn.init.zeros_, upper="released").double()
    put(module, angles=np.array([0.3]), gains=np.array([1.0]), upper=np.array([0.2]))
    c, s = math.cos(0.3), math.sin(0.3)
    close(value(module), [[c, 0.2 - s], [s, c]])
    found = linalg.eigvals(value(module))
    close(np.abs(found), np.full(2, abs(c + np.emath.sqrt(s * (0.2 - s)))))
    assert np.abs(found).max() < 0.98


def test_schur_penalty_counts_the_gains_alone() -> None:
    module = make("SchurForm-8")
    put(module, gains=np.array([1.0, 0.5, 1.5, -1.0]))
    penalty = module.penalty()
    assert penalty.shape == () and math.isclose(penalty.item(), 0.25 + 0.25 + 4.0, rel_tol=1e-14)
    penalty.backward()
    close(module.gains.grad, [0, -1, 1, -4])
    assert all(p.grad is None or not p.grad.any() for key, p in module.named_parameters() if key != "gains")


# -- refusals --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("build", "given"),
    [
        (lambda: Rotations(5), "5"),
        (lambda: Rotations(1), "1"),
        (lambda: Rotations(8, 3), "3"),
        (lambda: Rotations(8, 0), "0"),
        (lambda: Rotations(8, 10), "10"),
        (lambda: Rotations(6, layout="fft"), "6"),
        (lambda: Rotations(12, layout="fft"), "12"),
        (lambda: Rotations(8, layout="butterfly"), "butterfly"),
        (lambda: Householder(4, 5), "5"),
        (lambda: Householder(4, -1), "-1"),
        (lambda: ScaledCayley(4, negatives=5), "5"),
        (lambda: ScaledCayley(4, negatives=-1), "-1"),
        (lambda: SchurForm(7), "7"),
        (lambda: SchurForm(1), "1"),
        (lambda: SchurForm(4, upper="all"), "all"),
    ],
)
def test_what_a_design_does_not_admit_is_refused_in_a_sentence(build: Callable[[], object], given: str) -> None:
    with pytest.raises(UserError) as refusal:
        build()
    sentence = str(refusal.value)
    assert given in sentence and sentence.endswith(".") and len(sentence.split()) > 5
