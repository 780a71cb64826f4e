"""Real products: Householder reflections beside LAPACK's own, plane rotations, and the Schur form around them."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy import linalg, stats
from torch import Tensor, nn

from lit_rnn.init import cayley_, henaff_
from lit_rnn.parametrizations import Exponential, Householder, Rotations, SchurForm
from tests.oracles.maps import FFT, angles_of, householder_dense, random_orthogonal, random_unitary, reflection
from tests.oracles.modules import close, fill, numbers, put, value

F64 = torch.float64


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


@pytest.mark.parametrize("unitary", [False, True])
def test_as_many_layers_as_units_reach_any_matrix(unitary: bool) -> None:
    """SO(n) or U(n): their image is closed, and dense (Clements et al. 2016, for a rectangle of rotations of pairs)."""
    n = 4
    target = torch.from_numpy(random_unitary(n, seed=1) if unitary else random_orthogonal(n, seed=1, det=1))
    torch.manual_seed(0)
    module = Rotations(n, n, unitary=unitary).double()
    optimizer = torch.optim.LBFGS(
        module.parameters(), max_iter=200, tolerance_grad=1e-12, tolerance_change=0.0, line_search_fn="strong_wolfe"
    )

    def distance() -> Tensor:
        optimizer.zero_grad()
        squared = (module() - target).abs().square().sum()
        squared.backward()
        return squared

    optimizer.step(distance)
    assert distance() < 1e-20


@pytest.mark.parametrize("number", range(12))
def test_one_angle_of_the_butterfly_turns_one_pair(number: int) -> None:
    i, j = [pair for layer in FFT[8] for pair in layer][number]
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
    module = fill(SchurForm(8).double(), seed=1)
    p = numbers(module)
    expected = p["gains"] * np.exp(1j * p["angles"])
    found = linalg.eigvals(value(module))
    for eigenvalue in np.concatenate([expected, expected.conj()]):
        assert np.abs(found - eigenvalue).min() < 1e-9
    with torch.no_grad():
        module.upper.zero_()
    normal = value(module)
    close(normal @ normal.T, normal.T @ normal)
    W = value(fill(SchurForm(8).double(), seed=1))
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
    module = fill(SchurForm(8).double())
    put(module, gains=np.array([1.0, 0.5, 1.5, -1.0]))
    penalty = module.penalty()
    assert penalty.shape == () and math.isclose(penalty.item(), 0.25 + 0.25 + 4.0, rel_tol=1e-14)
    penalty.backward()
    close(module.gains.grad, [0, -1, 1, -4])
    assert all(p.grad is None or not p.grad.any() for key, p in module.named_parameters() if key != "gains")
