"""Is an evaluation of robustness honest? The checks of Carlini et al. 2019 on a table of results."""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from torch import Tensor

from datamodules.errors import require
from lit_rnn.robustness.results import AttackResult, Kind

_GRADIENT: tuple[Kind, ...] = ("single_step", "iterative")
_MASKED = 0.1  # share of exactly zero gradients at a time step that counts as masking


class Check(NamedTuple):
    """One check: passed, failed, or None where the table holds nothing to check."""

    name: str
    passed: bool | None
    sentence: str


class _Table(NamedTuple):
    """What is checked; the arguments of `honesty_checks`."""

    results: Sequence[AttackResult]
    chance: float | None
    tolerance: float
    nearest_other_class: float | None
    zero_gradients: Mapping[str, Sequence[float] | Tensor]

    @property
    def attacks(self) -> list[AttackResult]:
        return [result for result in self.results if result.kind != "clean"]

    @property
    def untargeted(self) -> list[AttackResult]:
        return [result for result in self.attacks if not result.targeted]

    def of_the_box(self, share: float) -> list[AttackResult]:
        """Untargeted L-inf attacks with gradients whose eps is at least this share of the box."""
        gradients = [result for result in self.untargeted if result.kind in _GRADIENT and result.norm == math.inf]
        return [result for result in gradients if result.box and result.eps >= share * (result.box[1] - result.box[0])]


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
    rounding = 1e-9  # shares of a count are rounded
    table = _Table(results, chance, tolerance + rounding, nearest_other_class, zero_gradients or {})
    return [check(table) for check in _CHECKS]


def _iterative_beats_single_step(table: _Table) -> Check:
    name = "iterative beats single step"
    return _at_least_as_strong(name, table, ["single_step"], ["iterative"], "no single-step and iterative pair.")


def _grows_with_eps(table: _Table) -> Check:
    """The same attack and settings in a larger ball; noise is luck, and a single step may go too far."""
    curves: dict[tuple[Any, ...], list[AttackResult]] = defaultdict(list)
    for result in table.attacks:
        if result.kind in ("iterative", "gradient_free"):
            settings = sorted((key, repr(value)) for key, value in result.settings.items() if key != "step_size")
            curves[result.attack, result.norm, result.targeted, tuple(settings)].append(result)
    by_eps = (sorted(curve, key=lambda result: result.eps) for curve in curves.values())
    steps = [pair for curve in by_eps for pair in itertools.pairwise(curve)]
    wrong = [
        f"{small.attack} fools {small.success:.1%} at eps {small.eps:g} but {large.success:.1%} at {large.eps:g}."
        for small, large in steps
        if large.success < small.success - table.tolerance
    ]
    good = "Success never falls as eps grows."
    return _judged("success grows with eps", wrong, good, bool(steps), "each attack has one eps.")


def _half_the_box(table: _Table) -> Check:
    """Half the box makes every input the same grey."""
    grey, chance = table.of_the_box(0.5), table.chance or 0.0
    best = _most_successful(grey)
    luck = 2 * math.sqrt(chance * (1 - chance) / len(table.results[0].fooled))
    wrong = [f"At half the box the accuracy is still {1 - best:.1%}, above chance."] if best < 1 - chance - luck else []
    nothing = "no L-inf gradient attack with eps of half the box, or no chance level."
    good = "Half the box brings the accuracy to chance."
    return _judged("large eps reaches chance", wrong, good, bool(grey) and table.chance is not None, nothing)


def _whole_box(table: _Table) -> Check:
    """The whole box makes every input any other input."""
    whole = table.of_the_box(1)
    best = _most_successful(whole)
    wrong = [f"An attack as wide as the box fools only {best:.1%}."] if best < 1 - table.tolerance else []
    nothing = "no L-inf gradient attack with eps of the whole box."
    return _judged("unbounded attack succeeds", wrong, "An attack as wide as the box fools all.", bool(whole), nothing)


def _converged(table: _Table) -> Check:
    """The same attack with more steps or restarts."""

    def work(result: AttackResult) -> int:
        return int(result.settings.get("steps", 1)) * int(result.settings.get("restarts", 1))

    efforts: dict[tuple[Any, ...], list[AttackResult]] = defaultdict(list)
    for result in table.attacks:
        if result.kind == "iterative":
            same = result.attack, result.norm, result.eps, result.targeted, result.settings.get("loss")
            efforts[same].append(result)
    ranked = [sorted(group, key=work)[-2:] for group in efforts.values() if len({work(result) for result in group}) > 1]
    wrong = [
        f"{most.attack} at eps {most.eps:g} goes from {less.success:.1%} to {most.success:.1%} "
        f"with {work(most)} instead of {work(less)} steps: it has not converged."
        for less, most in ranked
        if abs(most.success - less.success) > table.tolerance
    ]
    nothing = "no attack was run with two numbers of steps or restarts."
    return _judged("more steps change little", wrong, "More steps or restarts change little.", bool(ranked), nothing)


def _beats_noise_and_transfer(table: _Table) -> Check:
    """Noise has its own unit, and is compared where it was run inside the same ball."""
    name, nothing = "gradients beat noise and transfer", "no noise or transfer in the same ball."
    return _at_least_as_strong(name, table, ["noise", "transfer"], _GRADIENT, nothing)


def _beats_queries(table: _Table) -> Check:
    name, nothing = "gradients beat queries", "no gradient-free attack in the same ball."
    return _at_least_as_strong(name, table, ["gradient_free"], _GRADIENT, nothing)


def _same_examples(table: _Table) -> Check:
    lengths = sorted({len(result.fooled) for result in table.results})
    wrong = [f"Results are of {lengths} examples: no worst case per example exists."] if len(lengths) > 1 else []
    good = "All results are of the same examples: report the mean of `worst_case`."
    return _judged("worst attack per example", wrong, good)


def _goes_to_zero(table: _Table) -> Check:
    best, whole = _most_successful(table.untargeted), table.of_the_box(1)
    falls = bool(table.untargeted) and best >= 1 - table.tolerance
    wrong = [] if falls else [f"An attack as wide as the box leaves {1 - _most_successful(whole):.1%}."]
    remain = f"no eps is as wide as the box, and {1 - best:.1%} remain right."
    nothing = remain if table.untargeted else "no attack."
    good = "The accuracy falls to zero within the table."
    return _judged("curve goes to zero", wrong, good, falls or bool(whole), nothing)


def _has_clean_accuracy(table: _Table) -> Check:
    wrong = [] if any(result.kind == "clean" for result in table.results) else ["The table has no clean accuracy."]
    return _judged("clean accuracy", wrong, "The clean accuracy is in the table.")


def _aim_is_stated(table: _Table) -> Check:
    aims = sorted({"targeted" if result.targeted else "untargeted" for result in table.attacks})
    return _judged("aim is stated", [], f"The attacks are {' and '.join(aims)}.", bool(aims), "no attack.")


def _settings_are_stored(table: _Table) -> Check:
    bare = sorted({result.attack for result in table.attacks if not result.settings})
    wrong = [f"No hyper-parameters are stored for {', '.join(bare)}."] if bare else []
    good = "Every attack has its hyper-parameters."
    return _judged("hyper-parameters are stored", wrong, good, bool(table.attacks), "no attack.")


def _stops_at_the_next_class(table: _Table) -> Check:
    limit = math.inf if table.nearest_other_class is None else table.nearest_other_class
    far = [result for result in table.untargeted if result.norm == 2 and result.eps >= limit]
    best = _most_successful(far)
    survive = f"{1 - best:.1%} survive L2 {limit:g}, where half are nearer to another class: bogus."
    nothing = "no L2 attack as large as the distance to the nearest other class."
    good = "No claim goes beyond the next class."
    wrong = [survive] if best < 0.5 - table.tolerance else []
    return _judged("claims stop at the next class", wrong, good, bool(far), nothing)


def _gradients_reach_every_step(table: _Table) -> Check:
    dead = {
        loss: [step for step, share in enumerate(shares, 1) if float(share) > _MASKED]  # nan, not measured, is not
        for loss, shares in table.zero_gradients.items()
    }
    reached = " and ".join(loss for loss, steps in dead.items() if not steps)
    wrong = [
        f"At {len(steps)} of {len(table.zero_gradients[loss])} time steps (first {steps[0]}, last {steps[-1]}) more "
        f"than {_MASKED:.0%} of the gradients of {loss} are exactly zero: gradient masking; "
        + (f"attack with {reached}, which reaches them." if reached else "only a search without gradients sees them.")
        for loss, steps in dead.items()
        if steps
    ]
    good = f"The gradients of {' and '.join(dead)} reach every time step."
    return _judged("no gradient masking", wrong, good, bool(dead), "no gradients measured.")


_CHECKS: tuple[Callable[[_Table], Check], ...] = (  # in the paper's order
    _iterative_beats_single_step,
    _grows_with_eps,
    _half_the_box,
    _whole_box,
    _converged,
    _beats_noise_and_transfer,
    _beats_queries,
    _same_examples,
    _goes_to_zero,
    _has_clean_accuracy,
    _aim_is_stated,
    _settings_are_stored,
    _stops_at_the_next_class,
    _gradients_reach_every_step,
)


def _judged(name: str, wrong: Sequence[str], good: str, found: bool = True, nothing: str = "") -> Check:
    """A check from the sentences of what is wrong, or what to say if nothing is, or if there was nothing to check."""
    if not found:
        return Check(name, None, f"Not checked: {nothing}")
    if not wrong:
        return Check(name, True, good)
    more = f", and {len(wrong) - 1} more like it" if len(wrong) > 1 else ""
    return Check(name, False, f"{wrong[0].removesuffix('.')}{more}.")


def _most_successful(results: Iterable[AttackResult]) -> float:
    return max((result.success for result in results), default=0.0)


def _at_least_as_strong(
    name: str, table: _Table, weaker: Sequence[Kind], stronger: Sequence[Kind], nothing: str
) -> Check:
    """Of either side the most successful result, wherever norm, eps and aim are the same."""
    best: dict[tuple[Any, ...], dict[str, AttackResult]] = defaultdict(dict)
    for result in table.attacks:
        for side, kinds in (("weak", weaker), ("strong", stronger)):
            here = best[result.norm, result.eps, result.targeted]
            if result.kind in kinds and (side not in here or result.success > here[side].success):
                here[side] = result
    pairs = [(sides["weak"], sides["strong"]) for sides in best.values() if len(sides) == 2]
    lost = [(weak, strong) for weak, strong in pairs if weak.success > strong.success + table.tolerance]
    lost.sort(key=lambda pair: pair[1].success - pair[0].success)
    wrong = [
        f"{weak.attack} fools {weak.success:.1%} and {strong.attack} only {strong.success:.1%} "
        f"at eps {weak.eps:g} (norm {weak.norm})"
        for weak, strong in lost
    ]
    strong_words, weak_words = (" and ".join(kinds).replace("_", "-") for kinds in (stronger, weaker))
    good = f"Attacks that are {strong_words} fool at least as many as those that are {weak_words}."
    return _judged(name, wrong, good, bool(pairs), nothing)
