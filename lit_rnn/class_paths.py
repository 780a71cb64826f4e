"""Classes by import path, as configs and checkpoints name them."""

from __future__ import annotations

import importlib


def class_path(cls: type) -> str:
    """The import path of a class, where it is defined."""
    return f"{cls.__module__}.{cls.__qualname__}"


def import_class(path: str) -> type:
    """The class at an import path."""
    module, _, name = path.rpartition(".")
    return getattr(importlib.import_module(module), name)
