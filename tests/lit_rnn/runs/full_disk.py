"""Runs on a file system that is full after so many pages, for every number: each ends in a sentence, and goes on whole.

As root (Linux), from the folder of the sources; the mounts are this command's own and end with it:

    python tests/lit_rnn/runs/full_disk.py               # from no free page to as many as a run needs
    python tests/lit_rnn/runs/full_disk.py --free 12 17  # a sample, which the tests take
"""

from __future__ import annotations

import argparse
import functools
import itertools
import shutil
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

import torch

from lit_rnn.models import read_checkpoint
from tests.lit_rnn.runs import kills, mounts

PAGE, SIZE = 4096, 4 << 20  # bytes; of the file system


def fill(folder: Path, free: int) -> None:
    """Leave an empty file system with so many free pages."""
    for path in folder.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    (folder / "ballast").write_bytes(bytes(SIZE - free * PAGE))


def told(place: Path) -> str | None:
    """What is wrong with the output of a run that met a full disk, and with the files that it left; else None."""
    output = kills.output(place)
    sentences = [line for line in output.splitlines() if line.startswith("lit_rnn: ")]
    if len(sentences) != 1 or "Traceback" in output or "cannot be written (No space left on device)" not in output:
        return f"it says {sentences or output[-600:]}"
    if left := [path.name for path in (place / "r").rglob("*.partial")]:
        return f"it leaves {left}"
    for path in (place / "r").rglob("*.ckpt"):
        read_checkpoint(path)
    return None


def survive(place: Path, config: Path, whole: dict[str, object], free: int) -> tuple[int, str | None]:
    """The status of a run with so many free pages, and what is wrong with it or with the one that goes on from it."""
    (place / "output").unlink(missing_ok=True)
    fill(place / "r", free)
    status = kills.run(config, place / "r")
    if status == 0:
        return 0, None
    if status != 1 or (wrong := told(place)):
        return status, wrong if status == 1 else f"status {status}"
    (place / "r" / "ballast").unlink()
    if again := kills.run(config, place / "r"):
        return status, f"status {again} of the command that goes on: {kills.output(place)[-600:]}"
    different = kills.differences(whole, kills.kept(place / "r"))
    return status, f"{sorted(different)[:6]} differ" if different else None


def sweep(setting: str, numbers: Iterable[int], place: Path) -> int:
    """Print what does not survive; gives how many that is. For a process of its own, in an empty folder."""
    torch.set_num_threads(1)
    mounts.leave_the_host()
    config = kills.write_config(setting, place)
    assert kills.run(config, place / "w") == 0, kills.output(place)
    whole = kills.kept(place / "w")
    (place / "r").mkdir()
    mounts.mount_memory(place / "r", SIZE)
    full = failed = 0
    for free in numbers:
        status, wrong = survive(place, config, whole, free)
        if wrong is not None:
            failed += 1
            print(f"{setting}, {free} free pages: {wrong}", flush=True)
        elif status == 0:
            break
        full += 1
    print(f"{setting}: {full} runs met a full disk, {full - failed} went on bit for bit", flush=True)
    return failed


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--free", type=int, nargs="+", help="so many free pages alone")
    parser.add_argument("--settings", nargs="+", choices=kills.SETTINGS, default=["every step", "plateau"])
    options = parser.parse_args()
    if (reason := mounts.refused()) is not None:
        sys.exit(f"nothing may be mounted here: {reason}")
    failures = 0
    for name in options.settings:
        with tempfile.TemporaryDirectory() as folder:
            work = functools.partial(sweep, name, options.free or itertools.count(), Path(folder))
            failures += mounts.forked(lambda work=work: sys.exit(work()))  # type: ignore[misc]
    sys.exit(failures > 0)
