"""The real Cayley map, plain and scaled: its range, its start, and scoRNN's gradient by hand (`tests.oracles.maps`)."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy import linalg, stats
from torch import Tensor, nn

from lit_rnn.init import cayley_, haar_, henaff_, torus_
from lit_rnn.parametrizations import Cayley, Exponential, ScaledCayley
from tests.oracles.maps import (
    angles_of,
    cayley_dense,
    cayley_of,
    half,
    random_orthogonal,
    scornn_gradient,
    signs_of,
    skew_matrix,
)
from tests.oracles.modules import close, fill, numbers, put, value

F64 = torch.float64


# -- Cayley ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("s", [0.3, -1.7, 1.0, 40.0])
def test_cayley_of_the_plane_turns_by_twice_the_arctangent(s: float) -> None:
    """[[1 - s^2, -2s], [2s, 1 - s^2]] / (1 + s^2): against exp, which turns the other way, by s."""
    module = Cayley(2).double()
    put(module, skew=np.array([s]))
    close(value(module), np.array([[1 - s * s, -2 * s], [2 * s, 1 - s * s]]) / (1 + s * s))
    angle = math.atan2(value(module)[1, 0], value(module)[0, 0])
    assert math.isclose(angle, 2 * math.atan(s), abs_tol=1e-12)


@pytest.mark.parametrize("n", [2, 3, 8, 17])
def test_cayley_stays_away_from_the_eigenvalue_minus_one(n: int) -> None:
    """I + W = 2 (I + A)^-1, so the distance from the spectrum to -1 is 2 / sqrt(1 + |A|^2): never 0."""
    module = Cayley(n).double()
    for scale in (0.1, 1.0, 30.0):
        fill(module, seed=n, scale=scale)
        size = np.linalg.norm(skew_matrix(numbers(module)["skew"], n), 2)
        distance = np.abs(linalg.eigvals(value(module)) + 1).min()
        close(distance, 2 / math.sqrt(1 + size**2), atol=1e-10)
        close(np.linalg.svd(value(module) + np.eye(n), compute_uv=False)[-1], 2 / math.sqrt(1 + size**2), atol=1e-10)


def test_the_exponential_and_a_scaled_cayley_reach_the_eigenvalue_minus_one() -> None:
    """What the map before cannot do: a half turn, and a reflection."""
    turn, scaled = Exponential(2).double(), ScaledCayley(2, negatives=1).double()
    put(turn, skew=np.array([math.pi]))
    put(scaled, skew=np.array([0.0]))
    close(value(turn), -np.eye(2))
    close(value(scaled), np.diag([1.0, -1.0]))


@pytest.mark.parametrize("n", [2, 3, 8])
def test_cayley_reaches_any_rotation_without_the_eigenvalue_minus_one(n: int) -> None:
    """The chart inverts itself: A = (I + W)^-1 (I - W)."""
    target = random_orthogonal(n, seed=n)
    module = Cayley(n).double()
    put(module, skew=cayley_of(target)[np.triu_indices(n, 1)])
    close(value(module), target, atol=1e-11)


@pytest.mark.parametrize("negatives", [0, 1, 2, 3])
@pytest.mark.parametrize("n", [3, 8])
def test_scaled_cayley_reaches_any_matrix_of_its_determinant(n: int, negatives: int) -> None:
    target = random_orthogonal(n, seed=n, det=(-1) ** negatives)
    module = ScaledCayley(n, negatives=negatives).double()
    put(module, skew=cayley_of(target @ signs_of(n, negatives))[np.triu_indices(n, 1)])
    close(value(module), target, atol=1e-10)


def test_cayley_gradient_at_a_rebased_point_is_minus_twice_the_skew_part() -> None:
    """At A = 0, dW = -2 B dA: dl/da_ij = -2 (B^T G)_ij + 2 (B^T G)_ji."""
    n = 6
    module = fill(Cayley(n, trivialized=True).double())
    put(module, skew=np.zeros(half(n)))
    G = np.random.default_rng(1).normal(size=(n, n))
    module().backward(torch.tensor(G))
    M = numbers(module)["base"].T @ G
    close(module.skew.grad, -2 * (M - M.T)[np.triu_indices(n, 1)])


@pytest.mark.parametrize("n", [2, 3, 8, 17])
def test_cayley_rebase_moves_the_base_and_leaves_the_matrix(n: int) -> None:
    module = fill(Cayley(n, trivialized=True).double(), seed=n)
    p, skew, base = numbers(module), module.skew, module.base
    assert np.abs(p["base"] @ cayley_of(skew_matrix(p["skew"], n)) - p["base"]).max() > 0.1
    module.rebase_()
    close(module.base, cayley_dense(p, n))
    close(value(module), cayley_dense(p, n))
    assert not module.skew.any()
    assert module.skew is skew and module.base is base, "an optimizer holds these objects"
    assert module.skew.requires_grad and not module.base.requires_grad


@pytest.mark.parametrize("n", [1, 3, 8])
def test_cayley_projection_is_the_polar_factor(n: int) -> None:
    module = fill(Cayley(n, trivialized=True).double(), seed=n)
    moved = numbers(module)["base"] + 0.2 / math.sqrt(n) * np.random.default_rng(n).normal(size=(n, n))
    skew = numbers(module)["skew"]
    with torch.no_grad():
        module.base.copy_(torch.tensor(moved))
    module.project_()
    close(module.base, linalg.polar(moved)[0])
    close(numbers(module)["skew"], skew, atol=0)


def known_(A: Tensor) -> Tensor:
    n = len(A)
    with torch.no_grad():
        return A.copy_(torch.tensor(skew_matrix(np.random.default_rng(3).normal(size=half(n)), n)))


def test_static_cayley_starts_at_the_initial_generator_and_a_trivialized_one_has_it_in_its_base() -> None:
    A = known_(torch.empty(6, 6)).double().numpy()
    static, moving = Cayley(6, known_), Cayley(6, known_, trivialized=True)
    np.testing.assert_array_equal(static.skew.detach().numpy(), A[np.triu_indices(6, 1)].astype(np.float32))
    assert not moving.skew.any() and "base" in dict(moving.named_buffers())
    for module in (static, moving):
        close(value(module), cayley_of(A), atol=2e-6)
    close(moving.base, cayley_of(A), atol=2e-6)


# -- the released order ----------------------------------------------------------------------------


@pytest.mark.parametrize(("n", "negatives"), [(3, 1), (5, 2), (8, 4)])
def test_released_order_is_the_transpose_and_another_matrix(n: int, negatives: int) -> None:
    paper = fill(ScaledCayley(n, negatives=negatives).double())
    released = fill(ScaledCayley(n, negatives=negatives, released_order=True).double())
    np.testing.assert_array_equal(numbers(paper)["skew"], numbers(released)["skew"])
    Z, D = cayley_of(skew_matrix(numbers(paper)["skew"], n)), signs_of(n, negatives)
    close(value(paper), Z @ D)
    close(value(released), D @ Z.T)
    assert np.abs(Z @ D - D @ Z.T).max() > 0.1


def test_released_order_acts_as_a_row_vector_times_z_d() -> None:
    """h <- h W with W = Z D: what the released code computes, D last."""
    n = 5
    module = fill(ScaledCayley(n, released_order=True).double())
    Z = cayley_of(skew_matrix(numbers(module)["skew"], n))
    row = np.random.default_rng(0).normal(size=n)
    after = (row @ Z) * np.array([1, 1, 1, -1, -1])  # n // 2 negatives, the last ones
    close(value(module) @ row, after)


def test_in_the_plane_both_orders_are_one_reflection() -> None:
    """n = 2, one negative: Z D is symmetric, so the two conventions agree there and only there."""
    s = 0.4
    expected = np.array([[1 - s * s, 2 * s], [2 * s, s * s - 1]]) / (1 + s * s)
    for released in (False, True):
        module = ScaledCayley(2, negatives=1, released_order=released).double()
        put(module, skew=np.array([s]))
        close(value(module), expected)


@pytest.mark.parametrize(("n", "negatives", "rho"), [(1, None, 0), (2, None, 1), (7, None, 3), (8, None, 4), (8, 3, 3)])
def test_minus_ones_come_last_and_are_half_unless_told(n: int, negatives: int | None, rho: int) -> None:
    module = ScaledCayley(n, negatives=negatives)
    assert "signs" in dict(module.named_buffers())
    assert module.signs.tolist() == [1.0] * (n - rho) + [-1.0] * rho


# -- scoRNN's gradient by hand ---------------------------------------------------------------------


@pytest.mark.parametrize("released", [False, True])
@pytest.mark.parametrize(("n", "negatives"), [(2, 0), (2, 1), (3, 1), (5, 2), (8, 4), (8, 8), (17, 3)])
def test_scaled_cayley_has_the_papers_gradient(n: int, negatives: int, released: bool) -> None:
    module = fill(ScaledCayley(n, negatives=negatives, released_order=released).double(), seed=n)
    G = np.random.default_rng(9).normal(size=(n, n))
    module().backward(torch.tensor(G))
    A, D = skew_matrix(numbers(module)["skew"], n), signs_of(n, negatives)
    expected = scornn_gradient(A, D, G.T if released else G)
    close(module.skew.grad, expected, atol=1e-11)
    if n > 2:
        assert np.abs(scornn_gradient(A, D, G if released else G.T) - expected).max() > 0.1


def test_the_hand_derived_gradient_is_the_difference_quotient() -> None:
    """The oracle itself, by central differences."""
    n, rng = 5, np.random.default_rng(4)
    free, G, D, step = rng.normal(size=half(n)), rng.normal(size=(n, n)), signs_of(n, 2), 1e-6
    quotients = []
    for k in range(half(n)):
        ends = [np.sum(G * (cayley_of(skew_matrix(free + h * np.eye(half(n))[k], n)) @ D)) for h in (step, -step)]
        quotients.append((ends[0] - ends[1]) / (2 * step))
    close(scornn_gradient(skew_matrix(free, n), D, G), quotients, atol=1e-7)


# -- spectra at the start --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "build", [lambda n: Cayley(n, cayley_), lambda n: Cayley(n, cayley_, trivialized=True), Cayley]
)
def test_cayley_start_under_the_cayley_map_is_a_quarter_circle(build: Callable[[int], nn.Module]) -> None:
    torch.manual_seed(0)
    angles = angles_of(value(build(400)).astype(float))
    assert angles.max() <= math.pi / 2 + 1e-5
    assert stats.kstest(angles, "uniform", args=(0, math.pi / 2)).pvalue > 1e-4


def test_cayley_start_under_the_exponential_is_at_most_one_radian() -> None:
    """tan(u/2) with u ~ U(0, pi/2): the other spectrum that goes by the same name."""
    torch.manual_seed(0)
    angles = angles_of(value(Exponential(400, cayley_)).astype(float))
    assert 0.95 < angles.max() <= 1 + 1e-5
    assert stats.kstest(2 * np.arctan(angles), "uniform", args=(0, math.pi / 2)).pvalue > 1e-4


@pytest.mark.parametrize("init", [henaff_, torus_])
def test_henaff_and_torus_start_under_the_exponential_is_the_whole_circle(init: Callable[[Tensor], Tensor]) -> None:
    torch.manual_seed(0)
    angles = angles_of(value(Exponential(400, init)).astype(float))
    assert stats.kstest(angles, "uniform", args=(0, math.pi)).pvalue > 1e-4


@pytest.mark.parametrize("trivialized", [False, True])
@pytest.mark.parametrize("init", [henaff_, cayley_, haar_, torus_])
@pytest.mark.parametrize("map_class", [Exponential, Cayley])
def test_start_is_the_map_of_the_generator_drawn(
    map_class: Callable[..., nn.Module], init: Callable[[Tensor], Tensor], trivialized: bool
) -> None:
    torch.manual_seed(5)
    W = value(map_class(9, init, trivialized=trivialized))
    torch.manual_seed(5)
    A = init(torch.empty(9, 9)).double().numpy()
    expected = linalg.expm(A) if map_class is Exponential else cayley_of(A)
    size = np.linalg.norm(A, 2)
    close(W, expected, atol=1e-5)
    if map_class is Cayley:
        close(np.abs(np.angle(linalg.eigvals(W.astype(float)))).max(), 2 * math.atan(size), atol=1e-4)


@pytest.mark.parametrize("map_class", [Exponential, Cayley])
def test_a_zero_generator_starts_at_the_identity(map_class: Callable[..., nn.Module]) -> None:
    close(value(map_class(5, nn.init.zeros_)), np.eye(5), atol=0)
