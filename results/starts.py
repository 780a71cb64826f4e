"""How often a start of Orhan and Pitkow 2020 leads to success, and Henrici's departure: results/nonnormal/runs.json."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import studies
from verdicts import verdict

from lit_rnn.published import Published, published
from lit_rnn.report.tables import Table, plain_markdown, spread

PAPER = "Orhan and Pitkow 2020"
TASKS = {  # as arms begin: the name, and its published figures' task
    "copying": ("copying, T = 500, 5 of 100 epochs", "copy_memory"),
    "copying_whole": ("copying, T = 500, one setting, all epochs", "copy_memory"),
    "psmnist": ("permuted pixel MNIST, 25 units, 5 of 100 epochs", "permuted_pixel_mnist"),
    "psmnist_whole": ("permuted pixel MNIST, 25 units, one setting, all epochs", "permuted_pixel_mnist"),
    "adding": ("adding, T = 750, 5 of 100 epochs", "adding"),
}
NON_NORMAL, NORMAL = ("chain", "fbchain"), ("orthogonal", "identity")
STARTS = NON_NORMAL + NORMAL
RISEN = 0.01  # of Henrici's departure: less may be rounding

Run = Mapping[str, Any]


def with_henrici(content: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """A study's runs with Henrici's departure of W, not divided by its norm, before training and in best.ckpt."""
    return {**content, "runs": [{**run, "henrici": _henrici(folder / run["run"])} for run in content["runs"]]}


def _henrici(run: Path) -> dict[str, float]:
    from lit_rnn.analysis import henrici
    from lit_rnn.models import load
    from lit_rnn.models.probes import recurrent_matrices

    places = {"before": run / "checkpoints" / "init.ckpt", "after": run / "checkpoints" / "best.ckpt"}
    return {when: henrici(recurrent_matrices(load(path))["recurrent"]) for when, path in places.items()}


def of_arm(found: Mapping[str, Any], task: str, start: str) -> tuple[list[Run], int]:
    """The runs of an arm that are a success, and how many have ended, those that diverged among them."""
    runs = _of_arm(found["runs"], found, task, start)
    return [run for run in runs if run["success"]], len(runs) + len(_of_arm(found["diverged"], found, task, start))


def _of_arm(runs: Sequence[Run], found: Mapping[str, Any], task: str, start: str) -> list[Run]:
    settings = {one["setting"] for one in found["arms"].get(f"{task}-{start}", ())}
    return [run for run in runs if run["setting"] in settings]


def _published(task: str, start: str, metric: str) -> str:
    entries = [one for one in published() if (one.paper, one.metric) == (PAPER, metric)]
    return next((str(one) for one in entries if (one.task, one.name) == (TASKS[task][1], start)), "")


def ours(found: Mapping[str, Any] | None, entry: Published) -> str:
    """Beside a published figure, ours of the same start: successes of each grid, or Henrici's departure after them."""
    told = []
    for task, (name, theirs) in TASKS.items():
        if found is None or (entry.paper, entry.task) != (PAPER, theirs) or entry.name not in _starts(found, task):
            continue
        good, ended = of_arm(found, task, entry.name)
        if entry.metric == "successes" and ended:
            told.append(f"{len(good)} of {ended} ({name}; see Successes)")
        if entry.metric == "henrici" and good:
            told.append(
                f"{_mean([run['henrici']['after'] for run in good])} ({name}, {len(good)} run{'s' * (len(good) > 1)})"
            )
    return "; ".join(told)


def _share(counts: Sequence[tuple[list[Run], int]]) -> float | None:
    """Of the runs of some arms, those that are a success; None where no run has ended."""
    ended = sum(number for _, number in counts)
    return sum(len(good) for good, _ in counts) / ended if ended else None


def _planned(found: Mapping[str, Any], arm: str) -> int:
    """Its runs."""
    return len(found["arms"][arm]) * len(found["seeds"])


def _starts(found: Mapping[str, Any], task: str) -> tuple[str, ...]:
    """Those that the study plans for a task."""
    return tuple(start for start in STARTS if f"{task}-{start}" in found["arms"])


def _claims(found: Mapping[str, Any]) -> list[tuple[bool, str]]:
    """Whether it holds, and what by: who succeeds more often is asked of whole grids that have ended, not of settings
    picked, nor of those that happened to run first."""
    told = []
    for task, (name, _) in TASKS.items():
        starts = _starts(found, task)
        counts = {start: of_arm(found, task, start) for start in starts}
        ended = [start for start in starts if counts[start][1] == _planned(found, f"{task}-{start}")]
        ours, theirs = (_share([counts[start] for start in ended if start in some]) for some in (NON_NORMAL, NORMAL))
        decided = ours is not None and theirs is not None and (ours or theirs)  # where none succeeds, nothing is known
        if decided and starts == STARTS:
            by = ", ".join(f"{start} {len(counts[start][0])} of {counts[start][1]}" for start in ended)
            told.append((ours > theirs, f"on {name}, non-normal starts succeed more often than normal ones ({by})"))
        departures = [run["henrici"] for start in starts if start in NORMAL for run in counts[start][0]]
        if departures:
            risen = sum(one["after"] - one["before"] > RISEN for one in departures)
            by = f"Henrici's departure rose by more than {RISEN:g} in {risen} of {len(departures)} successful runs"
            told.append((risen == len(departures), f"on {name}, normal starts become non-normal in training ({by})"))
    return sorted(told)


def section(found: Mapping[str, Any] | None) -> str:
    """Of the paper's page."""
    title = "## Successes\n\n"
    if found is None:
        told = "No run of `campaign/nonnormal.yaml` has been collected yet: the published counts stand below."
        return f"{title}{told}\n\n"
    lines = [verdict(holds, text) for holds, text in _claims(found)]
    rows = []
    for task, (name, _) in TASKS.items():
        for start in _starts(found, task):
            good, ended = of_arm(found, task, start)
            departures = [[run["henrici"][when] for run in good] for when in ("before", "after")]
            ours = [_mean(values) for values in departures] if good else ["", ""]
            count = f"{len(good)} of {ended}" if ended else "not yet"
            lost = len(_of_arm(found["diverged"], found, task, start))
            count += f", {lost} diverged" if lost else ""
            row = [name, start, count, _published(task, start, "successes"), *ours]
            rows.append([*row, _published(task, start, "henrici")])
    header = ["task", "start", "successes", "published", "Henrici before", "after", "published after"]
    planned = sum(_planned(found, arm) for arm in found["arms"])
    diverged = len(found["diverged"])
    missing = planned - len(found["runs"]) - diverged
    state = f"Missing: {missing} of {planned} runs. " if missing else ""
    state += "One that diverged is no success. " if diverged else ""
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
