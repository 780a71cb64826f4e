"""The pictures of what states do: a phase portrait with its fixed points, their eigenvalues, and the probe."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from lit_rnn.commands.analyze.measure import Finding
from lit_rnn.commands.analyze.pictures import Findings, Panel, finish, having, of_moment, overlaid
from lit_rnn.report import style

_KINDS: dict[str, dict[str, Any]] = {  # colour, marker and filling of a point
    "stable": {"color": style.BLUE, "marker": "o"},
    "marginal": {"color": style.GREEN, "marker": "s"},
    "unstable": {"color": style.RED, "marker": "X"},
    "slow": {"color": style.ORANGE, "marker": "D", "markerfacecolor": "none"},
}


def _kinds(finding: Finding) -> dict[str, Any]:
    """Which points are of each kind, as masks."""
    named = np.array(finding["fixed_kinds"], dtype=object)
    return {kind: named == kind for kind in _KINDS}


def _portrait(axes: Sequence[Axes], findings: Findings) -> None:
    for ax, (_, moment, finding) in zip(axes, having("plane_points", findings), strict=True):
        paths, points = finding["plane_trajectories"], finding["plane_points"]
        for path in np.moveaxis(paths, 1, 0):
            ax.plot(path[:, 0], path[:, 1], ".-", color="0.7", linewidth=0.6, markersize=2, zorder=1)
        ax.plot([], [], ".-", color="0.7", linewidth=0.6, markersize=2, label="trajectories")
        for kind, chosen in _kinds(finding).items():
            if chosen.any():
                look = {"linestyle": "none", "markersize": 6, "zorder": 3, **_KINDS[kind]}
                ax.plot(points[chosen, 0], points[chosen, 1], label=f"{kind} point", **look)
        first, second = [*finding["plane_explained"], 0.0, 0.0][:2]
        names = f"first axis ({first:.0%} of variance)", f"second axis ({second:.0%})"
        finish(ax, f"states and fixed points{of_moment(moment, findings)}", *names, legend=False)


def _eigenvalues(axes: Sequence[Axes], findings: Findings) -> None:
    angles = np.linspace(0, 2 * np.pi, 400)
    for ax, (_, moment, finding) in zip(axes, having("plane_points", findings), strict=True):
        ax.plot(np.cos(angles), np.sin(angles), color="black", linestyle="--", linewidth=1, label="unit circle")
        for kind, chosen in _kinds(finding).items():
            values = finding["fixed_eigenvalues"][chosen].ravel()
            if len(values):
                look = {"linestyle": "none", "markersize": 3.5, "alpha": 0.7, **_KINDS[kind]}
                ax.plot(values.real, values.imag, label=f"{kind} point", **look)
        ax.set_aspect("equal", adjustable="datalim")
        finish(ax, f"eigenvalues there{of_moment(moment, findings)}", "Re λ", "Im λ", legend=False)


def _probe(axes: Sequence[Axes], findings: Findings) -> None:
    ax = axes[0]
    for number, moment, finding in having("probe_by_step", findings):
        steps = np.arange(1, len(finding["probe_by_step"]) + 1)
        ax.plot(steps, finding["probe_by_step"], **overlaid(number, findings), label=moment)
    last = having("probe_by_step", findings)[-1][2]
    ax.axhline(last["probe_chance"], color=style.GUIDE, linestyle="--", linewidth=1, label="chance")
    ax.axvline(last["probe_trained"], color=style.GUIDE, linestyle=":", linewidth=1, label="longest trained")
    ax.set_ylim(-0.03, 1.03)
    finish(ax, f"linear probe of {last['probe_elements']} elements", "step", "held-out accuracy")


PANELS = [
    Panel(
        "plane_points",
        _portrait,
        apart=True,
        key_below=True,
        note=(
            "Fixed and slow points are those of the step map whose input is held at {held_input}; axes are the "
            "principal ones of the visited states."
        ),
    ),
    Panel("plane_points", _eigenvalues, apart=True, key_below=True),
    Panel(
        "probe_by_step",
        _probe,
        note=(
            "The probe is a logistic regression from the joint state to what a machine that solves the task would "
            "keep, fitted to other sequences, up to the length of training."
        ),
    ),
]
