"""Loss against steps of a study's settings, and against the learning rate where the grid has one."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lit_rnn.commands.study.measure import against_rate
from lit_rnn.report import style
from lit_rnn.report.curves import draw_chance, draw_means
from lit_rnn.report.tables import number

_DRAWN = len(style.COLOURS)


@style.styled
def draw(rows: Sequence[dict[str, Any]], settings: Sequence[dict[str, Any]], folder: Path) -> list[Path]:
    """study.png, and study_lr.png where the grid has several learning rates; at least one of the runs has finished."""
    return [_against_steps(rows, settings, folder), *_against_rate(rows, folder)]


def _against_steps(rows: Sequence[dict[str, Any]], settings: Sequence[dict[str, Any]], folder: Path) -> Path:
    """Validation loss against steps of the best settings, as `draw_means` draws it."""
    figure = style.new_figure(7.5, 4.6)
    axes = figure.subplots()
    finished = [row for row in rows if not row["diverged"]]
    settings = [one for one in settings if one["setting"] in {row["setting"] for row in finished}]
    names = [setting["setting"] for setting in settings[:_DRAWN]]
    runs = {name: [folder / row["run"] for row in finished if row["setting"] == name] for name in names}
    chances = _chances([row for row in finished if row["setting"] in names])
    draw_means(axes, [(_label(name, rows), runs[name]) for name in names], chances[0])
    for chance in chances[1:]:
        draw_chance(axes, chance)
    if len(settings) > _DRAWN:
        axes.set_title(f"the {_DRAWN} best of {len(settings)} settings: {axes.get_title()}")
    style.shared_legend(figure, [axes])
    path = folder / "study.png"
    style.save(figure, path)
    return path


def _chances(rows: Sequence[dict[str, Any]]) -> list[float]:
    """Each that can be told from the others; several where settings are of several tasks."""
    return list({number(row["chance"]): row["chance"] for row in rows}.values())


def _label(name: str, rows: Sequence[dict[str, Any]]) -> str:
    """A setting, without the arm where there is but one: its name is the file's."""
    arms = {row["arm"] for row in rows}
    return (name.removeprefix(f"{arms.pop()}-") if len(arms) == 1 else name) or name


def _against_rate(rows: Sequence[dict[str, Any]], folder: Path) -> list[Path]:
    """Best validation loss against the learning rate: the mean over seeds as a line, each seed as a dot."""
    lines, path = against_rate(rows), folder / "study_lr.png"
    if not lines:
        path.unlink(missing_ok=True)  # of a grid that had several
        return []
    figure = style.new_figure(7.5, 4.6)
    axes = figure.subplots()
    for place, (name, line) in enumerate(list(lines.items())[:_DRAWN]):
        means, shown = [statistics.fmean(losses) for _, losses in line], style.look(place)
        axes.plot([rate for rate, _ in line], means, **shown | {"marker": ""}, label="_")
        axes.plot([], [], **shown, label=style.plain(name))
        dots = [(rate, loss) for rate, losses in line for loss in losses]
        axes.plot(*zip(*dots, strict=True), **shown | {"linestyle": ""}, label="_")
    axes.set(xlabel="learning rate", ylabel="best validation loss", xscale="log", title="mean and seeds")
    for chance in _chances([row for row in rows if not row["diverged"]]):
        draw_chance(axes, chance)
    if len(lines) > _DRAWN:
        axes.set_title(f"the {_DRAWN} best of {len(lines)} lines: {axes.get_title()}")
    style.shared_legend(figure, [axes])
    style.save(figure, path)
    return [path]
