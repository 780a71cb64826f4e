"""One table from the attack reports of many runs: mean and spread over seeds, and what robustness goes along with."""

from __future__ import annotations

import csv
import itertools
import json
import math
import re
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from scipy.stats import spearmanr

from datamodules import UserError
from lit_rnn.files import file_name, read_json
from lit_rnn.report.attack_page import SPECTRAL, percent, size_words
from lit_rnn.report.page import Page

Report = dict[str, Any]
Row = dict[str, Any]

_NORM_WORDS = {"inf": "L∞", "2": "L2", "swaps": "swaps"}
_HIGH, _ROBUST = 0.9, 0.5


def finished_runs(folders: Sequence[Path]) -> list[Path]:
    """The run folders below some study folders, in the order of the study, or by name.

    Raises:
        UserError: if a folder holds none.
    """
    runs: list[Path] = []
    for folder in folders:
        found = sorted(path.parent for path in folder.glob("*/fit.json"))
        if not found:
            raise UserError(f"--study {folder} holds no finished run (no */fit.json): name the folder of a study.")
        plan = folder / "plan.json"
        order = list(read_json(plan)) if plan.is_file() else []
        runs += sorted(found, key=lambda run: order.index(run.name) if run.name in order else len(order))
    return runs


def setting_of(run: Path) -> tuple[str, str]:
    """The setting and the seed of a study's run folder; a folder of another name is a setting by itself."""
    setting, mark, seed = run.name.rpartition("-seed=")
    return (setting, seed) if mark else (run.name, "")


# ---- numbers


def half_size(report: Report, norm: str) -> float | None:
    """The size at which the worst case has lost half of the clean accuracy, between the sizes of the table linearly.

    None where no size of the table does it, or nothing is right to begin with.
    """
    start = report["clean"]["accuracy"]
    points = [(0.0, start)] + [(w["eps"], w["accuracy"]) for w in report["worst_case"] if w["norm"] == norm]
    for (low, above), (high, below) in itertools.pairwise(points):
        if start > 0 and below <= start / 2:
            return low + (high - low) * (above - start / 2) / (above - below)
    return None


def row_of(run: Path, report: Report) -> Row:
    """What the table keeps of one report; of several matrices, such as gates, the largest number."""
    setting, seed = setting_of(run)
    norms = list(dict.fromkeys(w["norm"] for w in report["worst_case"]))
    return {
        "run": str(run),
        "setting": setting,
        "seed": seed,
        "task": report["task"],
        "model": report["model"],
        "samples": report["samples"],
        "clean": report["clean"]["accuracy"],
        **{f"worst_{w['norm']}_{w['eps']:.9g}": w["accuracy"] for w in report["worst_case"]},
        **{f"half_{norm}": half_size(report, norm) for norm in norms},
        **{
            key: max(numbers[key] for numbers in report["matrices"].values())
            for key in SPECTRAL
            if any(key in numbers for numbers in report["matrices"].values())
        },
        "failed_checks": sum(check["passed"] is False for check in report["checks"]),
    }


def over_seeds(rows: Sequence[Row]) -> list[Row]:
    """Mean and sample standard deviation over the seeds of each setting on each task."""
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((row["task"], row["setting"]), []).append(row)
    found = []
    for (task, setting), ours in groups.items():
        summary: Row = {"task": task, "setting": setting, "model": ours[0]["model"], "runs": len(ours)}
        for key in numeric(ours):
            numbers = [row[key] for row in ours if row.get(key) is not None]
            summary[key] = statistics.fmean(numbers) if numbers else None
            summary[f"{key}_std"] = statistics.stdev(numbers) if len(numbers) > 1 else None
        found.append(summary)
    return found


def numeric(rows: Sequence[Row]) -> list[str]:
    """The columns of numbers, in order."""
    names = ("clean", "worst_", "half_", *SPECTRAL, "failed_checks")
    keys = dict.fromkeys(key for row in rows for key in row)
    return [key for key in keys if key.startswith(names) and not key.endswith("_std")]


def shown_sizes(rows: Sequence[Row]) -> tuple[list[str], list[str]]:
    """Of each norm, the columns of the largest size at which half of the examples stand on average, and of the next.

    The first list holds both, the second those at which fewer than half stand.
    """
    columns = [key for key in numeric(rows) if key.startswith("worst_") and all(key in row for row in rows)]
    both: list[str] = []
    fallen: list[str] = []
    for norm in dict.fromkeys(key.split("_")[1] for key in columns):
        ours = [key for key in columns if key.split("_")[1] == norm]
        below = [statistics.fmean(row[key] for row in rows) < 0.5 for key in ours]
        first = below.index(True) if any(below) else len(ours) - 1
        both += ours[max(0, first - 1) : first + 1]
        fallen.append(ours[first])
    return both, fallen


def short(setting: str) -> str:
    """A setting without the names of what varies: gru-recurrent_constraint=none as gru, none."""
    return re.sub(r"-\w+=", ", ", setting)


def words_of(column: str) -> str:
    """A column's name as a person reads it."""
    kind, _, rest = column.partition("_")
    if kind == "worst":
        norm, _, eps = rest.partition("_")
        return f"{_NORM_WORDS[norm]} {size_words(float(eps))}"
    return f"ε½ {_NORM_WORDS[rest]}" if kind == "half" else SPECTRAL.get(column, column.replace("_", " "))


# ---- what goes along with what


def correlations(rows: Sequence[Row]) -> list[tuple[str, str, float, float, int]]:
    """Spearman's rank correlation of ε½ with each spectral number over runs: columns, value, p, number of runs."""
    found = []
    for half in [key for key in numeric(rows) if key.startswith("half_")]:
        for key in SPECTRAL:
            pairs = [(row[key], row[half]) for row in rows if row.get(key) is not None and row.get(half) is not None]
            if len(pairs) < 4 or any(len(set(side)) < 2 for side in zip(*pairs, strict=True)):
                continue
            result = spearmanr(*zip(*pairs, strict=True))
            found.append((half, key, float(result.statistic), float(result.pvalue), len(pairs)))
    return found


def findings(settings: Sequence[Row]) -> list[str]:
    """The three claims of Sengupta and Friston 2018, asked of these settings; counts, not conclusions."""
    lines = []
    _, fallen = shown_sizes(settings)
    accurate = [s for s in settings if s["clean"] >= _HIGH]
    inside = [s for s in accurate if s.get("spectral_radius", math.inf) <= 1 + 1e-3]
    for key in fallen:
        weak, weak_inside = ([s for s in some if s[key] < _ROBUST] for some in (accurate, inside))
        lines.append(
            f"Of {len(accurate)} settings that are at least {_HIGH:.0%} right as they are, {len(weak)} fall below "
            f"{_ROBUST:.0%} at {words_of(key)}; of the {len(inside)} of them whose recurrent matrices all have "
            f"spectral radius at most 1, {len(weak_inside)}."
        )
    departures = [s["henrici"] for s in settings if s.get("henrici") is not None]
    if departures:
        lines.append(
            f"Henrici's departure over |W|_F after training, the largest of each model's matrices, lies between "
            f"{min(departures):.2f} and {max(departures):.2f} (0 is normal, 1 nilpotent)."
        )
    return lines


# ---- shown


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
    columns = list(dict.fromkeys(key for row in rows for key in row))
    with (out / "attack_study.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows)
    names = ", ".join(str(out / f"attack_study.{kind}") for kind in ("html", "json", "csv"))
    console.print(f"report: {names}", highlight=False, soft_wrap=True)


def _terminal(title: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 0, 0, 1), title=title, title_justify="left")
    for number, name in enumerate(header):
        table.add_column(name, justify="right" if number else "left", overflow="fold", no_wrap=number == 0)
    for row in rows:
        table.add_row(*row)
    return table


def draw(task: str, settings: Sequence[Row], rows: Sequence[Row]) -> Any:
    """Above, clean and worst-case accuracy by setting, every seed a dot; below, ε½ of all runs by spectral numbers."""
    from matplotlib.figure import Figure  # not pyplot: no global state, no window system

    spectral = [key for key in SPECTRAL if any(row.get(key) is not None for row in rows)]
    half = next((key for key in numeric(rows) if key.startswith("half_")), None)
    figure = Figure(figsize=(max(9.0, 0.62 * len(settings) + 3), 8.4), layout="constrained")
    grid = figure.add_gridspec(2, 1, height_ratios=(1.15, 1))
    upper, lower = figure.add_subfigure(grid[0]), figure.add_subfigure(grid[1])
    ax = upper.subplots()
    places = {s["setting"]: k for k, s in enumerate(settings)}
    for number, key in enumerate(["clean", *shown_sizes(settings)[0]]):
        colour, label = f"C{number}", "clean" if key == "clean" else f"worst case, {words_of(key)}"
        ax.plot([places[r["setting"]] for r in rows], [r[key] for r in rows], ".", color=colour, alpha=0.45)
        ax.plot(
            list(places.values()),
            [s[key] for s in settings],
            "_",
            color=colour,
            markersize=16,
            markeredgewidth=2,
            label=label,
        )
    ax.set_xticks(list(places.values()), [short(name) for name in places], rotation=35, ha="right", fontsize=8)
    ax.set(ylabel="share right", ylim=(-0.03, 1.03), title=task)
    ax.grid(axis="x", color="0.92")
    ax.legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1, 1))
    ax.spines[["top", "right"]].set_visible(False)
    models = list(dict.fromkeys(row["model"] for row in rows))
    panels = lower.subplots(1, max(1, len(spectral)), squeeze=False, sharey=True)[0]
    for ax, key in zip(panels, spectral, strict=False):
        for number, model in enumerate(models):
            pairs = [
                (r[key], r[half])
                for r in rows
                if half and r["model"] == model and None not in (r.get(key), r.get(half))
            ]
            if pairs:
                ax.plot(*zip(*pairs, strict=True), "o", markersize=4, color=f"C{number}", label=model)
        ax.set_xlabel(SPECTRAL[key])
        ax.spines[["top", "right"]].set_visible(False)
    if half and spectral:
        panels[0].set_ylabel(f"{words_of(half)}: half of the accuracy lost")
        handles = {str(line.get_label()): line for ax in panels for line in ax.get_legend_handles_labels()[0]}
        lower.legend(list(handles.values()), list(handles), frameon=False, fontsize=8, loc="outside right upper")
    return figure
