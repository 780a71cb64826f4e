"""Pseudospectra against closed forms, high precision and brute force.

Nothing here uses the functions under test to judge them. Three oracles:

- closed forms, for 2 x 2 and nilpotent Jordan blocks, normal matrices and unitarily rotated direct sums of them;
- sigma_min(z I - W) = 1 / |(z I - W)^-1|, inverted in ball arithmetic: right to all digits where float64 has none;
- the smallest singular value over a whole circle |z| = r, or a line Re z = x. By the maximum principle it grows
  strictly with r > rho (x > alpha), so that it equals eps at the pseudospectral radius (abscissa) and nowhere else.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import flint
import numpy as np
import pytest
import scipy.linalg
import scipy.optimize
import torch
from numpy.typing import NDArray

from datamodules import UserError
from lit_rnn.analysis import (
    distance_to_instability,
    kreiss_lower_bound,
    pseudospectral_abscissa,
    pseudospectral_radius,
    pseudospectrum,
    smallest_singular_values,
)

Matrix = NDArray[Any]

METHODS = ["lanczos", "svd"]
# what a backward stable method may lose: a modest multiple of the rounding unit times |z I - W|
FLOOR = 1e-14


# -- matrices ---------------------------------------------------------------------------------------------------------


def jordan(n: int, eigenvalue: complex = 0.0, coupling: complex = 1.0) -> Matrix:
    return eigenvalue * np.eye(n) + coupling * np.eye(n, k=1)


def grcar(n: int) -> Matrix:
    return np.tri(n, k=3) - np.tri(n, k=-1) - np.eye(n, k=-1)


def shift(n: int) -> Matrix:
    return np.roll(np.eye(n), 1, axis=0)


def fbchain(n: int, alpha: float = 0.99, beta: float = 0.04) -> Matrix:
    return alpha * np.eye(n, k=-1) + beta * np.eye(n, k=1)


def gaussian(n: int, seed: int, complex_: bool = False) -> Matrix:
    rng = np.random.default_rng(seed)
    W = rng.standard_normal((n, n))
    if complex_:
        W = (W + 1j * rng.standard_normal((n, n))) / math.sqrt(2)
    return W / math.sqrt(n)


def unitary(n: int, seed: int, complex_: bool = False) -> Matrix:
    Q, R = np.linalg.qr(gaussian(n, seed, complex_))
    return Q * (np.diag(R) / np.abs(np.diag(R)))


def rotated(A: Matrix, seed: int, complex_: bool = True) -> Matrix:
    Q = unitary(len(A), seed, complex_)
    return Q @ A @ Q.conj().T


def nonnegative(n: int, seed: int, radius: float) -> Matrix:
    W = np.random.default_rng(seed).random((n, n)) ** 4
    return W * radius / np.abs(np.linalg.eigvals(W)).max()


def triangular(n: int, seed: int) -> Matrix:
    """Strongly non-normal and stable."""
    rng = np.random.default_rng(seed)
    return np.diag(rng.uniform(-0.8, 0.8, n)) + np.triu(rng.standard_normal((n, n)), 1) / math.sqrt(n)


# spectra, sizes and degrees of non-normality of many kinds; each is small enough for brute force
GENERAL: dict[str, Matrix] = {
    "1x1": np.array([[-0.7]]),
    "1x1 complex": np.array([[0.3 - 0.4j]]),
    "gaussian 2": gaussian(2, 0),
    "gaussian 5": gaussian(5, 1),
    "gaussian 20": gaussian(20, 2),
    "complex gaussian 3": gaussian(3, 3, True),
    "complex gaussian 12": gaussian(12, 4, True),
    "triangular 8": triangular(8, 5),
    "triangular 15": triangular(15, 6),
    "grcar 10": grcar(10),
    "i grcar 8": 1j * grcar(8),
    "defective pair": scipy.linalg.block_diag(jordan(3, 0.5j, 2.0), jordan(2, -0.6, 1.0)),
    "rank one": np.outer(np.arange(1.0, 7.0), [1.0, -1.0, 2.0, 0.5, 0.0, -0.3]) / 10,
    "real rotation and shear": scipy.linalg.block_diag([[0.0, -0.9], [0.9, 0.0]], [[0.2, 3.0], [0.0, 0.1]]),
    "companion": np.eye(6, k=-1) + np.outer(np.eye(6)[0], [0.3, -0.2, 0.5, 0.1, -0.4, 0.6]),
}
each_general = pytest.mark.parametrize("name", GENERAL)


# -- oracles ----------------------------------------------------------------------------------------------------------


def spectral_norm(W: Matrix) -> float:
    return float(np.linalg.svd(W, compute_uv=False)[0])


def dense(W: Matrix, z: Any) -> NDArray[np.float64]:
    """sigma_min(z I - W) by a dense SVD in float64, at every z."""
    z = np.asarray(z, dtype=complex)
    return np.linalg.svd(z[..., None, None] * np.eye(len(W)) - W, compute_uv=False)[..., -1]


def exact(W: Matrix, z: complex, bits: int = 512) -> float:
    """The same with every digit right, by inversion in ball arithmetic."""
    before, flint.ctx.prec = flint.ctx.prec, bits
    try:
        A = complex(z) * np.eye(len(W)) - W.astype(complex)
        inverse = flint.acb_mat([[flint.acb(v.real, v.imag) for v in row] for row in A.tolist()]).inv()
        return 1 / spectral_norm(np.array([[complex(v) for v in row] for row in inverse.tolist()]))
    finally:
        flint.ctx.prec = before


def lowest(f: Callable[[NDArray[np.float64]], NDArray[np.float64]], grid: NDArray[np.float64]) -> float:
    """The global minimum of f over a grid's range, its deepest local minima on the grid refined."""
    values = f(grid)
    inner = 1 + np.flatnonzero((values[1:-1] <= values[:-2]) & (values[1:-1] <= values[2:]))
    best = float(values.min())
    for i in inner[np.argsort(values[inner])][:4]:
        found = scipy.optimize.minimize_scalar(
            lambda t: float(f(np.array([t]))[0]),
            bounds=(grid[i - 1], grid[i + 1]),
            method="bounded",
            options={"xatol": 1e-9},
        )
        best = min(best, float(found.fun))
    return best


def on_circle(W: Matrix, r: float) -> float:
    half = not np.iscomplexobj(W)
    # a step beyond both ends, so that a minimum at an end is an inner one
    grid = np.linspace(-0.05, (math.pi if half else 2 * math.pi) + 0.05, 181 if half else 361)
    return lowest(lambda angle: dense(W, r * np.exp(1j * angle)), grid)


def on_line(W: Matrix, x: float, reach: float) -> float:
    grid = np.linspace(-0.05 if not np.iscomplexobj(W) else -reach, reach, 301)
    return lowest(lambda y: dense(W, x + 1j * y), grid)


def direct_sum(blocks: list[tuple[complex, float]]) -> Matrix:
    """2 x 2 Jordan blocks (eigenvalue, coupling)."""
    return scipy.linalg.block_diag(*(jordan(2, z, c) for z, c in blocks))


def disk(c: float, eps: float) -> float:
    """The radius of the eps-pseudospectrum of [[l, c], [0, l]], a disk about l."""
    return math.sqrt(eps**2 + eps * c)


def sigma_jordan(c: float, distance: Any) -> Any:
    """(sqrt(c^2 + 4 d^2) - c) / 2 without its cancellation."""
    return 2 * distance**2 / (np.sqrt(c**2 + 4 * distance**2) + c)


def kreiss_jordan(modulus: float, c: float) -> float:
    d = 1 - modulus
    return c / (4 * d) + d / c if c > 2 * d else 1.0


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


NORMAL: dict[str, Matrix] = {
    "shift 10": shift(10),
    "shift 100": shift(100),
    "orthogonal 20": unitary(20, 7),
    "unitary 33": unitary(33, 8, True),
    "diagonal": np.diag([0.9, -0.5, 0.3j, 0.2 + 0.1j]),
    "symmetric": gaussian(12, 9) + gaussian(12, 9).T,
    "scaled rotation": 0.9 * np.array([[0.5, -math.sqrt(0.75)], [math.sqrt(0.75), 0.5]]),
    "identity": np.eye(7),
    "zero": np.zeros((4, 4)),
    "1x1": np.array([[2.0 - 1.0j]]),
}
each_normal = pytest.mark.parametrize("name", NORMAL)


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
    reach = spectral_norm(W) + 0.5
    z = reach * (np.linspace(-1, 1, 9) + 1j * np.linspace(-1, 1, 8)[:, None])
    sigma = smallest_singular_values(W, z, method=method)
    assert sigma.shape == z.shape
    np.testing.assert_allclose(sigma, dense(W, z), rtol=1e-6 if method == "lanczos" else 1e-10, atol=FLOOR * 3 * reach)


@pytest.mark.parametrize("n", [40, 100])
@pytest.mark.parametrize("complex_", [False, True])
def test_lanczos_on_large_matrices(n: int, complex_: bool) -> None:
    W = gaussian(n, 10, complex_)
    rng = np.random.default_rng(2)
    z = 1.6 * np.sqrt(rng.random(30)) * np.exp(2j * math.pi * rng.random(30))
    np.testing.assert_allclose(smallest_singular_values(W, z, method="lanczos"), dense(W, z), rtol=1e-6, atol=1e-13)


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
        assert 0 <= sigma <= FLOOR * (1 + spectral_norm(W))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("rank", [0, 1, 3, 29])
def test_at_an_eigenvalue_of_a_dense_singular_matrix(method: str, rank: int) -> None:
    """An eigenvalue of any multiplicity, its zeros in the Schur form rounded: still neither NaN nor infinite."""
    for seed in range(8):
        W = gaussian(30, 200 + seed)[:, :rank] @ gaussian(30, 300 + seed)[:rank]
        z = np.array([0.0, 1e-300, 1e-17, 1e-9, 1.0])
        sigma = smallest_singular_values(rotated(W, seed, complex_=bool(seed % 2)), z, method=method)
        np.testing.assert_allclose(sigma, dense(W, z), rtol=1e-6, atol=1e-13)
    projection = rotated(np.diag([1.0] * 5 + [0.0] * 5), 19)
    sigma = smallest_singular_values(projection, np.array([0.0, 1.0, 0.5]), method=method)
    np.testing.assert_allclose(sigma, [0, 0, 0.5], atol=1e-13)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("shape", [(), (1,), (5,), (3, 4), (2, 1, 3), (0,)])
def test_the_shape_is_that_of_z(method: str, shape: tuple[int, ...]) -> None:
    sigma = smallest_singular_values(grcar(5), np.full(shape, 0.5 + 1j), method=method)
    assert np.shape(sigma) == shape
    np.testing.assert_allclose(sigma, np.full(shape, dense(grcar(5), 0.5 + 1j)), rtol=1e-8)


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
    np.testing.assert_allclose(again, dense(W, z), rtol=1e-6, atol=10 * FLOOR * (2 + spectral_norm(W)))


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
    floor = 10 * FLOOR * (abs(a) * (2 + spectral_norm(W)) + abs(b))
    np.testing.assert_allclose(moved, abs(a) * dense(W, z), rtol=2e-6, atol=floor)


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
    expected = dense(grcar(5), [0.5, 1j])
    for W in (
        grcar(5).astype(int),
        torch.tensor(grcar(5)),
        torch.nn.Parameter(torch.tensor(grcar(5), dtype=torch.float32)),
        torch.tensor(grcar(5), dtype=torch.complex64),
    ):
        sigma = np.asarray(smallest_singular_values(W, np.array([0.5, 1j]), method=method))
        np.testing.assert_allclose(sigma, expected, rtol=1e-8)


# -- fbchain(100): float64's eigenvalues are wrong, the pseudospectrum must not be -------------------------------------

FBCHAIN = fbchain(100)
# inside, on and outside of the ellipse alpha e^{i t} + beta e^{-i t} that the pseudospectra fill
POINTS = np.array([0.2, 0.398, 0.739, 0.9, 1.0, 1.02, 1.05, 1.3, 0.5j, 0.94j, 0.99j, 0.7 + 0.5j, -1.0 + 0.2j])


@functools.cache
def fbchain_truth() -> NDArray[np.float64]:
    return np.array([exact(FBCHAIN, z) for z in POINTS])


@pytest.mark.parametrize("method", METHODS)
def test_fbchain_against_ball_arithmetic(method: str) -> None:
    truth = fbchain_truth()
    assert truth[0] < 1e-25 and truth[2] < 1e-12 and truth[7] > 0.1, "the points should span the floor"
    sigma = smallest_singular_values(FBCHAIN, POINTS, method=method)
    np.testing.assert_allclose(sigma, truth, rtol=1e-6, atol=3 * FLOOR)


@pytest.mark.parametrize("eps", [1e-8, 1e-6, 1e-4, 1e-2, 0.1])
def test_fbchain_radius_and_abscissa(eps: float) -> None:
    """For W >= 0 the resolvent is largest on the positive axis, so that both are the root of one scalar equation."""
    root = scipy.optimize.brentq(lambda r: math.log(dense(FBCHAIN, r) / eps), 0.6, 1.3, xtol=1e-13)
    assert exact(FBCHAIN, root) == pytest.approx(eps, rel=1e-5)
    assert pseudospectral_radius(FBCHAIN, eps) == pytest.approx(root, abs=1e-8)
    assert pseudospectral_abscissa(FBCHAIN, eps) == pytest.approx(root, abs=1e-8)


def test_fbchain_distance_to_instability() -> None:
    beta = fbchain_truth()[list(POINTS).index(1.0)]
    assert distance_to_instability(FBCHAIN) == pytest.approx(beta, rel=1e-8)


# -- radius and abscissa ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("eigenvalue", "c", "eps", "radius"), [(0.9, 1.0, 0.1, 1.2316624790355), (0.0, 10.0, 0.05, 0.7088723439379)]
)
def test_published_jordan_2_radii(eigenvalue: float, c: float, eps: float, radius: float) -> None:
    assert pseudospectral_radius(jordan(2, eigenvalue, c), eps) == pytest.approx(radius, abs=1e-13)


@pytest.mark.parametrize("eps", [1e-8, 1e-5, 1e-2, 0.3, 2.0])
@pytest.mark.parametrize("c", [1e-3, 0.1, 1.0, 10.0])
@pytest.mark.parametrize("eigenvalue", [0.9, 0.0, -0.5, 0.6j, -0.7 - 0.7j])
def test_jordan_2_radius_and_abscissa(eigenvalue: complex, c: float, eps: float) -> None:
    W = jordan(2, eigenvalue, c)
    # the radius of the disk moves by c / (2 disk) per unit of eps
    tolerance = 1e-9 + 1e-14 * (1 + c) * c / disk(c, eps)
    assert pseudospectral_radius(W, eps) == pytest.approx(abs(eigenvalue) + disk(c, eps), abs=tolerance)
    assert pseudospectral_abscissa(W, eps) == pytest.approx(np.real(eigenvalue) + disk(c, eps), abs=tolerance)


JORDAN_DISKS = [
    (2, 1e-3, 0.0316385840),
    (4, 1e-3, 0.1792861809),
    (10, 1e-3, 0.5170200516),
    (32, 1e-3, 0.8367493459),
    (100, 1e-3, 0.9565302396),
    (2, 0.1, 0.3316624790),
    (10, 0.1, 0.9246305755),
    (32, 0.1, 1.0677336289),
]


@pytest.mark.parametrize(("n", "eps", "radius"), JORDAN_DISKS)
def test_published_disks_of_nilpotent_jordan_blocks(n: int, eps: float, radius: float) -> None:
    """The level set is a circle about 0: every point of it is a maximum, and a circular search is singular there."""
    assert pseudospectral_radius(jordan(n), eps) == pytest.approx(radius, abs=6e-11)
    assert pseudospectral_abscissa(jordan(n), eps) == pytest.approx(radius, abs=6e-11)
    phase = np.exp(0.7j)
    assert pseudospectral_radius(phase * jordan(n), eps) == pytest.approx(radius, abs=6e-11)
    # a shifted disk is no longer about 0
    assert pseudospectral_radius(jordan(n, 0.5), eps) == pytest.approx(0.5 + radius, abs=6e-11)
    assert pseudospectral_abscissa(jordan(n, -2.0), eps) == pytest.approx(radius - 2.0, abs=6e-11)


@pytest.mark.parametrize("complex_", [False, True])
def test_a_rotated_jordan_block_keeps_its_pseudospectrum(complex_: bool) -> None:
    """Its computed eigenvalues land 0.57 from 0.5."""
    W = rotated(jordan(64, 0.5), 13, complex_)
    assert abs(np.linalg.eigvals(W) - 0.5).max() > 0.3
    for eps in (1e-6, 1e-3):
        radius = 0.5 + scipy.optimize.brentq(lambda r, eps=eps: math.log(dense(jordan(64), r) / eps), 0.1, 1.2)
        assert pseudospectral_radius(W, eps) == pytest.approx(radius, abs=1e-7)
        assert pseudospectral_abscissa(W, eps) == pytest.approx(radius, abs=1e-7)


@pytest.mark.parametrize(
    ("n", "eps", "radius", "abscissa"),
    [
        (10, 0.01, 2.1702238167, 1.5961342868),
        (10, 0.1, 2.3943564620, 1.7404285638),
        (32, 1e-4, 2.3447182264, 1.6590867483),
        (32, 1e-2, 2.6739907567, 2.0954330404),
    ],
)
def test_published_grcar_values(n: int, eps: float, radius: float, abscissa: float) -> None:
    assert pseudospectral_radius(grcar(n), eps) == pytest.approx(radius, abs=6e-11)
    assert pseudospectral_abscissa(grcar(n), eps) == pytest.approx(abscissa, abs=6e-11)


@each_normal
@pytest.mark.parametrize("eps", [1e-6, 0.1, 1.0])
def test_normal_matrices_the_spectrum_and_eps(name: str, eps: float) -> None:
    W = NORMAL[name]
    eigenvalues = np.linalg.eigvals(W)
    assert pseudospectral_radius(W, eps) == pytest.approx(abs(eigenvalues).max() + eps, abs=1e-8)
    assert pseudospectral_abscissa(W, eps) == pytest.approx(eigenvalues.real.max() + eps, abs=1e-8)


def test_a_random_orthogonal_matrix_of_20() -> None:
    assert pseudospectral_radius(unitary(20, 14), 0.1) == pytest.approx(1.1, abs=1e-9)


# one block has the dominant eigenvalue, another one the larger pseudospectrum
SUMS: dict[str, list[tuple[complex, float]]] = {
    "behind the dominant eigenvalue": [(0.8, 0.0), (-0.3, 5.0)],
    "at an angle": [(0.7, 0.1), (0.5j, 1.5), (-0.6 + 0.2j, 0.4)],
    "equal moduli": [(0.6 * np.exp(2j * math.pi * k / 5), 0.2 * k) for k in range(5)],
    "many": [(0.95 * np.exp(1j * k) * (k / 50) ** 0.5, 0.02 * k) for k in range(50)],
    "far left": [(-0.9, 0.0), (0.1, 0.5), (0.0, 0.0)],
}


@pytest.mark.parametrize("eps", [1e-4, 0.03, 0.5])
@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("name", SUMS)
def test_direct_sums_in_closed_form(name: str, turned: bool, eps: float) -> None:
    blocks = SUMS[name]
    W = direct_sum(blocks)
    W = rotated(W, 15) if turned else W
    radius = max(abs(z) + disk(c, eps) for z, c in blocks)
    abscissa = max(np.real(z) + disk(c, eps) for z, c in blocks)
    assert pseudospectral_radius(W, eps) == pytest.approx(radius, abs=1e-8)
    assert pseudospectral_abscissa(W, eps) == pytest.approx(abscissa, abs=1e-8)


@pytest.mark.parametrize("name", SUMS)
@pytest.mark.parametrize("method", METHODS)
def test_direct_sums_the_smallest_of_the_blocks(name: str, method: str) -> None:
    blocks = SUMS[name]
    z = np.array([0.0, 0.9, -0.31, 0.5j + 0.01, 1 + 1j])
    expected = np.min([sigma_jordan(c, abs(z - e)) if c else abs(z - e) for e, c in blocks], axis=0)
    for W in (direct_sum(blocks), rotated(direct_sum(blocks), 16)):
        sigma = smallest_singular_values(W, z, method=method)
        np.testing.assert_allclose(sigma, expected, rtol=1e-6, atol=1e-13)


@each_general
@pytest.mark.parametrize("eps", [1e-5, 1e-2, 0.4])
def test_radius_and_abscissa_by_brute_force(name: str, eps: float) -> None:
    """sigma_min passes eps between 1e-7 inside and 1e-7 outside of the answer, on the whole circle and line."""
    W = GENERAL[name]
    reach = spectral_norm(W) + eps + 0.1
    small = 1e-7 * reach
    r = pseudospectral_radius(W, eps)
    assert r >= abs(np.linalg.eigvals(W)).max()
    assert on_circle(W, r - small) < eps < on_circle(W, r + small)
    x = pseudospectral_abscissa(W, eps)
    assert x >= np.linalg.eigvals(W).real.max()
    assert on_line(W, x - small, reach) < eps < on_line(W, x + small, reach)


@each_general
@pytest.mark.parametrize("eps", [1e-6, 1e-2, 1.0])
def test_bounds_of_the_radius(name: str, eps: float) -> None:
    W = GENERAL[name]
    rho, alpha = abs(np.linalg.eigvals(W)).max(), np.linalg.eigvals(W).real.max()
    r, x = pseudospectral_radius(W, eps), pseudospectral_abscissa(W, eps)
    slack = 1e-9 * (1 + spectral_norm(W))
    assert eps + rho - slack <= r <= eps + spectral_norm(W) + slack
    assert eps + alpha - slack <= x <= r + slack
    vectors = np.linalg.eig(W)[1]
    assert r <= rho + np.linalg.cond(vectors) * eps + slack  # Bauer and Fike


@each_general
def test_grows_with_eps_at_least_as_fast(name: str) -> None:
    levels = [1e-7, 1e-5, 1e-3, 0.1, 1.0, 10.0]
    for function in (pseudospectral_radius, pseudospectral_abscissa):
        values = np.array([function(GENERAL[name], eps) for eps in levels])
        assert (np.diff(values) >= np.diff(levels) * (1 - 1e-6)).all()


@each_general
@pytest.mark.parametrize("seed", range(3))
def test_eigenvalues_of_perturbed_matrices_are_inside(name: str, seed: int) -> None:
    W, eps = GENERAL[name], 0.05
    n = len(W)
    E = gaussian(n, 100 + seed, True) if seed else unitary(n, 100, True)
    E = eps * E / spectral_norm(E)
    eigenvalues = np.linalg.eigvals(W + E)
    assert (smallest_singular_values(W, eigenvalues, method="svd") <= eps + 1e-12).all()
    assert abs(eigenvalues).max() <= pseudospectral_radius(W, eps) + 1e-9
    assert eigenvalues.real.max() <= pseudospectral_abscissa(W, eps) + 1e-9


@each_general
def test_some_perturbation_reaches_the_radius(name: str) -> None:
    """At the point of the circle where sigma_min = eps, E = eps u v^H puts an eigenvalue on it."""
    W, eps = GENERAL[name], 0.05
    r = pseudospectral_radius(W, eps)
    angles = np.linspace(0, 2 * math.pi, 2001)
    z = r * np.exp(1j * angles[dense(W, r * np.exp(1j * angles)).argmin()])
    U, s, Vh = np.linalg.svd(z * np.eye(len(W)) - W)
    assert s[-1] == pytest.approx(eps, rel=1e-3)
    E = s[-1] * np.outer(U[:, -1], Vh[-1])
    assert abs(np.linalg.eigvals(W + E) - z).min() < 1e-6


@each_general
@pytest.mark.parametrize("a", [1e-6, 3.0, 1e6])
def test_radius_and_abscissa_scale(name: str, a: float) -> None:
    """sigma_eps(a W + b I) = a sigma_{eps / |a|}(W) + b: no tolerance inside may be absolute."""
    W, eps = GENERAL[name], 1e-3
    r, x = pseudospectral_radius(W, eps), pseudospectral_abscissa(W, eps)
    assert pseudospectral_radius(a * W, a * eps) == pytest.approx(a * r, rel=1e-7)
    turned = np.exp(2.1j) * W
    assert pseudospectral_radius(a * turned, a * eps) == pytest.approx(a * r, rel=1e-7)
    moved = a * (W + (0.5 + 2j) * np.eye(len(W)))
    assert pseudospectral_abscissa(moved, a * eps) == pytest.approx(a * (x + 0.5), rel=1e-7, abs=a * 1e-7)


@pytest.mark.parametrize("n", [3, 17, 60])
def test_radius_of_nonnegative_matrices(n: int) -> None:
    W = nonnegative(n, n, 0.9)
    for eps in (1e-4, 0.05):
        root = scipy.optimize.brentq(lambda r, eps=eps: float(dense(W, r)) - eps, 0.9, 1 + eps + spectral_norm(W))
        assert pseudospectral_radius(W, eps) == pytest.approx(root, abs=1e-8)


@pytest.mark.parametrize("name", ["gaussian 20", "complex gaussian 12", "grcar 10", "companion", "i grcar 8"])
def test_first_order_growth_is_the_eigenvalue_condition_number(name: str) -> None:
    W, eps = GENERAL[name], 1e-7
    eigenvalues, left, right = scipy.linalg.eig(W, left=True)
    condition = 1 / abs((left.conj() * right).sum(0))
    for function, size in ((pseudospectral_radius, abs(eigenvalues)), (pseudospectral_abscissa, eigenvalues.real)):
        slope = condition[size >= size.max() - 1e-9].max()
        assert (function(W, eps) - size.max()) / eps == pytest.approx(slope, rel=1e-2)


@pytest.mark.parametrize("name", ["gaussian 5", "complex gaussian 12", "grcar 10", "1x1", "1x1 complex"])
def test_at_eps_zero_they_are_the_spectral_radius_and_abscissa(name: str) -> None:
    W = GENERAL[name]
    eigenvalues = np.linalg.eigvals(W)
    assert pseudospectral_radius(W, 0.0) == pytest.approx(abs(eigenvalues).max(), abs=1e-7)
    assert pseudospectral_abscissa(W, 0.0) == pytest.approx(eigenvalues.real.max(), abs=1e-7)


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
    np.testing.assert_allclose(sigma, dense(W, z), rtol=1e-6, atol=1e-13)


@each_general
def test_the_box_found_by_itself_holds_the_spectrum(name: str) -> None:
    W = GENERAL[name]
    x, y, sigma = pseudospectrum(W, points=12)
    assert sigma.shape == (len(y), len(x)) == (12, 12)
    assert (np.diff(x) > 0).all() and (np.diff(y) > 0).all()
    eigenvalues = np.linalg.eigvals(W)
    assert x[0] < eigenvalues.real.min() and eigenvalues.real.max() < x[-1]
    assert y[0] < eigenvalues.imag.min() and eigenvalues.imag.max() < y[-1]
    np.testing.assert_allclose(sigma, dense(W, x + 1j * y[:, None]), rtol=1e-6, atol=1e-13)


def test_the_union_of_disks_of_a_cyclic_shift() -> None:
    x, y, sigma = pseudospectrum(shift(8), points=41, box=(-1.5, 1.5, -1.5, 1.5))
    eigenvalues = np.exp(2j * math.pi * np.arange(8) / 8)
    distance = abs((x + 1j * y[:, None])[..., None] - eigenvalues).min(-1)
    for eps in (0.05, 0.2, 0.5):
        away = abs(distance - eps) > 1e-6
        assert ((sigma <= eps) == (distance <= eps))[away].all()


def test_pseudospectrum_of_fbchain_on_a_grid() -> None:
    x, y, sigma = pseudospectrum(FBCHAIN, points=9, box=(-1.2, 1.2, -1.2, 1.2))
    np.testing.assert_allclose(sigma, dense(FBCHAIN, x + 1j * y[:, None]), rtol=1e-6, atol=3 * FLOOR)
    for i, j in ((0, 4), (1, 6), (4, 4), (4, 8)):
        assert sigma[i, j] == pytest.approx(exact(FBCHAIN, x[j] + 1j * y[i]), rel=1e-6, abs=3 * FLOOR)


# -- distance to instability and the Kreiss constant ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("eigenvalue", "c", "beta"), [(0.9, 1.0, 0.0099019514), (0.9, 0.1, 0.0618033989), (0, 10, 0.0990195136)]
)
def test_published_distances_to_instability(eigenvalue: float, c: float, beta: float) -> None:
    assert distance_to_instability(jordan(2, eigenvalue, c)) == pytest.approx(beta, abs=6e-11)


@pytest.mark.parametrize("c", [1e-3, 0.5, 4.0, 100.0])
@pytest.mark.parametrize("eigenvalue", [0.99, 0.5j, -0.3 + 0.4j, 0.0])
def test_distance_to_instability_of_jordan_2(eigenvalue: complex, c: float) -> None:
    expected = sigma_jordan(c, 1 - abs(eigenvalue))
    found = distance_to_instability(jordan(2, eigenvalue, c))
    assert found == pytest.approx(expected, rel=1e-8, abs=3 * FLOOR * (1 + c))


@each_normal
def test_distance_to_instability_of_normal_matrices(name: str) -> None:
    W = NORMAL[name] * 0.97 / max(1.0, abs(np.linalg.eigvals(NORMAL[name])).max())
    rho = abs(np.linalg.eigvals(W)).max()
    assert distance_to_instability(W) == pytest.approx(1 - rho, abs=1e-9)


@pytest.mark.parametrize("name", ["shift 10", "orthogonal 20", "unitary 33", "identity"])
def test_on_the_border_the_distance_is_zero(name: str) -> None:
    assert distance_to_instability(NORMAL[name]) == pytest.approx(0.0, abs=1e-9)


def stable(name: str) -> Matrix:
    W = GENERAL[name]
    return W * 0.8 / max(0.8, abs(np.linalg.eigvals(W)).max())


@each_general
def test_distance_to_instability_by_brute_force(name: str) -> None:
    W = stable(name)
    beta = distance_to_instability(W)
    assert beta == pytest.approx(on_circle(W, 1.0), rel=1e-7, abs=1e-12)
    # the other definition: the level at which the pseudospectrum touches the circle
    assert pseudospectral_radius(W, beta) == pytest.approx(1.0, abs=1e-7)


@pytest.mark.parametrize("name", SUMS)
def test_distance_and_kreiss_of_direct_sums(name: str) -> None:
    blocks = SUMS[name]
    W = rotated(direct_sum(blocks), 17)
    beta = min(sigma_jordan(c, 1 - abs(z)) if c else 1 - abs(z) for z, c in blocks)
    assert distance_to_instability(W) == pytest.approx(beta, rel=1e-8)
    if len(W) <= 10:
        K = max(kreiss_jordan(abs(z), c) for z, c in blocks)
        assert kreiss_lower_bound(W) == pytest.approx(K, rel=1e-6)


@pytest.mark.parametrize(("eigenvalue", "c", "K"), [(0.9, 1.0, 2.6), (0.9, 0.1, 1.0), (0.0, 10.0, 2.6)])
def test_published_kreiss_constants(eigenvalue: float, c: float, K: float) -> None:
    bound = kreiss_lower_bound(jordan(2, eigenvalue, c))
    assert bound == pytest.approx(K, rel=1e-7)
    assert bound <= K * (1 + 1e-10), "it is called a lower bound"


@pytest.mark.parametrize("c", [0.05, 0.5, 3.0, 50.0])
@pytest.mark.parametrize("eigenvalue", [0.99, 0.5j, -0.6 - 0.3j, 0.0])
def test_kreiss_constant_of_jordan_2(eigenvalue: complex, c: float) -> None:
    K = kreiss_jordan(abs(eigenvalue), c)
    bound = kreiss_lower_bound(jordan(2, eigenvalue, c))
    assert bound == pytest.approx(K, rel=1e-6) and bound <= K * (1 + 1e-10)


@pytest.mark.parametrize(("n", "c", "K"), [(4, 2.0, 1.5), (8, 1.0, 1.0)])
def test_published_kreiss_constants_of_nilpotent_blocks(n: int, c: float, K: float) -> None:
    """Of (8, 1) the supremum is a limit, for |z| to infinity."""
    bound = kreiss_lower_bound(jordan(n, 0.0, c))
    assert bound == pytest.approx(K, rel=1e-7) and 1.0 <= bound <= K * (1 + 1e-10)


@pytest.mark.parametrize("name", [name for name, W in NORMAL.items() if len(W) <= 20])
def test_kreiss_constant_of_normal_matrices_is_one(name: str) -> None:
    W = NORMAL[name] / max(1.0, abs(np.linalg.eigvals(NORMAL[name])).max())
    assert kreiss_lower_bound(W) == pytest.approx(1.0, abs=1e-6)


@pytest.mark.parametrize(
    "W",
    [
        jordan(20, 0.0, 1.05),
        fbchain(30),
        nonnegative(12, 1, 0.95),
        jordan(6, 0.7, 0.8),
        scipy.linalg.block_diag(jordan(2, 0.9), 0.5),
    ],
    ids=["chain", "fbchain", "nonnegative", "jordan 6", "with a bystander"],
)
def test_kreiss_constant_of_nonnegative_matrices(W: Matrix) -> None:
    """W >= 0: the supremum is over the real axis, a function of one variable."""
    distances = np.logspace(-5, 3, 400)
    values = distances / dense(W, 1 + distances)
    best = int(values.argmax())
    found = scipy.optimize.minimize_scalar(
        lambda t: -math.exp(t) / float(dense(W, 1 + math.exp(t))),
        bounds=(math.log(distances[max(best - 1, 0)]), math.log(distances[min(best + 1, 399)])),
        method="bounded",
        options={"xatol": 1e-9},
    )
    K = max(1.0, -found.fun)
    bound = kreiss_lower_bound(W)
    assert bound == pytest.approx(K, rel=1e-6) and bound <= K * (1 + 1e-9)


@each_general
def test_kreiss_constant_by_brute_force(name: str) -> None:
    """Never above the supremum; and no worse than a grid over |z| > 1."""
    W = stable(name)
    bound = kreiss_lower_bound(W)
    radii = 1 + np.logspace(-3, 1, 25)
    grid = max((r - 1) / on_circle(W, r) for r in radii)
    assert bound >= 1.0
    assert bound >= grid * (1 - 1e-9), "a grid of 25 circles finds more"
    norms, power = [1.0], np.eye(len(W))
    for _ in range(200):
        power = power @ W
        norms.append(spectral_norm(power))
    assert bound <= max(norms) * (1 + 1e-9)
    assert max(norms) <= math.e * len(W) * bound * (1 + 1e-9)


@pytest.mark.parametrize(
    "W",
    [np.array([[1.1]]), 1.5 * shift(4), grcar(6), scipy.linalg.block_diag(1.01j, jordan(2))],
    ids=["1x1", "shift", "grcar", "direct sum"],
)
def test_powers_that_grow_have_no_kreiss_constant(W: Matrix) -> None:
    assert kreiss_lower_bound(W) == math.inf
    assert kreiss_lower_bound(W, precision=1.2e-7) == math.inf


def test_an_orthogonal_matrix_in_float32_has_the_kreiss_constant_one() -> None:
    """Rounded to float32 its rho is 1 + 1e-7, and K is infinite; as what was meant, its powers stay at 1."""
    Q = np.linalg.qr(np.random.default_rng(0).normal(size=(60, 60)))[0].astype(np.float32).astype(float)
    Q *= (1 + 1e-7) / abs(np.linalg.eigvals(Q)).max()
    assert kreiss_lower_bound(Q) == math.inf
    assert kreiss_lower_bound(Q, precision=np.finfo(np.float32).eps) == 1.0


def test_rounding_does_not_hide_the_kreiss_constant_of_a_marginal_matrix() -> None:
    """A rotation beside a stable Jordan block: K is the block's, also where rounding lifts rho above 1."""
    block = jordan(2, 0.5, 3.0)
    K = kreiss_jordan(0.5, 3.0)
    W = scipy.linalg.block_diag([[0.6, 0.8], [-0.8, 0.6]], block) * (1 + 2e-7)
    assert kreiss_lower_bound(W, precision=np.finfo(np.float32).eps) == pytest.approx(K, rel=1e-5)


@pytest.mark.parametrize("c", [1.0, 10.0])
def test_a_defective_eigenvalue_on_the_circle_has_a_huge_or_infinite_bound(c: float) -> None:
    """(rho_eps - 1) / eps = sqrt(1 + c / eps) without bound for eps to 0."""
    assert kreiss_lower_bound(jordan(2, 1.0, c)) > 100


@pytest.mark.parametrize(("b", "c"), [(0.5, 5.0), (-1.0, 1.0), (0.3j, 0.4), (0.0, 20.0)])
def test_a_simple_eigenvalue_on_the_circle(b: complex, c: float) -> None:
    """(|z| - 1) |(z I - W)^-1| tends to the norm of the oblique spectral projection as z goes to 1."""
    W = np.array([[1.0, c], [0.0, b]])
    projection = math.sqrt(1 + abs(c / (1 - b)) ** 2)
    bound = kreiss_lower_bound(W)
    assert (
        projection * (1 - 1e-4) <= bound <= max(spectral_norm(np.linalg.matrix_power(W, k)) for k in range(99)) + 1e-9
    )
    assert distance_to_instability(W) == pytest.approx(0.0, abs=1e-12)


@pytest.mark.parametrize("W", [grcar(6), 1.5 * shift(4), np.array([[2.0]])], ids=["grcar", "shift", "1x1"])
def test_the_unstable_are_at_no_distance_from_instability(W: Matrix) -> None:
    assert distance_to_instability(W) == 0


@pytest.mark.parametrize("name", ["gaussian 5", "complex gaussian 3", "defective pair"])
def test_kreiss_and_distance_are_invariant_under_unitary_similarity(name: str) -> None:
    W = stable(name)
    assert kreiss_lower_bound(rotated(W, 18)) == pytest.approx(kreiss_lower_bound(W), rel=1e-6)
    assert distance_to_instability(rotated(W, 18)) == pytest.approx(distance_to_instability(W), rel=1e-7, abs=1e-12)
    turned = np.exp(1.3j) * W
    assert distance_to_instability(turned) == pytest.approx(distance_to_instability(W), rel=1e-7, abs=1e-12)


# -- bad input --------------------------------------------------------------------------------------------------------

BAD_MATRICES = [
    np.ones((2, 3)),
    np.ones(4),
    np.array([[1.0, math.nan], [0, 1]]),
    np.array([[math.inf]]),
    np.empty((0, 0)),
]
CALLS: dict[str, Callable[[Any], Any]] = {
    "smallest_singular_values": lambda W: smallest_singular_values(W, np.array([1.0])),
    "pseudospectrum": lambda W: pseudospectrum(W, points=3),
    "pseudospectral_radius": lambda W: pseudospectral_radius(W, 0.1),
    "pseudospectral_abscissa": lambda W: pseudospectral_abscissa(W, 0.1),
    "kreiss_lower_bound": kreiss_lower_bound,
    "distance_to_instability": distance_to_instability,
}


def refusal(call: Callable[[], Any], argument: str) -> None:
    with pytest.raises(UserError) as caught:
        call()
    sentence = str(caught.value)
    assert argument in sentence and "\n" not in sentence and len(sentence.split()) > 4, sentence


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("W", BAD_MATRICES, ids=["not square", "a vector", "NaN", "infinite", "empty"])
def test_bad_matrices_are_refused(name: str, W: Matrix) -> None:
    refusal(lambda: CALLS[name](W), "W")
    refusal(lambda: CALLS[name](torch.tensor(W)), "W")


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
