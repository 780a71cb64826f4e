"""Which attacks make sense on examples, at which sizes, and what they cost."""

from __future__ import annotations

import math
import time
from typing import NamedTuple

from lit_rnn.robustness.attacks import slope
from lit_rnn.robustness.by_name import ATTACKS, Examples, refusal
from lit_rnn.robustness.effort import Effort
from lit_rnn.robustness.objective import Objective
from lit_rnn.robustness.state import frozen

# L-inf: shares of the data's range, with MNIST's 0.3 (Madry et al. 2018) and 1, which reaches everything
_LINF = (2 / 255, 4 / 255, 8 / 255, 0.05, 0.1, 0.2, 0.3, 0.5, 1.0)
_L2 = (0.1, 0.25, 0.5, 1.0, 1.5, 2.0, 3.0, 5.0, 9.0)
_NOISE = (0.05, 0.1, 0.2, 0.3, 0.5)
_SWAPS = (1, 2, 4, 8, 16)


class Shot(NamedTuple):
    """One attack at one size; ``norm`` is read only by attacks in a ball."""

    attack: str
    norm: float
    eps: float


def default_attacks(examples: Examples) -> list[str]:
    """All that make sense."""
    return [name for name in ATTACKS if refusal(examples, name) is None]


def default_sizes(examples: Examples, unit: str, norm: float) -> list[float]:
    """Sizes that reach from hardly visible to hopeless, in the units of the inputs."""
    if unit == "swaps":
        free = int(examples.mask.flatten(1).sum(1).max())
        return [swaps for swaps in _SWAPS if swaps <= free]
    width = 1.0 if examples.bounds is None else examples.bounds[1] - examples.bounds[0]
    if unit == "ball" and norm == math.inf:
        return [share * width for share in _LINF]
    if unit == "ball":
        return [size * width for size in _L2 if size <= examples.x[0].numel() ** 0.5]
    return list(_NOISE) if unit in ("share", "relative sigma") else [share * width for share in _NOISE]


def gradients_of(shot: Shot, effort: Effort) -> float:
    """What a shot costs for one batch at most, in gradients; a pass without one is a third."""
    name = ATTACKS[shot.attack].kind
    passes = {"noise": effort.draws if ATTACKS[shot.attack].unit == "ball" else 1, "gradient_free": effort.queries}
    if name == "iterative":
        return effort.restarts * (effort.steps + 1) + 1
    if ATTACKS[shot.attack].unit == "swaps":
        return effort.queries / 3
    return 2.0 if name == "single_step" else passes[name] / 3


def seconds_per_gradient(examples: Examples) -> float:
    """Of one batch, measured."""
    first = next(examples.batches())
    start = time.perf_counter()
    with frozen(first.model, first.x.device):
        if first.x.is_floating_point():
            slope(Objective(first.model, first.loss, scored=first.scored, lengths=first.lengths), first.x, first.y)
            return time.perf_counter() - start
    first.judge(first.x)
    return 3 * (time.perf_counter() - start)
