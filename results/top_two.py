"""Where the NRU stands among the models of campaign/nru.yaml: whether it alone is always in the top two."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from functools import cache

import solving
import studies
from verdicts import verdict

from lit_rnn.commands.compare.measure import Comparison, Group
from lit_rnn.commands.study.subject import Study, read_study
from lit_rnn.report.tables import Table, plain_markdown

STUDY = "campaign/nru.yaml"
MODEL, TOP = "nru", 2
SHORT = "in a tenth of the paper's updates"  # as the study says

Places = Mapping[str, int]  # of each model on a task, 1 for the best and for all who are as good


@cache
def _study() -> Study:
    return read_study(STUDY)


@cache
def _arms() -> dict[str, list[str]]:
    """Every model of each task, as the study has them."""
    found: dict[str, list[str]] = {}
    for setting in _study().settings:
        task, _, model = setting.arm.partition("-")
        found.setdefault(task, []).append(model)
    return found


def _runs(task: str, comparison: Comparison) -> dict[str, Group]:
    """The study's runs on a task, by model; one that only diverged has no better place than any other."""
    arms = {f"{task}-{model}": model for model in _arms()[task]}
    groups = [*(Group((run,)) for run in comparison.diverged), *comparison.groups]
    named = [(group.runs[0].folder.name.partition("-seed=")[0], group) for group in groups]
    return {arms[name]: group for name, group in named if name in arms}


def _places(runs: Mapping[str, Group], comparison: Comparison) -> Places:
    ranks = {model: solving.rank(group, comparison) for model, group in runs.items()}
    return {model: 1 + sum(other < own for other in ranks.values()) for model, own in ranks.items()}


def _claim(places: Mapping[str, Places], lost: Collection[str] = ()) -> tuple[bool | None, str]:
    """Of Chandar et al. 2019, abstract; ``lost`` are the tasks on which the NRU diverged.

    It fails with the first task on which two are better than the NRU, or once another is in the top two of every task;
    it holds if neither is so when every model has run on every task.
    """
    at = {task: found[MODEL] for task, found in places.items() if MODEL in found}
    others = {model for models in _arms().values() for model in models} - {MODEL}
    always = [model for model in others if all(found.get(model, TOP + 1) <= TOP for found in places.values())]
    whole = all(set(models) <= set(places.get(task, ())) for task, models in _arms().items())
    holds = False if max(at.values(), default=0) > TOP else not always if whole else None
    out = {task: ", where it diverged" for task in lost}
    by = ", ".join(f"{place} of {len(places[task])} on {task}{out.get(task, '')}" for task, place in at.items())
    return holds, f"the NRU is the only model in the top two on every task{f' ({SHORT} it is {by})' if by else ''}"


def section(comparisons: Sequence[Comparison]) -> str:
    """Of the paper's page: whether its claim holds, and what every model came to on every task."""
    cells: dict[str, dict[str, str]] = {}
    places: dict[str, Places] = {}
    lost: list[str] = []
    for task in _arms():
        for comparison in comparisons:
            if runs := _runs(task, comparison):
                places[task] = _places(runs, comparison)
                lost += [task] if MODEL in runs and not runs[MODEL].runs[0].fit else []
                for model, place in sorted(places[task].items(), key=lambda found: found[1]):
                    cells.setdefault(model, {})[task] = f"{place}: {solving.cell(runs[model], comparison)}"
    title = "## In the top two\n\n"
    if not places:
        return f"{title}No run of `{STUDY}` has been collected yet.\n\n"
    rows = [[model, *(of.get(task, "") for task in places)] for model, of in cells.items()]
    made = Table(["model", *places], rows, texts=1 + len(places)).markdown()
    planned = sum(len(models) for models in _arms().values())
    missing = planned - sum(len(found) for found in places.values())
    about = [
        "Place, and updates until the loss was below a tenth of chance: means over the seeds that have ended. Those "
        "that did not get there are ordered by the loss of the last validation; what diverged comes last, however far "
        "it had come.",
        *([f"Missing: {missing} of its {planned} runs of the first seed."] if missing else []),
    ]
    about += [f"`configs/{STUDY}` says: {plain_markdown(' '.join(studies.note(_study().path)))}"]
    return f"{title}{verdict(*_claim(places, lost))}\n{made}\n\n{' '.join(about)}\n\n"
