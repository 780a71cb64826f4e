"""Something of the user's own called datamodules, which Python would import instead of ours."""

from __future__ import annotations

import importlib.util
import itertools
import os
import sys
from pathlib import Path


def shadow_of(package: Path) -> str | None:
    """What Python imports in place of ``package``; None where it finds that one, or nothing."""
    if not package.is_dir():  # in an archive, say
        return None
    try:
        spec = importlib.util.find_spec(package.name)
    except ValueError:  # a module made by hand is there already
        return f"the module {package.name} that is imported already"
    if spec is None:
        return None
    found = list(spec.submodule_search_locations or [])
    if any(os.path.realpath(place) == os.path.realpath(package) for place in found):
        return None
    return found[0] if found else spec.origin


def refuse_shadows() -> None:
    """End the command line in a sentence, or an import in an ImportError, where another ``datamodules`` is found.

    Raises:
        ImportError: naming it.
        SystemExit: with status 2 on the command line, the sentence printed.
    """
    found = shadow_of(Path(__file__).parents[1] / "datamodules")
    if found is None:
        return
    sentence = f"{found} hides the package datamodules of lit_rnn: rename it, or start Python from another folder."
    if not _is_command():
        raise ImportError(sentence)
    print(f"lit_rnn: {sentence}", file=sys.stderr)
    raise SystemExit(2)


def _is_command() -> bool:
    """Whether Python was started for the command line, whose own modules are not imported yet."""
    script = sys.argv[0] if getattr(sys, "argv", None) else ""
    as_module = script == "-m" and ("-m", "lit_rnn") in itertools.pairwise(sys.orig_argv)  # runpy is still looking
    return as_module or Path(script).name == "lit_rnn"
