"""Finished runs as a table in the terminal."""

from __future__ import annotations

from collections.abc import Sequence

from lit_rnn.report.tables import Table, number
from lit_rnn.runs.results import Result, read_result


def table(results: Sequence[Result]) -> Table:
    """Runs on one task, a row each; the test column is empty until ``test`` has run."""
    task = results[0][1]
    rows = []
    for folder, result in results:
        test = read_result(folder, "test") if (folder / "test.json").is_file() else {}
        rows.append(
            [
                folder.name,
                result["model"],
                result["parameters"],
                result["steps"],
                result["loss"],
                result["value"],
                f"{number(test['value'])} (step {test['steps']:,})" if test else "",  # best.ckpt is not the last step
                round(result["seconds"]),
            ]
        )
    header = ["run", "model", "parameters", "steps", "val loss", "val", "test", "seconds"]
    title = f"{task['task']}, chance loss {number(task['chance'])}, metric: {task['metric']}"
    return Table(header, rows, texts=2, title=title)
