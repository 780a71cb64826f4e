"""The Lanczos process against dense SVDs: accuracy, memory, scale, and that it always ends."""

import tracemalloc

import numpy as np
import pytest

from lit_rnn.analysis import pseudospectral_radius, pseudospectrum, smallest_singular_values, spectral_norm


def matrices(n: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(n)

    def gaussian() -> np.ndarray:
        return rng.standard_normal((n, n)) / n**0.5

    Q = np.linalg.qr(gaussian())[0]
    return {
        "gaussian": gaussian(),
        "complex": gaussian() + 1j * gaussian(),
        "orthogonal in float32": Q.astype(np.float32),  # all singular values of z I - Q within 5 % about z = 0.05
        "nearly symmetric": Q + Q.T + 0.01 * gaussian(),  # dense clusters
        "blocks": np.block([[Q, 0 * Q], [0 * Q, 0.5 * np.eye(n) + np.eye(n, k=1)]]),  # the nearest eigenvalue misleads
        "upper triangular": np.triu(gaussian()),
        "chain": np.eye(n, k=-1),
        "fbchain": 0.99 * np.eye(n, k=-1) + 0.04 * np.eye(n, k=1),
        "identity": np.eye(n),
        "zero": np.zeros((n, n)),
    }


@pytest.mark.parametrize("n", [1, 2, 7, 40])
@pytest.mark.parametrize("name", matrices(1))
def test_it_agrees_with_dense_svds(name: str, n: int) -> None:
    W = matrices(n)[name]
    size = spectral_norm(W) or 1.0
    rng = np.random.default_rng(0)
    z = size * (rng.uniform(-1.5, 1.5, 60) + 1j * rng.uniform(-1.5, 1.5, 60))
    z[:4] = 0, 0.05 * size, np.linalg.eigvals(W)[0], 1e4 * size
    found, true = (smallest_singular_values(W, z, method) for method in ("lanczos", "svd"))
    assert np.all(np.abs(found - true) <= 1e-4 * true + 1e-15 * n * size)


def test_memory_stays_within_its_bound() -> None:
    n, memory = 48, 2**22  # all at once it would be 17 and 140 MiB
    W = matrices(n)["gaussian"]
    z = np.random.default_rng(0).uniform(-1, 1, (40, 50)) + 1j
    whole = smallest_singular_values(W, z)
    for method in ("lanczos", "svd"):
        tracemalloc.start()
        parts = smallest_singular_values(W, z, method, memory)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < memory + 3 * 2**19  # LAPACK's workspace is a constant
        assert np.allclose(parts, whole, rtol=1e-6)


@pytest.mark.parametrize("scale", [1e-200, 1e200])
def test_scale_does_not_matter(scale: float) -> None:
    W = matrices(7)["complex"]
    assert smallest_singular_values(scale * W, scale * 1j) / scale == pytest.approx(smallest_singular_values(W, 1j))
    assert pseudospectral_radius(scale * W, 0.1 * scale) / scale == pytest.approx(pseudospectral_radius(W, 0.1))


def test_a_grid_is_symmetric_for_a_real_matrix() -> None:
    x, y, sigma = pseudospectrum(matrices(7)["fbchain"], 21)
    assert np.array_equal(sigma, sigma[::-1]) and np.array_equal(y, -y[::-1])
    assert x[0] < -1.02 and x[-1] > 1.02 and x[-1] - x[0] == pytest.approx(y[-1] - y[0])


@pytest.mark.parametrize("name", matrices(1))
@pytest.mark.parametrize("share", [1e-12, 1e-6, 1e-2, 1.0])
def test_nothing_of_the_pseudospectrum_lies_outside_its_radius(name: str, share: float) -> None:
    W = matrices(9)[name]
    size = spectral_norm(W) or 1.0
    eps, rounding = share * size, 1e-15 * size * len(W)
    radius = pseudospectral_radius(W, eps)
    circle = np.exp(1j * np.linspace(0, 2 * np.pi, 721))
    assert smallest_singular_values(W, (radius + 1e-9 * size) * circle, "svd").min() > eps * (1 - 1e-9) - rounding
    nearest = smallest_singular_values(W, radius * circle, "svd").min()  # half a degree is the farthest it can be off
    assert nearest <= eps + radius * np.pi / 720
