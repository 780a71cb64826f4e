"""Loss against steps of a study's settings."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lit_rnn.runs.curves import read_curve

_DRAWN = 8


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
