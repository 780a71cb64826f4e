"""What a study found: every finished run, and mean and spread over seeds."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from lit_rnn.commands.study.local import has_diverged, is_done
from lit_rnn.commands.study.search.space import text
from lit_rnn.commands.study.subject import Run, Study
from lit_rnn.files import write_csv, write_json
from lit_rnn.runs.curves import is_whole, read_curve
from lit_rnn.runs.options import number
from lit_rnn.runs.results import in_columns, is_finished, read_result, spread_of


def results(study: Study, folder: Path, runs: Sequence[Run] | None = None) -> list[dict[str, Any]]:
    """A row for every finished run, or for those of ``runs``: its setting, seed, losses, metric and success.

    A run that has diverged has a row without numbers, and is no success.

    ``test`` is there where the study tests its best settings: the metric on the test split, None of a run without.
    """
    rows = []
    tested = study.best.checkpoint if study.best is not None and study.best.test else None
    for run in study.trainings if runs is None else runs:
        place = folder / run.name
        out = not is_finished(place) and has_diverged(folder, run)
        if not is_finished(place) and not out:
            continue
        result = dict.fromkeys(_NUMBERS) if out else read_result(place)
        losses = [] if out else read_curve(place / "metrics.csv", "val/loss")[1]
        best = lowest(losses)
        threshold = study.below_chance * (result["chance"] or 0.0) if study.below is None else study.below
        rows.append(
            {
                "run": run.name,
                "setting": run.setting.name,
                "arm": run.setting.arm,
                "seed": run.seed,
                **dict(run.setting.values),
                "steps": result["steps"],
                "loss": result["loss"],
                "best_loss": best,
                "metric": result["metric"],
                "value": result["value"],
                **(
                    {} if tested is None else {"test": _tested(replace(run, command="test", checkpoint=tested), folder)}
                ),
                "diverged": out,
                "success": best is not None and best < threshold,
                "chance": result["chance"],
                "seconds": result["seconds"],
            }
        )
    return rows


def without_curve(rows: Sequence[Mapping[str, Any]], folder: Path) -> str:
    """A sentence on the runs that were validated, and whose metrics.csv lacks rows; empty where none does."""
    validated = [row for row in rows if row["loss"] is not None]
    bare = [str(row["run"]) for row in validated if not is_whole(folder / row["run"] / "metrics.csv", row["steps"])]
    told = "metrics.csv lacks rows at its end, so that a best loss or a success may be missing"
    return f"{told}: {', '.join(bare)}" if bare else ""


def _tested(test: Run, folder: Path) -> float | None:
    """The metric on the test split, of a run that was tested from the checkpoint that the study asks for."""
    value = read_result(folder / test.name, "test")["value"] if is_done(test, folder) else None
    return None if value is None else float(value)


_NUMBERS = ("steps", "loss", "metric", "value", "chance", "seconds")  # of a row, from fit.json
# What a row holds beside the options of its setting
_OWN = "run setting arm seed steps loss best_loss metric value test diverged success chance seconds"


def options_of(row: Mapping[str, Any]) -> dict[str, Any]:
    """The options that a row's setting gives."""
    return {key: value for key, value in row.items() if key not in _OWN.split()}


def lowest(losses: Iterable[float | None]) -> float | None:
    """The best of the validation losses of a run; None where none is a finite number."""
    return min((loss for loss in losses if loss is not None and math.isfinite(loss)), default=None)


def rank(best: Sequence[float | None]) -> tuple[int, float]:
    """What settings are ordered by, the smallest first, from the best loss of each of their seeds.

    First how many seeds have no finite loss, then the mean of the others (infinite where there are none): a seed that
    is lost is worse than any loss, and must not make the mean of its setting look better.
    """
    found = [loss for loss in best if loss is not None and math.isfinite(loss)]
    return len(best) - len(found), statistics.fmean(found) if found else math.inf


def over_seeds(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Mean, sample standard deviation and number over seeds by setting, in the order of `rank`.

    A loss that is no number counts in none of them, but in ``runs``.
    """
    settings, ranks = [], {}
    for name in dict.fromkeys(row["setting"] for row in rows):
        ours = [row for row in rows if row["setting"] == name]
        summary: dict[str, Any] = {"setting": name, **options_of(ours[0]), "runs": len(ours)}
        summary["diverged"] = sum(row["diverged"] for row in ours)
        summary["successes"] = sum(row["success"] for row in ours)
        for key in ("loss", "best_loss", "value", *(["test"] if "test" in ours[0] else [])):
            summary |= in_columns(key, spread_of(row[key] for row in ours))
        settings.append(summary)
        ranks[name] = rank([row["best_loss"] for row in ours])
    return sorted(settings, key=lambda summary: ranks[summary["setting"]])


def against_rate(rows: Sequence[dict[str, Any]]) -> dict[str, list[tuple[float, list[float]]]]:
    """Best losses of all seeds against the learning rate, by everything else that varies; the best line first.

    A seed without a finite loss is NaN, so that its rate has no mean; a line without any other loss is left out.
    Empty where the grid has no learning rate (an option that ends in ``lr``), or one value of it. Arms whose own grid
    has none have no line.
    """
    given = [options_of(row) for row in rows]
    keys = [[key for key in options if key.rpartition(".")[2] == "lr"] for options in given]
    rates = [number(row[own[0]]) if len(own) == 1 else None for row, own in zip(rows, keys, strict=True)]
    rated = [(row, rate) for row, rate in zip(rows, rates, strict=True) if rate is not None]
    if any(len(own) > 1 for own in keys) or len({rate for _, rate in rated}) < 2:
        return {}
    others = dict.fromkeys(key for options, own in zip(given, keys, strict=True) for key in options if key not in own)
    varied = [key for key in others if len({str(row.get(key)) for row, _ in rated}) > 1]
    several = len({row["arm"] for row in rows}) > 1  # of one arm the name is the file's, and tells nothing
    lines: dict[str, dict[float, list[float]]] = {}
    for row, rate in rated:
        varying = [f"{key.rpartition('.')[2]}={text(row[key])}" for key in varied if key in row]
        name = ", ".join([row["arm"], *varying] if several or not varying else varying)
        loss = math.nan if row["best_loss"] is None else row["best_loss"]
        lines.setdefault(name, {}).setdefault(rate, []).append(loss)
    ranks = {name: min(rank(losses) for losses in line.values()) for name, line in lines.items()}
    drawn = [name for name, line in lines.items() if any(math.isfinite(loss) for one in line.values() for loss in one)]
    return {name: sorted(lines[name].items()) for name in sorted(drawn, key=lambda name: ranks[name])}


def write(rows: Sequence[dict[str, Any]], settings: Sequence[dict[str, Any]], folder: Path) -> None:
    """study.json holds both; study.csv a line per run, study_means.csv a line per setting."""
    write_json(folder / "study.json", {"settings": settings, "runs": rows})
    write_csv(folder / "study.csv", rows)
    write_csv(folder / "study_means.csv", settings)
