"""Eigenvalues in the complex plane."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lit_rnn.report import style

Values = NDArray[np.complex128]

_COLUMNS = 4
_CIRCLE = np.exp(2j * np.pi * np.linspace(0, 1, 400))


@dataclass(frozen=True)
class Spectrum:
    """One panel.

    Args:
        values: Eigenvalues, by what they are of.
        words: More lines of the title.
        circles: Radii beside the unit circle, by name.
    """

    values: Mapping[str, Values]
    words: str = ""
    circles: Mapping[str, float] | None = None


@style.styled
def draw_spectra(spectra: Mapping[str, Spectrum], path: Path) -> None:
    """A panel per matrix: each set of eigenvalues, a later one over an earlier, and the unit circle."""
    columns = min(_COLUMNS, len(spectra))
    rows = -(-len(spectra) // columns)
    lines = max(spectrum.words.count("\n") + bool(spectrum.words) for spectrum in spectra.values())
    figure = style.new_figure(max(3.3 * columns, 4.2), (3.4 + 0.2 * lines) * rows + 0.4)
    panels = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axes, (name, spectrum) in zip(panels, spectra.items(), strict=False):
        axes.plot(_CIRCLE.real, _CIRCLE.imag, color=style.GUIDE, linewidth=0.9, label="unit circle")
        for label, radius in (spectrum.circles or {}).items():
            axes.plot(radius * _CIRCLE.real, radius * _CIRCLE.imag, ":", color=style.RED, linewidth=1.2, label=label)
        for number, (label, values) in enumerate(spectrum.values.items()):
            last = number == len(spectrum.values) - 1
            look = {"markersize": 4} if last else {"markersize": 5, "fillstyle": "none"}
            colour = style.BLUE if last else style.ORANGE
            axes.plot(values.real, values.imag, "o", color=colour, label=label, **look)
        axes.set(title="\n".join(filter(None, (name, spectrum.words))), xlabel="Re λ", ylabel="Im λ")
        axes.set_aspect("equal", adjustable="datalim")
    for axes in panels[len(spectra) :]:
        axes.axis("off")
    style.shared_legend(figure, panels[: len(spectra)])
    style.save(figure, path)
