"""What a study found: every finished run, and mean and spread over seeds."""

from __future__ import annotations

import csv
import json
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from lit_rnn.report.compare import read_result
from lit_rnn.report.curves import read_curve
from lit_rnn.study.local import is_finished
from lit_rnn.study.plan import Study

_DRAWN = 8


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
    columns = list(dict.fromkeys(key for row in rows for key in row))
    with (folder / "study.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows)


def table(rows: Sequence[dict[str, Any]], settings: Sequence[dict[str, Any]]) -> Table:
    """A row per setting: mean and spread over seeds of the last and the best validation loss, and the successes."""
    lines = Table(
        title=f"chance loss {rows[0]['chance']:.4g}; mean ± standard deviation over seeds", title_justify="left"
    )
    lines.add_column("setting", overflow="fold")
    for column in ("runs", "val loss", "best", rows[0]["metric"], "succeeded"):
        lines.add_column(column, justify="right", no_wrap=True)
    for s in settings:
        spreads = [_spread(s[f"{key}_mean"], s[f"{key}_std"]) for key in ("loss", "best_loss", "value")]
        lines.add_row(s["setting"], str(s["runs"]), *spreads, f"{s['successes']}/{s['runs']}")
    return lines


def _spread(mean: float | None, std: float | None) -> str:
    return "" if mean is None else f"{mean:.4g}" if std is None else f"{mean:.3g} ± {std:.1g}"


def draw(rows: Sequence[dict[str, Any]], settings: Sequence[dict[str, Any]], folder: Path) -> Path:
    """Validation loss against steps of the best settings: mean over seeds, with the range as a band."""
    from matplotlib.figure import Figure  # not pyplot: no global state, no window system

    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.subplots()
    for number, setting in enumerate(settings[:_DRAWN]):
        curves = [
            read_curve(folder / row["run"] / "metrics.csv", "val/loss")
            for row in rows
            if row["setting"] == setting["setting"]
        ]
        length = min(len(losses) for _, losses in curves)
        losses = np.array([losses[:length] for _, losses in curves])
        steps = curves[0][0][:length]
        axes.plot(steps, losses.mean(0), color=f"C{number}", marker=".", label=setting["setting"])
        axes.fill_between(steps, losses.min(0), losses.max(0), color=f"C{number}", alpha=0.15, linewidth=0)
    chance = rows[0]["chance"]
    axes.axhline(chance, color="0.3", linestyle="--", linewidth=1, label=f"chance {chance:.3g}")
    axes.set(xlabel="optimizer steps", ylabel="validation loss, mean and range over seeds", yscale="log")
    if len(settings) > _DRAWN:
        axes.set_title(f"the {_DRAWN} best of {len(settings)} settings", fontsize=10)
    axes.legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1, 1))
    axes.spines[["top", "right"]].set_visible(False)
    path = folder / "study.png"
    figure.savefig(path, dpi=120)
    return path
