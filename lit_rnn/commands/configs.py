"""The shipped configs, found by name; nothing here needs torch."""

from __future__ import annotations

import difflib
from pathlib import Path

import lit_rnn
from datamodules.errors import UserError, did_you_mean

QUICKSTART = "configs/quickstart.yaml"


def config_folder() -> Path:
    """Where the configs lie: inside the package when installed from a wheel, beside it in a source tree."""
    package = Path(lit_rnn.__file__).parent
    return package / "configs" if (package / "configs").is_dir() else package.parent / "configs"


def find_config(name: str) -> str:
    """``name`` if there is such a file, else the shipped config of that name (``configs/`` before it or not)."""
    shipped = config_folder() / name.removeprefix("configs/")
    return name if Path(name).is_file() or not shipped.is_file() else str(shipped)


def check_config(name: str) -> None:
    """Refuse the name of a config that is no file, with those that are like it.

    Raises:
        UserError: naming some that are shipped.
    """
    if not Path(name).is_file():
        if Path(name, "config.yaml").is_file():
            raise UserError(f"config {name} is a folder, not a file: name {Path(name, 'config.yaml')}.")
        beside = [str(path) for path in sorted(Path(name).parent.glob("*.y*ml"))]
        shipped = sorted(str(path.relative_to(config_folder())) for path in config_folder().rglob("*.yaml"))
        near = difflib.get_close_matches(name, shipped, n=3, cutoff=0.5) or shipped[:5]
        raise UserError(
            f"config {name} is not a file{did_you_mean(name, beside)}; shipped configs include {', '.join(near)}."
        )
