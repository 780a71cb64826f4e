"""A search in pictures: the objective by trial with the best so far, and the importance of the keys."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from lit_rnn.commands.study.search.measure import Found, judged_by
from lit_rnn.commands.study.search.space import last_parts
from lit_rnn.report import style


@style.styled
def draw(found: Sequence[Found], folder: Path) -> list[Path]:
    """search_history.png, and search_importance.png where there is an importance."""
    return [_history(found, folder), *_importance(found, folder)]


def _history(found: Sequence[Found], folder: Path) -> Path:
    figure = style.new_figure(7.5, 4.6)
    axes = figure.subplots()
    columns = judged_by(found)
    for place, one in enumerate(found):
        if not one.history:
            continue
        numbers, values, best = zip(*one.history, strict=True)
        look = style.look(place)
        name = one.arm if len(columns) == 1 else f"{one.arm}: {one.objective.column}"
        axes.plot(numbers, values, **look | {"linestyle": ""}, alpha=0.6, label="_")
        axes.plot(numbers, best, **look | {"marker": ""}, drawstyle="steps-post", label="_")
        axes.plot([], [], **look, label=style.plain(name))
    axes.set(xlabel="trial", ylabel=f"best {' or '.join(columns)}", title="every complete trial, and the best so far")
    lower = not any(one.objective.higher for one in found)
    if lower and all(value > 0 for one in found for _, value, _ in one.history):
        axes.set_yscale("log")
    style.shared_legend(figure, [axes])
    path = folder / "search_history.png"
    style.save(figure, path)
    return path


def _importance(found: Sequence[Found], folder: Path) -> list[Path]:
    keys = list(dict.fromkeys(key for one in found for key in one.importance))
    drawn = [one for one in found if one.importance]
    path = folder / "search_importance.png"
    if not keys:
        path.unlink(missing_ok=True)  # of an earlier state
        return []
    figure = style.new_figure(7.5, 1.6 + 0.28 * len(keys) * len(drawn))
    axes = figure.subplots()
    height = 0.8 / len(drawn)
    for place, one in enumerate(drawn):
        lines = [number + height * (place - (len(drawn) - 1) / 2) for number in range(len(keys))]
        colour = style.COLOURS[place % len(style.COLOURS)]
        axes.barh(
            lines,
            [one.importance.get(key, 0.0) for key in keys],
            0.9 * height,
            color=colour,
            label=style.plain(one.arm),
        )
    axes.set_yticks(range(len(keys)), [style.plain(name) for name in last_parts(keys).values()])
    axes.invert_yaxis()
    axes.set(xlabel="share of the variance over the space", xlim=(0, 1), title="importance of what was searched")
    style.shared_legend(figure, [axes])
    style.save(figure, path)
    return [path]
