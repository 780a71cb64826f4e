"""Published files, downloaded once: whole or not at all, compared with their sums, and nothing outside their folder."""

from __future__ import annotations

import contextlib
import fcntl
import gzip
import os
import posixpath
import sys
import tarfile
import tempfile
import urllib.request
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from http.client import HTTPException
from pathlib import Path
from typing import IO, cast
from urllib.error import HTTPError

from datamodules.errors import UserError, one_line
from datamodules.sums import new_sum, sum_name

_PATIENCE = 30.0  # seconds without a byte
_LARGEST = 1 << 30  # bytes of a file that comes out of an archive
_PART = ".lit_rnn-part-"
_BLOCK = 1 << 18


class _UnusableError(Exception):
    """What came is not what was published."""


@dataclass(frozen=True)
class Download:
    """One published file, or an archive, and what is taken out of it.

    Args:
        address: Where it is.
        files: By the name that a file gets here, its path in the archive: ``.zip``, ``.tar.gz`` and ``.tgz``. A ``.gz``
            holds one file, and another download is one; their path is empty.
        sum: MD5, SHA-1 or SHA-256 of what is downloaded, in hexadecimal digits; None where none was published.
        sums: The same of the files, by name.
        whole: Keep what is downloaded as it is, under the one name of ``files``, an archive too.
    """

    address: str
    files: Mapping[str, str]
    sum: str | None = None
    sums: Mapping[str, str] = field(default_factory=dict)
    whole: bool = False

    def is_in(self, folder: Path) -> bool:
        """Whether all files are there. What is there is whole: it was moved in behind its last byte."""
        return all((folder / name).is_file() for name in self.files)


def fetch(folder: Path, what: str, downloads: Sequence[Download]) -> None:
    """Download what is missing in ``folder``. A second process waits for the first, and then has nothing to do.

    Every file is written under another name and moved into place when it is whole and its sum is right. What a killed
    process left is swept away by the next.

    Args:
        folder: Where the files belong; made if it is not there.
        what: How a person calls the data.
        downloads: What gives the files.

    Raises:
        UserError: naming the folder, the address and what went wrong.
    """
    if all(download.is_in(folder) for download in downloads):
        return
    names = [name for download in downloads for name in download.files]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with alone(folder):
            for download in downloads:
                if not download.is_in(folder):
                    _fetch_one(folder, what, download)
    except (OSError, _UnusableError) as error:
        raise UserError(
            f"{what} is not in {folder}, and could not be put there: {_reason(error)}. Put {', '.join(names)} there, "
            "or set data.init_args.root to the folder that holds it."
        ) from error


def _reason(error: Exception) -> str:
    return one_line(error).rstrip(".") or type(error).__name__


@contextlib.contextmanager
def alone(folder: Path) -> Iterator[None]:
    """One process at a time, where the file system has locks; that one sweeps."""
    with (folder / ".lock").open("a") as lock:  # what another program keeps there, or a link leads to, stays as it is
        with contextlib.suppress(OSError):  # without locks two may download: each moves whole files into place
            fcntl.flock(lock, fcntl.LOCK_EX)
            for part in folder.glob(f"{_PART}*"):
                part.unlink(missing_ok=True)
        yield


def _fetch_one(folder: Path, what: str, download: Download) -> None:
    """Download it and take its files out.

    Raises:
        _UnusableError: with the address and the reason, if it cannot be had or used.
    """
    try:
        with part_file(folder) as path:
            _load(download.address, path, what, folder, download.sum)
            if download.whole:
                share(path)
                os.replace(path, folder / next(iter(download.files)))
            else:
                _take_out(path, folder, download)
    except (OSError, HTTPException, _UnusableError, ValueError) as error:
        if isinstance(error, HTTPError):
            error.close()  # it holds the connection
        raise _UnusableError(f"{download.address} failed ({_reason(error)})") from error


@contextlib.contextmanager
def part_file(folder: Path) -> Iterator[Path]:
    """A new file's path, gone afterwards unless it was moved."""
    handle, name = tempfile.mkstemp(dir=folder, prefix=_PART)
    os.close(handle)
    try:
        yield Path(name)
    finally:
        Path(name).unlink(missing_ok=True)


def _load(address: str, path: Path, what: str, folder: Path, expected: str | None) -> None:
    request = urllib.request.Request(address, headers={"User-Agent": "lit_rnn"})
    with urllib.request.urlopen(request, timeout=_PATIENCE) as answer, path.open("wb") as file:
        size = int(answer.headers.get("Content-Length") or 0)
        print(f"{what}: downloading {address}{f' ({size / 1e6:.1f} MB)' if size else ''} to {folder}", flush=True)
        digest, got = new_sum(expected), 0
        with progress_bar(what, size) as advance:
            while block := answer.read(_BLOCK):
                file.write(block)
                digest.update(block)
                got += len(block)
                advance(len(block))
            file.flush()
            os.fsync(file.fileno())
    if size and got != size:
        raise _UnusableError(f"it ended after {got:,} of {size:,} bytes")
    _compare("it", digest.hexdigest(), expected)


def _compare(which: str, found: str, expected: str | None) -> None:
    if expected is not None and found != expected:
        raise _UnusableError(f"{which} is not the published file: its {sum_name(expected)} is {found}, not {expected}")


@contextlib.contextmanager
def progress_bar(what: str, size: int, of_bytes: bool = True) -> Iterator[Callable[[int], None]]:
    """A progress bar on a terminal; nothing in a log."""
    if not sys.stderr.isatty():
        yield lambda _: None
        return
    from rich.console import Console  # for downloads and caches alone
    from rich.progress import BarColumn, DownloadColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    done = DownloadColumn() if of_bytes else MofNCompleteColumn()
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), done, TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task(what, total=size or None)
        yield lambda count: progress.advance(task, count)


def _take_out(path: Path, folder: Path, download: Download) -> None:
    """Move the named files of an archive into ``folder``, all or none of them; nothing else of it is written."""
    with contextlib.ExitStack() as stack:
        whole = {}
        for name, member in download.files.items():
            part = stack.enter_context(part_file(folder))
            try:
                with _opened(path, download.address, member) as source:
                    _copy(source, part, name, download.sums.get(name))
            except (zipfile.BadZipFile, tarfile.TarError, zlib.error, EOFError, KeyError, RuntimeError) as error:
                raise _UnusableError(f"its archive cannot be read: {_reason(error)}") from error
            whole[name] = part
        for name, part in whole.items():
            os.replace(part, folder / name)


def _copy(source: IO[bytes], part: Path, name: str, expected: str | None) -> None:
    digest, size = new_sum(expected), 0
    with part.open("wb") as file:
        while block := source.read(_BLOCK):
            size += len(block)
            if size > _LARGEST:
                raise _UnusableError(f"{name} in its archive is larger than {_LARGEST:,} bytes")
            file.write(block)
            digest.update(block)
        if not size:
            raise _UnusableError(f"{name} in it is empty")
        file.flush()
        os.fsync(file.fileno())
    _compare(name, digest.hexdigest(), expected)
    share(part)


def share(part: Path) -> None:
    """Give a part the rights of any other file, for all who share the folder."""
    umask = os.umask(0)
    os.umask(umask)
    part.chmod(0o666 & ~umask)


@contextlib.contextmanager
def _opened(path: Path, address: str, member: str) -> Iterator[IO[bytes]]:
    """A member of an archive, as a stream."""
    if address.endswith(".zip"):
        with zipfile.ZipFile(path) as archive:
            held = {posixpath.normpath(name): name for name in archive.namelist()}
            with archive.open(held[member]) as stream:
                yield stream
    elif address.endswith((".tgz", ".tar.gz")):
        with tarfile.open(path, "r:gz") as archive:
            files = {posixpath.normpath(each.name): each for each in archive if each.isfile()}
            found = archive.extractfile(files[member])
            assert found is not None  # it is a file
            with found:
                yield found
    elif address.endswith(".gz"):
        with gzip.open(path) as unpacked:
            yield cast(IO[bytes], unpacked)
    else:
        with path.open("rb") as stream:
            yield stream
