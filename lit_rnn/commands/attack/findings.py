"""What `attack` found, as primitives: JSON, and a row for each example."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from lit_rnn.commands.attack.measure import PSEUDO_EPS, Outcome
from lit_rnn.robustness import AttackResult
from lit_rnn.robustness.worst import CONFIDENCE, interval


def as_json(outcome: Outcome, about: Mapping[str, Any]) -> dict[str, Any]:
    """All numbers, each with its threat model."""
    e = outcome.subject.examples
    return {
        **about,
        "seed": outcome.seed,
        "seconds": round(outcome.seconds, 1),
        "interval": f"Clopper-Pearson, {CONFIDENCE:.0%}",
        "bounds": e.bounds,
        "share_that_may_be_changed": round(e.free, 6),
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
