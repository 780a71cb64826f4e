"""The word before what a paper says: whether it holds here."""

from __future__ import annotations

from collections.abc import Iterable

from lit_rnn.report.tables import plain_markdown

_WORDS = {True: "Holds here", False: "**Does not hold here**", None: "Not measured yet"}


def verdict(holds: bool | None, text: str, beneath: Iterable[str] = ()) -> str:
    """A line of a page about a claim, or about several that have not been measured, and what it hangs on beneath it;
    texts have no full stop."""
    return f"- {_WORDS[holds]}: {plain_markdown(text)}.\n{_points(beneath)}"


def not_here(done: str, text: str) -> str:
    """A line about what networks are said to have ``learnt`` or ``kept``, and have not in the updates they had here."""
    return f"- **Not {done} here**: {plain_markdown(text)}.\n"


def untold(text: str, beneath: Iterable[str] = ()) -> str:
    """A line about what the runs cannot decide: networks lose nothing that they have not learnt, or it hangs on one."""
    return f"- **Cannot be told here**: {plain_markdown(text)}.\n{_points(beneath)}"


def _points(texts: Iterable[str]) -> str:
    return "".join(f"    - {plain_markdown(text)}.\n" for text in texts)
