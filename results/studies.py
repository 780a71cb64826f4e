"""A study in results/: one file that holds what its runs were, came to, and cost; no folder for each of hundreds."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from datamodules.errors import UserError, as_in_yaml
from lit_rnn.commands.configs import config_folder
from lit_rnn.commands.study import plan
from lit_rnn.commands.study.best import diverged
from lit_rnn.commands.study.local import is_done
from lit_rnn.commands.study.measure import lowest, rank, results
from lit_rnn.commands.study.subject import Checkpoint, Run, read_study
from lit_rnn.files import make_folder, read_json, refuse_links, write_file
from lit_rnn.runs.curves import read_curve
from lit_rnn.runs.options import said_before
from lit_rnn.runs.results import is_finished, or_null, read_result

_VERSIONS = ("commit", "lit_rnn", "python", "torch", "platform", "threads")


def collected(name: str, folder: Path, commit: str | None = None) -> dict[str, Any]:
    """What becomes of a study's folder: its plan, and every finished run.

    Raises:
        UserError: if no run has finished, if one was something else than the study says now or was resumed with other
            options, or if its commit is not known.
    """
    study = read_study(name)
    finished = [run for run in study.trainings if is_finished(folder / run.name)]
    if finished:
        plan.check(finished, folder, plan.read(folder))
    succeeded = {row["run"]: row["success"] for row in results(study, folder, finished)}
    checkpoint: Checkpoint = study.best.checkpoint if study.best is not None else "best"
    runs = [_run(run, checkpoint, folder, commit) | {"success": succeeded[run.name]} for run in finished]
    if not runs:
        raise UserError(f"{folder} holds no finished run of {name}: name the study's folder.")
    best, out = study.best, diverged(study.trainings, folder)
    return {
        "study": f"campaign/{study.path.name}" if _shipped(study.path) else study.path.name,
        "note": note(study.path),
        "arms": {arm: [_setting(one) for one in study.settings if one.arm == arm] for arm in study.arms},
        "seeds": list(study.seeds),
        "best": asdict(best) if best is not None else None,
        "diverged": [{"setting": run.setting.name, "seed": run.seed} for run in study.trainings if run in out],
        "runs": runs,
    }


def note(study: Path) -> list[str]:
    """What a study's file says of itself: its comments' lines."""
    lines = study.read_text(encoding="utf-8").splitlines()
    return [line.removeprefix("#").strip() for line in lines if line[:1] == "#"]


def with_arms_of(before: Mapping[str, Any], content: Mapping[str, Any]) -> dict[str, Any]:
    """``content`` and, as they were ``before``, the arms of which no run has begun here: those of another machine.

    Raises:
        UserError: if those were run for another plan.
    """
    parts = ("runs", "diverged")
    begun = {run["setting"] for part in parts for run in content[part]}
    old: dict[str, list[Any]] = {part: [] for part in parts}
    for arm, settings in before["arms"].items():
        names = {one["setting"] for one in settings}
        theirs = {part: [run for run in before[part] if run["setting"] in names] for part in parts}
        if arm not in content["arms"] or names & begun or not any(theirs.values()):
            continue
        for key, was, now in [
            *((key, before[key], content[key]) for key in ("seeds", "best")),
            (f"arms.{arm}", settings, content["arms"][arm]),
        ]:
            if json.dumps(was) != json.dumps(now):
                raise UserError(
                    f"The file holds runs of {arm}, of which none is here, but {key} of the study was another: run "
                    "them anew, or remove the file."
                )
        for part in parts:
            old[part] += theirs[part]
    return {**content, **{part: [*old[part], *content[part]] for part in parts}}


def _shipped(path: Path) -> bool:
    return path.resolve().is_relative_to(config_folder().resolve())


def _setting(setting: Any) -> dict[str, Any]:
    return {"setting": setting.name, "options": dict(setting.values)}


def check_one_setting(run: Path) -> None:
    """Refuse a run that was resumed with other options: its numbers are those of no config.

    Raises:
        UserError: naming the first such option.
    """
    for before in said_before(run):
        key, value = next(iter(before.items()))
        raise UserError(
            f"{run} began with {key} {as_in_yaml(value)} and was resumed with another, so that no config gives its "
            "numbers: train it anew; compare shows it as it is."
        )


def versions_of(run: Path, commit: str | None) -> dict[str, Any]:
    """What a run's first versions.json says, with the commit given where there is one.

    Raises:
        UserError: if neither names a commit.
    """
    versions = read_json(run / "versions.json")
    versions["commit"] = commit or versions.get("commit")
    if versions["commit"] is None:
        raise UserError(f"{run / 'versions.json'} does not name the commit that the run began with: give --commit.")
    return versions


def _run(run: Run, checkpoint: Checkpoint, folder: Path, commit: str | None) -> dict[str, Any]:
    place = folder / run.name
    check_one_setting(place)
    versions = versions_of(place, commit)
    fit = read_result(place)
    tested = is_done(replace(run, command="test", checkpoint=checkpoint), folder)
    columns = {key: read_curve(place / "metrics.csv", key) for key in ("val/loss", f"val/{fit['metric']}")}
    return {
        "run": run.name,
        "setting": run.setting.name,
        "seed": run.seed,
        "versions": {key: versions.get(key) for key in _VERSIONS},
        "fit": fit,
        "test": read_result(place, "test") if tested else None,
        "curves": {
            key: [list(steps), [or_null(value) for value in values]] for key, (steps, values) in columns.items()
        },
    }


def write(content: Mapping[str, Any], to: Path) -> None:
    """One run a line, so that a change of one can be read."""
    refuse_links(to.parent)
    make_folder(to.parent, "the folder in results")
    head = {key: value for key, value in content.items() if key != "runs"}
    lines = ",\n".join(json.dumps(run, allow_nan=False) for run in content["runs"])
    start = json.dumps(head, indent=1, allow_nan=False).removesuffix("\n}")
    write_file(to, f'{start},\n "runs": [\n{lines}\n ]\n}}\n')


# ---- what a file says


def cost(runs: Sequence[Mapping[str, Any]]) -> str:
    """Of which commit trainings were, where, and how long they took.

    In the seconds of a test its checkpoint's training would be counted again.
    """
    commits = sorted({str(run["versions"]["commit"])[:7] for run in runs})
    platforms = sorted({str(run["versions"]["platform"]) for run in runs})
    threads = sorted({int(run["versions"]["threads"]) for run in runs if run["versions"].get("threads")})
    one = f" with {' or '.join(map(str, threads))} thread{'s' * (threads != [1])}" if threads else ""
    hours = sum(run["fit"]["seconds"] for run in runs) / 3600
    where = f"on {', '.join(platforms)}{one}"
    return f"{len(runs)} trainings of commit {', '.join(commits)} {where} took {hours:.1f} hours"


@dataclass(frozen=True)
class Arm:
    """A model of a study.

    Args:
        name: Of the arm.
        tried: How many settings have run with every seed of the search, or diverged, and how many there are.
        window: How many of them come within a tenth of the best validation metric, the best among them.
        tests: test.json of every tested run of the best setting, in the order of the seeds.
        diverged: How many further seeds of it have.
        wanted: How many seeds there are to be; more where they are for successes alone, and the first ones are.
        parameters: Of the runs.
        rates: The learning rates of the settings that have run.
        lost_rates: Those of settings that diverged with a seed of the search.
        rate: The one of the best setting.
    """

    name: str
    tried: tuple[int, int]
    window: int
    tests: tuple[Mapping[str, Any], ...]
    diverged: int
    wanted: int
    parameters: int | None
    rates: tuple[float, ...]
    lost_rates: tuple[float, ...]
    rate: float | None

    @property
    def is_whole(self) -> bool:
        return self.ended == self.wanted

    @property
    def ended(self) -> int:
        """How many seeds of the best setting have come to something."""
        return len(self.tests) + self.diverged

    def values(self, length: int) -> list[float]:
        """The metric at a length, of every tested run."""
        return [value_at(test, length) for test in self.tests]


@dataclass(frozen=True)
class Finished:
    """What a study's file holds."""

    name: str
    note: str
    arms: tuple[Arm, ...]
    runs: Sequence[Mapping[str, Any]]

    @property
    def lengths(self) -> list[int]:
        """That of training, and longer ones."""
        first = self.runs[0]["fit"]
        return sorted({first["trained_at"], *(length for length in _others(first) if length > first["trained_at"])})


def value_at(result: Mapping[str, Any], length: int) -> float:
    """The metric of a result at a length; where it is measured at several, the whole split is of that of training."""
    return float(result.get(f"value_at_{length}", result["value"] if length == result["trained_at"] else math.nan))


def _others(result: Mapping[str, Any]) -> list[int]:
    return [int(key.removeprefix("value_at_")) for key in result if key.startswith("value_at_")]


def read(path: Path) -> Finished:
    """A study's file."""
    content = read_json(path)
    arms = tuple(_arm(name, settings, content) for name, settings in content["arms"].items())
    return Finished(path.stem, " ".join(content["note"]), arms, content["runs"])


def _arm(name: str, settings: Sequence[Mapping[str, Any]], content: Mapping[str, Any]) -> Arm:
    seeds, best = content["seeds"], content["best"] or {"seeds": [], "test": False}
    ours = {one["setting"]: [run for run in content["runs"] if run["setting"] == one["setting"]] for one in settings}
    searched = {key: [run for run in runs if run["seed"] in seeds] for key, runs in ours.items()}
    tried = [key for key, runs in searched.items() if len(runs) == len(seeds)]
    losses = {key: rank([lowest(run["curves"]["val/loss"][1]) for run in searched[key]]) for key in tried}
    tests: list[Mapping[str, Any]] = []
    known = {one["setting"]: _rate(one["options"]) for one in settings}
    rate, window, lost, wanted = None, 0, 0, len(seeds) + len(best["seeds"])
    parameters = next((run["fit"]["parameters"] for runs in ours.values() for run in runs), None)
    diverged = content.get("diverged", [])
    if tried:
        values = [statistics.fmean(run["fit"]["value"] for run in searched[key]) for key in tried]
        window = sum(value >= 0.9 * max(values) for value in values)
        chosen = min(tried, key=lambda key: losses[key])  # as the study chooses; no other is tested
        tests = [run["test"] for run in ours[chosen] if run["test"] is not None]
        lost = sum(one["setting"] == chosen for one in diverged)
        rate = known[chosen]
        if best.get("if_success") and not all(run["success"] for run in searched[chosen]):
            wanted = len(seeds)
    out = {one["setting"] for one in diverged if one["setting"] in ours} - set(tried)
    rates, gone = (tuple(value for key in some if (value := known[key]) is not None) for some in (tried, sorted(out)))
    tried_of = len(tried) + len(out), len(settings)
    return Arm(name, tried_of, window, tuple(tests), lost, wanted, parameters, rates, gone, rate)


def _rate(options: Mapping[str, Any]) -> float | None:
    """The learning rate among the options of a setting."""
    return next((value for key, value in options.items() if key.rpartition(".")[2] == "lr"), None)
