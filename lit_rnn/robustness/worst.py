"""The worst case per example over several attacks, and how sure an accuracy is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.stats import binomtest

from lit_rnn.robustness.results import AttackResult, worst_case

CONFIDENCE = 0.95


class Worst(NamedTuple):
    """The worst attack for each example at one size."""

    eps: float
    fooled: np.ndarray
    attacks: list[str]


def adversarial(result: AttackResult) -> bool:
    """Whether a result is of a search in a ball or among swaps."""
    return not isinstance(result.norm, str) or result.norm == "swaps"


def worst_at(results: Sequence[AttackResult], eps: float) -> Worst:
    """The worst of results whose inputs are all allowed at ``eps``."""
    attacks = dict.fromkeys(result.attack for result in results if result.kind != "clean")
    return Worst(eps, worst_case(results), list(attacks))


def interval(fooled: np.ndarray) -> tuple[float, float]:
    """Clopper-Pearson's exact interval of the accuracy."""
    found = binomtest(int((~fooled).sum()), len(fooled)).proportion_ci(CONFIDENCE, "exact")
    return float(found.low), float(found.high)
