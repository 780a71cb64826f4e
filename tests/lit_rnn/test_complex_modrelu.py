"""modReLU, complex form: z relu(r + b) / r with r = sqrt(re^2 + im^2 + eps), eps = 1e-5 in one place (facts 1.1)."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

from lit_rnn.activations import ComplexModReLU, complex_modrelu, modrelu

F64, C128 = torch.float64, torch.complex128


def draw(*shape: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.normal(size=shape) + 1j * rng.normal(size=shape)


@pytest.mark.parametrize("eps", [None, 1e-5, 1e-2])
def test_equals_its_formula_elementwise(eps: float | None) -> None:
    z, b = draw(7, 5, 6), np.random.default_rng(1).normal(size=6)
    r = np.sqrt(z.real**2 + z.imag**2 + (1e-5 if eps is None else eps))
    expected = z * np.maximum(r + b, 0) / r
    assert (expected == 0).any() and (expected != 0).any()
    options = {} if eps is None else {"eps": eps}
    actual = complex_modrelu(torch.tensor(z), torch.tensor(b), **options)
    np.testing.assert_allclose(actual.numpy(), expected, rtol=0, atol=1e-14)


def test_keeps_the_phase_and_moves_the_modulus() -> None:
    z = torch.tensor(draw(50))
    y = complex_modrelu(z, torch.full((50,), 0.25, dtype=F64))
    torch.testing.assert_close(y.angle(), z.angle(), rtol=0, atol=1e-12)
    torch.testing.assert_close(y.abs() - z.abs(), torch.full((50,), 0.25, dtype=F64), rtol=0, atol=2e-2)


def test_commutes_with_a_turn_of_the_plane() -> None:
    z, b, turn = torch.tensor(draw(4, 6)), torch.linspace(-1, 1, 6, dtype=F64), np.exp(0.9j)
    torch.testing.assert_close(complex_modrelu(turn * z, b), turn * complex_modrelu(z, b), rtol=0, atol=1e-14)


def test_zero_bias_is_the_identity() -> None:
    z = torch.tensor([3 + 4j, -1e-30j, 0, 1e-3, -2], dtype=C128)
    torch.testing.assert_close(complex_modrelu(z, torch.zeros(5, dtype=F64)), z, rtol=1e-15, atol=0)


def test_tends_to_the_real_form_on_the_real_axis() -> None:
    z, b = torch.linspace(-3, 3, 60, dtype=F64), torch.full((60,), -0.5, dtype=F64)
    y = complex_modrelu(z + 0j, b, eps=1e-14)
    torch.testing.assert_close(y.real, modrelu(z, b), rtol=0, atol=1e-7)
    assert not y.imag.any()


@pytest.mark.parametrize("bias", [-0.5, -0.001, 0.0, 0.5])
@pytest.mark.parametrize("dtype", [torch.complex64, C128])
def test_is_zero_at_zero_with_a_finite_gradient(dtype: torch.dtype, bias: float) -> None:
    """The slope there is relu(sqrt(eps) + b) / sqrt(eps): finite, unlike that of a modulus without eps."""
    z = torch.tensor([0, -0.0, 1 + 1j], dtype=dtype, requires_grad=True)
    b = torch.full((3,), bias, dtype=F64 if dtype == C128 else torch.float32, requires_grad=True)
    y = complex_modrelu(z, b)
    assert not y[:2].any() and y.dtype == dtype
    dz, db = torch.autograd.grad(y.real.sum() + y.imag.sum(), (z, b))
    root = math.sqrt(1e-5)
    slope = max(root + bias, 0) / root
    assert torch.isfinite(torch.view_as_real(dz)).all() and torch.isfinite(db).all()
    expected = torch.full((2,), slope * (1 + 1j), dtype=dtype)
    torch.testing.assert_close(dz[:2], expected, rtol=1e-4, atol=1e-6)


def test_gradcheck_away_from_the_corner_and_at_zero() -> None:
    z = torch.tensor(draw(3, 4))
    z[0, 0] = 0
    b = torch.tensor([0.3, -0.1, 0.02, 0.7], dtype=F64)
    assert ((z.abs().square() + 1e-5).sqrt() + b).abs().min() > 1e-3
    assert torch.autograd.gradcheck(
        lambda z, b: complex_modrelu(z, b, eps=1e-2), (z.requires_grad_(), b.requires_grad_()), atol=1e-8, rtol=1e-6
    )


def test_dead_zone_has_no_gradient() -> None:
    z = torch.tensor([0.3 + 0.2j, -0.1j], dtype=C128, requires_grad=True)
    b = torch.full((2,), -0.5, dtype=F64, requires_grad=True)
    y = complex_modrelu(z, b)
    dz, db = torch.autograd.grad(y.real.sum() + y.imag.sum(), (z, b))
    assert not y.any() and not dz.any() and not db.any()


def test_module_applies_its_own_bias_to_the_last_axis() -> None:
    module = ComplexModReLU(3)
    assert module.bias.shape == (3,) and module.bias.requires_grad and not module.bias.is_complex()
    with torch.no_grad():
        module.bias.copy_(torch.tensor([-10.0, 0.0, 1.0]))
    z = torch.full((2, 4, 3), 3 + 4j, dtype=torch.complex64)
    expected = torch.tensor([0, 3 + 4j, (3 + 4j) * 1.2]).expand(2, 4, 3)
    torch.testing.assert_close(module(z), expected, rtol=1e-5, atol=0)


def test_bias_starts_uniform_on_one_hundredth() -> None:
    torch.manual_seed(0)
    bias = ComplexModReLU(4000).bias.detach().double().numpy()
    assert np.abs(bias).max() <= 0.01
    assert stats.kstest(bias, "uniform", args=(-0.01, 0.02)).pvalue > 1e-4
