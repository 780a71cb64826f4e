"""The mean over seeds, of which some end before the others."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from matplotlib.lines import Line2D

from lit_rnn.report import style
from lit_rnn.report.curves import draw_curves, draw_means

NAN = pytest.approx(math.nan, nan_ok=True)
GAP = (NAN, NAN)


def points(line: Line2D) -> list[tuple[float, float]]:
    return [(float(x), float(y)) for x, y in np.asarray(line.get_xydata())]


def seed(folder: Path, name: str, curve: dict[int, float], early: bool = False) -> Path:
    """A run folder; ``curve`` is the loss by number of steps that are done."""
    place = folder / name
    place.mkdir()
    rows = "".join(f"{step - 1},{loss}\n" for step, loss in curve.items())
    (place / "metrics.csv").write_text(f"step,val/loss\n{rows}")
    (place / "fit.json").write_text(json.dumps({"ended_early": "solved"} if early else {"steps": 3}))
    return place


def test_a_mean_is_over_the_seeds_that_still_run(tmp_path: Path) -> None:
    """By hand: A solves it at step 20, where the mean of B and C is 5; B ends early at its last step, C does not."""
    a = seed(tmp_path, "a", {10: 4.0, 20: 0.5}, early=True)
    b = seed(tmp_path, "b", {10: 5.0, 20: 4.0, 30: 2.0, 40: 0.5}, early=True)
    c = seed(tmp_path, "c", {10: 6.0, 20: 6.0, 30: 6.0, 40: 5.5})
    axes = style.new_figure(4, 3).subplots()
    draw_means(axes, [("arm", [a, b, c])], 8.0)
    mean, first, second, named, chance = axes.lines
    assert points(mean) == [(10, 5), (20, 3.5), GAP, (20, 5), (30, 4), (40, 3), GAP]
    (band,) = axes.collections
    corners = {(float(x), float(y)) for path in band.get_paths() for x, y in np.asarray(path.vertices)}
    low, high = {(10, 4), (20, 0.5), (20, 4), (30, 2), (40, 0.5)}, {(10, 6), (20, 6), (30, 6), (40, 5.5)}
    assert corners == low | high
    assert points(first) == [(20, 0.5)] and points(second) == [(40, 0.5)], "not C"
    assert first.get_color() == second.get_color() == mean.get_color() and first.get_marker() == "x"
    assert named.get_label() == "a seed that ended early" and chance.get_label() == "chance, 8"
    assert axes.get_title() == "mean and range over the seeds that still run"


@pytest.mark.parametrize("name", ["_arm", "cost $^$", "$a$"])
def test_any_name_is_shown_as_it_is(tmp_path: Path, name: str) -> None:
    """A formula that is none was an error at the end of a study; an underscore kept an arm out of the legend."""
    figure = style.new_figure(4, 3)
    axes = figure.subplots()
    draw_means(axes, [(name, [seed(tmp_path, "a", {10: 4.0})])], 8.0)
    style.shared_legend(figure, [axes])
    style.save(figure, tmp_path / "a.png")
    shown = figure.legends[0].get_texts()[0].get_text()
    assert shown.replace(r"\$", "$").strip() == name


def test_seeds_of_one_length_have_one_mean(tmp_path: Path) -> None:
    """One that was not validated counts in none; of steps those count that all seeds have."""
    folders = [seed(tmp_path, name, {10: loss, 20: 2 * loss}) for name, loss in (("a", 1.0), ("b", 3.0))]
    axes = style.new_figure(4, 3).subplots()
    draw_means(axes, [("arm", folders), ("none", [seed(tmp_path, "none", {})])], 8.0)
    mean, none, chance = axes.lines
    assert points(mean) == [(10, 2), (20, 4), GAP] and points(none) == []
    assert chance.get_label() == "chance, 8" and axes.get_title() == "mean and range over seeds"
    axes = style.new_figure(4, 3).subplots()
    draw_means(axes, [("arm", [*folders, seed(tmp_path, "often", {10: 5.0, 15: 0.0, 20: 6.0})])], 8.0)
    assert points(axes.lines[0])[:-1] == [(10, 3), (20, pytest.approx(14 / 3))]


@pytest.mark.parametrize(("last", "top"), [(1.0, 80.0), (900.0, 900.0)])
@pytest.mark.parametrize("several", [True, False])
def test_a_peak_far_above_chance_is_cut_unless_a_line_ends_there(
    tmp_path: Path, last: float, top: float, several: bool
) -> None:
    folders = [seed(tmp_path, "a", {10: 2e4, 20: last}), seed(tmp_path, "b", {10: 7.0, 20: 4.0})]
    axes = style.new_figure(4, 3).subplots()
    if several:
        draw_means(axes, [(folder.name, [folder]) for folder in folders], 8.0)
    else:
        draw_curves(axes, [(folder.name, folder) for folder in folders], 8.0)
    bottom, highest = axes.get_ylim()
    assert highest == top and bottom < min(last, 4.0)
    assert axes.get_ylabel().endswith("loss (peak 2e+04)")


def test_without_peaks_all_is_drawn(tmp_path: Path) -> None:
    axes = style.new_figure(4, 3).subplots()
    draw_means(axes, [("a", [seed(tmp_path, "a", {10: 79.0, 20: 1.0})])], 8.0)
    assert axes.get_ylim()[1] > 79.0 and axes.get_ylabel() == "validation loss"
