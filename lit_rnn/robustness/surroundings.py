"""What is around examples: the loss's gradient by time step, and the nearest example of another class."""

from __future__ import annotations

import math

import numpy as np
import torch

from lit_rnn.robustness.attacks import slope
from lit_rnn.robustness.by_name import Examples
from lit_rnn.robustness.checks import zero_gradient_fraction
from lit_rnn.robustness.objective import LossName, Objective
from lit_rnn.robustness.state import frozen

_NEAREST = 1000  # examples among which the nearest of another class is looked for


def gradients_in_time(examples: Examples) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Where gradients are exactly zero, by loss, and how large that of the first loss is, by time step."""
    if not examples.x.is_floating_point():
        return {}, np.zeros(0)
    losses: list[LossName] = ["cross_entropy", "margin"] if examples.classes else [examples.loss]
    parts: dict[str, list[np.ndarray]] = {loss: [] for loss in losses}
    sizes, slopes = [], []
    for e in examples.batches():
        for loss in losses:
            fraction = zero_gradient_fraction(e.model, e.x, e.y, loss, e.mask, e.scored, e.lengths)
            parts[loss].append(fraction.cpu().numpy())
        with frozen(e.model, e.x.device):
            gradient, _, _ = slope(Objective(e.model, losses[-1], scored=e.scored, lengths=e.lengths), e.x, e.y)
        slopes.append((gradient * e.mask).norm(dim=-1).mean(0).double().cpu().numpy())
        sizes.append(len(e.x))
    zero = {loss: np.average(some, axis=0, weights=sizes) for loss, some in parts.items()}
    return zero, np.average(slopes, axis=0, weights=sizes)


def nearest_other_class(examples: Examples) -> float | None:
    """Median L2 distance of an example to the nearest one of another class, among these."""
    if not examples.x.is_floating_point():
        return None
    x, y = examples.x[:_NEAREST].flatten(1).double(), examples.y[:_NEAREST]
    distance = torch.cdist(x, x).masked_fill(y[:, None] == y, math.inf).amin(1)
    distance = distance[distance.isfinite()]
    return float(distance.median()) if len(distance) else None
