"""Packages whose names are imported when the first of them is asked for."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Sequence


def on_demand(package: str, modules: Sequence[str]) -> Callable[[str], object]:
    """The ``__getattr__`` (PEP 562) of a package that imports ``modules`` when the first name of its `__all__` is used.

    All come together, so that every class is known once one is.

    Args:
        package: Its ``__name__``.
        modules: The modules inside that define its names.
    """

    def get(name: str) -> object:
        names = vars(sys.modules[package])
        if name not in names["__all__"]:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        for module in modules:
            defined = vars(importlib.import_module(f"{package}.{module}"))
            names.update((each, defined[each]) for each in names["__all__"] if each in defined)
        return names[name]

    return get
