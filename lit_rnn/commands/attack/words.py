"""How numbers and names of an evaluation are said."""

from __future__ import annotations

import math

from lit_rnn.commands.attack.measure import PSEUDO_EPS, Outcome
from lit_rnn.robustness.certified import Certificate

NORM_WORDS: dict[float | str, str] = {math.inf: "L∞", 2.0: "L2", "swaps": "swapped symbols"}
SPECTRAL = {
    "spectral_radius": "spectral radius",
    "spectral_norm": "spectral norm",
    "henrici": "Henrici / |W|_F",
    "pseudospectral_radius": f"pseudospectral radius ({PSEUDO_EPS:g})",
}


def size_words(eps: float) -> str:
    """0.00784 as 2/255, which is what it is; others in three digits."""
    whole = eps * 255
    return f"{round(whole)}/255" if 0 < eps < 0.05 and abs(whole - round(whole)) < 1e-6 else f"{eps:.3g}"


def certified_name(certificate: Certificate, outcome: Outcome) -> str:
    """Smoothing may be tried on fewer examples than were attacked; a share of those is a share of something else."""
    few = certificate.examples < len(outcome.clean.fooled)
    return f"certified {certificate.name}" + (f", first {certificate.examples} only" if few else "")


def percent(share: float) -> str:
    return f"{100 * share:.1f}"
