"""``python -m lit_rnn compare``: finished runs side by side, as a table and a picture."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from rich.table import Table

from datamodules import UserError
from lit_rnn.files import read_json
from lit_rnn.report.console import new_console
from lit_rnn.report.curves import draw_curves

Result = tuple[Path, dict[str, Any]]  # a run folder and its fit.json


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}; see python -m lit_rnn compare --help.")


def run(command: str, arguments: Sequence[str]) -> None:
    """Compare run folders: a table in the terminal, loss against steps as a picture."""
    parser = _Parser(prog=f"python -m lit_rnn {command}", description=run.__doc__)
    parser.add_argument("runs", nargs="+", type=Path, help="run folders; those on one task share a picture")
    parser.add_argument("--picture", type=Path, default=Path("compare.png"), help="where the picture goes")
    options = parser.parse_args(list(arguments))
    results = [(folder, read_result(folder)) for folder in options.runs]
    tasks = {(result["task"], result["chance"], result["metric"]) for _, result in results}
    for task in sorted(tasks):
        new_console().print(table([(f, r) for f, r in results if (r["task"], r["chance"], r["metric"]) == task]))
    if len(tasks) > 1:
        print("No picture: these runs are not on one task.")
        return
    draw(results, options.picture)
    print(f"picture: {options.picture}")


def read_result(folder: Path, command: str = "fit") -> dict[str, Any]:
    """The numbers that a finished run left in its folder.

    Raises:
        UserError: if there are none.
    """
    path = folder / f"{command}.json"
    if not path.is_file():
        raise UserError(f"{folder} holds no finished run (no {path}); name folders that `fit` has ended in.")
    return read_json(path, ("model", "task", "parameters", "steps", "loss", "chance", "metric", "value", "seconds"))


def table(results: Sequence[Result]) -> Table:
    """Runs on one task, a row each; the test column is empty until ``test`` has run."""
    task = results[0][1]
    lines = Table(
        title=f"{task['task']}, chance loss {task['chance']:.4g}, metric: {task['metric']}", title_justify="left"
    )
    for column in ("run", "model", "parameters", "steps", "val loss", "val", "test", "seconds"):
        names = column in ("run", "model")
        lines.add_column(column, justify="left" if names else "right", overflow="fold")
    for folder, result in results:
        test = read_result(folder, "test") if (folder / "test.json").is_file() else {}
        numbers = (result["loss"], result["value"])
        tested = f"{test['value']:.4g} (step {test['steps']:,})" if test else ""  # best.ckpt is not the last step
        lines.add_row(
            folder.name,
            result["model"],
            f"{result['parameters']:,}",
            f"{result['steps']:,}",
            *("" if number is None else f"{number:.4g}" for number in numbers),
            tested,
            f"{result['seconds']:.0f}",
        )
    return lines


def draw(results: Sequence[Result], picture: Path) -> None:
    """Loss against steps of runs on one task, with chance as a line."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7 if len(results) <= 3 else 9.5, 4), layout="constrained")
    axes = figure.subplots()
    names = [f"{result['model']}, {result['parameters']:,} parameters" for _, result in results]
    if len(set(names)) < len(names):
        names = [f"{folder.name}: {name}" for (folder, _), name in zip(results, names, strict=True)]
    draw_curves(axes, list(zip(names, [folder for folder, _ in results], strict=True)), results[0][1]["chance"])
    axes.set_title(results[0][1]["task"])
    picture.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(picture, dpi=120)
