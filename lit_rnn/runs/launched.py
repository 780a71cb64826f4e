"""A process of several: which of them speaks, and how it ends where the one that started it is gone."""

from __future__ import annotations

import contextlib
import os
import threading
import time

LAUNCHER = "LIT_RNN_LAUNCHER"
"""The environment variable that tells a process which one has started it."""


def first_process() -> bool:
    """Whether this is the process that speaks and writes for the run, as far as the environment tells."""
    return all(int(os.environ.get(key, 0)) == 0 for key in ("LOCAL_RANK", "RANK", "SLURM_PROCID"))


def end_with_launcher() -> None:
    """From now on end with the process that has started this one, be it Lightning's first or torchrun.

    Whoever is killed outright cannot end what it has started, which would wait for it for good. A thread looks, since
    the main one may wait where no signal reaches it.
    """
    named = os.environ.pop(LAUNCHER, None)
    if named is None and "TORCHELASTIC_RUN_ID" not in os.environ:
        return
    launcher = os.getppid() if named is None else int(named)
    threading.Thread(target=_watch, args=(launcher,), daemon=True, name="launcher-watch").start()


def _watch(launcher: int) -> None:
    while os.getppid() == launcher:
        time.sleep(0.2)
    leave(f"Process {launcher}, which has started this one, is gone: process {os.getpid()} ends.", 1)


def leave(sentence: str, status: int) -> None:
    """End this process at once, from whatever thread."""
    with contextlib.suppress(OSError):
        os.write(2, f"lit_rnn: {sentence}\n".encode())
    os._exit(status)
