"""Eigenvalues, norms and numerical ranges against closed forms; where float64 is fiction, too.

The tridiagonal Toeplitz matrix with `a` below and `b` above the diagonal has eigenvalues
2 sqrt(ab) cos(pi j / (n + 1)),
numerical radius (a + b) cos(pi / (n + 1)) and eigenvectors of condition (a / b)^((n - 1) / 2): float64 loses them all.
"""

import math
import warnings
from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy import linalg, optimize

from datamodules.errors import UserError
from lit_rnn.analysis import (
    IllConditionedWarning,
    eigenvalue_condition_numbers,
    eigenvalues,
    eigenvalues_trusted,
    eigenvector_condition,
    numerical_radius,
    numerical_range,
    singular_values,
    spectral_norm,
    spectral_radius,
    transient_growth,
)
from tests.oracles.spectra import chain, gaussian, grcar, jordan, rotation, unitary

N = 100
SIZES = [1, 2, 3, 7, 25, 100]


def spectrum_distance(a: np.ndarray, b: np.ndarray) -> float:
    """The largest distance in the best pairing of two multisets."""
    a, b = np.asarray(a), np.asarray(b)
    assert a.shape == b.shape
    cost = abs(a[:, None] - b[None, :])
    return float(cost[optimize.linear_sum_assignment(cost)].max())


def toeplitz_eigenvalues(n: int, alpha: float, beta: float) -> np.ndarray:
    return 2 * math.sqrt(alpha * beta) * np.cos(np.pi * np.arange(1, n + 1) / (n + 1))


# -- eigenvalues -----------------------------------------------------------------------------------


@pytest.mark.parametrize("precision", ["auto", "high"])
@pytest.mark.parametrize(("alpha", "beta"), [(0.99, 0.04), (0.99, 0.01), (1.05, 0.07)])
def test_feedback_chain_has_its_true_eigenvalues(alpha: float, beta: float, precision: str) -> None:
    W, true = chain(40, alpha, beta), toeplitz_eigenvalues(40, alpha, beta)
    found = eigenvalues(W, precision=precision)
    assert found.shape == (40,)
    assert spectrum_distance(found, true) < 1e-8
    assert spectrum_distance(eigenvalues(W.T, precision=precision), true) < 1e-8


def test_a_stronger_feedback_chain_needs_more_than_256_bits() -> None:
    """Condition 99000^29.5, or 489 bits."""
    W = chain(60, 0.99, 1e-5)
    assert spectrum_distance(eigenvalues(W), toeplitz_eigenvalues(60, 0.99, 1e-5)) < 1e-8


def test_spectral_radius_of_the_feedback_chain() -> None:
    found = spectral_radius(chain(N, 0.99, 0.04))
    assert found == pytest.approx(2 * math.sqrt(0.99 * 0.04) * math.cos(math.pi / (N + 1)), abs=1e-8)
    assert found == pytest.approx(0.3978, abs=5e-5)


@pytest.mark.parametrize("call", [eigenvalues, spectral_radius])
def test_double_precision_warns_of_fiction(call: Callable[..., object]) -> None:
    assert issubclass(IllConditionedWarning, UserWarning)
    with pytest.warns(IllConditionedWarning):
        call(chain(N, 0.99, 0.04), precision="double")


@pytest.mark.parametrize("precision", ["auto", "double", "high"])
@pytest.mark.parametrize("complex_", [False, True])
def test_well_conditioned_matrices_agree_in_every_precision_without_a_warning(precision: str, complex_: bool) -> None:
    W = gaussian(24, 3, complex_)
    assert spectrum_distance(eigenvalues(W, precision=precision), np.linalg.eigvals(W)) < 1e-11
    assert spectral_radius(W, precision=precision) == pytest.approx(abs(np.linalg.eigvals(W)).max(), abs=1e-11)


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("complex_", [False, True])
def test_a_unitary_matrix_has_eigenvalues_on_the_circle(n: int, complex_: bool) -> None:
    Q = unitary(n, n, complex_)
    found = eigenvalues(0.95 * Q)
    np.testing.assert_allclose(abs(found), 0.95, atol=1e-12)
    assert np.prod(found) == pytest.approx(np.linalg.det(0.95 * Q), abs=1e-12)
    assert spectral_radius(0.95 * Q) == pytest.approx(0.95, abs=1e-12)


@pytest.mark.parametrize("n", [1, 2, 5, 30, 100])
def test_the_chain_is_nilpotent(n: int) -> None:
    assert spectral_radius(chain(n, 1.02)) == pytest.approx(0, abs=1e-8)


@pytest.mark.parametrize("n", [1, 2, 9, 40])
@pytest.mark.parametrize("complex_", [False, True])
def test_scaling_shift_and_trace(n: int, complex_: bool) -> None:
    W = gaussian(n, 10 + n, complex_)
    a, b = 0.7 - 0.4j, -1.3 + 0.2j
    found = eigenvalues(W)
    assert np.iscomplexobj(found)
    assert found.sum() == pytest.approx(np.trace(W), abs=1e-11)
    assert (found**2).sum() == pytest.approx(np.trace(W @ W), abs=1e-10)
    assert spectrum_distance(eigenvalues(a * W + b * np.eye(n)), a * found + b) < 1e-10
    U = unitary(n, 5, complex_)
    assert spectrum_distance(eigenvalues(U @ W @ U.conj().T), found) < 1e-10


@pytest.mark.parametrize(("n", "radius"), [(10, 2.1384430828), (32, 2.2494477765)])
def test_spectral_radius_of_grcar(n: int, radius: float) -> None:
    assert spectral_radius(grcar(n)) == pytest.approx(radius, abs=6e-11)


# -- trust -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_rotated_jordan_block_is_not_trusted(seed: int) -> None:
    Q = unitary(64, seed)
    W = Q @ jordan(64, 0.5, 1.0) @ Q.T
    assert abs(np.linalg.eigvals(W) - 0.5).max() > 0.3  # the fiction that must not pass
    assert eigenvalues_trusted(W) is False


@pytest.mark.parametrize("beta", [0.01, 0.04])
def test_the_feedback_chain_is_not_trusted(beta: float) -> None:
    assert eigenvalues_trusted(chain(N, 0.99, beta)) is False


@pytest.mark.parametrize(
    "W",
    [
        gaussian(50, 1),
        gaussian(50, 2, True),
        unitary(50, 3),
        np.diag(np.linspace(-1, 1, 20)),
        grcar(32),  # kappa(V) ~ 1e5
        np.eye(8),
        np.zeros((5, 5)),
        np.array([[0.3]]),
        np.array([[0.9, 1.0], [0.0, 0.8]]),
    ],
    ids=["ginibre", "complex", "orthogonal", "diagonal", "grcar", "identity", "zero", "1x1", "2x2"],
)
def test_honest_matrices_are_trusted(W: np.ndarray) -> None:
    assert eigenvalues_trusted(W) is True


# -- conditioning ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("a", "b", "c", "kappa"),
    [(1.0, 0.5, 3.0, 12.0827625303), (0.9, 0.8, 1.0, 20.0498756211), (0.5, 1.0, -3.0, 6 + math.sqrt(37))],
)
def test_eigenvector_condition_of_two_by_two(a: float, b: float, c: float, kappa: float) -> None:
    W = np.array([[a, c], [0, b]])
    t = abs(c / (a - b))
    assert eigenvector_condition(W) == pytest.approx(kappa, rel=1e-10)
    assert eigenvector_condition(W) == pytest.approx(t + math.sqrt(1 + t * t), rel=1e-10)
    np.testing.assert_allclose(eigenvalue_condition_numbers(W), math.sqrt(1 + t * t), rtol=1e-10)


def test_eigenvector_condition_of_grcar() -> None:
    assert eigenvector_condition(grcar(32)) == pytest.approx(9.80e4, rel=5e-3)


@pytest.mark.parametrize(
    "W",
    [np.diag([1.0, -2.0, 0.5]), 0.9 * rotation(math.radians(60)), np.roll(np.eye(10), 1, axis=0), unitary(20, 1, True)],
)
def test_normal_matrices_are_perfectly_conditioned(W: np.ndarray) -> None:
    assert eigenvector_condition(W) == pytest.approx(1, abs=1e-10)
    np.testing.assert_allclose(eigenvalue_condition_numbers(W), 1, atol=1e-10)


@pytest.mark.parametrize("values", [[1.0] * 6 + [-1.0] * 6, [1j] * 4 + [0.5] * 8, [0.7] * 11 + [0.2]])
def test_a_repeated_eigenvalue_does_not_make_a_normal_matrix_worse(values: list[complex]) -> None:
    """LAPACK's eigenvectors of it are not orthogonal: 20 for products of two reflections, n = 32."""
    Q = unitary(12, 1, True)
    W = (Q * np.array(values)) @ Q.conj().T
    assert eigenvector_condition(W) == 1
    np.testing.assert_array_equal(eigenvalue_condition_numbers(W), 1)
    noisy = W + 1e-7 * np.random.default_rng(0).standard_normal((12, 12))
    assert eigenvector_condition(noisy) > 1.5
    assert eigenvector_condition(noisy, precision=1.2e-7) == 1
    bound = transient_growth(noisy, 3, precision=1.2e-7).eigenvector
    assert bound == pytest.approx(spectral_radius(noisy) ** np.arange(4))  # by that condition, too
    assert eigenvector_condition([[0.9, 1.0], [0.0, 0.8]], precision=1.2e-7) == pytest.approx(20.0498756211)


@pytest.mark.parametrize("n", [2, 3, 8])
@pytest.mark.parametrize("value", [0.0, 1.0, 0.5j])
def test_a_defective_matrix_has_no_eigenvector_basis(n: int, value: complex) -> None:
    W = jordan(n, value, 1.0)
    assert eigenvector_condition(W) > 1e8
    assert (eigenvalue_condition_numbers(W) > 1e7).all()


def test_condition_numbers_follow_the_order_of_the_eigenvalues() -> None:
    W = linalg.block_diag([[1.0, 3.0], [0.0, 0.5]], [[-2.0]], [[3.0, 1.0], [0.0, 2.0]])
    U = unitary(5, 9)
    expected = {1.0: math.sqrt(37), 0.5: math.sqrt(37), -2.0: 1.0, 3.0: math.sqrt(2), 2.0: math.sqrt(2)}
    values, conditions = eigenvalues(U @ W @ U.T), eigenvalue_condition_numbers(U @ W @ U.T)
    assert conditions.shape == values.shape
    for value, condition in expected.items():
        assert conditions[abs(values - value).argmin()] == pytest.approx(condition, rel=1e-9)


@pytest.mark.parametrize("n", [2, 12])
@pytest.mark.parametrize("complex_", [False, True])
def test_condition_number_is_the_first_order_growth(n: int, complex_: bool) -> None:
    """No perturbation of norm 1e-7 moves an eigenvalue by more than condition x 1e-7, to second order."""
    W = gaussian(n, 21, complex_)
    values, conditions = eigenvalues(W), eigenvalue_condition_numbers(W)
    assert (conditions >= 1 - 1e-12).all()
    worst = np.zeros(n)
    L, R = linalg.eig(W, left=True, right=True)[1:]
    for k in range(n):  # the steepest perturbation of each eigenvalue is y x^*
        E = 1e-7 * np.outer(L[:, k], R[:, k].conj()) / np.linalg.norm(L[:, k]) / np.linalg.norm(R[:, k])
        moved = np.linalg.eigvals(W + E)
        worst = np.maximum(worst, abs(values[:, None] - moved[None, :]).min(axis=1))
    np.testing.assert_allclose(worst, conditions * 1e-7, rtol=1e-4)


# -- power method ----------------------------------------------------------------------------------

S = np.array([[1.0, 5.0], [0.0, 1.0]])


@pytest.mark.parametrize("degrees", [60.0, 90.0, 180.0, 0.0, 37.0])
@pytest.mark.parametrize("r", [0.9, 2.0])
def test_power_method_on_a_rotation_does_not_fall_for_the_rayleigh_quotient(r: float, degrees: float) -> None:
    W = r * rotation(math.radians(degrees))
    assert spectral_radius(W, method="power") == pytest.approx(r, rel=1e-9)
    assert spectral_radius(W, method="eig") == pytest.approx(r, rel=1e-12)


@pytest.mark.parametrize("degrees", [60.0, 90.0])
def test_power_method_on_a_skewed_rotation(degrees: float) -> None:
    W = S @ (0.9 * rotation(math.radians(degrees))) @ np.linalg.inv(S)
    assert spectral_radius(W, method="power") == pytest.approx(0.9, rel=1e-9)


@pytest.mark.parametrize("seed", [0, 2, 5])
def test_power_method_finds_a_complex_pair(seed: int) -> None:
    W = gaussian(64, seed)
    values = np.linalg.eigvals(W)
    values = values[np.argsort(-abs(values))]
    assert abs(values[0].imag) > 0.05  # a complex pair leads, clear of the third
    assert abs(values[2]) < 0.975 * abs(values[0])
    assert spectral_radius(W, method="power") == pytest.approx(abs(values[0]), rel=1e-6)


@pytest.mark.parametrize(
    ("W", "radius"),
    [
        (np.diag([1.0, -1.0, 0.3]), 1.0),
        (np.diag([0.9, 0.5, 0.1]), 0.9),
        (np.zeros((4, 4)), 0.0),
        (np.eye(6), 1.0),
        (np.array([[-0.7]]), 0.7),
        (np.diag([0.5j, 0.2, -0.1]), 0.5),
        (chain(12, 1.0), 0.0),
    ],
    ids=["tie", "diagonal", "zero", "identity", "1x1", "complex", "nilpotent"],
)
def test_power_method_on_small_cases(W: np.ndarray, radius: float) -> None:
    assert spectral_radius(W, method="power") == pytest.approx(radius, abs=1e-8)


@pytest.mark.parametrize("coupling", [1e3, 1e6, 1e9])
def test_power_method_does_not_stop_early_far_from_normal(coupling: float) -> None:
    """The coupling of units 2 and 3 to unit 1 is no part of any eigenvalue: 0.9, and 0.918 and -0.218 of theirs."""
    W = np.array([[0.9, coupling, 0.0], [0.0, 0.5, 1.0], [0.0, 0.3, 0.2]])
    exact = (0.7 + math.sqrt(0.49 + 0.8)) / 2
    condition = eigenvalue_condition_numbers(W).max()
    assert spectral_radius(W, method="power") == pytest.approx(exact, rel=1e-11 * condition)


def test_power_method_is_never_silently_wrong_when_no_pair_dominates() -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            found = spectral_radius(unitary(20, 2), method="power")
        except UserError:
            return
    assert caught or found == pytest.approx(1, abs=1e-2)


# -- norms -----------------------------------------------------------------------------------------


def test_norms_of_grcar() -> None:
    assert spectral_norm(grcar(10)) == pytest.approx(3.1066470623, abs=6e-11)
    assert np.linalg.norm(singular_values(grcar(10))) == pytest.approx(math.sqrt(43), abs=1e-12)
    assert np.linalg.norm(singular_values(grcar(32))) == pytest.approx(math.sqrt(153), abs=1e-12)


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("complex_", [False, True])
def test_singular_values_are_those_of_the_gram_matrix(n: int, complex_: bool) -> None:
    W = gaussian(n, 40 + n, complex_)
    found = singular_values(W)
    assert (np.diff(found) <= 0).all()
    np.testing.assert_allclose(found**2, np.linalg.eigvalsh(W.conj().T @ W)[::-1], atol=1e-12)
    assert spectral_norm(W) == pytest.approx(found[0], rel=1e-12)


def test_radius_and_norm_are_two_things() -> None:
    W = np.array([[1.0, 7.0], [0.0, 1.0]])
    assert spectral_radius(W) == pytest.approx(1, abs=1e-7)
    assert spectral_norm(W) == pytest.approx((7 + math.sqrt(53)) / 2, rel=1e-12)


# -- numerical range -------------------------------------------------------------------------------


@pytest.mark.parametrize(("value", "c"), [(0.9, 1.0), (0.9, 0.1), (0.0, 10.0), (-0.4, 1.0), (0.9 * np.exp(0.7j), 1.0)])
def test_numerical_range_of_a_jordan_pair_is_a_disk(value: complex, c: float) -> None:
    W = jordan(2, value, c)
    assert numerical_radius(W) == pytest.approx(abs(value) + c / 2, rel=1e-8)
    boundary = numerical_range(W)
    np.testing.assert_allclose(abs(boundary - value), c / 2, rtol=1e-8)
    angles = np.sort(np.angle(boundary - value))
    assert np.diff(angles).max() < 3 * 2 * math.pi / 200  # all the way round


@pytest.mark.parametrize("n", [2, 4, 10, 32, 100])
@pytest.mark.parametrize("c", [1.0, 2.5])
def test_numerical_range_of_a_nilpotent_jordan_block_is_a_disk(n: int, c: float) -> None:
    radius = c * math.cos(math.pi / (n + 1))
    assert numerical_radius(jordan(n, 0, c)) == pytest.approx(radius, rel=1e-8)
    np.testing.assert_allclose(abs(numerical_range(jordan(n, 0, c), points=12)), radius, rtol=1e-8)


@pytest.mark.parametrize("beta", [0.0, 0.04, 0.5])
def test_numerical_radius_of_the_feedback_chain(beta: float) -> None:
    assert numerical_radius(chain(N, 0.99, beta)) == pytest.approx((0.99 + beta) * math.cos(math.pi / 101), rel=1e-8)


@pytest.mark.parametrize(("n", "radius"), [(10, 2.8430), (32, 3.1883)])
def test_numerical_radius_of_grcar(n: int, radius: float) -> None:
    assert numerical_radius(grcar(n)) == pytest.approx(radius, abs=5.1e-5)


@pytest.mark.parametrize(
    "W",
    [unitary(15, 1), unitary(9, 2, True) * 0.8, np.diag([1.0, -2.0, 0.4]), np.roll(np.eye(10), 1, axis=0), np.eye(1)],
)
def test_numerical_radius_of_a_normal_matrix_is_its_spectral_radius(W: np.ndarray) -> None:
    assert numerical_radius(W) == pytest.approx(abs(np.linalg.eigvals(W)).max(), rel=1e-8)


@pytest.mark.parametrize("seed", [0, 2])
def test_numerical_radius_of_many_corners_at_nearly_the_same_distance(seed: int) -> None:
    """None of which lies in a direction of the grid, where the farthest has not the largest support."""
    random = np.random.default_rng(seed)
    corners = (1 - 2e-4 * random.random(50)) * np.exp(2j * np.pi * (np.arange(50) + 0.3 * random.random(50)) / 50)
    assert numerical_radius(np.diag(corners)) == pytest.approx(abs(corners).max(), rel=1e-12)


def test_numerical_radius_of_a_permutation() -> None:
    """Multiple eigenvalues, at which LAPACK's search for the largest one alone can fail."""
    for seed in (21, 28):
        assert numerical_radius(np.eye(15)[np.random.default_rng(seed).permutation(15)]) == pytest.approx(1, rel=1e-8)


def test_numerical_range_of_a_hermitian_matrix_is_a_segment() -> None:
    W = np.diag([-1.5, 0.2, 2.0])
    boundary = numerical_range(W)
    np.testing.assert_allclose(boundary.imag, 0, atol=1e-12)
    assert boundary.real.min() == pytest.approx(-1.5, abs=1e-12)
    assert boundary.real.max() == pytest.approx(2.0, abs=1e-12)


@pytest.mark.parametrize("points", [16, 200])
def test_numerical_range_has_as_many_points_as_asked(points: int) -> None:
    boundary = numerical_range(gaussian(6, 1), points=points)
    assert np.iscomplexobj(boundary)
    assert boundary.ndim == 1
    assert len(boundary) in (points, points + 1)


@pytest.mark.parametrize("n", [2, 8, 30])
@pytest.mark.parametrize("complex_", [False, True])
def test_numerical_range_is_touched_but_never_left(n: int, complex_: bool) -> None:
    """Every boundary point obeys every supporting line, some point touches each, and x*Wx never crosses one."""
    W = gaussian(n, 60 + n, complex_)
    boundary = numerical_range(W, points=400)
    rng = np.random.default_rng(0)
    X = rng.standard_normal((n, 50)) + 1j * rng.standard_normal((n, 50))
    X /= np.linalg.norm(X, axis=0)
    inside = np.concatenate([np.einsum("ik,ij,jk->k", X.conj(), W, X), np.linalg.eigvals(W)])
    for angle in np.linspace(0, 2 * math.pi, 23):
        turn = np.exp(1j * angle)
        support = np.linalg.eigvalsh((turn * W + (turn * W).conj().T) / 2)[-1]
        reached = (turn * boundary).real.max()
        assert support - 1e-3 * spectral_norm(W) < reached < support + 1e-10
        assert (turn * inside).real.max() < support + 1e-10
        assert numerical_radius(W) > support - 1e-10
    assert numerical_radius(W) == pytest.approx(abs(boundary).max(), rel=1e-3)


@pytest.mark.parametrize("n", [1, 2, 10, 40])
@pytest.mark.parametrize("complex_", [False, True])
def test_radius_inequalities(n: int, complex_: bool) -> None:
    for W in (gaussian(n, n, complex_), np.triu(gaussian(n, n + 1, complex_)), chain(n, 1.02, 0.3)):
        rho, w, norm = spectral_radius(W), numerical_radius(W), spectral_norm(W)
        assert norm / 2 <= w * (1 + 1e-9)
        assert w <= norm * (1 + 1e-9)
        assert rho <= w * (1 + 1e-7) + 1e-9
        assert numerical_radius(W @ W) <= w**2 * (1 + 1e-7) + 1e-12  # Berger


def test_crouzeix() -> None:
    """||p(W)|| <= (1 + sqrt 2) max |p| over the numerical range."""
    rng = np.random.default_rng(0)
    for seed in range(5):
        W = np.triu(gaussian(8, seed, True), 1) + 0.1 * gaussian(8, seed + 50)
        p = np.poly1d(rng.standard_normal(6))
        value = sum(c * np.linalg.matrix_power(W, k) for k, c in enumerate(p.coeffs[::-1]))
        assert np.linalg.norm(value, 2) <= (1 + math.sqrt(2)) * 1.01 * abs(p(numerical_range(W))).max()


# -- arrays in and out -----------------------------------------------------------------------------

CALLS: list[Callable[..., object]] = [
    eigenvalues,
    eigenvalues_trusted,
    spectral_radius,
    spectral_norm,
    singular_values,
    numerical_radius,
    numerical_range,
    eigenvalue_condition_numbers,
    eigenvector_condition,
]


def name(call: Callable[..., object]) -> str:
    return call.__name__


@pytest.mark.parametrize("call", [eigenvalues, spectral_radius])
def test_unknown_options_are_refused(call: Callable[..., object]) -> None:
    with pytest.raises(UserError, match="quadruple"):
        call(np.eye(3), precision="quadruple")
    with pytest.raises(UserError, match="guess"):
        spectral_radius(np.eye(3), method="guess")
    with pytest.raises(UserError, match="angles"):
        numerical_radius(np.eye(3), angles=0)


@pytest.mark.parametrize("call", CALLS, ids=name)
def test_torch_parameters_integers_and_numpy_give_the_same(call: Callable[..., object]) -> None:
    W = grcar(10)
    expected = call(W)
    kept = W.copy()
    for other in (
        torch.tensor(W, dtype=torch.float32),
        torch.nn.Parameter(torch.tensor(W)),
        torch.tensor(W, dtype=torch.bfloat16),
        torch.tensor(W, dtype=torch.complex64),
        W.astype(int),
        W.astype(np.float32),
        np.asfortranarray(W),
    ):
        found = call(other)
        assert type(found) is type(expected)
        # matched as multisets: a complex copy may come in another order
        np.testing.assert_allclose(
            np.sort_complex(np.round(np.atleast_1d(found).astype(complex), 9)),  # type: ignore[call-overload]
            np.sort_complex(np.round(np.atleast_1d(expected).astype(complex), 9)),  # type: ignore[call-overload]
            atol=1e-8,
        )
    np.testing.assert_array_equal(W, kept)


def test_results_are_plain_double_precision() -> None:
    W = torch.nn.Parameter(torch.randn(5, 5))
    for value in (spectral_radius(W), spectral_norm(W), numerical_radius(W), eigenvector_condition(W)):
        assert isinstance(value, float)
    assert eigenvalues(W).dtype == np.complex128
    assert numerical_range(W).dtype == np.complex128
    assert singular_values(W).dtype == np.float64
    assert eigenvalue_condition_numbers(W).dtype == np.float64
