"""Arrays that are computed from files once: a cache under a key, whole or not there, for any number of processes."""

from __future__ import annotations

import hashlib
import json
import os
import zipfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from datamodules.downloads import alone, part_file, progress_bar, share
from datamodules.errors import UserError, one_line

S = TypeVar("S")
T = TypeVar("T")
Arrays = dict[str, NDArray[Any]]


def key_of(settings: Mapping[str, Any], root: Path, files: Sequence[Path]) -> str:
    """Sixteen digits for these settings and these files, each by its path below ``root``, its size and its time.

    Raises:
        UserError: if a file is not there.
    """
    try:
        told = [(path.relative_to(root).as_posix(), (s := path.stat()).st_size, s.st_mtime_ns) for path in files]
    except OSError as error:
        raise UserError(f"{error.filename} cannot be read ({error.strerror}).") from error
    return hashlib.sha256(json.dumps([settings, told], sort_keys=True).encode()).hexdigest()[:16]


def cached(path: Path, make: Callable[[], Arrays], wanted: Sequence[str] = ()) -> Arrays:
    """The arrays in a ``.npz``, made if it is not there or is damaged. A second process waits for the first.

    Args:
        path: The file; its folder is made.
        make: What computes them, all of them.
        wanted: The names of those to read; all if there are none.

    Raises:
        UserError: if it can be neither read nor written.
    """
    try:
        found = _read(path, wanted)
        if found is not None:
            return found
        path.parent.mkdir(parents=True, exist_ok=True)
        with alone(path.parent):
            found = _read(path, wanted)
            if found is None:
                made = _write(path, make())
                found = {name: made[name] for name in wanted or made}
            return found
    except OSError as error:
        raise UserError(
            f"{path} can be neither read nor made ({error.strerror or one_line(error)}): set data.init_args.cache to "
            "a folder with room that may be written."
        ) from error


def _read(path: Path, wanted: Sequence[str]) -> Arrays | None:
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as held:
            return {name: held[name] for name in wanted or held.files}
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (ValueError, EOFError, KeyError, zipfile.BadZipFile, zlib.error):
        return None  # a disk's fault, as it was moved here whole: it is computed anew


def save_arrays(file: IO[bytes], arrays: Mapping[str, Any], compressed: bool = False) -> None:
    """NumPy's .npz without objects, which it would pickle; older ones cannot be told not to.

    Raises:
        ValueError: if there is one.
    """
    if held := [name for name, array in arrays.items() if np.asarray(array).dtype.hasobject]:
        raise ValueError(f"{', '.join(held)}: arrays of objects are not saved")
    (np.savez_compressed if compressed else np.savez)(file, **arrays)


def _write(path: Path, arrays: Arrays) -> Arrays:
    with part_file(path.parent) as part:
        with part.open("wb") as file:
            save_arrays(file, arrays)
            file.flush()
            os.fsync(file.fileno())
        share(part)
        os.replace(part, path)
    return arrays


def of_each(files: Sequence[S], read: Callable[[S], T], what: str) -> list[T]:
    """What ``read`` gives of every file, or part of the work, in order; several threads, under a progress bar.

    Raises:
        UserError: the first that ``read`` raises.
    """
    threads = min(8, len(os.sched_getaffinity(0)))
    with progress_bar(what, len(files), of_bytes=False) as advance, ThreadPoolExecutor(threads) as pool:
        found = []
        try:
            for one in pool.map(read, files):
                found.append(one)
                advance(1)
        except BaseException:  # whatever it is, nothing more is read
            pool.shutdown(cancel_futures=True)
            raise
        return found
