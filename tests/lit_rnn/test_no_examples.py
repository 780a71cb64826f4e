"""Nothing to attack, certify or analyse is refused in a sentence: a share of nothing is 0 / 0."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from datamodules import CopyMemory, UserError
from lit_rnn import analysis, robustness
from lit_rnn.cells import VanillaRNNCell

CELL, DECODER = VanillaRNNCell(2, 3), nn.Linear(3, 4)


def model(x: Tensor) -> Tensor:
    return DECODER(torch.zeros(len(x), 3) + x.sum())


def classes(x: Tensor) -> Tensor:
    return torch.zeros(len(x), dtype=torch.int64)


def examples(x: Tensor) -> robustness.Examples:
    return robustness.Examples(model, x, classes(x), torch.ones_like(x, dtype=torch.bool), (0.0, 1.0))


ATTACKS: list[Callable[..., Tensor]] = [
    robustness.fgsm,
    robustness.pgd,
    robustness.random_draws,
    robustness.random_search,
]
NOISES: list[Callable[..., Tensor]] = [
    robustness.additive_noise,
    robustness.multiplicative_noise,
    robustness.salt_and_pepper,
]
OF_INPUTS: dict[str, Callable[[Tensor], Any]] = {
    **{
        f"{attack.__name__} {norm} {eps}": lambda x, attack=attack, eps=eps, norm=norm: attack(
            model, x, classes(x), eps, norm=norm, bounds=(0, 1)
        )
        for attack in ATTACKS
        for norm in (math.inf, 2)
        for eps in (0.0, 0.1)
    },
    **{
        f"{noise.__name__} {size}": lambda x, noise=noise, size=size: noise(x, size)
        for noise in NOISES
        for size in (0, 0.1)
    },
    "symbol_swap": lambda x: robustness.symbol_swap(model, x[..., 0].long(), classes(x), 0, 3),
    "smooth_certify": lambda x: robustness.smooth_certify(model, x, 0.1, n=10),
    "interval_bounds": lambda x: robustness.interval_bounds(CELL, DECODER, x, x),
    "zero_gradient_fraction": lambda x: robustness.zero_gradient_fraction(model, x, classes(x)),
    "Examples": examples,
    "step_jacobians": lambda x: analysis.step_jacobians(CELL, x.transpose(0, 1)),
    "states_and_gradients": lambda x: analysis.states_and_gradients(CELL, x.transpose(0, 1), torch.sum),
    "gradient_against_lag": lambda x: analysis.gradient_against_lag(CELL, x.transpose(0, 1), torch.sum),
}


@pytest.mark.parametrize("shape", [(0, 3, 2), (2, 0, 2)], ids=["no examples", "no steps"])
@pytest.mark.parametrize("name", OF_INPUTS)
def test_of_inputs(name: str, shape: tuple[int, ...]) -> None:
    with pytest.raises(UserError, match=r"is 'a tensor of shape \(.*\)', but it must be .*at least"):
        OF_INPUTS[name](torch.zeros(shape))
    OF_INPUTS[name](torch.zeros(2, 3, 2))  # and of some it is none


def result(count: int) -> robustness.AttackResult:
    return robustness.AttackResult("pgd", "iterative", math.inf, 0.1, np.ones(count, dtype=bool), np.ones(count))


OTHERS: dict[str, Callable[[int], Any]] = {
    "AttackResult": result,
    "worst_case": lambda count: robustness.worst_case([result(5)] * count),
    "honesty_checks": lambda count: robustness.honesty_checks([result(5)] * count),
    "clopper_pearson_lower": lambda count: robustness.clopper_pearson_lower(0, count),
    "lyapunov_spectrum": lambda count: analysis.lyapunov_spectrum(np.ones((3, count, 2, 2))),
    "lyapunov_spectrum of no steps": lambda count: analysis.lyapunov_spectrum(np.ones((count, 2, 2))),
    "linear_probe": lambda count: analysis.linear_probe(np.ones((count, 2, 3)), [[0, 1]] * count, 2),
    "linear_probe of no units": lambda count: analysis.linear_probe(np.ones((4, 2, count)), [[0, 1]] * 4, 2),
    "fixed_points": lambda count: analysis.fixed_points(CELL, np.ones(2), np.ones((count, 3)), 2),
    "examples of a data module": lambda count: COPYING.examples(count),
}
COPYING = CopyMemory(delay=3, train_samples=4, val_samples=4)
COPYING.setup("fit")


@pytest.mark.parametrize("name", OTHERS)
def test_of_other_things(name: str) -> None:
    with pytest.raises(UserError, match=r"at least|more than"):
        OTHERS[name](0)
    OTHERS[name](2)
