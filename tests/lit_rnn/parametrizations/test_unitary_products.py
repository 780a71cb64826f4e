"""Complex products: the restricted uRNN's matrix beside NumPy's transforms, and rotations with phases."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

from lit_rnn.parametrizations import RestrictedUnitary, Rotations
from tests.oracles.maps import FFT, TUNABLE, restricted_dense
from tests.oracles.modules import close, fill, numbers, put, value

C128 = torch.complex128


# -- the restricted product ------------------------------------------------------------------------


@pytest.mark.parametrize("n", [1, 2, 3, 8, 17])
def test_restricted_product_is_the_chain_of_numpy_transforms(n: int) -> None:
    """The factors applied one after the other to each unit vector, with NumPy's orthonormal FFT."""
    module = fill(RestrictedUnitary(n).double(), seed=n)
    p = numbers(module)
    d1, d2, d3 = np.exp(1j * p["phases"])
    v1, v2 = p["reflections"][:, 0] + 1j * p["reflections"][:, 1]
    for k in range(n):
        x = d1 * np.eye(n)[k]
        x = np.fft.fft(x, norm="ortho")
        x = x - 2 * v1 * np.vdot(v1, x) / np.vdot(v1, v1)
        x = x[p["permutation"]]
        x = d2 * x
        x = np.fft.ifft(x, norm="ortho")
        x = x - 2 * v2 * np.vdot(v2, x) / np.vdot(v2, v2)
        close(value(module)[:, k], d3 * x)


def test_a_permutation_reads_from_where_it_points() -> None:
    """(Pi x)[i] = x[p[i]], told apart from its inverse by a cycle."""
    n = 5
    module = fill(RestrictedUnitary(n).double())
    assert "permutation" in dict(module.named_buffers())
    with torch.no_grad():
        module.permutation.copy_(torch.tensor([1, 2, 3, 4, 0]))
    W = value(module)
    close(W, restricted_dense(numbers(module), n))
    with torch.no_grad():
        module.permutation.copy_(torch.tensor([4, 0, 1, 2, 3]))
    assert np.abs(value(module) - W).max() > 0.1


def test_permutations_are_drawn_with_the_seed() -> None:
    drawn = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        drawn.append(RestrictedUnitary(50).permutation.tolist())
    assert sorted(drawn[0]) == list(range(50)) and drawn[0] != list(range(50))
    assert drawn[0] == drawn[1] != drawn[2]


def test_without_permutation_and_with_matching_reflections_two_diagonals_remain() -> None:
    """Pi = I, D2 = I and v1 = F v2: F^-1 R1 F = R2, R2 R2 = I, so W = D3 D1."""
    n = 6
    module = RestrictedUnitary(n).double()
    rng = np.random.default_rng(0)
    v2 = rng.normal(size=n) + 1j * rng.normal(size=n)
    v1 = np.fft.fft(v2, norm="ortho")
    phases = rng.uniform(-3, 3, size=(3, n))
    phases[1] = 0
    put(module, phases=phases, reflections=np.array([[v1.real, v1.imag], [v2.real, v2.imag]]))
    with torch.no_grad():
        module.permutation.copy_(torch.arange(n))
    close(value(module), np.diag(np.exp(1j * (phases[0] + phases[2]))))


def test_restricted_product_starts_as_the_paper_says() -> None:
    """Phases U(-pi, pi); reflection vectors uniform and symmetric (Glorot)."""
    torch.manual_seed(0)
    module = RestrictedUnitary(500)
    phases = module.phases.detach().double().numpy().ravel()
    assert stats.kstest(phases, "uniform", args=(-math.pi, 2 * math.pi)).pvalue > 1e-4
    v = module.reflections.detach().double().numpy().ravel()
    limit = np.abs(v).max()
    assert stats.kstest(v, "uniform", args=(-limit, 2 * limit)).pvalue > 1e-4


def test_length_and_phase_of_a_reflection_vector_do_not_matter() -> None:
    module, other = (fill(RestrictedUnitary(7).double()) for _ in range(2))
    with torch.no_grad():
        other.permutation.copy_(module.permutation)
        v = torch.view_as_complex(module.reflections.mT.contiguous()) * torch.tensor([[2 * np.exp(0.7j)], [-0.3j]])
        other.reflections.copy_(torch.view_as_real(v).mT)
    close(value(other), value(module))


# -- rotations -------------------------------------------------------------------------------------


def test_angles_start_anywhere_on_the_circle() -> None:
    torch.manual_seed(0)
    module = Rotations(64, 64, unitary=True)
    for angles in (module.theta, module.phi, module.omega):
        uniform = stats.kstest(angles.detach().double().numpy(), "uniform", args=(-math.pi, 2 * math.pi))
        assert uniform.pvalue > 1e-4


@pytest.mark.parametrize("layout", ["tunable", "fft"])
def test_one_pair_of_angles_moves_one_pair_of_units(layout: str) -> None:
    n = 8
    pairs = [pair for layer in (TUNABLE[8][:4] if layout == "tunable" else FFT[8]) for pair in layer]
    module = Rotations(n, 4, layout, unitary=True).double()
    for number, (i, j) in enumerate(pairs):
        one = np.eye(len(pairs))[number]
        put(module, theta=0.3 * one, phi=0.5 * one, omega=np.zeros(n))
        turn, c, s = np.exp(0.5j), math.cos(0.3), math.sin(0.3)
        expected = np.eye(n, dtype=complex)
        expected[np.ix_([i, j], [i, j])] = [[turn * c, -s], [turn * s, c]]
        close(value(module), expected)


def test_output_phases_multiply_rows() -> None:
    """diag(e^{i omega}) comes last, on the left."""
    plain, turned = (fill(Rotations(4, 4, unitary=True).double()) for _ in range(2))
    omega = np.array([0.1, -0.7, 2.0, 3.0])
    put(plain, omega=np.zeros(4))
    put(turned, omega=omega)
    close(value(turned), np.exp(1j * omega)[:, None] * value(plain))


def test_real_rotations_are_unitary_ones_without_phases() -> None:
    real, unitary = Rotations(8, 4).double(), Rotations(8, 4, unitary=True).double()
    fill(real)
    put(unitary, theta=numbers(real)["theta"], phi=np.zeros(14), omega=np.zeros(8))
    close(value(unitary), value(real))
