"""Pseudospectral radius and abscissa, distance to instability and the Kreiss constant: closed forms and brute force."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.linalg
import scipy.optimize

from lit_rnn.analysis import (
    distance_to_instability,
    kreiss_lower_bound,
    pseudospectral_abscissa,
    pseudospectral_radius,
    smallest_singular_values,
)
from tests.oracles.pseudospectra import (
    GENERAL,
    NORMAL,
    SUMS,
    direct_sum,
    disk,
    kreiss_jordan,
    nonnegative,
    on_circle,
    on_line,
    sigma_jordan,
    stable,
)
from tests.oracles.spectra import Matrix, chain, dense_sigma, gaussian, grcar, jordan, norm, rotated, shift, unitary

METHODS = ["lanczos", "svd"]
# what a backward stable method may lose: a modest multiple of the rounding unit times |z I - W|
FLOOR = 1e-14
each_general = pytest.mark.parametrize("name", GENERAL)
each_normal = pytest.mark.parametrize("name", NORMAL)


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
        radius = 0.5 + scipy.optimize.brentq(lambda r, eps=eps: math.log(dense_sigma(jordan(64), r) / eps), 0.1, 1.2)
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
    reach = norm(W) + eps + 0.1
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
    slack = 1e-9 * (1 + norm(W))
    assert eps + rho - slack <= r <= eps + norm(W) + slack
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
    E = eps * E / norm(E)
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
    z = r * np.exp(1j * angles[dense_sigma(W, r * np.exp(1j * angles)).argmin()])
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
        root = scipy.optimize.brentq(lambda r, eps=eps: float(dense_sigma(W, r)) - eps, 0.9, 1 + eps + norm(W))
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
        chain(30, 0.99, 0.04),
        nonnegative(12, 1, 0.95),
        jordan(6, 0.7, 0.8),
        scipy.linalg.block_diag(jordan(2, 0.9), 0.5),
    ],
    ids=["chain", "fbchain", "nonnegative", "jordan 6", "with a bystander"],
)
def test_kreiss_constant_of_nonnegative_matrices(W: Matrix) -> None:
    """W >= 0: the supremum is over the real axis, a function of one variable."""
    distances = np.logspace(-5, 3, 400)
    values = distances / dense_sigma(W, 1 + distances)
    best = int(values.argmax())
    found = scipy.optimize.minimize_scalar(
        lambda t: -math.exp(t) / float(dense_sigma(W, 1 + math.exp(t))),
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
        norms.append(norm(power))
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
    assert projection * (1 - 1e-4) <= bound <= max(norm(np.linalg.matrix_power(W, k)) for k in range(99)) + 1e-9
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
