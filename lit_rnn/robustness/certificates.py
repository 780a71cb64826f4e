"""What no attack can beat: a Lipschitz bound, randomised smoothing, interval bounds."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike
from scipy import stats
from torch import Tensor, nn

from datamodules.errors import UserError, as_seed, number, require, whole
from lit_rnn.activations import NONLINEARITIES, ComplexModReLU, ModReLU, modrelu
from lit_rnn.cells import PlainCell, UnitaryCell
from lit_rnn.parametrizations.orthogonal import double
from lit_rnn.robustness.attacks import check_examples
from lit_rnn.robustness.objective import predicted_class
from lit_rnn.robustness.state import Model, frozen, read, tensor
from lit_rnn.scan.checks import is_just

# ---- the plain RNN's Lipschitz bound


def _plain(cell: nn.Module, what: str) -> PlainCell:
    if (
        not isinstance(cell, PlainCell)
        or type(cell).step is not PlainCell.step
        or type(cell).read not in (PlainCell.read, UnitaryCell.read)
    ):
        raise UserError(
            f"the cell is {type(cell).__name__}, but {what} holds for h_t = f(W h_(t-1) + V x_t + b) alone."
        )
    return cell


def _require_nonexpansive(activation: Any) -> None:
    """f is 1-Lipschitz: the plain ones; modReLU where no b is positive, so that it is a soft threshold."""
    if isinstance(activation, ModReLU) and (is_just(activation, ModReLU) or is_just(activation, ComplexModReLU)):
        worst = activation.bias.detach().max().item()
        require(
            worst <= 0,
            "modReLU's largest b",
            float(f"{worst:.3g}"),
            "0 or negative: a positive b makes modReLU jump at zero, and no Lipschitz bound holds",
        )
    elif activation not in NONLINEARITIES.values():
        raise UserError(
            f"f is {type(activation).__name__}, but the bound needs {', '.join(NONLINEARITIES)} or modReLU."
        )


def _norm(W: Tensor) -> float:
    return float(torch.linalg.matrix_norm(double(W.detach()), ord=2))


def lipschitz_bound(cell: nn.Module, decoder: nn.Linear | Tensor, steps: int) -> float:
    """L with |z(x) - z(x')| <= L |x - x'|, all norms L2, x the whole sequence and z = D h_T the logits at its end.

    L = |D| |V| sqrt(sum_{k < T} |W|^{2k}), spectral norms, for h_t = f(W h_{t-1} + V x_t + b) with a 1-Lipschitz f:
    an input at T - k reaches h_T through at most |W|^k |V|, and Cauchy-Schwarz adds up the steps. Exact for a linear
    network of one unit; otherwise an upper bound, and a loose one where |W| > 1. It may be inf.

    Args:
        cell: A plain cell, real or complex: one whose step is `PlainCell`'s. f is tanh, relu, leaky_relu, elu,
            identity, or modReLU with no positive b. (For b > 0 real modReLU jumps by b at zero; the complex one,
            smoothed by its eps, is only (1 + b / sqrt(eps))-Lipschitz. Both are refused.)
        decoder: D, or the linear layer that holds it.
        steps: T.

    Raises:
        UserError: for another cell, another f, a positive b.
    """
    steps = whole(steps, "steps", 1)
    cell = _plain(cell, "this Lipschitz bound")
    _require_nonexpansive(cell.activation)
    W = _norm(cell.weights())
    with np.errstate(over="ignore"):
        powers = np.sum(np.power(np.float64(W), 2.0 * np.arange(steps)))
    D = tensor(decoder.weight if isinstance(decoder, nn.Linear) else decoder, "decoder")
    reads = D.dim() == 2 and D.shape[1] == cell.output_size
    require(reads, "decoder", f"a matrix {tuple(D.shape)}", f"(C, {cell.output_size}), which reads the cell's outputs")
    ends = _norm(D) * _norm(cell.input.weight)
    return ends * math.sqrt(float(powers)) if ends else 0.0  # not 0 times inf


def certified_radius(margin: ArrayLike, lipschitz: float) -> np.ndarray:
    """margin / (sqrt(2) L): an L2 perturbation of the sequence below it leaves the predicted class as it is.

    The difference of two logits is sqrt(2) L-Lipschitz. Exact arithmetic is assumed.

    Args:
        margin: z_y - max_{j != y} z_j, any shape; a margin that is not positive certifies nothing: radius 0.
        lipschitz: L of `lipschitz_bound`.
    """
    lipschitz = number(lipschitz, "lipschitz", "0 or positive", lambda bound: bound >= 0)
    positive = np.fmax(np.asarray(margin, dtype=np.float64), 0)  # NaN is not positive either
    if lipschitz == 0:
        return np.where(positive > 0, np.inf, 0.0)
    return positive / (math.sqrt(2) * lipschitz)


# ---- randomised smoothing


def smoothed_radius(p: ArrayLike, sigma: float) -> np.ndarray:
    """R = sigma Phi^-1(p): below it, in L2, the smoothed classifier's class does not change.

    Args:
        p: Lower bound on the probability of the top class under N(0, sigma^2); up to 1/2 nothing is certified: 0.
        sigma: Standard deviation of the noise, in the units of the input.

    Source: Cohen et al. 2019, theorem 1 with 1 - p for the runner-up.
    """
    sigma = number(sigma, "sigma", "0 or positive, and finite", lambda deviation: 0 <= deviation < math.inf)
    p = np.asarray(p, dtype=np.float64)
    require(bool(((p >= 0) & (p <= 1)).all()), "p", p, "probabilities")
    return np.where(p > 0.5, sigma * stats.norm.ppf(np.maximum(p, 0.5)), 0.0) if sigma else np.zeros_like(p)


def clopper_pearson_lower(k: ArrayLike, n: int, alpha: float = 0.001) -> np.ndarray:
    """The exact one-sided lower bound, at confidence 1 - alpha, on p after k successes in n trials.

    The alpha quantile of Beta(k, n - k + 1); 0 for k = 0, alpha^{1/n} for k = n.
    """
    k, n = np.asarray(k), whole(n, "n", 1)
    require(bool(((k >= 0) & (k <= n) & (k % 1 == 0)).all()), "k", k, f"whole numbers from 0 to n = {n}")
    alpha = number(alpha, "alpha", "between 0 and 1", lambda level: 0 < level < 1)
    return np.where(k > 0, stats.beta.ppf(alpha, np.maximum(k, 1), n - np.maximum(k, 1) + 1), 0.0)


class Smoothed(NamedTuple):
    """What smoothing says of each example: its class (-1: abstained), the lower bound p, and the radius."""

    label: np.ndarray
    p: np.ndarray
    radius: np.ndarray


def smooth_certify(
    model: Model,
    x: Tensor,
    sigma: float,
    n0: int = 100,
    n: int = 100_000,
    alpha: float = 0.001,
    batch_size: int = 1000,
    seed: int = 0,
    lengths: Tensor | None = None,
) -> Smoothed:
    """Class and L2 radius of the smoothed classifier argmax_c P(model(x + N(0, sigma^2)) = c), example by example.

    n0 votes choose the class, n fresh ones bound its probability from below. Each statement is true with probability
    1 - alpha over the noise; it speaks of the smoothed classifier, not of ``model`` itself. No box: the noise may
    leave the data's range. Where outputs are NaN or infinite the model votes for no class.

    Args:
        model: From inputs to logits (B, C).
        x: (B, T, I) values.
        sigma: In the units of x.
        batch_size: Noisy copies that are run at once.
        seed: Of the noise.
        lengths: (B,), as in `lit_rnn.robustness.pgd`.

    Raises:
        UserError: for symbols, no examples, and options that cannot work.

    Source: Cohen et al. 2019, algorithm Certify with its defaults.
    """
    check_examples(x)
    sigma = number(sigma, "sigma", "positive", lambda deviation: 0 < deviation < math.inf)
    n0, n, batch_size = whole(n0, "n0", 1), whole(n, "n", 1), whole(batch_size, "batch_size", 1)
    if not x.is_floating_point():
        raise UserError(f"inputs are {x.dtype}, symbols, but smoothing puts noise on values.")
    generator = torch.Generator().manual_seed(as_seed(seed))

    def votes(example: Tensor, length: Tensor | None, count: int) -> Tensor:
        total: Tensor | None = None
        for start in range(0, count, batch_size):
            shape = (min(batch_size, count - start), *example.shape)
            noise = torch.randn(shape, generator=generator, dtype=x.dtype).to(x.device)
            outputs = read(model, example + sigma * noise, None if length is None else length.expand(len(noise)))
            named = predicted_class(outputs)
            seen = named[named >= 0].bincount(minlength=outputs.shape[-1])
            total = seen if total is None else total + seen
        assert total is not None
        return total

    labels, successes = [], []
    with frozen(model, x.device), torch.no_grad():
        for place, example in enumerate(x.clone()):
            length = None if lengths is None else lengths[place]
            labels.append(int(votes(example, length, n0).argmax()))
            successes.append(int(votes(example, length, n)[labels[-1]]))
    p = clopper_pearson_lower(np.array(successes, dtype=np.int64), n, alpha)
    certain = p > 0.5
    return Smoothed(np.where(certain, np.array(labels, dtype=np.int64), -1), p, smoothed_radius(p, sigma))


# ---- interval bounds


def _monotone(activation: Any) -> Callable[[Tensor], Tensor]:
    """f, if it never falls: the plain ones, and real modReLU for every b (its jump at zero is upwards for b > 0)."""
    if isinstance(activation, ModReLU) and is_just(activation, ModReLU):
        bias = double(activation.bias)
        return lambda z: modrelu(z, bias)
    if activation not in NONLINEARITIES.values():
        raise UserError(
            f"f is {type(activation).__name__}, but intervals need a real f that never falls: "
            f"{', '.join(NONLINEARITIES)} or real modReLU."
        )
    return activation


@torch.no_grad()
def interval_bounds(cell: nn.Module, decoder: nn.Linear, x_low: Tensor, x_high: Tensor) -> tuple[Tensor, Tensor]:
    """Bounds on the logits at the last step over all sequences with x_low <= x <= x_high (interval propagation).

    Each step takes the interval [c - r, c + r] of (h, x) to [Wc + b - |W| r, Wc + b + |W| r], and f, which never
    falls, to the values at its ends. Sound up to rounding (float64 here); loose in T, as intervals forget how units
    move together.

    Args:
        cell: A plain real cell whose f is tanh, relu, leaky_relu, elu, identity or real modReLU (any b).
        decoder: From h_T to the logits.
        x_low: (B, T, I).
        x_high: (B, T, I), at least x_low.

    Returns:
        (B, C) lower and upper ends, float64. Class y is certified where its lower end is above all other upper ends.

    Raises:
        UserError: for another cell or f, no examples, widths that are not the cell's, and where x_low > x_high.

    Source: Gowal et al. 2018 (IBP), unrolled over time.
    """
    check_examples(x_low, "x_low")
    cell = _plain(cell, "interval propagation")
    f = _monotone(cell.activation)
    W = double(cell.weights())
    if W.is_complex():
        raise UserError(f"the cell is {type(cell).__name__}, complex, but intervals are for real cells.")
    sizes = {"x_low": (x_low, cell.input.in_features), "decoder.weight": (decoder.weight, cell.output_size)}
    for name, (given, size) in sizes.items():
        require(given.shape[-1] == size, name, tuple(given.shape), f"{size} wide, as the cell is")
    ordered = x_low.shape == x_high.shape and bool((x_low <= x_high).all())
    require(ordered, "x_low", tuple(x_low.shape), f"nowhere above x_high, both of shape {tuple(x_high.shape)}")

    def affine(low: Tensor, high: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
        centre, radius = (low + high) / 2 @ weight.mT, (high - low) / 2 @ weight.mT.abs()
        return centre - radius, centre + radius

    V, bias = double(cell.input.weight), cell.input.bias
    drives = affine(double(x_low), double(x_high), V)
    b = 0.0 if bias is None else double(bias)
    low = high = double(cell.initial_state(len(x_low))[0])
    for u_low, u_high in zip(drives[0].unbind(1), drives[1].unbind(1), strict=True):
        h_low, h_high = affine(low, high, W)
        low, high = f(h_low + u_low + b), f(h_high + u_high + b)
    z_low, z_high = affine(low, high, double(decoder.weight))
    d = 0.0 if decoder.bias is None else double(decoder.bias)
    return z_low + d, z_high + d
