"""How much memory there is, and what the process does with memory that was freed."""

from __future__ import annotations

import ctypes
import os
import re
from pathlib import Path

from datamodules.errors import UserError, chain, one_line
from lit_rnn.threads import control_groups

_TRIM_THRESHOLD, _MMAP_MAX = -1, -4  # M_TRIM_THRESHOLD and M_MMAP_MAX of malloc.h
_NO_MEMORY = "can't allocate memory|not enough memory|Storage size calculation overflowed"  # of torch
_NOT_MAPPED = "failed to map segment|[Cc]annot allocate memory"  # of the loader of libraries


def keep_freed_memory() -> None:
    """Let glibc keep freed memory for the next pass, instead of giving it back to the system.

    Every tensor of more than 32 MiB, such as the states of a pass over a sequence, would otherwise be new memory in
    every pass, which the system maps and clears while the pass fills it. The memory in use then stays at its peak.
    Nothing is changed with another C library, or where the environment already says what glibc is to do
    (``MALLOC_MMAP_MAX_``, ``MALLOC_TRIM_THRESHOLD_`` and so on).
    """
    told = any(name.startswith("MALLOC_") for name in os.environ)
    libc = ctypes.CDLL(None) if os.name == "posix" else None
    if libc is not None and hasattr(libc, "gnu_get_libc_version") and not told:
        libc.mallopt(_MMAP_MAX, 0)
        libc.mallopt(_TRIM_THRESHOLD, -1)


def machine_memory(root: Path = Path("/")) -> int | None:
    """Bytes that this process can have at most: those of the machine and its swap, within its control groups' limits.

    None where the system does not tell.
    """
    told = root / "proc/meminfo"
    sizes = dict(re.findall(r"^(\w+): +(\d+) kB$", told.read_text(), re.MULTILINE)) if told.is_file() else {}
    if "MemTotal" not in sizes:
        return None
    limits = [int(sizes["MemTotal"]) << 10]
    for group in control_groups("memory", root):
        for name in ("memory.max", "memory.limit_in_bytes"):
            text = (group / name).read_text().strip() if (group / name).is_file() else ""
            limits += [int(text)] if text.isdecimal() else []
    return min(limits) + (int(sizes.get("SwapTotal", 0)) << 10)


def require_memory(needed: int, key: str, given: object, what: str) -> None:
    """Raise `UserError` where ``what``, which follows from the value of ``key``, needs more than there is at all."""
    there = machine_memory()
    if there is not None and needed > there:
        raise UserError(
            f"{key} is {given!r}, but {what} needs at least {needed / 2**30:,.1f} GiB of memory, and this machine has "
            f"{there / 2**30:,.1f} GiB: make it smaller."
        )


def out_of_memory(last: BaseException | None) -> UserError | None:
    """The sentence for an allocation that failed, be it behind what was raised at last; None for other errors."""
    for error in chain(last):
        text = one_line(error)
        if isinstance(error, ImportError) and re.search(_NOT_MAPPED, text):
            return UserError(f"There is not enough memory to start ({text}): raise its limit, as by ulimit -v.")
        allocator = isinstance(error, RuntimeError) and re.search(_NO_MEMORY, text)
        if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError" or allocator:  # torch's
            asked = re.search(r"tried to allocate (\d+) bytes", text)
            size = (re.search(r"[\d.]+ [KMGTPE]iB", text) or ["more"])[0]
            if "overflow" in text:  # torch counts the bytes in 64 bits, with a sign
                size = "8 EiB or more"
            if asked:
                size = f"{int(asked[1]) / 2**30:,.1f} GiB" if len(asked[1]) > 9 else f"{int(asked[1]) / 2**20:,.1f} MiB"
            return UserError(
                f"There is not enough memory ({size} at once is not there): make the model's sizes, "
                "data.init_args.batch_size or the number and length of sequences smaller."
            )
    return None
