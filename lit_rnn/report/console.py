"""Where the commands print their tables."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.text import Text

from datamodules.errors import printable

FILE_WIDTH = 160  # characters: a file, unlike a terminal, has room for long names


class _Plain(Console):
    """What it prints is text: names of runs, tasks and classes may have square brackets or colons in them, and what
    would move the cursor."""

    def __init__(self, width: int | None = None) -> None:
        super().__init__(width=width, markup=False, emoji=False)

    def render_str(self, text: str, **options: Any) -> Text:
        return super().render_str("\n".join(map(printable, text.split("\n"))), **options)


def new_console() -> Console:
    """Standard output, as wide as the terminal, or `FILE_WIDTH` where it goes into a file or a pipe."""
    console = _Plain()
    return console if console.is_terminal else _Plain(FILE_WIDTH)
