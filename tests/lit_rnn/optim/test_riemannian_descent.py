"""Where Riemannian optimizers go: geoopt's paths beside ours, convergence to known optima, and drift off the group."""

import math
import warnings
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from scipy import linalg

from lit_rnn.optim import RiemannianAdam, RiemannianRMSprop, RiemannianSGD
from tests.lit_rnn.optim.test_riemannian import OPTIMIZERS, each_field, each_optimizer, each_retraction
from tests.oracles.optim import (
    Problem,
    adjoint,
    array,
    distance,
    drift,
    normal,
    on_manifold,
    parameter,
    random_point,
    run,
)

# -- geoopt ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def geoopt() -> Iterator[ModuleType]:
    with warnings.catch_warnings():
        # geoopt 0.5.1 scripts its helpers at import time
        warnings.filterwarnings("ignore", "`torch.jit.script` is deprecated")
        import geoopt as module
    with pytest.MonkeyPatch.context() as patch:  # torch 2.9 has 12 digits of a small matrix
        patch.setattr(module.linalg, "expm", lambda A: torch.from_numpy(linalg.expm(A.numpy())))
        yield module


def geoopt_path(
    geoopt: ModuleType, manifold: str, name: str, options: dict[str, Any], steps: int
) -> tuple[list[np.ndarray], Problem]:
    """Geoopt's SGD starts its momentum at the Euclidean gradient, which is not tangent; here it starts at zero."""
    problem = Problem(5, False)
    W = geoopt.ManifoldParameter(torch.tensor(problem.start), manifold=getattr(geoopt, manifold)())
    optimizer = getattr(geoopt.optim, f"Riemannian{name}")([W], **options)
    if options.get("momentum"):
        optimizer.state[W]["momentum_buffer"] = torch.zeros_like(problem.tensors[0])
    path = []
    for _ in range(steps):
        run(optimizer, W, problem.loss, 1)
        path.append(array(W))
    return path, problem


def our_path(problem: Problem, name: str, options: dict[str, Any], steps: int) -> list[np.ndarray]:
    W = parameter(problem.start)
    optimizer = {"SGD": RiemannianSGD, "Adam": RiemannianAdam}[name](on_manifold(W), **options)
    path = []
    for _ in range(steps):
        run(optimizer, W, problem.loss, 1)
        path.append(array(W))
    return path


@pytest.mark.parametrize(
    ("manifold", "retraction"), [("EuclideanStiefel", "qr"), ("EuclideanStiefelExact", "exp")], ids=["qr", "exp"]
)
@pytest.mark.parametrize(
    ("name", "options"), [("SGD", {"lr": 1e-3}), ("Adam", {"lr": 0.1, "betas": (0.0, 0.95)})], ids=["SGD", "Adam"]
)
def test_equals_geoopt_s_euclidean_stiefel_without_momentum(
    geoopt: ModuleType, manifold: str, retraction: str, name: str, options: dict[str, Any]
) -> None:
    theirs, problem = geoopt_path(geoopt, manifold, name, options, 20)
    ours = our_path(problem, name, {**options, "metric": "euclidean", "retraction": retraction}, 20)
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-11)
    assert distance(ours[-1], problem.start) > 0.2


@pytest.mark.parametrize(
    ("name", "options", "factor"),
    [
        ("SGD", {"lr": 5e-4}, 2.0),
        ("SGD", {"lr": 1e-4, "momentum": 0.9}, 2.0),
        ("Adam", {"lr": 0.02, "betas": (0.9, 0.99), "eps": 1e-4}, 2 * math.sqrt(2)),
    ],
    ids=["SGD", "SGD-momentum", "Adam"],
)
def test_equals_geoopt_s_canonical_stiefel_at_another_rate(
    geoopt: ModuleType, name: str, options: dict[str, Any], factor: float
) -> None:
    """Geoopt puts A = U X^T - X U^T = 2 Omega, without the (I - X X^T / 2) of the paper, into (I - A/2)^-1 (I + A/2) X,
    which therefore moves twice as far as U; and its Adam measures U in the canonical metric, |U|^2 / 2, so that it
    divides by a root that is sqrt 2 smaller. Momentum agrees: its transport rotates Omega by a function of Omega."""
    theirs, problem = geoopt_path(geoopt, "CanonicalStiefel", name, options, 20)
    same = {**options, "metric": "canonical", "retraction": "cayley", "lr": factor * options["lr"]}
    if name == "Adam":
        same["eps"] = math.sqrt(2) * options["eps"]
    np.testing.assert_allclose(our_path(problem, name, same, 20), theirs, rtol=0, atol=1e-10)
    assert distance(theirs[-1], problem.start) > 0.2


@pytest.mark.parametrize(
    ("name", "options"),
    [("SGD", {"lr": 4e-4, "momentum": 0.9}), ("Adam", {"lr": 0.02, "betas": (0.9, 0.95)})],
    ids=["SGD", "Adam"],
)
def test_momentum_differs_from_geoopt_s_projection_by_third_order(
    geoopt: ModuleType, name: str, options: dict[str, Any]
) -> None:
    """EuclideanStiefel projects the buffer on the new tangent space, which loses O(lr^2) of it: after two steps the
    points are O(lr^3) apart. Right translation loses nothing."""
    gaps = []
    for lr in (options["lr"], options["lr"] / 2, options["lr"] / 4):
        theirs, problem = geoopt_path(geoopt, "EuclideanStiefel", name, {**options, "lr": lr}, 2)
        ours = our_path(problem, name, {**options, "lr": lr, "retraction": "qr"}, 2)
        gaps.append(np.linalg.norm(ours[1] - theirs[1]))
        assert distance(ours[0], theirs[0]) < 1e-14
    np.testing.assert_allclose(np.log2(np.divide(gaps[:-1], gaps[1:])), 3, rtol=0, atol=0.3)


# -- convergence -----------------------------------------------------------------------------------

FITS: dict[str, tuple[Callable[..., Any], dict[str, Any], float]] = {
    "SGD": (RiemannianSGD, {"lr": 0.2, "momentum": 0.5}, 1.0),
    "RMSprop": (RiemannianRMSprop, {"lr": 0.2}, 0.98),
    "Adam": (RiemannianAdam, {"lr": 0.5}, 0.98),
}


def fit(name: str, start: np.ndarray, goal: np.ndarray, **options: Any) -> torch.nn.Parameter:
    """Descend on 1/2 |W - goal|^2 at a falling rate."""
    W, M = parameter(start), torch.tensor(goal)
    build, defaults, decay = FITS[name]
    optimizer = build(on_manifold(W), **defaults, **options)
    run(optimizer, W, lambda V: (V - M).abs().square().sum() / 2, 600, decay)
    return W


def stretched(rng: np.random.Generator, Q: np.ndarray) -> np.ndarray:
    """Q S with S symmetric positive definite: its polar factor is Q, and nothing on the manifold is nearer."""
    basis = random_point(rng, len(Q), np.iscomplexobj(Q))
    M = Q @ basis @ np.diag(rng.uniform(1, 2, len(Q))) @ adjoint(basis)
    np.testing.assert_allclose(linalg.polar(M)[0], Q, atol=1e-12)
    return M


@each_retraction
@pytest.mark.parametrize("group", ["SO", "O with det -1", "U"])
@pytest.mark.parametrize("name", FITS)
def test_a_random_target_is_reached(name: str, group: str, retraction: str) -> None:
    rng = np.random.default_rng(11)
    is_complex, det = group == "U", -1 if group == "O with det -1" else 1
    target, start = (random_point(rng, 6, is_complex, det) for _ in range(2))
    assert distance(start, target) > 0.5
    W = fit(name, start, target, retraction=retraction)
    assert distance(array(W), target) < 1e-4
    assert drift(W) < 1e-12


@pytest.mark.parametrize("group", ["SO", "O with det -1", "U"])
@pytest.mark.parametrize("name", ["SGD", "Adam"])
def test_procrustes(name: str, group: str) -> None:
    """min |W - M|^2 over the component of the start is solved by the polar factor of M, where G is not zero."""
    rng = np.random.default_rng(12)
    is_complex, det = group == "U", -1 if group == "O with det -1" else 1
    target, start = (random_point(rng, 6, is_complex, det) for _ in range(2))
    W = fit(name, start, stretched(rng, target))
    assert distance(array(W), target) < 1e-4


def test_rescaled_gradients_have_other_stationary_points() -> None:
    """At the Procrustes solution the gradient is normal to the manifold, but G / (sqrt v + eps) is not: RMSprop, which
    rescales before it projects as Wisdom's code does, leaves a minimum that the other two keep. Only where G itself
    vanishes do they agree."""
    rng = np.random.default_rng(12)
    target = random_point(rng, 5, False)
    moved = {}
    for name, (build, options) in OPTIMIZERS.items():
        for residual, M in ((True, stretched(rng, target)), (False, target)):
            W, goal = parameter(target), torch.tensor(M)
            optimizer = build(on_manifold(W), **{**options, "lr": 1e-2})
            run(optimizer, W, lambda V, goal=goal: (V - goal).square().sum() / 2, 1)
            moved[name, residual] = distance(array(W), target)
    assert moved.pop(("RMSprop", True)) > 1e-3
    assert max(moved.values()) < 1e-10  # Adam's eps is 1e-6


@pytest.mark.parametrize("name", ["SGD", "Adam"])
def test_a_rotation_never_becomes_a_reflection(name: str) -> None:
    """The nearest rotation to a reflection T is at |W - T|^2 = 4: that is where descent ends."""
    rng = np.random.default_rng(3)
    target = random_point(rng, 5, False, -1)
    W = fit(name, random_point(rng, 5, False, 1), target)
    assert np.linalg.norm(array(W) - target) ** 2 == pytest.approx(4, abs=1e-4)
    assert np.linalg.det(array(W)) == pytest.approx(1, abs=1e-12)


# -- drift -----------------------------------------------------------------------------------------


@each_field
@each_optimizer
@pytest.mark.parametrize("retraction", ["cayley", "exp"])
def test_drift_above_the_bound_is_projected_away(name: str, is_complex: bool, retraction: str) -> None:
    """Without a gradient the step itself moves nothing: what is left is the polar factor."""
    rng = np.random.default_rng(0)
    drifted = random_point(rng, 6, is_complex) + 1e-3 * normal(rng, 6, is_complex)
    W = parameter(drifted)
    W.grad = torch.zeros_like(W)
    storage = W.data_ptr()
    OPTIMIZERS[name][0](on_manifold(W), lr=0.1, retraction=retraction).step()
    np.testing.assert_allclose(array(W), linalg.polar(drifted)[0], rtol=0, atol=1e-13)
    assert W.data_ptr() == storage


@each_field
@each_optimizer
@pytest.mark.parametrize(("size", "options"), [(1e-7, {}), (1e-4, {"drift_bound": 1e-2})])
def test_drift_below_the_bound_is_left_alone(name: str, is_complex: bool, size: float, options: dict[str, Any]) -> None:
    rng = np.random.default_rng(0)
    drifted = random_point(rng, 6, is_complex) + size * normal(rng, 6, is_complex)
    W = parameter(drifted)
    W.grad = torch.zeros_like(W)
    OPTIMIZERS[name][0](on_manifold(W), lr=0.1, **options).step()
    assert distance(array(W), drifted) <= 1e-14
    assert distance(linalg.polar(drifted)[0], drifted) > 0.1 * size


@each_field
@each_optimizer
@each_retraction
def test_a_drifted_start_is_on_the_manifold_after_one_step(name: str, is_complex: bool, retraction: str) -> None:
    problem = Problem(6, is_complex)
    W = parameter(problem.start * 1.01)
    run(OPTIMIZERS[name][0](on_manifold(W), lr=1e-3, retraction=retraction), W, problem.loss, 1)
    assert drift(W) < 1e-13
