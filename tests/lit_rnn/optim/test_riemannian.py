"""Riemannian optimizers on O(n) and U(n) against NumPy, torch's own optimizers and geoopt.

For a real function f of W and torch's gradient G = df/dRe W + i df/dIm W, the derivative of f along X is Re tr(G^H X).
The tangent space at W is {Omega W : Omega = -Omega^H}, and the gradient is the tangent vector that stands for that
derivative in the metric: Re tr(X^H Y), or the canonical Re tr(X^H (I - W W^H / 2) Y), which is half of it here.
"""

import copy
import io
import math
import warnings
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from scipy import linalg
from torch import Tensor

from datamodules import UserError
from lit_rnn.optim import RiemannianAdam, RiemannianRMSprop, RiemannianSGD, retract, riemannian_gradient

F64 = torch.float64
METRICS = ["euclidean", "canonical"]
RETRACTIONS = ["cayley", "qr", "polar", "exp"]
FIELDS = [False, True]
OPTIMIZERS: dict[str, tuple[Callable[..., Any], dict[str, Any]]] = {
    "SGD": (RiemannianSGD, {"lr": 0.02}),
    "SGD-momentum": (RiemannianSGD, {"lr": 0.02, "momentum": 0.8}),
    "RMSprop": (RiemannianRMSprop, {"lr": 0.02, "alpha": 0.9, "eps": 1e-6}),
    "Adam": (RiemannianAdam, {"lr": 0.1, "betas": (0.8, 0.95), "eps": 1e-6}),
}

each_metric = pytest.mark.parametrize("metric", METRICS)
each_retraction = pytest.mark.parametrize("retraction", RETRACTIONS)
each_field = pytest.mark.parametrize("is_complex", FIELDS, ids=["real", "complex"])
each_optimizer = pytest.mark.parametrize("name", OPTIMIZERS)


# -- the mathematics, in NumPy ---------------------------------------------------------------------


def normal(rng: np.random.Generator, n: int, is_complex: bool) -> np.ndarray:
    M = rng.normal(size=(n, n))
    return M + 1j * rng.normal(size=(n, n)) if is_complex else M


def adjoint(M: np.ndarray) -> np.ndarray:
    return M.conj().T


def skew(M: np.ndarray) -> np.ndarray:
    return (M - adjoint(M)) / 2


def random_skew(rng: np.random.Generator, n: int, is_complex: bool, norm: float = 1.0) -> np.ndarray:
    """With the given spectral norm, which is the largest angle of its exponential."""
    Omega = skew(normal(rng, n, is_complex))
    size = np.linalg.norm(Omega, 2)
    return Omega * (norm / size) if size else Omega


def random_point(rng: np.random.Generator, n: int, is_complex: bool, det: int = 1) -> np.ndarray:
    """Haar; over the reals with the determinant asked for."""
    Q, R = np.linalg.qr(normal(rng, n, is_complex))
    Q = Q * (np.diag(R) / abs(np.diag(R)))
    if not is_complex and np.linalg.det(Q) * det < 0:
        Q[:, 0] = -Q[:, 0]
    return Q


def inner(X: np.ndarray, Y: np.ndarray) -> float:
    return float(np.sum(X.conj() * Y).real)


def metric_at(metric: str, W: np.ndarray, X: np.ndarray, Y: np.ndarray) -> float:
    if metric == "euclidean":
        return inner(X, Y)
    return inner(X, Y - W @ adjoint(W) @ Y / 2)


def skew_basis(n: int, is_complex: bool) -> list[np.ndarray]:
    """n(n-1)/2 skew-symmetric matrices, or the n^2 of u(n)."""
    basis = []
    for i in range(n):
        for j in range(i):
            E = np.zeros((n, n), dtype=complex if is_complex else float)
            E[i, j], E[j, i] = 1, -1
            basis.append(E)
            if is_complex:
                basis.append(1j * abs(E))
        if is_complex:
            basis.append(1j * np.diag(np.eye(n)[i]))
    return basis


def gradient_by_linear_algebra(W: np.ndarray, G: np.ndarray, metric: str) -> np.ndarray:
    """The X = sum_k c_k E_k W with <X, E_l W>_metric = Re tr(G^H E_l W) for every l."""
    tangents = [E @ W for E in skew_basis(len(W), np.iscomplexobj(W))]
    if not tangents:
        return np.zeros_like(W)
    gram = np.array([[metric_at(metric, W, X, Y) for Y in tangents] for X in tangents])
    c = np.linalg.solve(gram, [inner(G, X) for X in tangents])
    return sum((c_k * X for c_k, X in zip(c, tangents, strict=True)), np.zeros_like(W))


def retract_by_hand(W: np.ndarray, Omega: np.ndarray, retraction: str) -> np.ndarray:
    eye = np.eye(len(W))
    if retraction == "exp":
        return linalg.expm(Omega) @ W
    if retraction == "cayley":
        return np.linalg.inv(eye - Omega / 2) @ (eye + Omega / 2) @ W
    M = W + Omega @ W
    if retraction == "qr":  # R^H is the Cholesky factor of M^H M, and its diagonal is positive
        return M @ np.linalg.inv(adjoint(np.linalg.cholesky(adjoint(M) @ M)))
    values, vectors = np.linalg.eigh(adjoint(M) @ M)
    return M @ vectors @ np.diag(values**-0.5) @ adjoint(vectors)


class ByHand:
    """The steps of the three optimizers, one matrix, in NumPy."""

    def __init__(self, name: str, metric: str, retraction: str, options: dict[str, Any]) -> None:
        self.rule = name.split("-")[0]
        self.factor = {"euclidean": 0.5, "canonical": 1.0}[metric]
        self.retraction, self.options = retraction, options
        self.Omega: Any = 0.0
        self.second: Any = 0.0
        self.steps = 0

    def generator(self, W: np.ndarray, G: np.ndarray) -> np.ndarray:
        return self.factor * (G @ adjoint(W) - W @ adjoint(G))

    def step(self, W: np.ndarray, G: np.ndarray) -> np.ndarray:
        options = self.options
        self.steps += 1
        if self.rule == "SGD":
            self.Omega = options.get("momentum", 0.0) * self.Omega + self.generator(W, G)
            move = self.Omega
        elif self.rule == "RMSprop":
            self.second = options["alpha"] * self.second + (1 - options["alpha"]) * abs(G) ** 2
            move = self.generator(W, G / (np.sqrt(self.second) + options["eps"]))
        else:
            beta1, beta2 = options["betas"]
            gradient = self.generator(W, G)
            self.Omega = beta1 * self.Omega + (1 - beta1) * gradient
            self.second = beta2 * self.second + (1 - beta2) * inner(gradient @ W, gradient @ W)
            mean = self.Omega / (1 - beta1**self.steps)
            move = mean / (math.sqrt(self.second / (1 - beta2**self.steps)) + options["eps"])
        return retract_by_hand(W, -options["lr"] * move, self.retraction)


class Problem:
    """f(W) = 1/2 |A W B - C|^2, whose torch gradient is A^H (A W B - C) B^H."""

    def __init__(self, n: int, is_complex: bool, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        self.A, self.B, self.C = (normal(rng, n, is_complex) for _ in range(3))
        self.start = random_point(rng, n, is_complex)
        self.tensors = [torch.tensor(M) for M in (self.A, self.B, self.C)]

    def gradient(self, W: np.ndarray) -> np.ndarray:
        return adjoint(self.A) @ (self.A @ W @ self.B - self.C) @ adjoint(self.B)

    def loss(self, W: Tensor) -> Tensor:
        A, B, C = self.tensors
        return 0.5 * (A @ W @ B - C).abs().square().sum()


def parameter(W: np.ndarray) -> torch.nn.Parameter:
    return torch.nn.Parameter(torch.tensor(W))


def on_manifold(*parameters: torch.nn.Parameter, **options: Any) -> list[dict[str, Any]]:
    return [{"params": list(parameters), "manifold": True, **options}]


def numbers(W: Tensor) -> np.ndarray:
    return W.detach().numpy().copy()


def distance(a: Any, b: Any) -> float:
    return float(abs(np.asarray(a) - np.asarray(b)).max())


def drift(W: Tensor) -> float:
    M = W.detach().numpy().astype(np.complex128)
    return distance(adjoint(M) @ M, np.eye(len(M)))


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
        c = np.linalg.lstsq(columns, np.concatenate([G.real.ravel(), G.imag.ravel()]))[0]
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


# -- trajectories ----------------------------------------------------------------------------------


@each_retraction
@each_metric
@each_field
@each_optimizer
def test_twenty_steps_equal_numpy(name: str, is_complex: bool, metric: str, retraction: str) -> None:
    problem = Problem(5, is_complex)
    build, options = OPTIMIZERS[name]
    if name.startswith("SGD"):
        options = {**options, "lr": options["lr"] / 20}  # the Hessian's largest eigenvalue is in the hundreds
    W = parameter(problem.start)
    optimizer = build(on_manifold(W), metric=metric, retraction=retraction, **options)
    expected, oracle = problem.start, ByHand(name, metric, retraction, options)
    for _ in range(20):
        optimizer.zero_grad()
        problem.loss(W).backward()
        optimizer.step()
        expected = oracle.step(expected, problem.gradient(expected))
        np.testing.assert_allclose(numbers(W), expected, rtol=0, atol=1e-10)
    assert distance(expected, problem.start) > 0.2


@each_optimizer
def test_the_defaults_are_a_euclidean_metric_and_cayley(name: str) -> None:
    ends = []
    for defaults in ({}, {"metric": "euclidean", "retraction": "cayley", "drift_bound": 1e-5}):
        problem = Problem(4, False)
        W = parameter(problem.start)
        run(OPTIMIZERS[name][0](on_manifold(W), lr=1e-3, **defaults), W, problem.loss, 5)
        ends.append(W.detach())
    assert torch.equal(*ends) and distance(ends[0], problem.start) > 1e-3


@pytest.mark.parametrize(
    ("build", "options"),
    [
        (RiemannianSGD, {"momentum": 0.0}),
        (RiemannianRMSprop, {"alpha": 0.99, "eps": 1e-8}),
        (RiemannianAdam, {"betas": (0.9, 0.999), "eps": 1e-8}),
    ],
)
def test_the_defaults_are_those_of_torch(build: Callable[..., Any], options: dict[str, Any]) -> None:
    (group,) = build([torch.nn.Parameter(torch.ones(1))], lr=1e-3).param_groups
    assert {key: group[key] for key in options} == options


def run(
    optimizer: torch.optim.Optimizer, W: Tensor, loss: Callable[[Tensor], Tensor], steps: int, decay: float = 1.0
) -> None:
    schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, decay)
    for _ in range(steps):
        optimizer.zero_grad()
        loss(W).backward()
        optimizer.step()
        schedule.step()


@each_field
def test_full_capacity_urnn_is_canonical_cayley_descent(is_complex: bool) -> None:
    """Wisdom et al. 2016: A = G W^H - W G^H, W <- (I + lr/2 A)^-1 (I - lr/2 A) W."""
    problem, lr, eye = Problem(6, is_complex), 1e-3, np.eye(6)
    W, expected = parameter(problem.start), problem.start
    optimizer = RiemannianSGD(on_manifold(W), lr=lr, metric="canonical", retraction="cayley")
    for _ in range(10):
        run(optimizer, W, problem.loss, 1)
        G = problem.gradient(expected)
        A = G @ adjoint(expected) - expected @ adjoint(G)
        expected = np.linalg.inv(eye + lr / 2 * A) @ (eye - lr / 2 * A) @ expected
    np.testing.assert_allclose(numbers(W), expected, rtol=0, atol=1e-11)


@each_field
def test_momentum_alone_goes_along_a_geodesic(is_complex: bool) -> None:
    """One gradient, then none: translated to the right, Omega keeps its direction and norm, so the steps add up to
    exp(-lr (1 + mu + mu^2 + ...) Omega) W. A projected or untransported buffer leaves this curve."""
    rng = np.random.default_rng(0)
    start, G = random_point(rng, 5, is_complex), normal(rng, 5, is_complex)
    W = parameter(start)
    optimizer = RiemannianSGD(on_manifold(W), lr=0.3, momentum=0.9, retraction="exp")
    Omega = skew(G @ adjoint(start))
    for step in range(12):
        W.grad = torch.tensor(G) if step == 0 else torch.zeros_like(W)
        optimizer.step()
        travelled = 0.3 * sum(0.9**k for k in range(step + 1))
        np.testing.assert_allclose(numbers(W), linalg.expm(-travelled * Omega) @ start, rtol=0, atol=1e-12)
    assert distance(numbers(W), start) > 0.5


@each_field
@pytest.mark.parametrize("name", ["SGD-momentum", "Adam"])
def test_momentum_is_kept_as_a_skew_generator(name: str, is_complex: bool) -> None:
    problem = Problem(5, is_complex)
    W = parameter(problem.start)
    build, options = OPTIMIZERS[name]
    optimizer = build(on_manifold(W), **{**options, "lr": 1e-3})
    run(optimizer, W, problem.loss, 7)
    tensors = [value for value in optimizer.state[W].values() if isinstance(value, Tensor)]
    (Omega,) = (value for value in tensors if value.shape == W.shape)
    assert all(value.numel() == 1 for value in tensors if value is not Omega)  # Adam's second moment is one number
    assert Omega.abs().max() > 0.1
    assert (Omega + Omega.mH).abs().max() <= 1e-13 * Omega.abs().max()


@each_optimizer
def test_each_matrix_has_its_own_state(name: str) -> None:
    problems = [Problem(4, False, seed) for seed in (1, 2)]
    build, options = OPTIMIZERS[name]
    options = {**options, "lr": 1e-3}
    together = [parameter(p.start) for p in problems]
    optimizer = build(on_manifold(*together), **options)
    for _ in range(5):
        optimizer.zero_grad()
        sum(p.loss(W) for p, W in zip(problems, together, strict=True)).backward()
        optimizer.step()
    for problem, W in zip(problems, together, strict=True):
        alone = parameter(problem.start)
        run(build(on_manifold(alone), **options), alone, problem.loss, 5)
        assert torch.equal(alone, W)


# -- groups ----------------------------------------------------------------------------------------

TORCH = {
    "SGD": (torch.optim.SGD, {"lr": 0.005}),
    "SGD-momentum": (torch.optim.SGD, {"lr": 0.005, "momentum": 0.9}),
    "RMSprop": (torch.optim.RMSprop, {"lr": 0.01, "alpha": 0.9, "eps": 1e-6}),
    "Adam": (torch.optim.Adam, {"lr": 0.01, "betas": (0.8, 0.95), "eps": 1e-6}),
}


def euclidean_parameters() -> list[torch.nn.Parameter]:
    """A vector, a tall and a square matrix, a number and a complex square matrix."""
    generator = torch.Generator().manual_seed(4)
    shapes = [((3,), F64), ((5, 2), F64), ((4, 4), F64), ((), F64), ((3, 3), torch.complex128)]
    return [torch.nn.Parameter(torch.randn(s, dtype=d, generator=generator)) for s, d in shapes]


def bowl(parameters: list[torch.nn.Parameter]) -> Tensor:
    """Not a quadratic, with each part on its own scale, for real and complex parameters."""
    values = [p.abs().square() for p in parameters]
    return torch.stack([((1 + k) * v + v.square()).sum() for k, v in enumerate(values)]).sum()


@each_optimizer
def test_other_groups_take_torch_s_step(name: str) -> None:
    """With a manifold group beside them, a group that says False and one that says nothing, at another rate."""
    torch_build, options = TORCH[name]
    problem = Problem(4, True)
    W = parameter(problem.start)
    ours, theirs = euclidean_parameters(), euclidean_parameters()
    split = [{"params": p[:3], "lr": options["lr"] / 2} for p in (ours, theirs)]
    optimizer = OPTIMIZERS[name][0](
        [*on_manifold(W, lr=1e-3), {**split[0], "manifold": False}, {"params": ours[3:]}], **options
    )
    reference = torch_build([split[1], {"params": theirs[3:]}], **options)
    for step in range(12):
        if step == 6:
            for group in (*optimizer.param_groups[1:], *reference.param_groups):
                group["lr"] *= 0.1  # as a schedule does
        for o, parameters in ((optimizer, ours), (reference, theirs)):
            o.zero_grad()
            bowl(parameters).backward()
            if o is optimizer:
                problem.loss(W).backward()
            o.step()
        for p, q in zip(ours, theirs, strict=True):
            torch.testing.assert_close(p, q, rtol=0, atol=1e-12)
    assert drift(W) < 1e-13 and distance(numbers(W), problem.start) > 1e-3
    assert all((p - q).abs().max() > 0.01 for p, q in zip(ours, euclidean_parameters(), strict=True))


@each_optimizer
def test_a_plain_list_of_parameters_is_euclidean(name: str) -> None:
    torch_build, options = TORCH[name]
    ours, theirs = euclidean_parameters(), euclidean_parameters()
    optimizer, reference = OPTIMIZERS[name][0](ours, **options), torch_build(theirs, **options)
    for _ in range(5):
        for o, parameters in ((optimizer, ours), (reference, theirs)):
            o.zero_grad()
            bowl(parameters).backward()
            o.step()
    for p, q in zip(ours, theirs, strict=True):
        torch.testing.assert_close(p, q, rtol=0, atol=1e-12)


@each_optimizer
def test_a_group_s_own_learning_rate_counts(name: str) -> None:
    ends = []
    for options, lr in (({}, 1e-3), ({"lr": 1e-3}, 10.0)):
        problem = Problem(4, False)
        W = parameter(problem.start)
        run(OPTIMIZERS[name][0](on_manifold(W, **options), lr=lr), W, problem.loss, 3)
        ends.append(W.detach())
    assert torch.equal(*ends) and distance(ends[0], problem.start) > 1e-4


# -- geoopt ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def geoopt() -> Iterator[ModuleType]:
    with warnings.catch_warnings():
        # geoopt 0.5.1 scripts its helpers at import time
        warnings.filterwarnings("ignore", "`torch.jit.script` is deprecated", FutureWarning)
        import geoopt as module
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
        path.append(numbers(W))
    return path, problem


def our_path(problem: Problem, name: str, options: dict[str, Any], steps: int) -> list[np.ndarray]:
    W = parameter(problem.start)
    optimizer = {"SGD": RiemannianSGD, "Adam": RiemannianAdam}[name](on_manifold(W), **options)
    path = []
    for _ in range(steps):
        run(optimizer, W, problem.loss, 1)
        path.append(numbers(W))
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
    assert distance(numbers(W), target) < 1e-4
    assert drift(W) < 1e-12


@pytest.mark.parametrize("group", ["SO", "O with det -1", "U"])
@pytest.mark.parametrize("name", ["SGD", "Adam"])
def test_procrustes(name: str, group: str) -> None:
    """min |W - M|^2 over the component of the start is solved by the polar factor of M, where G is not zero."""
    rng = np.random.default_rng(12)
    is_complex, det = group == "U", -1 if group == "O with det -1" else 1
    target, start = (random_point(rng, 6, is_complex, det) for _ in range(2))
    W = fit(name, start, stretched(rng, target))
    assert distance(numbers(W), target) < 1e-4


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
            moved[name, residual] = distance(numbers(W), target)
    assert moved.pop(("RMSprop", True)) > 1e-3
    assert max(moved.values()) < 1e-10  # Adam's eps is 1e-6


@pytest.mark.parametrize("name", ["SGD", "Adam"])
def test_a_rotation_never_becomes_a_reflection(name: str) -> None:
    """The nearest rotation to a reflection T is at |W - T|^2 = 4: that is where descent ends."""
    rng = np.random.default_rng(3)
    target = random_point(rng, 5, False, -1)
    W = fit(name, random_point(rng, 5, False, 1), target)
    assert np.linalg.norm(numbers(W) - target) ** 2 == pytest.approx(4, abs=1e-4)
    assert np.linalg.det(numbers(W)) == pytest.approx(1, abs=1e-12)


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
    np.testing.assert_allclose(numbers(W), linalg.polar(drifted)[0], rtol=0, atol=1e-13)
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
    assert distance(numbers(W), drifted) <= 1e-14
    assert distance(linalg.polar(drifted)[0], drifted) > 0.1 * size


@each_field
@each_optimizer
@each_retraction
def test_a_drifted_start_is_on_the_manifold_after_one_step(name: str, is_complex: bool, retraction: str) -> None:
    problem = Problem(6, is_complex)
    W = parameter(problem.start * 1.01)
    run(OPTIMIZERS[name][0](on_manifold(W), lr=1e-3, retraction=retraction), W, problem.loss, 1)
    assert drift(W) < 1e-13


# -- what an optimizer owes ------------------------------------------------------------------------


@each_field
@each_optimizer
def test_the_parameter_is_changed_in_place(name: str, is_complex: bool) -> None:
    problem = Problem(4, is_complex)
    W = parameter(problem.start)
    view, storage, version = W.detach(), W.data_ptr(), W._version
    optimizer = OPTIMIZERS[name][0](on_manifold(W), lr=1e-3)
    run(optimizer, W, problem.loss, 2)
    assert optimizer.param_groups[0]["params"][0] is W
    assert W.data_ptr() == storage and torch.equal(view, W) and W._version > version
    assert W.requires_grad and W.is_leaf and distance(numbers(W), problem.start) > 1e-4
    assert W.dtype == (torch.complex128 if is_complex else F64)


@each_optimizer
def test_the_gradient_is_read_only(name: str) -> None:
    problem = Problem(4, True)
    W, v = parameter(problem.start), torch.nn.Parameter(torch.ones(3, dtype=F64))
    optimizer = OPTIMIZERS[name][0]([*on_manifold(W), {"params": [v]}], lr=1e-3)
    (problem.loss(W) + v.square().sum()).backward()
    before = [W.grad.clone(), v.grad.clone()]
    optimizer.step()
    assert torch.equal(W.grad, before[0]) and torch.equal(v.grad, before[1])


@each_optimizer
def test_parameters_without_a_gradient_are_skipped(name: str) -> None:
    rng = np.random.default_rng(0)
    idle = parameter(1.1 * random_point(rng, 4, False))  # off the manifold: not even projected
    idle_vector = torch.nn.Parameter(torch.ones(3, dtype=F64))
    problem = Problem(4, False)
    W = parameter(problem.start)
    before = numbers(idle)
    optimizer = OPTIMIZERS[name][0]([*on_manifold(idle, W), {"params": [idle_vector]}], lr=1e-3)
    problem.loss(W).backward()
    optimizer.step()
    np.testing.assert_array_equal(numbers(idle), before)
    assert torch.equal(idle_vector, torch.ones(3, dtype=F64))
    assert not optimizer.state.get(idle) and not optimizer.state.get(idle_vector)
    assert distance(numbers(W), problem.start) > 1e-5


@each_optimizer
def test_a_closure_is_evaluated_with_gradients_and_its_loss_returned(name: str) -> None:
    problem = Problem(4, True)
    W, twin = parameter(problem.start), parameter(problem.start)
    optimizer, plain = (OPTIMIZERS[name][0](on_manifold(p), lr=1e-3) for p in (W, twin))
    calls = []

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = problem.loss(W)
        loss.backward()
        calls.append(loss.item())
        return loss

    for _ in range(3):
        expected = problem.loss(twin).item()
        run(plain, twin, problem.loss, 1)
        returned = optimizer.step(closure)
        assert returned is not None and returned.item() == expected == calls[-1]
    assert len(calls) == 3 and torch.equal(W, twin)
    assert plain.step() is None


@each_field
@each_optimizer
def test_a_saved_state_continues_bit_for_bit(name: str, is_complex: bool) -> None:
    """Through a file that holds tensors and primitives only, into an optimizer built with other options."""
    build, options = OPTIMIZERS[name]
    options = {**options, "lr": 1e-3, "metric": "canonical", "retraction": "polar"}
    problem = Problem(4, is_complex)

    def fresh(W: np.ndarray, v: Tensor) -> tuple[torch.nn.Parameter, torch.nn.Parameter]:
        return parameter(W), torch.nn.Parameter(v.clone())

    def train(optimizer: torch.optim.Optimizer, W: Tensor, v: Tensor, steps: int) -> None:
        run(optimizer, W, lambda _: problem.loss(W) + (v - 2).square().square().sum(), steps)

    W, v = fresh(problem.start, torch.ones(3, dtype=F64))
    optimizer = build([*on_manifold(W), {"params": [v]}], **options)
    train(optimizer, W, v, 5)
    file = io.BytesIO()
    torch.save(optimizer.state_dict(), file)
    file.seek(0)
    W2, v2 = fresh(numbers(W), v.detach())
    other = build([*on_manifold(W2), {"params": [v2]}], lr=0.7)
    other.load_state_dict(torch.load(file, weights_only=True))
    W3, v3 = fresh(numbers(W), v.detach())
    forgetful = build([*on_manifold(W3), {"params": [v3]}], **options)
    for o, a, b in ((optimizer, W, v), (other, W2, v2), (forgetful, W3, v3)):
        train(o, a, b, 5)
    assert torch.equal(W, W2) and torch.equal(v, v2)
    assert name == "SGD" or (distance(numbers(W), numbers(W3)) > 1e-6 and distance(numbers(v), numbers(v3)) > 1e-6)
    assert other.param_groups[0]["manifold"] is True and not other.param_groups[1].get("manifold")


@each_optimizer
def test_it_is_a_torch_optimizer(name: str) -> None:
    """Post-step hooks are where models rebase and project; a copy is independent."""
    problem = Problem(4, False)
    W = parameter(problem.start)
    optimizer = OPTIMIZERS[name][0](on_manifold(W), lr=1e-3)
    assert isinstance(optimizer, torch.optim.Optimizer)
    seen = []
    optimizer.register_step_post_hook(lambda *_: seen.append(numbers(W)))
    run(optimizer, W, problem.loss, 2)
    assert len(seen) == 2 and distance(seen[0], problem.start) > 1e-5
    np.testing.assert_array_equal(seen[1], numbers(W))
    twin = copy.deepcopy(optimizer)
    (moved,) = twin.param_groups[0]["params"]
    for _ in range(3):
        run(twin, moved, problem.loss, 1)
    np.testing.assert_array_equal(seen[1], numbers(W))
    run(optimizer, W, problem.loss, 3)
    assert torch.equal(moved, W)


# -- the released MNIST step -----------------------------------------------------------------------


def natural_gradient_rms(
    W: np.ndarray, gradients: Callable[[np.ndarray], np.ndarray], lr: float, steps: int
) -> np.ndarray:
    """Accumulators of both parts start at 0, decay 0.9, epsilon 1e-8 outside the root; then A = G W^H - W G^H and
    (I + lr/2 A)^-1 (I - lr/2 A) W."""
    real, imaginary, identity = np.zeros(W.shape), np.zeros(W.shape), np.eye(len(W))
    for _ in range(steps):
        G = gradients(W)
        real = 0.9 * real + 0.1 * G.real**2
        imaginary = 0.9 * imaginary + 0.1 * G.imag**2
        G = G.real / (np.sqrt(real) + 1e-8) + 1j * G.imag / (np.sqrt(imaginary) + 1e-8)
        A = G @ adjoint(W) - W @ adjoint(G)
        W = np.linalg.inv(identity + lr / 2 * A) @ (identity - lr / 2 * A) @ W
    return W


def test_parts_apart_is_the_released_mnist_step() -> None:
    problem = Problem(5, True)
    W, together = parameter(problem.start), parameter(problem.start)
    options: dict[str, Any] = {"lr": 1e-2, "alpha": 0.9, "eps": 1e-8, "metric": "canonical"}
    run(RiemannianRMSprop(on_manifold(W), **options, apart=True), W, problem.loss, 20)
    run(RiemannianRMSprop(on_manifold(together), **options), together, problem.loss, 20)
    expected = natural_gradient_rms(problem.start, problem.gradient, 1e-2, 20)
    np.testing.assert_allclose(numbers(W), expected, rtol=0, atol=1e-11)
    assert distance(numbers(together), expected) > 1e-3


def test_a_real_matrix_has_no_parts() -> None:
    problem = Problem(4, False)
    W, apart = parameter(problem.start), parameter(problem.start)
    run(RiemannianRMSprop(on_manifold(W), lr=1e-2), W, problem.loss, 5)
    run(RiemannianRMSprop(on_manifold(apart), lr=1e-2, apart=True), apart, problem.loss, 5)
    assert torch.equal(W, apart)


def test_a_checkpoint_from_before_an_option_was_there_goes_on() -> None:
    problem = Problem(4, True)
    W = parameter(problem.start)
    optimizer = RiemannianRMSprop(on_manifold(W), lr=1e-2)
    run(optimizer, W, problem.loss, 3)
    old = copy.deepcopy(optimizer.state_dict())
    for group in old["param_groups"]:
        del group["apart"]
    V = parameter(numbers(W))
    restored = RiemannianRMSprop(on_manifold(V), lr=0.5)
    restored.load_state_dict(old)
    run(restored, V, problem.loss, 3)
    run(optimizer, W, problem.loss, 3)
    assert torch.equal(V, W)


# -- what is refused -------------------------------------------------------------------------------

each_build = pytest.mark.parametrize("build", [RiemannianSGD, RiemannianRMSprop, RiemannianAdam])


def refused(*words: str) -> Any:
    """One sentence that holds every word."""
    ahead = "".join(f"(?=.*{word})" for word in words)
    return pytest.raises(UserError, match=rf"^{ahead}[^\n]*\.\Z")


@each_build
def test_unknown_choices_are_refused(build: Callable[..., Any]) -> None:
    W = parameter(np.eye(3))
    with refused("retraction", "householder", *RETRACTIONS):
        build(on_manifold(W), lr=0.1, retraction="householder")
    with refused("metric", "hyperbolic", *METRICS):
        build(on_manifold(W), lr=0.1, metric="hyperbolic")


@each_build
def test_a_negative_rate_is_refused(build: Callable[..., Any]) -> None:
    with refused("lr", r"-0\.1"):
        build(on_manifold(parameter(np.eye(3))), lr=-0.1)


@each_build
@pytest.mark.parametrize("shape", [(3, 4), (4, 3), (5,)])
def test_a_manifold_group_holds_square_matrices(build: Callable[..., Any], shape: tuple[int, ...]) -> None:
    given = torch.nn.Parameter(torch.zeros(shape))
    with refused(*(str(size) for size in shape), "square"):
        build(on_manifold(given), lr=0.1)
    optimizer = build([given], lr=0.1)  # fine in a Euclidean group
    late = torch.nn.Parameter(torch.zeros(shape))
    with refused("square"):
        optimizer.add_param_group({"params": [late], "manifold": True})
    assert len(optimizer.param_groups) == 1


def test_pure_functions_refuse_unknown_choices() -> None:
    W = torch.eye(3)
    with refused("retraction", "householder", *RETRACTIONS):
        retract(W, torch.zeros(3, 3), "householder")
    with refused("metric", "hyperbolic", *METRICS):
        riemannian_gradient(W, W, "hyperbolic")
