"""The pictures of `analyze`: a panel draws one finding, a page all panels of one matrix."""

from __future__ import annotations

import collections
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import BoundaryNorm

from lit_rnn.analysis.arrays import Real
from lit_rnn.commands.analyze.measure import EPS, NOISE, Finding
from lit_rnn.report import style

Findings = Mapping[str, Finding]  # by moment, in the order in which they are shown
Draw = Callable[[Sequence[Axes], Findings], None]

_FLOOR = 1e-13  # times |W|: below it sigma_min is rounding
_NOTHING = 1e-9  # of what there was: not shown
_FORGOTTEN = -10  # an exponent: e^-10 of a perturbation is left after a step
_DECADES = 6  # that a heat map shows
_COLUMNS = 4  # of a page of two moments


@dataclass(frozen=True)
class Panel:
    """One picture.

    Args:
        needs: The finding's key without which there is nothing to draw.
        draw: Draws the findings into one axes, or into one for each moment.
        apart: Whether each moment has an axes of its own.
        key_below: Whether its legend stands below: where colours fill the axes.
        note: What a reader must know; {source} or the like stands for the finding of that name.
    """

    needs: str
    draw: Draw
    apart: bool = False
    key_below: bool = False
    note: str = ""


@style.styled
def draw_page(title: str, findings: Findings, path: Path, panels: Sequence[Panel]) -> bool:
    """All of the panels that have something to show, on one page; whether there was any."""
    most = _COLUMNS if len(findings) > 1 else _COLUMNS - 1
    rows: list[list[tuple[Panel, int]]] = []
    for panel in panels:
        width = len(having(panel.needs, findings))
        width = width if panel.apart else min(width, 1)
        if width and (not rows or sum(taken for _, taken in rows[-1]) + width > most):
            rows.append([])
        if width:
            rows[-1].append((panel, width))
    if not rows:
        return False
    columns = max(sum(taken for _, taken in row) for row in rows)
    figure = style.new_figure(3.5 * columns, 3.1 * len(rows) + 0.4)
    grid = figure.add_gridspec(len(rows), 1)
    for number, row in enumerate(rows):
        part = figure.add_subfigure(grid[number])  # a row of its own: colour bars take no room in other rows
        free = list(part.subplots(1, columns, squeeze=False)[0])
        keyed: list[Axes] = []
        for panel, width in row:
            panel.draw(free[:width], findings)
            keyed += free[:width] if panel.key_below else []
            free = free[width:]
        if keyed:
            style.shared_legend(part, keyed)
        for axes in free:
            axes.set_axis_off()
    figure.suptitle(title)
    style.save(figure, path)
    return True


def caption(findings: Findings, panels: Sequence[Panel]) -> str:
    """The notes of the panels that `draw_page` draws."""
    every = {key: value for finding in findings.values() for key, value in finding.items()}
    notes = [panel.note for panel in panels if panel.note and panel.needs in every]
    return " ".join(notes).format_map(collections.defaultdict(str, every))


# ---- what panels share


def having(key: str, findings: Findings) -> list[tuple[int, str, Finding]]:
    """Number, name and finding of every moment at which ``key`` was found."""
    return [(number, moment, finding) for number, (moment, finding) in enumerate(findings.items()) if key in finding]


def finish(axes: Axes, title: str, x: str, y: str, legend: bool = True) -> None:
    axes.set(title=title, xlabel=x, ylabel=y)
    if legend:
        style.legend(axes)


def _from_zero(axes: Axes) -> None:
    """Zero at the bottom, and room above the highest curve: one that is level must not lie on the frame."""
    axes.set_ylim(0, 1.15 * axes.dataLim.ymax)


def overlaid(number: int, findings: Findings) -> dict[str, Any]:
    """How an overlaid moment is drawn: the earlier one broad and pale, so that it shows below the later."""
    earlier = number < len(findings) - 1
    return {"color": style.COLOURS[number], "linewidth": 3.0 if earlier else 1.4, "alpha": 0.5 if earlier else 1.0}


def _bar(axes: Sequence[Axes], image: Any, name: str) -> None:
    """One colour bar for axes that share their colours."""
    axes[-1].figure.colorbar(image, ax=list(axes), fraction=0.05, pad=0.02, aspect=30).set_label(name)


def of_moment(moment: str, findings: Findings) -> str:
    """How a title names a moment, where there is more than one."""
    return f", {moment}" if len(findings) > 1 else ""


def _positive(values: Real) -> Real:
    """Values for a logarithmic axis, which has no zero."""
    return np.where((values > 0) & np.isfinite(values), values, np.nan)


# ---- the spectrum


def _singular_values(axes: Sequence[Axes], findings: Findings) -> None:
    """Moduli of eigenvalues lie on the singular values exactly where W is normal."""
    for number, moment, finding in having("singular_values", findings):
        index = np.arange(1, len(finding["singular_values"]) + 1)
        name = f" {moment}" if len(findings) > 1 else ""
        axes[0].plot(index, finding["singular_values"], **overlaid(number, findings), label=f"σ{name}")
        moduli = np.sort(np.abs(finding["eigenvalues"]))[::-1]
        axes[0].plot(index, moduli, ".", color=style.COLOURS[number], markersize=4, label=f"|λ|{name}")
    _from_zero(axes[0])
    finish(axes[0], "singular values, moduli of eigenvalues", "index, from the largest", "σ, |λ|")


def _history(axes: Sequence[Axes], findings: Findings) -> None:
    """What was logged while training; the last run's, where two are compared."""
    names = {
        "spectral_radius": "spectral radius ρ",
        "pseudospectral_radius": r"$\rho_\varepsilon$",
        "spectral_norm": "spectral norm σ",
        "henrici": "Henrici's d",
    }
    for _, _, finding in having("history", findings)[-1:]:
        for number, (key, name) in enumerate(names.items()):
            if key in finding["history"]:
                steps, values = finding["history"][key]
                axes[0].plot(steps, values, **style.look(number, len(steps)) | {"markersize": 3}, label=name)
    finish(axes[0], "over training", "optimizer steps", "value")


def _pseudospectrum(axes: Sequence[Axes], findings: Findings) -> None:
    levels = _levels([finding["sigma"] for _, _, finding in having("sigma", findings)])
    colours = colormaps["Blues_r"]
    norm = BoundaryNorm(levels, colours.N, extend="both")
    angles = np.linspace(0, 2 * np.pi, 400)
    for ax, (_, moment, finding) in zip(axes, having("sigma", findings), strict=True):
        shown = np.log10(np.maximum(finding["sigma"], 1e-300))
        filled = ax.contourf(finding["x"], finding["y"], shown, levels, cmap=colours, norm=norm, extend="both")
        ax.contour(finding["x"], finding["y"], shown, levels, colors="0.4", linewidths=0.4, linestyles="solid")
        limits = ax.axis()
        outline = np.append(finding["numerical_range"], finding["numerical_range"][:1])
        ax.plot(outline.real, outline.imag, color=style.GREEN, linewidth=1.4, label="numerical range")
        ax.plot(np.cos(angles), np.sin(angles), color="black", linestyle="--", linewidth=1, label="unit circle")
        values = finding["eigenvalues"]
        ax.plot(values.real, values.imag, ".", color=style.RED, markersize=5, label="eigenvalues")
        ax.axis(limits)
        ax.set_aspect("equal")
        precise = "" if finding["eigenvalues_in_double"] else "\neigenvalues in high precision: float64's are wrong"
        finish(ax, f"pseudospectrum{of_moment(moment, findings)}{precise}", "Re z", "Im z", legend=False)
    _bar(axes, filled, "log₁₀ ε")


def _levels(sigmas: Sequence[Real]) -> Real:
    """Levels of log10 eps, from where 1 % of the grid is inside to the largest; wider apart where they are deep."""
    values = np.concatenate([sigma.ravel() for sigma in sigmas])
    values = np.log10(np.maximum(values, _FLOOR * values.max()))
    low, high = np.quantile(values, 0.01), values.max()
    step = 0.25 if low > -2 else 0.5
    shallow = np.arange(np.floor(max(low, -2) / step), np.ceil(high / step) + 1) * step
    deep = [level for level in (-12.0, -10.0, -8.0, -6.0, -4.0, -3.0) if level >= low]
    return np.concatenate((deep, shallow))


def _reach(axes: Sequence[Axes], findings: Findings) -> None:
    """rho_eps - rho against eps; eps itself for a normal matrix."""
    for number, moment, finding in having("sigma", findings):
        reach = np.array([finding[f"pseudospectral_radius_{eps:g}"] for eps in EPS])
        beyond = reach - np.abs(finding["eigenvalues"]).max()
        axes[0].loglog(EPS, _positive(beyond), "o-", markersize=4, **overlaid(number, findings), label=moment)
    axes[0].loglog(EPS, EPS, color="0.5", linestyle="--", linewidth=1, label="normal matrix: ε")
    finish(axes[0], "reach of perturbations of size ε", "ε", r"$\rho_\varepsilon - \rho$")


# ---- non-normality


def _schur(axes: Sequence[Axes], findings: Findings) -> None:
    largest = max(float(finding["schur"].max()) for _, _, finding in having("schur", findings)) or 1.0
    top = np.ceil(np.log10(largest))
    for ax, (_, moment, finding) in zip(axes, having("schur", findings), strict=True):
        with np.errstate(divide="ignore"):
            shown = np.log10(finding["schur"])
        shown = np.ma.masked_where(np.tril(np.ones_like(shown), -1) > 0, np.maximum(shown, top - _DECADES))
        image = ax.imshow(shown, cmap="viridis", vmin=top - _DECADES, vmax=top, interpolation="nearest")
        precise = "" if finding["eigenvalues_in_double"] else "\nits diagonal is not the eigenvalues: float64"
        finish(ax, f"|T| of the Schur form{of_moment(moment, findings)}{precise}", "column", "row", legend=False)
    _bar(axes, image, "log₁₀ |T|")


def _feedforward(axes: Sequence[Axes], findings: Findings) -> None:
    for number, moment, finding in having("feedforward", findings):
        profile = finding["feedforward"]
        axes[0].semilogy(_positive(profile), ".-", markersize=3, **overlaid(number, findings), label=moment)
    finish(axes[0], "feedforward profile of the Schur form", "distance from the diagonal", "Frobenius norm")


def _chain(axes: Sequence[Axes], findings: Findings) -> None:
    for number, moment, finding in having("chain", findings):
        n = (len(finding["chain"]) + 1) // 2
        often = np.abs(finding["chain_offsets"]) <= 0.9 * n  # beyond, it is the mean of a few
        axes[0].plot(
            finding["chain_offsets"][often], finding["chain"][often], **overlaid(number, findings), label=moment
        )
    axes[0].axhline(0, color="0.8", linewidth=0.8, zorder=0)
    axes[0].axvline(0, color="0.8", linewidth=0.8, zorder=0)
    finish(axes[0], "hidden chain: weights in order of peaks", "i − j", r"mean $W_{ij}$")


# ---- powers


def _transient(axes: Sequence[Axes], findings: Findings) -> None:
    """|W^k| between its bounds; bounds far off the curve are cut."""
    curves = np.concatenate([_positive(finding["powers"]) for _, _, finding in having("powers", findings)])
    low, high = max(np.nanmin(curves), _NOTHING), np.nanmax(curves)
    bounds = {  # dashes that show each other: for a normal matrix three of them are |W^k| itself
        "bound_eigenvector": (r"$\kappa(V)\,\rho^k$", style.ORANGE, (0, (6, 6))),
        "bound_numerical": (r"$2\,w^k$", style.GREEN, "-"),
        "bound_level_curve": (r"$\rho_\varepsilon^{k+1}/\varepsilon$", style.PINK, "-"),
        "bound_spectral": (r"$\rho^k$, from below", style.RED, (6, (6, 6))),
    }
    for ax, (_, moment, finding) in zip(axes, having("powers", findings), strict=True):
        k = np.arange(len(finding["powers"]))
        ax.plot(k, _positive(finding["powers"]), color="0.6", linewidth=5, label=r"$\|W^k\|$")  # broad: bounds touch it
        for key, (label, colour, line) in bounds.items():
            ax.plot(k, _positive(finding[key]), color=colour, linestyle=line, linewidth=1, label=label)
        if np.isfinite(finding["kreiss_lower_bound"]):
            ax.axhline(
                finding["kreiss_lower_bound"],
                color=style.BLUE,
                linestyle=":",
                linewidth=1.4,
                label=r"$K \leq \max \|W^k\|$",
            )
        ax.set_yscale("log")
        ax.set_ylim(low / 3, high * 30)
        finish(ax, f"powers and their bounds{of_moment(moment, findings)}", "power k", "spectral norm", legend=False)


# ---- memory


def _without(axes: Axes, key: str, why: str, findings: Findings) -> None:
    """In the legend, the moments whose memory is left out."""
    for number, (moment, finding) in enumerate(findings.items()):
        if key not in finding and "source" in finding:
            axes.plot([], [], **overlaid(number, findings), label=f"{moment}: none, as {why}")


def _fisher(axes: Sequence[Axes], findings: Findings) -> None:
    for number, moment, finding in having("fisher", findings):
        total = f"{moment}, total {finding['fisher_total']:.3g}"
        axes[0].semilogy(_positive(finding["fisher"]), **overlaid(number, findings), label=total)
    _without(axes[0], "fisher", "ρ ≥ 1", findings)
    largest = max(float(finding["fisher"].max()) for _, _, finding in having("fisher", findings))
    axes[0].set_ylim(max(axes[0].get_ylim()[0], _NOTHING * largest), 3 * largest)
    finish(axes[0], "Fisher memory curve", "lag k (steps)", "J(k)")


def _decoder(axes: Sequence[Axes], findings: Findings) -> None:
    for number, moment, finding in having("decoder", findings):
        axes[0].plot(np.maximum(finding["decoder"], 0), **overlaid(number, findings), label=moment)
    _without(axes[0], "decoder", "ρ > 1", findings)
    axes[0].set_ylim(-0.03, 1.03)
    finish(axes[0], f"linear decoder's memory, noise {NOISE:g}", "lag (steps)", "R²")


# ---- dynamics


def _lyapunov(axes: Sequence[Axes], findings: Findings) -> None:
    for number, moment, finding in having("lyapunov", findings):
        exponents = np.where(np.isfinite(finding["lyapunov"]), finding["lyapunov"], np.nan)
        index = np.arange(1, exponents.shape[1] + 1)
        axes[0].plot(index, exponents.mean(0), **overlaid(number, findings), label=moment)
        axes[0].fill_between(
            index, exponents.min(0), exponents.max(0), color=style.COLOURS[number], alpha=0.25, linewidth=0
        )
    axes[0].axhline(0, color="0.6", linewidth=0.8, zorder=0)
    axes[0].set_ylim(bottom=max(axes[0].get_ylim()[0], _FORGOTTEN))
    finish(axes[0], "Lyapunov spectrum on data", "index, from the largest", "exponent (nats per step)")


def _jacobian(axes: Sequence[Axes], findings: Findings) -> None:
    for number, moment, finding in having("jacobian_singular_values", findings):
        low, middle, high = np.quantile(finding["jacobian_singular_values"], (0.05, 0.5, 0.95), axis=0)
        index = np.arange(1, len(middle) + 1)
        axes[0].plot(index, middle, **overlaid(number, findings), label=moment)
        axes[0].fill_between(index, low, high, color=style.COLOURS[number], alpha=0.25, linewidth=0)
    _from_zero(axes[0])
    finish(axes[0], "step Jacobian's σ along data (5 to 95 %)", "index, from the largest", "σ")


def _against_lag(key: str, title: str, y: str, logarithmic: bool) -> Draw:
    def draw(axes: Sequence[Axes], findings: Findings) -> None:
        for number, moment, finding in having(key, findings):
            values = _positive(finding[key]) if logarithmic else finding[key]
            axes[0].plot(values, **overlaid(number, findings), label=moment)
        if logarithmic:
            axes[0].set_yscale("log")
        else:
            axes[0].set_ylim(-0.03, 1.03)
        finish(axes[0], title, "lag (steps before the last)", y)

    return draw


PANELS = [
    Panel(
        "sigma",
        _pseudospectrum,
        apart=True,
        key_below=True,
        note="Eigenvalues of W + E for all |E| ≤ ε lie inside the contour log₁₀ ε: disks of radius ε for a normal W.",
    ),
    Panel("schur", _schur, apart=True),
    Panel("powers", _transient, apart=True, key_below=True),
    Panel("sigma", _reach),
    Panel(
        "singular_values",
        _singular_values,
        note="Singular values are the moduli of the eigenvalues exactly where W is normal.",
    ),
    Panel("history", _history),
    Panel("feedforward", _feedforward),
    Panel(
        "chain",
        _chain,
        note="Hidden chain: the mean weight from unit j to i, numbered in the order in which they peak after a pulse.",
    ),
    Panel("fisher", _fisher),
    Panel(
        "decoder",
        _decoder,
        note=(
            f"Memory is the linear network's of W and its {{source}}; the decoder reads after as many steps as "
            f"there are lags (or n, if more), from a state of zero, with noise of variance {NOISE:g}."
        ),
    ),
    Panel(
        "lyapunov",
        _lyapunov,
        note="Lyapunov exponents and gradients are of validation sequences, bands over sequences.",
    ),
    Panel("jacobian_singular_values", _jacobian),
    Panel(
        "gradient",
        _against_lag("gradient", "gradient of the loss w.r.t. the state", r"$\|\partial L/\partial s\|$", True),
    ),
    Panel("zero_fraction", _against_lag("zero_fraction", "gradients that are exactly zero", "share", False)),
    Panel("saturation", _against_lag("saturation", "saturated units", "share", False)),
    Panel("state_norm", _against_lag("state_norm", "norm of the state", r"$\|s\|$", True)),
]
