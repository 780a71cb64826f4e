"""What a picture must be, whichever command draws it: whole, readable, and with a legend that covers nothing."""

from __future__ import annotations

import base64
import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.legend import Legend
from matplotlib.lines import Line2D
from matplotlib.text import Text
from matplotlib.transforms import Bbox

import lit_rnn.report.style as style
from lit_rnn.files import write_file

save = style.save  # as it is, before `conftest` takes a quicker one
DOT = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8BQDwAEhQGAhKmMIQAAAABJRU5ErkJggg=="
)


def save_a_dot(figure: Figure, path: Path) -> None:
    """One red pixel in the place of a picture."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_file(path, DOT)


def render(monkeypatch: Any) -> None:
    """From here on pictures are written whole."""
    monkeypatch.setattr(style, "save", save)


def check_picture(figure: Figure) -> None:
    """Assert all of it."""
    figure.canvas.draw()
    texts = list(_texts(figure))
    _inside(figure, texts)
    _apart(texts)
    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis):
            assert axis.get_offset_text().get_text() == "", f"{axis.get_offset_text().get_text()} over an axis"
    for axes in figure.axes:
        _is_labelled(axes)
    for legend in _legends(figure):
        _covers_nothing(figure, legend)
    _is_named(figure)


def checked(monkeypatch: Any) -> Callable[[], int]:
    """From here on every picture that is saved is checked; call what comes back for their number so far."""
    seen: list[Figure] = []
    finish = style.finish
    render(monkeypatch)

    def finish_and_check(figure: Figure) -> None:
        finish(figure)
        check_picture(figure)
        seen.append(figure)

    monkeypatch.setattr(style, "finish", finish_and_check)
    return lambda: len(seen)


# ---- texts


def _texts(figure: Figure) -> Iterator[tuple[str, Bbox]]:
    """What is written, and where."""
    renderer = figure.canvas.get_renderer()  # type: ignore[attr-defined]
    ticks: set[int] = set()
    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis):
            labels = [tick.label1 for tick in axis.get_major_ticks() + axis.get_minor_ticks()]
            labels += [tick.label2 for tick in axis.get_major_ticks() + axis.get_minor_ticks()]
            ticks |= {id(label) for label in labels}
            if axes.axison and axis.get_visible():
                yield from ((label.get_text(), label.get_window_extent(renderer)) for label in _shown(axis))
    for text in figure.findobj(Text):
        hidden = text.axes is not None and (not text.axes.axison and text is not text.axes.title)
        if id(text) not in ticks and text.get_visible() and text.get_text().strip() and not hidden:
            yield text.get_text(), text.get_window_extent(renderer)


def _shown(axis: Axis) -> list[Text]:
    """The labels of ticks that lie on the axis."""
    low, high = sorted(axis.get_view_interval())
    slack = 1e-6 * (high - low)
    shown = []
    for tick in axis.get_major_ticks():
        if low - slack <= tick.get_loc() <= high + slack and tick.label1.get_text() and tick.label1.get_visible():
            shown.append(tick.label1)
    return shown


def _inside(figure: Figure, texts: list[tuple[str, Bbox]]) -> None:
    width, height = figure.bbox.size
    for words, box in texts:
        whole = box.x0 >= -1 and box.y0 >= -1 and box.x1 <= width + 1 and box.y1 <= height + 1
        assert whole, f"{words!r} is cut: {box.extents} in {width} x {height}"


def _apart(texts: list[tuple[str, Bbox]]) -> None:
    boxes = np.array([box.extents for _, box in texts])
    for i, j in itertools.combinations(range(len(texts)), 2):
        low, high = np.maximum(boxes[i, :2], boxes[j, :2]), np.minimum(boxes[i, 2:], boxes[j, 2:])
        assert not ((high - low) > 1.0).all(), f"{texts[i][0]!r} and {texts[j][0]!r} lie on each other"


# ---- axes and legends


def _is_labelled(axes: Axes) -> None:
    """What has ticks with numbers says of what; panels that share an axis say it once."""
    if not axes.axison or axes.get_label() == "<colorbar>":
        return
    for axis, siblings in (
        (axes.xaxis, axes.get_shared_x_axes().get_siblings(axes)),
        (axes.yaxis, axes.get_shared_y_axes().get_siblings(axes)),
    ):
        numbered = any(label.get_text().replace("−", "").replace(".", "").isdigit() for label in _shown(axis))
        told = any((one.xaxis if axis is axes.xaxis else one.yaxis).get_label_text() for one in siblings)
        assert told or not numbered or len(axes.images), f"an axis of {axes.get_title()!r} has numbers and no name"


def _legends(figure: Figure) -> list[Legend]:
    return [legend for legend in figure.findobj(Legend) if legend.get_visible()]


def _points(line: Line2D) -> np.ndarray:
    """A line as points on the screen, a pixel or two apart, where it is drawn."""
    xy = line.get_transform().transform(np.column_stack(line.get_data(orig=False)).astype(float))
    if line.get_linestyle() not in ("None", "none", " ", ""):
        parts = [xy[:1]]
        for a, b in itertools.pairwise(xy):
            many = int(np.clip(np.abs(b - a).max() / 2, 1, 2000)) if np.isfinite([a, b]).all() else 1
            parts.append(a + (b - a) * np.linspace(0, 1, many + 1)[1:, None])
        xy = np.concatenate(parts)
    xy = xy[np.isfinite(xy).all(1)]
    for box in (line.axes.bbox, line.get_clip_box()):
        if box is not None:
            xy = xy[(xy >= box.min - 0.5).all(1) & (xy <= box.max + 0.5).all(1)]
    return xy


def _covers_nothing(figure: Figure, legend: Legend) -> None:
    box = legend.get_window_extent()
    for axes in figure.axes:
        for line in axes.lines:
            points = _points(line)
            covered = ((points > box.min) & (points < box.max)).all(1)
            assert not covered.any(), f"a legend lies on {line.get_label()!r} in {axes.get_title()!r}"
        if axes.images and axes.axison:
            assert not (box.overlaps(axes.get_window_extent())), f"a legend lies on {axes.get_title()!r}"


def _is_named(figure: Figure) -> None:
    """Each name is in a legend; a line without one is a grey guide, or has the colour of one that has."""
    for axes in figure.axes:
        named = axes.get_legend_handles_labels()
        entries = [text.get_text() for legend in _legends(figure) for text in legend.get_texts()]
        own = axes.get_legend()
        if own is not None:
            written = [text.get_text() for text in own.get_texts()]
            assert sorted(written) == sorted(set(named[1])), f"the legend of {axes.get_title()!r} says {written}"
        if len(set(named[1])) > 1:
            assert set(named[1]) <= set(entries), f"{set(named[1]) - set(entries)} are in no legend"
        colours = {to_rgb(line.get_color()) for line in axes.lines if not str(line.get_label()).startswith("_")}
        without = [line for line in axes.lines if str(line.get_label()).startswith("_")]
        unknown = {to_rgb(line.get_color()) for line in without} - colours
        strange = [colour for colour in unknown if max(colour) - min(colour) > 0.02]
        assert not strange or len(axes.lines) == 1, f"lines of {axes.get_title()!r} without a name: {strange}"
