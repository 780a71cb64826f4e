"""Matrices of entries about 1e150 or 1e-150, whose squares a double cannot hold: homogeneity decides."""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import scipy.linalg
import torch

from lit_rnn import analysis
from lit_rnn.analysis.arrays import times_power_of_two
from lit_rnn.cells import VanillaRNNCell
from lit_rnn.init import fbchain_

METHODS: tuple[Any, ...] = ("lanczos", "svd")
SCALES = [1e150, 1e-150, 1e250, 1e-250]
RANDOM = np.random.default_rng(0).standard_normal((6, 6))
MATRICES: dict[str, Any] = {
    "rotation": np.array([[0.0, 1.0], [-1.0, 0.0]]),
    "random": RANDOM,
    "complex": RANDOM + 1j * RANDOM.T[::-1],
    "triangular": np.triu(RANDOM),
    # eigenvalues that float64 gets wrong
    "chain with feedback": fbchain_(torch.empty(60, 60, dtype=torch.float64), 0.99, 0.04).numpy(),
}

# what scales as W does: f(s W) = s f(W)
LINEAR: dict[str, Callable[[Any], Any]] = {
    "eigenvalues": lambda W: np.sort(np.abs(analysis.eigenvalues(W))),
    "spectral_radius": analysis.spectral_radius,
    "power": lambda W: analysis.spectral_radius(W, method="power"),
    "singular_values": analysis.singular_values,
    "spectral_norm": analysis.spectral_norm,
    "numerical_radius": analysis.numerical_radius,
    "numerical_range": lambda W: analysis.numerical_range(W, 8),
    "henrici": analysis.henrici,
    "feedforward_profile": lambda W: analysis.feedforward_profile(W)[0],
    "schur": lambda W: np.sort(np.abs(np.diagonal(analysis.schur(W)[0]))),
}
# what does not change
CONSTANT: dict[str, Callable[[Any], Any]] = {
    "henrici": lambda W: analysis.henrici(W, normalized=True),
    "commutator_norm": analysis.commutator_norm,
    "conditions": lambda W: np.sort(analysis.eigenvalue_condition_numbers(W)),
    "eigenvector_condition": analysis.eigenvector_condition,
    "trusted": analysis.eigenvalues_trusted,
}


def test_the_rotation_of_the_issue() -> None:
    W = np.array([[0.0, 1.0], [-1.0, 0.0]])
    for scale in (1e150, 1e-150, 1e300, 1e-300):
        assert analysis.spectral_radius(W * scale) == pytest.approx(scale, rel=1e-14)


def test_a_complex_number_whose_modulus_a_double_cannot_hold() -> None:
    W = np.array([[0, 1.7e308 * (1 + 1j)], [0, 0]])
    assert analysis.henrici(W, normalized=True) == pytest.approx(1)
    assert analysis.commutator_norm(W) == pytest.approx(math.sqrt(2))


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("matrix", ["rotation", "random", "complex", "triangular"])
@pytest.mark.parametrize("name", LINEAR)
@pytest.mark.filterwarnings("ignore:the power method has not converged")
def test_linear(name: str, matrix: str, scale: float) -> None:
    W = MATRICES[matrix]
    f = LINEAR[name]
    np.testing.assert_allclose(f(scale * W), scale * np.asarray(f(W)), rtol=1e-7, atol=1e-14 * scale)


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("matrix", ["rotation", "random", "complex"])
@pytest.mark.parametrize("name", CONSTANT)
def test_constant(name: str, matrix: str, scale: float) -> None:
    W = MATRICES[matrix]
    f = CONSTANT[name]
    np.testing.assert_allclose(f(scale * W), f(W), rtol=1e-7, atol=1e-14)


@pytest.mark.parametrize("scale", SCALES)
def test_where_high_precision_is_needed(scale: float) -> None:
    W = MATRICES["chain with feedback"]
    assert not analysis.eigenvalues_trusted(W)
    assert analysis.spectral_radius(scale * W) == pytest.approx(scale * analysis.spectral_radius(W), rel=1e-9)
    assert analysis.henrici(scale * W) == pytest.approx(scale * analysis.henrici(W), rel=1e-9)


@pytest.mark.parametrize("scale", [1e70, 1e-70])
def test_the_commutator_scales_with_the_square(scale: float) -> None:
    size = analysis.commutator_norm(RANDOM, normalized=False)
    assert analysis.commutator_norm(scale * RANDOM, normalized=False) == pytest.approx(scale**2 * size, rel=1e-12)


@pytest.mark.parametrize("scale", SCALES)
def test_resolvents_and_pseudospectra(scale: float) -> None:
    z = np.array([1.0, 2j, -3 + 1j])
    expected = scale * analysis.smallest_singular_values(RANDOM, z)
    np.testing.assert_allclose(analysis.smallest_singular_values(scale * RANDOM, scale * z), expected, rtol=1e-6)
    for f in (analysis.pseudospectral_radius, analysis.pseudospectral_abscissa):
        assert f(scale * RANDOM, scale * 0.1) == pytest.approx(scale * f(RANDOM, 0.1), rel=1e-8)
    box = (-3.0, 3.0, -3.0, 3.0)
    there = analysis.pseudospectrum(scale * RANDOM, 5, tuple(scale * side for side in box))
    here = analysis.pseudospectrum(RANDOM, 5, box)
    np.testing.assert_allclose(there.sigma, scale * here.sigma, rtol=1e-6)
    assert np.isfinite(analysis.pseudospectrum(scale * RANDOM, 5).sigma).all()


@pytest.mark.parametrize("scale", [1e-150, 1e-250])
def test_hardly_a_matrix(scale: float) -> None:
    """1 - |W| <= beta <= 1, K = 1, and powers vanish."""
    W = scale * RANDOM
    assert analysis.distance_to_instability(W) == pytest.approx(1.0, rel=1e-12)
    assert analysis.kreiss_lower_bound(W) == 1.0
    growth = analysis.transient_growth(W, 3)
    assert growth.norms[0] == 1 and growth.norms[1] == pytest.approx(scale * np.linalg.norm(RANDOM, 2))
    assert growth.norms[3] == 0


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("scale", [1e-40, 1e-160, 1e-300])
def test_nothing_is_left_of_it_beside_a_number(scale: float, method: Any) -> None:
    """|z| - |W| <= sigma_min <= |z| + |W|, and rho + eps <= rho_eps <= |W| + eps, which are one number."""
    W, z = scale * RANDOM, np.array([1.2, -0.3j, 3 - 4j])
    np.testing.assert_allclose(analysis.smallest_singular_values(W, z, method), np.abs(z), rtol=1e-14)
    np.testing.assert_allclose(analysis.smallest_singular_values(RANDOM, z / scale, method), np.abs(z) / scale, 1e-14)
    for f in (analysis.pseudospectral_radius, analysis.pseudospectral_abscissa):
        assert f(W, 0.1) == pytest.approx(0.1, rel=1e-14)
        assert f(RANDOM, 0.1 / scale) == pytest.approx(0.1 / scale, rel=1e-14)


def test_a_norm_that_a_double_cannot_hold() -> None:
    """Eigenvalues 0 and 2e308 of a normal matrix: at 1e308 i the nearest is 0."""
    W = np.full((2, 2), 1e308)
    for method in METHODS:
        assert analysis.smallest_singular_values(W, [1e308j], method) == pytest.approx(1e308)


# ---- subnormal matrices, whose entries have few bits, and what has parts of very different sizes

LEAST = np.finfo(np.float64).smallest_subnormal


@pytest.fixture(autouse=True)
def _subnormal_numbers() -> None:
    """Which a `fit` in this process, as of another test, takes for zero."""
    torch.set_flush_denormal(False)


@pytest.mark.parametrize("exponent", [-1060, -1030, -532, 530, 1015])
@pytest.mark.parametrize("matrix", ["random", "complex", "triangular"])
def test_a_power_of_two_changes_no_digit(matrix: str, exponent: int) -> None:
    """Of W as it is, with few bits: A = W 2^-e is exact, and f(W) = f(A) 2^e but for the result's own rounding."""
    W = times_power_of_two(MATRICES[matrix], exponent)
    A = times_power_of_two(W, -exponent)
    z, eps = np.array([1.0, 2j, -3 + 1j]), 0.125

    def same(found: Any, expected: Any, rtol: float = 1e-9) -> None:
        np.testing.assert_allclose(found, times_power_of_two(np.asarray(expected), exponent), rtol, atol=2 * LEAST)

    for name, f in LINEAR.items():
        if name != "power":
            same(f(W), f(A))
    for method in METHODS:
        at = times_power_of_two(z, exponent)
        same(analysis.smallest_singular_values(W, at, method), analysis.smallest_singular_values(A, z, method))
    for f in (analysis.pseudospectral_radius, analysis.pseudospectral_abscissa):
        same(f(W, math.ldexp(eps, exponent)), f(A, eps))
    assert analysis.henrici(W, normalized=True) == pytest.approx(analysis.henrici(A, normalized=True), rel=1e-12)
    growth, there = analysis.transient_growth(W, 3), analysis.transient_growth(A, 3)
    for found, expected in zip(growth[:5], there[:5], strict=True):
        same(found[1], expected[1])
        assert found[0] == pytest.approx(expected[0])


@pytest.mark.parametrize("exponent", [-1060, -1030])
def test_hardly_anything(exponent: int) -> None:
    W = times_power_of_two(RANDOM, exponent)
    assert analysis.distance_to_instability(W) == 1.0 and analysis.kreiss_lower_bound(W) == 1.0
    np.testing.assert_array_equal(analysis.fisher_memory_curve(W, np.ones(6), 3), [6, 0, 0])


def test_the_kreiss_constant_of_a_huge_chain_is_a_number() -> None:
    assert analysis.kreiss_lower_bound(1e160 * np.diag(np.ones(4), -1)) > 1e10


def test_a_small_block_beside_a_large_one() -> None:
    """What is 1e-200 of the norm is lost next to it, unless nothing else departs from normality."""
    W = scipy.linalg.block_diag(1.0, 1e-200 * np.eye(2, k=1))
    assert analysis.henrici(W) == analysis.feedforward_profile(W)[1] == pytest.approx(1e-200, abs=0)
    chain = np.eye(8, k=-1)
    chain[0, -1] = 1e-12
    assert not analysis.eigenvalues_trusted(chain)
    twin = scipy.linalg.block_diag(1.0, 1e-200 * chain)
    assert analysis.henrici(twin) == pytest.approx(1e-200 * analysis.henrici(chain), rel=1e-9, abs=0)


@pytest.mark.parametrize("gain", [1e-160, 1e-310, 1e160, 1e300, 1.0])
def test_a_chain_of_any_gain_has_a_single_peak(gain: float) -> None:
    """Behind two steps no double holds |h|, nor behind one of a subnormal gain."""
    offsets, weights = analysis.hidden_chain_profile(gain * np.diag(np.ones(5), -1), np.eye(6)[0])
    np.testing.assert_allclose(weights, np.where(offsets == 1, gain, 0.0), rtol=1e-12)


@pytest.mark.parametrize(("gain", "size", "noise"), [(1e-100, 1e150, 1.0), (1e-160, 1e150, 1.0), (0.5, 1e-150, 1e-310)])
def test_fisher_memory_that_no_product_may_lose(gain: float, size: float, noise: float) -> None:
    """J(k) = |v|^2 a^2k / (noise sum_{m <= k} a^2m), of which a^2k alone may vanish and 1 / noise overflow."""
    W, v = gain * np.diag(np.ones(3), -1), size * np.eye(4)[0]
    exact = [
        float(
            Fraction(size) ** 2
            * Fraction(gain) ** (2 * k)
            / sum(Fraction(gain) ** (2 * m) for m in range(k + 1))
            / Fraction(noise)
        )
        for k in range(3)
    ]
    np.testing.assert_allclose(analysis.fisher_memory_curve(W, v, 3, noise), exact, rtol=1e-12)
    whole = analysis.total_fisher_memory(W, v, noise)
    assert whole == pytest.approx(analysis.fisher_memory_curve(W, v, 4, noise).sum(), rel=1e-12)


@pytest.mark.parametrize("exponent", [-1060, -600, 900])
def test_lyapunov_exponents_of_trajectories_of_very_different_sizes(exponent: int) -> None:
    J = np.random.default_rng(1).standard_normal((20, 2, 4, 4))
    J[:, 1] = times_power_of_two(J[:, 1], exponent)
    near_one = times_power_of_two(J[:, 1], -exponent)  # exactly
    expected = [analysis.lyapunov_spectrum(J[:, 0]), analysis.lyapunov_spectrum(near_one) + exponent * math.log(2)]
    np.testing.assert_allclose(analysis.lyapunov_spectrum(J), expected, rtol=1e-12)


@pytest.mark.parametrize("scale", [1e150, 1e250])
def test_a_huge_one(scale: float) -> None:
    W = scale * RANDOM
    assert analysis.distance_to_instability(W) == 0 and math.isinf(analysis.kreiss_lower_bound(W))
    growth = analysis.transient_growth(W, 3)
    assert growth.norms[1] == pytest.approx(scale * np.linalg.norm(RANDOM, 2)) and math.isinf(growth.norms[3])
    exact = scale * float(np.abs(np.linalg.eigvals(RANDOM)).max())
    assert growth.spectral[1] == pytest.approx(exact)
    assert (growth.spectral <= growth.norms * (1 + 1e-9)).all() and (growth.norms <= growth.numerical).all()


@pytest.mark.parametrize("noise", [1e150, 1e-150, 1.0])
@pytest.mark.parametrize("scale", [1e75, 1e-75, 1.0])
def test_fisher_memory_is_quadratic_in_the_signal(scale: float, noise: float) -> None:
    W, v = 0.3 * RANDOM / np.linalg.norm(RANDOM, 2), np.arange(1.0, 7.0)
    factor = scale * scale / noise
    J = analysis.fisher_memory_curve(W, v, 4)
    np.testing.assert_allclose(analysis.fisher_memory_curve(W, scale * v, 4, noise), factor * J, rtol=1e-10)
    total = analysis.total_fisher_memory(W, v)
    assert analysis.total_fisher_memory(W, scale * v, noise) == pytest.approx(factor * total, rel=1e-10)


@pytest.mark.parametrize("scale", [1e150, 1e-150, 1e120])
def test_fisher_memory_of_a_chain_of_any_gain(scale: float) -> None:
    """C = diag(1, 1 + a^2, 1 + a^2 + a^4, ..) and J(k) = a^2k / sum_{m <= k} a^2m: 1 for a huge gain, 0 for a tiny."""
    W = scale * np.diag(np.ones(4), -1)
    v = np.eye(5)[0]
    tail = 1.0 if scale > 1 else 0.0
    np.testing.assert_allclose(analysis.fisher_memory_curve(W, v, 6), [1, tail, tail, tail, tail, 0], atol=1e-12)
    assert analysis.total_fisher_memory(W, v) == pytest.approx(1 + 4 * tail, rel=1e-12)


@pytest.mark.parametrize("scale", [1e150, 1e-150, 1e200])
def test_decoder_memory_does_not_see_the_scale_of_states(scale: float) -> None:
    W, v = RANDOM / np.linalg.norm(RANDOM, 2), np.ones(6)
    expected = analysis.decoder_memory(W, v, [0, 2], samples=200)
    np.testing.assert_allclose(analysis.decoder_memory(W, scale * v, [0, 2], samples=200), expected, rtol=1e-6)


@pytest.mark.parametrize("scale", SCALES)
def test_lyapunov_exponents_move_by_the_logarithm(scale: float) -> None:
    J = np.random.default_rng(1).standard_normal((20, 4, 4))
    expected = analysis.lyapunov_spectrum(J) + math.log(scale)
    np.testing.assert_allclose(analysis.lyapunov_spectrum(scale * J), expected, rtol=1e-12)


def test_lyapunov_exponents_of_the_largest_numbers() -> None:
    """Eigenvalues 1.7e308 (1 +- i), whose modulus a double cannot hold; its logarithm it can."""
    J = 1.7e308 * np.array([[1.0, -1.0], [1.0, 1.0]])
    np.testing.assert_allclose(analysis.lyapunov_spectrum([J] * 3), math.log(1.7e308) + math.log(2) / 2, rtol=1e-12)


@pytest.mark.parametrize("scale", [1e150, 1e-200, 1e-250])
def test_gradients_that_have_nearly_vanished(scale: float) -> None:
    cell = VanillaRNNCell(2, 4).double()
    x = torch.randn(5, 3, 2, dtype=torch.float64)
    (one,) = analysis.gradient_against_lag(cell, x, lambda y: y[-1].sum())
    (other,) = analysis.gradient_against_lag(cell, x, lambda y: scale * y[-1].sum())
    assert (one.gradient > 0).all()
    np.testing.assert_allclose(other.gradient, scale * one.gradient, rtol=1e-12)
