"""Adversarial training: batches are replaced by what an attack makes of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from datamodules.batch import Batch, Parts, near
from datamodules.errors import UserError, require
from datamodules.task import Task
from lit_rnn.robustness.attacks import pgd
from lit_rnn.robustness.state import Model


@dataclass(frozen=True)
class AdversarialTraining:
    """min over weights of max over |d| <= eps of the loss, the inner one by PGD (Madry et al. 2018).

    What decides the answer, and padding, are held still, as in the command `attack`: with a data module, its
    ``changeable`` says what may be moved.

    Args:
        eps: Radius in the units of the input: of each element for L-inf, of the whole sequence for L2.
        norm: inf (in YAML: .inf) or 2.
        steps: PGD steps per batch; each costs a forward and a backward pass.
        bounds: [low, high] of valid inputs; null for none.
        channels: Which channels may be changed, such as [0] for the adding task's values; null for all.
        warmup: Optimizer steps over which the radius grows evenly from 0 to eps. Without it, a net that has learned
            nothing yet may never start: the constant answer withstands everything.
    """

    eps: float
    norm: float = math.inf
    steps: int = 7
    bounds: Sequence[float] | None = None
    channels: Sequence[int] | None = None
    warmup: int = 0

    @classmethod
    def of(cls, options: dict[str, object], task: Task) -> AdversarialTraining:
        """From a config's dict.

        Raises:
            UserError: for unknown or impossible options, and for a task whose inputs are symbols.
        """
        key = "model.init_args.adversarial"
        if task.inputs != "values":
            raise UserError(
                f"{key} needs inputs that are values, but those of {task.name} are symbols: set it to null."
            )
        names = list(cls.__dataclass_fields__)
        known = set(options) <= set(names) and "eps" in options
        require(known, key, options, f"eps and, at will, {', '.join(names[1:])}")
        chosen = cls(**options)  # type: ignore[arg-type]  # checked below
        require(_number(chosen.eps) and 0 <= chosen.eps < math.inf, f"{key}.eps", chosen.eps, "0 or positive")
        require(chosen.norm in (math.inf, 2, "inf"), f"{key}.norm", chosen.norm, "inf or 2")
        for name, least in (("steps", 1), ("warmup", 0)):
            count = getattr(chosen, name)
            require(type(count) is int and count >= least, f"{key}.{name}", count, f"a whole number from {least}")
        channels = chosen.channels is None or all(
            type(channel) is int and 0 <= channel < task.input_size for channel in chosen.channels
        )
        require(channels, f"{key}.channels", chosen.channels, f"channels from 0 to {task.input_size - 1}")
        return chosen

    def radius(self, step: int) -> float:
        """How far inputs are moved when that many optimizer steps have been taken."""
        return self.eps * min(1.0, step / self.warmup) if self.warmup else self.eps

    def perturb(
        self, model: Model, task: Task, batch: Batch, step: int, seed: int, free: Tensor | None = None
    ) -> Tensor:
        """The batch's inputs, moved to where the model's loss is large; only where ``free``, shaped as they are."""
        parts = Parts.of(batch)
        x, y, _, lengths, _ = parts = parts.to(parts.inputs.device)
        real = parts.real()
        mask = free if real is None else real[..., None] if free is None else free & real[..., None]
        if self.channels is not None:
            chosen = torch.zeros(x.shape[-1], dtype=torch.bool)
            chosen[list(self.channels)] = True
            chosen = near(chosen, x)
            mask = chosen if mask is None else mask & chosen
        return pgd(
            model,
            parts.filled(),
            y,
            self.radius(step),
            float(self.norm),
            self.bounds,
            self.steps,
            loss="cross_entropy" if task.classifies else "squared_error",
            mask=mask,
            scored=parts.counts(task),
            seed=seed,
            lengths=lengths,
        )


def _number(given: object) -> bool:
    return isinstance(given, int | float) and not isinstance(given, bool)
