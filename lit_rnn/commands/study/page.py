"""A study as a table in the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lit_rnn.report.tables import Table, number, spread


def table(rows: Sequence[dict[str, Any]], settings: Sequence[dict[str, Any]]) -> Table:
    """A row per setting: mean and spread over seeds of the last and the best validation loss, and the successes.

    At least one of the runs has finished.
    """
    tested = ["test"] if "test_mean" in settings[0] else []
    out = ["diverged"] if any(s["diverged"] for s in settings) else []
    known = next(row for row in rows if not row["diverged"])
    lines = [
        [
            s["setting"],
            s["runs"],
            *(spread(s[f"{key}_mean"], s[f"{key}_std"]) for key in ("loss", "best_loss", "value", *tested)),
            *(s[key] for key in out),
            f"{s['successes']}/{s['runs']}",
        ]
        for s in settings
    ]
    header = ["setting", "runs", "val loss", "best", *[known["metric"], *tested], *out, "succeeded"]
    title = f"chance loss {number(known['chance'])}; mean ± standard deviation over seeds"
    return Table(header, lines, title=title)
