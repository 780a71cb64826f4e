"""A study as a table in the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lit_rnn.report.tables import Table, lacking, number, spread


def table(rows: Sequence[dict[str, Any]], settings: Sequence[dict[str, Any]]) -> Table:
    """A row per setting: mean and spread over seeds of the last and the best validation loss, and the successes.

    At least one of the runs has finished.
    """
    tested = ["test"] if "test_mean" in settings[0] else []
    out = ["diverged"] if any(s["diverged"] for s in settings) else []
    known = [row for row in rows if not row["diverged"]]
    chances = list(dict.fromkeys(number(row["chance"]) for row in sorted(known, key=lambda row: row["chance"])))
    metrics = {row["metric"] for row in known}  # settings may be of several tasks
    lines = [
        [
            s["setting"],
            s["runs"],
            *(_shown(s, key) for key in ("loss", "best_loss", "value", *tested)),
            *(s[key] for key in out),
            f"{s['successes']}/{s['runs']}" if s["best_loss_number"] or s["diverged"] else "",  # where none validated
        ]
        for s in settings
    ]
    header = [
        "setting",
        "runs",
        "val loss",
        "best",
        *[metrics.pop() if len(metrics) == 1 else "metric", *tested],
        *out,
        "succeeded",
    ]
    title = f"chance loss {' to '.join(dict.fromkeys((chances[0], chances[-1])))}; mean ± standard deviation over seeds"
    return Table(header, lines, title=title)


def _shown(setting: dict[str, Any], key: str) -> str:
    """Mean and spread, and of how many runs where not all have the number."""
    mean = spread(setting[f"{key}_mean"], setting[f"{key}_std"])
    return mean + lacking(setting[f"{key}_number"], setting["runs"])
