"""Figures 1 and 2 of Orhan and Pitkow 2020, which need no training: ``python results/nonnormal.py``.

It writes results/nonnormal/memory.json, which results/pages.py shows: Fisher memory, and what a linear decoder reads.
"""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from verdicts import verdict

from lit_rnn.files import make_folder, write_file
from lit_rnn.report.tables import Table

if TYPE_CHECKING:
    from lit_rnn.analysis.memory import Nonlinearity

PAPER = "nonnormal"  # its page
PICTURE = "nonnormal-memory.svg"
N = 100  # units, and lags
NOISE = 0.01  # variance in every unit and step, where the decoder's network has noise
SAMPLES = 4_000  # sequences, half of which the decoder is fitted to
DIGITS = 6  # that are kept, so that another machine's rounding changes nothing


@dataclass(frozen=True)
class Network:
    """A start: its initialiser in `lit_rnn.init`, and the gains.

    The input enters at the first unit, a chain's source.
    """

    name: str
    init: str
    gains: tuple[float, ...]

    def matrix(self) -> Any:
        """(N, N)."""
        import torch

        from lit_rnn import init

        W = torch.empty(N, N, dtype=torch.float64)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            getattr(init, f"{self.init}_")(W, *self.gains)
        return W.numpy()

    def closed_form(self, lag: int) -> float | None:
        """J(lag) with noise of variance 1; None where there is no formula.

        A chain holds s_{t-k} in unit k + 1 alone, with the noise that entered on the way: a^2k over the sum of a^2m for
        m = 0 .. k. A normal matrix l Q has C = I / (1 - l^2): (1 - l^2) l^2k.
        """
        if self.init == "fbchain":
            return None
        (gain,) = self.gains
        if self.init == "chain":
            return gain ** (2 * lag) / math.fsum(gain ** (2 * m) for m in range(lag + 1))
        return (1 - gain**2) * gain ** (2 * lag)


FISHER = (  # figure 1; its gains are not said
    Network("chain, α = 1.02", "chain", (1.02,)),
    Network("chain, α = 1", "chain", (1.0,)),
    Network("fbchain, β = 0.01", "fbchain", (0.99, 0.01)),
    Network("orthogonal, λ = 0.95", "orthogonal", (0.95,)),
    Network("identity, λ = 0.95", "identity", (0.95,)),
)
DECODED = (FISHER[0], Network("orthogonal, λ = 1", "orthogonal", (1.0,)))  # figure 2
SETTINGS: Mapping[str, tuple[Nonlinearity, float]] = {  # its panels: nonlinearity and noise
    "linear": ("identity", 0.0),
    "linear with noise": ("identity", NOISE),
    "ELU": ("elu", 0.0),
}


def measured() -> dict[str, Any]:
    """Curves over lags 0 .. N - 1 of every network, and their totals over all lags."""
    import numpy as np

    from lit_rnn.analysis import decoder_memory, fisher_memory_curve, total_fisher_memory

    source = np.eye(N)[0]
    fisher = {
        one.name: {
            "curve": _kept(fisher_memory_curve(one.matrix(), source, N)),
            "total": _kept([total_fisher_memory(one.matrix(), source)])[0],
        }
        for one in FISHER
    }
    decoded = {
        title: {
            one.name: _kept(decoder_memory(one.matrix(), source, range(N), f, noise, samples=SAMPLES))
            for one in DECODED
        }
        for title, (f, noise) in SETTINGS.items()
    }
    return {"fisher": fisher, "decoded": decoded}


def _kept(values: Any) -> list[float]:
    return [float(f"{value:.{DIGITS}g}") for value in values]


# ---- in words


def _claims(found: Mapping[str, Any]) -> list[tuple[str, bool, str]]:
    """What the submission says, whether it holds here, and by what."""
    total = {one: found["fisher"][one.name]["total"] for one in FISHER}
    normal = {one: value for one, value in total.items() if one.init in ("orthogonal", "identity")}
    others = {one: value for one, value in total.items() if one not in normal}
    chain, orthogonal = ([found["decoded"][title][one.name] for title in SETTINGS] for one in DECODED)
    last = [f"{one[-1]:.2f} and {other[-1]:.2f}" for one, other in zip(chain, orthogonal, strict=True)]
    return [
        ("the Fisher memory of a normal network is 1 in all", all(abs(value - 1) < 1e-3 for value in normal.values()),
         ", ".join(f"{one.name}: {value:.3f}" for one, value in normal.items())),
        ("that of a chain is larger", all(value > 1 for value in others.values()),
         ", ".join(f"{one.name}: {value:.3f}" for one, value in others.items())),
        ("it is at most the number of units", all(value <= N for value in total.values()),
         f"at most {max(total.values()):.2f} of {N} here; at α = 1 it is the harmonic number of N, near ln N, "
         "and only above 1 of the order of N, as N (1 - α⁻²)"),
        ("without noise and nonlinearity both networks can be read perfectly",
         min(chain[0][-1], orthogonal[0][-1]) > 0.999, f"R² at lag {N - 1} is {last[0]}"),
        ("with noise the oldest signals are read better from a chain", chain[1][-1] > orthogonal[1][-1],
         f"{last[1]}; {_better(orthogonal[1], chain[1])}"),
        ("with ELU the oldest signals are read better from a chain", chain[2][-1] > orthogonal[2][-1],
         f"{last[2]}; {_better(orthogonal[2], chain[2])}"),
    ]  # fmt: skip


def _better(one: Sequence[float], other: Sequence[float]) -> str:
    count = sum(first > second for first, second in zip(one, other, strict=True))
    return f"the orthogonal network is read better at {count} of {len(one)} lags"


def section(found: Mapping[str, Any] | None) -> str:
    """Of the paper's page: what does not hold here first, the picture, the numbers."""
    if found is None:
        return ""
    told = sorted(_claims(found), key=lambda one: one[1])
    lines = [verdict(holds, f"{said} ({by})") for said, holds, by in told]
    rows = []
    for one in FISHER:
        exact = [one.closed_form(lag) for lag in range(N)]
        known = [value for value in exact if value is not None]
        tail = 0.0 if one.init == "chain" else one.gains[0] ** (2 * N)  # what a normal network keeps of older inputs
        formula = f"{math.fsum(known) + tail:.3f}" if known else ""
        rows.append([one.name, f"{found['fisher'][one.name]['total']:.3f}", formula])
    decoders = [
        [title, name, f"{statistics.fmean(curve):.3f}", f"{curve[-1]:.3f}"]
        for title, curves in found["decoded"].items()
        for name, curve in curves.items()
    ]
    return "".join(
        [
            f"## Memory without training\n\nFigures 1 and 2 with {N} units, from `python results/nonnormal.py`. The "
            "submission gives neither the gains nor, for the decoder, the signal, the noise and the fit: they are our "
            f"choice (ridge regression of Gaussian signals from the last state, {SAMPLES // 2:,} sequences of {N} "
            f"steps for the fit and as many for R², noise of variance {NOISE:g} in every unit and step).\n\n",
            *lines,
            f"\n![Fisher memory and a linear decoder's R² against the lag]({PICTURE})\n\n",
            Table(["network", "Fisher memory in all", "closed form"], rows).markdown(),
            "\n\n",
            Table(["decoder", "network", "mean R² over lags", f"R² at lag {N - 1}"], decoders, texts=2).markdown(),
            "\n\n",
        ]
    )


# ---- as a picture


def draw(found: Mapping[str, Any], path: Path) -> None:
    """Fisher memory against the lag, then R² in the three settings."""
    from lit_rnn.report import style

    @style.styled
    def drawn() -> None:
        figure = style.new_figure(10.0, 5.6)
        panels = figure.subplots(2, 2).flat
        fisher = next(panels)
        fisher.set(title="Fisher memory J(k)", ylabel="J(k), noise of variance 1", yscale="log", ylim=(1e-4, 2))
        _curves(fisher, {name: one["curve"] for name, one in found["fisher"].items()}, style.look)
        for axes, (title, curves) in zip(panels, found["decoded"].items(), strict=True):
            axes.set(title=f"decoder: {title}", ylabel="R² of the signal k steps ago", ylim=(-0.3, 1.05))
            _curves(axes, curves, style.look)
        for axes in figure.axes:
            axes.set_xlabel("lag k")
            axes.grid(color="0.92")
        style.shared_legend(figure, figure.axes)
        style.save(figure, path)

    drawn()


def _curves(axes: Any, curves: Mapping[str, Sequence[float]], look: Callable[[int, int], Mapping[str, Any]]) -> None:
    names = list(dict.fromkeys([*(one.name for one in FISHER), *(one.name for one in DECODED)]))
    for name, curve in curves.items():
        axes.plot(range(len(curve)), curve, label=name, **look(names.index(name), len(curve)))


def main(folder: Path) -> None:
    """Measure, and write."""
    make_folder(folder, "the folder in results")
    write_file(folder / "memory.json", json.dumps(measured(), indent=1, allow_nan=False) + "\n")


if __name__ == "__main__":
    main(Path(__file__).parent / "nonnormal")
