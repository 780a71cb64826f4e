"""A study as a table in the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.table import Table


def table(rows: Sequence[dict[str, Any]], settings: Sequence[dict[str, Any]]) -> Table:
    """A row per setting: mean and spread over seeds of the last and the best validation loss, and the successes."""
    lines = Table(
        title=f"chance loss {rows[0]['chance']:.4g}; mean ± standard deviation over seeds", title_justify="left"
    )
    lines.add_column("setting", overflow="fold")
    for column in ("runs", "val loss", "best", rows[0]["metric"], "succeeded"):
        lines.add_column(column, justify="right", no_wrap=True)
    for s in settings:
        spreads = [_spread(s[f"{key}_mean"], s[f"{key}_std"]) for key in ("loss", "best_loss", "value")]
        lines.add_row(s["setting"], str(s["runs"]), *spreads, f"{s['successes']}/{s['runs']}")
    return lines


def _spread(mean: float | None, std: float | None) -> str:
    return "" if mean is None else f"{mean:.4g}" if std is None else f"{mean:.3g} ± {std:.1g}"
