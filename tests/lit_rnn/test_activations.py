"""modReLU, real form: out = sign(z) relu(|z| + b), one b per unit (Arjovsky et al. 2016, Helfrich et al. 2018)."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

from lit_rnn.activations import ModReLU, modrelu

F64 = torch.float64


def test_equals_its_formula_elementwise() -> None:
    rng = np.random.default_rng(0)
    z, b = rng.normal(size=(7, 5, 6)), rng.normal(size=6)
    expected = np.sign(z) * np.maximum(np.abs(z) + b, 0.0)
    assert (expected == 0).any() and (expected != 0).any()
    np.testing.assert_allclose(modrelu(torch.tensor(z), torch.tensor(b)).numpy(), expected, rtol=0, atol=1e-15)


@pytest.mark.parametrize("bias", [-0.7, 0.0, 0.7])
def test_is_odd_and_zero_at_zero(bias: float) -> None:
    z = torch.linspace(0, 3, 31, dtype=F64)
    b = torch.full((31,), bias, dtype=F64)
    torch.testing.assert_close(modrelu(-z, b), -modrelu(z, b), rtol=0, atol=0)
    assert modrelu(z, b)[0] == 0.0


def test_zero_bias_is_the_identity() -> None:
    z = torch.tensor([-2.0, -1e-30, 0.0, 1e-30, 2.0], dtype=F64)
    torch.testing.assert_close(modrelu(z, torch.zeros(5, dtype=F64)), z, rtol=0, atol=0)


def test_positive_bias_jumps_by_b_on_either_side_of_zero() -> None:
    """The limits from the right and the left are +b and -b: the discontinuity the scuRNN paper analyses."""
    z = torch.tensor([1e-12, -1e-12], dtype=F64)
    y = modrelu(z, torch.full((2,), 0.25, dtype=F64))
    torch.testing.assert_close(y, torch.tensor([0.25, -0.25], dtype=F64), rtol=0, atol=1e-11)


def test_negative_bias_has_a_dead_zone_of_half_width_minus_b() -> None:
    z = torch.tensor([-0.49, -0.2, 0.3, 0.49], dtype=F64, requires_grad=True)
    b = torch.full((4,), -0.5, dtype=F64, requires_grad=True)
    y = modrelu(z, b)
    dz, db = torch.autograd.grad(y.sum(), (z, b))
    assert not y.any() and not dz.any() and not db.any()


def test_slope_is_one_and_bias_slope_is_the_sign_where_it_is_alive() -> None:
    z = torch.tensor([-3.0, -0.51, 0.51, 3.0], dtype=F64, requires_grad=True)
    b = torch.full((4,), -0.5, dtype=F64, requires_grad=True)
    dz, db = torch.autograd.grad(modrelu(z, b).sum(), (z, b))
    torch.testing.assert_close(dz, torch.ones(4, dtype=F64), rtol=0, atol=0)
    torch.testing.assert_close(db, torch.tensor([-1.0, -1.0, 1.0, 1.0], dtype=F64), rtol=0, atol=0)


@pytest.mark.parametrize("bias", [-0.5, 0.0, 0.5])
def test_gradient_is_finite_at_zero(bias: float) -> None:
    z = torch.tensor([0.0, -0.0, 1.0], dtype=F64, requires_grad=True)
    b = torch.full((3,), bias, dtype=F64, requires_grad=True)
    dz, db = torch.autograd.grad(modrelu(z, b).sum(), (z, b))
    assert torch.isfinite(dz).all() and torch.isfinite(db).all()
    assert (dz.abs() <= 1).all() and (db.abs() <= 1).all()
    assert dz[2] == 1 and db[2] == 1  # the neighbour of a zero keeps its own gradient


def test_corner_is_zero_with_a_subgradient() -> None:
    """At |z| = -b the value is 0 and the derivative lies between those of the two sides, 0 and 1."""
    z = torch.tensor([-0.5, 0.5], dtype=F64, requires_grad=True)
    b = torch.full((2,), -0.5, dtype=F64)
    y = modrelu(z, b)
    (dz,) = torch.autograd.grad(y.sum(), z)
    assert not y.any()
    assert ((dz >= 0) & (dz <= 1)).all()


def test_gradcheck_away_from_jump_and_corner() -> None:
    z = torch.tensor([[-1.3, 0.4, 0.9], [0.2, -0.7, 1.1]], dtype=F64, requires_grad=True)
    b = torch.tensor([-0.5, 0.3, -0.02], dtype=F64, requires_grad=True)
    assert torch.autograd.gradcheck(modrelu, (z, b), atol=1e-8, rtol=1e-6)


def test_module_applies_its_own_bias_to_the_last_axis() -> None:
    module = ModReLU(3)
    assert module.bias.shape == (3,) and module.bias.requires_grad
    with torch.no_grad():
        module.bias.copy_(torch.tensor([-1.0, 0.0, 1.0]))
    y = module(torch.full((2, 4, 3), 0.5))
    torch.testing.assert_close(y, torch.tensor([0.0, 0.5, 1.5]).expand(2, 4, 3), rtol=0, atol=0)


def test_bias_starts_uniform_on_one_hundredth() -> None:
    torch.manual_seed(0)
    bias = ModReLU(4000).bias.detach().double().numpy()
    assert np.abs(bias).max() <= 0.01
    assert stats.kstest(bias, "uniform", args=(-0.01, 0.02)).pvalue > 1e-4
    assert math.isclose(bias.std(), 0.01 / math.sqrt(3), rel_tol=0.05)
