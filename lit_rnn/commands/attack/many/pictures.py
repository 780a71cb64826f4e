"""Accuracy by setting, and robustness against spectra, of many runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lit_rnn.commands.attack.many.findings import short, words_of
from lit_rnn.commands.attack.many.measure import Row, numeric, shown_sizes
from lit_rnn.commands.attack.words import SPECTRAL


def draw(task: str, settings: Sequence[Row], rows: Sequence[Row]) -> Any:
    """Above, clean and worst-case accuracy by setting, every seed a dot; below, ε½ of all runs by spectral numbers."""
    from matplotlib.figure import Figure  # not pyplot: no global state, no window system

    spectral = [key for key in SPECTRAL if any(row.get(key) is not None for row in rows)]
    half = next((key for key in numeric(rows) if key.startswith("half_")), None)
    figure = Figure(figsize=(max(9.0, 0.62 * len(settings) + 3), 8.4), layout="constrained")
    grid = figure.add_gridspec(2, 1, height_ratios=(1.15, 1))
    upper, lower = figure.add_subfigure(grid[0]), figure.add_subfigure(grid[1])
    ax = upper.subplots()
    places = {s["setting"]: k for k, s in enumerate(settings)}
    for number, key in enumerate(["clean", *shown_sizes(settings)[0]]):
        colour, label = f"C{number}", "clean" if key == "clean" else f"worst case, {words_of(key)}"
        ax.plot([places[r["setting"]] for r in rows], [r[key] for r in rows], ".", color=colour, alpha=0.45)
        ax.plot(
            list(places.values()),
            [s[key] for s in settings],
            "_",
            color=colour,
            markersize=16,
            markeredgewidth=2,
            label=label,
        )
    ax.set_xticks(list(places.values()), [short(name) for name in places], rotation=35, ha="right", fontsize=8)
    ax.set(ylabel="share right", ylim=(-0.03, 1.03), title=task)
    ax.grid(axis="x", color="0.92")
    ax.legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1, 1))
    ax.spines[["top", "right"]].set_visible(False)
    models = list(dict.fromkeys(row["model"] for row in rows))
    panels = lower.subplots(1, max(1, len(spectral)), squeeze=False, sharey=True)[0]
    for ax, key in zip(panels, spectral, strict=False):
        for number, model in enumerate(models):
            pairs = [
                (r[key], r[half])
                for r in rows
                if half and r["model"] == model and None not in (r.get(key), r.get(half))
            ]
            if pairs:
                ax.plot(*zip(*pairs, strict=True), "o", markersize=4, color=f"C{number}", label=model)
        ax.set_xlabel(SPECTRAL[key])
        ax.spines[["top", "right"]].set_visible(False)
    if half and spectral:
        panels[0].set_ylabel(f"{words_of(half)}: half of the accuracy lost")
        handles = {str(line.get_label()): line for ax in panels for line in ax.get_legend_handles_labels()[0]}
        lower.legend(list(handles.values()), list(handles), frameon=False, fontsize=8, loc="outside right upper")
    return figure
