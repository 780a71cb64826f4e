"""What the scripts take on their command lines; nothing here needs torch."""

from __future__ import annotations

import argparse
from collections.abc import Callable


def whole(least: int = 1, most: int | None = None) -> Callable[[str], int]:
    """argparse's ``type`` of a whole number of at least ``least``, and at most ``most``."""
    limits = f"of at least {least}" if most is None else f"from {least} to {most}"

    def read(text: str) -> int:
        if not text.isdecimal() or int(text) < least or (most is not None and int(text) > most):
            raise argparse.ArgumentTypeError(f"it is {text!r}, but it must be a whole number {limits}")
        return int(text)

    return read
