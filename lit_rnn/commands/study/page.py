"""A study as a table in the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lit_rnn.report.tables import Table, number, spread


def table(rows: Sequence[dict[str, Any]], settings: Sequence[dict[str, Any]]) -> Table:
    """A row per setting: mean and spread over seeds of the last and the best validation loss, and the successes."""
    tested = ["test"] if "test_mean" in settings[0] else []
    lines = [
        [
            s["setting"],
            s["runs"],
            *(spread(s[f"{key}_mean"], s[f"{key}_std"]) for key in ("loss", "best_loss", "value", *tested)),
            f"{s['successes']}/{s['runs']}",
        ]
        for s in settings
    ]
    header = ["setting", "runs", "val loss", "best", *[rows[0]["metric"], *tested], "succeeded"]
    title = f"chance loss {number(rows[0]['chance'])}; mean ± standard deviation over seeds"
    return Table(header, lines, title=title)
