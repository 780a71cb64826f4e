"""From a subject to numbers: which attacks at which sizes, what came of them, and what to think of it."""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy.stats import binomtest
from torch import Tensor

from datamodules.errors import UserError, require
from lit_rnn import analysis
from lit_rnn.report.attack_certificates import Certificate, Smoothing, certificates, soundness
from lit_rnn.report.attack_subject import Subject
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
    zero_gradient_fraction,
)
from lit_rnn.robustness.attacks import slope
from lit_rnn.robustness.objective import LossName, Objective
from lit_rnn.robustness.state import frozen

NORMS: Mapping[str, float] = {"inf": math.inf, "2": 2.0}
CONFIDENCE = 0.95
PSEUDO_EPS = 0.01
# L-inf: shares of the data's range, with MNIST's 0.3 (Madry et al. 2018) and 1, which reaches everything
_LINF = (2 / 255, 4 / 255, 8 / 255, 0.05, 0.1, 0.2, 0.3, 0.5, 1.0)
_L2 = (0.1, 0.25, 0.5, 1.0, 1.5, 2.0, 3.0, 5.0, 9.0)
_NOISE = (0.05, 0.1, 0.2, 0.3, 0.5)
_SWAPS = (1, 2, 4, 8, 16)
_NEAREST = 1000  # examples among which the nearest of another class is looked for


class Shot(NamedTuple):
    """One attack at one size; ``norm`` is read by attacks in a ball alone."""

    attack: str
    norm: float
    eps: float


@dataclass(frozen=True)
class Outcome:
    """All that an evaluation found.

    Args:
        subject: What was attacked.
        effort: How hard.
        clean: The examples as they are.
        results: The table: every attack at every size.
        harder: Some again with more steps and restarts, to see whether that changes anything.
        moved: By norm, the inputs that the strongest attack found at the size in the middle, and that result.
        certificates: Those that were tried.
        checks: Of the evaluation's honesty.
        zero_gradients: By loss, the share of exactly zero gradients at each time step.
        slopes: (T,) mean norm of the loss's gradient at each time step; empty for swaps.
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
        """The worst case per example at each size of a norm."""
        results = [*self.results, *self.harder]
        sizes = sorted({r.eps for r in self.results if r.norm == norm})
        return [worst_at([r for r in results if r.norm == norm and r.eps == eps], eps) for eps in sizes]


class Worst(NamedTuple):
    """The worst attack for each example at one size."""

    eps: float
    fooled: np.ndarray
    attacks: list[str]


def adversarial(result: AttackResult) -> bool:
    """Whether a result is of a search in a ball or among swaps."""
    return not isinstance(result.norm, str) or result.norm == "swaps"


def worst_at(results: Sequence[AttackResult], eps: float) -> Worst:
    fooled = np.logical_or.reduce([result.fooled for result in results])
    return Worst(eps, fooled, list(dict.fromkeys(result.attack for result in results)))


def interval(fooled: np.ndarray) -> tuple[float, float]:
    """Clopper-Pearson's exact interval of the accuracy."""
    found = binomtest(int((~fooled).sum()), len(fooled)).proportion_ci(CONFIDENCE, "exact")
    return float(found.low), float(found.high)


# ---- the plan


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
        require(name in ATTACKS, "--attacks", name, f"one of {', '.join(ATTACKS)}")
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


def default_attacks(examples: Examples) -> list[str]:
    """All that make sense."""
    return [name for name in ATTACKS if refusal(examples, name) is None]


def _check_attack(subject: Subject, name: str) -> None:
    reason = refusal(subject.examples, name)
    if reason:
        accepted = ", ".join(default_attacks(subject.examples))
        raise UserError(f"--attacks names {name}, which {reason}; on {subject.task.name} take some of {accepted}.")


def default_sizes(examples: Examples, unit: str, norm: float) -> list[float]:
    """Sizes that reach from hardly visible to hopeless, in the units of the inputs."""
    if unit == "swaps":
        free = int(examples.mask.flatten(1).sum(1).min())
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
            slope(Objective(first.model, first.loss, scored=first.scored), first.x, first.y)
            return time.perf_counter() - start
    first.judge(first.x)
    return 3 * (time.perf_counter() - start)


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
    found = certificates(subject, {norm: some for norm, some in sizes.items() if some}, smoothing)
    tell("gradients and spectra", 0)
    zero, slopes = _gradients(examples)
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
        matrices(subject),
        time.monotonic() - start,
        seed,
    )


def _again(
    examples: Examples,
    unmoved: AttackResult,
    results: Sequence[AttackResult],
    effort: Effort,
    seed: int,
    tell: Callable[[str, float], None],
) -> tuple[AttackResult, Tensor]:
    """The strongest attack at the size where half of the accuracy is gone, with twice the steps and one more start."""
    half = (1 + unmoved.success) / 2
    strongest = [max((r for r in results if r.eps == eps), key=lambda r: r.success) for eps in {r.eps for r in results}]
    middle = min(strongest, key=lambda r: (abs(r.success - half), r.eps))
    iterative = [r for r in results if r.eps == middle.eps and r.kind == "iterative"]
    chosen = max(iterative, key=lambda r: r.success) if iterative else middle
    more = replace(effort, steps=2 * effort.steps, restarts=effort.restarts + 1, queries=2 * effort.queries)
    norm = chosen.norm if isinstance(chosen.norm, float) else math.inf
    return evaluate(
        examples, chosen.attack, norm, chosen.eps, more, seed, lambda: tell(f"{chosen.attack}, more steps", 0)
    )


def _gradients(examples: Examples) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Where gradients are exactly zero, by loss, and how large that of the first loss is, by time step."""
    if not examples.x.is_floating_point():
        return {}, np.zeros(0)
    losses: list[LossName] = ["cross_entropy", "margin"] if examples.classes else [examples.loss]
    parts: dict[str, list[np.ndarray]] = {loss: [] for loss in losses}
    sizes, slopes = [], []
    for e in examples.batches():
        for loss in losses:
            parts[loss].append(zero_gradient_fraction(e.model, e.x, e.y, loss, e.mask, e.scored).cpu().numpy())
        with frozen(e.model, e.x.device):
            gradient, _, _ = slope(Objective(e.model, losses[-1], scored=e.scored), e.x, e.y)
        slopes.append((gradient * e.mask).norm(dim=-1).mean(0).double().cpu().numpy())
        sizes.append(len(e.x))
    zero = {loss: np.average(some, axis=0, weights=sizes) for loss, some in parts.items()}
    return zero, np.average(slopes, axis=0, weights=sizes)


def _checks(
    subject: Subject, results: Sequence[AttackResult], zero: Mapping[str, np.ndarray], found: Sequence[Certificate]
) -> list[Check]:
    examples = subject.examples
    label = subject.task.targets == "label"
    # an input without information gets one and the same answer
    chance = float(examples.y.unique(return_counts=True)[1].max()) / len(examples.y) if label else None
    reached = {loss: shares[~np.isnan(shares)] for loss, shares in zero.items()}
    return [
        *honesty_checks(
            results,
            chance,
            nearest_other_class=nearest_other_class(examples) if label else None,
            zero_gradients=reached,
        ),
        soundness(found, results),
    ]


def nearest_other_class(examples: Examples) -> float | None:
    """Median L2 distance of an example to the nearest one of another class, among these."""
    if not examples.x.is_floating_point():
        return None
    x, y = examples.x[:_NEAREST].flatten(1).double(), examples.y[:_NEAREST]
    distance = torch.cdist(x, x).masked_fill(y[:, None] == y, math.inf).amin(1)
    distance = distance[distance.isfinite()]
    return float(distance.median()) if len(distance) else None


def matrices(subject: Subject) -> dict[str, dict[str, float]]:
    """Spectral radius, norm, Henrici's departure over |W|_F and pseudospectral radius of every recurrent matrix."""
    found = {}
    with torch.no_grad():
        for layer, cell in enumerate(subject.model.cell_list()):
            for name, W in cell.recurrent_matrices().items():
                key = f"layer {layer} {name}" if len(subject.model.cell_list()) > 1 else name
                found[key] = {
                    "spectral_radius": analysis.spectral_radius(W),
                    "spectral_norm": analysis.spectral_norm(W),
                    "henrici": analysis.henrici(W, normalized=True),
                    "pseudospectral_radius": analysis.pseudospectral_radius(W, PSEUDO_EPS),
                }
    return found


# ---- as primitives


def as_json(outcome: Outcome, about: Mapping[str, Any]) -> dict[str, Any]:
    """All numbers, each with its threat model."""
    e = outcome.subject.examples
    free = float(e.mask.float().mean())
    return {
        **about,
        "seed": outcome.seed,
        "seconds": round(outcome.seconds, 1),
        "interval": f"Clopper-Pearson, {CONFIDENCE:.0%}",
        "bounds": e.bounds,
        "share_that_may_be_changed": round(free, 6),
        "effort": vars(outcome.effort),
        "clean": _numbers(outcome.clean),
        "results": [_numbers(result) for result in outcome.results],
        "harder": [_numbers(result) for result in outcome.harder],
        "worst_case": [
            {"norm": _norm(norm), "eps": worst.eps, **_accuracy(worst.fooled), "attacks": worst.attacks}
            for norm in outcome.norms
            for worst in outcome.worst(norm)
        ],
        "certificates": [
            {
                "name": c.name,
                "norm": _norm(c.norm),
                "of_model": c.of_model,
                "sentence": c.sentence,
                "accuracy": [{"eps": eps, **_accuracy(~holds)} for eps, holds in c.holds.items()],
            }
            for c in outcome.certificates
        ],
        "checks": [check._asdict() for check in outcome.checks],
        "zero_gradients": {loss: [_plain(v) for v in shares] for loss, shares in outcome.zero_gradients.items()},
        "matrices": outcome.matrices,
        "pseudospectral_eps": PSEUDO_EPS,
    }


def _norm(norm: float | str) -> str:
    return norm if isinstance(norm, str) else f"{norm:g}"


def _plain(value: float) -> float | None:
    return None if math.isnan(value) else round(float(value), 6)


def _accuracy(fooled: np.ndarray) -> dict[str, Any]:
    low, high = interval(fooled)
    return {"accuracy": float((~fooled).mean()), "low": low, "high": high, "examples": len(fooled)}


def _numbers(result: AttackResult) -> dict[str, Any]:
    return {
        "attack": result.attack,
        "kind": result.kind,
        "norm": _norm(result.norm),
        "eps": result.eps,
        **_accuracy(result.fooled),
        "mean_loss": float(result.loss.mean()),
        "threat": result.threat,
        "settings": dict(result.settings),
    }


def example_rows(outcome: Outcome) -> list[dict[str, Any]]:
    """A row per example: its number in the split, and by norm the smallest size that fooled it and by which attack."""
    rows: list[dict[str, Any]] = []
    for k, index in enumerate(outcome.subject.indices):
        row: dict[str, Any] = {"index": int(index), "right": not outcome.clean.fooled[k]}
        for norm in outcome.norms:
            hits = [r for r in (*outcome.results, *outcome.harder) if r.norm == norm and r.fooled[k]]
            first = min(hits, key=lambda r: r.eps, default=None)
            row[f"eps_{_norm(norm)}"] = 0.0 if outcome.clean.fooled[k] else None if first is None else first.eps
            row[f"attack_{_norm(norm)}"] = "none" if outcome.clean.fooled[k] or first is None else first.attack
        rows.append(row)
    return rows
