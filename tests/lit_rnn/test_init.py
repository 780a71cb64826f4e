"""What the initialisers promise: structure, spectra and distributions.

The angle of a skew block [[0, s], [-s, 0]] is s under exp and 2 atan(s) under the Cayley map, so a name such as
"Cayley" means two different spectra. Distributions are tested by Kolmogorov-Smirnov at a fixed seed, moments within
five standard errors.
"""

import math
from collections.abc import Callable
from functools import cache

import numpy as np
import pytest
import torch
from scipy import linalg, stats
from torch import Tensor, nn

from lit_rnn.init import (
    cayley_,
    cayley_circle_,
    chain_,
    fbchain_,
    haar_,
    henaff_,
    identity_,
    orthogonal_,
    source_,
    torus_,
)

F64 = torch.float64
SKEW = [henaff_, cayley_, cayley_circle_, haar_, torus_]
BLOCKS = [henaff_, cayley_, cayley_circle_, torus_]
ALL = [*SKEW, identity_, orthogonal_]
P_MIN = 1e-4


def name(init: Callable[..., Tensor]) -> str:
    return init.__name__


def blocks(A: Tensor) -> np.ndarray:
    """The s of every block [[0, s], [-s, 0]]."""
    return A[0:-1:2, 1::2].diagonal().numpy().copy()


@cache
def haar_samples(n: int, count: int = 800) -> np.ndarray:
    """exp of `count` generators at once: -iA is Hermitian, so A = U diag(i angle) U^*."""
    torch.manual_seed(1234 + n)
    A = np.stack([haar_(torch.empty(n, n, dtype=F64)).numpy() for _ in range(count)])
    angle, U = np.linalg.eigh(-1j * A)
    W = (U * np.exp(1j * angle)[:, None, :] @ U.conj().transpose(0, 2, 1)).real
    np.testing.assert_allclose(W[0], linalg.expm(A[0]), atol=1e-12)
    return W


# -- all of them -----------------------------------------------------------------------------------


@pytest.mark.parametrize("init", ALL, ids=name)
def test_fills_in_place_and_returns_the_tensor(init: Callable[..., Tensor]) -> None:
    A = torch.full((6, 6), math.nan)
    assert init(A) is A
    assert torch.isfinite(A).all()


@pytest.mark.parametrize("init", ALL, ids=name)
def test_takes_a_parameter_without_recording_a_gradient(init: Callable[..., Tensor]) -> None:
    A = nn.Parameter(torch.full((4, 4), math.nan))
    assert init(A) is A
    assert A.is_leaf and A.requires_grad and A.grad_fn is None
    assert torch.isfinite(A).all()


@pytest.mark.parametrize("init", [*SKEW, orthogonal_], ids=name)
def test_torch_seed_fixes_the_draw(init: Callable[..., Tensor]) -> None:
    def draw(seed: int) -> Tensor:
        torch.manual_seed(seed)
        return init(torch.empty(6, 6, dtype=F64))

    torch.testing.assert_close(draw(5), draw(5), rtol=0, atol=0)
    assert not torch.equal(draw(5), draw(6))


# -- skew generators -------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [1, 2, 3, 8, 9])
@pytest.mark.parametrize("init", SKEW, ids=name)
def test_generator_is_exactly_skew(init: Callable[..., Tensor], n: int) -> None:
    A = init(torch.empty(n, n, dtype=F64))
    assert torch.equal(A, -A.T)
    assert n == 1 or A.any()


@pytest.mark.parametrize("n", [2, 3, 8, 9])
@pytest.mark.parametrize("init", BLOCKS, ids=name)
def test_blocks_sit_on_the_diagonal_and_an_odd_row_stays_zero(init: Callable[..., Tensor], n: int) -> None:
    A = init(torch.empty(n, n, dtype=F64))
    s = blocks(A)
    assert len(s) == n // 2 and np.abs(s).min() > 0
    expected = linalg.block_diag(*[[[0.0, v], [-v, 0.0]] for v in s], *([[[0.0]]] if n % 2 else []))
    np.testing.assert_array_equal(A.numpy(), expected)


@pytest.mark.parametrize("init", [henaff_, torus_], ids=name)
def test_angles_are_uniform_on_the_circle(init: Callable[..., Tensor]) -> None:
    torch.manual_seed(0)
    s = blocks(init(torch.empty(3000, 3000)))
    assert stats.kstest(s, "uniform", args=(-math.pi, 2 * math.pi)).pvalue > P_MIN


def test_torus_angles_are_independent() -> None:
    """Haar measure of a torus is a product: sums and differences are uniform too (on SO(4) the angles repel)."""
    torch.manual_seed(0)
    s = np.stack([blocks(torus_(torch.empty(4, 4, dtype=F64))) for _ in range(1500)])
    for combination in (s[:, 0], s[:, 1], s[:, 0] - s[:, 1], s[:, 0] + s[:, 1]):
        assert stats.kstest(np.mod(combination, 2 * math.pi), "uniform", args=(0, 2 * math.pi)).pvalue > P_MIN


def test_cayley_entry_is_minus_tan_of_half_a_uniform_angle() -> None:
    torch.manual_seed(0)
    s = blocks(cayley_(torch.empty(3000, 3000)).double())
    assert s.min() >= -1 and s.max() <= 0
    assert stats.kstest(-2 * np.arctan(s), "uniform", args=(0, math.pi / 2)).pvalue > P_MIN


def test_cayley_circle_is_never_positive_and_turns_by_any_angle() -> None:
    """s = -sqrt((1 - cos u) / (1 + cos u)), u ~ U(0, 2 pi), whose sign the square root fixes: half-Cauchy."""
    torch.manual_seed(0)
    for dtype in (torch.float32, F64):
        s = blocks(cayley_circle_(torch.empty(3000, 3000, dtype=dtype)).double())
        assert s.max() < 0 and np.isfinite(s).all() and s.min() < -50
        assert stats.kstest(-s, "halfcauchy").pvalue > P_MIN
        assert stats.kstest(-2 * np.arctan(s), "uniform", args=(0, math.pi)).pvalue > P_MIN


def test_the_cayley_map_stays_orthogonal_at_the_pole(monkeypatch: pytest.MonkeyPatch) -> None:
    """u = pi as float32 has it, and its neighbours: s beyond 1e6, and W a turn by pi up to rounding."""
    u = torch.tensor([math.pi, 3.1415925, 3.141593, 3.0])
    monkeypatch.setattr(torch.Tensor, "uniform_", lambda self, a, b: self.copy_(u))
    A = cayley_circle_(torch.empty(8, 8))
    s = blocks(A)
    assert np.isfinite(s).all() and (np.abs(s[:3]) > 1e6).all()
    eye = torch.eye(8)
    W = torch.linalg.solve(eye + A, eye - A).double()
    np.testing.assert_allclose(W @ W.T, np.eye(8), atol=1e-6)
    np.testing.assert_allclose(W[:6, :6], -np.eye(6), atol=1e-6)
    np.testing.assert_allclose(W[6:, 6:], [[math.cos(3), math.sin(3)], [-math.sin(3), math.cos(3)]], atol=1e-6)


def test_cayley_spectrum_depends_on_the_map() -> None:
    """(I+A)^-1 (I-A) has angles u in [0, pi/2], uniform; exp(A) has angles tan(u/2) in [0, 1]."""
    torch.manual_seed(1)
    n = 200
    A = cayley_(torch.empty(n, n, dtype=F64)).numpy()
    eye = np.eye(n)
    cayley_angles = np.abs(np.angle(linalg.eigvals(np.linalg.solve(eye + A, eye - A))))
    exp_angles = np.abs(np.angle(linalg.eigvals(linalg.expm(A))))
    assert 1.3 < cayley_angles.max() <= math.pi / 2
    assert 0.8 < exp_angles.max() <= 1.0
    assert stats.kstest(np.sort(cayley_angles)[::2], "uniform", args=(0, math.pi / 2)).pvalue > P_MIN
    np.testing.assert_allclose(np.sort(np.tan(cayley_angles / 2)), np.sort(exp_angles), atol=1e-9)


@pytest.mark.parametrize("init", BLOCKS, ids=name)
def test_odd_size_leaves_the_eigenvalue_one(init: Callable[..., Tensor]) -> None:
    W = linalg.expm(init(torch.empty(7, 7, dtype=F64)).numpy())
    np.testing.assert_allclose(W[-1], np.eye(7)[-1], atol=0)
    np.testing.assert_allclose(np.linalg.det(W), 1.0, atol=1e-12)


# -- Haar measure on SO(n) -------------------------------------------------------------------------


@pytest.mark.parametrize("n", [2, 3, 5, 6])
def test_haar_samples_are_rotations(n: int) -> None:
    W = haar_samples(n)
    np.testing.assert_allclose(W @ W.transpose(0, 2, 1), np.broadcast_to(np.eye(n), W.shape), atol=1e-12)
    np.testing.assert_allclose(np.linalg.det(W), 1.0, atol=1e-12)


@pytest.mark.parametrize("n", [2, 3, 5, 6])
def test_haar_mean_is_zero(n: int) -> None:
    W = haar_samples(n)
    assert np.abs(W.mean(axis=0)).max() < 5 * math.sqrt(1 / n / len(W))


@pytest.mark.parametrize("n", [3, 5, 6])
def test_haar_trace_moments(n: int) -> None:
    """E tr = 0, E tr^2 = 1 and E tr^4 = 3, so the mean of tr^2 has the standard error sqrt(2 / count)."""
    trace = np.trace(haar_samples(n), axis1=1, axis2=2)
    assert abs(trace.mean()) < 5 / math.sqrt(len(trace))
    assert abs((trace**2).mean() - 1) < 5 * math.sqrt(2 / len(trace))


def test_haar_on_so2_is_a_uniform_angle() -> None:
    W = haar_samples(2)
    angle = np.arctan2(W[:, 0, 1], W[:, 0, 0])
    assert stats.kstest(angle, "uniform", args=(-math.pi, 2 * math.pi)).pvalue > P_MIN


def test_haar_on_so3_has_the_rotation_angle_density_one_minus_cos() -> None:
    trace = np.trace(haar_samples(3), axis1=1, axis2=2)
    theta = np.arccos(np.clip((trace - 1) / 2, -1, 1))
    assert stats.kstest(theta, lambda t: (t - np.sin(t)) / math.pi).pvalue > P_MIN


@pytest.mark.parametrize("n", [3, 5, 6])
def test_haar_moves_a_unit_vector_to_a_uniform_point_of_the_sphere(n: int) -> None:
    """A coordinate c of such a point has (c + 1)/2 ~ Beta((n-1)/2, (n-1)/2), in every direction."""
    rng = np.random.default_rng(n)
    W = haar_samples(n)
    for _ in range(3):
        u, v = (w / np.linalg.norm(w) for w in rng.normal(size=(2, n)))
        a = (n - 1) / 2
        assert stats.kstest((u @ W @ v + 1) / 2, "beta", args=(a, a)).pvalue > P_MIN


# -- vanilla recurrent matrices --------------------------------------------------------------------


@pytest.mark.parametrize("lam", [1.0, 0.96, 1.05])
def test_identity_is_lambda_times_i(lam: float) -> None:
    W = identity_(torch.full((5, 5), math.nan, dtype=F64), lam)
    np.testing.assert_array_equal(W.numpy(), lam * np.eye(5))
    assert torch.equal(identity_(torch.empty(5, 5)), torch.eye(5))


@pytest.mark.parametrize("lam", [1.0, 0.96, 1.05])
def test_orthogonal_is_lambda_times_a_dense_orthogonal_matrix(lam: float) -> None:
    torch.manual_seed(0)
    W = orthogonal_(torch.empty(9, 9, dtype=F64), lam).numpy()
    np.testing.assert_allclose(W.T @ W, lam**2 * np.eye(9), atol=1e-13)
    np.testing.assert_allclose(np.abs(linalg.eigvals(W)), lam, atol=1e-12)
    assert np.abs(W).min() > 0
    default = orthogonal_(torch.empty(9, 9, dtype=F64)).numpy()
    np.testing.assert_allclose(default.T @ default, np.eye(9), atol=1e-13)


def test_the_chain_flows_away_from_the_source() -> None:
    """The released torch code has the transpose, which forgets at once: 0.01 instead of 5.19."""
    from lit_rnn.analysis import total_fisher_memory

    W, v = chain_(torch.empty(100, 100), 1.0), source_(torch.empty(100, 1), 1.0)[:, 0]
    assert total_fisher_memory(W, v) == pytest.approx(sum(1 / k for k in range(1, 101)), rel=1e-10)
    assert total_fisher_memory(W.T, v) == pytest.approx(0.01, rel=1e-10)
    few = fbchain_(torch.empty(20, 20), 0.99, 0.01), chain_(torch.empty(20, 20), 0.99)
    with_feedback, without = (total_fisher_memory(W, v[:20]) for W in few)
    assert without < with_feedback < 1.02 * without
