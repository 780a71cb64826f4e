"""A study of robustness in results/: its runs with what attacks found of them, and their matrices before and after."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datamodules.errors import UserError
from lit_rnn.files import read_json
from lit_rnn.runs.results import as_kept

TASKS = {"digits": "digits", "mnist": "MNIST in order", "permuted_mnist": "permuted MNIST"}  # by the study's file
MODELS = {
    "vanillarnn": "VanillaRNN", "lstm": "LSTM", "gru": "GRU", "exprnn": "ExpRNN", "chain": "VanillaRNN, chain start",
    "nnrnn": "NnRNN", "adversarial": "VanillaRNN, attacked in training",
}  # fmt: skip
HELD = {"none": "free", "spectral_radius": "ρ ≤ 1", "spectral_norm": "σ ≤ 1"}
CONSTRAINT = "model.init_args.recurrent_constraint"
NUMBERS = {  # of a matrix
    "spectral_radius": "ρ", "spectral_norm": "σ", "henrici": "d", "pseudospectral_radius": "ρ_0.01",
    "distance_to_instability": "β", "kreiss_lower_bound": "K",
}  # fmt: skip


# ---- what is collected


def with_attacks(content: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """A study's runs with what `attack --study` found of them, and their matrices before and after training.

    Raises:
        UserError: if no run has been attacked.
    """
    path = folder / "attack_study.json"
    rows = {Path(row["run"]).name: row for row in read_json(path)["runs"]} if path.is_file() else {}
    known = [run for run in content["runs"] if run["run"] in rows]
    if not known:
        raise UserError(f"{folder} holds no attacked run: python -m lit_rnn attack --study {folder}.")
    return {
        **content,
        "asked": read_json(folder / known[0]["run"] / "attack" / "attack.json")["asked"],
        "runs": [_with_attack(run, rows[run["run"]], folder / run["run"]) for run in known],
    }


def _with_attack(run: Mapping[str, Any], row: Mapping[str, Any], place: Path) -> dict[str, Any]:
    left_out = ("run", "setting", "seed", "task", "model")
    attack = {key: value for key, value in row.items() if key not in left_out and key not in NUMBERS}
    report = read_json(place / "attack" / "attack.json")
    attack["seconds"] = report["seconds"]
    attack["failed_checks"] = [check["name"] for check in report["checks"] if check["passed"] is False]
    checkpoints = place / "checkpoints"
    matrices = {"before": matrix_numbers(checkpoints / "init.ckpt"), "after": matrix_numbers(checkpoints / "best.ckpt")}
    return {**run, "attack": attack, **matrices}


def matrix_numbers(checkpoint: Path) -> dict[str, float | None]:
    """Of several matrices, such as gates, the number that is furthest from normal and stable; None is infinite."""
    from lit_rnn import analysis
    from lit_rnn.commands.attack.measure import PSEUDO_EPS
    from lit_rnn.models import load
    from lit_rnn.models.probes import recurrent_matrices, spectra

    model = load(checkpoint)
    found = spectra(model, PSEUDO_EPS)
    precision = 2.0**-23  # weights are kept in float32
    for name, W in recurrent_matrices(model).items():
        found[name]["distance_to_instability"] = analysis.distance_to_instability(W)
        found[name]["kreiss_lower_bound"] = analysis.kreiss_lower_bound(W, precision)
    worst: dict[str, Callable[[list[float]], float]] = {"distance_to_instability": min}
    return as_kept({key: worst.get(key, max)([one[key] for one in found.values()]) for key in NUMBERS})


# ---- what a file says


@dataclass(frozen=True)
class Setting:
    """A network of a study, with its runs of all seeds."""

    arm: str
    held: str | None  # of the recurrent matrix, where the study varies it
    runs: Sequence[Mapping[str, Any]]

    @property
    def name(self) -> str:
        return MODELS[self.arm] + (f", {HELD[self.held]}" if self.held else "")

    def attack(self, key: str) -> list[float | None]:
        """A number of `attack --study`, of every run."""
        return [run["attack"].get(key) for run in self.runs]

    def matrix(self, key: str, when: str = "after") -> list[float]:
        """A number of the recurrent matrices, of every run."""
        return [math.inf if run[when][key] is None else float(run[when][key]) for run in self.runs]

    def mean(self, key: str) -> float:
        """Of a number that every attacked run has."""
        return statistics.fmean(value for value in self.attack(key) if value is not None)

    def worst(self, eps: float) -> float:
        """Worst-case accuracy at a size in L-infinity."""
        return self.mean(column("inf", eps))

    @property
    def weakly(self) -> bool:
        """Whether some run was attacked too weakly, by the evaluation's own checks."""
        return any(run["attack"].get("failed_checks") for run in self.runs)

    @property
    def risen(self) -> float:
        """By how much Henrici's departure rose in training."""
        return statistics.fmean(self.matrix("henrici")) - statistics.fmean(self.matrix("henrici", "before"))


def column(norm: str, eps: float) -> str:
    """As `attack --study` names its worst cases."""
    return f"worst_{norm}_{eps:.9g}"


@dataclass(frozen=True)
class Study:
    """What a file holds."""

    task: str
    note: str
    seeds: Sequence[int]
    settings: Sequence[Setting]  # those with a run
    missing: Sequence[str]  # settings without all seeds, in words
    asked: Mapping[str, Any]
    runs: Sequence[Mapping[str, Any]]

    def sizes(self, norm: str) -> list[float]:
        """In rising order, up to the first at which no example stands in any setting."""
        start = f"worst_{norm}_"
        found = sorted({float(key.removeprefix(start)) for run in self.runs for key in run["attack"]
                        if key.startswith(start)})  # fmt: skip
        gone = [all(one.mean(column(norm, eps)) == 0 for one in self.settings) for eps in found]
        return found[: gone.index(True) + 1] if any(gone) else found


def read(path: Path) -> Study:
    """A study's file."""
    content = read_json(path)
    settings, missing = [], []
    for arm, planned in content["arms"].items():
        for one in planned:
            runs = [run for run in content["runs"] if run["setting"] == one["setting"]]
            setting = Setting(arm, one["options"].get(CONSTRAINT), runs)
            settings += [setting] if runs else []
            if len(runs) < len(content["seeds"]):
                out = sum(run["setting"] == one["setting"] for run in content["diverged"])
                diverged = f", {out} diverged" if out else ""
                missing.append(f"{setting.name} ({len(runs)} of {len(content['seeds'])}{diverged})")
    note = " ".join(content["note"])
    return Study(path.stem, note, content["seeds"], settings, missing, content["asked"], content["runs"])


def read_all(folder: Path) -> dict[str, Study]:
    """results/robustness/, by the study's file."""
    return {task: read(folder / f"{task}.json") for task in TASKS if (folder / f"{task}.json").is_file()}
