"""From a subject to numbers: which attacks at which sizes, what came of them, and what to think of it."""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from torch import Tensor

from datamodules.errors import UserError, one_of, require
from lit_rnn.commands.attack.subject import Subject
from lit_rnn.models.probes import spectra
from lit_rnn.robustness import (
    ATTACKS,
    AttackResult,
    Check,
    Effort,
    Examples,
    check_size,
    clean,
    evaluate,
    honesty_checks,
    refusal,
)
from lit_rnn.robustness.certified import Certificate, Smoothing, certificates, soundness
from lit_rnn.robustness.shots import Shot, default_attacks, default_sizes, gradients_of
from lit_rnn.robustness.surroundings import gradients_in_time, nearest_other_class
from lit_rnn.robustness.worst import Worst, adversarial, worst_at

NORMS: Mapping[str, float] = {"inf": math.inf, "2": 2.0}
PSEUDO_EPS = 0.01


@dataclass(frozen=True)
class Outcome:
    """All that an evaluation found.

    Args:
        subject: What was attacked.
        effort: How hard.
        clean: The examples without an attack.
        results: The table: every attack at every size.
        harder: Some again with more steps and restarts, to see whether that changes anything.
        moved: By norm, the inputs that the strongest attack found at the size in the middle, and that result.
        certificates: Those that were tried.
        checks: Of the evaluation's honesty.
        zero_gradients: By loss, the share of exactly zero gradients at each time step; nan where none was measured.
        slopes: (T,) mean norm of the loss's gradient at each time step, nan where nothing may change; empty for swaps.
        matrices: Spectral numbers by recurrent matrix.
        seconds: What it took.
        seed: Of everything drawn.
    """

    subject: Subject
    effort: Effort
    clean: AttackResult
    results: list[AttackResult]
    harder: list[AttackResult]
    moved: dict[float | str, tuple[AttackResult, Tensor]]
    certificates: list[Certificate]
    checks: list[Check]
    zero_gradients: dict[str, np.ndarray]
    slopes: np.ndarray
    matrices: dict[str, dict[str, float]]
    seconds: float
    seed: int

    @property
    def norms(self) -> list[float | str]:
        """Those in which there is a worst case: balls and swaps, not noise, which has no adversary."""
        return list(dict.fromkeys(r.norm for r in self.results if adversarial(r)))

    def worst(self, norm: float | str) -> list[Worst]:
        """The worst case per example at each size of a norm.

        Whatever was found at a smaller size, or without an attack, is allowed at a larger one: a search that fails
        there, where it has more to look through, does not make the network more robust.
        """
        results = [r for r in (*self.results, *self.harder) if r.norm == norm]
        sizes = sorted({r.eps for r in self.results if r.norm == norm})
        return [worst_at([self.clean, *(r for r in results if r.eps <= eps)], eps) for eps in sizes]


def plan(
    subject: Subject, attacks: Sequence[str] | None, norms: Sequence[str] | None, sizes: Sequence[float] | None
) -> list[Shot]:
    """Every attack at every size, checked before anything is computed.

    Raises:
        UserError: for a name, norm or size that the data do not allow.
    """
    examples = subject.examples
    names = list(attacks) if attacks else default_attacks(examples)
    for name in names:
        one_of(name, "--attacks", ATTACKS)
        _check_attack(subject, name)
    given = norms or (["2"] if subject.symbols == "embedding" else ["inf"] if sizes else ["inf", "2"])
    for given_norm in given:
        require(given_norm in NORMS, "--norms", given_norm, "inf or 2")
    shots = []
    for name in names:
        unit = ATTACKS[name].unit
        for norm in [NORMS[one] for one in given] if unit == "ball" else [math.inf]:
            for eps in sorted(set(sizes or default_sizes(examples, unit, norm))):
                check_size(examples, name, norm, eps)
                shots.append(Shot(name, norm, float(eps)))
    return shots


def _check_attack(subject: Subject, name: str) -> None:
    reason = refusal(subject.examples, name)
    if reason:
        accepted = ", ".join(default_attacks(subject.examples))
        raise UserError(f"--attacks names {name}, which {reason}; on {subject.task.name} take some of {accepted}.")


# ---- the evaluation


def run_shots(
    subject: Subject,
    shots: Sequence[Shot],
    effort: Effort,
    smoothing: Smoothing,
    seed: int,
    tell: Callable[[str, float], None],
) -> Outcome:
    """Every shot, the hardest again with more effort, certificates, checks and spectra.

    Args:
        tell: Called with what is going on and the gradients that were allotted to what is done.
    """
    start = time.monotonic()
    examples = subject.examples
    unmoved = clean(examples)
    results = []
    for shot in shots:
        told = functools.partial(tell, f"{shot.attack} {shot.eps:.3g}", gradients_of(shot, effort))
        result, _ = evaluate(examples, *shot, effort, seed, told)
        results.append(result)
    harder, moved = [], {}
    for norm in dict.fromkeys(r.norm for r in results if adversarial(r)):
        result, inputs = _again(examples, unmoved, [r for r in results if r.norm == norm], effort, seed, tell)
        moved[norm] = (result, inputs)
        harder.append(result)
    tell("certificates", 0)
    sizes = {norm: sorted({r.eps for r in results if r.norm == norm}) for norm in NORMS.values()}
    found = _certificates(subject, {norm: some for norm, some in sizes.items() if some}, smoothing)
    tell("gradients and spectra", 0)
    zero, slopes = gradients_in_time(examples)
    return Outcome(
        subject,
        effort,
        unmoved,
        results,
        harder,
        moved,
        found,
        _checks(subject, [unmoved, *results, *harder], zero, found),
        zero,
        slopes,
        spectra(subject.model, PSEUDO_EPS),
        time.monotonic() - start,
        seed,
    )


def _certificates(subject: Subject, sizes: Mapping[float, Sequence[float]], smoothing: Smoothing) -> list[Certificate]:
    """None for symbols, and for more than one label."""
    if subject.symbols is not None or subject.task.targets != "label":
        return []
    return certificates(subject.model, subject.examples, sizes, smoothing)


def halving(results: Sequence[AttackResult], unmoved: AttackResult) -> AttackResult:
    """The strongest attack at the size at which about half of the accuracy is gone: of equal ones at the smallest.

    Where less is gone at all of them, at the largest: what is shown should show something.
    """
    half = (1 + unmoved.success) / 2
    strongest = [max((r for r in results if r.eps == eps), key=lambda r: r.success) for eps in {r.eps for r in results}]
    return min(strongest, key=lambda r: (abs(r.success - half), r.eps if r.success >= half else -r.eps))


def _again(
    examples: Examples,
    unmoved: AttackResult,
    results: Sequence[AttackResult],
    effort: Effort,
    seed: int,
    tell: Callable[[str, float], None],
) -> tuple[AttackResult, Tensor]:
    """The strongest attack at the size where half of the accuracy is gone, with twice the steps and one more start."""
    middle = halving(results, unmoved)
    iterative = [r for r in results if r.eps == middle.eps and r.kind == "iterative"]
    chosen = max(iterative, key=lambda r: r.success) if iterative else middle
    more = replace(effort, steps=2 * effort.steps, restarts=effort.restarts + 1, queries=2 * effort.queries)
    norm = chosen.norm if isinstance(chosen.norm, float) else math.inf
    return evaluate(
        examples, chosen.attack, norm, chosen.eps, more, seed, lambda: tell(f"{chosen.attack}, more steps", 0)
    )


def _checks(
    subject: Subject, results: Sequence[AttackResult], zero: Mapping[str, np.ndarray], found: Sequence[Certificate]
) -> list[Check]:
    examples = subject.examples
    label = subject.task.targets == "label"
    # an input without information gets one and the same answer
    chance = float(examples.y.unique(return_counts=True)[1].max()) / len(examples.y) if label else None
    return [
        *honesty_checks(
            results,
            chance,
            nearest_other_class=nearest_other_class(examples) if label else None,
            zero_gradients={loss: shares.tolist() for loss, shares in zero.items()},
        ),
        soundness(found, results),
    ]
