"""Pictures of an evaluation: accuracy against size, perturbed inputs, where in time, and the spectra."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from datamodules.adding import value_first
from datamodules.pixels import PixelDataModule
from lit_rnn import analysis
from lit_rnn.commands.attack.measure import PSEUDO_EPS, Outcome
from lit_rnn.commands.attack.words import NORM_WORDS
from lit_rnn.robustness import ATTACKS, AttackResult
from lit_rnn.robustness.worst import adversarial, interval

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_SHOWN = 5
_COLOURS = {name: f"C{k}" for k, name in enumerate(ATTACKS)}
_MARKERS = {"noise": "s", "gradient_free": "^", "single_step": "v", "iterative": "o"}


def draw_all(outcome: Outcome, folder: Path) -> dict[str, Path]:
    """Every picture that applies, by name."""
    folder.mkdir(parents=True, exist_ok=True)
    figures = {"accuracy": draw_accuracy(outcome), "inputs": draw_inputs(outcome), "time": draw_time(outcome)}
    if outcome.matrices:
        figures["spectrum"] = draw_spectrum(outcome)
    paths = {name: folder / f"{name}.png" for name in figures}
    for name, figure in figures.items():
        figure.savefig(paths[name], dpi=120)
    return paths


def _figure(width: float, height: float) -> Figure:
    from matplotlib.figure import Figure  # not pyplot: no global state, no window system

    return Figure(figsize=(width, height), layout="constrained")


# ---- accuracy against size


def draw_accuracy(outcome: Outcome) -> Figure:
    """A panel per norm, and one for noise: a line per attack, the worst case with its interval, certificates below."""
    noise = any(not adversarial(result) for result in outcome.results)
    panels = [*outcome.norms, *(["noise"] if noise else [])]
    figure = _figure(4.6 * len(panels), 4.8)
    axes = figure.subplots(1, len(panels), squeeze=False, sharey=True)[0]
    for ax, norm in zip(axes, panels, strict=True):
        if norm == "noise":
            _draw_attacks(ax, outcome, [r for r in outcome.results if not adversarial(r)])
            ax.set(title="noise", xlabel="size (σ, relative σ, or share of entries)")
        else:
            _draw_attacks(ax, outcome, [r for r in outcome.results if r.norm == norm])
            _draw_worst(ax, outcome, norm)
            _draw_certificates(ax, outcome, norm)
            ax.set(title=NORM_WORDS[norm], xlabel="number of swaps" if norm == "swaps" else "ε, in the inputs' units")
        ax.axhline(1 - outcome.clean.success, color="0.6", linewidth=1, linestyle="--", label="unperturbed")
        ax.spines[["top", "right"]].set_visible(False)
    axes[0].set(ylabel=f"share right of {len(outcome.clean.fooled)}", ylim=(-0.03, 1.03))
    handles = {str(line.get_label()): line for ax in axes for line in ax.get_legend_handles_labels()[0]}
    figure.legend(
        list(handles.values()),
        list(handles),
        frameon=False,
        fontsize=8,
        loc="outside lower center",
        ncols=min(7, len(handles)),
    )
    figure.suptitle(outcome.subject.title)
    return figure


def _draw_attacks(ax: Axes, outcome: Outcome, results: list[AttackResult]) -> None:
    for name in dict.fromkeys(result.attack for result in results):
        ours = [result for result in results if result.attack == name]
        sizes, rates = [0.0, *(r.eps for r in ours)], [1 - r.success for r in (outcome.clean, *ours)]
        marker = _MARKERS[ours[0].kind]
        ax.plot(sizes, rates, marker=marker, markersize=4, linewidth=1, color=_COLOURS[name], label=name)
    positive = [result.eps for result in results if result.eps > 0]
    if positive and max(positive) / min(positive) > 20:  # small sizes matter, and zero has to be there
        ax.set_xscale("symlog", linthresh=min(positive), linscale=0.4)
        decades = [10.0**k for k in range(-6, 7) if min(positive) <= 10.0**k <= max(positive)]
        ax.set_xticks([0, *decades], [f"{size:g}" for size in (0, *decades)])
        ax.set_xlim(left=0)


def _draw_worst(ax: Axes, outcome: Outcome, norm: float | str) -> None:
    worst = outcome.worst(norm)
    sizes = [w.eps for w in worst]
    ranges = np.array([interval(w.fooled) for w in worst])
    ax.plot(sizes, [(~w.fooled).mean() for w in worst], color="black", linewidth=2, label="worst case per example")
    ax.fill_between(sizes, ranges[:, 0], ranges[:, 1], color="black", alpha=0.12, linewidth=0, label="95 % interval")


def _draw_certificates(ax: Axes, outcome: Outcome, norm: float | str) -> None:
    for certificate in outcome.certificates:
        if certificate.norm == norm and certificate.holds:
            name = f"certified: {certificate.name}" + ("" if certificate.of_model else " (smoothed)")
            rates = [holds.mean() for holds in certificate.holds.values()]
            ax.plot(
                list(certificate.holds),
                rates,
                color="tab:green",
                linestyle=":" if certificate.of_model else "-.",
                label=name,
            )


# ---- perturbed inputs


def draw_inputs(outcome: Outcome) -> Figure:
    """A few examples before and after the strongest attack at its middle size, fooled ones first."""
    e, model = outcome.subject.examples, outcome.subject.model
    first = next(iter(outcome.moved.values()))[0]
    order = np.argsort(~(first.fooled & ~outcome.clean.fooled), kind="stable")  # fooled, and right before
    chosen = torch.from_numpy(order[:_SHOWN].copy()).to(e.x.device)
    with torch.no_grad():
        before, after = model(e.x[chosen]), {k: model(x[chosen]) for k, (_, x) in outcome.moved.items()}
    if isinstance(outcome.subject.data, PixelDataModule) and _side(outcome.subject.data):
        return _draw_images(outcome, chosen, before, after)
    return _draw_series(outcome, chosen, before, after)


def _side(data: PixelDataModule) -> int:
    """Height and width of the images, 0 where they are not square."""
    side = math.isqrt(len(data.order))
    return side if side * side == len(data.order) else 0


def image_of(data: PixelDataModule, x: Tensor) -> np.ndarray:
    """What was read, (T, input_size), as (height, width): the first channel of every pixel at its place."""
    side, image = _side(data), torch.zeros(len(data.order))
    image[data.order] = x.reshape(-1, data.channels)[: len(data.order), 0].float().cpu()
    return image.view(side, side).numpy()


def _says(outcome: Outcome, outputs: Tensor, k: int) -> str:
    if outcome.subject.task.targets == "label":
        return str(int(outputs[k].argmax()))
    return f"{float(outputs[k].flatten()[0]):.3f}"


def _draw_images(outcome: Outcome, chosen: Tensor, before: Tensor, after: dict[float | str, Tensor]) -> Figure:
    e, data = outcome.subject.examples, outcome.subject.data
    assert isinstance(data, PixelDataModule) and e.bounds is not None
    figure = _figure(1.75 * (1 + 2 * len(after)), 1.85 * len(chosen) + 0.5)
    axes: Any = figure.subplots(len(chosen), 1 + 2 * len(after), squeeze=False)
    for row, (k, index) in enumerate(zip(range(len(chosen)), chosen.tolist(), strict=True)):
        grey = {"cmap": "gray_r", "vmin": e.bounds[0], "vmax": e.bounds[1]}
        axes[row, 0].imshow(image_of(data, e.x[index]), **grey)
        axes[row, 0].set_title(f"a {int(e.y[index])}, read {_says(outcome, before, k)}", fontsize=9)
        for column, (norm, outputs) in enumerate(after.items()):
            result, inputs = outcome.moved[norm]
            picture, change = axes[row, 1 + 2 * column], axes[row, 2 + 2 * column]
            picture.imshow(image_of(data, inputs[index]), **grey)
            colour = "tab:red" if result.fooled[index] else "tab:green"
            picture.set_title(f"read {_says(outcome, outputs, k)}", color=colour, fontsize=9)
            delta = image_of(data, inputs[index] - e.x[index])
            change.imshow(delta, cmap="RdBu_r", vmin=-np.abs(delta).max() or -1, vmax=np.abs(delta).max() or 1)
            change.set_title(f"{NORM_WORDS[norm]} change, max {np.abs(delta).max():.2g}", fontsize=8)
    for ax in axes.flat:
        ax.axis("off")
    figure.suptitle(_sheet_title(outcome), fontsize=10)
    return figure


def _sheet_title(outcome: Outcome) -> str:
    attacks = [f"{r.attack}, {NORM_WORDS[norm]} ε = {r.eps:.3g}" for norm, (r, _) in outcome.moved.items()]
    return f"{outcome.subject.title}: before, and after {'; '.join(attacks)}"


def _draw_series(outcome: Outcome, chosen: Tensor, before: Tensor, after: dict[float | str, Tensor]) -> Figure:
    """Inputs over time, the changed ones over the old ones; symbols as steps, and which were changed as dots."""
    e, task = outcome.subject.examples, outcome.subject.task
    figure = _figure(5.2 * len(after), 1.5 * len(chosen) + 0.8)
    axes: Any = figure.subplots(len(chosen), len(after), squeeze=False, sharex=True)
    for row, index in enumerate(chosen.tolist()):
        for column, (norm, outputs) in enumerate(after.items()):
            result, inputs = outcome.moved[norm]
            ax = axes[row, column]
            read, changed = e.x[index], inputs[index]
            if task.name == "adding":
                read, changed = value_first(read), value_first(changed)
            old, new = _line(read), _line(changed)
            style = {"drawstyle": "steps-mid"} if task.inputs == "symbols" else {}
            ax.plot(old, color="0.6", linewidth=1, label="before", **style)
            ax.plot(new, color="tab:red", linewidth=0.8, label="after", **style)
            words = "fooled" if result.fooled[index] else "not fooled"
            if not task.per_step:
                target = float(e.y[index].flatten()[0])
                words = (
                    f"target {target:.3g}: {_says(outcome, before, row)} before, {_says(outcome, outputs, row)} after"
                )
            ax.set_title(words, color="tab:red" if result.fooled[index] else "tab:green", fontsize=9)
            if task.name == "adding":
                marked = np.flatnonzero(read[:, 1].cpu().numpy())
                ax.plot(marked, old[marked], "o", markersize=4, color="tab:orange", label="marked")
            ax.spines[["top", "right"]].set_visible(False)
    for ax in axes[-1]:
        ax.set_xlabel("time step")
    figure.legend(*axes[0, 0].get_legend_handles_labels(), frameon=False, loc="outside lower center", ncols=3)
    figure.suptitle(_sheet_title(outcome), fontsize=10)
    return figure


def _line(x: Tensor) -> np.ndarray:
    """A line of an input: symbols, the first of few channels, or the place of the largest entry of a one-hot vector."""
    if x.dim() == 1:
        return x.cpu().numpy()
    return (x[:, 0] if x.shape[1] <= 3 else x.argmax(-1)).cpu().numpy()


# ---- where in time


def draw_time(outcome: Outcome) -> Figure:
    """Above: the size of the change at each step. Below: the loss's gradient there, and where it is exactly zero."""
    figure = _figure(8, 5.4 if len(outcome.slopes) else 3)
    axes: Any = figure.subplots(2 if len(outcome.slopes) else 1, 1, squeeze=False, sharex=True)[:, 0]
    for norm, (result, inputs) in outcome.moved.items():
        share = profile(outcome, result, inputs)
        axes[0].plot(share, label=f"{result.attack}, {NORM_WORDS[norm]} ε = {result.eps:.3g}", linewidth=1)
    axes[0].set(ylabel="share of the change", title=f"{outcome.subject.title}: where in time the perturbation went")
    axes[0].set_ylim(bottom=0)
    if len(outcome.slopes):
        floor = outcome.slopes[outcome.slopes > 0].min(initial=1)
        axes[1].plot(np.maximum(outcome.slopes, floor), color="black", linewidth=1, label="mean |∂loss/∂x|")
        axes[1].set(yscale="log", ylabel="gradient of the loss")
        other = axes[1].twinx()
        for number, (loss, shares) in enumerate(outcome.zero_gradients.items()):
            other.plot(shares, color=f"C{number + 2}", linewidth=1, linestyle=":", label=f"exactly zero, {loss}")
        other.set(ylabel="share exactly zero", ylim=(-0.02, 1.02))
        lines = [*axes[1].lines, *other.lines]
        axes[1].legend(lines, [str(line.get_label()) for line in lines], frameon=False, fontsize=8)
        other.spines["top"].set_visible(False)
    axes[0].legend(frameon=False, fontsize=8)
    axes[-1].set_xlabel("time step")
    for ax in axes:
        ax.spines[["top", "right"]].set_visible(False)
    return figure


def profile(outcome: Outcome, result: AttackResult, inputs: Tensor) -> np.ndarray:
    """(T,): the share of the change that fell on each step, over the examples it fooled.

    Of |d_t| under L-inf, of |d_t|^2 under L2, of the number of swaps.
    """
    e = outcome.subject.examples
    changed = torch.from_numpy(result.fooled & ~outcome.clean.fooled).to(e.x.device)
    rows = changed if changed.any() else torch.ones_like(changed)
    if result.norm == "swaps":
        size = (inputs != e.x)[rows].double()
    else:
        size = (inputs - e.x)[rows].double().norm(dim=-1) ** (2 if result.norm == 2.0 else 1)
    total = size.sum()
    return (size.sum(0) / total.clamp_min(1e-300)).cpu().numpy()


# ---- spectra


def draw_spectrum(outcome: Outcome) -> Figure:
    """Eigenvalues of every recurrent matrix against the unit circle, spectral numbers above."""
    names = list(outcome.matrices)
    columns = min(4, len(names))
    rows = -(-len(names) // columns)
    figure = _figure(3.6 * columns, 3.9 * rows)
    axes = figure.subplots(rows, columns, squeeze=False)
    circle = np.exp(2j * np.pi * np.linspace(0, 1, 400))
    weights = [W.detach() for cell in outcome.subject.model.cell_list() for W in cell.recurrent_matrices().values()]
    for ax, name, W in zip(axes.flat, names, weights, strict=False):
        numbers = outcome.matrices[name]
        values = analysis.eigenvalues(W)
        ax.plot(circle.real, circle.imag, color="0.7", linewidth=0.8)
        reach = numbers["pseudospectral_radius"] * circle
        ax.plot(reach.real, reach.imag, color="C3", linewidth=0.8, linestyle=":")
        ax.plot(values.real, values.imag, ".", color="C0", markersize=4)
        ax.set(title=f"{name}\n{spectral_words(numbers)}", aspect="equal", xlabel="Re", ylabel="Im")
        ax.title.set_fontsize(8)
    for ax in list(axes.flat)[len(names) :]:
        ax.axis("off")
    return figure


def spectral_words(numbers: dict[str, float]) -> str:
    words = f"ρ {numbers['spectral_radius']:.3g}, ‖W‖ {numbers['spectral_norm']:.3g}, Henrici {numbers['henrici']:.2f}"
    return f"{words}\nρ at ε = {PSEUDO_EPS:g}: {numbers['pseudospectral_radius']:.3g} (dotted)"
