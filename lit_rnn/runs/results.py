"""The numbers that a finished command left in a run folder, over runs too, and the run folders below a study's."""

from __future__ import annotations

import math
import re
import statistics
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datamodules.errors import UserError, as_in_yaml
from lit_rnn.files import read_json

_NUMBERS = {"parameters": int, "steps": int, "loss": float, "chance": float, "value": float, "seconds": float}
_AT_LENGTH = re.compile(r"(?:loss|value|chance)_at_(\d{1,18})")  # what Summary writes of other lengths
_TEXTS = ("model", "task", "metric")
_MOST = sys.float_info.max  # JSON's whole numbers may be larger


def as_kept(result: Mapping[str, Any]) -> dict[str, Any]:
    """The numbers of a result as its file has them."""
    return {key: or_null(value) for key, value in result.items()}


def or_null(value: Any) -> Any:
    """None, JSON's null, for a number that is none, as JSON has no NaN and no infinity."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def is_finished(folder: Path, command: str = "fit") -> bool:
    """Whether a run has come to its end: fit.json is written last, and a damaged one says nothing."""
    try:
        return bool(read_json(folder / f"{command}.json"))
    except UserError:
        return False


def ended_early(folder: Path) -> bool:
    """Whether a finished run ended before its last epoch or step, as when it had solved its task."""
    path = folder / "fit.json"
    return path.is_file() and "ended_early" in read_json(path)


def read_result(folder: Path, command: str = "fit") -> dict[str, Any]:
    """The numbers that a finished run left in its folder; None for a loss or a value that is none.

    Raises:
        UserError: if there are none, or if they are something else.
    """
    path = folder / f"{command}.json"
    if not path.is_file():
        raise UserError(f"{folder} holds no finished run (no {path}); name folders of finished runs.")
    found = read_json(path, (*_TEXTS, *_NUMBERS))
    for key in _TEXTS:
        if not (isinstance(found[key], str) and found[key].isprintable()):  # it goes to the terminal
            raise UserError(f"{path} is damaged ({key} is not text): recreate it or remove it.")
    others: dict[str, type] = {key: float for key in found if _AT_LENGTH.fullmatch(key)}
    others |= {"trained_at": int} if found.get("trained_at") is not None else {}
    for key, kind in {**_NUMBERS, **others}.items():
        value = found[key]
        missing = value is None and key.startswith(("loss", "value"))  # not validated
        number = not isinstance(value, bool) and isinstance(value, int if kind is int else int | float)
        too_large = isinstance(value, int) and abs(value) > _MOST
        if not missing and (not number or too_large):
            raise UserError(f"{path} is damaged ({key} is not a number): recreate it or remove it.")
    return as_kept(found)


def without_rounding(value: Any) -> Any:
    """A number without its last digits, which are rounding: of a sum, they differ from machine to machine."""
    return float(f"{value:.9g}") if isinstance(value, float) else value


def astray(fit: Mapping[str, Any], test: Mapping[str, Any], fingerprint: str | None) -> str:
    """Why the numbers of a test are not of what was trained, in words; empty where they are.

    Args:
        fit: Those of training.
        test: Those of the test.
        fingerprint: Of the files that training has read, where the run keeps one.
    """
    apart = [
        f"{key} is {test[key]}, and {fit[key]} in fit.json"
        for key in ("model", "parameters", "task", "metric", "chance")
        if without_rounding(test[key]) != without_rounding(fit[key])
    ]
    trained = test.get("trained_steps", fit["steps"])
    if trained != fit["steps"]:
        when = "before training ended" if trained is None else f"after {as_in_yaml(trained)} steps of training"
        apart.append(f"it was made {when}, and fit.json is of {fit['steps']}")
    if test.get("fingerprint", fingerprint) != fingerprint is not None:
        apart.append("it is of other files")
    return "; ".join(apart)


def other_lengths(result: Mapping[str, Any]) -> list[int]:
    """The other lengths that the numbers of a run are also at, in their order."""
    return [int(match[1]) for key in result if key.startswith("value") and (match := _AT_LENGTH.fullmatch(key))]


@dataclass(frozen=True)
class Spread:
    """A mean, the sample standard deviation (n - 1 in its denominator; None of one value), and how many values."""

    mean: float
    std: float | None
    number: int


def spread_of(values: Iterable[float | None]) -> Spread | None:
    """Of the values that are finite numbers; None if there is none."""
    found = [float(value) for value in values if value is not None and math.isfinite(value)]
    if not found:
        return None
    return Spread(statistics.fmean(found), statistics.stdev(found) if len(found) > 1 else None, len(found))


def in_columns(key: str, found: Spread | None) -> dict[str, Any]:
    """As the row of a file has it: mean, deviation and number behind ``key``."""
    mean, std, count = (None, None, 0) if found is None else (found.mean, found.std, found.number)
    return {f"{key}_mean": mean, f"{key}_std": std, f"{key}_number": count}


def finished_below(folder: Path) -> list[Path]:
    """The finished runs of a study's folder, in the order of the study, or by name."""
    return _in_order(folder, [path.parent for path in folder.glob("*/fit.json")])


def runs_below(folder: Path) -> list[Path]:
    """The run folders at any depth below a folder, finished or not; studies among them in their own order.

    Links, hidden folders and those that may not be read are passed over.
    """
    if _is_run(folder):
        return [folder]
    try:
        inner = [path for path in folder.iterdir() if path.is_dir() and not path.is_symlink()]
    except OSError:
        return []
    inner = sorted(path for path in inner if not path.name.startswith("."))
    if any(_is_run(path) for path in inner):
        inner = _in_order(folder, inner)
    return [run for path in inner for run in runs_below(path)]


def _is_run(folder: Path) -> bool:
    return any((folder / name).is_file() for name in ("config.yaml", "fit.json"))


def _in_order(folder: Path, found: list[Path]) -> list[Path]:
    plan = folder / "plan.json"
    order = list(read_json(plan)) if plan.is_file() else []
    return sorted(sorted(found), key=lambda run: order.index(run.name) if run.name in order else len(order))
