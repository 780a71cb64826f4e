"""One table from the attack reports of many runs, in the terminal and as a page."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from lit_rnn.commands.attack.many.findings import findings, short, words_of
from lit_rnn.commands.attack.many.measure import Row, correlations, numeric, over_seeds, row_of, shown_sizes
from lit_rnn.commands.attack.many.pictures import draw
from lit_rnn.commands.attack.words import SPECTRAL, percent
from lit_rnn.files import file_name, read_json, write_csv
from lit_rnn.report.page import Page


def table_rows(settings: Sequence[Row], columns: Sequence[str]) -> tuple[list[str], list[list[str]]]:
    """Header and rows of some columns: accuracies in percent, other numbers as they are."""
    header = ["setting", "runs", *map(words_of, columns)]
    rows = [[short(s["setting"]), str(s["runs"]), *(_spread(s, key) for key in columns)] for s in settings]
    return header, rows


def _spread(summary: Mapping[str, Any], key: str) -> str:
    """Mean and, over several seeds, standard deviation."""
    mean, std = summary.get(key), summary.get(f"{key}_std")
    if mean is None:
        return "beyond" if key.startswith("half_") else ""
    if key == "clean" or key.startswith("worst_"):
        return percent(mean) if std is None else f"{percent(mean)}±{percent(std)}"
    return f"{mean:.3g}" if std is None else f"{mean:.3g}±{std:.1g}"


def collect(runs: Sequence[Path], out: Path, console: Console) -> None:
    """The table of all reports in the terminal, attack_study.csv, .json, .png and .html in ``out``."""
    rows = [row_of(run, read_json(run / "attack" / "attack.json")) for run in runs]
    settings = over_seeds(rows)
    out.mkdir(parents=True, exist_ok=True)
    page = Page("Many runs under attack")
    page.text(
        "Accuracies in %, the worst case per example, mean ± standard deviation over seeds. ε½: the size at which the "
        "worst case has lost half of the clean accuracy. Spectral numbers are the largest of a model's recurrent "
        "matrices. In the spirit of Sengupta and Friston 2018, whose own tables could not be checked."
    )
    for task in dict.fromkeys(row["task"] for row in rows):
        ours, singles = ([r for r in some if r["task"] == task] for some in (settings, rows))
        both, fallen = shown_sizes(ours)
        halves = [key for key in numeric(ours) if key.startswith("half_")]
        spectral = [key for key in SPECTRAL if any(s.get(key) is not None for s in ours)]
        console.print(
            _terminal(f"{task}: accuracy in %", *table_rows(ours, ["clean", *fallen, *halves, "failed_checks"]))
        )
        console.print(_terminal(f"{task}: recurrent matrices", *table_rows(ours, spectral)))
        page.section(task)
        page.table(*table_rows(ours, ["clean", *both, *halves, *spectral, "failed_checks"]))
        for line in findings(ours):
            console.print(line, highlight=False)
            page.text(line)
        picture = out / file_name(f"attack_study_{task}.png")
        draw(task, ours, singles).savefig(picture, dpi=120)
        page.picture(picture)
        page.table(
            ["rank correlation of", "with", "Spearman", "p", "runs"],
            [[words_of(a), words_of(b), f"{r:+.2f}", f"{p:.2g}", str(n)] for a, b, r, p, n in correlations(singles)],
        )
        console.print(f"picture: {picture}", highlight=False, soft_wrap=True)
    page.save(out / "attack_study.html")
    (out / "attack_study.json").write_text(json.dumps({"settings": settings, "runs": rows}, indent=1) + "\n")
    write_csv(out / "attack_study.csv", rows)
    names = ", ".join(str(out / f"attack_study.{kind}") for kind in ("html", "json", "csv"))
    console.print(f"report: {names}", highlight=False, soft_wrap=True)


def _terminal(title: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 0, 0, 1), title=title, title_justify="left")
    for number, name in enumerate(header):
        table.add_column(name, justify="right" if number else "left", overflow="fold", no_wrap=number == 0)
    for row in rows:
        table.add_row(*row)
    return table
