"""What an attack maximises: one number per example, and whether the example is fooled."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn

from datamodules.errors import number, require
from lit_rnn.robustness.state import Model, read, tensor

LossName = Literal["cross_entropy", "margin", "squared_error", "overshoot", "undershoot"]
Loss = LossName | Callable[[Tensor, Tensor], Tensor]
Wrong = Callable[[Tensor, Tensor], Tensor]


def cross_entropy(outputs: Tensor, y: Tensor) -> Tensor:
    """-log softmax(z)_y in nats: (..., C) and (...) to (...). At a large margin its gradient is exactly 0."""
    return nn.functional.cross_entropy(outputs.movedim(-1, 1), y, reduction="none")


def margin(outputs: Tensor, y: Tensor) -> Tensor:
    """max_{j != y} z_j - z_y: (..., C) and (...) to (...); positive where the prediction is wrong.

    Its gradient in the logits is +1 and -1 whatever their size, so a saturated network does not hide behind it.
    """
    own = nn.functional.one_hot(y, outputs.shape[-1]).bool()
    return outputs.masked_fill(own, -torch.inf).amax(-1) - outputs.gather(-1, y[..., None]).squeeze(-1)


def squared_error(outputs: Tensor, y: Tensor) -> Tensor:
    """The mean over the last axis of (z - y)^2: (..., O) and (..., O) to (...)."""
    return (outputs - y).square().mean(-1)


def overshoot(outputs: Tensor, y: Tensor) -> Tensor:
    """The mean over the last axis of z - y. Squared error stays on the side it starts on, this one chooses its side."""
    return (outputs - y).mean(-1)


def undershoot(outputs: Tensor, y: Tensor) -> Tensor:
    """The mean over the last axis of y - z."""
    return -overshoot(outputs, y)


LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "cross_entropy": cross_entropy,
    "margin": margin,
    "squared_error": squared_error,
    "overshoot": overshoot,
    "undershoot": undershoot,
}


def predicted_class(outputs: Tensor) -> Tensor:
    """The class of the highest output, or -1 where they have no softmax and name none: (..., C) to (...).

    That is where an output is NaN or +infinity, or all are -infinity.
    """
    highest, predicted = outputs.max(-1)  # NaN where one is
    return predicted.masked_fill(~highest.isfinite(), -1)


def wrong_label(outputs: Tensor, y: Tensor) -> Tensor:
    """Whether the class predicted is another, or none: (..., C) and (...) to (...)."""
    return predicted_class(outputs) != y


def off_by(tolerance: float) -> Wrong:
    """Whether any number predicted is off by more than ``tolerance``, or NaN: (..., O) and (..., O) to (...).

    Raises:
        UserError: for a tolerance that is no number of at least 0.
    """
    tolerance = number(tolerance, "tolerance", "a number of at least 0", lambda value: value >= 0)
    return lambda outputs, y: ~((outputs - y).abs() <= tolerance).all(-1)


def _check_targets(outputs: Tensor, y: Tensor, scored: Tensor | None) -> None:
    """Raise `UserError` unless they are of the shapes of outputs: torch would spread one over the other."""
    numbers, classes = tuple(outputs.shape), tuple(outputs.shape[:-1])
    accepted = f"classes {classes} or numbers {numbers}, as the model's outputs are {numbers}"
    fits = tuple(y.shape) == (numbers if y.is_floating_point() else classes)
    require(fits, "y", f"{y.dtype} {tuple(y.shape)}", accepted)
    if scored is not None:
        require(scored.shape == y.shape[:2], "scored", tuple(scored.shape), f"(B, T), here {tuple(y.shape[:2])}")


class Objective:
    """The loss of each example, its sign turned where a target is to be reached.

    Args:
        model: From inputs to logits or values: (B, C), or (B, T, C) with a target per step.
        loss: A name, or a function (outputs, y) -> one number per example, or per example and step.
        targeted: y is what the model shall be made to say; the loss is minimised.
        scored: (B, T) bool: the steps that count, in a task with a target per step; None counts all.
        wrong: When a prediction is wrong, (outputs, y) -> bool per example, or per example and step; None:
            `wrong_label` where y holds classes, and never where it holds numbers.
        lengths: (B,), how many steps each sequence has; the model is then called as model(x, lengths).
    """

    def __init__(
        self,
        model: Model,
        loss: Loss,
        targeted: bool = False,
        scored: Tensor | None = None,
        wrong: Wrong | None = None,
        lengths: Tensor | None = None,
    ) -> None:
        known = callable(loss) or loss in LOSSES
        require(known, "loss", loss, f"one of {', '.join(LOSSES)}, or a function of outputs and targets")
        self.model = model
        self.named = not callable(loss)
        self.loss = loss if callable(loss) else LOSSES[loss]
        self.targeted, self.wrong = targeted, wrong
        self.scored = None if scored is None else tensor(scored, "scored").bool().clone()
        self.lengths = None if lengths is None else tensor(lengths, "lengths")

    def __call__(self, x: Tensor, y: Tensor, rows: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """What is to be maximised (B,), and which examples are fooled (B,).

        An example is fooled when its prediction is wrong at any step that counts (targeted: when the target is reached
        at all of them). ``rows`` says which rows of ``scored`` and ``lengths`` the inputs are.
        """
        outputs = read(self.model, x, self.lengths if rows is None or self.lengths is None else self.lengths[rows])
        scored = self.scored if rows is None or self.scored is None else self.scored[rows]
        y = y if y.is_floating_point() else y.long()
        if self.named:
            _check_targets(outputs, y, scored)
        if scored is not None:  # what stands where nothing is asked, -1 or nan perhaps, is no target
            y = y.where(scored.view(*scored.shape, *[1] * (y.dim() - scored.dim())), 0)
        try:
            losses = self.loss(outputs, y)
        except (IndexError, RuntimeError):  # looked at only where torch has refused one: on a GPU a look is a wait
            classes = outputs.shape[-1]
            known = y.is_floating_point() or not y.is_cpu or bool(((y >= 0) & (y < classes)).all())
            require(known, "y", y.unique().tolist(), f"classes from 0 to {classes - 1}, as many as the model has")
            raise
        if losses.dim() > 1:
            weight = torch.ones_like(losses) if scored is None else scored.to(losses)
            losses = (losses * weight).flatten(1).sum(1) / weight.flatten(1).sum(1).clamp_min(1)
        fooled = self._wrong(outputs.detach(), y, scored) != self.targeted
        return (-losses if self.targeted else losses), fooled

    def _wrong(self, outputs: Tensor, y: Tensor, scored: Tensor | None) -> Tensor:
        wrong = self.wrong or (None if y.is_floating_point() else wrong_label)
        if wrong is None:
            return torch.full((len(outputs),), self.targeted, device=outputs.device)
        flags = wrong(outputs, y)
        if flags.dim() > 1:
            flags = (flags if scored is None else flags & scored).flatten(1).any(1)
        return flags
