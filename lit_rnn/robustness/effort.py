"""The attacks' names, and how hard they try; nothing here needs torch."""

from __future__ import annotations

from dataclasses import dataclass

from datamodules.errors import whole

NAMES = (
    "noise",
    "multiplicative",
    "salt_and_pepper",
    "uniform",
    "fgsm",
    "pgd",
    "pgd_margin",
    "pgd_over",
    "pgd_under",
    "search",
    "random_swaps",
    "swaps",
)


@dataclass(frozen=True)
class Effort:
    """How hard the attacks try, per example and size.

    Args:
        steps: Gradient steps of each start of PGD.
        restarts: Starts of PGD.
        queries: Evaluations of the searches without gradients.
        draws: Of the worst of many random draws.
    """

    steps: int = 20
    restarts: int = 2
    queries: int = 200
    draws: int = 50

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            whole(value, name, 1)
