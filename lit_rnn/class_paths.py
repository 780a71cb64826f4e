"""Classes by import path, as configs and checkpoints name them, and whose word makes Python import a module.

One rule for every name that a file, a checkpoint or an option holds: it is looked up among the subclasses of what its
place takes that are loaded already, and nothing is imported for it. Modules are imported only by the user's own word:
by a config of ``-c`` and options of the command line (jsonargparse does that while it parses), and by `trust`.
"""

from __future__ import annotations

import importlib
import inspect
import itertools
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from datamodules.arguments import OURS
from datamodules.errors import UserError, as_in_yaml, one_line

_LIBRARIES = ("torch", "pytorch_lightning", "lightning_fabric")


def class_path(cls: type) -> str:
    """The import path of a class, where it is defined."""
    return f"{cls.__module__}.{cls.__qualname__}"


def own_module(name: str) -> str | None:
    """The module of a class of the user's own, from its import path; None for short names and shipped classes."""
    module = name.rpartition(".")[0]
    return None if not module or module.partition(".")[0] in (*OURS, *_LIBRARIES) else module


def is_own(cls: type) -> bool:
    """Whether a class is of the user's own."""
    return own_module(class_path(cls)) is not None


def arguments_of(cls: type) -> dict[str, inspect.Parameter]:
    """What a class and those above it are made with; the last to name an argument says what it is."""
    found: dict[str, inspect.Parameter] = {}
    for above in reversed(cls.__mro__):
        if "__init__" in vars(above):
            found |= inspect.signature(vars(above)["__init__"]).parameters
    return found


def subclasses(base: type) -> Iterator[type[Any]]:
    """All loaded classes below ``base``."""
    cls: type
    for cls in type.__subclasses__(base):  # of metaclasses too
        yield cls
        yield from subclasses(cls)


def loaded(name: object, base: type) -> type[Any] | None:
    """The subclass of ``base`` at an import path (where it is defined, or re-exported), if it is loaded.

    Imports nothing.
    """
    if not isinstance(name, str):
        return None
    module, _, attribute = name.rpartition(".")
    found = vars(sys.modules[module]).get(attribute) if module in sys.modules else None
    if isinstance(found, type) and issubclass(found, base):
        return found
    defined = [cls for cls in subclasses(base) if class_path(cls) == name]  # __main__'s, and those inside functions
    return defined[-1] if defined else None


def full_name(name: str, base: type) -> str:
    """The import path of the class below ``base`` that a short name means, if it is loaded.

    A class that this project ships comes first, then one of torch's or Lightning's: what others have under the same
    name must be named in full. Any other name comes back as it is.
    """
    for packages in (OURS, _LIBRARIES) if name.isidentifier() and name[0] != "_" else ():
        among = [cls for cls in subclasses(base) if cls.__name__ == cls.__qualname__ == name]
        paths = {_public_path(cls) for cls in among if cls.__module__.partition(".")[0] in packages}
        if len(paths) == 1:
            return paths.pop()
    return name


def _public_path(cls: type) -> str:
    """The shortest import path of a class: ``torch.optim.Adam``, not ``torch.optim.adam.Adam``."""
    for module in itertools.accumulate(cls.__module__.split("."), "{}.{}".format):
        if module in sys.modules and vars(sys.modules[module]).get(cls.__name__) is cls:
            return f"{module}.{cls.__name__}"
    return class_path(cls)


def class_in(file: str | Path, key: str, name: object, base: type) -> type[Any]:
    """The class that a file names under ``key``.

    Raises:
        UserError: unless it is a loaded subclass of ``base``.
    """
    cls = loaded(name, base)
    if cls is None:
        shown = shorten(name)
        module = own_module(name) if isinstance(name, str) else None
        own = f"; if it is a class of your own, add --trust {module}" if module and shown == repr(name) else ""
        inside = f" (in Python trust=[{module!r}], or import it before)" if own else ""
        raise UserError(
            f"{file} names {shown} as {key}, which is no loaded {base.__name__}, and nothing is imported because a "
            f"file says so{own}{inside}."
        )
    return cls


def shorten(value: object, most: int = 100) -> str:
    """How a value from a file is shown in a sentence."""
    text = as_in_yaml(value)
    return text if len(text) <= most else f"{text[: most - 4]} ..."


def import_class(name: str, base: type) -> type[Any] | None:
    """The subclass of ``base`` that the user names, its module imported; None if there is none."""
    if own_module(name) is not None:
        try:
            importlib.import_module(name.rpartition(".")[0])
        except (ImportError, ValueError):
            return None
    return loaded(name, base)


def trust(names: Sequence[str]) -> None:
    """Import the modules that the user trusts, so that files may name their classes.

    Args:
        names: Modules, or classes as ``module.Class``, which stand for their modules.

    Raises:
        UserError: if one cannot be imported.
    """
    for name in [names] if isinstance(names, str) else names:
        parts = name.split(".")
        if not all(part.isidentifier() for part in parts):
            raise UserError(f"--trust is {name!r}, but it must be a module, or a class as module.Class.")
        try:
            try:
                importlib.import_module(name)
            except ModuleNotFoundError as error:
                if len(parts) == 1 or error.name != name:  # what the module itself imports may be missing
                    raise
                getattr(importlib.import_module(".".join(parts[:-1])), parts[-1])
        except Exception as error:  # whatever a module does when it is imported
            raise UserError(
                f"--trust {name} cannot be imported ({type(error).__name__}: {one_line(error)}): "
                "name a module that Python finds from here."
            ) from error
