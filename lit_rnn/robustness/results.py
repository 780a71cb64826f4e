"""What an attack did to a set of examples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from datamodules.errors import require

Kind = Literal["clean", "noise", "gradient_free", "single_step", "iterative", "transfer"]


@dataclass(frozen=True)
class AttackResult:
    """One attack at one size on a set of examples, with its threat model.

    Args:
        attack: Its name, such as ``pgd``.
        kind: What it knows: ``clean`` (no attack), ``noise``, ``gradient_free``, ``single_step`` or ``iterative``
            (both with gradients), ``transfer`` (from another model's gradients).
        norm: inf, 2, or what eps measures otherwise ("sigma", "share", "swaps").
        eps: Size, in the units of the input.
        fooled: (N,) bool: the model is wrong (targeted: says the target). The examples are the same in every result.
        loss: (N,) loss under the attack.
        box: (low, high) of valid inputs, or None.
        targeted: Whether a class was to be reached.
        settings: Hyper-parameters: steps, step_size, restarts, loss, seed, ...
    """

    attack: str
    kind: Kind
    norm: float | str
    eps: float
    fooled: np.ndarray
    loss: np.ndarray
    box: tuple[float, float] | None = None
    targeted: bool = False
    settings: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        bools = self.fooled.ndim == 1 and self.fooled.dtype == bool and len(self.fooled) > 0
        require(bools, "fooled", self.fooled, "a vector of bools, of at least one example")
        require(self.loss.shape == self.fooled.shape, "loss", self.loss.shape, f"of shape {self.fooled.shape}")
        require(self.eps >= 0, "eps", self.eps, "0 or positive")

    @property
    def success(self) -> float:
        """Share of examples that are fooled; 1 - success is the accuracy of an untargeted attack."""
        return float(self.fooled.mean())

    @property
    def threat(self) -> str:
        """The threat model in words, to be stored with the number."""
        knows = {
            "single_step": "white-box",
            "iterative": "white-box",
            "gradient_free": "queries",
            "transfer": "transfer",
        }
        norm = f"L{self.norm:g}" if isinstance(self.norm, float | int) else self.norm
        aim = "targeted" if self.targeted else "untargeted"
        return f"{norm} <= {self.eps:g}, box {self.box}, {knows.get(self.kind, 'no knowledge')}, {aim}"


def worst_case(results: Sequence[AttackResult]) -> np.ndarray:
    """(N,) bool: fooled by any of the attacks. The mean of this is the number to report, not the best attack's mean."""
    same = len({len(result.fooled) for result in results}) == 1
    require(same, "results", f"{len(results)} of them", "at least one, and all of the same examples")
    return np.logical_or.reduce([result.fooled for result in results])
