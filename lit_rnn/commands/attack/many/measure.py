"""From the reports of many runs to numbers: a row a run, mean and spread over seeds, rank correlations."""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from scipy.stats import spearmanr

from lit_rnn.commands.attack.many.subject import setting_of
from lit_rnn.commands.attack.words import SPECTRAL

Report = dict[str, Any]
Row = dict[str, Any]


def half_size(report: Report, norm: str) -> float | None:
    """The size at which the worst case has lost half of the clean accuracy, between the sizes of the table linearly.

    None where no size of the table does it, or nothing is right to begin with.
    """
    start = report["clean"]["accuracy"]
    points = [(0.0, start)] + [(w["eps"], w["accuracy"]) for w in report["worst_case"] if w["norm"] == norm]
    for (low, above), (high, below) in itertools.pairwise(points):
        if start > 0 and below <= start / 2:
            return low + (high - low) * (above - start / 2) / (above - below)
    return None


def row_of(run: Path, report: Report) -> Row:
    """What the table keeps of one report; of several matrices, such as gates, the largest number."""
    setting, seed = setting_of(run)
    norms = list(dict.fromkeys(w["norm"] for w in report["worst_case"]))
    return {
        "run": str(run),
        "setting": setting,
        "seed": seed,
        "task": report["task"],
        "model": report["model"],
        "samples": report["samples"],
        "clean": report["clean"]["accuracy"],
        **{f"worst_{w['norm']}_{w['eps']:.9g}": w["accuracy"] for w in report["worst_case"]},
        **{f"half_{norm}": half_size(report, norm) for norm in norms},
        **{
            key: max(numbers[key] for numbers in report["matrices"].values())
            for key in SPECTRAL
            if any(key in numbers for numbers in report["matrices"].values())
        },
        "failed_checks": sum(check["passed"] is False for check in report["checks"]),
    }


def over_seeds(rows: Sequence[Row]) -> list[Row]:
    """Mean and sample standard deviation over the seeds of each setting on each task, and how many have the number."""
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((row["task"], row["setting"]), []).append(row)
    found = []
    for (task, setting), ours in groups.items():
        summary: Row = {"task": task, "setting": setting, "model": ours[0]["model"], "runs": len(ours)}
        for key in numeric(ours):
            numbers = [row[key] for row in ours if row.get(key) is not None]
            summary[key] = statistics.fmean(numbers) if numbers else None
            summary[f"{key}_std"] = statistics.stdev(numbers) if len(numbers) > 1 else None
            summary[f"{key}_number"] = len(numbers)
        found.append(summary)
    return found


def numeric(rows: Sequence[Row]) -> list[str]:
    """The columns of numbers, in order."""
    names = ("clean", "worst_", "half_", *SPECTRAL, "failed_checks")
    keys = dict.fromkeys(key for row in rows for key in row)
    return [key for key in keys if key.startswith(names) and not key.endswith(("_std", "_number"))]


def shown_sizes(rows: Sequence[Row]) -> tuple[list[str], list[str]]:
    """Of each norm, the columns of the largest size at which half of the examples stand on average, and of the next.

    The first list holds both, the second those at which fewer than half stand.
    """
    columns = [key for key in numeric(rows) if key.startswith("worst_") and all(key in row for row in rows)]
    both: list[str] = []
    fallen: list[str] = []
    for norm in dict.fromkeys(key.split("_")[1] for key in columns):
        ours = [key for key in columns if key.split("_")[1] == norm]
        below = [statistics.fmean(row[key] for row in rows) < 0.5 for key in ours]
        first = below.index(True) if any(below) else len(ours) - 1
        both += ours[max(0, first - 1) : first + 1]
        fallen.append(ours[first])
    return both, fallen


def correlations(rows: Sequence[Row]) -> list[tuple[str, str, float, float, int]]:
    """Spearman's rank correlation of ε½ with each spectral number over runs: columns, value, p, number of runs.

    A run that keeps half of its accuracy at every size ranks above all that do not; left out, it would hide robustness.
    """
    found = []
    for half in [key for key in numeric(rows) if key.startswith("half_")]:
        for key in SPECTRAL:
            pairs = [
                (row[key], math.inf if row.get(half) is None else row[half])
                for row in rows
                if row.get(key) is not None and (row.get(half) is not None or row["clean"])
            ]
            if len(pairs) < 4 or any(len(set(side)) < 2 for side in zip(*pairs, strict=True)):
                continue
            result = spearmanr(*zip(*pairs, strict=True))
            found.append((half, key, float(result.statistic), float(result.pvalue), len(pairs)))
    return found
