"""Measured rows as a table on the terminal and in README.md, both from the same record."""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from measure import Bar, Pairs, Ratio, Row
from rich import box
from rich.table import Table

from datamodules.errors import require
from lit_rnn.files import read_json

COLUMNS = ("row", "work", "against", "backend", "ours", "theirs", "ratio", "bar", "first call")

GROUPS = {
    "exprnn": "ExpRNN, forward and backward: how many times faster than what a user would write, than torch's layer; "
    "and its time over that of the bare matrix products of the recurrence",
    "recurrence": "the same with W a plain weight: what scan costs without the exponential",
    "nru": "NRU, forward and backward: how many times faster than the released form, step by step",
    "cells": "every other cell, forward and backward, at a published size: how many times faster than its own loop",
    "parallel": "cells that are linear in their state, forward and backward, by the backend that auto takes for them "
    "where there is no C++ compiler: how many times faster than their loop",
    "fit": "a whole fit (python -m lit_rnn fit) over its bare training steps",
    "busy": "a fit beside one other process that keeps a core busy, over the same on its own",
    "memory": "peak memory of a forward and backward pass, over what is in use before it",
    "length": "time per step of longer sequences over that of a short one",
    "unequal": "sequences of unequal lengths, forward and backward, over one length with as many real steps",
    "documents": "chunks of truncated backpropagation in which documents begin, forward and backward, over chunks in "
    "which none does",
    "one_thread": "native beside torch's own kernels with one thread, forward and backward: how many times faster",
    "loading": "reading images in the training process, with one thread: how many times faster",
    "start": "CPU seconds of a fresh process, over those of what it cannot do without",
    "ddp": "samples per second of two processes with a thread each over those of one",
    "long": "long sequences, recomputed in chunks (checkpoint_every): time, and memory of the whole process",
    "ops": "CPU-side operators that the profiler counts per time step, forward and backward, views and allocations "
    "left out: how many times fewer than the loop",
}

ON_A_GPU = {
    "gpu": "Forward and backward on a GPU: how many times faster than the loop, and than torch's relu layer on "
    "cuDNN in IEEE float32; of each work the fastest backend has the bar. Below: peak memory of a pass, beside "
    "what recordings hold between passes, and how far outputs and gradients are from float64 on the CPU"
}

Record = dict[str, Any]


def record(row: Row, pairs: Pairs | None, skipped: str = "") -> Record:
    """A measured (or skipped) row as JSON keeps it: the raw numbers, nothing derived."""
    entry: Record = {"name": row.name, "work": row.work, "against": row.against, "bar": asdict(row.bar)}
    return {**entry, "skipped": skipped} if pairs is None else {**entry, **asdict(pairs)}


def show(value: float, unit: str) -> str:
    if unit == "s":
        return f"{value:.2f} s" if value >= 0.9995 else f"{1e3 * value:.3g} ms"
    if unit == "MiB":
        return f"{value:,.0f} MiB"
    return f"{value:,.0f} {unit}" if value >= 999.5 else f"{value:.3g} {unit}"


def columns(entry: Record) -> list[str]:
    """One entry in `COLUMNS`."""
    name = entry["name"].partition("/")[2]
    if "skipped" in entry:
        return [name, entry["work"], entry["against"], "", "", "", "skipped", "", ""]
    bar, pairs, ratio = measured(entry)
    met = {True: " met", False: " NOT met", None: ""}[bar.met(ratio.median)]
    return [
        name,
        entry["work"],
        entry["against"],
        pairs.backend,
        show(statistics.median(pairs.ours), pairs.unit),
        show(statistics.median(pairs.theirs), pairs.unit),
        f"{ratio.median:.2f} ({ratio.low:.2f} to {ratio.high:.2f})",
        f"{bar}{met}",
        "" if pairs.first is None else show(pairs.first, "s"),
    ]


def measured(entry: Record) -> tuple[Bar, Pairs, Ratio]:
    bar, pairs = Bar(**entry["bar"]), Pairs(**{key: entry[key] for key in Pairs.__dataclass_fields__})
    return bar, pairs, Ratio.of(bar, pairs)


def line(entry: Record) -> str:
    """One entry as a line, printed when it is measured."""
    if "skipped" in entry:
        return f"{entry['name']}: skipped: {entry['skipped']}"
    _, work, against, backend, ours, theirs, ratio, bar, _ = columns(entry)
    kind = (
        {"s": "times faster", "ops": "times fewer"}[entry["unit"]]
        if measured(entry)[0].kind == "faster"
        else "times as much"
    )
    by = f" ({backend})" if backend else ""
    asked = f"; bar {bar}" if bar else ""
    note = f"; {entry['note']}" if entry["note"] else ""
    return f"{entry['name']}: {work}{by} {ours}, {against} {theirs}: {ratio} {kind}{asked}{note}"


def by_group(entries: Sequence[Record], groups: Iterable[str] = GROUPS) -> dict[str, list[Record]]:
    found = {group: [e for e in entries if e["name"].partition("/")[0] == group] for group in groups}
    return {group: members for group, members in found.items() if members}


def terminal(entries: Sequence[Record]) -> list[Table]:
    """A table per group; what the lines above it have said (work and against) is left out."""
    tables = []
    for group, members in by_group(entries).items():
        table = Table(title=f"{group}: {GROUPS[group]}", title_justify="left", box=box.SIMPLE)
        shown = [column for column in COLUMNS if column not in ("work", "against")]
        for column in shown:
            left = column in ("row", "backend", "bar")
            table.add_column(column, justify="left" if left else "right", overflow="fold", no_wrap=column != "row")
        for entry in members:
            texts = dict(zip(COLUMNS, columns(entry), strict=True))
            style = "bold red" if texts["bar"].endswith("NOT met") else None
            table.add_row(*(texts[column] for column in shown), style=style)
        tables.append(table)
    return tables


def markdown(entries: Sequence[Record], groups: dict[str, str] = GROUPS) -> str:
    parts = []
    for group, members in by_group(entries, groups).items():
        rows = [COLUMNS, ["---"] * len(COLUMNS), *(columns(entry) for entry in members)]
        text = "\n".join("| " + " | ".join(row) + " |" for row in rows)
        notes = {entry["name"]: entry.get("note") or entry.get("skipped") for entry in members}
        said = "\n".join(f"- `{name}`: {note}" for name, note in notes.items() if note)
        sentence = groups[group][0].upper() + groups[group][1:] + "."
        parts.append("\n\n".join(part for part in (f"### {group}", sentence, text, said) if part))
    return "\n\n".join(parts)


def machine_words(run: Record) -> str:
    m = run["machine"]
    busy = f" The machine was busy at the start: load {m['load']}." if m["load"] > 0.5 else ""
    return (
        f"{run['date']}: {m['cpu']} ({m['capability']}), {m['cores']} cores, {m['threads']} threads, {m['system']}, "
        f"torch {m['torch']}, Python {m['python']}; medians of up to {run['rounds']} pairs.{busy}"
    )


def card_words(run: Record) -> str:
    m = run["machine"]
    commit = f"commit {run['commit']}, " if "commit" in run else ""
    return (
        f"{run['date']}: {commit}{m['card']} (compute capability {m['capability']}), CUDA {m['cuda']}, "
        f"cuDNN {m['cudnn']}, torch {m['torch']}, Triton {m['triton']}, Python {m['python']}; medians of "
        f"{run['rounds']} rounds."
    )


def filled(readme: str, runs: Sequence[Path], groups: dict[str, str] = GROUPS) -> str:
    """``readme`` with the tables of ``runs`` between its marks; a later run's rows replace an earlier one's.

    Groups of which there is no row are named as not measured, with the command that does.
    """
    on_a_gpu = groups is ON_A_GPU
    name, words = ("on a GPU", card_words) if on_a_gpu else ("measured", machine_words)
    start, end = f"<!-- {name}: start -->", f"<!-- {name}: end -->"
    kept = {path.name: json.loads(path.read_text()) for path in runs}
    entries: dict[str, Record] = {}
    for run in kept.values():
        entries |= {entry["name"]: entry for entry in run["rows"]}
    for name in [name for name, entry in entries.items() if "skipped" in entry]:
        if any(other.startswith(f"{name}/") for other in entries):  # a later run has measured what it is of
            del entries[name]
    lines = [f"- `results/{name}`: {words(run)}" for name, run in kept.items()]
    before, _, rest = readme.partition(start)
    _, _, after = rest.partition(end)
    measured = "\n".join(lines) + "\n\n" + markdown(list(entries.values()), groups)
    missing = " ".join(group for group in groups if group not in by_group(list(entries.values()), groups))
    todo = f"\nNot measured yet: `python benchmarks/speed.py {missing}`.\n" if missing else ""
    return f"{before}{start}\n{measured.strip()}\n{todo}{end}{after}"


def add_options(parser: argparse.ArgumentParser) -> None:
    """Those of every program that measures rows."""
    parser.add_argument("--tiny", action="store_true", help="cut all sizes: shows that it runs, measures nothing")
    parser.add_argument("--list", action="store_true", help="print the rows' names and leave")
    parser.add_argument(
        "--write-readme", type=Path, nargs="+", metavar="JSON", help="put results into README.md, leave"
    )


def write_readme(readme: Path, runs: Sequence[Path], groups: dict[str, str] = GROUPS) -> None:
    for run in runs:
        require(run.is_file(), "--write-readme", str(run), "a file that a run wrote")
        kept = read_json(run, ("tiny", "machine", "rounds", "rows"))
        require(not kept["tiny"], "--write-readme", str(run), "a run without --tiny")
        ours = all(entry["name"].partition("/")[0] in groups for entry in kept["rows"])
        require(ours, "--write-readme", str(run), "a run of this script: others have tables of their own")
    readme.write_text(filled(readme.read_text(), runs, groups))
