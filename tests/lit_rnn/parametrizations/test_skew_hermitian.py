"""The exponential and the Cayley map of A = S + iH, plain, moved and scaled; scuRNN's gradient by hand.

Gradients: torch leaves dl/dRe W + i dl/dIm W in W.grad; `tests.oracles.maps` says what the papers' form makes of it.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from scipy import linalg, stats

from lit_rnn.init import cayley_
from lit_rnn.parametrizations import Cayley, Exponential, UnitaryScaledCayley
from tests.oracles.maps import cayley_of, free_of, generator, half, random_unitary, scaled_dense, scurnn_gradient
from tests.oracles.modules import close, fill, numbers, put, value

C128 = torch.complex128


# -- exp and Cayley of a skew-Hermitian generator --------------------------------------------------


def test_generator_reads_both_triangles_row_by_row() -> None:
    module = Exponential(3, unitary=True).double()
    put(module, skew=np.array([1.0, 2.0, 3.0]), symmetric=np.array([4.0, 5.0, 6.0, 7.0, 8.0, 9.0]))
    A = module.generator().detach().numpy()
    expected = [[4j, 1 + 5j, 2 + 6j], [-1 + 5j, 7j, 3 + 8j], [-2 + 6j, -3 + 8j, 9j]]
    np.testing.assert_array_equal(A, expected)


@pytest.mark.parametrize("trivialized", [False, True])
@pytest.mark.parametrize("map_class", [Exponential, Cayley])
def test_unitary_map_starts_real(map_class: Callable[..., Any], trivialized: bool) -> None:
    """H starts at zero: the spectrum is that of the real initialiser."""
    torch.manual_seed(5)
    module = map_class(9, cayley_, trivialized=trivialized, unitary=True)
    torch.manual_seed(5)
    A = cayley_(torch.empty(9, 9)).double().numpy()
    assert not module.symmetric.any()
    assert module.skew.any().item() is not trivialized
    close(value(module), linalg.expm(A) if map_class is Exponential else cayley_of(A), atol=5e-6)


def test_the_circle_is_one_by_one() -> None:
    """n = 1: exp(i h), and (1 - ih) / (1 + ih) = exp(-2i arctan h)."""
    for h in (0.3, -2.0, 3.0):
        for map_class, angle in ((Exponential, h), (Cayley, -2 * math.atan(h))):
            module = map_class(1, unitary=True).double()
            put(module, symmetric=np.array([h]))
            close(value(module), [[np.exp(1j * angle)]])


@pytest.mark.parametrize("n", [2, 3, 8])
def test_determinant_is_anywhere_on_the_circle(n: int) -> None:
    """det exp(A) = exp(i tr H); det of the Cayley map is the product over eigenvalues i lambda of A."""
    for seed in range(3):
        exponential, cayley = (fill(m(n, unitary=True).double(), seed) for m in (Exponential, Cayley))
        A = generator(numbers(exponential), n)
        close(np.linalg.det(value(exponential)), np.exp(np.trace(A)), atol=1e-11)
        rates = np.linalg.eigvalsh(-1j * generator(numbers(cayley), n))
        close(np.linalg.det(value(cayley)), np.exp(-2j * np.arctan(rates).sum()), atol=1e-11)


@pytest.mark.parametrize("n", [1, 2, 3, 8])
def test_exp_reaches_any_unitary_matrix(n: int) -> None:
    """U(n) is connected and compact: every element has a logarithm, here from its Schur form (U is normal)."""
    U = random_unitary(n, seed=n)
    T, Q = linalg.schur(U, output="complex")
    A = Q @ np.diag(1j * np.angle(np.diag(T))) @ Q.conj().T
    module = Exponential(n, unitary=True).double()
    put(module, **free_of((A - A.conj().T) / 2))
    close(value(module), U, atol=1e-11)


@pytest.mark.parametrize("n", [1, 2, 3, 8])
def test_cayley_reaches_any_unitary_matrix_but_those_with_the_eigenvalue_minus_one(n: int) -> None:
    U = random_unitary(n, seed=n)
    assert np.abs(linalg.eigvals(U) + 1).min() > 1e-2
    module = Cayley(n, unitary=True).double()
    A = cayley_of(U)
    put(module, **free_of((A - A.conj().T) / 2))
    close(value(module), U, atol=1e-10)


@pytest.mark.parametrize("n", [1, 2, 3, 8])
def test_cayley_stays_away_from_the_eigenvalue_minus_one(n: int) -> None:
    """I + W = 2 (I + A)^-1, so the distance from the spectrum to -1 is 2 / sqrt(1 + |A|^2): never 0."""
    module = Cayley(n, unitary=True).double()
    for scale in (0.1, 1.0, 30.0):
        fill(module, seed=n, scale=scale)
        bound = 2 / math.sqrt(1 + np.linalg.norm(generator(numbers(module), n), 2) ** 2)
        close(np.abs(linalg.eigvals(value(module)) + 1).min(), bound, atol=1e-10)


def test_every_direction_is_the_frechet_derivative() -> None:
    """<G, B L(A, E)> for each of the n^2 basis elements E of the skew-Hermitian matrices, by SciPy."""
    n = 4
    module = fill(Exponential(n, trivialized=True, unitary=True).double(), seed=2)
    rng = np.random.default_rng(7)
    G = rng.normal(size=(n, n)) + 1j * rng.normal(size=(n, n))
    module().backward(torch.tensor(G))
    p = numbers(module)
    A = generator(p, n)
    for key, number in (("skew", half(n)), ("symmetric", half(n + 1))):
        expected = []
        for k in range(number):
            zero = {"skew": np.zeros(half(n)), "symmetric": np.zeros(half(n + 1))}
            E = generator({**zero, key: np.eye(number)[k]}, n)
            expected.append(np.vdot(G, p["base"] @ linalg.expm_frechet(A, E, compute_expm=False)).real)
        close(module.get_parameter(key).grad, expected, atol=1e-11)


@pytest.mark.parametrize(("map_class", "factor"), [(Exponential, 1.0), (Cayley, -2.0)])
def test_gradient_at_a_rebased_point_is_the_skew_hermitian_part(map_class: Callable[..., Any], factor: float) -> None:
    """At A = 0, dW = B dA under exp and -2 B dA under Cayley; M = B^H G, G as torch leaves it."""
    n = 5
    module = fill(map_class(n, trivialized=True, unitary=True).double())
    put(module, skew=np.zeros(half(n)), symmetric=np.zeros(half(n + 1)))
    rng = np.random.default_rng(1)
    G = rng.normal(size=(n, n)) + 1j * rng.normal(size=(n, n))
    module().backward(torch.tensor(G))
    M = factor * numbers(module)["base"].conj().T @ G
    close(module.skew.grad, (M - M.T).real[np.triu_indices(n, 1)])
    close(module.symmetric.grad, ((M + M.T).imag / (1 + np.eye(n)))[np.triu_indices(n)])


@pytest.mark.parametrize("map_class", [Exponential, Cayley])
@pytest.mark.parametrize("n", [1, 2, 3, 8])
def test_rebase_moves_the_base_and_leaves_the_matrix(map_class: Callable[..., Any], n: int) -> None:
    module = fill(map_class(n, trivialized=True, unitary=True).double(), seed=n)
    before, base, old = value(module).copy(), module.base, numbers(module)["base"]
    assert np.abs(before - old).max() > 0.05
    module.rebase_()
    close(module.base, before)
    close(value(module), before, atol=1e-13)
    assert not module.skew.any() and not module.symmetric.any()
    assert module.base is base and module.base.dtype == C128


@pytest.mark.parametrize("map_class", [Exponential, Cayley])
@pytest.mark.parametrize("n", [1, 3, 8])
def test_projection_is_the_polar_factor(map_class: Callable[..., Any], n: int) -> None:
    module = fill(map_class(n, trivialized=True, unitary=True).double(), seed=n)
    rng = np.random.default_rng(n)
    noise = rng.normal(size=(n, n)) + 1j * rng.normal(size=(n, n))
    moved = numbers(module)["base"] + 0.1 / math.sqrt(n) * noise
    with torch.no_grad():
        module.base.copy_(torch.tensor(moved))
    module.project_()
    close(module.base, linalg.polar(moved)[0])


# -- scuRNN's map ----------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [1, 2, 3, 8, 17])
def test_unitary_scaled_cayley_has_the_papers_gradient(n: int) -> None:
    module = fill(UnitaryScaledCayley(n).double(), seed=n)
    rng = np.random.default_rng(9)
    G = rng.normal(size=(n, n)) + 1j * rng.normal(size=(n, n))
    module().backward(torch.tensor(2 * G.conj()))
    for key, expected in scurnn_gradient(numbers(module), G).items():
        close(module.get_parameter(key).grad, expected, atol=1e-10)


def test_the_hand_derived_gradient_is_the_difference_quotient() -> None:
    """The oracle itself: l = 2 Re tr(G^T W) has the halved, conjugate gradient G."""
    n, step, rng = 4, 1e-6, np.random.default_rng(4)
    p = {"skew": rng.normal(size=6), "symmetric": rng.normal(size=10), "phase": rng.normal(size=4)}
    G = rng.normal(size=(n, n)) + 1j * rng.normal(size=(n, n))

    def loss(key: str, k: int, h: float) -> float:
        return 2 * np.sum(G * scaled_dense({**p, key: p[key] + h * np.eye(len(p[key]))[k]}, n)).real

    for key, expected in scurnn_gradient(p, G).items():
        quotients = [(loss(key, k, step) - loss(key, k, -step)) / (2 * step) for k in range(len(p[key]))]
        close(expected, quotients, atol=1e-7)


def test_unitary_scaled_cayley_reaches_the_eigenvalue_minus_one() -> None:
    """A = 0 and theta = pi: W = -I, which no Cayley map alone comes to."""
    module = UnitaryScaledCayley(3).double()
    put(module, skew=np.zeros(3), symmetric=np.zeros(6), phase=np.full(3, math.pi))
    close(value(module), -np.eye(3))


def test_phases_multiply_columns() -> None:
    """W = Z D, D on the right: each column turns by its own phase."""
    plain, turned = (fill(UnitaryScaledCayley(5).double()) for _ in range(2))
    theta = np.array([0.1, -0.7, 2.0, 3.0, -1.5])
    put(plain, phase=np.zeros(5))
    put(turned, phase=theta)
    close(value(turned), value(plain) * np.exp(1j * theta)[None, :])


def test_unitary_scaled_cayley_starts_from_real_blocks_and_phases_anywhere() -> None:
    torch.manual_seed(0)
    module = UnitaryScaledCayley(400)
    assert not module.symmetric.any()
    theta = module.phase.detach().double().numpy()
    assert stats.kstest(theta, "uniform", args=(0, 2 * math.pi)).pvalue > 1e-4
    A = np.zeros((400, 400))
    A[np.triu_indices(400, 1)] = module.skew.detach().numpy()
    s = A[0:-1:2, 1::2].diagonal()
    assert stats.kstest(-2 * np.arctan(s), "uniform", args=(0, math.pi / 2)).pvalue > 1e-4
    assert np.count_nonzero(A) == np.count_nonzero(s)
