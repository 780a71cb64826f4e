"""Loss against steps of a study's settings."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lit_rnn.report.curves import draw_means

_DRAWN = 8


def draw(rows: Sequence[dict[str, Any]], settings: Sequence[dict[str, Any]], folder: Path) -> Path:
    """Validation loss against steps of the best settings: mean over seeds, with the range as a band."""
    from matplotlib.figure import Figure  # not pyplot: no global state, no window system

    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.subplots()
    names = [setting["setting"] for setting in settings[:_DRAWN]]
    groups = [(name, [folder / row["run"] for row in rows if row["setting"] == name]) for name in names]
    draw_means(axes, groups, rows[0]["chance"])
    if len(settings) > _DRAWN:
        axes.set_title(f"the {_DRAWN} best of {len(settings)} settings", fontsize=10)
    path = folder / "study.png"
    figure.savefig(path, dpi=120)
    return path
