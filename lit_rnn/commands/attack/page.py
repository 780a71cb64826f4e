"""An evaluation as a table in the terminal and as a page."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from lit_rnn.commands.attack.measure import Outcome
from lit_rnn.commands.attack.words import NORM_WORDS, SPECTRAL, certified_name, percent, size_words
from lit_rnn.report.page import Page
from lit_rnn.report.tables import Table
from lit_rnn.robustness import ATTACKS, AttackResult, Check
from lit_rnn.robustness.worst import CONFIDENCE, adversarial, interval

_INTERVAL = f"Clopper-Pearson, {CONFIDENCE:.0%}"
_TIME = (
    "Share of |change| (L∞), of its square (L2), or of the swaps, over examples fooled. Gradients that are exactly 0 "
    "are counted from the first input of an example that is not 0."
)
_WORST = (
    "The worst case takes, for each example, whichever attack fooled it, at this size or at a smaller one: what is "
    "allowed there is allowed here."
)
_SYMBOLS = dict(zip(SPECTRAL, ("ρ", "σ", "d", "ρ_ε"), strict=True))


def table_of(outcome: Outcome, norm: float | str) -> Table:
    """One norm: accuracy in percent by attack, then worst case, its interval and certificates.

    The norm ``noise`` stands for all that has no adversary.
    """
    results = [r for r in outcome.results if (r.norm == norm if norm != "noise" else not adversarial(r))]
    sizes = sorted({r.eps for r in results})
    rows = [[_row_name(name, norm), *_cells(results, name, sizes)] for name in dict.fromkeys(r.attack for r in results)]
    if norm != "noise":
        worst = outcome.worst(norm)
        ranges = [interval(w.fooled) for w in worst]
        rows.append(["worst case", *(percent((~w.fooled).mean()) for w in worst)])
        rows.append(["  at least", *(percent(low) for low, _ in ranges)])
        rows.append(["  at most", *(percent(high) for _, high in ranges)])
        rows += [
            [
                certified_name(c, outcome) + ("" if c.of_model else " *"),
                *(_certified(c.holds.get(eps)) for eps in sizes),
            ]
            for c in outcome.certificates
            if c.norm == norm and c.holds
        ]
    title = "Accuracy in %, " + NORM_WORDS.get(norm, "under noise, which has no adversary")
    first = f"{NORM_WORDS[norm]} ≤" if norm != "noise" else "noise of size"
    return Table([first, *map(size_words, sizes)], rows, title=title, bold=["worst case"])


def _row_name(name: str, norm: float | str) -> str:
    return f"{name}, {ATTACKS[name].unit}" if norm == "noise" else name


def _cells(results: Sequence[AttackResult], name: str, sizes: Sequence[float]) -> list[str]:
    found = {r.eps: percent(1 - r.success) for r in results if r.attack == name}
    return [found.get(eps, "") for eps in sizes]


def _certified(holds: np.ndarray | None) -> str:
    return "" if holds is None else percent(float(holds.mean()))


def _norms(outcome: Outcome) -> list[float | str]:
    noise = any(not adversarial(result) for result in outcome.results)
    return [*(["noise"] if noise else []), *outcome.norms]


def failed(checks: Sequence[Check]) -> list[Check]:
    return [check for check in checks if check.passed is False]


def matrix_table(outcome: Outcome, names: Mapping[str, str] = SPECTRAL) -> Table:
    """Spectral numbers by recurrent matrix; ``names`` stand above the columns."""
    shown = [key for key in SPECTRAL if any(key in numbers for numbers in outcome.matrices.values())]
    rows = [[name, *(numbers[key] for key in shown)] for name, numbers in outcome.matrices.items()]
    return Table(["matrix", *(names[key] for key in shown)], rows)


def sentences(outcome: Outcome) -> list[str]:
    """The threat model, and how to read the numbers."""
    subject = outcome.subject
    e = subject.examples
    allowed = (
        "Every entry may be changed"
        if e.free == 1
        else f"{e.free:.1%} of the entries may be changed: those that do not decide the answer"
    )
    lines = [
        f"{len(e.x)} examples of the {subject.split} split, {percent(1 - outcome.clean.success)} % right without an "
        f"attack. Untargeted, white box (noise and searches see less). {allowed}.",
    ]
    if subject.symbols == "swaps":
        lines.append(
            "Symbols are attacked by swaps: ε counts the symbols of a sequence that are changed, to any other."
        )
    elif subject.symbols == "embedding":
        lines.append(
            "Symbols are attacked in embedding space: their one-hot vectors are moved, to points that no symbol has. "
            f"Two symbols are {math.sqrt(2):.3g} apart in L2."
        )
    elif e.bounds is not None:
        read = ", read off the examples" if subject.measured_bounds else ""
        lines.append(f"Inputs stay in [{e.bounds[0]:.4g}, {e.bounds[1]:.4g}]{read}; ε is in their own units.")
    if subject.task.per_step:
        lines.append("A sequence counts as right when every step that is judged is.")
    elif not e.classes:
        error = f"mean squared error {outcome.clean.loss.mean():.3g} without an attack"
        lines.append(f"A prediction off by more than the tolerance counts as fooled; {error}.")
    lines.append(f"Intervals: {_INTERVAL}, for the choice of examples only.")
    return lines


def show(outcome: Outcome, console: Console) -> None:
    """The tables, the checks that failed, and what certificates say."""
    console.print(f"\n{outcome.subject.title}: accuracy in % under attack", style="bold", highlight=False)
    for line in sentences(outcome):
        console.print(line, highlight=False)
    for norm in _norms(outcome):
        console.print(table_of(outcome, norm).terminal())
    if any(not c.of_model for c in outcome.certificates if c.holds):
        console.print("* of the smoothed classifier, not of the model", highlight=False)
    if outcome.matrices:
        table = matrix_table(outcome, _SYMBOLS)
        console.print(table.terminal())
        legend = "; ".join(f"{symbol} {SPECTRAL[key]}" for key, symbol in _SYMBOLS.items() if symbol in table.header)
        console.print(f"{legend}\n", highlight=False)
    wrong = failed(outcome.checks)
    for check in wrong:
        console.print(f"check failed, {check.name}: {check.sentence}", style="yellow", highlight=False)
    counts = f"{sum(c.passed is True for c in outcome.checks)} passed, {len(wrong)} failed"
    console.print(f"checks of Carlini et al. and of the certificates: {counts}", highlight=False)


def write_page(outcome: Outcome, pictures: Mapping[str, Path], about: Mapping[str, Any], path: Path) -> None:
    """attack.html, with everything in it."""
    page = Page(f"{outcome.subject.title} under attack")
    for line in sentences(outcome):
        page.text(line)
    for check in failed(outcome.checks):
        page.text(f"{check.name}: {check.sentence}", warning=True)
    page.section("Accuracy against size")
    page.picture(pictures["accuracy"], _WORST)
    for norm in _norms(outcome):
        page.table(table_of(outcome, norm))
    page.section("Perturbed inputs")
    page.picture(pictures["inputs"])
    page.section("Where in time")
    page.picture(pictures["time"], _TIME)
    if outcome.matrices:
        page.section("Recurrent matrices")
        page.text(
            "W is not the system: gates, activations and inputs decide too. Radius and norm are different things."
        )
        page.table(matrix_table(outcome))
        page.picture(pictures["spectrum"])
    page.section("Certificates")
    for certificate in outcome.certificates:
        page.text(f"{certificate.name} ({NORM_WORDS[certificate.norm]}): {certificate.sentence}")
    if not outcome.certificates:
        page.text("None: they are for values in and one label out.")
    page.section("Is the evaluation honest?")
    checks = [[check.name, _mark(check), check.sentence] for check in outcome.checks]
    page.table(Table(["check", "", "what was seen"], checks, texts=3))
    page.section("Attacks")
    settings = {r.attack: r.settings for r in outcome.results}
    attacks = [[name, ATTACKS[name].words, used] for name, used in settings.items()]
    page.table(Table(["attack", "what it does", "settings"], attacks, texts=3))
    page.table(Table(["", ""], list(about.items()), texts=2, title="Where the numbers come from"))
    page.save(path)


def _mark(check: Check) -> str:
    return {True: "passed", False: "FAILED", None: "not checked"}[check.passed]
