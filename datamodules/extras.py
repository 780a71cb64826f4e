"""Packages that only some uses need, imported when they do."""

from __future__ import annotations

import importlib
from typing import Any

from datamodules.errors import UserError


def needed(name: str, what: object, extra: str) -> Any:
    """The module ``name``, which ``what`` needs and an ``extra`` of lit_rnn installs.

    Raises:
        UserError: if it cannot be imported.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        package = name.partition(".")[0]
        raise UserError(
            f"{what} needs the Python package {package}, which is not installed: pip install 'lit_rnn[{extra}]'."
        ) from error
