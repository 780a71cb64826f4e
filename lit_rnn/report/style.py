"""One look for every picture: colours, fonts, ticks that can be read, and legends and titles that cover nothing."""

from __future__ import annotations

import functools
import io
import itertools
import math
import textwrap
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import numpy as np
from cycler import cycler
from matplotlib import rc_context
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure, SubFigure  # not pyplot: no global state, no window system
from matplotlib.legend import Legend
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.text import Text
from matplotlib.ticker import AutoLocator, FixedLocator, Formatter, Locator, MaxNLocator, NullLocator, ScalarFormatter
from matplotlib.transforms import Bbox, TransformedBbox

from lit_rnn.files import write_file

# told apart by the colour-blind: Okabe and Ito's palette (2008) without its yellow, and a wine red
BLUE, RED, GREEN, PINK, ORANGE, SKY, BLACK, WINE = (
    "#0072B2",
    "#D55E00",
    "#009E73",
    "#CC79A7",
    "#E69F00",
    "#56B4E9",
    "#000000",
    "#882255",
)
COLOURS = (BLUE, RED, GREEN, PINK, ORANGE, SKY, BLACK, WINE)
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
_LINES = ("-", "--", "-.", ":")
RIGHT, WRONG, GUIDE = BLUE, RED, "0.45"  # of answers; of lines that are not data
DPI = 150

_LOOK: Any = {
    "axes.labelsize": 9,
    "axes.prop_cycle": cycler(color=COLOURS),
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlesize": 10,
    "figure.titlesize": 11,
    "font.size": 9,
    "image.interpolation": "nearest",
    "legend.fontsize": 8,
    "legend.frameon": False,
    "lines.linewidth": 1.4,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
}
_INSIDE = "inside"  # marks legends that `finish` may move
_PLACES: Any = ("upper right", "upper left", "lower left", "lower right", "center right", "center left", "upper center")

P = ParamSpec("P")
R = TypeVar("R")


def styled(draw: Callable[P, R]) -> Callable[P, R]:
    """A function whose pictures have this look."""

    @functools.wraps(draw)
    def drawn(*args: P.args, **kwargs: P.kwargs) -> R:
        with rc_context(_LOOK):
            return draw(*args, **kwargs)

    return drawn


def look(number: int, points: int = 1) -> dict[str, Any]:
    """Colour, line and marker of curve ``number``; of many points some have a marker."""
    return {
        "color": COLOURS[number % len(COLOURS)],
        "linestyle": _LINES[number // len(COLOURS) % len(_LINES)],
        "marker": _MARKERS[number % len(_MARKERS)],
        "markersize": 4,
        "markevery": max(1, points // 12),
    }


def new_figure(width: float, height: float) -> Figure:
    """An empty figure of so many inches, whose parts make room for each other."""
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def save(figure: Figure, path: Path) -> None:
    """Finish a figure and write it; its folder is made. An SVG has no date in it: it changes with what is drawn."""
    with rc_context(_LOOK):
        finish(figure)
        path.parent.mkdir(parents=True, exist_ok=True)
        buffer, kind = io.BytesIO(), path.suffix[1:] or "png"
        figure.savefig(buffer, dpi=DPI, format=kind, metadata={"Date": None} if kind == "svg" else None)
    write_file(path, buffer.getbuffer())


def finish(figure: Figure) -> None:
    """Ticks, titles and legends, when all that is to be drawn is there."""
    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis):
            _tick(axis)
    figure.draw_without_rendering()
    for _ in range(3):  # folded words leave less room for the axes
        if not _fold_all(figure):
            break
        figure.draw_without_rendering()
    for axes in figure.axes:
        legend = axes.get_legend()
        if legend is not None and legend.get_gid() == _INSIDE:
            _place(axes, legend)


# ---- legends


def plain(name: str) -> str:
    """A label that shows a name as it is: no dollar sign begins a formula, and no underscore hides it."""
    shown = name.replace("$", r"\$")
    return f" {shown}" if shown.startswith("_") else shown


def legend(axes: Axes, **options: Any) -> None:
    """A legend inside, where it covers no data; room is made for it where there is none."""
    handles, labels = axes.get_legend_handles_labels()
    if labels:
        axes.legend(handles, labels, **{"ncols": 1 if len(labels) <= 3 else 2, **options}).set_gid(_INSIDE)


def shared_legend(figure: Figure | SubFigure, axes: Iterable[Axes]) -> None:
    """One legend below for all axes of a figure, each name once."""
    handles = itertools.chain.from_iterable(one.get_legend_handles_labels()[0] for one in axes)
    key_below(figure, list({str(handle.get_label()): handle for handle in handles}.values()))


def key_below(figure: Figure | SubFigure, handles: Sequence[Artist]) -> None:
    """A legend below all axes of a figure, in as few rows as there is room for, to be read row by row.

    A figure grows by what the legend takes of it beyond a quarter.
    """
    short = {"handlelength": 1.2, "columnspacing": 1.2} if any(isinstance(one, Patch) for one in handles) else {}
    short |= {"handlelength": 3.5} if any(map(_marked_dashes, handles)) else {}
    for rows in range(1, len(handles) + 1):
        columns = -(-len(handles) // rows)
        ordered = [handle for column in range(columns) for handle in handles[column::columns]]
        made = figure.legend(handles=ordered, loc="outside lower center", ncols=columns, **short)
        box = made.get_window_extent(_renderer(figure))
        if columns == 1 or box.width <= 0.97 * figure.bbox.width:
            break
        made.remove()
    if handles and isinstance(figure, Figure) and (more := box.height - figure.bbox.height / 4) > 0:
        figure.set_figheight(figure.get_figheight() + more / figure.dpi)


def _marked_dashes(one: Artist) -> bool:
    """Whether a line's marker would hide the only gap of a short piece of it, which then looks solid."""
    return isinstance(one, Line2D) and one.get_linestyle() not in ("-", "None") and one.get_marker() not in ("", "None")


def _renderer(part: Figure | SubFigure) -> Any:
    """Of the whole figure, as pixels: what measures text."""
    while not isinstance(part, Figure):
        part = part.figure
    canvas = part.canvas
    assert isinstance(canvas, FigureCanvasAgg), "made by new_figure"
    return canvas.get_renderer()


def _place(axes: Axes, legend: Legend) -> None:
    """Move a legend to where it covers nothing, or above the data with the axis made longer."""
    renderer = _renderer(axes.figure)
    for place in _PLACES:
        legend.set_loc(place)
        if not _covers(axes, legend.get_window_extent(renderer)):
            return
    legend.set_loc("upper center")
    share = legend.get_window_extent(renderer).height / axes.bbox.height + 0.04
    low, high = axes.get_ylim()
    if not axes.yaxis.get_inverted():
        ticks = [tick for tick in axes.get_yticks() if min(low, high) <= tick <= max(low, high)]
        forward, back = axes.transScale.transform, axes.transScale.inverted().transform
        (_, bottom), (_, top) = forward([(axes.get_xlim()[1], low), (axes.get_xlim()[1], high)])
        longer = back([(forward([(axes.get_xlim()[1], high)])[0][0], bottom + (top - bottom) / (1 - share))])[0][1]
        clip = TransformedBbox(Bbox([(axes.get_xlim()[0], low), (axes.get_xlim()[1], high)]), axes.transData)
        axes.set_ylim(low, longer)
        axes.yaxis.set_major_locator(FixedLocator(ticks))
        axes.yaxis.set_minor_locator(NullLocator())
        axes.spines["left"].set_bounds(low, high)
        for artist in (*axes.lines, *axes.collections):
            if artist.get_transform().contains_branch(axes.transData):
                artist.set_clip_box(clip)


def _covers(axes: Axes, box: Bbox) -> bool:
    """Whether something that is drawn lies in a box of the screen."""
    padded = box.padded(2)
    for line in axes.lines:
        path = line.get_path().transformed(line.get_transform())
        points = np.asarray(path.vertices)
        if line.get_linestyle() in ("None", "none", " ", "") or len(points) == 1:
            inside = [padded.contains(*point) for point in points if np.isfinite(point).all()]
            if any(inside):
                return True
        elif path.intersects_bbox(padded, filled=False):
            return True
    for collection in axes.collections:
        transform = collection.get_transform()
        if any(path.transformed(transform).intersects_bbox(padded) for path in collection.get_paths()):
            return True
    return bool(axes.images) and bool(axes.bbox.overlaps(padded))


# ---- titles and labels


def _fold_all(figure: Figure) -> bool:
    """Break what is too long for where it stands; whether there was any."""
    texts = [(figure._suptitle, figure.bbox.width)] if figure.get_suptitle() else []  # type: ignore[attr-defined]  # there with it
    for axes in figure.axes:
        # of an axes of fixed aspect, which may be narrower, the width that it was given
        width = axes.get_position(original=True).width * axes.figure.bbox.width
        texts += [(axes.title, width), (axes.xaxis.label, width)]
        texts.append((axes.yaxis.label, axes.bbox.height))
    return any([_fold(text, room) for text, room in texts])


def _fold(text: Text, room: float) -> bool:
    """Break the lines of a title or label that is longer than what it stands along; whether it was."""
    words = text.get_text()
    longest = max((len(line) for line in words.splitlines()), default=0)
    if longest <= 8 or _length(text) <= room:
        return False
    longest = max(8, int(longest * room / _length(text)) + 1)
    while longest >= 8 and _length(text) > room:
        longest -= 1
        text.set_text("\n".join(textwrap.fill(line, longest) for line in words.splitlines()))
    return True


def _length(text: Text) -> float:
    """Along its lines, in pixels."""
    assert text.figure is not None
    box = text.get_window_extent(_renderer(text.figure))
    return box.height if text.get_rotation() == 90 else box.width


# ---- ticks


def _tick(axis: Axis) -> None:
    """The whole number on every tick, without a factor or an offset at the end of the axis; no half steps."""
    chosen = isinstance(axis.get_major_locator(), FixedLocator | NullLocator)
    if axis.axes.get_label() == "<colorbar>" or not axis.get_visible() or chosen:
        return
    if axis.get_scale() == "log":
        axis.set_major_locator(_LogTicks())
        axis.set_minor_locator(NullLocator())
        axis.set_major_formatter(_Plain())
    elif axis.get_scale() == "linear" and isinstance(axis.get_major_formatter(), ScalarFormatter):
        if isinstance(axis.get_major_locator(), AutoLocator):
            low, high = axis.get_view_interval()
            if abs(high - low) < 1e-6 * max(abs(low), abs(high)):  # rounding, not data
                middle = (low + high) / 2
                (axis.axes.set_xlim if axis is axis.axes.xaxis else axis.axes.set_ylim)(0.95 * middle, 1.05 * middle)
            elif axis is axis.axes.xaxis and _counts(axis.axes):
                axis.set_major_locator(MaxNLocator("auto", integer=True, steps=[1, 2, 2.5, 5, 10]))
        axis.set_major_formatter(_Plain())


def _counts(axes: Axes) -> bool:
    """Whether all lines stand at whole numbers, as of steps, lags and indices, and not only at 0 and 1."""
    drawn = [line for line in axes.lines if line.get_transform() == axes.transData]
    x = np.concatenate([np.asarray(line.get_xdata(), dtype=float) for line in drawn] or [np.zeros(0)])
    x = x[np.isfinite(x)]
    return len(x) > 0 and bool((x == np.round(x)).all()) and bool(np.ptp(x) > 1)


class _LogTicks(Locator):
    """Powers of ten; in between, where there are few of them."""

    def __call__(self) -> Sequence[float]:
        assert self.axis is not None
        low, high = sorted(self.axis.get_view_interval())
        return self.tick_values(low, high)

    def tick_values(self, vmin: float, vmax: float) -> Sequence[float]:
        if vmin <= 0 or not math.isfinite(vmin) or not math.isfinite(vmax):
            return []
        first, last = math.floor(math.log10(vmin)), math.ceil(math.log10(vmax))
        powers = [10.0**k for k in range(first, last + 1)]
        decades = math.log10(vmax / vmin)
        if decades > 2:
            step = 1 + int(decades) // 6
            ticks = [power for power, k in zip(powers, range(first, last + 1), strict=True) if k % step == 0]
        elif decades > 0.7:
            ticks = [part * power for power in powers for part in (1, 2, 5)]
        else:
            ticks = list(MaxNLocator(4, steps=[1, 2, 2.5, 5, 10]).tick_values(vmin, vmax))
        return [tick for tick in ticks if vmin * (1 - 1e-9) <= tick <= vmax * (1 + 1e-9)]


class _Plain(Formatter):
    """0.25, 1,000, 10⁻⁵: each number whole."""

    def __call__(self, x: float, pos: int | None = None) -> str:
        return self.format_ticks([x])[0]

    def format_ticks(self, values: Sequence[float]) -> list[str]:
        powers = [math.log10(value) for value in values if value > 0]
        whole = len(powers) == len(values) and all(abs(power - round(power)) < 1e-9 for power in powers)
        if whole and any(power < -3.5 or power > 4.5 for power in powers):
            return [f"$10^{{{round(power)}}}$" for power in powers]
        steps = np.diff(sorted(values))
        finest = float(steps[steps > 0].min(initial=math.inf))
        zero = [(abs(value) < 1e-9 * finest and math.isfinite(finest)) or value == 0 for value in values]
        plain = all(none or 1e-3 <= abs(value) < 1e5 for value, none in zip(values, zero, strict=True))
        return [
            "0" if none else self._format(float(value), finest, plain) for value, none in zip(values, zero, strict=True)
        ]

    @staticmethod
    def _format(value: float, finest: float, plain: bool) -> str:
        """All of an axis alike: 0.0005 beside 10⁻³ is hard to compare."""
        size = abs(value)
        digits = 6 if not math.isfinite(finest) else math.ceil(max(0.0, math.log10(size / finest))) + 2
        if plain:
            whole = math.floor(math.log10(size)) + 1 if size else 1  # fewer digits would be 1e+03
            return f"{value:,.{min(max(digits, whole, 3), 12)}g}".replace("-", "−")
        power = math.floor(math.log10(size) + 1e-9)
        factor = f"{value / 10**power:.{min(max(digits, 3), 6)}g}".replace("-", "−")
        front = {"1": "", "−1": "−"}.get(factor, f"{factor}×")
        return rf"${front}10^{{{power}}}$".replace("×", r"\times ")
