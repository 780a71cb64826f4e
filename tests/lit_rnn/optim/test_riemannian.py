"""Riemannian optimizers on O(n) and U(n): their steps in NumPy, and what they owe as torch optimizers."""

import copy
import io
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from scipy import linalg
from torch import Tensor

from datamodules import UserError
from lit_rnn.optim import RiemannianAdam, RiemannianRMSprop, RiemannianSGD, retract, riemannian_gradient
from tests.oracles.optim import (
    ByHand,
    CayleyStep,
    Problem,
    adjoint,
    array,
    distance,
    drift,
    keras_rmsprop,
    normal,
    on_manifold,
    parameter,
    random_point,
    run,
    skew,
)

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
        np.testing.assert_allclose(array(W), expected, rtol=0, atol=1e-10)
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
    np.testing.assert_allclose(array(W), expected, rtol=0, atol=1e-11)


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
        np.testing.assert_allclose(array(W), linalg.expm(-travelled * Omega) @ start, rtol=0, atol=1e-12)
    assert distance(array(W), start) > 0.5


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
    assert drift(W) < 1e-13 and distance(array(W), problem.start) > 1e-3
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
    assert W.requires_grad and W.is_leaf and distance(array(W), problem.start) > 1e-4
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
    before = array(idle)
    optimizer = OPTIMIZERS[name][0]([*on_manifold(idle, W), {"params": [idle_vector]}], lr=1e-3)
    problem.loss(W).backward()
    optimizer.step()
    np.testing.assert_array_equal(array(idle), before)
    assert torch.equal(idle_vector, torch.ones(3, dtype=F64))
    assert not optimizer.state.get(idle) and not optimizer.state.get(idle_vector)
    assert distance(array(W), problem.start) > 1e-5


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
    W2, v2 = fresh(array(W), v.detach())
    other = build([*on_manifold(W2), {"params": [v2]}], lr=0.7)
    other.load_state_dict(torch.load(file, weights_only=True))
    W3, v3 = fresh(array(W), v.detach())
    forgetful = build([*on_manifold(W3), {"params": [v3]}], **options)
    for o, a, b in ((optimizer, W, v), (other, W2, v2), (forgetful, W3, v3)):
        train(o, a, b, 5)
    assert torch.equal(W, W2) and torch.equal(v, v2)
    assert name == "SGD" or (distance(array(W), array(W3)) > 1e-6 and distance(array(v), array(v3)) > 1e-6)
    assert other.param_groups[0]["manifold"] is True and not other.param_groups[1].get("manifold")


@each_optimizer
def test_it_is_a_torch_optimizer(name: str) -> None:
    """Post-step hooks are where models rebase and project; a copy is independent."""
    problem = Problem(4, False)
    W = parameter(problem.start)
    optimizer = OPTIMIZERS[name][0](on_manifold(W), lr=1e-3)
    assert isinstance(optimizer, torch.optim.Optimizer)
    seen = []
    optimizer.register_step_post_hook(lambda *_: seen.append(array(W)))
    run(optimizer, W, problem.loss, 2)
    assert len(seen) == 2 and distance(seen[0], problem.start) > 1e-5
    np.testing.assert_array_equal(seen[1], array(W))
    twin = copy.deepcopy(optimizer)
    (moved,) = twin.param_groups[0]["params"]
    for _ in range(3):
        run(twin, moved, problem.loss, 1)
    np.testing.assert_array_equal(seen[1], array(W))
    run(optimizer, W, problem.loss, 3)
    assert torch.equal(moved, W)


# -- the released MNIST step -----------------------------------------------------------------------


def test_parts_apart_is_the_released_mnist_step() -> None:
    problem = Problem(5, True)
    W, together = parameter(problem.start), parameter(problem.start)
    options: dict[str, Any] = {"lr": 1e-2, "alpha": 0.9, "eps": 1e-8, "metric": "canonical"}
    run(RiemannianRMSprop(on_manifold(W), **options, apart=True), W, problem.loss, 20)
    run(RiemannianRMSprop(on_manifold(together), **options), together, problem.loss, 20)
    released, expected = CayleyStep(1e-2, keras_rmsprop(1e-2)), problem.start
    for _ in range(20):
        expected = released.step(expected, problem.gradient(expected))
    np.testing.assert_allclose(array(W), expected, rtol=0, atol=1e-11)
    assert distance(array(together), expected) > 1e-3


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
    V = parameter(array(W))
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
