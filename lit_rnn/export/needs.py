"""Packages that only exporting needs, imported when it does."""

from __future__ import annotations

import importlib
from types import ModuleType

from datamodules.errors import UserError


def needed(name: str, what: str) -> ModuleType:
    """The module ``name``, which ``what`` needs.

    Raises:
        UserError: if it cannot be imported.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        package = name.partition(".")[0]
        raise UserError(
            f"{what} needs the Python package {package}, which is not installed: pip install 'lit_rnn[export]'."
        ) from error
