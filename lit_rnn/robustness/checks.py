"""Is an evaluation of robustness honest? The checks of Carlini et al. on a table of results."""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import numpy as np
from torch import Tensor

from datamodules.errors import require
from lit_rnn.robustness.attacks import check_examples, expand_mask, slope
from lit_rnn.robustness.objective import Loss, Objective
from lit_rnn.robustness.state import Model, frozen

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


class Check(NamedTuple):
    """One check: passed, failed, or None where the table holds nothing to check."""

    name: str
    passed: bool | None
    sentence: str


_MASKED = 0.1  # share of exactly zero gradients at a time step that counts as masking
GRADIENT: tuple[Kind, ...] = ("single_step", "iterative")


def _pairs(results: Sequence[AttackResult], weaker: Sequence[Kind], stronger: Sequence[Kind]) -> list[tuple[Any, Any]]:
    """The most successful result of either side, wherever norm, eps and aim are the same."""
    best: dict[tuple[Any, ...], dict[str, AttackResult]] = defaultdict(dict)
    for result in results:
        for side, kinds in (("weak", weaker), ("strong", stronger)):
            here = best[result.norm, result.eps, result.targeted]
            if result.kind in kinds and (side not in here or result.success > here[side].success):
                here[side] = result
    return [(pair["weak"], pair["strong"]) for pair in best.values() if len(pair) == 2]


def honesty_checks(
    results: Sequence[AttackResult],
    chance: float | None = None,
    tolerance: float = 0.01,
    nearest_other_class: float | None = None,
    zero_gradients: Mapping[str, Sequence[float] | Tensor] | None = None,
) -> list[Check]:
    """Check a table of results for the usual signs of an attack that is too weak.

    Args:
        results: All attacks at all sizes on the same examples of one model.
        chance: Accuracy of guessing; None leaves that check out.
        tolerance: Share of examples that may go the wrong way before a check fails.
        nearest_other_class: Median L2 distance of an example to the nearest one of another class (MNIST: below 9).
            Half of the accuracy must be gone there.
        zero_gradients: What `zero_gradient_fraction` gave, by the name of the loss; nan where nothing was measured.

    Returns:
        Thirteen points of Carlini et al., and gradient masking; ``passed`` is None where the table holds nothing to
        check.

    Source: Carlini et al. 2019, "On Evaluating Adversarial Robustness".
    """
    require(len(results) > 0, "results", len(results), "at least one")
    tolerance += 1e-9  # shares of a count are rounded
    attacks = [result for result in results if result.kind != "clean"]
    untargeted = [result for result in attacks if not result.targeted]
    checks: list[Check] = []

    def add(name: str, wrong: Sequence[str], good: str, nothing: str = "", found: bool = True) -> None:
        passed = None if not found else not wrong
        checks.append(Check(name, passed, f"Not checked: {nothing}" if not found else _worst_of(wrong) or good))

    def compare(name: str, weaker: Sequence[Kind], stronger: Sequence[Kind], nothing: str) -> None:
        pairs = _pairs(attacks, weaker, stronger)
        lost = [(weak, strong) for weak, strong in pairs if weak.success > strong.success + tolerance]
        lost.sort(key=lambda pair: pair[1].success - pair[0].success)
        wrong = [
            f"{weak.attack} fools {weak.success:.1%} and {strong.attack} only {strong.success:.1%} "
            f"at eps {weak.eps:g} (norm {weak.norm})"
            for weak, strong in lost
        ]
        strong_words, weak_words = (" and ".join(kinds).replace("_", "-") for kinds in (stronger, weaker))
        good = f"Attacks that are {strong_words} fool at least as many as those that are {weak_words}."
        add(name, wrong, good, nothing, bool(pairs))

    # 1
    compare("iterative beats single step", ["single_step"], ["iterative"], "no single-step and iterative pair.")

    # 2: same attack and settings, larger ball; noise is luck, and a single step may go too far
    curves: dict[tuple[Any, ...], list[AttackResult]] = defaultdict(list)
    for result in [result for result in attacks if result.kind in ("iterative", "gradient_free")]:
        settings = sorted((key, repr(value)) for key, value in result.settings.items() if key != "step_size")
        curves[result.attack, result.norm, result.targeted, tuple(settings)].append(result)
    for curve in curves.values():
        curve.sort(key=lambda result: result.eps)
    steps = [pair for curve in curves.values() for pair in itertools.pairwise(curve)]
    wrong = [
        f"{small.attack} fools {small.success:.1%} at eps {small.eps:g} but {large.success:.1%} at {large.eps:g}."
        for small, large in steps
        if large.success < small.success - tolerance
    ]
    add("success grows with eps", wrong, "Success never falls as eps grows.", "each attack has one eps.", bool(steps))

    # 3 and 4: half the box makes every input the same grey; the whole box makes it any other input
    strong = [result for result in untargeted if result.kind in GRADIENT and result.box is not None]
    boxes = [(result, result.box[1] - result.box[0]) for result in strong if result.box and result.norm == math.inf]
    grey = [result for result, width in boxes if result.eps >= width / 2]
    known = bool(grey) and chance is not None
    level = max((result.success for result in grey), default=0.0)
    bar = 1 - (chance or 0.0) - 2 * math.sqrt((chance or 0.0) * (1 - (chance or 0.0)) / len(results[0].fooled))
    missed = [f"At half the box the accuracy is still {1 - level:.1%}, above chance."] if level < bar else []
    nothing = "no L-inf gradient attack with eps of half the box, or no chance level."
    add("large eps reaches chance", missed, "Half the box brings the accuracy to chance.", nothing, known)
    whole = [result for result, width in boxes if result.eps >= width]
    level = max((result.success for result in whole), default=0.0)
    missed = [f"An attack as wide as the box fools only {level:.1%}."] if level < 1 - tolerance else []
    nothing = "no L-inf gradient attack with eps of the whole box."
    add("unbounded attack succeeds", missed, "An attack as wide as the box fools all.", nothing, bool(whole))

    # 5: the same attack, more steps or restarts
    effort: dict[tuple[Any, ...], list[AttackResult]] = defaultdict(list)
    for result in attacks:
        if result.kind == "iterative":
            effort[result.attack, result.norm, result.eps, result.targeted, result.settings.get("loss")].append(result)

    def work(result: AttackResult) -> int:
        return int(result.settings.get("steps", 1)) * int(result.settings.get("restarts", 1))

    ranked = [sorted(group, key=work) for group in effort.values() if len({work(result) for result in group}) > 1]
    wrong = [
        f"{group[-1].attack} at eps {group[-1].eps:g} goes from {group[-2].success:.1%} to {group[-1].success:.1%} "
        f"with {work(group[-1])} instead of {work(group[-2])} steps: it has not converged."
        for group in ranked
        if abs(group[-1].success - group[-2].success) > tolerance
    ]
    nothing = "no attack was run with two numbers of steps or restarts."
    add("more steps change little", wrong, "More steps or restarts change little.", nothing, bool(ranked))

    # 6 and 7; noise has its own unit, and is compared where it was run inside the same ball
    compare(
        "gradients beat noise and transfer", ["noise", "transfer"], GRADIENT, "no noise or transfer in the same ball."
    )
    compare("gradients beat queries", ["gradient_free"], GRADIENT, "no gradient-free attack in the same ball.")

    # 8
    lengths = {len(result.fooled) for result in results}
    wrong = (
        [f"Results are of {sorted(lengths)} examples: no worst case per example exists."] if len(lengths) > 1 else []
    )
    add("worst attack per example", wrong, "All results are of the same examples: report the mean of `worst_case`.")

    # 9 and 10
    best = max(untargeted, key=lambda result: result.success, default=None)
    falls = best is not None and best.success >= 1 - tolerance
    level = max((result.success for result in whole), default=0.0)
    wrong = [] if falls else [f"An attack as wide as the box leaves {1 - level:.1%}."]
    nothing = (
        "no attack." if best is None else f"no eps is as wide as the box, and {1 - best.success:.1%} remain right."
    )
    add("curve goes to zero", wrong, "The accuracy falls to zero within the table.", nothing, falls or bool(whole))
    clean = any(result.kind == "clean" for result in results)
    add("clean accuracy", [] if clean else ["The table has no clean accuracy."], "The clean accuracy is in the table.")

    # 11 and 12
    aims = sorted({"targeted" if result.targeted else "untargeted" for result in attacks})
    add("aim is stated", [], f"The attacks are {' and '.join(aims)}.", "no attack.", bool(attacks))
    bare = sorted({result.attack for result in attacks if not result.settings})
    wrong = [f"No hyper-parameters are stored for {', '.join(bare)}."] if bare else []
    add("hyper-parameters are stored", wrong, "Every attack has its hyper-parameters.", "no attack.", bool(attacks))

    # 13
    far = [r for r in untargeted if r.norm == 2 and nearest_other_class is not None and r.eps >= nearest_other_class]
    level = max((result.success for result in far), default=0.0)
    wrong = (
        [f"{1 - level:.1%} survive L2 {nearest_other_class:g}, where half are nearer to another class: bogus."]
        if far and level < 0.5 - tolerance
        else []
    )
    nothing = "no L2 attack as large as the distance to the nearest other class."
    add("claims stop at the next class", wrong, "No claim goes beyond the next class.", nothing, bool(far))

    # gradient masking
    add("no gradient masking", *_masking(zero_gradients or {}))
    return checks


def _worst_of(wrong: Sequence[str]) -> str:
    """The first of some sentences, and how many more there are."""
    more = f", and {len(wrong) - 1} more like it" if len(wrong) > 1 else ""
    return f"{wrong[0].removesuffix('.')}{more}." if wrong else ""


def _masking(zero_gradients: Mapping[str, Sequence[float] | Tensor]) -> tuple[list[str], str, str, bool]:
    """What is wrong with the gradients of each loss, what to say if nothing is, and if nothing was measured."""
    dead = {
        loss: [step for step, share in enumerate(shares, 1) if float(share) > _MASKED]  # nan, not measured, is not
        for loss, shares in zero_gradients.items()
    }
    reached = " and ".join(loss for loss, steps in dead.items() if not steps)
    wrong = [
        f"At {len(steps)} of {len(zero_gradients[loss])} time steps (first {steps[0]}, last {steps[-1]}) more than "
        f"{_MASKED:.0%} of the gradients of {loss} are exactly zero: gradient masking; "
        + (f"attack with {reached}, which reaches them." if reached else "only a search without gradients sees them.")
        for loss, steps in dead.items()
        if steps
    ]
    good = f"The gradients of {' and '.join(zero_gradients)} reach every time step."
    return wrong, good, "no gradients measured.", bool(zero_gradients)
