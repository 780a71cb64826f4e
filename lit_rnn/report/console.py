"""Where the commands print their tables."""

from __future__ import annotations

from rich.console import Console

FILE_WIDTH = 160  # characters: a file, unlike a terminal, has room for long names


def new_console() -> Console:
    """Standard output, as wide as the terminal, or `FILE_WIDTH` where it goes into a file or a pipe.

    What it prints is text: names of runs, tasks and classes may have square brackets or colons in them.
    """
    console = Console(markup=False, emoji=False)
    return console if console.is_terminal else Console(width=FILE_WIDTH, markup=False, emoji=False)
