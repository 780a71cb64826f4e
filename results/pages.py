"""Write RESULTS.md and docs/results/ from the runs in results/: ``python results/pages.py``. Nothing there is typed."""

from __future__ import annotations

import math
import posixpath
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import headline
import nonnormal
import rates
import robustness
import solving
import starts
import top_two
import tracking
from differences import label, said_first, seeds, standing, titles
from kept import Results, machine, read

from lit_rnn.commands.compare.measure import (
    Comparison,
    beside,
    by_rate,
    higher_is_better,
    learning_rate,
    successes,
)
from lit_rnn.commands.compare.measure import names as run_names
from lit_rnn.commands.compare.page import rates_table, shown, table
from lit_rnn.published import STATUSES, Published, published
from lit_rnn.report.tables import Table, plain_markdown

ROOT = Path(__file__).parents[1]
PAPERS = {  # page: its title, and the papers that it is about
    "exprnn": ("expRNN", ("Lezcano-Casado and Martínez-Rubio 2019",)),
    "dtriv": ("Dynamic trivializations", ("Lezcano-Casado 2019",)),
    "scornn": ("scoRNN", ("Helfrich et al. 2018",)),
    "nonnormal": ("Sequential non-normal dynamics", ("Orhan and Pitkow 2020",)),
    "nru": ("The NRU", ("Chandar et al. 2019",)),
    "others": ("Other papers", ()),
}
NOTE = "<!-- Written by `python results/pages.py` from results/ and lit_rnn/published.yaml: do not edit. -->"


# ---- tables


def clock(comparison: Comparison) -> str:
    """What the seconds of a table are, and of which machines where its runs differ in that."""
    named = zip(run_names(comparison.groups), comparison.groups, strict=True)
    by_run = {name: " or ".join(sorted({machine(run.folder) for run in group.runs})) for name, group in named}
    kinds = sorted(set(by_run.values()))
    told = kinds[0] if len(kinds) == 1 else "; ".join(f"{name}: {kind}" for name, kind in by_run.items())
    return f"Seconds are wall clock, pauses included, measured on: {plain_markdown(told)}.\n\n"


def trained(comparison: Comparison, short: Sequence[Comparison]) -> str:
    """Batch, optimizer and rates of every model, and where the rest stands."""
    tried: dict[tuple[str, str], set[float]] = {}
    for group in comparison.groups:
        options, rate = group.runs[0].options("model"), learning_rate(group)
        batch = group.runs[0].options("data").get("batch_size")
        how = [] if batch is None else [f"batch {batch}"]
        how += [] if rate is None else [str(options["optimizer"]["class_path"]).rpartition(".")[2]]
        tried.setdefault((", ".join(how) or "the defaults", label(group)), set()).update([rate] if rate else [])
    found: dict[str, list[str]] = {}
    for (how, name), values in tried.items():
        told = f"{how} at {' or '.join(f'{value:g}' for value in sorted(values))}" if values else how
        found.setdefault(told, []).append(name)
    folders = sorted({run.folder.parent.name for group in comparison.groups for run in group.runs})
    places = ", ".join(f"`results/{folder}/`" for folder in folders)
    rest = f"The rates of parts of a model, and all else, are in the configs in {places}."
    rest += "" if by_rate(comparison) else " No rate was searched here."
    rest += rates.link(comparison, short)
    if len(found) == 1:
        return f"All trained with {plain_markdown(next(iter(found)))}. {rest}\n\n"
    lines = [f"- {plain_markdown(f'{how}: {_models(names, found)}')}\n" for how, names in found.items()]
    return f"Trained with\n\n{''.join(lines)}\n{rest}\n\n"


def _models(names: Sequence[str], found: Mapping[str, Sequence[str]]) -> str:
    """The classes; of one that was trained in other ways too, what tells its models apart."""
    kinds = [{name.partition(",")[0] for name in others} for others in found.values()]
    alone = [kind for kind in set().union(*kinds) if sum(kind in one for one in kinds) == 1]
    told = [kind if (kind := name.partition(",")[0]) in alone else name for name in names]
    return "; ".join(dict.fromkeys(told))


def still_better(comparison: Comparison) -> str:
    """Whose best checkpoint, which was tested, is the last one."""
    named = zip(run_names(comparison.groups), comparison.groups, strict=True)
    late = [
        name
        for name, group in named
        if all(
            run.test
            and run.test["steps"] == run.fit["steps"]
            and run.fit["loss"] is not None  # one that was never validated has no best
            and "ended_early" not in run.fit
            for run in group.runs
        )
    ]
    told = "Best at the last validation, so that more updates might do better"
    which = "all" if 1 < len(late) == len(comparison.groups) else ", ".join(late)
    return f"{told}: {plain_markdown(which)}.\n\n" if late else ""


def _going(results: Results) -> str:
    if not results.going:
        return ""
    rows = [(f"results/{folder}", *rest) for folder, *rest in results.going]
    made = Table(["run", "model", "done", "commit it began with"], rows, texts=4)
    about = "No result before a run has ended; one that diverged has none."
    return f"## In progress or diverged\n\n{about}\n\n{made.markdown()}\n\n"


def _finished(results: Results) -> str:
    if not results.finished:
        return ""
    rows = [(f"results/{folder}", *rest) for folder, *rest in results.finished]
    made = Table(["run", "seconds", "machine", "commit it began with"], rows, texts=1)
    return f"## Runs\n\n{made.markdown()}\n\n"


def _statuses() -> str:
    return "".join(f"- *{status}*: {meaning}\n" for status, meaning in STATUSES.items())


# ---- pages


def _about(results: Results, docs: str) -> str:
    """What has been run, and the words of the tables."""
    groups = [group for comparison in results.comparisons for group in comparison.groups]
    if not groups:
        return ""
    runs, models = sum(len(group.runs) for group in groups), len({group.model for group in groups})
    tasks = len({one.task for one in results.comparisons})
    lost = {run.folder for one in results.comparisons for run in one.diverged}
    out = f", and {len(lost)} diverged" if lost else ""
    alone = " carry false: each chunk of tbptt symbols is read alone, from an empty state."
    alone = alone if any("carry" in one.data for one in results.comparisons) else ""
    gates = ", chrono a start whose gates remember for about as long as the task is (t\\_max)"
    gates = gates if any(label(group).endswith("chrono") for group in groups) else ""
    above = posixpath.normpath(f"{docs}..")
    return (
        f"{runs} runs have ended, of {models} models on {tasks} task{'s' * (tasks > 1)}{out}, beside the studies of "
        f"[tracking]({docs}tracking.md) and of [robustness]({docs}robustness.md). n is the hidden size{gates}, val the "
        "validation split, whose numbers are of the last validation, while the tested checkpoint is the one with the "
        "best metric on it (the last one where there is no validation), val\\_size the training examples kept for it, "
        f"and chance the loss of a guess. What is what: [Models]({above}/models/index.md), [Data]({above}/data.md); "
        f"what is planned: [The campaign]({above}/experiments.md#the-campaign). A published figure has its "
        f"[status](#every-published-figure) behind it.{alone}\n\n"
    )


def overview(results: Results, docs: str) -> str:
    """RESULTS.md, and the first page in docs/results/; ``docs`` leads from the page to that folder."""
    parts = [f"{NOTE}\n\n# Results\n\n", said_first(results.comparisons), _about(results, docs)]
    parts += [headline.headline(results.comparisons), "\n"]
    if results.comparisons:
        parts.append(f"What came of each model, alone: [By model]({docs}{headline.MODELS}.md).\n\n")
    parts += [_going(results)]
    names = titles(results.comparisons)
    for name, comparison, picture in zip(names, results.comparisons, _pictures(results.comparisons), strict=True):
        made = table(comparison, published=True)
        parts.append(f"## {plain_markdown(name)}\n\n{made.markdown()}\n\n")
        parts += [trained(comparison, results.short), clock(comparison), still_better(comparison)]
        windows = rates_table if solving.share(comparison) is None else solving.rates_table
        parts += [f"{one.markdown()}\n\n" for one in (solving.milestones(comparison), windows(comparison)) if one]
        parts.append(_curves(name, f"{docs}{picture}"))
    parts.append(rates.section(results.short))
    parts += [tracking.link(results.tracking, docs), robustness.link(results.robustness, docs)]
    parts.append("## Every published figure\n\nOne page a paper, ours beside it:\n\n")
    parts += [f"- [{title}]({docs}{page}.md)\n" for page, (title, _) in PAPERS.items()]
    parts.append(f"\nThe word behind a published figure is its status:\n\n{_statuses()}\n")
    parts.append(_finished(results))
    parts.append("How runs come here: `results/README.md` in the repository.\n")
    return "".join(parts)


def _curves(title: str, picture: str) -> str:
    return f"![Loss against steps on {plain_markdown(title)}; the grey dashed line is chance]({picture})\n\n"


def paper(page: str, results: Results) -> str:
    """The page of a paper: every figure of it, by task, with ours beside."""
    title, papers = PAPERS[page]
    named = [name for _, names in PAPERS.values() for name in names]
    entries = [one for one in published() if (one.paper in papers if papers else one.paper not in named)]
    about = papers or tuple(dict.fromkeys(one.paper for one in entries))
    parts = [f"{NOTE}\n\n# {title}\n\n", said_first(results.comparisons, about)]
    parts.append("`ours` is empty where we have no run of the same model and size on that task. ")
    parts.append("The config of each experiment is named in [Experiments](../experiments.md). ")
    parts.append(f"The word behind a published figure is its status:\n\n{_statuses()}\n")
    if page == nonnormal.PAPER:
        parts += [starts.section(results.starts), nonnormal.section(results.memory)]
    if page == "nru":
        parts.append(top_two.section(results.comparisons))
    named_comparisons = list(zip(results.comparisons, titles(results.comparisons), strict=True))
    pictures = list(zip(named_comparisons, _pictures(results.comparisons), strict=True))
    for task in dict.fromkeys(entry.task for entry in entries):
        rows: list[list[Any]] = []
        notes: dict[str, str] = {}
        theirs = [one for one in entries if one.task == task]
        for entry in _best_first(theirs):
            mark = notes.setdefault(entry.note, f"({len(notes) + 1})")
            ours = "; ".join(filter(None, (_ours(entry, named_comparisons), starts.ours(results.starts, entry))))
            measured = f"{entry.split}/{entry.metric}"
            rows.append([f"{entry.name} {mark}", entry.size, entry.parameters, measured, str(entry), ours])
        made = Table(["model", "size", "parameters", "measured", "published", "ours"], rows)
        parts.append(f"## {plain_markdown(task)}\n\n{made.markdown()}\n\n")
        parts += [f"{mark} {plain_markdown(note)}\n\n" for note, mark in notes.items()]
        for one, picture in pictures:
            if any(_ours(entry, [one]) for entry in theirs):  # others are of another protocol or model
                parts.append(_curves(one[1], picture))
    return "".join(parts)


def _best_first(entries: Sequence[Published]) -> list[Published]:
    """Of each metric and split, test before validation, those that come first; what did not converge comes last."""
    order = sorted(dict.fromkeys((one.split, one.metric) for one in entries), key=lambda kind: kind[0] != "test")

    def rank(one: Published) -> tuple[int, float]:
        value = math.inf if one.number is None else one.number * (-1 if higher_is_better(one.metric) else 1)
        return order.index((one.split, one.metric)), value

    return sorted(entries, key=rank)


def _ours(entry: Published, named: Sequence[tuple[Comparison, str]]) -> str:
    """Our figures that may stand beside a published one, with their seeds and what tells their tables apart."""
    on_task = [one for one in named if one[0].task == entry.task]
    found = [count for comparison, _ in on_task if (count := successes(entry, comparison))]
    for comparison, title in on_task:
        groups = [group for group in comparison.groups if entry in beside(group, comparison, entry.split)]
        group = standing(groups, comparison) if groups else None
        value = None if group is None else group.test if entry.split == "test" else group.value
        if group is not None and value is not None:
            when = [title.removeprefix(comparison.task).strip(" ()")]
            when += [] if entry.split == "test" else ["after the last epoch"]
            chosen = [f"best of {len(groups)} settings on validation"] if len(groups) > 1 else []
            told = ", ".join(filter(None, [*when, seeds(group), f"{group.parameters:,} parameters", *chosen]))
            found.append(f"{shown(value, group)} ({told})")
    return "; ".join(found)


_TRACKING, _ROBUSTNESS = "tracking.svg", "robustness.svg"


def pictures_of(results: Results) -> list[str]:
    """Every picture, by its file in docs/results/."""
    of_studies = (
        (_TRACKING, results.tracking.models),
        (_ROBUSTNESS, results.robustness),
        (nonnormal.PICTURE, results.memory),
    )
    return [*_pictures(results.comparisons), *(name for name, there in of_studies if there)]


def _pictures(comparisons: Sequence[Comparison]) -> list[str]:
    """A file for each comparison."""
    tasks = [one.task for one in comparisons]
    return [f"{task}-{tasks[:place].count(task) + 1}.svg" for place, task in enumerate(tasks)]


def _models_of_studies(results: Results) -> dict[str, set[str]]:
    """Which models are on the pages of studies, by a link to each."""
    runs = {
        f"[{tracking.TITLE}](tracking.md)": [one.runs for one in results.tracking.studies.values()],
        f"[{robustness.TITLE}](robustness.md)": [one.runs for one in results.robustness.values()],
        "[How often a start leads to success](nonnormal.md)": [results.starts["runs"]] if results.starts else [],
    }
    return {link: {run["fit"]["model"] for of_study in found for run in of_study} for link, found in runs.items()}


def texts(results: Results) -> dict[str, str]:
    """Every page, by its path in the repository."""
    pages = {"index": overview(results, ""), **{page: paper(page, results) for page in PAPERS}}
    pages[headline.MODELS] = headline.page(results.comparisons, _models_of_studies(results), NOTE)
    pages["tracking"] = tracking.page(results.tracking, NOTE, _TRACKING)
    pages["robustness"] = robustness.page(results.robustness, NOTE, _ROBUSTNESS)
    site = {
        f"docs/results/{page}.md": f"---\nhide: [toc]\n---\n\n{text}" for page, text in pages.items()
    }  # wide tables
    return {"RESULTS.md": overview(results, "docs/results/"), **site}


def write(folder: Path, root: Path) -> None:
    """Write the pages and pictures of the runs in ``folder`` below ``root``, in place of all that was there."""
    from matplotlib import rc_context

    from lit_rnn.commands.compare.pictures import draw

    results = read(folder)
    pages = texts(results)
    shutil.rmtree(root / "docs" / "results", ignore_errors=True)
    (root / "docs" / "results").mkdir(parents=True)
    for name, text in pages.items():
        (root / name).write_text(text, encoding="utf-8")
    # the same runs give the same file: no random names inside
    with rc_context({"svg.hashsalt": "lit_rnn", "svg.fonttype": "none"}):
        named = zip(results.comparisons, titles(results.comparisons), _pictures(results.comparisons), strict=True)
        for comparison, title, name in named:
            drawn, title = solving.pictured(comparison, title)
            draw(drawn, root / "docs" / "results" / name, title)
        if results.tracking.models:
            tracking.draw(results.tracking, root / "docs" / "results" / _TRACKING)
        if results.robustness:
            robustness.draw(results.robustness, root / "docs" / "results" / _ROBUSTNESS)
        if results.memory:
            nonnormal.draw(results.memory, root / "docs" / "results" / nonnormal.PICTURE)


if __name__ == "__main__":
    write(ROOT / "results", ROOT)
    sys.exit(0)
