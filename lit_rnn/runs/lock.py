"""One command at a time trains in a run folder, and one works at a study."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import socket
import warnings
from pathlib import Path

from datamodules.errors import UserError
from lit_rnn.files import cannot_write

_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EINVAL)


class Lock:
    """Keeps a run folder for this process until `release`, or until the process dies: then the kernel lets go of it.

    It is a record lock on ``.lock`` in the folder, which NFS knows too, and which the workers that a process forks
    do not inherit: one that outlives its process holds nothing. Where a file system has no locks, a warning says so.

    Args:
        folder: The folder.
        key: The option that names it.

    Raises:
        UserError: if another process has it.
    """

    def __init__(self, folder: Path, key: str = "run_dir") -> None:
        self.path, self._key = folder / ".lock", key
        while True:
            try:
                self._file = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o666)
            except OSError as error:
                raise cannot_write(self.path, error) from error
            self._take(folder)
            try:
                if os.path.samestat(os.fstat(self._file), self.path.stat()):
                    break
            except FileNotFoundError:
                pass
            os.close(self._file)  # whoever had it before has removed it meanwhile
        os.ftruncate(self._file, 0)
        os.pwrite(self._file, f"process {os.getpid()} on {socket.gethostname()}\n".encode(), 0)

    def _take(self, folder: Path) -> None:
        try:
            fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in _NO_LOCKS:
                warnings.warn(
                    f"The file system of {folder} has no locks ({error.strerror}): nothing keeps a second command from "
                    "training there too.",
                    stacklevel=4,
                )
                return
            holder = re.match(r"process \d+ on [\w.-]+", os.pread(self._file, 200, 0).decode(errors="replace"))
            os.close(self._file)
            if error.errno not in (errno.EACCES, errno.EAGAIN):
                raise cannot_write(self.path, error) from error
            raise UserError(
                f"{self._key} {folder} is in use by {holder[0] if holder else 'another process'}: wait until that "
                f"ends, or name another folder with --{self._key}."
            ) from error

    def release(self) -> None:
        with contextlib.suppress(OSError):
            self.path.unlink()  # whoever waits for it looks whether it is still the same
        os.close(self._file)


def in_use(folder: Path) -> bool:
    """Whether a process trains in a run folder."""
    if not (folder / ".lock").exists():
        return False
    try:
        Lock(folder).release()
    except UserError:
        return True
    return False
