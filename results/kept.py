"""What results/ holds, read: finished runs, those under way, and the studies that have pages of their own."""

from __future__ import annotations

import csv
import itertools
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import attacked
import rates
import solving
import tracking

from lit_rnn.commands.compare.measure import Comparison, compare
from lit_rnn.commands.compare.subject import read_diverged, read_run
from lit_rnn.files import read_json, read_yaml
from lit_rnn.runs.endings import is_diverged
from lit_rnn.runs.folder import numbered
from lit_rnn.runs.results import runs_below


@dataclass(frozen=True)
class Results:
    """What results/ holds: finished runs, compared, and how far the others are."""

    comparisons: list[Comparison]  # the best group first
    short: list[Comparison]  # short trainings at several learning rates, which stand beside no longer ones
    going: list[tuple[str, str, str, str]]  # folder, model, what is done, commit
    finished: list[tuple[str, str, str, str]]  # folder, seconds, machine, commit
    tracking: tracking.Tracking
    robustness: dict[str, attacked.Study]
    memory: dict[str, Any] | None  # of non-normal starts
    starts: dict[str, Any] | None  # how often they led to success


def read(folder: Path) -> Results:
    """Read results/."""
    runs = runs_below(folder)
    done = [run for run in runs if (run / "fit.json").is_file()]
    going, finished = [], []
    for run in runs:
        name, commit = run.relative_to(folder).as_posix(), str(read_json(run / "versions.json").get("commit"))[:7]
        if run in done:
            finished.append((name, f"{read_json(run / 'fit.json')['seconds']:,.0f}", machine(run), commit))
        else:
            config = read_yaml(run / "config.yaml", "config")
            model = str(config["model"]["class_path"]).rpartition(".")[2]
            going.append((name, model, _progress(run, config["trainer"]), commit))
    short = [run for run in runs if folder / rates.FOLDER in run.parents]
    comparisons = [solving.ranked(one) for one in _compared([run for run in runs if run not in short])]
    studies = (
        tracking.read_all(folder / "tracking"),
        attacked.read_all(folder / "robustness"),
        _content(folder / "nonnormal" / "memory.json"),
        _content(folder / "nonnormal" / "runs.json"),
    )
    return Results(comparisons, _compared(short), going, finished, *studies)


def _content(path: Path) -> dict[str, Any] | None:
    return read_json(path) if path.is_file() else None


def _compared(runs: Sequence[Path]) -> list[Comparison]:
    diverged = [read_diverged(run) for run in runs if is_diverged(run)]
    return compare([read_run(run) for run in runs if (run / "fit.json").is_file()], diverged)


def machine(run: Path) -> str:
    """What a run computed on, one after another where it went on elsewhere."""
    kept = [read_json(path) for path in numbered(run, "versions.json")]
    told = [_kind(versions.get("devices") or [], versions.get("threads")) for versions in kept]
    return ", then ".join(kind for kind, _ in itertools.groupby(told))


def _kind(devices: Sequence[str], threads: int | None) -> str:
    if not devices:
        return "CPU" if threads is None else f"CPU ({threads} thread{'s' * (threads > 1)})"
    each = Counter(devices).items()
    return ", ".join(name if number == 1 else f"{number} x {name}" for name, number in each)


def _progress(run: Path, trainer: dict[str, Any]) -> str:
    """Epochs that have ended, of all; steps where the run is told those."""
    if is_diverged(run):
        return "diverged"
    with (run / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    if (trainer.get("max_steps") or -1) > 0:
        return f"{max(int(row['step']) for row in rows) + 1:,} of {trainer['max_steps']:,} steps"
    ended = len({row["epoch"] for row in rows if row.get("train/loss")})
    return f"{ended} of {trainer['max_epochs']} epochs"
