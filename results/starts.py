"""How often a start of Orhan and Pitkow 2020 leads to success, and Henrici's departure: results/nonnormal/runs.json."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import studies

from lit_rnn.files import read_json
from lit_rnn.published import published
from lit_rnn.report.tables import Table, plain_markdown, spread

PAPER = "Orhan and Pitkow 2020"
TASKS = {"copying": ("copying, T = 500", "copy_memory"), "adding": ("adding, T = 750", "adding")}  # as arms begin
STARTS = ("chain", "fbchain", "orthogonal", "identity")
NON_NORMAL = STARTS[:2]

Run = Mapping[str, Any]


def with_henrici(content: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """A study's runs with Henrici's departure of W, not divided by its norm, before training and at the best loss."""
    return {**content, "runs": [{**run, "henrici": _henrici(folder / run["run"])} for run in content["runs"]]}


def _henrici(run: Path) -> dict[str, float]:
    from lit_rnn.analysis import henrici
    from lit_rnn.models import load
    from lit_rnn.models.probes import recurrent_matrices

    places = {"before": run / "checkpoints" / "init.ckpt", "after": run / "checkpoints" / "best.ckpt"}
    return {when: henrici(recurrent_matrices(load(path))["recurrent"]) for when, path in places.items()}


def read(folder: Path) -> dict[str, Any] | None:
    """results/nonnormal/runs.json, if it is there."""
    path = folder / "runs.json"
    return read_json(path) if path.is_file() else None


def is_success(run: Run) -> bool:
    """Whether the validation loss was once below half of chance."""
    return any(loss is not None and loss < run["fit"]["chance"] / 2 for loss in run["curves"]["val/loss"][1])


def runs_of(found: Mapping[str, Any], task: str, start: str) -> list[Run]:
    """Those of an arm."""
    settings = {one["setting"] for one in found["arms"].get(f"{task}-{start}", ())}
    return [run for run in found["runs"] if run["setting"] in settings]


def _published(task: str, start: str, metric: str) -> str:
    entries = [one for one in published() if (one.paper, one.metric) == (PAPER, metric)]
    return next((str(one) for one in entries if (one.task, one.name) == (TASKS[task][1], start)), "")


def _count(runs: Sequence[Run]) -> str:
    return f"{sum(map(is_success, runs))} of {len(runs)}" if runs else "not yet"


def _rate(runs: Sequence[Run]) -> float:
    return sum(map(is_success, runs)) / len(runs)


def _claims(found: Mapping[str, Any]) -> list[tuple[bool, str]]:
    """Whether it holds, and what by."""
    told = []
    for task, (name, _) in TASKS.items():
        runs = {start: runs_of(found, task, start) for start in STARTS}
        both = [[run for start in some for run in runs[start]] for some in (NON_NORMAL, STARTS[2:])]
        if all(both):
            counts = ", ".join(f"{start} {_count(ours)}" for start, ours in runs.items())
            holds = _rate(both[0]) > _rate(both[1])
            told.append((holds, f"on {name} non-normal starts succeed more often than normal ones ({counts})"))
        risen = [run["henrici"]["after"] > run["henrici"]["before"] for run in both[1] if is_success(run)]
        if risen:
            by = f"{sum(risen)} of {len(risen)} successful runs"
            told.append((all(risen), f"on {name} normal starts become non-normal in training ({by})"))
    return sorted(told)


def section(found: Mapping[str, Any] | None) -> str:
    """Of the paper's page."""
    title = "## Successes\n\n"
    if found is None:
        told = "No run of `campaign/nonnormal.yaml` has been collected yet: the published counts stand below."
        return f"{title}{told}\n\n"
    verdicts = {True: "Holds here", False: "**Does not hold here**"}
    lines = [f"- {verdicts[holds]}: {plain_markdown(text)}.\n" for holds, text in _claims(found)]
    rows = []
    for task, (name, _) in TASKS.items():
        for start in STARTS:
            runs = runs_of(found, task, start)
            good = [run for run in runs if is_success(run)]
            departures = [[run["henrici"][when] for run in good] for when in ("before", "after")]
            ours = [_mean(values) for values in departures] if good else ["", ""]
            row = [name, start, _count(runs), _published(task, start, "successes"), *ours]
            rows.append([*row, _published(task, start, "henrici")])
    header = ["task", "start", "successes", "published", "Henrici before", "after", "published after"]
    planned = sum(len(settings) for settings in found["arms"].values()) * len(found["seeds"])
    missing = planned - len(found["runs"])
    state = f"{missing} of {planned} runs are missing. " if missing else ""
    about = plain_markdown(" ".join(found["note"]))
    of_what = (
        "Henrici's departure is not divided by the norm, and is of the successful runs: mean ± standard deviation."
    )
    return "".join(
        [
            title,
            *lines,
            "\n" if lines else "",
            Table(header, rows, texts=2).markdown(),
            f"\n\n{of_what} {state}{plain_markdown(studies.cost(found['runs']))}. {about}\n\n",
        ]
    )


def _mean(values: Sequence[float]) -> str:
    return spread(statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None)
