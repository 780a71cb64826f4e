"""Pictures of an evaluation: accuracy against size, perturbed inputs, where in time, and the spectra."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from datamodules.adding import value_first
from datamodules.pixels import PixelDataModule
from lit_rnn import analysis
from lit_rnn.commands.attack.measure import PSEUDO_EPS, Outcome
from lit_rnn.commands.attack.words import NORM_WORDS, certified_name, size_words
from lit_rnn.report import style
from lit_rnn.report.sequences import CHANGED, Strips, Symbols, cut, draw_image, time_axis, verdict
from lit_rnn.report.spectra import Spectrum, draw_spectra
from lit_rnn.robustness import AttackResult
from lit_rnn.robustness.objective import predicted_class
from lit_rnn.robustness.state import read
from lit_rnn.robustness.worst import adversarial, interval

_SHOWN = 5
# a colour for each attack; those that never stand in one panel may share one
_COLOURS = {
    "noise": style.BLUE,
    "multiplicative": style.RED,
    "salt_and_pepper": style.ORANGE,
    "uniform": style.ORANGE,
    "fgsm": style.SKY,
    "pgd": style.BLUE,
    "pgd_margin": style.PINK,
    "pgd_over": style.PINK,
    "pgd_under": style.WINE,
    "search": style.RED,
    "random_swaps": style.ORANGE,
    "swaps": style.RED,
}
_MARKERS = {"noise": "s", "gradient_free": "^", "single_step": "v", "iterative": "o"}


@style.styled
def draw_all(outcome: Outcome, folder: Path) -> dict[str, Path]:
    """Every picture that applies, by name."""
    figures = {"accuracy": draw_accuracy(outcome), "inputs": draw_inputs(outcome), "time": draw_time(outcome)}
    paths = {name: folder / f"{name}.png" for name in figures}
    for name, figure in figures.items():
        style.save(figure, paths[name])
    if outcome.matrices:
        paths["spectrum"] = folder / "spectrum.png"
        draw_spectrum(outcome, paths["spectrum"])
    return paths


# ---- accuracy against size


def draw_accuracy(outcome: Outcome) -> Figure:
    """A panel per norm, and one for noise: a line per attack, the worst case with its interval, certificates below."""
    noise = any(not adversarial(result) for result in outcome.results)
    panels = [*outcome.norms, *(["noise"] if noise else [])]
    figure = style.new_figure(max(4.2 * len(panels), 6), 4.6)
    axes = figure.subplots(1, len(panels), squeeze=False, sharey=True)[0]
    for ax, norm in zip(axes, panels, strict=True):
        if norm == "noise":
            _draw_attacks(ax, outcome, [r for r in outcome.results if not adversarial(r)])
            ax.set(title="noise", xlabel="size (σ, relative σ, or share of entries)")
        else:
            _draw_attacks(ax, outcome, [r for r in outcome.results if r.norm == norm])
            _draw_worst(ax, outcome, norm)
            _draw_certificates(ax, outcome, norm)
            size = "swapped symbols of a sequence" if norm == "swaps" else "ε, in the inputs' units"
            ax.set(title=NORM_WORDS[norm], xlabel=size)
        ax.axhline(1 - outcome.clean.success, color=style.GUIDE, linewidth=1, linestyle="--", label="unperturbed")
    axes[0].set(ylabel=f"share right, of {len(outcome.clean.fooled)} examples", ylim=(-0.03, 1.03))
    style.shared_legend(figure, axes)
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
        ax.set_xscale("symlog", linthresh=min(positive), linscale=0.5)
        decades = [10.0**k for k in range(-6, 7) if min(positive) <= 10.0**k <= max(positive)]
        ax.set_xticks([0, *decades], [f"{size:g}" for size in (0, *decades)])
        ax.set_xticks([], minor=True)
        ax.set_xlim(left=0)
    elif all(result.norm == "swaps" for result in results):
        ax.set_xticks(sorted({0, *positive}), [f"{size:.0f}" for size in sorted({0, *positive})])


def _draw_worst(ax: Axes, outcome: Outcome, norm: float | str) -> None:
    """From size 0 on, at which the worst case is the unperturbed one."""
    worst = outcome.worst(norm)
    fooled = [outcome.clean.fooled, *(w.fooled for w in worst)]
    sizes, ranges = [0.0, *(w.eps for w in worst)], np.array([interval(one) for one in fooled])
    ax.plot(sizes, [(~one).mean() for one in fooled], color="black", linewidth=2, label="worst case per example")
    ax.fill_between(sizes, ranges[:, 0], ranges[:, 1], color="black", alpha=0.12, linewidth=0, label="95 % interval")


def _draw_certificates(ax: Axes, outcome: Outcome, norm: float | str) -> None:
    for certificate in outcome.certificates:
        if certificate.norm == norm and certificate.holds:
            name = certified_name(certificate, outcome) + ("" if certificate.of_model else " (smoothed)")
            rates = [holds.mean() for holds in certificate.holds.values()]
            line = ":" if certificate.of_model else "-."
            ax.plot(list(certificate.holds), rates, line, marker=".", color=style.GREEN, linewidth=1.8, label=name)


# ---- perturbed inputs


def draw_inputs(outcome: Outcome) -> Figure:
    """A few examples before and after the strongest attack at its middle size, fooled ones first."""
    e, model = outcome.subject.examples, outcome.subject.model
    first = next(iter(outcome.moved.values()))[0]
    order = np.argsort(~(first.fooled & ~outcome.clean.fooled), kind="stable")  # fooled, and right before
    chosen = torch.from_numpy(order[:_SHOWN].copy()).to(e.x.device)
    with torch.no_grad():
        lengths = None if e.lengths is None else e.lengths[chosen]
        before = read(model, e.x[chosen], lengths)
        after = {k: read(model, x[chosen], lengths) for k, (_, x) in outcome.moved.items()}
    if isinstance(outcome.subject.data, PixelDataModule) and _side(outcome.subject.data):
        figure = _draw_images(outcome, chosen, before, after)
    elif outcome.subject.symbols == "swaps":
        figure = _draw_swaps(outcome, chosen)
    else:
        figure = _draw_series(outcome, chosen, before, after)
    figure.suptitle(_sheet_title(outcome))
    return figure


def _side(data: PixelDataModule) -> int:
    """Height and width of the images, 0 where they are not square."""
    side = math.isqrt(len(data.order))
    return side if side * side == len(data.order) else 0


def image_of(data: PixelDataModule, x: Tensor) -> np.ndarray:
    """What was read, (T, input_size), as (height, width, channels): every pixel at its place."""
    side, image = _side(data), torch.zeros(len(data.order), data.channels)
    image[data.order] = x.reshape(-1, data.channels)[: len(data.order)].float().cpu()
    return image.view(side, side, data.channels).numpy()


def _says(outcome: Outcome, outputs: Tensor, k: int) -> str:
    if outcome.subject.task.targets == "label":
        return str(int(predicted_class(outputs[k])))
    return f"{float(outputs[k].flatten()[0]):.3f}"


def _verdict(outcome: Outcome, result: AttackResult, index: int) -> tuple[str, str]:
    """What became of an example, with a mark, and its colour."""
    if outcome.clean.fooled[index]:
        return "wrong before, and left as it is", style.GUIDE
    mark, colour = verdict(not result.fooled[index])
    return f"{'fooled' if result.fooled[index] else 'held'} {mark}", colour


def _draw_images(outcome: Outcome, chosen: Tensor, before: Tensor, after: Mapping[float | str, Tensor]) -> Figure:
    e, data = outcome.subject.examples, outcome.subject.data
    assert isinstance(data, PixelDataModule) and e.bounds is not None
    columns = 1 + 2 * len(after)
    figure = style.new_figure(1.75 * columns, 1.85 * len(chosen) + 0.6)
    axes = figure.subplots(len(chosen), columns, squeeze=False)
    for row, (k, index) in enumerate(zip(range(len(chosen)), chosen.tolist(), strict=True)):
        draw_image(axes[row, 0], image_of(data, e.x[index]), e.bounds)
        mark, colour = verdict(not outcome.clean.fooled[index])
        axes[row, 0].set_title(
            f"{int(e.y[index])}, read as {_says(outcome, before, k)} {mark}", color=colour, fontsize=9
        )
        for column, (norm, outputs) in enumerate(after.items()):
            result, inputs = outcome.moved[norm]
            picture, change = axes[row, 1 + 2 * column], axes[row, 2 + 2 * column]
            draw_image(picture, image_of(data, inputs[index]), e.bounds)
            mark, colour = verdict(not result.fooled[index])
            picture.set_title(
                f"{NORM_WORDS[norm]}: read as {_says(outcome, outputs, k)} {mark}", color=colour, fontsize=9
            )
            delta = image_of(data, inputs[index] - e.x[index])
            largest = np.abs(delta).argmax(-1, keepdims=True)  # of several channels the one that changed most
            delta, most = np.take_along_axis(delta, largest, -1)[..., 0], np.abs(delta).max()
            change.imshow(delta, cmap="RdBu_r", vmin=-most or -1, vmax=most or 1)
            change.axis("off")
            change.set_title(f"change ≤ {most:.2g}", fontsize=9)
    return figure


def _sheet_title(outcome: Outcome) -> str:
    attacks = [f"{r.attack}, {_ball(norm, r.eps)}" for norm, (r, _) in outcome.moved.items()]
    return f"{outcome.subject.title}: before, and after {'; '.join(attacks)}"


def _ball(norm: float | str, eps: float) -> str:
    return f"{eps:.0f} swapped in each" if norm == "swaps" else f"{NORM_WORDS[norm]} ε = {size_words(eps)}"


def _draw_swaps(outcome: Outcome, chosen: Tensor) -> Figure:
    """The symbols before and after, and which were swapped; long stretches without symbols or swaps are cut out."""
    e, (result, inputs) = outcome.subject.examples, next(iter(outcome.moved.values()))
    figure = style.new_figure(8, 0.95 * len(chosen) + 1.4)
    axes = figure.subplots(len(chosen), 1, squeeze=False)[:, 0]
    rows = [(e.x[index].cpu().numpy(), inputs[index].cpu().numpy()) for index in chosen.tolist()]
    strips = [Strips({"before": old, "after": new}, {"after": old != new}) for old, new in rows]
    symbols, steps = Symbols.of(outcome.subject.task), cut(np.any([one.busy for one in strips], axis=0))
    for ax, one, index in zip(axes, strips, chosen.tolist(), strict=True):
        one.draw(ax, symbols, steps)
        words, colour = _verdict(outcome, result, index)
        ax.set_title(words, color=colour, fontsize=9)
    for ax in axes[:-1]:
        ax.tick_params(labelbottom=False)
    axes[-1].set_xlabel("time step")
    style.key_below(figure, [*symbols.key(), CHANGED])
    return figure


def _draw_series(outcome: Outcome, chosen: Tensor, before: Tensor, after: Mapping[float | str, Tensor]) -> Figure:
    """Inputs over time, the changed ones over the old ones; of one-hot symbols only how far each step was moved."""
    e, task = outcome.subject.examples, outcome.subject.task
    figure = style.new_figure(max(4.8 * len(after), 6), 1.4 * len(chosen) + 1.2)
    axes = figure.subplots(len(chosen), len(after), squeeze=False, sharex=True)
    for row, index in enumerate(chosen.tolist()):
        for column, (norm, outputs) in enumerate(after.items()):
            result, inputs = outcome.moved[norm]
            ax, (read, changed) = axes[row, column], (e.x[index].cpu(), inputs[index].cpu())
            if outcome.subject.symbols == "embedding":
                size = (changed - read).norm(dim=-1).numpy()
                ax.bar(np.arange(1, len(size) + 1), size, color=style.RED, width=1.0)
                ax.set_ylabel("‖change‖")
                ax.set_ylim(0, 1.1 * float(size.max()) or 1)
            else:
                _draw_change(ax, task.name == "adding", read, changed)
            words, colour = _verdict(outcome, result, index)
            if not task.per_step:
                target = float(e.y[index].flatten()[0])
                words = f"{words}: target {target:.3g}, {_says(outcome, before, row)} before, "
                words += f"{_says(outcome, outputs, row)} after"
            ax.set_title(words, color=colour, fontsize=9)
    for column, norm in enumerate(after):
        if len(after) > 1:
            axes[0, column].set_title(f"{NORM_WORDS[norm]}\n{axes[0, column].get_title()}", fontsize=9)
        time_axis(axes[-1, column])
    if outcome.subject.symbols != "embedding":
        style.shared_legend(figure, [axes[0, 0]])
    return figure


def _draw_change(ax: Axes, adding: bool, read: Tensor, changed: Tensor) -> None:
    """A channel before and after: the numbers of an adding problem, else the one that was changed most."""
    steps = np.arange(1, len(read) + 1)
    channel, name = int((changed - read).abs().sum(0).argmax()), "input"
    if adding:
        read, changed, channel, name = value_first(read), value_first(changed), 0, "number"
    elif read.shape[1] > 1:
        name = f"channel {channel + 1} of {read.shape[1]}"
    old, new = read[:, channel].numpy(), changed[:, channel].numpy()
    ax.plot(steps, old, color="0.6", linewidth=1.4, label="before")
    ax.plot(steps, new, color=style.RED, linewidth=0.9, label="after")
    if adding:
        marked = np.flatnonzero(read[:, 1].numpy())
        ax.plot(steps[marked], old[marked], "o", markersize=4, color=style.BLUE, label="to be added")
    ax.set_ylabel(name)


# ---- where in time


def draw_time(outcome: Outcome) -> Figure:
    """The size of the change at each step; below, the loss's gradient there, and where it is exactly zero."""
    count = 3 if len(outcome.slopes) else 1
    figure = style.new_figure(7.5, 1.9 * count + 1)
    axes = figure.subplots(count, 1, squeeze=False, sharex=True)[:, 0]
    for number, (norm, (result, inputs)) in enumerate(outcome.moved.items()):
        share = profile(outcome, result, inputs)
        name = f"{result.attack}, {_ball(norm, result.eps)}"
        axes[0].plot(np.arange(1, len(share) + 1), share, color=style.COLOURS[number], label=name, linewidth=1.2)
    axes[0].set_ylabel("share of the change")
    top = axes[0].dataLim.ymax or 1  # 0 where nothing was moved
    axes[0].set_ylim(-0.03 * top, 1.1 * top)
    style.legend(axes[0])
    if len(outcome.slopes):
        steps = np.arange(1, len(outcome.slopes) + 1)
        slopes = np.where(outcome.slopes > 0, outcome.slopes, np.nan)  # a logarithmic axis has no zero
        axes[1].semilogy(steps, slopes, color="black", linewidth=1.2)
        axes[1].set_ylabel("mean ‖∂loss/∂x‖")
        for number, (loss, shares) in enumerate(outcome.zero_gradients.items()):
            line = {"color": style.COLOURS[number + 2], "linestyle": ("-", "--", ":")[number % 3]}
            axes[2].plot(steps, shares, linewidth=1.6, label=loss.replace("_", " "), **line)
        axes[2].set(ylabel="gradients exactly 0", ylim=(-0.03, 1.03))
        style.legend(axes[2])
    time_axis(axes[-1])
    figure.suptitle(f"{outcome.subject.title}: where in time the perturbation went")
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


def draw_spectrum(outcome: Outcome, path: Path) -> None:
    """Eigenvalues of every recurrent matrix against the unit circle, spectral numbers above."""
    weights = [W.detach() for cell in outcome.subject.model.cell_list() for W in cell.recurrent_matrices().values()]
    panels = {}
    for (name, numbers), W in zip(outcome.matrices.items(), weights, strict=True):
        reach = {rf"$\rho_\varepsilon$, ε = {PSEUDO_EPS:g}": numbers["pseudospectral_radius"]}
        panels[name] = Spectrum({"eigenvalues": analysis.eigenvalues(W)}, spectral_words(numbers), reach)
    draw_spectra(panels, path)


def spectral_words(numbers: Mapping[str, float]) -> str:
    first = f"ρ {numbers['spectral_radius']:.3g}, ‖W‖ {numbers['spectral_norm']:.3g}"
    return f"{first}\nHenrici {numbers['henrici']:.2f}, $\\rho_\\varepsilon$ {numbers['pseudospectral_radius']:.3g}"
