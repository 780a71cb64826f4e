"""The attacks by name, each with what it knows and what its size measures, on one set of examples."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from datamodules.batch import within
from datamodules.errors import require, whole
from lit_rnn.robustness.attacks import Bounds, Threat, check_examples, fgsm, pgd, random_draws, random_search
from lit_rnn.robustness.draws import BLOCK, Draws
from lit_rnn.robustness.effort import Effort
from lit_rnn.robustness.noise import additive_noise, multiplicative_noise, salt_and_pepper
from lit_rnn.robustness.objective import LossName, Objective, Wrong
from lit_rnn.robustness.results import AttackResult, Kind
from lit_rnn.robustness.state import Model, frozen
from lit_rnn.robustness.swaps import symbol_swap

Unit = Literal["ball", "sigma", "relative sigma", "share", "swaps"]


@dataclass(frozen=True)
class Examples:
    """What is attacked, and what counts as success.

    Args:
        model: From inputs to logits or values; see `lit_rnn.robustness.pgd`.
        x: (N, T, I) values or (N, T) symbols.
        y: (N,) or (N, T) classes, or (N, O) or (N, T, O) numbers.
        mask: What may be changed, bool, shaped as x.
        bounds: (low, high) of valid values; None for symbols, and where there are no bounds.
        scored: (N, T) bool: steps that count, where there is a target per step.
        wrong: When a prediction is wrong; None where y holds classes.
        vocabulary: How many symbols there are; 0 for values.
        batch_size: Examples that are run at once; what is drawn for them does not depend on it.
        lengths: (N,), how many steps each has; None: all of them.

    Raises:
        UserError: for no examples.
    """

    model: Model
    x: Tensor
    y: Tensor
    mask: Tensor
    bounds: Bounds | None = None
    scored: Tensor | None = None
    wrong: Wrong | None = None
    vocabulary: int = 0
    batch_size: int = BLOCK
    lengths: Tensor | None = None

    def __post_init__(self) -> None:
        check_examples(self.x)
        whole(self.vocabulary, "vocabulary")
        whole(self.batch_size, "batch_size", 1)

    @property
    def classes(self) -> bool:
        """Whether classes are predicted, rather than numbers."""
        return not self.y.is_floating_point()

    @property
    def free(self) -> float:
        """Share of the entries that may be changed, among those up to each sequence's end."""
        mask = self.mask
        if self.lengths is not None:
            mask = mask[within(self.lengths, mask.shape[1]).to(mask.device)]
        return float(mask.float().mean())

    @property
    def loss(self) -> LossName:
        """What is maximised unless an attack says otherwise."""
        return "cross_entropy" if self.classes else "squared_error"

    def batches(self) -> Iterator[Examples]:
        """The same in parts of ``batch_size``."""
        for start in range(0, len(self.x), self.batch_size):
            rows = slice(start, start + self.batch_size)
            scored, lengths = (None if part is None else part[rows] for part in (self.scored, self.lengths))
            yield replace(self, x=self.x[rows], y=self.y[rows], mask=self.mask[rows], scored=scored, lengths=lengths)

    def judge(self, moved: Tensor) -> tuple[Tensor, Tensor]:
        """Loss (N,) at other inputs, and who is fooled (N,)."""
        with frozen(self.model, moved.device), torch.no_grad():
            judge = Objective(self.model, self.loss, scored=self.scored, wrong=self.wrong, lengths=self.lengths)
            return judge(moved, self.y)


class Attack(NamedTuple):
    """An attack by name: what it knows, what its size measures, how it is called and with which options."""

    kind: Kind
    unit: Unit
    function: Callable[..., Tensor]
    options: Callable[[Examples, Effort], dict[str, Any]]
    words: str


def _iterative(examples: Examples, effort: Effort) -> dict[str, Any]:
    return {"loss": examples.loss, "steps": effort.steps, "restarts": effort.restarts, "early_stop": True}


def _pgd_on(loss: LossName, words: str) -> Attack:
    """PGD on another loss."""
    return Attack("iterative", "ball", pgd, lambda e, effort: {**_iterative(e, effort), "loss": loss}, words)


def _search_loss(examples: Examples) -> LossName:
    return "margin" if examples.classes else examples.loss


ATTACKS: Mapping[str, Attack] = {
    "noise": Attack("noise", "sigma", additive_noise, lambda *_: {}, "x + sigma N(0, 1)"),
    "multiplicative": Attack("noise", "relative sigma", multiplicative_noise, lambda *_: {}, "x (1 + sigma N(0, 1))"),
    "salt_and_pepper": Attack("noise", "share", salt_and_pepper, lambda *_: {}, "a share of entries to either bound"),
    "uniform": Attack(
        "noise",
        "ball",
        random_draws,
        lambda e, effort: {"loss": _search_loss(e), "draws": effort.draws, "early_stop": True},
        "the worst of many uniform draws from the ball",
    ),
    "fgsm": Attack("single_step", "ball", fgsm, lambda e, _: {"loss": e.loss}, "one gradient step"),
    "pgd": Attack("iterative", "ball", pgd, _iterative, "projected gradient ascent"),
    "pgd_margin": _pgd_on("margin", "the same on the logit margin, which does not saturate"),
    "pgd_over": _pgd_on("overshoot", "the same towards predictions that are too large"),
    "pgd_under": _pgd_on("undershoot", "the same towards predictions that are too small"),
    "search": Attack(
        "gradient_free",
        "ball",
        random_search,
        lambda e, effort: {"loss": _search_loss(e), "queries": effort.queries, "early_stop": True},
        "random search by windows of time, without gradients",
    ),
    "random_swaps": Attack(
        "noise",
        "swaps",
        symbol_swap,
        lambda e, effort: {"loss": _search_loss(e), "search": "random", "queries": effort.queries},
        "the worst of many draws of swapped symbols",
    ),
    "swaps": Attack(
        "gradient_free",
        "swaps",
        symbol_swap,
        lambda e, effort: {"loss": _search_loss(e), "search": "greedy", "queries": effort.queries},
        "greedy swaps of symbols, without gradients",
    ),
}


def refusal(examples: Examples, name: str) -> str | None:
    """Why an attack makes no sense on these examples; None where it does."""
    attack = ATTACKS[name]
    if attack.unit == "swaps" and examples.x.is_floating_point():
        return "swaps symbols, but the inputs are values"
    if attack.unit != "swaps" and not examples.x.is_floating_point():
        return "moves values, but the inputs are symbols"
    if name == "pgd_margin" and not examples.classes:
        return "needs classes, which have a margin"
    if name in ("pgd_over", "pgd_under") and examples.classes:
        return "needs numbers to predict"
    if attack.unit == "share" and examples.bounds is None:
        return "needs bounds"
    return None


def check_size(examples: Examples, name: str, norm: float, eps: float) -> None:
    """Refuse a size that an attack cannot take, before anything is computed.

    Raises:
        UserError: saying what is accepted.
    """
    unit = ATTACKS[name].unit
    if unit == "ball":
        Threat(examples.x[:1], eps, norm, examples.bounds, examples.mask[:1])
    elif unit == "swaps":
        free = int(examples.mask.flatten(1).sum(1).max())  # those that have fewer take as many as they have
        whole = float(eps).is_integer() and 0 <= eps <= free
        require(whole, "eps", eps, f"a whole number of swaps, from 0 to the {free} symbols that may be changed")
    elif unit == "share":
        require(0 <= eps <= 1, "eps", eps, "from 0 to 1, a share of entries")
    else:
        widest = math.inf if examples.bounds is None else examples.bounds[1] - examples.bounds[0]
        require(0 <= eps <= widest, "eps", eps, f"from 0 to {widest:g}, the width of the data's range")


def _moved(examples: Examples, attack: Attack, norm: float, eps: float, options: dict[str, Any], seed: Draws) -> Tensor:
    """One batch under one attack."""
    e = examples
    counted: dict[str, Any] = {"scored": e.scored, "lengths": e.lengths}
    judged = {**counted, "wrong": examples.wrong, "seed": seed}
    if attack.unit == "swaps":
        return attack.function(e.model, e.x, e.y, int(eps), e.vocabulary, mask=e.mask, **judged, **options)
    inside = {"bounds": e.bounds, "mask": e.mask}
    if attack.unit != "ball":
        return attack.function(e.x, eps, **inside, seed=seed)
    if attack.kind == "single_step":
        judged = counted
    return attack.function(e.model, e.x, e.y, eps, norm=norm, **inside, **judged, **options)


def evaluate(
    examples: Examples,
    name: str,
    norm: float,
    eps: float,
    effort: Effort,
    seed: int = 0,
    tell: Callable[[], None] = lambda: None,
) -> tuple[AttackResult, Tensor]:
    """One attack at one size on all examples.

    Args:
        examples: What is attacked.
        name: One of `ATTACKS`.
        norm: inf or 2 for attacks in a ball; not read by others.
        eps: In the attack's unit.
        effort: How hard it tries.
        seed: Of all that is drawn, as `Draws` takes it.
        tell: Called after each batch.

    Returns:
        What came of it, and the inputs it found.
    """
    attack = ATTACKS[name]
    options = attack.options(examples, effort)
    inputs, losses, fooled = [], [], []
    for number, batch in enumerate(examples.batches()):
        start = number * examples.batch_size
        draws = Draws(seed, range(start, start + len(batch.x)))
        moved = _moved(batch, attack, norm, eps, options, draws)
        value, wrong = batch.judge(moved)
        inputs.append(moved)
        losses.append(value)
        fooled.append(wrong)
        tell()
    result = AttackResult(
        name,
        attack.kind,
        norm if attack.unit == "ball" else attack.unit,
        float(eps),
        torch.cat(fooled).cpu().numpy(),
        torch.cat(losses).double().cpu().numpy(),
        examples.bounds,
        settings={**options, "seed": seed},
    )
    return result, torch.cat(inputs)


def clean(examples: Examples) -> AttackResult:
    """The unchanged examples."""
    judged = [batch.judge(batch.x) for batch in examples.batches()]
    values, fooled = (torch.cat(parts).cpu() for parts in zip(*judged, strict=True))
    return AttackResult("clean", "clean", "none", 0.0, fooled.numpy(), values.double().numpy(), examples.bounds)
