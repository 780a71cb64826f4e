"""Attacks, certificates, and the checks that an evaluation is honest; a model is any callable on inputs."""

from typing import TYPE_CHECKING

from datamodules.lazy import on_demand
from lit_rnn.robustness.effort import Effort

if TYPE_CHECKING:
    from lit_rnn.robustness.attacks import fgsm, pgd, random_draws, random_search
    from lit_rnn.robustness.by_name import ATTACKS, Examples, check_size, clean, evaluate, refusal
    from lit_rnn.robustness.certificates import (
        Smoothed,
        certified_radius,
        clopper_pearson_lower,
        interval_bounds,
        lipschitz_bound,
        smooth_certify,
        smoothed_radius,
    )
    from lit_rnn.robustness.checks import Check, honesty_checks
    from lit_rnn.robustness.noise import additive_noise, multiplicative_noise, salt_and_pepper
    from lit_rnn.robustness.objective import off_by, wrong_label
    from lit_rnn.robustness.results import AttackResult, worst_case
    from lit_rnn.robustness.state import frozen
    from lit_rnn.robustness.surroundings import zero_gradient_fraction
    from lit_rnn.robustness.swaps import symbol_swap
    from lit_rnn.robustness.training import AdversarialTraining
else:  # they need torch, which takes a second; the options of `attack` do not
    _MODULES = (
        *("attacks", "certificates", "checks", "by_name", "noise", "objective", "results", "state", "surroundings"),
        *("swaps", "training"),
    )
    __getattr__ = on_demand(__name__, _MODULES)

__all__ = [
    "ATTACKS",
    "AdversarialTraining",
    "AttackResult",
    "Check",
    "Effort",
    "Examples",
    "Smoothed",
    "additive_noise",
    "certified_radius",
    "check_size",
    "clean",
    "clopper_pearson_lower",
    "evaluate",
    "fgsm",
    "frozen",
    "honesty_checks",
    "interval_bounds",
    "lipschitz_bound",
    "multiplicative_noise",
    "off_by",
    "pgd",
    "random_draws",
    "random_search",
    "refusal",
    "salt_and_pepper",
    "smooth_certify",
    "smoothed_radius",
    "symbol_swap",
    "worst_case",
    "wrong_label",
    "zero_gradient_fraction",
]
