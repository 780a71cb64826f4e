"""Powers of a matrix, what bounds them, and the numbers behind the bounds: closed forms and brute force."""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np
import pytest
import scipy.linalg
import scipy.optimize
import torch
from numpy.typing import NDArray

from lit_rnn.analysis import (
    IllConditionedWarning,
    commutator_norm,
    eigenvector_condition,
    henrici,
    kreiss_lower_bound,
    numerical_radius,
    numerical_range,
    pseudospectral_radius,
    spectral_norm,
    spectral_radius,
    transient_growth,
)
from tests.oracles.spectra import Matrix, chain, gaussian, grcar, jordan, norm, rotated, rotation, shift, unitary
from tests.refusals import refusal

# -- oracles ---------------------------------------------------------------------------------------------------------


GENERAL: dict[str, Matrix] = {
    "1x1": np.array([[-0.7]]),
    "1x1 complex": np.array([[0.6 - 0.4j]]),
    "gaussian 5": gaussian(5, 1),
    "gaussian 30": gaussian(30, 2),
    "complex gaussian 12": gaussian(12, 4, True) / 1.3,
    "triangular": np.diag(np.linspace(-0.8, 0.7, 9)) + np.triu(gaussian(9, 5), 1),
    "grcar 10": grcar(10),
    "grcar 10, stable": grcar(10) / 2.4,
    "jordan 2": jordan(2, 0.9),
    "jordan 6": jordan(6, 0.7j, 0.8),
    "nilpotent": jordan(8, 0.0, 1.3),
    "rank one": np.outer(np.arange(1.0, 7.0), [1.0, -1.0, 2.0, 0.5, 0.0, -0.3]) / 10,
    "oblique projection": np.array([[1.0, 4.0], [0.0, 0.0]]),
    "rotation and shear": scipy.linalg.block_diag(rotation(1.5, 0.9), [[0.2, 3.0], [0.0, 0.1]]),
    "zero": np.zeros((3, 3)),
}
each_general = pytest.mark.parametrize("name", GENERAL)

NORMAL: dict[str, Matrix] = {
    "shift 10": shift(10),
    "orthogonal 20": unitary(20, 7),
    "unitary 9": 0.9 * unitary(9, 8, True),
    "diagonal": np.diag([0.9, -0.5, 0.3j, 0.2 + 0.1j]),
    "symmetric": (gaussian(12, 9) + gaussian(12, 9).T) / 4,
    "rotation": rotation(math.pi / 3, 0.9),
    "identity": np.eye(4),
}
each_normal = pytest.mark.parametrize("name", NORMAL)


def power_norms(W: Matrix, steps: int) -> NDArray[np.float64]:
    """|W^k|, each power by repeated squaring and not from the one before it."""
    return np.array([norm(np.linalg.matrix_power(W, k)) for k in range(steps + 1)])


def support(W: Matrix, angle: float) -> float:
    """max Re(e^{-i angle} z) over the numerical range."""
    turned = np.exp(-1j * angle) * W
    return float(np.linalg.eigvalsh((turned + turned.conj().T) / 2)[-1])


def numerical_radius_by_brute_force(W: Matrix) -> float:
    angles = np.linspace(0, 2 * math.pi, 721)
    values = np.array([support(W, a) for a in angles])
    best = 0.0
    for i in np.argsort(values)[-6:]:
        found = scipy.optimize.minimize_scalar(
            lambda a: -support(W, a),
            bounds=(angles[i] - 0.01, angles[i] + 0.01),
            method="bounded",
            options={"xatol": 1e-9},
        )
        best = max(best, -float(found.fun))
    return best


def quiet(W: Matrix, steps: int) -> Any:
    """Of defective matrices kappa is infinite in truth: a warning about it is welcome here, but not a nan."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", IllConditionedWarning)
        return transient_growth(W, steps)


# -- |W^k| ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("eigenvalue", "c"), [(0.9, 1.0), (0.9, 0.1), (0.0, 10.0), (0.5 - 0.6j, 3.0), (1.0, 2.0)])
def test_jordan_2_in_closed_form(eigenvalue: complex, c: float) -> None:
    k = np.arange(61)
    p = abs(eigenvalue) ** k
    q = k * np.concatenate([[0.0], abs(eigenvalue) ** k[:-1]]) * c
    norms = quiet(jordan(2, eigenvalue, c), 60).norms
    np.testing.assert_allclose(norms, (q + np.sqrt(q**2 + 4 * p**2)) / 2, rtol=1e-12)


@pytest.mark.parametrize(
    ("eigenvalue", "c", "highest", "k"), [(0.9, 1.0, 3.9125670784, 9), (0.9, 0.1, 1.0, 0), (0.0, 10.0, 10.0, 1)]
)
def test_published_peaks_of_jordan_2(eigenvalue: float, c: float, highest: float, k: int) -> None:
    norms = quiet(jordan(2, eigenvalue, c), 200).norms
    assert norms.argmax() == k
    assert norms.max() == pytest.approx(highest, abs=6e-11)


@pytest.mark.parametrize("c", [0.8, 1.0, 1.05, 2.0])
@pytest.mark.parametrize("n", [2, 8, 30])
def test_a_chain_grows_until_its_end(n: int, c: float) -> None:
    norms = quiet(jordan(n, 0.0, c), n + 3).norms
    np.testing.assert_allclose(norms[:n], c ** np.arange(n), rtol=1e-12)
    assert not norms[n:].any()
    assert norms.max() == pytest.approx(max(1.0, c ** (n - 1)))


@each_general
def test_norms_are_those_of_the_powers(name: str) -> None:
    W = GENERAL[name]
    growth = quiet(W, 40)
    assert growth.norms.shape == (41,) and growth.norms[0] == 1.0
    np.testing.assert_allclose(growth.norms, power_norms(W, 40), rtol=1e-10, atol=1e-15)


@each_normal
def test_normal_matrices_have_no_transient(name: str) -> None:
    W = NORMAL[name]
    growth = quiet(W, 30)
    rho = abs(np.linalg.eigvals(W)).max()
    for curve in (growth.norms, growth.spectral, growth.eigenvector):
        np.testing.assert_allclose(curve, rho ** np.arange(31), rtol=1e-9)
    np.testing.assert_allclose(growth.numerical, 2 * rho ** np.arange(31), rtol=1e-9)
    assert growth.kreiss == pytest.approx(1.0, abs=1e-6)


# -- the bounds -------------------------------------------------------------------------------------------------------


def assert_bounds_hold(W: Matrix, steps: int) -> Any:
    growth = quiet(W, steps)
    true = power_norms(W, steps)
    tiny = 1e-300
    for curve in ("spectral", "numerical", "eigenvector", "level_curve"):
        values = getattr(growth, curve)
        assert values.shape == (steps + 1,)
        assert not np.isnan(values).any(), curve
    # rounding grows with the powers: k u kappa; what a float64 power has lost cannot be bounded
    slack = 1 + 1e-8
    floor = 1e-13 * true.max() + tiny
    assert (growth.spectral <= true * slack + floor).all(), "rho^k is a lower bound"
    for curve in ("numerical", "eigenvector", "level_curve"):
        assert (true <= getattr(growth, curve) * slack + floor).all(), f"{curve} is no upper bound"
    return growth


@each_general
@pytest.mark.parametrize("steps", [0, 1, 60])
def test_bounds_hold(name: str, steps: int) -> None:
    assert_bounds_hold(GENERAL[name], steps)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("n", [2, 7, 25])
def test_bounds_hold_for_rotated_defective_matrices(n: int, seed: int) -> None:
    assert_bounds_hold(rotated(jordan(n, 0.6, 0.7), seed, complex_=bool(seed % 2)), 80)


def test_bounds_hold_for_fbchain_100() -> None:
    """rho is 0.398; float64's kappa, 1e16 at most, times rho^k would fall below |W^k| = 1 within 40 steps."""
    W = chain(100, 0.99, 0.04)
    growth = assert_bounds_hold(W, 150)
    rho = 2 * math.sqrt(0.99 * 0.04) * math.cos(math.pi / 101)
    np.testing.assert_allclose(growth.spectral, rho ** np.arange(151), rtol=1e-7)


@pytest.mark.parametrize(
    ("W", "kappa"),
    [
        (np.array([[1.0, 3.0], [0.0, 0.5]]), 12.0827625303),
        (np.array([[0.9, 1.0], [0.0, 0.8]]), 20.0498756211),
    ],
)
def test_published_eigenvector_conditions(W: Matrix, kappa: float) -> None:
    assert eigenvector_condition(W) == pytest.approx(kappa, abs=6e-11)
    growth = transient_growth(W, 5)
    np.testing.assert_allclose(growth.eigenvector, kappa * W[0, 0] ** np.arange(6), rtol=1e-11)


def test_grcar_32_eigenvector_condition() -> None:
    assert eigenvector_condition(grcar(32)) == pytest.approx(9.80e4, rel=6e-4)


@pytest.mark.parametrize(("a", "b", "c"), [(0.5, -0.5, 2.0), (0.9j, 0.1, 7.0), (1.0, 1.0 - 1e-4, 0.5)])
def test_eigenvector_condition_of_two_by_two(a: complex, b: complex, c: float) -> None:
    t = abs(c / (a - b))
    assert eigenvector_condition(np.array([[a, c], [0, b]])) == pytest.approx(t + math.sqrt(1 + t * t), rel=1e-7)


@pytest.mark.parametrize(("eigenvalue", "c"), [(0.9, 1.0), (0.3, 5.0), (-0.5j, 0.2)])
def test_the_level_curve_bound_is_the_best_over_eps(eigenvalue: complex, c: float) -> None:
    """rho_eps = |l| + sqrt(eps^2 + eps c), its minimum over eps in one variable: a decade a level costs a factor 2."""
    level = quiet(jordan(2, eigenvalue, c), 40).level_curve
    for k in range(1, 41):
        found = scipy.optimize.minimize_scalar(
            lambda t, k=k: (k + 1) * math.log(abs(eigenvalue) + math.sqrt(math.exp(2 * t) + math.exp(t) * c)) - t,
            bounds=(-15, 6),
            method="bounded",
        )
        best = math.exp(found.fun)
        assert best * (1 - 1e-6) <= level[k] <= best * 2


@pytest.mark.parametrize("name", ["gaussian 5", "triangular", "grcar 10, stable"])
@pytest.mark.parametrize("eps", [1e-3, 0.02, 0.3])
def test_the_level_curve_bound_is_below_that_of_any_eps(name: str, eps: float) -> None:
    W = GENERAL[name]
    k = np.arange(41)
    assert (quiet(W, 40).level_curve[1:] <= (pseudospectral_radius(W, eps) ** (k + 1) / eps)[1:] * 2).all()


@pytest.mark.parametrize(
    "name", [n for n, W in GENERAL.items() if abs(np.linalg.eigvals(W)).max() <= 1 and len(W) < 20]
)
def test_the_kreiss_bounds(name: str) -> None:
    """K <= sup_k |W^k| <= e n K."""
    W = GENERAL[name]
    growth = quiet(W, 5)
    highest = power_norms(W, 300).max()
    assert 1.0 <= growth.kreiss <= highest * (1 + 1e-9)
    assert growth.kreiss == pytest.approx(kreiss_lower_bound(W), rel=1e-9)
    assert growth.kreiss_upper == pytest.approx(math.e * len(W) * growth.kreiss, rel=1e-9)
    assert highest <= growth.kreiss_upper * (1 + 1e-9)


def test_one_kreiss_constant_and_two_transients() -> None:
    first, second = quiet(jordan(2, 0.9, 1.0), 60), quiet(jordan(2, 0.0, 10.0), 60)
    assert first.kreiss == pytest.approx(2.6, rel=1e-7) and second.kreiss == pytest.approx(2.6, rel=1e-7)
    assert second.norms.max() > 2.5 * first.norms.max()


def test_unstable_powers_have_no_kreiss_constant() -> None:
    growth = quiet(grcar(6), 20)
    assert growth.kreiss == math.inf and growth.kreiss_upper == math.inf
    assert growth.norms[-1] > growth.norms[0]


@pytest.mark.parametrize(("factor", "steps", "last"), [(3.0, 700, math.inf), (1e100, 4, math.inf), (0.1, 400, 0.0)])
def test_powers_overflow_to_infinity_and_underflow_to_zero_quietly(factor: float, steps: int, last: float) -> None:
    growth = quiet(factor * rotation(0.3), steps)
    k = np.arange(steps + 1)
    with np.errstate(over="ignore"):
        expected = np.exp(k * math.log(factor))
    assert growth.norms[-1] == last
    inside = expected < 1e307
    np.testing.assert_allclose(growth.norms[inside], expected[inside], rtol=1e-9, atol=1e-300)
    for curve in ("spectral", "numerical", "eigenvector", "level_curve"):
        assert not np.isnan(getattr(growth, curve)).any()


def test_invariant_under_unitary_similarity_and_from_torch() -> None:
    W = GENERAL["triangular"]
    growth, again = quiet(W, 20), quiet(torch.tensor(rotated(W, 21)), 20)
    for curve in ("norms", "spectral", "numerical", "level_curve"):
        np.testing.assert_allclose(getattr(again, curve), getattr(growth, curve), rtol=1e-6)
    single = quiet(torch.tensor(W, dtype=torch.float32), 20)
    np.testing.assert_allclose(single.norms, power_norms(W.astype(np.float32).astype(float), 20), rtol=1e-10)


# -- the numerical range ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("c", [0.1, 1.0, 7.0])
@pytest.mark.parametrize("n", [2, 3, 10, 100])
def test_numerical_range_of_a_nilpotent_block_is_a_disk(n: int, c: float) -> None:
    radius = c * math.cos(math.pi / (n + 1))
    assert numerical_radius(jordan(n, 0.0, c)) == pytest.approx(radius, rel=1e-12)
    np.testing.assert_allclose(abs(numerical_range(jordan(n, 0.0, c), points=40)), radius, rtol=1e-10)


@pytest.mark.parametrize(("eigenvalue", "c"), [(0.9, 1.0), (0.9, 0.1), (0.0, 10.0), (0.3 - 0.4j, 2.0), (-2.0, 0.5)])
def test_numerical_radius_of_jordan_2(eigenvalue: complex, c: float) -> None:
    assert numerical_radius(jordan(2, eigenvalue, c)) == pytest.approx(abs(eigenvalue) + c / 2, rel=1e-11)
    points = numerical_range(jordan(2, eigenvalue, c), points=50)
    np.testing.assert_allclose(abs(points - eigenvalue), c / 2, rtol=1e-9)


@pytest.mark.parametrize(("n", "w"), [(32, 3.1883), (10, 2.8430)])
def test_published_numerical_radius_of_grcar(n: int, w: float) -> None:
    assert numerical_radius(grcar(n)) == pytest.approx(w, abs=6e-5)


@each_general
def test_numerical_radius_by_brute_force(name: str) -> None:
    W = GENERAL[name]
    w = numerical_radius(W)
    assert w == pytest.approx(numerical_radius_by_brute_force(W), rel=1e-9, abs=1e-15)
    assert norm(W) / 2 * (1 - 1e-12) <= w <= norm(W) * (1 + 1e-12)
    assert abs(np.linalg.eigvals(W)).max() <= w * (1 + 1e-9) + 1e-15
    assert numerical_radius(np.exp(0.7j) * rotated(W, 22)) == pytest.approx(w, rel=1e-9, abs=1e-15)
    for k in (2, 3, 7):  # Berger
        power = np.linalg.matrix_power(W, k)
        assert numerical_radius(power) <= w**k * (1 + 1e-9) + 1e-15
        assert norm(power) <= 2 * w**k * (1 + 1e-9) + 1e-15


@each_normal
def test_numerical_radius_of_normal_matrices_is_the_spectral_radius(name: str) -> None:
    W = NORMAL[name]
    assert numerical_radius(W) == pytest.approx(abs(np.linalg.eigvals(W)).max(), rel=1e-10)


def test_numerical_radius_between_two_directions_of_a_coarse_grid() -> None:
    """A needle: the range of diag(e^{i t}, 0) is a segment, its support cos(angle - t)."""
    for t in np.linspace(0.01, 6.2, 17):
        assert numerical_radius(np.diag([np.exp(1j * t), 0.0])) == pytest.approx(1.0, rel=1e-11)
        # two needles of nearly the same length
        assert numerical_radius(np.diag([np.exp(1j * t), -1.0001])) == pytest.approx(1.0001, rel=1e-11)


@each_general
def test_numerical_range_is_the_boundary(name: str) -> None:
    W = GENERAL[name]
    points = numerical_range(W, points=64)
    assert points.shape == (64,)
    scale = 1e-10 * (1 + norm(W))
    angles = np.linspace(0, 2 * math.pi, 100)
    supports = np.array([support(W, a) for a in angles])
    reached = (np.exp(-1j * angles)[:, None] * points).real
    assert (reached <= supports[:, None] + scale).all(), "a point outside"
    # each is touched: at some direction it reaches the support
    gaps = [scipy.optimize.minimize_scalar(
        lambda a, z=z: support(W, a) - (np.exp(-1j * a) * z).real,
        bounds=(angles[i] - 0.1, angles[i] + 0.1), method="bounded", options={"xatol": 1e-8}).fun
        for z, i in zip(points, (supports[:, None] - reached).argmin(0), strict=True)]  # fmt: skip
    assert max(gaps) <= 1e-6 * (1 + norm(W)), "a point inside"
    # convex and once around, against the clock
    turn = np.diff(np.concatenate([points, points[:1]]))
    area = 0.5 * float((points.conj() * np.roll(points, -1)).imag.sum())
    assert area >= -scale
    crosses = (turn.conj() * np.roll(turn, -1)).imag
    assert (crosses >= -scale).all()


# -- departures from normality ----------------------------------------------------------------------------------------


def test_published_departures() -> None:
    assert henrici(grcar(10)) == pytest.approx(3.0227553718, abs=6e-11)
    for n, c in ((2, 0.5), (8, 1.0), (100, 1.05)):
        assert henrici(jordan(n, 0.0, c)) == pytest.approx(c * math.sqrt(n - 1), rel=1e-12)
        assert henrici(jordan(n, 0.0, c), normalized=True) == pytest.approx(1.0, rel=1e-12)
    for eigenvalue, c in ((0.9, 1.0), (0.5j, 7.0)):
        assert henrici(jordan(2, eigenvalue, c)) == pytest.approx(c, rel=1e-12)
        assert commutator_norm(jordan(2, eigenvalue, c), normalized=False) == pytest.approx(
            math.sqrt(2) * c**2, rel=1e-12
        )
    assert np.linalg.norm(grcar(32)) == pytest.approx(math.sqrt(153)), "the matrix is the published one"
    assert np.linalg.norm(grcar(10)) == pytest.approx(math.sqrt(43))
    assert spectral_norm(grcar(10)) == pytest.approx(3.1066470623, abs=6e-11)


@each_normal
def test_normal_matrices_depart_by_nothing(name: str) -> None:
    W = NORMAL[name]
    assert henrici(W) < 1e-7 * norm(W)
    assert commutator_norm(W) < 1e-13


# -- the spectral radius by the power method --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("n", "method", "rho", "tolerance"),
    [
        (n, method, rho, 6e-11 if method == "eig" else 1e-7)
        for n, rho in ((32, 2.2494477765), (10, 2.1384430828))
        for method in ("eig", "power")
    ],
)
def test_published_spectral_radius_of_grcar(n: int, method: str, rho: float, tolerance: float) -> None:
    assert spectral_radius(grcar(n), method=method) == pytest.approx(rho, abs=tolerance)


@pytest.mark.parametrize("angle", [math.pi / 3, math.pi / 2, 0.1, 3.0])
@pytest.mark.parametrize("shear", [0.0, 5.0])
def test_a_complex_pair_by_the_power_method(angle: float, shear: float) -> None:
    """The Rayleigh quotient of r R(angle) is r cos(angle) for every vector: .45 and 0 where rho is .9."""
    S = np.array([[1.0, shear], [0.0, 1.0]])
    W = S @ rotation(angle, 0.9) @ np.linalg.inv(S)
    assert spectral_radius(W, method="power") == pytest.approx(0.9, rel=1e-9)
    larger = scipy.linalg.block_diag(W, np.diag([0.5, -0.3]), rotation(1.0, 0.6))
    assert spectral_radius(rotated(larger, 23, complex_=False), method="power") == pytest.approx(0.9, rel=1e-7)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("complex_", [False, True])
def test_power_method_on_separated_spectra(seed: int, complex_: bool) -> None:
    rng = np.random.default_rng(seed)
    modulus = 1.3 * 0.8 ** np.arange(1.0, 9.0)
    eigenvalues = modulus * np.exp(2j * math.pi * rng.random(8))
    W = (
        np.diag(eigenvalues) + np.triu(gaussian(8, seed, True), 1)
        if complex_
        else scipy.linalg.block_diag(*(rotation(float(np.angle(z)), abs(z)) for z in eigenvalues))
        + np.triu(gaussian(16, seed), 2) * np.kron(np.triu(np.ones((8, 8)), 1), np.ones((2, 2)))
    )
    assert spectral_radius(rotated(W, seed, complex_), method="power") == pytest.approx(modulus[0], rel=1e-7)


@pytest.mark.parametrize(
    ("W", "rho"),
    [
        (np.array([[-2.5]]), 2.5),
        (np.array([[1j]]), 1.0),
        (np.zeros((3, 3)), 0.0),
        (np.eye(4), 1.0),
        (np.diag([1.0, -1.0]), 1.0),
        (np.array([[0.0, 1.0], [0.0, 0.0]]), 0.0),
        (np.outer([1.0, 2.0, 3.0], [1.0, 1.0, -2.0]) + 0.0, 3.0),
        (1e-100 * np.diag([2.0, 1.0]), 2e-100),
        (1e100 * np.diag([2.0, 1.0]), 2e100),
    ],
    ids=["1x1", "1x1 complex", "zero", "identity", "plus and minus", "nilpotent", "rank one", "tiny", "huge"],
)
def test_power_method_at_the_edges(W: Matrix, rho: float) -> None:
    assert spectral_radius(W, method="power") == pytest.approx(rho, rel=1e-7, abs=1e-7 if rho == 0 else 0)


@pytest.mark.parametrize("n", [1, 2, 5, 20, 100])
def test_spectral_radius_of_normal_and_triangular_matrices(n: int) -> None:
    assert spectral_radius(0.9 * unitary(n, n, True)) == pytest.approx(0.9, rel=1e-12)
    values = np.random.default_rng(n).uniform(-1, 1, n)
    W = np.diag(values) + np.triu(gaussian(n, n), 1)
    assert spectral_radius(W) == pytest.approx(abs(values).max(), rel=1e-9)
    assert spectral_radius(torch.tensor(W)) == pytest.approx(abs(values).max(), rel=1e-9)


# -- bad input --------------------------------------------------------------------------------------------------------


def test_bad_steps_points_and_methods_are_refused() -> None:
    refusal(lambda: transient_growth(np.eye(2), -1), "steps")
    refusal(lambda: numerical_range(np.eye(2), points=0), "points")
    refusal(lambda: spectral_radius(np.eye(2), method="rayleigh"), "method")
