"""Sequences as pictures: strips of symbols with their long quiet stretches cut out, channels over time, images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.patches import Patch, Rectangle
from matplotlib.ticker import FixedFormatter, FixedLocator, MaxNLocator
from numpy.typing import NDArray

from datamodules.task import Task
from lit_rnn.report.style import BLUE, WRONG

Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]

_MOST = 120  # steps side by side that can still be told apart
_DIGITS = 64  # so many have room for a number
_BESIDE = 2  # quiet steps that are kept on either side of a cut
_CHANNELS = 6
_NAMED = 12  # symbols, up to which each has a name in the key
_QUIET, _HATCH = "0.94", "////"
_BLANKED = ("copy_memory", "variable_copy_memory", "denoise")  # tasks whose 0 is blank, and whose last symbol a marker


# ---- which steps


@dataclass(frozen=True)
class Steps:
    """Which of ``length`` steps are shown, as ranges with cuts between them."""

    length: int
    shown: Sequence[tuple[int, int]]

    @property
    def gap(self) -> int:
        """Columns that a cut takes."""
        return max(4, sum(stop - start for start, stop in self.shown) // 10)

    @property
    def columns(self) -> Ints:
        """The step in each column, -1 in cuts."""
        parts: list[Ints] = []
        for start, stop in self.shown:
            parts += [np.full(self.gap, -1), np.arange(start, stop)]
        return np.concatenate(parts[1:])

    @property
    def cuts(self) -> list[tuple[float, int, int]]:
        """Of each cut its middle column, and the range of steps that are left out."""
        found, column = [], 0
        for (start, stop), (following, _) in zip(self.shown, self.shown[1:], strict=False):
            column += stop - start
            found.append((column + (self.gap - 1) / 2, stop, following))
            column += self.gap
        return found


def cut(busy: Bools) -> Steps:
    """All steps where there is room, else without stretches in which nothing is ``busy``, else both ends."""
    length = len(busy)
    if length <= _MOST // 2:
        return Steps(length, [(0, length)])
    near = np.convolve(busy, np.ones(2 * _BESIDE + 1), "same") > 0
    edges = np.flatnonzero(np.diff(np.concatenate(([0], near.astype(int), [0])))).reshape(-1, 2)
    shown: list[tuple[int, int]] = []
    for start, stop in edges.tolist() or [[0, length]]:
        if shown and start - shown[-1][1] <= 3 * _BESIDE:  # a cut would take as much room as what it cuts
            shown[-1] = (shown[-1][0], stop)
        else:
            shown.append((start, stop))
    if sum(stop - start for start, stop in shown) + 4 * len(shown) > min(_MOST, length):
        shown = [(0, length)] if length <= _MOST else [(0, _MOST // 2), (length - _MOST // 2, length)]
    return Steps(length, shown)


# ---- symbols


@dataclass(frozen=True)
class Symbols:
    """Colours and names of a task's symbols."""

    count: int
    blanked: bool

    @classmethod
    def of(cls, task: Task) -> Symbols:
        """Those of its inputs and targets."""
        classes = task.target_size if task.classifies and task.per_step else 0
        return cls(max(task.input_size if task.inputs == "symbols" else 0, classes), task.name in _BLANKED)

    @property
    def colours(self) -> ListedColormap:
        """A colour for each, from dark to light; blank is almost white, the marker black."""
        if not self.blanked:
            return ListedColormap(colormaps["viridis"](np.linspace(0, 1, max(self.count, 2))))
        data = colormaps["viridis"](np.linspace(0.15, 1, max(self.count - 2, 1)))
        return ListedColormap([(0.94, 0.94, 0.94, 1), *data, (0, 0, 0, 1)])

    def name(self, symbol: int) -> str:
        """What stands in the key."""
        if self.blanked and symbol in (0, self.count - 1):
            return "blank" if symbol == 0 else "marker"
        return str(symbol)

    def key(self) -> list[Patch]:
        """The patches of a legend; none where there are too many symbols."""
        if self.count > _NAMED:
            return []
        colours = self.colours
        return [Patch(facecolor=colours(k), edgecolor="0.6", label=self.name(k)) for k in range(self.count)]


MISTAKE = Patch(facecolor="white", edgecolor=WRONG, linewidth=1.6, label="mistake")
CHANGED = Patch(facecolor="white", edgecolor=WRONG, linewidth=1.6, label="changed")
UNCOUNTED = Patch(facecolor="white", edgecolor="0.6", hatch=_HATCH, label="does not count")


@dataclass(frozen=True)
class Strips:
    """Rows of symbols above each other, a column per step.

    Args:
        rows: By name, a symbol for each step.
        framed: By row, the steps that stand out.
        hidden: By row, the steps that do not count, whose symbols are not shown.
    """

    rows: Mapping[str, Ints]
    framed: Mapping[str, Bools] = field(default_factory=dict)
    hidden: Mapping[str, Bools] = field(default_factory=dict)

    @property
    def busy(self) -> Bools:
        """Steps at which a row, or what is framed, is other than its commonest."""
        parts = []
        for name, row in self.rows.items():
            seen = row[~self.hidden[name]] if name in self.hidden else row
            quiet = np.bincount(seen).argmax() if len(seen) else 0
            parts.append((row != quiet) & ~self.hidden.get(name, np.zeros(len(row), bool)))
        return np.any(parts, axis=0)

    def draw(self, axes: Axes, symbols: Symbols, steps: Steps, counted: str = "") -> None:
        """Draw them; a cut says how many steps it leaves out, and how many of them are framed, called ``counted``."""
        columns = steps.columns
        there = columns >= 0
        image = np.ma.masked_all((len(self.rows), len(columns)))
        for number, (name, row) in enumerate(self.rows.items()):
            image[number, there] = row[columns[there]]
            if name in self.hidden:
                image[number, there & self.hidden[name][columns]] = np.ma.masked
        axes.imshow(image, aspect="auto", cmap=symbols.colours, vmin=-0.5, vmax=symbols.count - 0.5)
        for number, name in enumerate(self.rows):
            self._mark(axes, number, name, columns)
        if len(columns) <= _DIGITS and symbols.count <= 100:
            self._write(axes, symbols, image)
        for column, start, stop in steps.cuts:
            words = f"{stop - start} steps"
            if counted:
                many = sum(int(framed[start:stop].sum()) for framed in self.framed.values())
                words += f",\n{many} {counted}{'' if many == 1 else 's'}"
            axes.text(column, (len(self.rows) - 1) / 2, words, rotation=90, ha="center", va="center", fontsize=7)
        for below in range(1, len(self.rows)):
            axes.axhline(below - 0.5, color="white", linewidth=2)
        axes.set_yticks(range(len(self.rows)), list(self.rows))
        axes.tick_params(axis="y", length=0)
        axes.spines[:].set_visible(False)
        _number(axes, steps)

    def _mark(self, axes: Axes, number: int, name: str, columns: Ints) -> None:
        for column, step in enumerate(columns):
            if step >= 0 and name in self.hidden and self.hidden[name][step]:
                axes.add_patch(_cell(column, number, facecolor="white", edgecolor="0.75", hatch=_HATCH, linewidth=0))
            elif step >= 0 and name in self.framed and self.framed[name][step]:
                axes.add_patch(_cell(column, number, fill=False, edgecolor=WRONG, linewidth=1.6, zorder=3))

    def _write(self, axes: Axes, symbols: Symbols, image: np.ma.MaskedArray) -> None:
        colours, mask = symbols.colours, np.ma.getmaskarray(image)
        for (row, column), value in np.ndenumerate(image):
            if mask[row, column] or (symbols.blanked and value == 0):
                continue
            red, green, blue, _ = colours(int(value))
            dark = 0.299 * red + 0.587 * green + 0.114 * blue < 0.5
            word = "M" if symbols.blanked and value == symbols.count - 1 else str(int(value))
            axes.text(column, row, word, ha="center", va="center", fontsize=6, color="white" if dark else "black")


def _cell(column: int, row: int, **look: Any) -> Rectangle:
    return Rectangle((column - 0.44, row - 0.42), 0.88, 0.84, **look)


def _number(axes: Axes, steps: Steps) -> None:
    """Time steps, counted from 1, at round numbers."""
    columns = steps.columns
    apart = sum(stop - start for start, stop in steps.shown)
    whole = [step for step in (1, 2, 5, 10, 20, 50, 100, 200, 500) if apart / step <= 8] or [1000]
    places = [k for k, step in enumerate(columns) if step >= 0 and (step + 1) % whole[0] == 0]
    for start, stop in steps.shown:  # every part has one
        if not any(start <= columns[k] < stop for k in places):
            places.append(int(np.flatnonzero(columns == (start + stop - 1) // 2)[0]))
    places.sort()
    axes.xaxis.set_major_locator(FixedLocator(places))
    axes.xaxis.set_major_formatter(FixedFormatter([str(columns[k] + 1) for k in places]))


# ---- values


def draw_channels(axes: Axes, x: NDArray[np.floating], label: str = "input") -> None:
    """(T, C) over time; several channels above each other, each in its own scale, and said if not all are shown."""
    steps, count = np.arange(1, len(x) + 1), x.shape[1]
    if count == 1:
        axes.plot(steps, x[:, 0], color="0.35", linewidth=0.9, label=label)
        axes.set_ylabel(label)
        return
    shown = min(count, _CHANNELS)
    for number in range(shown):
        low, high = np.nanmin(x[:, number]), np.nanmax(x[:, number])
        scaled = (x[:, number] - low) / (high - low or 1)
        axes.plot(steps, 0.8 * scaled + shown - 1 - number - 0.4, color="0.35", linewidth=0.9)
    axes.set_yticks(range(shown), [str(number) for number in range(shown, 0, -1)])
    axes.tick_params(axis="y", length=0)
    axes.set_ylabel("channel" if shown == count else f"{shown} of {count} channels")


def time_axis(axes: Axes) -> None:
    """Whole time steps."""
    axes.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10], integer=True))
    axes.set_xlabel("time step")


def draw_image(axes: Axes, image: NDArray[np.floating], bounds: tuple[float, float] | None = None) -> None:
    """(height, width, channels): grey, or in colour where there are three; of other numbers the first, and said."""
    low, high = bounds or (0.0, max(1.0, float(image.max())))
    if image.shape[-1] == 3:
        axes.imshow(np.clip((image - low) / (high - low), 0, 1))
    else:
        axes.imshow(image[..., 0], cmap="gray_r", vmin=low, vmax=high)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)
    if image.shape[-1] not in (1, 3):
        axes.set_xlabel(f"channel 1 of {image.shape[-1]}", fontsize=8)


def verdict(right: bool) -> tuple[str, str]:
    """A mark and a colour, which the colour-blind see too."""
    return ("✓", BLUE) if right else ("✗", WRONG)
