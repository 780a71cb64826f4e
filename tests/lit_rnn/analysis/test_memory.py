"""Fisher memory against its closed forms, and decoders against what must be so."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from datamodules import UserError
from lit_rnn.analysis import decoder_memory, fisher_memory_curve, total_fisher_memory
from lit_rnn.init import chain_, fbchain_, source_

N = 100


def chain(n: int, alpha: float, beta: float = 0.0) -> np.ndarray:
    return alpha * np.eye(n, k=-1) + beta * np.eye(n, k=1)


def first(n: int) -> np.ndarray:
    return np.eye(n)[0]


def orthogonal(n: int, seed: int) -> np.ndarray:
    return np.linalg.qr(np.random.default_rng(seed).standard_normal((n, n)))[0]


@pytest.mark.parametrize(("alpha", "total"), [(0.99, 4.391), (1.00, 5.187), (1.02, 7.606)])
def test_the_chain_fed_at_its_source(alpha: float, total: float) -> None:
    assert total_fisher_memory(chain(N, alpha), first(N)) == pytest.approx(total, abs=5e-4)
    curve = fisher_memory_curve(chain(N, alpha), first(N), 2 * N)
    expected = [alpha ** (2 * k) / sum(alpha ** (2 * m) for m in range(k + 1)) if k < N else 0.0 for k in range(2 * N)]
    np.testing.assert_allclose(curve, expected, rtol=1e-10, atol=1e-14)
    assert curve.sum() == pytest.approx(total_fisher_memory(chain(N, alpha), first(N)), rel=1e-12)


def test_our_initialisers_flow_from_the_source() -> None:
    """The released torch code has the transpose, which forgets at once: 0.01 instead of 5.19."""
    W, V = chain_(torch.empty(N, N), 1.0), source_(torch.empty(N, 1), 1.0)
    assert total_fisher_memory(W, V[:, 0]) == pytest.approx(sum(1 / k for k in range(1, N + 1)), rel=1e-10)
    assert total_fisher_memory(W.T, V[:, 0]) == pytest.approx(1 / N, rel=1e-10)
    assert total_fisher_memory(fbchain_(torch.empty(N, N), 0.99, 0.01), V[:, 0]) == pytest.approx(4.458, abs=5e-4)


@pytest.mark.parametrize("W", [0.95 * np.eye(N), 0.95 * orthogonal(N, 0)], ids=["identity", "orthogonal"])
def test_a_normal_matrix_remembers_one(W: np.ndarray) -> None:
    v = np.random.default_rng(1).standard_normal(N)
    v /= np.linalg.norm(v)
    assert total_fisher_memory(W, v) == pytest.approx(1, abs=1e-10)
    k = np.arange(30)
    np.testing.assert_allclose(fisher_memory_curve(W, v, 30), 0.95 ** (2 * k) * (1 - 0.95**2), rtol=1e-8)


def test_against_the_definition_summed_up() -> None:
    rng = np.random.default_rng(2)
    W, v = 0.8 * rng.standard_normal((9, 9)) / 3, rng.standard_normal(9)
    powers = [np.linalg.matrix_power(W, k) for k in range(400)]
    C = 0.3 * sum(P @ P.T for P in powers)
    expected = [P @ v @ np.linalg.solve(C, P @ v) for P in powers]
    np.testing.assert_allclose(fisher_memory_curve(W, v, 40, noise=0.3), expected[:40], rtol=1e-9)
    assert total_fisher_memory(W, v, noise=0.3) == pytest.approx(sum(expected), rel=1e-9)
    assert total_fisher_memory(W, v, noise=0.6) == pytest.approx(sum(expected) / 2, rel=1e-9)
    assert total_fisher_memory(W, v / np.linalg.norm(v)) <= 9


@pytest.mark.parametrize("W", [np.eye(3), 1.01 * orthogonal(8, 3), chain(5, 0.9, 0.9)], ids=["1", "1.01 Q", "1.8 cos"])
def test_refuses_what_does_not_converge(W: np.ndarray) -> None:
    with pytest.raises(UserError, match="spectral radius"):
        fisher_memory_curve(W, first(len(W)), 5)


def test_refuses_bad_numbers() -> None:
    for arguments in ((chain(4, 1), first(3), 5), (chain(4, 1), first(4), 0), (chain(4, math.nan), first(4), 5)):
        with pytest.raises(UserError):
            fisher_memory_curve(*arguments)
    with pytest.raises(UserError, match="noise"):
        fisher_memory_curve(chain(4, 1), first(4), 5, noise=0)
    with pytest.raises(UserError, match="lags"):
        decoder_memory(chain(4, 1), first(4), [4], steps=4)


# ---- decoders (figure 2 of the paper, in small)

n = 30


def test_without_noise_a_linear_network_remembers_everything() -> None:
    lags = range(n)
    np.testing.assert_allclose(decoder_memory(chain(n, 1.0), first(n), lags), 1, atol=1e-6)
    v = np.random.default_rng(0).standard_normal(n) / n**0.5
    assert decoder_memory(orthogonal(n, 1), v, [n - 1], samples=2000)[0] > 0.99


@pytest.mark.parametrize(("f", "noise"), [("identity", 0.05), ("elu", 0.0)])
def test_the_chain_beats_the_orthogonal_network(f: str, noise: float) -> None:
    lags = range(5, n)
    of_chain = decoder_memory(chain(n, 1.02), first(n), lags, f, noise)  # type: ignore[arg-type]
    v = np.random.default_rng(0).standard_normal(n)
    of_orthogonal = decoder_memory(orthogonal(n, 1), v / np.linalg.norm(v), lags, f, noise)  # type: ignore[arg-type]
    assert of_chain.mean() > of_orthogonal.mean() + 0.1
    assert (of_chain <= 1 + 1e-12).all()


def test_a_chain_with_noise_by_hand() -> None:
    """Unit k + 1 of the chain with gain 1 holds s_{T-k} and k + 1 noises: R^2 = 1 / (1 + (k + 1) noise)."""
    found = decoder_memory(chain(8, 1.0), first(8), range(8), noise=0.25, samples=60_000, steps=8)
    np.testing.assert_allclose(found, [1 / (1 + (k + 1) * 0.25) for k in range(8)], atol=0.02)


def test_nothing_is_left_beyond_the_end_of_the_chain() -> None:
    assert abs(decoder_memory(chain(8, 1.0), first(8), [8, 11], steps=12)).max() < 0.05
