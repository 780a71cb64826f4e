"""Accuracy by setting, and robustness against spectra, of many runs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from lit_rnn.commands.attack.many.findings import short, words_of
from lit_rnn.commands.attack.many.measure import Row, numeric, shown_sizes
from lit_rnn.commands.attack.words import SPECTRAL
from lit_rnn.report import style


@style.styled
def draw(task: str, settings: Sequence[Row], rows: Sequence[Row], path: Path) -> None:
    """Above, clean and worst-case accuracy by setting, every seed a dot; below, ε½ of all runs by spectral numbers."""
    spectral = [key for key in SPECTRAL if any(row.get(key) is not None for row in rows)]
    half = next((key for key in numeric(rows) if key.startswith("half_")), None)
    pairs = bool(
        half and any(row.get(key) is not None and row.get(half) is not None for row in rows for key in spectral)
    )
    figure = style.new_figure(max(8.0, 0.6 * len(settings) + 3), 8.4 if pairs else 4.8)
    grid = figure.add_gridspec(1 + pairs, 1, height_ratios=(1.2, 1)[: 1 + pairs])
    upper = figure.add_subfigure(grid[0])
    ax = upper.subplots()
    places = {s["setting"]: k for k, s in enumerate(settings)}
    for number, key in enumerate(["clean", *shown_sizes(settings)[0]]):
        colour, label = style.COLOURS[number], "clean" if key == "clean" else f"worst case, {words_of(key)}"
        ax.plot([places[r["setting"]] for r in rows], [r[key] for r in rows], ".", color=colour, alpha=0.45)
        means = [s[key] for s in settings]
        ax.plot(list(places.values()), means, "_", color=colour, markersize=16, markeredgewidth=2, label=label)
    ax.set_xticks(list(places.values()), [short(name) for name in places], rotation=35, ha="right")
    ax.set(xlim=(-0.6, len(settings) - 0.4), ylim=(-0.03, 1.03), ylabel="share right", title=task)
    ax.grid(axis="x", color="0.92")
    style.shared_legend(upper, [ax])
    if half and pairs:
        lower = figure.add_subfigure(grid[1])
        models = list(dict.fromkeys(row["model"] for row in rows))
        panels = lower.subplots(1, len(spectral), squeeze=False, sharey=True)[0]
        for ax, key in zip(panels, spectral, strict=True):
            for number, model in enumerate(models):
                points = [
                    (r[key], r[half]) for r in rows if r["model"] == model and None not in (r.get(key), r.get(half))
                ]
                if points:
                    ax.plot(*zip(*points, strict=True), **style.look(number) | {"linestyle": ""}, label=model)
            ax.set_xlabel(SPECTRAL[key])
        panels[0].set_ylabel(f"{words_of(half)}: half of the accuracy lost")
        style.shared_legend(lower, panels)
    style.save(figure, path)
