"""sigma_min(z I - W) on points and grids, against closed forms, high precision and brute force (`tests.oracles`)."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import scipy.linalg
import scipy.optimize
import torch

from lit_rnn.analysis import (
    distance_to_instability,
    pseudospectral_abscissa,
    pseudospectral_radius,
    pseudospectrum,
    smallest_singular_values,
)
from tests.oracles.pseudospectra import FBCHAIN, GENERAL, NORMAL, POINTS, exact, fbchain_truth, sigma_jordan
from tests.oracles.spectra import Matrix, dense_sigma, gaussian, grcar, jordan, norm, rotated, shift
from tests.refusals import refusal

METHODS = ["lanczos", "svd"]
# what a backward stable method may lose: a modest multiple of the rounding unit times |z I - W|
FLOOR = 1e-14
each_general = pytest.mark.parametrize("name", GENERAL)
each_normal = pytest.mark.parametrize("name", NORMAL)


# -- sigma_min(z I - W) -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("eigenvalue", "c"), [(0.9, 1.0), (0.9, 0.1), (0.0, 10.0), (0.3 - 0.8j, 2.0), (-1.0, 1e-3)])
def test_jordan_2_in_closed_form(method: str, eigenvalue: complex, c: float) -> None:
    rng = np.random.default_rng(0)
    z = eigenvalue + rng.uniform(1e-3, 3, 40) * np.exp(2j * math.pi * rng.random(40))
    sigma = smallest_singular_values(jordan(2, eigenvalue, c), z, method=method)
    np.testing.assert_allclose(sigma, sigma_jordan(c, abs(z - eigenvalue)), rtol=1e-9, atol=FLOOR * (4 + c))


@pytest.mark.parametrize("method", METHODS)
def test_the_shift_at_the_published_point(method: str) -> None:
    assert float(smallest_singular_values(shift(10), 0.3 + 0.2j, method=method)) == pytest.approx(
        0.6399028852, abs=6e-11
    )


@pytest.mark.parametrize("method", METHODS)
def test_grcar_32_at_the_published_point(method: str) -> None:
    assert float(smallest_singular_values(grcar(32), 1 + 2j, method=method)) == pytest.approx(8.4544639e-4, abs=6e-12)


@each_normal
@pytest.mark.parametrize("method", METHODS)
def test_normal_matrices_the_distance_to_the_spectrum(name: str, method: str) -> None:
    W = NORMAL[name]
    rng = np.random.default_rng(1)
    z = rng.uniform(-1.5, 1.5, 25) + 1j * rng.uniform(-1.5, 1.5, 25)
    distance = np.abs(z[:, None] - np.linalg.eigvals(W)).min(1)
    # singular values in clusters: what an iteration finds hardest
    rtol = 1e-6 if method == "lanczos" else 1e-11
    np.testing.assert_allclose(smallest_singular_values(W, z, method=method), distance, rtol=rtol, atol=1e-13)


@each_general
@pytest.mark.parametrize("method", METHODS)
def test_dense_svd_everywhere(name: str, method: str) -> None:
    W = GENERAL[name]
    reach = norm(W) + 0.5
    z = reach * (np.linspace(-1, 1, 9) + 1j * np.linspace(-1, 1, 8)[:, None])
    sigma = smallest_singular_values(W, z, method=method)
    assert sigma.shape == z.shape
    np.testing.assert_allclose(
        sigma, dense_sigma(W, z), rtol=1e-6 if method == "lanczos" else 1e-10, atol=FLOOR * 3 * reach
    )


@pytest.mark.parametrize("n", [40, 100])
@pytest.mark.parametrize("complex_", [False, True])
def test_lanczos_on_large_matrices(n: int, complex_: bool) -> None:
    W = gaussian(n, 10, complex_)
    rng = np.random.default_rng(2)
    z = 1.6 * np.sqrt(rng.random(30)) * np.exp(2j * math.pi * rng.random(30))
    np.testing.assert_allclose(
        smallest_singular_values(W, z, method="lanczos"), dense_sigma(W, z), rtol=1e-6, atol=1e-13
    )


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    "W",
    [jordan(6), jordan(50), np.zeros((3, 3)), np.diag([1.0, 2.0, 3.0]), grcar(6)],
    ids=["jordan 6", "jordan 50", "zero", "diagonal", "grcar 6"],
)
def test_at_an_eigenvalue_it_is_zero(method: str, W: Matrix) -> None:
    """z I - T is singular to the last bit there: no division by zero, no NaN."""
    for z in np.diag(W) if np.array_equal(W, np.triu(W)) else np.linalg.eigvals(W):
        sigma = float(smallest_singular_values(W, z, method=method))
        assert 0 <= sigma <= FLOOR * (1 + norm(W))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("rank", [0, 1, 3, 29])
def test_at_an_eigenvalue_of_a_dense_singular_matrix(method: str, rank: int) -> None:
    """An eigenvalue of any multiplicity, its zeros in the Schur form rounded: still neither NaN nor infinite."""
    for seed in range(8):
        W = gaussian(30, 200 + seed)[:, :rank] @ gaussian(30, 300 + seed)[:rank]
        z = np.array([0.0, 1e-300, 1e-17, 1e-9, 1.0])
        sigma = smallest_singular_values(rotated(W, seed, complex_=bool(seed % 2)), z, method=method)
        np.testing.assert_allclose(sigma, dense_sigma(W, z), rtol=1e-6, atol=1e-13)
    projection = rotated(np.diag([1.0] * 5 + [0.0] * 5), 19)
    sigma = smallest_singular_values(projection, np.array([0.0, 1.0, 0.5]), method=method)
    np.testing.assert_allclose(sigma, [0, 0, 0.5], atol=1e-13)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("shape", [(), (1,), (5,), (3, 4), (2, 1, 3), (0,)])
def test_the_shape_is_that_of_z(method: str, shape: tuple[int, ...]) -> None:
    sigma = smallest_singular_values(grcar(5), np.full(shape, 0.5 + 1j), method=method)
    assert np.shape(sigma) == shape
    np.testing.assert_allclose(sigma, np.full(shape, dense_sigma(grcar(5), 0.5 + 1j)), rtol=1e-8)


@pytest.mark.parametrize("n", [2, 5, 20, 100])
@pytest.mark.parametrize("method", METHODS)
def test_a_nilpotent_block_is_below_the_power_of_z(n: int, method: str) -> None:
    z = np.array([0.2, 0.5j, -0.8, 0.9 * np.exp(1j), 0.99])
    assert (smallest_singular_values(jordan(n), z, method=method) <= abs(z) ** n * (1 + 1e-8) + 2 * FLOOR).all()


@each_general
@pytest.mark.parametrize("method", METHODS)
def test_invariant_under_unitary_similarity(name: str, method: str) -> None:
    W = GENERAL[name]
    z = np.array([0.0, 1.0, -0.5 + 0.7j, 1.5j])
    again = smallest_singular_values(rotated(W, 11), z, method=method)
    np.testing.assert_allclose(again, dense_sigma(W, z), rtol=1e-6, atol=10 * FLOOR * (2 + norm(W)))


@each_general
@pytest.mark.parametrize("method", METHODS)
def test_lipschitz_in_z(name: str, method: str) -> None:
    rng = np.random.default_rng(3)
    z = rng.standard_normal(20) + 1j * rng.standard_normal(20)
    step = 10.0 ** rng.uniform(-3, 0, 20) * np.exp(2j * math.pi * rng.random(20))
    both = [smallest_singular_values(GENERAL[name], point, method=method) for point in (z, z + step)]
    assert (abs(both[0] - both[1]) <= abs(step) + 2e-6 * both[0] + 1e-13).all()


@each_general
@pytest.mark.parametrize(("a", "b"), [(2.0, 0.0), (-1e-6, 0.0), (1e6, 3.0), (0.3 - 0.4j, 1 + 2j)])
@pytest.mark.parametrize("method", METHODS)
def test_scaling_and_shift(name: str, a: complex, b: complex, method: str) -> None:
    W = GENERAL[name]
    z = np.array([0.1, 0.8j, -1.2 + 0.3j])
    moved = smallest_singular_values(a * W + b * np.eye(len(W)), a * z + b, method=method)
    floor = 10 * FLOOR * (abs(a) * (2 + norm(W)) + abs(b))
    np.testing.assert_allclose(moved, abs(a) * dense_sigma(W, z), rtol=2e-6, atol=floor)


def test_a_small_float_type_does_not_lower_the_precision() -> None:
    """complex64 would give 1.8e-9 at a point where the truth is 4.05e-15 (a rotated Jordan block, n = 64)."""
    W = rotated(jordan(64, 0.5), 12, complex_=False)
    expected = exact(jordan(64, 0.5), 1.1)
    assert expected == pytest.approx(4.05e-15, rel=2e-3)
    for method in METHODS:
        assert float(smallest_singular_values(W, 1.1, method=method)) <= 3e-14
    half = torch.tensor([[0.5, 1.0], [0.0, 0.5]], dtype=torch.float32)
    z = np.array([0.5 + 1e-5])
    for method in METHODS:
        np.testing.assert_allclose(
            np.asarray(smallest_singular_values(half, z, method=method)), sigma_jordan(1.0, 1e-5), rtol=1e-4
        )


@pytest.mark.parametrize("method", METHODS)
def test_torch_and_numpy_integers_and_parameters(method: str) -> None:
    expected = dense_sigma(grcar(5), [0.5, 1j])
    for W in (
        grcar(5).astype(int),
        torch.tensor(grcar(5)),
        torch.nn.Parameter(torch.tensor(grcar(5), dtype=torch.float32)),
        torch.tensor(grcar(5), dtype=torch.complex64),
    ):
        sigma = np.asarray(smallest_singular_values(W, np.array([0.5, 1j]), method=method))
        np.testing.assert_allclose(sigma, expected, rtol=1e-8)


# -- fbchain(100): float64's eigenvalues are wrong, the pseudospectrum must not be -------------------------------------


@pytest.mark.parametrize("method", METHODS)
def test_fbchain_against_ball_arithmetic(method: str) -> None:
    truth = fbchain_truth()
    assert truth[0] < 1e-25 and truth[2] < 1e-12 and truth[7] > 0.1, "the points should span the floor"
    sigma = smallest_singular_values(FBCHAIN, POINTS, method=method)
    np.testing.assert_allclose(sigma, truth, rtol=1e-6, atol=3 * FLOOR)


@pytest.mark.parametrize("eps", [1e-8, 1e-6, 1e-4, 1e-2, 0.1])
def test_fbchain_radius_and_abscissa(eps: float) -> None:
    """For W >= 0 the resolvent is largest on the positive axis, so that both are the root of one scalar equation."""
    root = scipy.optimize.brentq(lambda r: math.log(dense_sigma(FBCHAIN, r) / eps), 0.6, 1.3, xtol=1e-13)
    assert exact(FBCHAIN, root) == pytest.approx(eps, rel=1e-5)
    assert pseudospectral_radius(FBCHAIN, eps) == pytest.approx(root, abs=1e-8)
    assert pseudospectral_abscissa(FBCHAIN, eps) == pytest.approx(root, abs=1e-8)


def test_fbchain_distance_to_instability() -> None:
    beta = fbchain_truth()[list(POINTS).index(1.0)]
    assert distance_to_instability(FBCHAIN) == pytest.approx(beta, rel=1e-8)


# -- the grid ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["gaussian 5", "complex gaussian 12", "grcar 10", "i grcar 8", "1x1 complex"])
@pytest.mark.parametrize(
    "box", [(-1.0, 2.0, -0.5, 1.5), (-1.0, 1.0, 0.1, 0.9), (-2.0, 2.0, -2.0, 2.0), (0.0, 1.0, -3.0, -1.0)]
)
@pytest.mark.parametrize("points", [7, 10])
def test_pseudospectrum_is_sigma_at_x_and_i_y(name: str, box: tuple[float, float, float, float], points: int) -> None:
    """Real matrices are symmetric about the real axis, boxes need not be."""
    W = GENERAL[name]
    grid = pseudospectrum(W, points=points, box=box)
    x, y, sigma = grid
    assert grid.x is x and grid.y is y and grid.sigma is sigma
    np.testing.assert_allclose(x, np.linspace(box[0], box[1], points), atol=1e-14)
    np.testing.assert_allclose(y, np.linspace(box[2], box[3], points), atol=1e-14)
    z = np.array([[re + 1j * im for re in x] for im in y])
    np.testing.assert_allclose(sigma, dense_sigma(W, z), rtol=1e-6, atol=1e-13)


@each_general
def test_the_box_found_by_itself_holds_the_spectrum(name: str) -> None:
    W = GENERAL[name]
    x, y, sigma = pseudospectrum(W, points=12)
    assert sigma.shape == (len(y), len(x)) == (12, 12)
    assert (np.diff(x) > 0).all() and (np.diff(y) > 0).all()
    eigenvalues = np.linalg.eigvals(W)
    assert x[0] < eigenvalues.real.min() and eigenvalues.real.max() < x[-1]
    assert y[0] < eigenvalues.imag.min() and eigenvalues.imag.max() < y[-1]
    np.testing.assert_allclose(sigma, dense_sigma(W, x + 1j * y[:, None]), rtol=1e-6, atol=1e-13)


def test_the_union_of_disks_of_a_cyclic_shift() -> None:
    x, y, sigma = pseudospectrum(shift(8), points=41, box=(-1.5, 1.5, -1.5, 1.5))
    eigenvalues = np.exp(2j * math.pi * np.arange(8) / 8)
    distance = abs((x + 1j * y[:, None])[..., None] - eigenvalues).min(-1)
    for eps in (0.05, 0.2, 0.5):
        away = abs(distance - eps) > 1e-6
        assert ((sigma <= eps) == (distance <= eps))[away].all()


def test_pseudospectrum_of_fbchain_on_a_grid() -> None:
    x, y, sigma = pseudospectrum(FBCHAIN, points=9, box=(-1.2, 1.2, -1.2, 1.2))
    np.testing.assert_allclose(sigma, dense_sigma(FBCHAIN, x + 1j * y[:, None]), rtol=1e-6, atol=3 * FLOOR)
    for i, j in ((0, 4), (1, 6), (4, 4), (4, 8)):
        assert sigma[i, j] == pytest.approx(exact(FBCHAIN, x[j] + 1j * y[i]), rel=1e-6, abs=3 * FLOOR)


# -- bad input --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("eps", [-0.1, -1e-300, math.nan, math.inf])
@pytest.mark.parametrize("function", [pseudospectral_radius, pseudospectral_abscissa])
def test_bad_levels_are_refused(function: Callable[..., float], eps: float) -> None:
    refusal(lambda: function(np.eye(2), eps), "eps")


def test_bad_points_boxes_and_methods_are_refused() -> None:
    refusal(lambda: smallest_singular_values(np.eye(2), np.array([math.nan])), "z")
    refusal(lambda: smallest_singular_values(np.eye(2), np.array([1.0]), method="power"), "method")
    refusal(lambda: pseudospectrum(np.eye(2), points=0), "points")
    refusal(lambda: pseudospectrum(np.eye(2), points=-3), "points")
    for box in ((1.0, -1.0, 0.0, 1.0), (0.0, 1.0, 2.0, 2.0), (0.0, math.nan, 0.0, 1.0), (0.0, 1.0)):
        refusal(lambda box=box: pseudospectrum(np.eye(2), points=3, box=box), "box")
