"""What a study found: every finished run, and mean and spread over seeds."""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lit_rnn.commands.study.local import is_finished
from lit_rnn.commands.study.subject import Study
from lit_rnn.files import write_csv
from lit_rnn.runs.curves import read_curve
from lit_rnn.runs.results import read_result


def results(study: Study, folder: Path) -> list[dict[str, Any]]:
    """A row for every finished run: its setting, seed, losses, metric and success."""
    rows = []
    for run in study.runs:
        if not is_finished(run, folder):
            continue
        place = folder / run.name
        result = read_result(place)
        losses = read_curve(place / "metrics.csv", "val/loss")[1]
        finite = [loss for loss in losses if np.isfinite(loss)]
        threshold = study.below if study.below is not None else study.below_chance * result["chance"]
        rows.append(
            {
                "run": run.name,
                "setting": run.setting.name,
                "seed": run.seed,
                **dict(run.setting.values),
                "steps": result["steps"],
                "loss": result["loss"],
                "best_loss": min(finite, default=None),
                "metric": result["metric"],
                "value": result["value"],
                "success": bool(finite) and min(finite) < threshold,
                "chance": result["chance"],
                "seconds": result["seconds"],
            }
        )
    return rows


def over_seeds(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Mean and sample standard deviation over seeds by setting, the lowest mean of best losses first."""
    settings = []
    for name in dict.fromkeys(row["setting"] for row in rows):
        ours = [row for row in rows if row["setting"] == name]
        summary: dict[str, Any] = {"setting": name, "runs": len(ours), "successes": sum(r["success"] for r in ours)}
        for key in ("loss", "best_loss", "value"):
            numbers = [row[key] for row in ours if row[key] is not None and np.isfinite(row[key])]
            summary[f"{key}_mean"] = statistics.fmean(numbers) if numbers else None
            summary[f"{key}_std"] = statistics.stdev(numbers) if len(numbers) > 1 else None
        settings.append(summary)
    return sorted(settings, key=lambda s: float("inf") if s["best_loss_mean"] is None else s["best_loss_mean"])


def write(rows: Sequence[dict[str, Any]], settings: Sequence[dict[str, Any]], folder: Path) -> None:
    """study.json holds both; study.csv a line per run."""
    (folder / "study.json").write_text(json.dumps({"settings": settings, "runs": rows}, indent=1))
    write_csv(folder / "study.csv", rows)
