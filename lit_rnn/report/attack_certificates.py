"""The certificates that apply to a model, as accuracies that no attack can go below."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from datamodules import UserError
from lit_rnn.report.attack_subject import Subject
from lit_rnn.robustness import AttackResult, Check, certified_radius, interval_bounds, lipschitz_bound, smooth_certify


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


def certificates(subject: Subject, sizes: Mapping[float, Sequence[float]], smoothing: Smoothing) -> list[Certificate]:
    """Lipschitz (L2), interval (L-inf) and smoothing (L2) certificates at the sizes of either norm."""
    task = subject.task
    if subject.symbols is not None or task.targets != "label":
        return []
    found = []
    if 2.0 in sizes:
        found += [_lipschitz(subject, sizes[2.0]), _smoothing(subject, sizes[2.0], smoothing)]
    if math.inf in sizes:
        found.append(_intervals(subject, sizes[math.inf]))
    return found


@dataclass(frozen=True)
class Smoothing:
    """sigma and votes of randomised smoothing, and on how many of the examples it is tried."""

    sigma: float
    draws: int
    samples: int


def _single_cell(subject: Subject) -> None:
    layers = len(subject.model.cell_list())
    if layers > 1:
        raise UserError(f"the model has {layers} layers, but this bound is for one.")


def _margins(logits: Tensor, y: Tensor) -> Tensor:
    own = torch.nn.functional.one_hot(y, logits.shape[1]).bool()
    return logits[own] - logits.masked_fill(own, -math.inf).amax(1)


def _lipschitz(subject: Subject, sizes: Sequence[float]) -> Certificate:
    e = subject.examples
    try:
        _single_cell(subject)
        bound = lipschitz_bound(subject.model.cell_list()[0], subject.model.decoder, e.x.shape[1])
    except UserError as error:
        return Certificate("lipschitz", 2.0, f"Does not apply: {error}")
    with torch.no_grad():
        logits = torch.cat([subject.model(batch.x) for batch in e.batches()])
    radius = certified_radius(_margins(logits.double(), e.y).cpu().numpy(), bound)
    words = f"The logits are {bound:.4g}-Lipschitz in the sequence; median certified L2 radius {np.median(radius):.3g}."
    return Certificate("lipschitz", 2.0, words, {eps: radius > eps for eps in sizes})


@torch.no_grad()
def _intervals(subject: Subject, sizes: Sequence[float]) -> Certificate:
    cell, decoder = subject.model.cell_list()[0], subject.model.decoder
    holds: dict[float, np.ndarray] = {}
    try:
        _single_cell(subject)
        for eps in sizes:
            certain = []
            for e in subject.examples.batches():
                assert e.bounds is not None
                low, high = (torch.where(e.mask, (e.x + d).clamp(*e.bounds), e.x) for d in (-eps, eps))
                z_low, z_high = interval_bounds(cell, decoder, low, high)
                own = torch.nn.functional.one_hot(e.y, z_low.shape[1]).bool()
                certain.append(z_low[own] > z_high.masked_fill(own, -math.inf).amax(1))
            holds[eps] = torch.cat(certain).cpu().numpy()
    except UserError as error:
        return Certificate("interval", math.inf, f"Does not apply: {error}")
    return Certificate("interval", math.inf, "Intervals carried through all steps, box and mask respected.", holds)


def _smoothing(subject: Subject, sizes: Sequence[float], chosen: Smoothing) -> Certificate:
    e = subject.examples
    count = min(chosen.samples, len(e.x))
    if count == 0:
        return Certificate("smoothing", 2.0, "Not asked for: --smoothing_samples is 0.", of_model=False)
    found = smooth_certify(subject.model, e.x[:count], chosen.sigma, n=chosen.draws)
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
