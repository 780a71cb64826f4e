"""How far from normal: Henrici's departure, the Schur form, the commutator and the hidden chain."""

import math

import numpy as np
import pytest
import torch

from datamodules.errors import UserError
from lit_rnn.analysis import (
    IllConditionedWarning,
    commutator_norm,
    feedforward_profile,
    henrici,
    hidden_chain_profile,
    schur,
)
from tests.oracles.spectra import chain, first, gaussian, grcar, unitary


def normal_with(values: np.ndarray, seed: int) -> np.ndarray:
    U = unitary(len(values), seed, True)
    return (U * values) @ U.conj().T


NORMAL = {
    "orthogonal": 0.95 * unitary(100, 1),
    "unitary": unitary(40, 2, True),
    "symmetric": gaussian(60, 3) + gaussian(60, 3).T,
    "skew": gaussian(60, 4) - gaussian(60, 4).T,
    "circulant": np.roll(np.eye(10), 1, axis=0),
    "diagonal": np.diag([1.0, -2.0, 3.0]),
    "rotation": 0.9 * np.array([[0.5, -math.sqrt(0.75)], [math.sqrt(0.75), 0.5]]),
    "complex normal": normal_with(np.exp(1j * np.arange(12)) * np.arange(12), 5),
    "identity": np.eye(100),
    "one": np.array([[-0.7]]),
    "complex one": np.array([[0.3 - 0.4j]]),
    "zero": np.zeros((5, 5)),
}

# -- Henrici ---------------------------------------------------------------------------------------


def test_henrici_of_the_feedback_chain_to_the_published_digits() -> None:
    """Where every float64 route gives 7.5."""
    found = henrici(chain(100, 0.99, 0.04))
    assert found == pytest.approx(9.4524, abs=5e-5)
    assert found == pytest.approx(9.45238065251289, rel=1e-9)


@pytest.mark.parametrize("precision", ["auto", "high"])
@pytest.mark.parametrize("n", [2, 3, 20, 40])
@pytest.mark.parametrize(("alpha", "beta"), [(1.0, 0.001), (0.99, 0.04), (0.3, 0.99), (1.05, 0.07), (0.5, 0.5)])
def test_henrici_of_any_feedback_chain(n: int, alpha: float, beta: float, precision: str) -> None:
    """sqrt(n - 1) |alpha - beta|, and next to the norm sqrt(n - 1) (alpha^2 + beta^2)^1/2."""
    W, each = chain(n, alpha, beta), abs(alpha - beta)
    assert henrici(W, precision=precision) == pytest.approx(math.sqrt(n - 1) * each, abs=1e-7)
    assert henrici(W, True, precision) == pytest.approx(each / math.hypot(alpha, beta), abs=1e-7)


def test_double_precision_warns_of_fiction() -> None:
    with pytest.warns(IllConditionedWarning):
        henrici(chain(100, 0.99, 0.04), precision="double")


@pytest.mark.parametrize("precision", ["auto", "double", "high"])
def test_henrici_agrees_in_every_precision_where_float64_can(precision: str) -> None:
    assert henrici(grcar(10), precision=precision) == pytest.approx(3.0227553718, abs=6e-11)
    assert henrici(grcar(10), True, precision) == pytest.approx(3.0227553718 / math.sqrt(43), abs=1e-10)


@pytest.mark.parametrize("W", NORMAL.values(), ids=NORMAL.keys())
@pytest.mark.parametrize("normalized", [False, True])
def test_normal_matrices_have_no_departure(W: np.ndarray, normalized: bool) -> None:
    assert 0 <= henrici(W, normalized=normalized) < 1e-10
    assert 0 <= commutator_norm(W, normalized=normalized) < 1e-10


def test_a_departure_of_1e_9_is_seen() -> None:
    """The difference of squares would have lost it: 1e-18 beside 2."""
    W = np.array([[1.0, 1e-9], [0.0, 0.5]])
    assert henrici(W) == pytest.approx(1e-9, rel=1e-3)


@pytest.mark.parametrize("n", [2, 5, 30, 100])
@pytest.mark.parametrize("alpha", [0.99, 1.0, 1.02])
def test_the_chain_is_all_departure(n: int, alpha: float) -> None:
    assert henrici(chain(n, alpha)) == pytest.approx(alpha * math.sqrt(n - 1), rel=1e-9)
    assert henrici(chain(n, alpha), normalized=True) == pytest.approx(1, abs=1e-9)


@pytest.mark.parametrize(("value", "c"), [(0.9, 1.0), (0.9, 0.1), (0.0, 10.0), (-0.3 + 0.2j, 2.0)])
def test_two_by_two(value: complex, c: float) -> None:
    W = np.array([[value, c], [0, value]])
    size = math.sqrt(2 * abs(value) ** 2 + c**2)
    assert henrici(W) == pytest.approx(c, abs=1e-7)
    assert henrici(W, normalized=True) == pytest.approx(c / size, abs=1e-7)
    assert commutator_norm(W, normalized=False) == pytest.approx(math.sqrt(2) * c**2, rel=1e-12)
    assert commutator_norm(W) == pytest.approx(math.sqrt(2) * c**2 / size**2, rel=1e-12)


@pytest.mark.parametrize("n", [1, 2, 3, 10, 50])
@pytest.mark.parametrize("complex_", [False, True])
def test_departure_is_unitarily_invariant_and_homogeneous(n: int, complex_: bool) -> None:
    W, U = gaussian(n, 7 * n, complex_), unitary(n, 1, complex_)
    size = np.linalg.norm(W)
    d, c = henrici(W), commutator_norm(W, normalized=False)
    assert d**2 == pytest.approx(size**2 - (abs(np.linalg.eigvals(W)) ** 2).sum(), abs=1e-9)
    assert c == pytest.approx(np.linalg.norm(W @ W.conj().T - W.conj().T @ W), abs=1e-12)
    assert henrici(W, normalized=True) == pytest.approx(d / size, abs=1e-12)
    assert commutator_norm(W) == pytest.approx(c / size**2, abs=1e-12)
    for other in (U @ W @ U.conj().T, W.T, W.conj(), W.conj().T):
        assert henrici(other) == pytest.approx(d, abs=1e-9)
        assert commutator_norm(other, normalized=False) == pytest.approx(c, abs=1e-9)
    assert henrici((2 - 1j) * W) == pytest.approx(math.sqrt(5) * d, abs=1e-9)
    assert henrici((2 - 1j) * W, normalized=True) == pytest.approx(d / size, abs=1e-9)
    assert commutator_norm((2 - 1j) * W) == pytest.approx(c / size**2, abs=1e-9)
    assert henrici(W + 3j * np.eye(n)) == pytest.approx(d, abs=1e-9)


def test_henrici_bounds_by_the_commutator() -> None:
    """||C||_F^2 / (6 ||W||^2) <= dep^2 <= sqrt((n^3 - n) / 12) ||C||_F, C the commutator (Elsner and Paardekooper)."""
    for seed in range(6):
        W = gaussian(9, seed, seed % 2 == 0)
        d, c = henrici(W), commutator_norm(W, normalized=False)
        assert c**2 / (6 * np.linalg.norm(W) ** 2) <= d**2 <= math.sqrt((9**3 - 9) / 12) * c


# -- Schur -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [1, 2, 3, 12, 100])
@pytest.mark.parametrize("kind", ["real", "complex", "chain", "grcar", "orthogonal"])
def test_schur_form(n: int, kind: str) -> None:
    W = {
        "real": gaussian(n, 3),
        "complex": gaussian(n, 4, True),
        "chain": chain(n, 1.02, 0.04),
        "grcar": grcar(n),
        "orthogonal": unitary(n, 5),
    }[kind]
    T, U = schur(W)
    assert T.dtype == np.complex128
    assert U.dtype == np.complex128
    np.testing.assert_array_equal(np.tril(T, -1), 0)
    np.testing.assert_allclose(U.conj().T @ U, np.eye(n), atol=1e-12)
    np.testing.assert_allclose(U @ T @ U.conj().T, W, atol=1e-12 * max(1, np.linalg.norm(W)))


@pytest.mark.parametrize("n", [1, 2, 3, 12, 60])
@pytest.mark.parametrize("complex_", [False, True])
def test_feedforward_profile_adds_up(n: int, complex_: bool) -> None:
    W = gaussian(n, 8 + n, complex_)
    profile = feedforward_profile(W)
    assert profile.shape == (n,)
    assert (profile >= 0).all()
    assert (profile**2).sum() == pytest.approx(np.linalg.norm(W) ** 2, rel=1e-12)
    assert profile[0] == pytest.approx(np.linalg.norm(np.linalg.eigvals(W)), rel=1e-10)
    assert np.linalg.norm(profile[1:]) == pytest.approx(henrici(W), abs=1e-9)
    T, _ = schur(W)
    np.testing.assert_allclose(profile, [np.linalg.norm(np.diagonal(T, d)) for d in range(n)], atol=1e-9)


@pytest.mark.parametrize("n", [2, 5, 40, 100])
def test_feedforward_profile_of_the_chain_is_one_step(n: int) -> None:
    expected = np.zeros(n)
    expected[1] = 1.02 * math.sqrt(n - 1)
    np.testing.assert_allclose(feedforward_profile(chain(n, 1.02)), expected, atol=1e-9)
    np.testing.assert_allclose(feedforward_profile(chain(n, 1.02).T), expected, atol=1e-9)


def test_feedforward_profile_of_a_shift_by_three() -> None:
    """Three interleaved chains: all the weight is off the diagonal, whatever the order the Schur form takes."""
    profile = feedforward_profile(np.eye(12, k=-3))
    assert profile[0] < 1e-9
    assert np.linalg.norm(profile) == pytest.approx(3, rel=1e-12)


def test_feedforward_profile_of_two_by_two() -> None:
    np.testing.assert_allclose(
        feedforward_profile(np.array([[0.9, 2.0], [0, 0.5]])), [math.hypot(0.9, 0.5), 2.0], rtol=1e-12
    )


@pytest.mark.parametrize("W", NORMAL.values(), ids=NORMAL.keys())
def test_feedforward_profile_of_a_normal_matrix_is_its_diagonal(W: np.ndarray) -> None:
    profile = feedforward_profile(W)
    assert profile[0] == pytest.approx(np.linalg.norm(W), abs=1e-10)
    np.testing.assert_allclose(profile[1:], 0, atol=1e-10)


# -- hidden chain ----------------------------------------------------------------------------------


def at(offsets: np.ndarray, means: np.ndarray, offset: int) -> float:
    (index,) = np.flatnonzero(offsets == offset)
    return float(means[index])


@pytest.mark.parametrize("n", [2, 10, 50, 100])
@pytest.mark.parametrize("alpha", [0.99, 1.0, 1.02])
@pytest.mark.parametrize("permuted", [False, True])
def test_a_chain_has_a_single_peak_one_step_ahead(n: int, alpha: float, permuted: bool) -> None:
    order = np.random.default_rng(n).permutation(n) if permuted else np.arange(n)
    W, v = np.zeros((n, n)), np.zeros(n)
    W[np.ix_(order, order)], v[order] = chain(n, alpha), first(n)
    offsets, means = hidden_chain_profile(W, steps=100, v=v)
    np.testing.assert_array_equal(offsets, np.arange(-(n - 1), n))
    expected = np.where(offsets == 1, alpha, 0.0)
    np.testing.assert_allclose(means, expected, atol=1e-12)


def test_a_complex_chain_is_followed_by_its_moduli() -> None:
    """Weights of any phase, and a pulse of another: their mean is at one step ahead, phases and all."""
    order, gains = np.random.default_rng(0).permutation(6), 0.9 * np.exp(1j * np.arange(5))
    W, v = np.zeros((6, 6), dtype=complex), np.zeros(6, dtype=complex)
    W[np.ix_(order, order)], v[order[0]] = np.diag(gains, -1), 1j
    offsets, means = hidden_chain_profile(W, v)
    np.testing.assert_allclose(means, np.where(offsets == 1, gains.mean(), 0), atol=1e-12)


def test_a_chain_with_feedback_has_both_neighbours() -> None:
    offsets, means = hidden_chain_profile(chain(30, 0.99, 0.04), v=first(30))
    expected = 0.99 * (offsets == 1) + 0.04 * (offsets == -1)
    np.testing.assert_allclose(means, expected, atol=1e-12)


def test_a_reversed_chain_is_seen_from_its_own_source() -> None:
    offsets, means = hidden_chain_profile(chain(20, 1.0).T, v=np.eye(20)[-1])
    np.testing.assert_allclose(means, np.where(offsets == 1, 1.0, 0.0), atol=1e-12)


@pytest.mark.parametrize("n", [2, 9, 40])
def test_a_symmetric_matrix_shows_no_direction(n: int) -> None:
    """W_ij = W_ji: the mean over pairs at distance d is the mean at -d, whatever the order."""
    G = gaussian(n, n)
    W = 0.4 * (G + G.T)
    offsets, means = hidden_chain_profile(W, steps=60, v=first(n))
    np.testing.assert_array_equal(offsets, -offsets[::-1])
    np.testing.assert_allclose(means, means[::-1], atol=1e-12)


@pytest.mark.parametrize("n", [1, 2, 7, 40])
def test_the_profile_is_an_average_over_diagonals_of_a_reordered_matrix(n: int) -> None:
    W = 0.8 * gaussian(n, 31 + n)
    offsets, means = hidden_chain_profile(W, steps=50, v=gaussian(n, 5)[:, 0])
    counts = n - abs(offsets)
    assert (means * counts).sum() == pytest.approx(W.sum(), abs=1e-10)  # no weight is lost or counted twice
    assert at(offsets, means, 0) == pytest.approx(np.trace(W) / n, abs=1e-12)
    transposed = hidden_chain_profile(W, steps=50, v=gaussian(n, 5)[:, 0])[1]
    np.testing.assert_array_equal(means, transposed)  # ties are broken the same way twice


def test_a_random_matrix_shows_little_direction() -> None:
    """Over 20 seeds the near-offset asymmetry of an untrained matrix is zero within four standard errors or so."""
    found = []
    for seed in range(20):
        n = 40
        v = np.random.default_rng(seed).standard_normal(n) / math.sqrt(n)
        offsets, means = hidden_chain_profile(0.9 * unitary(n, seed), steps=100, v=v)
        found.append(sum(at(offsets, means, d) - at(offsets, means, -d) for d in range(1, 6)))
    assert abs(np.mean(found)) < 0.1  # a chain would show 0.9
    assert np.std(found) > 0


# -- arrays in and out -----------------------------------------------------------------------------


def test_a_small_departure_is_not_lost_next_to_large_eigenvalues() -> None:
    """1 + 1e-18 - 1 is 0: the block whose eigenvalues double precision gets wrong has its own difference."""
    W = np.diag([1.0, 0.0, 0.0])
    W[1, 2], W[2, 1] = 1e-9, 1e-27
    assert henrici(W) == pytest.approx(1e-9, rel=1e-9)
    W[0, 1] = 3e-9
    assert henrici(W, normalized=True) == pytest.approx(1e-9 * math.sqrt(10), rel=1e-9)


def test_bad_options_are_refused() -> None:
    W = chain(4, 1.0)
    with pytest.raises(UserError, match="quadruple"):
        henrici(W, precision="quadruple")
    for v in (np.ones(3), np.ones((4, 4)), np.array([1.0, math.nan, 0, 0])):
        with pytest.raises(UserError):
            hidden_chain_profile(W, v=v)
    with pytest.raises(UserError):
        hidden_chain_profile(W, steps=-1, v=first(4))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_torch_and_numpy_give_the_same(dtype: torch.dtype) -> None:
    W = torch.nn.Parameter(torch.tensor(grcar(10), dtype=dtype))
    assert isinstance(henrici(W), float)
    assert henrici(W) == pytest.approx(3.0227553718, abs=6e-11)
    assert isinstance(commutator_norm(W), float)
    assert commutator_norm(W) == pytest.approx(commutator_norm(grcar(10)), rel=1e-12)
    np.testing.assert_allclose(feedforward_profile(W), feedforward_profile(grcar(10)), atol=1e-12)
    offsets, means = hidden_chain_profile(W.detach() / 4, v=torch.eye(10)[0])
    np.testing.assert_allclose(means, hidden_chain_profile(grcar(10) / 4, v=first(10))[1], atol=1e-12)
    assert isinstance(offsets, np.ndarray)
    assert isinstance(means, np.ndarray)
