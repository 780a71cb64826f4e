"""What is around examples: the loss's gradient by time step, and the nearest example of another class."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from lit_rnn.robustness.attacks import check_examples, expand_mask, slope
from lit_rnn.robustness.by_name import Examples
from lit_rnn.robustness.objective import Loss, LossName, Objective
from lit_rnn.robustness.state import Model, frozen

_NEAREST = 1000  # examples among which the nearest of another class is looked for


def zero_gradient_fraction(
    model: Model,
    x: Tensor,
    y: Tensor,
    loss: Loss = "cross_entropy",
    mask: Tensor | None = None,
    scored: Tensor | None = None,
    lengths: Tensor | None = None,
) -> Tensor:
    """(T,): at each time step, the share of entries of dl/dx, over examples and channels, that are exactly zero.

    A contracting network, or a saturated loss, hides early steps from gradient attacks: gradient masking.

    Args:
        model: As in `lit_rnn.robustness.pgd`.
        x: (B, T, I) values.
        y: Labels, or the numbers to predict.
        loss: As in `lit_rnn.robustness.pgd`.
        mask: Which entries an attack may change; others are not counted, and a step without any is nan.
        scored: (B, T) bool: steps that count, where there is a target per step.
        lengths: As in `lit_rnn.robustness.pgd`.

    Raises:
        UserError: for no examples.
    """
    check_examples(x)
    with frozen(model, x.device):
        gradient, _, _ = slope(Objective(model, loss, scored=scored, lengths=lengths), x.clone(), y.clone())
    free = expand_mask(x, mask)
    zero = ((gradient == 0) & free).transpose(0, 1).flatten(1).sum(1)
    return zero.double() / free.transpose(0, 1).flatten(1).sum(1)


def gradients_in_time(examples: Examples) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Where gradients are exactly zero, by loss, and how large that of the last loss is, by time step.

    Its mean is over the examples of which something may be changed at the step: others, which have ended, have none.
    Zeros count from the first input of an example that is not 0; a step with none is nan. Until then the state of a
    network without biases is 0, which is the kink of ReLU and modReLU: an attack that starts at random leaves it.
    """
    if not examples.x.is_floating_point():
        return {}, np.zeros(0)
    losses: list[LossName] = ["cross_entropy", "margin"] if examples.classes else [examples.loss]
    parts: dict[str, list[np.ndarray]] = {loss: [] for loss in losses}
    counts, slopes, reached = [], [], []
    for e in examples.batches():
        begun = (e.x != 0).any(-1, keepdim=True).cumsum(1) > 0
        counted = expand_mask(e.x, e.mask) & begun
        counts.append(counted.sum((0, 2)).cpu().numpy())
        for loss in losses:
            fraction = zero_gradient_fraction(e.model, e.x, e.y, loss, counted, e.scored, e.lengths)
            parts[loss].append(fraction.nan_to_num().cpu().numpy())
        with frozen(e.model, e.x.device):
            gradient, _, _ = slope(Objective(e.model, losses[-1], scored=e.scored, lengths=e.lengths), e.x, e.y)
        slopes.append((gradient * e.mask).norm(dim=-1).double().sum(0).cpu().numpy())
        reached.append(e.mask.any(-1).sum(0).cpu().numpy())
    total = np.stack(counts).sum(0, dtype=np.float64)
    total[total == 0] = np.nan
    zero = {loss: (np.array(some) * counts).sum(0) / total for loss, some in parts.items()}
    of = np.sum(reached, axis=0, dtype=np.float64)
    return zero, np.sum(slopes, axis=0) / np.where(of > 0, of, np.nan)


def nearest_other_class(examples: Examples) -> float | None:
    """Median L2 distance of an example to the nearest one of another class, among these.

    In what may be changed: noise that is held behind an image keeps no attack from the other image.
    """
    if not examples.x.is_floating_point():
        return None
    free = examples.mask[:_NEAREST]
    x, y = examples.x[:_NEAREST].where(free, 0).flatten(1).double(), examples.y[:_NEAREST]
    distance = torch.cdist(x, x).masked_fill(y[:, None] == y, math.inf).amin(1)
    distance = distance[distance.isfinite()]
    return float(distance.median()) if len(distance) else None
