"""The certificates that apply to a network, as accuracies that no attack can go below."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn

from datamodules.errors import UserError
from lit_rnn.cells import Cell
from lit_rnn.robustness.by_name import Examples
from lit_rnn.robustness.certificates import certified_radius, interval_bounds, lipschitz_bound, smooth_certify
from lit_rnn.robustness.checks import Check
from lit_rnn.robustness.objective import margin
from lit_rnn.robustness.results import AttackResult
from lit_rnn.robustness.state import read


@dataclass(frozen=True)
class Certificate:
    """For each size, the examples whose right class no perturbation inside the ball can change.

    Args:
        name: Of the method.
        norm: inf or 2.
        sentence: What was computed, or why nothing could be.
        holds: (N,) bool by eps; empty where the method does not apply.
        of_model: Whether it speaks of the model itself, not of a smoothed one.
    """

    name: str
    norm: float
    sentence: str
    holds: dict[float, np.ndarray] = field(default_factory=dict)
    of_model: bool = True

    @property
    def examples(self) -> int:
        """N, which may be fewer than were attacked."""
        return len(next(iter(self.holds.values()), ()))


@dataclass(frozen=True)
class Smoothing:
    """sigma and votes of randomised smoothing, on how many of the examples it is tried, and the seed of its noise."""

    sigma: float
    draws: int
    samples: int
    seed: int


class Network(Protocol):
    """From inputs (N, T, I) to logits (N, classes), by layers of cells and a linear decoder."""

    decoder: nn.Linear

    def cell_list(self) -> list[Cell]: ...

    def is_chain(self) -> bool: ...

    def __call__(self, x: Tensor, lengths: Tensor | None = None) -> Tensor: ...


def certificates(
    network: Network, examples: Examples, sizes: Mapping[float, Sequence[float]], smoothing: Smoothing
) -> list[Certificate]:
    """Lipschitz (L2), interval (L-inf) and smoothing (L2) certificates of one label, at the sizes of either norm."""
    found = []
    if 2.0 in sizes:
        found += [_lipschitz(network, examples, sizes[2.0]), _smoothing(network, examples, sizes[2.0], smoothing)]
    if math.inf in sizes:
        found.append(_intervals(network, examples, sizes[math.inf]))
    return found


def _single_cell(network: Network) -> None:
    if not network.is_chain():
        raise UserError("the model has more between inputs, cell and decoder, but this bound is for a single cell.")
    layers = len(network.cell_list())
    if layers > 1:
        raise UserError(f"the model has {layers} layers, but this bound is for one.")


def _lipschitz(network: Network, e: Examples, sizes: Sequence[float]) -> Certificate:
    try:
        _single_cell(network)
        bound = lipschitz_bound(network.cell_list()[0], network.decoder, e.x.shape[1])
    except UserError as error:
        return Certificate("lipschitz", 2.0, f"Does not apply: {error}")
    with torch.no_grad():
        logits = torch.cat([read(network, batch.x, batch.lengths) for batch in e.batches()])
    radius = certified_radius(-margin(logits.double(), e.y).cpu().numpy(), bound)
    words = f"The logits are {bound:.4g}-Lipschitz in the sequence; median certified L2 radius {np.median(radius):.3g}."
    return Certificate("lipschitz", 2.0, words, {eps: radius > eps for eps in sizes})


@torch.no_grad()
def _intervals(network: Network, examples: Examples, sizes: Sequence[float]) -> Certificate:
    cell, decoder = network.cell_list()[0], network.decoder
    holds: dict[float, np.ndarray] = {}
    try:
        _single_cell(network)
        if examples.lengths is not None:
            raise UserError("the sequences have unequal lengths, but this bound is for equal ones.")
        for eps in sizes:
            certain = []
            for e in examples.batches():
                assert e.bounds is not None
                low, high = (torch.where(e.mask, (e.x + d).clamp(*e.bounds), e.x) for d in (-eps, eps))
                z_low, z_high = interval_bounds(cell, decoder, low, high)
                own = torch.nn.functional.one_hot(e.y, z_low.shape[1]).bool()
                certain.append(z_low[own] > z_high.masked_fill(own, -math.inf).amax(1))
            holds[eps] = torch.cat(certain).cpu().numpy()
    except UserError as error:
        return Certificate("interval", math.inf, f"Does not apply: {error}")
    return Certificate("interval", math.inf, "Intervals carried through all steps, box and mask respected.", holds)


def _smoothing(network: Network, e: Examples, sizes: Sequence[float], chosen: Smoothing) -> Certificate:
    count = min(chosen.samples, len(e.x))
    if count == 0:
        return Certificate("smoothing", 2.0, "Not asked for: --smoothing_samples is 0.", of_model=False)
    found = smooth_certify(network, e.x[:count], chosen.sigma, n=chosen.draws, seed=chosen.seed, lengths=e.lengths)
    right = found.label == e.y[:count].cpu().numpy()
    words = (
        f"Of the smoothed classifier, not of the model: sigma {chosen.sigma:g}, {chosen.draws:,} votes, "
        f"the first {count} examples, each statement at 99.9 % confidence."
    )
    return Certificate("smoothing", 2.0, words, {eps: right & (found.radius > eps) for eps in sizes}, of_model=False)


def soundness(found: Sequence[Certificate], results: Sequence[AttackResult]) -> Check:
    """That no attack fooled an example where a certificate of the model says that none can."""
    name = "no attack beats a certificate"
    pairs = [
        (certificate, result, result.fooled & certificate.holds[result.eps])
        for certificate in found
        for result in results
        if certificate.of_model and result.norm == certificate.norm and result.eps in certificate.holds
    ]
    if not pairs:
        return Check(name, None, "Not checked: no certificate of the model applies.")
    wrong = [
        f"{result.attack} fools {beaten.sum()} examples that {certificate.name} certifies at eps {result.eps:g}: "
        "one of the two is wrong."
        for certificate, result, beaten in pairs
        if beaten.any()
    ]
    return Check(name, not wrong, " ".join(wrong) or "No attack fools an example that is certified.")
