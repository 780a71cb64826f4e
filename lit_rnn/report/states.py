"""States and their gradients over time."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from matplotlib import colormaps
from numpy.typing import NDArray

from lit_rnn.report import style
from lit_rnn.report.sequences import time_axis

PANELS = {  # title, axis
    "norm": ("norm of the state", r"$\|s_t\|$"),
    "distance": ("distance to the final state", r"$\|s_t - s_T\|$"),
    "gradient": ("gradient of the loss w.r.t. the state", r"$\|\partial L/\partial s_t\|$"),
}


@style.styled
def draw_states(stored: Mapping[str, NDArray[np.float64]], path: Path) -> None:
    """One row per layer, one column per panel, a curve per optimizer step; ``stored`` is keyed "step layer panel"."""
    steps = sorted({int(key.split()[0]) for key in stored})
    layers = sorted({int(key.split()[1]) for key in stored})
    figure = style.new_figure(10, 2.9 * len(layers) + 0.4)
    axes = figure.subplots(len(layers), len(PANELS), squeeze=False)
    for row, layer in zip(axes, layers, strict=True):
        for ax, (panel, (title, name)) in zip(row, PANELS.items(), strict=True):
            for place, step in enumerate(steps):
                values = stored[f"{step} {layer} {panel}"]
                colour = colormaps["viridis"](0.85 * place / max(len(steps) - 1, 1))
                shown = np.where((values > 0) & np.isfinite(values), values, np.nan)  # a logarithmic axis has no zero
                label = f"optimizer step {step:,}"
                ax.semilogy(np.arange(1, len(values) + 1), shown, color=colour, linewidth=1.2, label=label)
            ax.set(ylabel=name, title=title if len(layers) == 1 else f"layer {layer}: {title}")
            time_axis(ax)
    style.shared_legend(figure, list(axes.flat))
    style.save(figure, path)
