"""Perturbations that do not look at the model: what an attack must beat."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from datamodules.errors import UserError, number
from lit_rnn.robustness.attacks import check_bounds, check_examples, expand_mask
from lit_rnn.robustness.draws import Draws, Seed


def _values(x: Tensor) -> None:
    check_examples(x)
    if not x.is_floating_point():
        raise UserError(f"inputs are {x.dtype}, symbols, but noise must be put on values: take symbol_swap.")


def _deviation(x: Tensor, sigma: float) -> float:
    _values(x)
    return number(sigma, "sigma", "0 or positive, and finite", lambda deviation: 0 <= deviation < math.inf)


def _normal(x: Tensor, seed: Seed) -> Tensor:
    return Draws.of(seed, len(x)).normal(*x.shape[1:], dtype=x.dtype).to(x.device)


def _kept(noisy: Tensor, x: Tensor, sigma: float, bounds: Sequence[float] | None, mask: Tensor | None) -> Tensor:
    free = expand_mask(x, mask)
    box = check_bounds(x[free], bounds)
    noisy = noisy if box is None else noisy.clamp(*box)
    return torch.where(free, noisy, x) if sigma else x.clone()


def additive_noise(
    x: Tensor, sigma: float, bounds: Sequence[float] | None = None, mask: Tensor | None = None, seed: Seed = 0
) -> Tensor:
    """x + sigma N(0, 1), clipped to the box.

    Args:
        x: (B, T, I) values.
        sigma: Standard deviation in the units of x; 0 returns x bit for bit.
        bounds: (low, high) of valid inputs.
        mask: What may be changed, broadcastable to x.
        seed: Of the draw; the global random state is not touched.

    Raises:
        UserError: for symbols, no examples, a negative sigma, inputs outside their box.
    """
    sigma = _deviation(x, sigma)
    return _kept(x + sigma * _normal(x, seed), x, sigma, bounds, mask)


def multiplicative_noise(
    x: Tensor, sigma: float, bounds: Sequence[float] | None = None, mask: Tensor | None = None, seed: Seed = 0
) -> Tensor:
    """x (1 + sigma N(0, 1)), clipped to the box: sigma is relative, zeros stay zero. Otherwise `additive_noise`."""
    sigma = _deviation(x, sigma)
    return _kept(x * (1 + sigma * _normal(x, seed)), x, sigma, bounds, mask)


def salt_and_pepper(
    x: Tensor, share: float, bounds: Sequence[float] = (0.0, 1.0), mask: Tensor | None = None, seed: Seed = 0
) -> Tensor:
    """Each element becomes, with probability ``share``, the low or the high end of the box, each half the time.

    Arguments as `additive_noise`; ``share`` in [0, 1], 0 returns x bit for bit.
    """
    _values(x)
    share = number(share, "share", "from 0 to 1", lambda part: 0 <= part <= 1)
    free = expand_mask(x, mask)
    box = check_bounds(x[free], bounds)
    assert box is not None
    draw = Draws.of(seed, len(x)).uniform(*x.shape[1:], dtype=torch.float64).to(x.device)
    noisy = torch.where(draw < share / 2, box[0], torch.where(draw < share, box[1], x))
    return torch.where(free, noisy, x)
