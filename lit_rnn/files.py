"""Reading files that nobody vouches for, and writing where nobody may have laid a trap."""

from __future__ import annotations

import contextlib
import csv
import hashlib
import json
import os
import re
import stat
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from datamodules.errors import UserError, one_line, require

MOST_CHARACTERS, MOST_NODES, DEEPEST = 1_000_000, 100_000, 50
LONGEST_ARM, LONGEST_NAME = 80, 120


# ---- YAML and JSON


class YAMLLimitError(yaml.YAMLError):
    """YAML larger than anything that this project writes or reads."""


def check_yaml(text: str) -> None:
    """Measure YAML before it is built: characters, depth, and nodes, an alias counted as all that it stands for.

    Raises:
        YAMLLimitError: if it is beyond `MOST_CHARACTERS`, `DEEPEST` or `MOST_NODES`.
        yaml.YAMLError: if it is no YAML.
    """
    if len(text) < DEEPEST and "*" not in text:  # too short to be any of it, but an alias can stand inside itself
        return
    if len(text) > MOST_CHARACTERS:
        raise YAMLLimitError(f"it has {len(text):,} characters, and at most {MOST_CHARACTERS:,} are read")
    sizes: dict[str, int] = {}  # nodes of what an anchor stands for
    begun: list[tuple[str | None, int]] = []  # open collections: anchor, nodes before
    nodes = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        if isinstance(event, yaml.CollectionStartEvent):
            begun.append((event.anchor, nodes))
            nodes += 1
            if len(begun) > DEEPEST:
                raise YAMLLimitError(f"it is more than {DEEPEST} levels deep")
        elif isinstance(event, yaml.CollectionEndEvent):
            anchor, before = begun.pop()
            if anchor is not None:
                sizes[anchor] = nodes - before
        elif isinstance(event, yaml.AliasEvent):
            if any(anchor == event.anchor for anchor, _ in begun):
                raise YAMLLimitError(f"the alias *{event.anchor} stands inside what it stands for")
            nodes += sizes.get(event.anchor or "", 1)
        elif isinstance(event, yaml.ScalarEvent):
            nodes += 1
            if event.anchor is not None:
                sizes[event.anchor] = 1
        if nodes > MOST_NODES:
            raise YAMLLimitError(f"its aliases expand to more than {MOST_NODES:,} nodes, which is what is read at most")


def parse_yaml(text: str, what: str) -> Any:
    """The value of a YAML text.

    Raises:
        UserError: if it is none, or larger than `check_yaml` allows; ``what`` begins the sentence.
    """
    try:
        check_yaml(text)
        return yaml.safe_load(text)
    except YAMLLimitError as error:
        raise UserError(f"{what} is refused: {error}.") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: a date such as 2026-13-45
        raise UserError(f"{what} is not YAML: {one_line(error)}") from error


def read_yaml(path: Path, what: str) -> Any:
    """The value of a YAML file; raises as `parse_yaml` does."""
    try:
        if path.stat().st_size > 4 * MOST_CHARACTERS:  # UTF-8 takes at most four bytes a character
            raise UserError(f"{what} {path} is refused: at most {MOST_CHARACTERS:,} characters of YAML are read.")
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{what} {path} is not YAML: {one_line(error)}") from error
    return parse_yaml(text, f"{what} {path}")


def read_json(path: Path, keys: Sequence[str] = ()) -> dict[str, Any]:
    """A JSON object that this project wrote, with ``keys`` in it.

    Raises:
        UserError: if it is something else.
    """
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path} is damaged ({type(error).__name__}): recreate it or remove it.") from error
    missing = None if not isinstance(content, dict) else next((key for key in keys if key not in content), None)
    if not isinstance(content, dict) or missing is not None:
        what = "holds no object" if missing is None else f"lacks {missing!r}"
        raise UserError(f"{path} is damaged (it {what}): recreate it or remove it.")
    return content


@contextlib.contextmanager
def in_whole(path: Path) -> Iterator[None]:
    """Turn what is raised where a file's content lacks something, or has it of another kind, into a sentence.

    Raises:
        UserError: that the file is damaged.
    """
    try:
        yield
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise UserError(f"{path} is damaged ({type(error).__name__}): recreate it or remove it.") from error


def read_arrays(path: Path) -> dict[str, Any]:
    """The arrays of an .npz file.

    Raises:
        UserError: if it is damaged, or holds objects.
    """
    import numpy as np  # commands that read none start without it

    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:  # NumPy leaves a damaged one open
            return dict(stored)
    except (OSError, ValueError, TypeError, EOFError, KeyError, zipfile.BadZipFile, zlib.error) as error:
        raise UserError(f"{path} is damaged ({type(error).__name__}): recreate it or remove it.") from error


# ---- writing


def make_folder(folder: Path, key: str) -> None:
    """Make a folder and those above it.

    Raises:
        UserError: naming ``key``, if it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{key} {folder} cannot be made ({error.strerror}); name a writable folder.") from error


def write_csv(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """A line per row; a column for every key, empty where a row lacks it."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows)


# ---- names and links

_OF_WANDB = re.compile(
    r"wandb/(offline-)?run-[\w-]+/logs/debug-core\.log"
)  # to the log of W&B's service; never written
_UNSAFE = re.compile(r"[/\\\x00-\x1f\x7f-\x9f]")


def check_name(name: str, key: str) -> None:
    """Refuse what is a path, or cannot be part of a file's name.

    Raises:
        UserError: naming ``key``.
    """
    sound = name not in ("", ".", "..") and len(name) <= LONGEST_ARM and not _UNSAFE.search(name)
    require(sound, key, name, f"a name of at most {LONGEST_ARM} characters without / and \\: names are never paths")


def file_name(name: str) -> str:
    """``name`` itself where it can be a file's, else a readable form with eight digits of its SHA-256 behind it."""
    safe = _UNSAFE.sub("_", name)
    if safe == name and len(name) <= LONGEST_NAME and len(name.encode()) <= 2 * LONGEST_NAME:
        return name
    cut = safe[:LONGEST_NAME].encode()[: 2 * LONGEST_NAME - 9].decode(errors="ignore")
    return f"{cut}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def refuse_links(folder: Path) -> None:
    """Refuse a folder with a link in it that leads out of it, symbolic or hard: a command would write elsewhere.

    The folder itself may be a link. Nothing is followed.

    Raises:
        UserError: naming the link.
    """
    root = os.path.realpath(folder)
    names_of: dict[tuple[int, int], list[str]] = {}  # names inside of files with several, by device and number
    links_to: dict[tuple[int, int], int] = {}
    for place, folders, names in os.walk(root):
        for name in (*folders, *names):
            path = os.path.join(place, name)
            below = os.path.relpath(path, root)
            if os.path.islink(path) and not inside(path, folder) and not _OF_WANDB.fullmatch(below):
                shown = folder / below
                raise UserError(
                    f"{shown} is a symbolic link out of {folder}, and nothing is written through one: remove it, or "
                    "name another folder."
                )
        for path in (os.path.join(place, name) for name in names):
            status = os.lstat(path)
            if stat.S_ISREG(status.st_mode) and status.st_nlink > 1:
                key = (status.st_dev, status.st_ino)
                names_of.setdefault(key, []).append(path)
                links_to[key] = status.st_nlink
    for key, paths in names_of.items():
        if len(paths) < links_to[key]:
            raise UserError(
                f"{folder / os.path.relpath(paths[0], root)} is a hard link to a file that also has a name outside of "
                f"{folder}, which would be changed too: put a copy in its place, or name another folder."
            )


def inside(path: str | Path, folder: Path) -> bool:
    """Whether a path, from the current folder, lies in ``folder`` with all links followed."""
    root = os.path.realpath(folder)
    return os.path.commonpath([root, os.path.realpath(path)]) == root
