"""The Riemannian gradient and the retractions of O(n) and U(n), against linear algebra written out in NumPy."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy import linalg
from torch import Tensor

from lit_rnn.optim import retract, riemannian_gradient
from tests.lit_rnn.optim.test_riemannian import METRICS, RETRACTIONS, each_field, each_metric, each_retraction
from tests.oracles.optim import (
    adjoint,
    distance,
    drift,
    gradient_by_linear_algebra,
    metric_at,
    normal,
    parameter,
    random_point,
    random_skew,
    retract_by_hand,
    skew,
    skew_basis,
)

# -- the gradient ----------------------------------------------------------------------------------


def gradient(W: np.ndarray, G: np.ndarray, metric: str) -> np.ndarray:
    return riemannian_gradient(torch.tensor(W), torch.tensor(G), metric).numpy()


@each_metric
@each_field
@pytest.mark.parametrize("n", [1, 2, 3, 6])
def test_gradient_represents_the_derivative_in_its_metric(n: int, is_complex: bool, metric: str) -> None:
    rng = np.random.default_rng(n)
    W, G = random_point(rng, n, is_complex), normal(rng, n, is_complex)
    np.testing.assert_allclose(gradient(W, G, metric), gradient_by_linear_algebra(W, G, metric), rtol=0, atol=1e-12)


@each_field
@pytest.mark.parametrize("n", [1, 2, 3, 6])
def test_euclidean_gradient_is_the_nearest_tangent_vector(n: int, is_complex: bool) -> None:
    """Least squares over the real coefficients of a basis of the tangent space, real and imaginary parts stacked."""
    rng = np.random.default_rng(10 + n)
    W, G = random_point(rng, n, is_complex), normal(rng, n, is_complex)
    tangents = [E @ W for E in skew_basis(n, is_complex)]
    assert len(tangents) == (n * n if is_complex else n * (n - 1) // 2)
    nearest = np.zeros_like(W)
    if tangents:
        columns = np.array([np.concatenate([X.real.ravel(), X.imag.ravel()]) for X in tangents]).T
        c = np.linalg.lstsq(columns, np.concatenate([G.real.ravel(), G.imag.ravel()]), rcond=None)[0]
        nearest = np.tensordot(c, np.array(tangents), axes=1)
    np.testing.assert_allclose(gradient(W, G, "euclidean"), nearest, rtol=0, atol=1e-12)


@each_field
def test_canonical_gradient_is_twice_the_euclidean_one(is_complex: bool) -> None:
    rng = np.random.default_rng(0)
    W, G = random_point(rng, 5, is_complex), normal(rng, 5, is_complex)
    np.testing.assert_allclose(gradient(W, G, "canonical"), 2 * gradient(W, G, "euclidean"), rtol=0, atol=1e-13)
    assert abs(gradient(W, G, "euclidean")).max() > 0.1


@each_field
def test_a_tangent_gradient_is_its_own_projection_and_a_normal_one_vanishes(is_complex: bool) -> None:
    rng = np.random.default_rng(0)
    W, M = random_point(rng, 5, is_complex), normal(rng, 5, is_complex)
    tangent, orthogonal_to_it = skew(M) @ W, (M + adjoint(M)) @ W
    np.testing.assert_allclose(gradient(W, tangent, "euclidean"), tangent, rtol=0, atol=1e-13)
    np.testing.assert_allclose(gradient(W, orthogonal_to_it, "euclidean"), 0, atol=1e-13)


@each_metric
@each_field
def test_directional_derivatives_of_a_curved_function(is_complex: bool, metric: str) -> None:
    """d/dt f(exp(t Omega) W) by central differences, f = Re tr(C W D W W) + |W_11 W_22|^2, G by autograd."""
    n, h = 4, 1e-4
    rng = np.random.default_rng(3)
    W = random_point(rng, n, is_complex)
    C, D = (torch.tensor(normal(rng, n, is_complex)) for _ in range(2))

    def f(V: Tensor) -> Tensor:
        trace = (C @ V @ D @ V @ V).diagonal().sum()
        return (trace.real if is_complex else trace) + (V[0, 0] * V[1, 1]).abs().square()

    point = parameter(W)
    f(point).backward()
    X = gradient(W, point.grad.numpy(), metric)
    for Omega in skew_basis(n, is_complex):
        ahead, behind = (f(torch.tensor(linalg.expm(t * Omega) @ W)).item() for t in (h, -h))
        assert metric_at(metric, W, X, Omega @ W) == pytest.approx((ahead - behind) / (2 * h), rel=0, abs=1e-5)
    assert abs(X).max() > 1.0


# -- retractions -----------------------------------------------------------------------------------


def retracted(W: np.ndarray, Omega: np.ndarray, retraction: str) -> np.ndarray:
    return retract(torch.tensor(W), torch.tensor(Omega), retraction).numpy()


@each_retraction
@each_field
@pytest.mark.parametrize("n", [1, 2, 3, 17])
def test_retraction_is_its_formula(n: int, is_complex: bool, retraction: str) -> None:
    rng = np.random.default_rng(n)
    W, Omega = random_point(rng, n, is_complex), random_skew(rng, n, is_complex, 1.5)
    expected = retract_by_hand(W, Omega, retraction)
    np.testing.assert_allclose(retracted(W, Omega, retraction), expected, rtol=0, atol=1e-12)
    if n > 2:
        assert all(distance(expected, retract_by_hand(W, Omega, r)) > 0.01 for r in RETRACTIONS if r != retraction)


def test_angles_of_a_plane_rotation() -> None:
    """Omega = s J turns the plane by s (exp), 2 arctan(s/2) (Cayley), arctan s (polar and QR, the same in a plane)."""
    angles: dict[str, Callable[[float], float]] = {
        "exp": lambda s: s,
        "cayley": lambda s: 2 * math.atan(s / 2),
        "polar": math.atan,
        "qr": math.atan,
    }
    J = np.array([[0.0, -1.0], [1.0, 0.0]])
    for s in (0.3, -2.5):
        for retraction, angle in angles.items():
            c, d = math.cos(angle(s)), math.sin(angle(s))
            np.testing.assert_allclose(retracted(np.eye(2), s * J, retraction), [[c, -d], [d, c]], rtol=0, atol=1e-14)


@pytest.mark.parametrize(("retraction", "order"), [("cayley", 3), ("polar", 3), ("qr", 2)])
@each_field
def test_order_of_agreement_with_the_geodesic(retraction: str, order: int, is_complex: bool) -> None:
    """|R(t Omega) W - exp(t Omega) W| ~ t^order: Cayley and polar are of second order, QR of first."""
    rng = np.random.default_rng(1)
    W, Omega = random_point(rng, 6, is_complex), random_skew(rng, 6, is_complex, 2.0)
    errors = [
        np.linalg.norm(retracted(W, t * Omega, retraction) - linalg.expm(t * Omega) @ W) for t in (0.02, 0.01, 0.005)
    ]
    slopes = np.log2(np.divide(errors[:-1], errors[1:]))
    np.testing.assert_allclose(slopes, order, rtol=0, atol=0.1)


@each_retraction
@each_field
@pytest.mark.parametrize("norm", [0.1, 3.0, 30.0])
@pytest.mark.parametrize("det", [1, -1])
def test_retraction_stays_on_the_manifold_and_in_its_component(
    retraction: str, is_complex: bool, norm: float, det: int
) -> None:
    rng = np.random.default_rng(5)
    W, Omega = random_point(rng, 9, is_complex, det), random_skew(rng, 9, is_complex, norm)
    V = retract(torch.tensor(W), torch.tensor(Omega), retraction)
    assert drift(V) < 1e-13
    if is_complex:
        assert distance(V, W) > 0.01
    else:
        assert np.linalg.det(V.numpy()) == pytest.approx(det, abs=1e-12)


@each_retraction
@each_field
def test_single_precision_stays_single(retraction: str, is_complex: bool) -> None:
    rng = np.random.default_rng(5)
    single = torch.complex64 if is_complex else torch.float32
    W, Omega = random_point(rng, 9, is_complex), random_skew(rng, 9, is_complex, 1.0)
    V = retract(torch.tensor(W).to(single), torch.tensor(Omega).to(single), retraction)
    assert V.dtype == single
    np.testing.assert_allclose(V.numpy(), retract_by_hand(W, Omega, retraction), rtol=0, atol=5e-6)
    G = riemannian_gradient(torch.tensor(W).to(single), torch.tensor(Omega).to(single), "canonical")
    assert G.dtype == single


@each_retraction
@each_field
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_direction_of_no_numbers_gives_none(retraction: str, is_complex: bool, bad: float) -> None:
    """It raises nothing: the loss is what tells a run that has diverged."""
    W = torch.eye(3, dtype=torch.complex64 if is_complex else torch.float32)
    assert not retract(W, torch.full_like(W, bad), retraction).isfinite().any()


@each_retraction
@each_field
def test_nothing_moves_without_a_direction(retraction: str, is_complex: bool) -> None:
    W = random_point(np.random.default_rng(0), 5, is_complex)
    np.testing.assert_allclose(retracted(W, np.zeros_like(W), retraction), W, rtol=0, atol=1e-14)


@each_retraction
@each_field
def test_which_symmetries_hold(retraction: str, is_complex: bool) -> None:
    """A change of basis on the left commutes with all four, one on the right with all but QR."""
    rng = np.random.default_rng(2)
    W, U = random_point(rng, 5, is_complex), random_point(rng, 5, is_complex)
    Omega = random_skew(rng, 5, is_complex, 1.0)
    moved = retracted(W, Omega, retraction)
    np.testing.assert_allclose(retracted(U @ W, U @ Omega @ adjoint(U), retraction), U @ moved, rtol=0, atol=1e-13)
    gap = distance(retracted(W @ U, Omega, retraction), moved @ U)
    assert gap > 0.01 if retraction == "qr" else gap < 1e-13


def test_pure_functions_leave_their_arguments_alone() -> None:
    rng = np.random.default_rng(0)
    W, G = torch.tensor(random_point(rng, 4, True)), torch.tensor(normal(rng, 4, True))
    Omega = torch.tensor(random_skew(rng, 4, True))
    before = [t.clone() for t in (W, G, Omega)]
    for metric in METRICS:
        riemannian_gradient(W, G, metric)
    for retraction in RETRACTIONS:
        retract(W, Omega, retraction)
    assert all(torch.equal(a, b) for a, b in zip((W, G, Omega), before, strict=True))
