"""File systems of a forked process alone: of its own size, or read-only. The host sees none of them."""

from __future__ import annotations

import ctypes
import functools
import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

NEW_NAMESPACE, READ_ONLY, REMOUNT, BIND, RECURSIVE, PRIVATE = 0x20000, 1, 32, 4096, 16384, 1 << 18


def _checked(result: int) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def _mount(source: str, target: str, kind: str | None, flags: int, options: str | None = None) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    texts = [None if text is None else text.encode() for text in (source, target, kind, options)]
    _checked(libc.mount(texts[0], texts[1], texts[2], ctypes.c_ulong(flags), texts[3]))


def leave_the_host() -> None:
    """Give this process mounts of its own, which end with it and its children.

    Raises:
        OSError: where that is not permitted.
    """
    _checked(ctypes.CDLL(None, use_errno=True).unshare(NEW_NAMESPACE))
    _mount("none", "/", None, RECURSIVE | PRIVATE)


def mount_memory(folder: Path, size: int, files: int = 0) -> None:
    """A file system of ``size`` bytes; of so many files and folders with its own, where that is not 0."""
    _mount("none", str(folder), "tmpfs", 0, f"size={size},nr_inodes={files}")


def make_read_only(folder: Path) -> None:
    """Let nobody write in a folder, root neither."""
    _mount(str(folder), str(folder), None, BIND)
    _mount("none", str(folder), None, REMOUNT | BIND | READ_ONLY)


def make_writable(folder: Path) -> None:
    _mount("none", str(folder), None, REMOUNT | BIND)


def forked(work: Callable[[], object]) -> int:
    """The exit status of a process that does the work: 1 with a traceback where that raises."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            work()
            status = 0
        except SystemExit as left:
            status = int(left.code or 0)
        except BaseException:  # a fork must not go on as its parent
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@functools.cache
def refused() -> str | None:
    """Why this process may not mount, or None."""
    reader, writer = os.pipe()

    def attempt() -> None:
        try:
            leave_the_host()
        except OSError as error:
            os.write(writer, error.strerror.encode())

    forked(attempt)
    os.close(writer)
    with os.fdopen(reader) as told:
        return told.read() or None
