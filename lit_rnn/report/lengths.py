"""The headline metric at several lengths of the sequences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.ticker import NullLocator

from lit_rnn.report import style

Values = Mapping[int, float]


@style.styled
def draw_run(name: str, values: Values, guessed: Values, trained_at: int, what: str, length: str, path: Path) -> None:
    """A run's values by length, with chance and the length of training as lines.

    Args:
        name: Of the run.
        values: By length, that of training among them.
        guessed: What chance gives, by length; none where that is not known.
        trained_at: That.
        what: The values are of.
        length: What a length is called.
        path: Of the picture.
    """
    figure = style.new_figure(6, 4)
    axes = figure.subplots()
    draw_lengths(axes, [(name, values)], what, length)
    if guessed:
        lengths, chances = zip(*sorted(guessed.items()), strict=True)
        label = "chance: the most frequent answer"
        axes.plot(lengths, chances, color=style.GUIDE, linestyle=":", linewidth=1.2, label=label)
    axes.axvline(trained_at, color=style.GUIDE, linestyle="--", linewidth=1.2, label=f"trained at {trained_at:,}")
    style.legend(axes)
    style.save(figure, path)


def draw_lengths(
    axes: Axes, lines: Sequence[tuple[str, Values]], what: str, length: str, looks: Sequence[int] | None = None
) -> None:
    """A line of values against lengths for each of several names; ``looks`` are as in `draw_curves`."""
    for number, (name, values) in zip(looks or range(len(lines)), lines, strict=True):
        ordered = sorted(values.items())
        axes.plot(*zip(*ordered, strict=True), **style.look(number, len(ordered)), label=style.plain(name))
    axes.set_xscale("log")
    lengths = sorted({at for _, values in lines for at in values})
    if len(lengths) <= 8:  # else the ticks of a logarithmic axis
        axes.set_xticks(lengths, [f"{at:,}" for at in lengths])
        axes.xaxis.set_minor_locator(NullLocator())
    axes.set(xlabel=length, ylabel=what)
