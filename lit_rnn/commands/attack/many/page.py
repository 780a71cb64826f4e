"""One table from the attack reports of many runs, in the terminal and as a page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from lit_rnn.commands.attack.many.findings import findings, short, words_of
from lit_rnn.commands.attack.many.measure import Row, correlations, numeric, over_seeds, row_of, shown_sizes
from lit_rnn.commands.attack.many.pictures import draw
from lit_rnn.commands.attack.words import SPECTRAL, percent
from lit_rnn.files import file_name, in_whole, read_json, write_csv, write_json
from lit_rnn.report.page import Page
from lit_rnn.report.tables import Table, lacking, spread


def table_of(settings: Sequence[Row], columns: Sequence[str], title: str = "") -> Table:
    """Some columns: accuracies in percent, other numbers as they are."""
    header = ["setting", "runs", *map(words_of, columns)]
    rows = [[short(s["setting"]), s["runs"], *(_spread(s, key) for key in columns)] for s in settings]
    return Table(header, rows, title=title)


def _spread(summary: Mapping[str, Any], key: str) -> str:
    """Mean and, over several seeds, standard deviation; how many have the number where some have not."""
    mean, std = summary.get(key), summary.get(f"{key}_std")
    if mean is None:
        return "beyond" if key.startswith("half_") and summary["clean"] else ""  # 0 has no half
    if key == "clean" or key.startswith("worst_"):
        return percent(mean) if std is None else f"{percent(mean)} ± {percent(std)}"
    return spread(mean, std) + lacking(summary[f"{key}_number"], summary["runs"])


def _row(run: Path) -> Row:
    path = run / "attack" / "attack.json"
    report = read_json(path)
    with in_whole(path):
        return row_of(run, report)


def collect(runs: Sequence[Path], out: Path, console: Console) -> None:
    """The table of all reports in the terminal, attack_study.csv, .json, .png and .html in ``out``."""
    rows = [_row(run) for run in runs]
    settings = over_seeds(rows)
    out.mkdir(parents=True, exist_ok=True)
    page = Page("Many runs under attack")
    page.text(
        "Accuracies in %, the worst case per example, mean ± standard deviation over seeds. ε½: the size at which the "
        "worst case has lost half of the clean accuracy; a run that has not at any size is no part of the mean. "
        "Spectral numbers are the largest of a model's recurrent matrices. In the spirit of Sengupta and Friston 2018, "
        "whose own tables could not be checked."
    )
    for task in dict.fromkeys(row["task"] for row in rows):
        ours, singles = ([r for r in some if r["task"] == task] for some in (settings, rows))
        both, fallen = shown_sizes(ours)
        halves = [key for key in numeric(ours) if key.startswith("half_")]
        spectral = [key for key in SPECTRAL if any(s.get(key) is not None for s in ours)]
        narrow = ["clean", *fallen, *halves, "failed_checks"]
        console.print(table_of(ours, narrow, f"{task}: accuracy in %").terminal())
        console.print(table_of(ours, spectral, f"{task}: recurrent matrices").terminal())
        page.section(task)
        page.table(table_of(ours, ["clean", *both, *halves, *spectral, "failed_checks"]))
        for line in findings(ours):
            console.print(line, highlight=False)
            page.text(line)
        picture = out / file_name(f"attack_study_{task}.png")
        draw(task, ours, singles, picture)
        page.picture(picture)
        ranks = [[words_of(a), words_of(b), f"{r:+.2f}", f"{p:.2g}", n] for a, b, r, p, n in correlations(singles)]
        if ranks:
            page.table(Table(["rank correlation of", "with", "Spearman", "p", "runs"], ranks, texts=2))
        console.print(f"picture: {picture}", highlight=False, soft_wrap=True)
    page.save(out / "attack_study.html")
    write_json(out / "attack_study.json", {"settings": settings, "runs": rows})
    write_csv(out / "attack_study.csv", rows)
    names = ", ".join(str(out / f"attack_study.{kind}") for kind in ("html", "json", "csv"))
    console.print(f"report: {names}", highlight=False, soft_wrap=True)
