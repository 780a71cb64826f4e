"""Reading files that nobody vouches for, and writing where nobody may have laid a trap."""

from __future__ import annotations

import contextlib
import csv
import errno
import hashlib
import io
import json
import os
import re
import stat
import warnings
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from datamodules.errors import UserError, one_line, require
from lit_rnn.yaml_limits import MOST_CHARACTERS, SafeLoader, YAMLLimitError, check_yaml

LONGEST_ARM, LONGEST_NAME = 80, 120
_PARTIAL = ".partial"  # ends the names of files that are being written


def read_bytes(path: Path) -> bytes:
    """All of a file that a folder of somebody else may hold.

    Raises:
        OSError: if it cannot be read, or is a pipe or a device, which may have no end, or never begin.
    """
    mode = path.stat().st_mode
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):  # of a folder the system says so
        raise OSError(errno.EINVAL, "Not a regular file", str(path))
    return path.read_bytes()


# ---- YAML and JSON


def parse_yaml(text: str, what: str) -> Any:
    """The value of a YAML text.

    Raises:
        UserError: if it is none, or larger than `check_yaml` allows; ``what`` begins the sentence.
    """
    try:
        check_yaml(text)
        return yaml.load(text, Loader=SafeLoader)
    except YAMLLimitError as error:
        raise UserError(f"{what} is refused: {error}.") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: a date such as 2026-13-45
        raise UserError(f"{what} is not YAML: {one_line(error)}") from error


def read_yaml(path: Path, what: str) -> Any:
    """The value of a YAML file; raises as `parse_yaml` does."""
    try:
        if path.stat().st_size > 4 * MOST_CHARACTERS:  # UTF-8 takes at most four bytes a character
            raise UserError(f"{what} {path} is refused: at most {MOST_CHARACTERS:,} characters of YAML are read.")
        text = read_bytes(path).decode()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{what} {path} cannot be read ({one_line(error)}): name a YAML file, in UTF-8.") from error
    return parse_yaml(text, f"{what} {path}")


def read_json(path: Path, keys: Sequence[str] = ()) -> dict[str, Any]:
    """A JSON object that this project wrote, with ``keys`` in it.

    Raises:
        UserError: if it is something else.
    """
    try:
        content = json.loads(read_bytes(path))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path} is damaged ({type(error).__name__}): recreate it or remove it.") from error
    missing = None if not isinstance(content, dict) else next((key for key in keys if key not in content), None)
    if not isinstance(content, dict) or missing is not None:
        what = "holds no object" if missing is None else f"lacks {missing!r}"
        raise UserError(f"{path} is damaged (it {what}): recreate it or remove it.")
    return content


def read_text(path: Path, key: str) -> str:
    """The text under ``key`` in a JSON object that this project wrote; raises as `read_json` does."""
    found = read_json(path, (key,))[key]
    if not isinstance(found, str):
        raise UserError(f"{path} is damaged ({key} is not text): recreate it or remove it.")
    return found


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


def check_folder(folder: Path, key: str, hint: str = "") -> None:
    """Refuse a folder that cannot be made or written, naming ``key``; leaves nothing behind."""
    # unlike Path.exists, no error where rights are lacking
    existing = next(path for path in (folder, *folder.absolute().parents) if os.path.exists(path))
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        what = "may not be written" if existing.is_dir() else "is not a folder"
        reason = what if existing == folder else f"cannot be made: {existing} {what}"
        raise UserError(f"{key} {folder} {reason}; name a writable folder{hint}.")


def make_folder(folder: Path, key: str) -> None:
    """Make a folder and those above it; raises as `check_folder` does, or what `cannot_make` says."""
    check_folder(folder, key)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise cannot_make(folder, key, error) from error


def cannot_make(folder: Path, key: str, error: OSError, hint: str = "") -> UserError:
    """The sentence for what an attempt to make a folder has raised; a full disk is no bad input."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return cannot_write(folder, error)
    return UserError(f"{key} {folder} cannot be made ({error.strerror}); name a writable folder{hint}.")


class WriteError(UserError):
    """A file cannot be written, as on a full disk: the input may be sound, but the command has failed."""


def write_file(path: Path, content: str | bytes | memoryview, before: Path | None = None) -> None:
    """Give a file new content: all of it, or, whatever happens meanwhile, what was there before.

    It is written beside the file, flushed to the disk and renamed, and the folder is flushed too, so that neither a
    kill nor a loss of power leaves half of it.

    Args:
        path: The file.
        content: All of it.
        before: Keep what was there under this name.

    Raises:
        WriteError: naming the file.
    """
    data = content.encode() if isinstance(content, str) else content
    partial = _partial_of(path)
    try:
        with partial.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        if before is not None and path.exists():
            _keep_as(path, before)
        os.replace(partial, path)
        _flush_folder(path.parent)
    except OSError as error:
        raise cannot_write(path, error) from error
    finally:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)


def _partial_of(path: Path) -> Path:
    return path.with_name(f".{path.name[:LONGEST_NAME]}.{os.urandom(4).hex()}{_PARTIAL}")


def _keep_as(path: Path, before: Path) -> None:
    """Give a file a second name, so that at no moment it has none."""
    link = _partial_of(before)
    try:
        os.link(path, link)
        os.replace(link, before)
    except OSError:  # a file system without hard links: for a moment it has the other name alone
        os.replace(path, before)
    finally:
        with contextlib.suppress(OSError):
            link.unlink(missing_ok=True)  # a rename between two names of one file leaves both


def cannot_write(path: str | Path, error: OSError) -> WriteError:
    """The sentence for what an attempt to write a file has raised."""
    return WriteError(
        f"{path} cannot be written ({error.strerror or one_line(error)}), and what was there before is kept: make "
        "room or correct the permissions, then give the command again."
    )


def _flush_folder(folder: Path) -> None:
    """Have a rename in it on the disk, where the file system knows of such a thing."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EBADF):
            raise
    finally:
        os.close(descriptor)


def write_json(path: Path, content: Any) -> None:
    """Raises as `write_file` does."""
    write_file(path, json.dumps(content, indent=1) + "\n")


def write_csv(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """A line per row; a column for every key, empty where a row lacks it; raises as `write_file` does.

    What a spreadsheet program would run as a formula has an apostrophe before it, as OWASP advises against injection.
    """
    columns = list(dict.fromkeys(key for row in rows for key in row))
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(map(_inert, columns))
    writer.writerows([_inert(row.get(key)) for key in columns] for row in rows)
    write_file(path, text.getvalue())


def _inert(cell: Any) -> Any:
    """A cell of a CSV file as it is, if it is a number or begins with no sign of a formula."""
    try:
        float(cell)
    except (TypeError, ValueError):
        return f"'{cell}" if str(cell).startswith(("=", "+", "-", "@", "\t", "\r", "\n")) else cell
    return cell


def write_arrays(path: Path, arrays: Mapping[str, Any], compressed: bool = False) -> None:
    """An .npz file; raises as `write_file` does."""
    from datamodules.cached import save_arrays  # imports NumPy, without which commands that write none start

    buffer = io.BytesIO()  # NumPy leaves an open archive behind where it cannot write
    save_arrays(buffer, arrays, compressed)
    write_file(path, buffer.getbuffer())


def whole_arrays(path: Path) -> dict[str, Any]:
    """What `write_arrays` wrote; nothing where there is no such file, or a damaged one, which is set aside."""
    try:
        return read_arrays(path) if path.is_file() else {}
    except UserError as error:
        set_aside(path, type(error.__cause__).__name__)
        return {}


def remove_partial(folder: Path) -> None:
    """Remove what a killed process was writing in a folder."""
    for path in folder.glob(f".*{_PARTIAL}"):
        path.unlink(missing_ok=True)


def set_aside(path: Path, reason: str, instead: str = "") -> None:
    """Rename a damaged file to one that nothing reads, with a warning, so that a command can go on without it."""
    number, aside = 1, path.with_name(f"{path.name}.damaged")
    while aside.exists():
        number += 1
        aside = path.with_name(f"{path.name}.damaged-{number}")
    try:
        os.replace(path, aside)
    except OSError as error:
        raise cannot_write(path, error) from error
    warnings.warn(f"{path} is damaged ({reason}); it is set aside as {aside.name}{instead}.", stacklevel=2)


# ---- names and links
_OF_WANDB = re.compile(
    r"wandb/(offline-)?run-[\w-]+/logs/debug-core\.log"
)  # to the log of W&B's service; never written
_UNSAFE = re.compile(r"[/\\\x00-\x1f\x7f-\x9f]")


def is_folder_name(name: str) -> bool:
    """Whether a folder in another one can be called so: names are never paths."""
    return name not in ("", ".", "..") and not _UNSAFE.search(name)


def check_name(name: str, key: str) -> None:
    """Refuse what is a path, or cannot be part of a file's name.

    Raises:
        UserError: naming ``key``.
    """
    sound = is_folder_name(name) and len(name) <= LONGEST_ARM
    require(sound, key, name, f"a name of at most {LONGEST_ARM} characters without / and \\: names are never paths")


def check_path(path: str | Path, key: str) -> None:
    """Refuse, naming ``key``, what cannot be the path of a file or folder, whatever the disk holds."""
    text, longest = str(path), -1
    with contextlib.suppress(UnicodeEncodeError):  # half a character
        longest = max(map(len, os.fsencode(text).split(b"/")))
    require("\0" not in text and longest >= 0, key, text, "a path of whole characters without NUL")
    if longest > 255 or len(text) > 4095:
        raise UserError(
            f"{key} begins with {text[:40]!r} and is too long: a name may have at most 255 bytes, here {longest}, and "
            f"a path 4,095, here {len(text)}: take a shorter one."
        )


def file_name(name: str) -> str:
    """``name`` itself where it can be a file's, else a readable form with eight digits of its SHA-256 behind it."""
    safe = _UNSAFE.sub("_", name)
    if safe == name and len(name) <= LONGEST_NAME and len(name.encode()) <= 2 * LONGEST_NAME:
        return name
    cut = safe[:LONGEST_NAME].encode()[: 2 * LONGEST_NAME - 9].decode(errors="ignore")
    return f"{cut}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def refuse_links(folder: Path) -> None:
    """Refuse a folder with a link in it that leads out of it, symbolic or hard: a command would write elsewhere.

    The folder itself may be a link. Nothing is followed. A pipe is refused too: a command would wait for it for ever.

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
            if stat.S_ISFIFO(status.st_mode):
                raise UserError(
                    f"{folder / os.path.relpath(path, root)} is a pipe, for which a command waits: remove it."
                )
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
