"""Fisher memory against its closed forms, and decoding the past from the last state (Orhan and Pitkow, sections 1-2).

The chain fed at its source has J(k) = alpha^2k / sum_{m <= k} alpha^2m; every normal matrix has J_tot = |v|^2; and for
any stable W the totals of an orthonormal basis of inputs add up to n, since tr(C^-1 sum_k W^k W^kT) = tr I.
"""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy import linalg

from datamodules.errors import UserError
from lit_rnn.activations import Nonlinearity
from lit_rnn.analysis import decoder_memory, fisher_memory_curve, memory, spectral_radius, total_fisher_memory
from tests.oracles.cells import NONLINEARITIES
from tests.oracles.spectra import chain, first, gaussian, unitary

N = 100


def unit(n: int, seed: int) -> np.ndarray:
    v = np.random.default_rng(seed).standard_normal(n)
    return v / np.linalg.norm(v)


def chain_curve(n: int, alpha: float, horizon: int) -> np.ndarray:
    power = alpha ** (2.0 * np.arange(horizon))
    return np.where(np.arange(horizon) < n, power / np.cumsum(power), 0.0)


# -- Fisher: the chain -----------------------------------------------------------------------------


@pytest.mark.parametrize("n", [1, 2, 3, 20, 100])
@pytest.mark.parametrize("alpha", [0.5, 0.99, 1.0, 1.02, 1.05])
def test_the_chain_has_its_closed_form_at_every_lag(n: int, alpha: float) -> None:
    curve = fisher_memory_curve(chain(n, alpha), first(n), n + 7)
    assert curve.shape == (n + 7,)
    np.testing.assert_allclose(curve, chain_curve(n, alpha, n + 7), rtol=1e-9, atol=1e-13)


def test_the_plain_chain_forgets_like_one_over_k() -> None:
    np.testing.assert_allclose(fisher_memory_curve(chain(N, 1.0), first(N), N), 1 / np.arange(1, N + 1), rtol=1e-12)
    assert total_fisher_memory(chain(N, 1.0), first(N)) == pytest.approx((1 / np.arange(1, N + 1)).sum(), rel=1e-12)


@pytest.mark.parametrize(("alpha", "total"), [(0.99, 4.391), (1.00, 5.187), (1.02, 7.606)])
@pytest.mark.parametrize("dtype", [np.float64, np.float32, torch.float64])
def test_total_memory_of_the_chain(alpha: float, total: float, dtype: object) -> None:
    W, v = chain(N, alpha), first(N)
    if isinstance(dtype, torch.dtype):
        found = total_fisher_memory(torch.nn.Parameter(torch.tensor(W, dtype=dtype)), torch.tensor(v, dtype=dtype))
    else:
        found = total_fisher_memory(W.astype(dtype), v.astype(dtype))  # type: ignore[call-overload]
    assert isinstance(found, float)
    assert found == pytest.approx(total, abs=5.1e-4)
    assert found == pytest.approx(chain_curve(N, alpha, N).sum(), rel=1e-5)


def test_feedback_adds_a_little(monkeypatch: pytest.MonkeyPatch) -> None:
    radii: list[float] = []
    monkeypatch.setattr(memory, "spectral_radius", lambda W: radii.append(spectral_radius(W)) or radii[-1])
    assert total_fisher_memory(chain(N, 0.99, 0.01), first(N)) == pytest.approx(4.458, abs=5.1e-4)
    assert radii == [pytest.approx(0.1989, abs=5e-5)]


@pytest.mark.parametrize("n", [2, 10, 100])
@pytest.mark.parametrize("alpha", [0.99, 1.0, 1.02])
def test_a_reversed_chain_drops_the_signal_at_once(n: int, alpha: float) -> None:
    """The published torch initialiser: unit 1 is the sink, and hears the noise of all the others."""
    expected = 1 / (alpha ** (2.0 * np.arange(n))).sum()
    assert total_fisher_memory(chain(n, alpha).T, first(n)) == pytest.approx(expected, rel=1e-9)
    curve = fisher_memory_curve(chain(n, alpha).T, first(n), n)
    assert curve[0] == pytest.approx(expected, rel=1e-9)
    np.testing.assert_allclose(curve[1:], 0, atol=1e-13)


def test_a_reversed_plain_chain_remembers_a_hundredth() -> None:
    assert total_fisher_memory(chain(N, 1.0).T, first(N)) == pytest.approx(0.01, rel=1e-9)


def test_a_permuted_or_rotated_chain_remembers_the_same() -> None:
    order = np.random.default_rng(0).permutation(N)
    P = np.eye(N)[order]
    assert total_fisher_memory(P @ chain(N, 1.02) @ P.T, P @ first(N)) == pytest.approx(7.606, abs=5.1e-4)
    Q = unitary(30, 1)
    expected = chain_curve(30, 1.02, 30)
    curve = fisher_memory_curve(Q @ chain(30, 1.02) @ Q.T, Q @ first(30), 30)
    np.testing.assert_allclose(curve, expected, atol=1e-9)


# -- Fisher: noise that adds up unevenly -----------------------------------------------------------


@pytest.mark.parametrize("gain", [1e3, 1e9, 1e12, 1e100])
def test_a_slow_unit_beside_an_amplified_pulse_is_summed_to_its_end(gain: float) -> None:
    """The pulse's square outgrew all else, and the slow unit's noise was cut off after a few of its steps."""
    W = np.array([[0, gain, 0], [0, 0, 0], [0, 0, 0.99]])
    slow = np.eye(3)[2]
    np.testing.assert_allclose(fisher_memory_curve(W, slow, 3), 0.0199 * 0.99 ** (2.0 * np.arange(3)), rtol=1e-9)
    assert total_fisher_memory(W, slow) == pytest.approx(1, rel=1e-9)


def test_bits_are_added_until_they_are_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    """384 bits gave 48 and 5e20 for the same total of 1.9 above the diagonal, n = 100."""
    monkeypatch.setattr("lit_rnn.analysis.memory._BITS", 32)
    curve, expected = fisher_memory_curve(chain(20, 1.9), first(20), 20), chain_curve(20, 1.9, 20)
    np.testing.assert_allclose(curve, expected, rtol=1e-9)
    assert total_fisher_memory(chain(20, 1.9), first(20)) == pytest.approx(expected.sum(), rel=1e-9)
    W = 1.9 * np.triu(np.ones((20, 20)), 1)
    v = np.eye(20)[-1]
    assert total_fisher_memory(W, v) == pytest.approx(fisher_memory_curve(W, v, 20).sum(), rel=1e-9)


def test_too_few_bits_are_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lit_rnn.analysis.memory._BITS", 16)
    monkeypatch.setattr("lit_rnn.analysis.memory._MOST_BITS", 16)
    for ask in (lambda W: fisher_memory_curve(W, first(20), 3), lambda W: total_fisher_memory(W, first(20))):
        with pytest.raises(UserError, match="noise"):
            ask(1.9 * np.triu(np.ones((20, 20)), 1))


# -- Fisher: normal and general matrices -----------------------------------------------------------


@pytest.mark.parametrize("n", [1, 2, 100])
@pytest.mark.parametrize("kind", ["identity", "orthogonal", "symmetric", "zero"])
def test_a_normal_matrix_remembers_one(n: int, kind: str) -> None:
    Q = unitary(n, 3)
    W = {
        "identity": 0.95 * np.eye(n),
        "orthogonal": 0.95 * Q,
        "symmetric": (Q * np.linspace(-0.9, 0.8, n)) @ Q.T,
        "zero": np.zeros((n, n)),
    }[kind]
    for v in (first(n), unit(n, 4)):
        assert total_fisher_memory(W, v) == pytest.approx(1.000, abs=1e-9)


@pytest.mark.parametrize("rho", [0.3, 0.95, 0.999])
@pytest.mark.parametrize("kind", ["identity", "orthogonal"])
def test_the_curve_of_a_scaled_orthogonal_matrix_is_geometric(rho: float, kind: str) -> None:
    W = rho * (np.eye(20) if kind == "identity" else unitary(20, 5))
    expected = (1 - rho**2) * rho ** (2.0 * np.arange(50))
    np.testing.assert_allclose(fisher_memory_curve(W, unit(20, 6), 50), expected, rtol=1e-9)


@pytest.mark.parametrize("n", [1, 2, 5, 20])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_any_stable_matrix_agrees_with_the_definition(n: int, seed: int) -> None:
    W = gaussian(n, seed)
    W *= 0.8 / abs(np.linalg.eigvals(W)).max()
    v = unit(n, seed)
    C = linalg.solve_discrete_lyapunov(W, np.eye(n))
    powers = [np.linalg.matrix_power(W, k) @ v for k in range(300)]
    expected = np.array([w @ np.linalg.solve(C, w) for w in powers])
    curve = fisher_memory_curve(W, v, 12)
    np.testing.assert_allclose(curve, expected[:12], rtol=1e-8, atol=1e-12)
    assert (np.diff(curve) <= 1e-12).all()  # the further back, the less
    assert total_fisher_memory(W, v) == pytest.approx(expected.sum(), rel=1e-8)
    assert 0 < total_fisher_memory(W, v) <= n * (1 + 1e-9)


@pytest.mark.parametrize("n", [1, 3, 12])
@pytest.mark.parametrize("kind", ["ginibre", "chain", "triangular", "feedback"])
def test_the_totals_of_a_basis_add_up_to_n(n: int, kind: str) -> None:
    W = {
        "ginibre": 0.9 * gaussian(n, 1) / abs(np.linalg.eigvals(gaussian(n, 1))).max(),
        "chain": chain(n, 1.3),
        "triangular": np.tril(0.5 * np.ones((n, n))),
        "feedback": chain(n, 1.02, 0.1),
    }[kind]
    basis = unitary(n, 2)
    assert sum(total_fisher_memory(W, v) for v in basis) == pytest.approx(n, rel=1e-8)


@pytest.mark.parametrize("noise", [0.01, 0.5, 4.0])
def test_noise_is_a_variance_that_divides(noise: float) -> None:
    for W in (chain(20, 1.02), 0.9 * unitary(20, 1)):
        v = unit(20, 1)
        np.testing.assert_allclose(
            fisher_memory_curve(W, v, 20, noise=noise), fisher_memory_curve(W, v, 20) / noise, rtol=1e-9
        )
        assert total_fisher_memory(W, v, noise=noise) == pytest.approx(total_fisher_memory(W, v) / noise, rel=1e-9)


@pytest.mark.parametrize("digits", ["double", "high"])
@pytest.mark.parametrize("n", [1, 2, 5])
def test_a_complex_network_remembers_as_its_real_form_does(
    n: int, digits: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """[Re h | Im h] by the definition, with noise of this variance in each of 2n real numbers."""
    if digits == "high":
        monkeypatch.setattr(memory, "_WELL_CONDITIONED", 0.0)
    W, v, noise = gaussian(n, 3, True), gaussian(max(n, 2), 8, True)[0, :n], 0.3
    W *= 0.8 / abs(np.linalg.eigvals(W)).max()
    real, source = np.block([[W.real, -W.imag], [W.imag, W.real]]), np.concatenate((v.real, v.imag))
    C = noise * linalg.solve_discrete_lyapunov(real, np.eye(2 * n))
    powers = [np.linalg.matrix_power(real, k) @ source for k in range(200)]
    expected = np.array([w @ np.linalg.solve(C, w) for w in powers])
    np.testing.assert_allclose(fisher_memory_curve(W, v, 9, noise), expected[:9], rtol=1e-9, atol=1e-12)
    assert total_fisher_memory(W, v, noise) == pytest.approx(expected.sum(), rel=1e-9)


def test_a_stronger_input_counts_squared() -> None:
    v = unit(20, 1)
    assert total_fisher_memory(chain(20, 1.02), -3 * v) == pytest.approx(9 * total_fisher_memory(chain(20, 1.02), v))
    assert total_fisher_memory(0.9 * np.eye(20), 3 * v) == pytest.approx(9, rel=1e-9)


@pytest.mark.parametrize("call", [lambda W, v: fisher_memory_curve(W, v, 5), total_fisher_memory])
@pytest.mark.parametrize(
    "W",
    [
        np.eye(6),
        unitary(6, 1),
        1.02 * unitary(6, 1),
        np.diag([1.5, 0, 0, 0, 0, 0]),
        chain(6, 0.99, 0.4),  # 2 sqrt(0.396) cos(pi / 7) = 1.134
        chain(6, 1.0) + np.eye(6),
    ],
    ids=["identity", "orthogonal", "growing", "one-mode", "feedback", "integrating-chain"],
)
def test_memory_is_undefined_without_decay(call: Callable[..., object], W: np.ndarray) -> None:
    with pytest.raises(UserError) as error:
        call(W, first(6))
    assert "\n" not in str(error.value)


def test_strong_feedback_just_short_of_instability_is_accepted() -> None:
    """rho = 2 sqrt(0.99 x 0.25) cos(pi / 41) = 0.9921; float64 eigenvalues agree here only roughly."""
    W = chain(40, 0.99, 0.25)
    assert 1 < total_fisher_memory(W, first(40)) < 40


# -- decoding the past -----------------------------------------------------------------------------


@pytest.mark.parametrize("noise", [0.05, 1.0])
@pytest.mark.parametrize("steps", [6, 12])
def test_decoding_is_the_projection_of_jointly_normal_numbers(noise: float, steps: int) -> None:
    """R^2 = w^T S^-1 w, w = E[h_T s_{T-k}] = W^k v, S = E[h_T h_T^T] = sum_{m < T} W^m (v v^T + noise I) W^mT."""
    n = 4
    W, v = gaussian(n, 5), unit(n, 6)
    W *= 0.9 / abs(np.linalg.eigvals(W)).max()
    powers = [np.linalg.matrix_power(W, m) for m in range(steps)]
    S = sum(P @ (np.outer(v, v) + noise * np.eye(n)) @ P.T for P in powers)
    lags = [5, 0, 1, 3]
    expected = [powers[k] @ v @ np.linalg.solve(S, powers[k] @ v) for k in lags]
    found = decoder_memory(W, v, lags, noise=noise, steps=steps, samples=40_000)
    np.testing.assert_allclose(found, expected, atol=0.015)  # of 20,000 that are measured: two standard errors


@pytest.mark.parametrize("f", ["elu", "relu", "leaky_relu", "tanh"])
def test_a_nonlinear_chain_holds_each_input_in_a_unit_of_its_own(f: Nonlinearity) -> None:
    """Unit k + 1 is f applied k + 1 times to s_{T-k}, and all others are independent of it: R^2 is their correlation's
    square, here by a sum over the normal law."""
    s = np.linspace(-9, 9, 20_001)
    law = np.exp(-(s**2) / 2)
    law, held, expected = law / law.sum(), s, []
    for _ in range(4):
        held = NONLINEARITIES[f](held)
        centred = held - law @ held
        expected.append((law @ (s * centred)) ** 2 / (law @ centred**2))
    found = decoder_memory(chain(4, 1.0), first(4), range(4), f, samples=40_000)
    np.testing.assert_allclose(found, expected, atol=0.015)


def test_without_noise_the_first_input_is_decodable_from_either() -> None:
    n = 50
    for W, v in ((chain(n, 1.0), first(n)), (unitary(n, 1), unit(n, 2))):
        score = decoder_memory(W, v, list(range(n)))
        assert score.shape == (n,)
        assert score[-1] > 0.99
        assert score[0] > 0.99
        assert (score <= 1 + 1e-9).all()


def test_a_chain_of_a_hundred_holds_a_hundred_inputs() -> None:
    score = decoder_memory(chain(N, 1.0), first(N), [0, 1, 50, 99])
    np.testing.assert_allclose(score, 1, atol=1e-3)


def test_a_chain_holds_no_more_inputs_than_it_has_units() -> None:
    score = decoder_memory(chain(10, 1.0), first(10), [0, 9, 10, 15])
    assert (score[:2] > 0.99).all()
    assert (score[2:] < 0.1).all()


def test_lags_come_back_in_the_order_asked() -> None:
    score = decoder_memory(chain(10, 1.0), first(10), [15, 0, 12, 9])
    np.testing.assert_array_equal(score > 0.5, [False, True, False, True])


def test_a_reversed_chain_holds_one_input() -> None:
    score = decoder_memory(chain(10, 1.0).T, first(10), [0, 1, 5])
    assert score[0] > 0.99
    assert (score[1:] < 0.1).all()


def test_with_noise_the_chain_beats_the_orthogonal_matrix() -> None:
    n, lags = 50, np.arange(50)
    by_chain = decoder_memory(chain(n, 1.02), first(n), lags, noise=0.5)
    for lam in (0.95, 1.0):
        by_orthogonal = decoder_memory(lam * unitary(n, 1), unit(n, 2), lags, noise=0.5)
        assert by_chain.sum() > by_orthogonal.sum() + 1
        assert by_chain[0] > by_orthogonal[0] + 0.2
    assert by_chain[0] > by_chain[10] > by_chain[40] - 0.05


def test_with_elu_the_chain_beats_the_orthogonal_matrix_far_back() -> None:
    n, lags = 50, np.arange(50)
    by_chain = decoder_memory(chain(n, 1.0), first(n), lags, nonlinearity="elu")
    by_orthogonal = decoder_memory(unitary(n, 1), unit(n, 2), lags, nonlinearity="elu")
    assert by_chain.sum() > by_orthogonal.sum() + 5
    assert (by_chain[30:] > by_orthogonal[30:] + 0.2).all()
    assert (by_chain[30:] > 0.5).all()
    assert (by_chain[:30] < 0.99).all()  # a nonlinear chain is not perfectly decodable by a linear readout


def test_noise_hurts_and_the_seed_decides() -> None:
    n, lags = 20, [0, 5, 15]
    clean, noisy = (decoder_memory(chain(n, 1.0), first(n), lags, noise=noise) for noise in (0.0, 1.0))
    assert (noisy < clean - 0.2).all()
    again = decoder_memory(chain(n, 1.0), first(n), lags, noise=1.0, seed=0)
    np.testing.assert_array_equal(noisy, again)
    assert (decoder_memory(chain(n, 1.0), first(n), lags, noise=1.0, seed=1) != noisy).any()


def test_decoding_does_not_touch_the_global_seeds() -> None:
    torch.manual_seed(3)
    np.random.seed(3)
    state, numpy_state = torch.get_rng_state(), np.random.get_state()[1]
    decoder_memory(chain(5, 1.0), first(5), [0, 1], noise=0.1)
    assert torch.equal(state, torch.get_rng_state())
    np.testing.assert_array_equal(numpy_state, np.random.get_state()[1])


# -- bad input -------------------------------------------------------------------------------------

CALLS: dict[str, Callable[..., object]] = {
    "curve": lambda W, v: fisher_memory_curve(W, v, 5),
    "total": total_fisher_memory,
    "decoder": lambda W, v: decoder_memory(W, v, [0, 1]),
}
BAD = {
    "not-square": (np.ones((3, 4)), np.ones(3)),
    "vector": (np.ones(3), np.ones(3)),
    "empty": (np.zeros((0, 0)), np.zeros(0)),
    "nan": (np.diag([math.nan, 0, 0]), np.ones(3)),
    "inf": (np.diag([math.inf, 0, 0]), np.ones(3)),
    "short v": (0.5 * np.eye(3), np.ones(2)),
    "nan v": (0.5 * np.eye(3), np.array([1, math.nan, 0])),
    "torch": (torch.full((3, 3), math.nan), torch.ones(3)),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS.keys())
@pytest.mark.parametrize(("W", "v"), BAD.values(), ids=BAD.keys())
def test_bad_input_is_refused_in_one_sentence(call: Callable[..., object], W: object, v: object) -> None:
    with pytest.raises(UserError) as error:
        call(W, v)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("noise", [0.0, -1.0, math.nan, math.inf])
def test_fisher_needs_a_positive_finite_noise(noise: float) -> None:
    with pytest.raises(UserError):
        fisher_memory_curve(0.5 * np.eye(3), first(3), 5, noise=noise)
    with pytest.raises(UserError):
        total_fisher_memory(0.5 * np.eye(3), first(3), noise=noise)


def test_bad_options_are_refused() -> None:
    W, v = 0.5 * np.eye(3), first(3)
    with pytest.raises(UserError):
        fisher_memory_curve(W, v, -1)
    with pytest.raises(UserError, match="sigmoidal"):
        decoder_memory(W, v, [0], nonlinearity="sigmoidal")
    with pytest.raises(UserError):
        decoder_memory(W, v, [0], noise=-1.0)
    with pytest.raises(UserError):
        decoder_memory(W, v, [-1])
    with pytest.raises(UserError, match="lags"):
        decoder_memory(W, v, [])
    with pytest.raises(UserError, match="complex"):
        decoder_memory(1j * W, v, [0])
    with pytest.raises(UserError, match="complex"):
        decoder_memory(W, 1j * v, [0])
    for wrong in (-1.0, math.nan, math.inf):
        with pytest.raises(UserError, match="ridge"):
            decoder_memory(W, v, [0], ridge=wrong)
    with pytest.raises(UserError, match="noise"):
        decoder_memory(W, v, [0], noise=math.inf)


def test_states_that_overflow_are_no_number_of_memory() -> None:
    with pytest.raises(UserError, match="after 2000 steps"):
        decoder_memory(2 * np.eye(2), first(2), [0], steps=2000, samples=8)
