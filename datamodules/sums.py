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
_KINDS = {32: "MD5", 40: "SHA-1", 64: "SHA-256"}  # by hexadecimal digits: what is published is what is compared


def sum_name(published: str) -> str:
    """Which kind of sum it is."""
    return _KINDS[len(published)]


def new_sum(published: str | None) -> Any:
    """What computes a sum of the same kind; SHA-256 where none was published."""
    kind = "SHA-256" if published is None else sum_name(published)
    return hashlib.new(kind.replace("-", "").lower(), usedforsecurity=False)


def sum_of(path: Path, published: str) -> str:
    """A file's sum, of the kind of the published one."""
    digest = new_sum(published)
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return str(digest.hexdigest())


def check_sums(folder: Path, published: Mapping[str, str], key: str) -> None:
    """Refuse files that are not the published ones; what is missing is passed over.

    Size, time and sum of a file that passed are kept in ``folder/.sums.json``, so that it is not read again until it
    changes. Where that cannot be written, every call reads the files. This finds accidents, not somebody who can write
    there.

    Args:
        folder: Where the files are.
        published: MD5, SHA-1 or SHA-256 by name, in hexadecimal digits.
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
        found = sum_of(path, expected)
        if found != expected:
            raise UserError(
                f"{path} is not the published file: its {sum_name(expected)} is {found}, not {expected}; delete it and "
                f"run again to download it anew, or set {key} to false for other data in this format."
            )
        new[name] = now
    if new != passed:
        _keep(folder / MARKER, new)


def _passed(folder: Path) -> dict[str, Any]:
    try:
        content = json.loads((folder / MARKER).read_text(encoding="utf-8"))
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
