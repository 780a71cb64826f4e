"""What `analyze` found, as rows of a table, as JSON, and as arrays."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lit_rnn.commands.analyze.measure import EPS, Finding
from lit_rnn.files import write_arrays, write_file
from lit_rnn.report.tables import Table, number

Findings = Mapping[str, Mapping[str, Finding]]  # by matrix, by moment

_BULK = {"matrix", "sigma", "schur", "jacobian_singular_values"}  # n^2 numbers: not in the JSON
_BULK |= {"fixed_points", "fixed_eigenvalues", "plane_trajectories"}

_NUMBERS = {  # key: symbol, name
    "spectral_radius": ("ρ", "spectral radius, the largest |eigenvalue|"),
    "spectral_norm": ("σ", "spectral norm, the largest singular value"),
    "numerical_radius": ("w", "numerical radius"),
    "henrici": ("d", "Henrici's departure from normality"),
    "henrici_normalized": ("d/|W|", "d over the Frobenius norm"),
    "eigenvector_condition": ("κ(V)", "condition of the eigenvectors"),
    **{f"pseudospectral_radius_{eps:g}": (f"ρ_{eps:g}", f"pseudospectral radius, ε = {eps:g}") for eps in EPS},
    "distance_to_instability": ("β", "distance to instability"),
    "kreiss_lower_bound": ("K", "Kreiss constant, a lower bound"),
    "largest_power": ("|W^k|", "the largest of its powers"),
    "fisher_total": ("J", "total Fisher memory"),
    "largest_lyapunov": ("λ1", "largest Lyapunov exponent"),
    "gradient_kept": ("", "gradient as far back as all sequences go, over that at the last step"),
    "zero_gradients": ("", "share of gradients that are exactly zero"),
    "saturated": ("", "share of saturated units"),
    "fixed_count": ("", "fixed points"),
    "stable_count": ("", "of them stable"),
    "marginal_count": ("", "of them on the unit circle"),
    "unstable_count": ("", "of them unstable"),
    "slow_count": ("", "slow points"),
    "probe_accuracy": ("", "linear probe, held-out accuracy at steps as trained"),
    "probe_beyond": ("", "the same at later steps"),
    "probe_chance": ("", "chance"),
}
_DIGITS = {"spectral_radius": 4, "pseudospectral_radius_0.01": 4}  # on which side of 1, matters
_NARROW = (  # what a terminal has room for
    "spectral_radius",
    "spectral_norm",
    "henrici_normalized",
    "eigenvector_condition",
    "pseudospectral_radius_0.01",
    "distance_to_instability",
    "kreiss_lower_bound",
    "largest_power",
    "largest_lyapunov",
)


def rows(by_moment: Mapping[str, Finding]) -> Table:
    """All numbers of one matrix: a row per number, a column per moment."""
    there = [key for key in _NUMBERS if any(key in finding for finding in by_moment.values())]
    lines = [
        [" ".join(reversed(_NUMBERS[key])), *(float(f[key]) if key in f else None for f in by_moment.values())]
        for key in there
    ]
    return Table(["", *by_moment], lines)


def table(findings: Findings) -> tuple[Table, str]:
    """The most telling numbers of all matrices, a row for each moment; and a legend of the symbols."""
    every = [finding for by_moment in findings.values() for finding in by_moment.values()]
    shown = [key for key in _NARROW if any(key in finding for finding in every)]
    lines = []
    for name, by_moment in findings.items():
        if not any(key in finding for key in shown for finding in by_moment.values()):
            continue
        lines.append([name, *("" for _ in shown)])
        for moment, finding in by_moment.items():
            cells = (number(finding[key], _DIGITS.get(key, 3)) if key in finding else "" for key in shown)
            lines.append([f" {moment}", *cells])
    symbols = [_NUMBERS[key][0] for key in shown]
    return Table(["", *symbols], lines, bold=list(findings)), "; ".join(" ".join(_NUMBERS[key]) for key in shown)


def remarks(by_moment: Mapping[str, Finding]) -> list[str]:
    """What a number of a matrix or a layer means, in a sentence, all moments in one."""
    sentences = []
    for tell, key in ((_of_newton, "largest_lyapunov"), (_of_points, "fixed_count"), (_of_probe, "probe_accuracy")):
        told = [f"{tell(finding)} ({moment})" for moment, finding in by_moment.items() if key in finding]
        if told:
            sentences.append(f"{_HEADS[key]} {'; '.join(told)}.")
    return sentences


_HEADS = {
    "largest_lyapunov": "Newton's method for all steps in parallel (Lim et al. 2024; Gonzalez et al. 2025):",
    "fixed_count": "Fixed and slow points:",
    "probe_accuracy": "A linear probe of the state",
}


def _of_newton(finding: Finding) -> str:
    """Whether errors of a guess at all states shrink as they go through the steps, or grow."""
    if finding["affine"]:
        return "one iteration, as the cell is linear in its state"
    exponent, steps = finding["largest_lyapunov"], len(finding["gradient"])
    with np.errstate(over="ignore"):
        factor = number(float(np.exp(exponent * steps)), 2)
    slow = "not below 0: it may need an iteration for each step"
    verdict = "below 0, so that it converges fast" if exponent < 0 else slow
    return f"λ1 is {number(exponent, 3)}, {verdict}; over {steps} steps errors become {factor} times as large"


def _of_points(finding: Finding) -> str:
    kinds = ("stable", "marginal", "unstable", "slow")
    counts = [f"{finding[f'{kind}_count']} {kind}" for kind in kinds if finding[f"{kind}_count"]]
    return f"{', '.join(counts) or 'none'}, the input held at {finding['held_input']}"


def _of_probe(finding: Finding) -> str:
    accuracy, beyond, chance = (number(finding[f"probe_{key}"], 3) for key in ("accuracy", "beyond", "chance"))
    kept, steps = finding["probe_elements"], finding["probe_trained"]
    return f"tells {kept} elements apart with accuracy {accuracy} up to step {steps}, {beyond} beyond, chance {chance}"


def plain(value: Any) -> Any:
    """A value as JSON has it: complex numbers as [Re, Im], infinity as text, NaN as null."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, complex):
        return [plain(value.real), plain(value.imag)]
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else "infinity" if value > 0 else "-infinity"
    return value


def _json(value: Any, indent: str = "") -> str:
    """JSON with a line for each key, and every list on one."""
    if not isinstance(value, dict) or not value:
        return json.dumps(value, allow_nan=False, ensure_ascii=False)
    inner = indent + " "
    lines = [f"{inner}{json.dumps(key, ensure_ascii=False)}: {_json(item, inner)}" for key, item in value.items()]
    return "{\n" + ",\n".join(lines) + f"\n{indent}}}"


def save(head: Mapping[str, Any], findings: Findings, left_out: Sequence[str], folder: Path) -> list[Path]:
    """analysis.json with all numbers, and analysis.npz with what is as large as a matrix; the paths of both."""
    small = {
        name: {m: {key: v for key, v in finding.items() if key not in _BULK} for m, finding in moments.items()}
        for name, moments in findings.items()
    }
    text = _json(plain({**head, "left_out": left_out, "matrices": small}))
    numbers, arrays = folder / "analysis.json", folder / "analysis.npz"
    write_file(numbers, text + "\n")
    bulk = {
        f"{name}/{moment}/{key}": finding[key]
        for name, moments in findings.items()
        for moment, finding in moments.items()
        for key in sorted(_BULK)
        if key in finding
    }
    write_arrays(arrays, bulk, compressed=True)
    return [numbers, arrays]
