"""Loss against steps of several runs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from lit_rnn.report.curves import draw_curves
from lit_rnn.runs.results import Result


def draw(results: Sequence[Result], picture: Path) -> None:
    """Loss against steps of runs on one task, with chance as a line."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7 if len(results) <= 3 else 9.5, 4), layout="constrained")
    axes = figure.subplots()
    names = [f"{result['model']}, {result['parameters']:,} parameters" for _, result in results]
    if len(set(names)) < len(names):
        names = [f"{folder.name}: {name}" for (folder, _), name in zip(results, names, strict=True)]
    draw_curves(axes, list(zip(names, [folder for folder, _ in results], strict=True)), results[0][1]["chance"])
    axes.set_title(results[0][1]["task"])
    picture.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(picture, dpi=120)
