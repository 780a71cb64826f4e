"""W = exp(A) and its dynamic trivialization W = B exp(A), A skew (Lezcano-Casado and Martinez-Rubio 2019; dtriv 2019).

The oracles are SciPy's expm, expm_frechet and polar. With L(A, E) the Frechet derivative of exp at A in direction E,
the adjoint of L(A, .) in the trace inner product is L(A^T, .), so for W = B exp(A) and G = dl/dW the gradient with
respect to the free number above the diagonal at (i, j) is M_ij - M_ji with M = L(A^T, B^T G); at A = 0, M = B^T G.
"""

import copy
import math

import numpy as np
import pytest
import torch
from scipy import linalg
from torch import Tensor
from torch.func import functional_call

from lit_rnn.init import cayley_, haar_, henaff_, torus_
from lit_rnn.parametrizations import Exponential
from tests.oracles.maps import free_part, random_orthogonal, skew_matrix
from tests.oracles.modules import value

F64 = torch.float64
SIZES = [1, 2, 3, 8, 17]


def gradient(A: np.ndarray, B: np.ndarray, G: np.ndarray) -> np.ndarray:
    return free_part(linalg.expm_frechet(A.T, B.T @ G, compute_expm=False))


def make(n: int, seed: int = 0, trivialized: bool = False) -> tuple[Exponential, np.ndarray, np.ndarray]:
    """A float64 map with known A and B, and those two."""
    free = np.random.default_rng(seed).uniform(-math.pi, math.pi, size=n * (n - 1) // 2)
    base = random_orthogonal(n, seed + 1) if trivialized else np.eye(n)
    module = Exponential(n, trivialized=trivialized).double()
    with torch.no_grad():
        module.skew.copy_(torch.tensor(free))
        if trivialized:
            module.base.copy_(torch.tensor(base))
    return module, skew_matrix(free, n), base


# -- the map ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("trivialized", [False, True])
@pytest.mark.parametrize("n", SIZES)
def test_free_parameters_are_exactly_those_of_a_skew_matrix(n: int, trivialized: bool) -> None:
    module = Exponential(n, trivialized=trivialized)
    assert [name for name, _ in module.named_parameters()] == ["skew"]
    assert module.skew.shape == (n * (n - 1) // 2,)


@pytest.mark.parametrize("trivialized", [False, True])
def test_generator_reads_the_upper_triangle_row_by_row(trivialized: bool) -> None:
    module = Exponential(4, trivialized=trivialized)
    with torch.no_grad():
        module.skew.copy_(torch.arange(1.0, 7.0))
    expected = [[0, 1, 2, 3], [-1, 0, 4, 5], [-2, -4, 0, 6], [-3, -5, -6, 0]]
    assert module.generator().tolist() == expected


@pytest.mark.parametrize("n", SIZES)
def test_map_is_the_matrix_exponential(n: int) -> None:
    module, A, _ = make(n)
    np.testing.assert_allclose(module.generator().detach().numpy(), A, atol=0)
    np.testing.assert_allclose(value(module), linalg.expm(A), rtol=0, atol=1e-12)


@pytest.mark.parametrize("n", SIZES)
def test_trivialized_map_is_base_times_the_exponential(n: int) -> None:
    module, A, B = make(n, trivialized=True)
    np.testing.assert_allclose(value(module), B @ linalg.expm(A), rtol=0, atol=1e-12)
    if n > 2:
        assert np.abs(B @ linalg.expm(A) - linalg.expm(A) @ B).max() > 0.1  # the order of the product is being tested


def test_one_by_one_is_one() -> None:
    module = Exponential(1)
    assert module.generator().tolist() == [[0.0]] and module().tolist() == [[1.0]]


def test_two_by_two_is_a_plane_rotation() -> None:
    module = Exponential(2).double()
    for s in (0.3, -1.7, math.pi, 20.0):
        with torch.no_grad():
            module.skew.fill_(s)
        expected = [[math.cos(s), math.sin(s)], [-math.sin(s), math.cos(s)]]
        np.testing.assert_allclose(value(module), expected, rtol=0, atol=1e-12)


def test_three_by_three_is_rodrigues() -> None:
    module, A, _ = make(3, seed=4)
    theta = np.linalg.norm(A) / math.sqrt(2)
    expected = np.eye(3) + math.sin(theta) / theta * A + (1 - math.cos(theta)) / theta**2 * A @ A
    np.testing.assert_allclose(value(module), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("trivialized", [False, True])
@pytest.mark.parametrize("n", SIZES)
def test_image_lies_in_the_special_orthogonal_group(n: int, trivialized: bool) -> None:
    W = value(make(n, seed=n, trivialized=trivialized)[0])
    np.testing.assert_allclose(W.T @ W, np.eye(n), rtol=0, atol=1e-12)
    np.testing.assert_allclose(np.linalg.det(W), 1.0, rtol=0, atol=1e-12)


@pytest.mark.parametrize("trivialized", [False, True])
@pytest.mark.parametrize("init", [henaff_, cayley_, haar_, torus_], ids=lambda f: f.__name__)
def test_single_precision_stays_orthogonal_under_autocast(init, trivialized: bool) -> None:
    """Orthogonal maps run in float32 or better, whatever the precision around them."""
    module = Exponential(65, init, trivialized=trivialized)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        W = module()
    assert W.dtype == torch.float32
    drift = (W.double().T @ W.double() - torch.eye(65, dtype=F64)).abs().max().item()
    assert drift < 2e-5  # a product in bfloat16 leaves 1e-3 or more


def test_nothing_is_cached_between_calls() -> None:
    module, A, _ = make(5)
    module()
    with torch.no_grad():
        module.skew.mul_(0.5)
    np.testing.assert_allclose(value(module), linalg.expm(0.5 * A), rtol=0, atol=1e-12)


@pytest.mark.parametrize("trivialized", [False, True])
def test_a_copy_is_independent_and_a_state_dict_is_complete(trivialized: bool) -> None:
    module, _, _ = make(5, trivialized=trivialized)
    before = value(module).copy()
    twin = copy.deepcopy(module)
    other, _, _ = make(5, seed=9, trivialized=trivialized)
    other.load_state_dict(module.state_dict())
    np.testing.assert_array_equal(value(twin), before)
    np.testing.assert_array_equal(value(other), before)
    with torch.no_grad():
        twin.skew.add_(1.0)
    np.testing.assert_array_equal(value(module), before)
    assert np.abs(value(twin) - before).max() > 0.1


# -- the start -------------------------------------------------------------------------------------


def known_(A: Tensor) -> Tensor:
    n = len(A)
    with torch.no_grad():
        return A.copy_(torch.tensor(skew_matrix(np.random.default_rng(3).normal(size=n * (n - 1) // 2), n)))


def test_static_map_starts_at_the_initial_generator() -> None:
    module = Exponential(6, known_)
    expected = known_(torch.empty(6, 6))
    assert torch.equal(module.generator(), expected)


def test_trivialized_map_starts_with_the_initial_rotation_in_its_base() -> None:
    module = Exponential(6, known_, trivialized=True)
    expected = linalg.expm(known_(torch.empty(6, 6)).double().numpy())
    assert not module.skew.any()
    assert "base" in dict(module.named_buffers())
    np.testing.assert_allclose(module.base.numpy(), expected, atol=2e-6)
    np.testing.assert_allclose(module().detach().numpy(), expected, atol=2e-6)


def test_default_start_is_henaff() -> None:
    torch.manual_seed(0)
    s = np.diag(Exponential(601).generator().detach().numpy()[0:-1:2, 1::2])
    assert np.abs(s).max() > 3.0 and np.abs(s).max() <= np.float32(math.pi)
    assert (s > 0).mean() == pytest.approx(0.5, abs=0.15)


# -- derivatives -----------------------------------------------------------------------------------


@pytest.mark.parametrize("trivialized", [False, True])
@pytest.mark.parametrize("n", [2, 3, 5])
def test_gradcheck(n: int, trivialized: bool) -> None:
    module, _, _ = make(n, seed=n, trivialized=trivialized)
    skew = module.skew.detach().clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda s: functional_call(module, {"skew": s}, ()), (skew,), atol=1e-7, rtol=1e-6)


@pytest.mark.parametrize("trivialized", [False, True])
def test_every_direction_is_the_frechet_derivative(trivialized: bool) -> None:
    """<G, B L(A, E_k)> for each basis element E_k: the definition, without the adjoint."""
    n = 5
    module, A, B = make(n, seed=2, trivialized=trivialized)
    G = np.random.default_rng(7).normal(size=(n, n))
    module().backward(torch.tensor(G))
    expected = []
    for i, j in zip(*np.triu_indices(n, 1), strict=True):
        E = np.zeros((n, n))
        E[i, j], E[j, i] = 1.0, -1.0
        expected.append(np.sum(G * (B @ linalg.expm_frechet(A, E, compute_expm=False))))
    np.testing.assert_allclose(module.skew.grad.numpy(), expected, rtol=0, atol=1e-11)


@pytest.mark.parametrize("n", [2, 3, 8, 17])
def test_gradient_at_a_rebased_point_is_the_skew_part(n: int) -> None:
    """At A = 0, where all eigenvalues coincide, dexp is the identity: the gradient is (B^T G)_ij - (B^T G)_ji."""
    module, _, B = make(n, trivialized=True)
    with torch.no_grad():
        module.skew.zero_()
    G = np.random.default_rng(n).normal(size=(n, n))
    module().backward(torch.tensor(G))
    np.testing.assert_allclose(module.skew.grad.numpy(), free_part(B.T @ G), rtol=0, atol=1e-12)


# -- rebase and projection -------------------------------------------------------------------------


@pytest.mark.parametrize("n", SIZES)
def test_rebase_moves_the_base_and_leaves_the_matrix(n: int) -> None:
    module, A, B = make(n, seed=5, trivialized=True)
    skew, base, addresses = module.skew, module.base, (module.skew.data_ptr(), module.base.data_ptr())
    before = value(module).copy()
    module.rebase_()
    np.testing.assert_allclose(value(module), before, rtol=0, atol=1e-13)
    np.testing.assert_allclose(module.base.numpy(), B @ linalg.expm(A), rtol=0, atol=1e-12)
    assert not module.skew.any()
    assert module.skew is skew and module.base is base, "an optimizer holds these objects"
    assert (module.skew.data_ptr(), module.base.data_ptr()) == addresses
    assert module.skew.requires_grad and not module.base.requires_grad


def test_rebase_twice_is_rebase_once() -> None:
    module, _, _ = make(6, trivialized=True)
    module.rebase_()
    once = module.base.clone()
    module.rebase_()
    torch.testing.assert_close(module.base, once, rtol=0, atol=1e-15)


@pytest.mark.parametrize("every", [1, 3, 100])
def test_gradient_descent_between_rebases_equals_the_mathematics(every: int) -> None:
    """SGD on 1/2 |W - T|^2, written out in NumPy with SciPy's Frechet derivative, rebasing every `every` steps."""
    n, steps, lr = 5, 8, 0.07
    module, A, B = make(n, seed=8, trivialized=True)
    target = random_orthogonal(n, 77)
    optimizer = torch.optim.SGD(module.parameters(), lr=lr)
    free = free_part(A) / 2
    for step in range(1, steps + 1):
        optimizer.zero_grad()
        (0.5 * (module() - torch.tensor(target)).square().sum()).backward()
        optimizer.step()
        A = skew_matrix(free, n)
        free = free - lr * gradient(A, B, B @ linalg.expm(A) - target)
        if step % every == 0:
            module.rebase_()
            B, free = B @ linalg.expm(skew_matrix(free, n)), np.zeros_like(free)
        np.testing.assert_allclose(value(module), B @ linalg.expm(skew_matrix(free, n)), rtol=0, atol=1e-11)
        np.testing.assert_allclose(module.skew.detach().numpy(), free, rtol=0, atol=1e-11)


def test_where_one_rebases_matters() -> None:
    """The trajectories above differ, as dexp is not the identity away from 0: the test above tells them apart."""
    n, lr, ends = 5, 0.07, []
    for every in (1, 100):
        free, B = np.random.default_rng(8).uniform(-math.pi, math.pi, size=10), random_orthogonal(n, 9)
        target = random_orthogonal(n, 77)
        for step in range(1, 9):
            A = skew_matrix(free, n)
            free = free - lr * gradient(A, B, B @ linalg.expm(A) - target)
            if step % every == 0:
                B, free = B @ linalg.expm(skew_matrix(free, n)), np.zeros_like(free)
        ends.append(B @ linalg.expm(skew_matrix(free, n)))
    assert np.abs(ends[0] - ends[1]).max() > 1e-3


@pytest.mark.parametrize("n", [1, 2, 3, 8, 17])
def test_projection_is_the_polar_factor(n: int) -> None:
    module, A, B = make(n, trivialized=True)
    moved = B + 0.2 / math.sqrt(n) * np.random.default_rng(n).normal(size=(n, n))
    base = module.base
    with torch.no_grad():
        base.copy_(torch.tensor(moved))
    module.project_()
    assert module.base is base
    np.testing.assert_allclose(module.base.numpy(), linalg.polar(moved)[0], rtol=0, atol=1e-12)
    np.testing.assert_allclose(module.generator().detach().numpy(), A, atol=0)


def test_projection_of_a_base_of_no_numbers_leaves_none() -> None:
    """It raises nothing: the loss is what tells a run that has diverged."""
    module, _, _ = make(3, trivialized=True)
    with torch.no_grad():
        module.skew.fill_(math.inf)
    module.rebase_()
    module.project_()
    assert module.base.isnan().all()


def test_projection_leaves_an_orthogonal_base_alone() -> None:
    module, _, B = make(8, trivialized=True)
    module.project_()
    np.testing.assert_allclose(module.base.numpy(), B, rtol=0, atol=1e-13)


def test_projection_is_nearer_than_any_other_rotation_tried() -> None:
    """The polar factor minimises |B - Q|_F; a QR factor does not."""
    n = 6
    module, _, B = make(n, trivialized=True)
    rng = np.random.default_rng(0)
    moved = B + 0.1 * rng.normal(size=(n, n))
    with torch.no_grad():
        module.base.copy_(torch.tensor(moved))
    module.project_()
    Q = module.base.numpy()
    best = np.linalg.norm(moved - Q)
    for size in (1e-3, 1e-2, 1e-1):
        for _ in range(20):
            other = Q @ linalg.expm(size * skew_matrix(rng.normal(size=n * (n - 1) // 2), n))
            assert np.linalg.norm(moved - other) > best
    qr, r = np.linalg.qr(moved)
    assert np.linalg.norm(moved - qr * np.sign(np.diag(r))) > best + 1e-4
