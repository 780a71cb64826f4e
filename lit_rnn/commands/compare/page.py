"""Finished runs as a table in the terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table

from lit_rnn.runs.results import Result, read_result


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
