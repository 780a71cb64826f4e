"""The style repairs what makes a picture unreadable, and what looks at pictures in the tests sees each fault."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from lit_rnn.report import style
from tests.pictures import check_picture

X = np.linspace(0, 10, 50)


def drawn(draw: Callable[[Axes], object]) -> Figure:
    """A labelled figure with one axes."""
    figure = style.new_figure(4, 3)
    axes = figure.subplots()
    axes.set(xlabel="x (steps)", ylabel="y")
    draw(axes)
    return figure


def _legend_on_a_line(axes: Axes) -> None:
    axes.plot(X, X, label="a")
    axes.plot(X, 10 - X, label="b")
    axes.legend(loc="center")


def _half_named(axes: Axes) -> None:
    axes.plot(X, X, label="a")
    axes.plot(X, 2 * X)
    axes.legend(loc="upper left")


def _not_in_the_legend(axes: Axes) -> None:
    line = axes.plot(X, X, label="a")
    axes.plot(X, 2 * X, label="b")
    axes.legend(handles=line, loc="upper left")


def _crowded(axes: Axes) -> None:
    axes.plot(X, X)
    axes.set_xticks(X[:9], [f"{x:.9f}" for x in X[:9]])


FAULTS = {
    "is cut": lambda axes: axes.set_title("a title that is much longer than the figure is wide, and goes on and on"),
    "lie on each other": _crowded,
    "a legend lies on": _legend_on_a_line,
    "without a name": _half_named,
    "the legend of": _not_in_the_legend,
    "over an axis": lambda axes: axes.plot(X, 1 + 1e-9 * X),
    "no name": lambda axes: (axes.plot(X, X), axes.set_ylabel("")),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_looks_at_pictures_sees_each_fault(fault: str) -> None:
    with pytest.raises(AssertionError, match=fault):
        check_picture(drawn(FAULTS[fault]))


@pytest.mark.parametrize(
    "draw",
    [
        FAULTS["is cut"],
        FAULTS["over an axis"],
        lambda axes: axes.plot(X, 1e-8 * X),
        lambda axes: axes.plot(X, 1e7 + 3 * X),
        lambda axes: axes.semilogy(X, 1e-30 ** (X / 10)),
        lambda axes: axes.semilogy(X, 1 + 0.01 * X),
        lambda axes: axes.loglog(X[1:], X[1:] ** 2),
    ],
    ids=["long title", "rounding", "small", "far from zero", "thirty decades", "below a decade", "two logs"],
)
def test_the_style_mends_it(draw: Callable[[Axes], object]) -> None:
    figure = drawn(draw)
    style.finish(figure)
    check_picture(figure)


@pytest.mark.parametrize("scale", ["linear", "log"])
def test_room_is_made_for_a_legend(scale: str) -> None:
    """Curves everywhere: the axis becomes longer, its line and its ticks do not, and nothing new appears above."""

    def everywhere(axes: Axes) -> None:
        for k in range(4):
            axes.plot(X, np.tile([1.0 + k, 10.0 + k], 25), label=f"curve {k}")
        axes.set_yscale(scale)
        axes.set_ylim(1, 12)
        style.legend(axes)

    figure = drawn(everywhere)
    style.finish(figure)
    check_picture(figure)
    (axes,) = figure.axes
    assert axes.get_ylim()[0] == 1 and axes.get_ylim()[1] > 12
    assert axes.spines["left"].get_bounds() == (1, 12) and max(axes.get_yticks()) <= 12


def test_a_legend_moves_to_where_nothing_is() -> None:
    def corner(axes: Axes) -> None:
        axes.plot(X, X, label="a")
        axes.plot(X[25:], 10 - X[25:], label="b")
        style.legend(axes)

    figure = drawn(corner)
    style.finish(figure)
    check_picture(figure)
    assert figure.axes[0].get_ylim()[1] < 11, "there was room"


def test_a_shared_legend_names_each_once_and_fits() -> None:
    figure = style.new_figure(4, 4)
    panels = list(figure.subplots(1, 2))
    for axes in panels:
        axes.set(xlabel="x", ylabel="y")
        for k in range(5):
            axes.plot(X, k * X, **style.look(k), label=f"a setting with a long name, number {k}")
    style.shared_legend(figure, panels)
    style.finish(figure)
    check_picture(figure)
    assert len(figure.legends[0].get_texts()) == 5


def test_dashes_are_seen_in_a_shared_legend() -> None:
    """Of a thick line as of a thin one: beside its marker there is a gap."""
    for width in (1.0, 1.8):
        figure = drawn(
            lambda axes, width=width: [axes.plot(X, k * X, **style.look(k), lw=width, label=f"{k}") for k in range(9)]
        )
        style.shared_legend(figure, figure.axes)
        figure.canvas.draw()
        solid, dashed = (figure.legends[0].legend_handles[k] for k in (0, 8))
        for line, gaps in ((solid, False), (dashed, True)):
            box = line.get_window_extent()
            row = np.asarray(figure.canvas.buffer_rgba())[round(figure.bbox.height - (box.y0 + box.y1) / 2)]
            inside = row[int(box.x0) + 4 : int(box.x1) - 4, :3]
            assert (inside.min(axis=1) > 250).any() == gaps


def test_many_names_below_make_the_picture_longer_and_not_the_axes_shorter() -> None:
    figure = drawn(
        lambda axes: [axes.plot(X, k * X, label=f"a setting with a long name, number {k}") for k in range(15)]
    )
    style.shared_legend(figure, figure.axes)
    style.finish(figure)
    check_picture(figure)
    figure.canvas.draw()
    assert figure.axes[0].bbox.height > figure.axes[0].bbox.width / 3
    assert figure.bbox.width == drawn(lambda axes: axes.plot(X, X)).bbox.width


def test_ticks_are_whole_numbers() -> None:
    figure = drawn(lambda axes: axes.plot([0, 5e-9, 1e-8], [1e5, 2e5, 3e5]))
    style.finish(figure)
    figure.canvas.draw()
    (axes,) = figure.axes
    x, y = ([label.get_text() for label in axis.get_ticklabels()] for axis in (axes.xaxis, axes.yaxis))
    assert "0" in x and r"$2\times 10^{-9}$" in x and r"$2\times 10^{5}$" in y


def ticks_of(draw: Callable[[Axes], object]) -> tuple[list[str], list[str]]:
    """What stands on the x and on the y axis, between their ends."""
    figure = drawn(draw)
    style.finish(figure)
    figure.canvas.draw()
    (axes,) = figure.axes
    found = []
    for axis in (axes.xaxis, axes.yaxis):
        low, high = axis.get_view_interval()
        found.append([tick.label1.get_text() for tick in axis.get_major_ticks() if low <= tick.get_loc() <= high])
    return found[0], found[1]


def test_an_axis_is_written_in_one_way() -> None:
    """Learning rates from 1e-4 to 1e-3 on a logarithmic axis, and small and large numbers on linear ones."""
    rates, _ = ticks_of(lambda axes: (axes.plot([1e-4, 1e-3], [1, 2]), axes.set_xscale("log")))
    assert rates == [r"$10^{-4}$", r"$2\times 10^{-4}$", r"$5\times 10^{-4}$", r"$10^{-3}$"]
    small, large = ticks_of(lambda axes: axes.plot([0, 2e-3], [8e4, 1.2e5]))
    assert small[0] == "0" and large
    for labels in (small[1:], large):
        assert len({label[0] == "$" for label in labels}) == 1, labels
        assert len(set(labels)) == len(labels)


def test_steps_have_no_halves() -> None:
    steps, losses = ticks_of(lambda axes: axes.plot([4, 5, 6], [0.25, 0.5, 0.75]))
    assert steps == ["4", "5", "6"] and "0.5" in losses
    sizes, _ = ticks_of(lambda axes: axes.plot([0, 0.5, 2], [1, 2, 3]))
    assert "0.5" in sizes, "no counts"
    updates, _ = ticks_of(lambda axes: axes.plot([0, 15_000, 30_000], [1, 2, 3]))
    assert {"10,000", "20,000", "30,000"} <= set(updates) and not any("e" in label for label in updates)
    few, _ = ticks_of(lambda axes: axes.plot([0, 500, 1000], [1, 2, 3]))
    assert few[-1] == "1,000"


def test_looks_differ() -> None:
    assert len({(look["color"], look["linestyle"], look["marker"]) for look in map(style.look, range(32))}) == 32


def test_the_colour_blind_tell_the_colours_apart() -> None:
    """Deuteranopia after Viénot, Brettel and Mollon 1999."""
    to_lms = np.array([[17.8824, 43.5161, 4.11935], [3.45565, 27.1554, 3.86714], [0.0299566, 0.184309, 1.46709]])
    lms = np.array([to_rgb(colour) for colour in style.COLOURS]) ** 2.2 @ to_lms.T
    lms[:, 1] = 0.494207 * lms[:, 0] + 1.24827 * lms[:, 2]
    seen = np.clip(lms @ np.linalg.inv(to_lms).T, 0, 1) ** (1 / 2.2)
    apart = np.linalg.norm(seen[:, None] - seen[None], axis=-1)[np.triu_indices(len(seen), 1)]
    assert apart.min() > 0.1


def test_long_labels_are_folded() -> None:
    figure = style.new_figure(7, 3)
    for axes in figure.subplots(1, 4):
        axes.set(xlabel="pseudospectral radius of 0.01", ylabel="the size at which half of the accuracy is lost")
    style.finish(figure)
    check_picture(figure)
    assert "\n" in figure.axes[0].get_xlabel() and "\n" in figure.axes[0].get_ylabel()


def test_decades_are_all_powers_or_none() -> None:
    for low, expected in ((1e-5, [r"$10^{-5}$", r"$10^{-3}$"]), (1e-3, ["0.001", "0.1"])):
        figure = drawn(lambda axes, low=low: axes.semilogy([1, 2], [low, 1e3 * low]))
        style.finish(figure)
        figure.canvas.draw()
        labels = [label.get_text() for label in figure.axes[0].get_yticklabels()]
        assert set(expected) <= set(labels) and len({label[0] == "$" for label in labels}) == 1, labels
