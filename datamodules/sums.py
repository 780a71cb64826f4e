"""Files of published data are compared with their published sums before they are used, once."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from datamodules.errors import UserError

MARKER = ".sums.json"


def check_sums(folder: Path, published: Mapping[str, str], key: str) -> None:
    """Refuse files that are not the published ones; what is missing is passed over.

    Size, time and sum of a file that passed are kept in ``folder/.sums.json``, so that it is not read again until it
    changes. Where that cannot be written, every call reads the files. This finds accidents, not somebody who can write
    there.

    Args:
        folder: Where the files are.
        published: SHA-256 by name.
        key: The option that switches this off.

    Raises:
        UserError: naming the file, the sum it should have and the one it has.
    """
    passed = _passed(folder)
    new = dict(passed)
    for name, expected in published.items():
        path = folder / name
        if not path.is_file():
            continue
        status = path.stat()
        now = [status.st_size, status.st_mtime_ns, expected]
        if passed.get(name) == now:
            continue
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if found != expected:
            raise UserError(
                f"{path} is not the published file: its SHA-256 is {found}, not {expected}; delete it and run again to "
                f"download it anew, or set {key} to false for other data in this format."
            )
        new[name] = now
    if new != passed:
        _keep(folder / MARKER, new)


def _passed(folder: Path) -> dict[str, Any]:
    try:
        content = json.loads((folder / MARKER).read_text())
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def _keep(marker: Path, passed: Mapping[str, Any]) -> None:
    """Write the marker whole or not at all; a folder that may not be written goes without."""
    with contextlib.suppress(OSError):
        handle, name = tempfile.mkstemp(dir=marker.parent, prefix=MARKER)
        try:
            with os.fdopen(handle, "w") as file:
                json.dump(passed, file)
            os.replace(name, marker)
        except OSError:
            os.unlink(name)
