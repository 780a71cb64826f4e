"""What a long run gathers: memory, files, open descriptors, threads, and the drift of its orthogonal matrix.

    python benchmarks/soak.py                # 30 minutes of training with every callback on
    python benchmarks/soak.py --minutes 5 --keep FOLDER

The run is a process of its own, looked at from outside, in /proc (Linux). The first third of the time is its warm-up; a
slope is the least-squares line through what comes after. Ends with status 1 beyond `MOST`.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import yaml
from arguments import whole

ROOT = Path(__file__).resolve().parents[1]
MOST = 0.05  # MiB a minute
EVERY = 5.0  # seconds, one look
CONFIG = {
    "seed_everything": 1,
    "threads": 1,
    "model": {"class_path": "DtrivRNN", "init_args": {"hidden_size": 64, "rebase_every": 10, "project_every": 10}},
    "data": {
        "class_path": "CopyMemory",
        "init_args": {"delay": 50, "batch_size": 32, "train_samples": 3200, "val_samples": 320, "num_workers": 1},
    },
    "trainer": {
        "accelerator": "cpu",
        "max_epochs": -1,
        "log_every_n_steps": 1,
        "logger": {"class_path": "lit_rnn.loggers.WandbDashboard", "init_args": {"project": "soak"}},
        "callbacks": [  # beside those that every run has
            {"class_path": "LastCheckpoint", "init_args": {"every_n_steps": 50}},
            {"class_path": "WatchMatrices", "init_args": {"every_n_steps": 50}},
            {"class_path": "DeviceStatsMonitor", "init_args": {"cpu_stats": True}},
            {"class_path": "EarlyStopping", "init_args": {"monitor": "val/loss", "patience": 10**6}},
            {"class_path": "Progress"},
        ],
    },
}


class Look(NamedTuple):
    """What a process has at one moment."""

    minutes: float
    memory: float  # MiB
    descriptors: int
    threads: int
    files: int  # in its run folder


def look(pid: int, minutes: float, folder: Path) -> Look:
    """At a process now.

    Raises:
        OSError: if it has ended.
    """
    status = Path(f"/proc/{pid}/status").read_text()
    numbers = {key: int(found[1]) for key in ("VmRSS", "Threads") if (found := re.search(rf"{key}:\s*(\d+)", status))}
    if "VmRSS" not in numbers:
        raise ProcessLookupError(f"{pid} has ended")
    descriptors = len(os.listdir(f"/proc/{pid}/fd"))
    files = sum(path.is_file() for path in folder.rglob("*"))
    return Look(minutes, numbers["VmRSS"] / 1024, descriptors, numbers["Threads"], files)


def warm(looks: list[Look]) -> list[Look]:
    """Those behind the first third of the time."""
    return [one for one in looks if one.minutes >= looks[-1].minutes / 3]


def slope(minutes: list[float], values: list[float]) -> float:
    """What ``values`` gain a minute."""
    return float(np.polyfit(minutes, values, 1)[0])


def soak(minutes: int, folder: Path) -> list[Look]:
    """Train for so many minutes, looking every few seconds.

    Raises:
        SystemExit: if the run fails.
    """
    config, run = folder / "soak.yaml", folder / "run"
    config.write_text(yaml.safe_dump(CONFIG))
    seconds = 60 * minutes
    lasts = f"{minutes // 1440:02}:{minutes // 60 % 24:02}:{minutes % 60:02}:00"
    call = [sys.executable, "-m", "lit_rnn", "fit", "-c", str(config), "--run_dir", str(run)]
    environment = {**os.environ, "WANDB_MODE": "offline", "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    with (folder / "output").open("w") as output:
        line = [*call, "--trainer.max_time", lasts]
        process = subprocess.Popen(line, cwd=folder, env=environment, stdout=output, stderr=output)
    looks: list[Look] = []
    begun = 0.0
    try:
        while process.poll() is None:
            begun = begun or (time.monotonic() if (run / "checkpoints" / "last.ckpt").is_file() else 0.0)
            since = time.monotonic() - begun
            if begun and since < seconds - 2 * EVERY:  # the pictures of its end are no growth
                with contextlib.suppress(OSError):
                    looks.append(look(process.pid, since / 60, run))
                    print(told(looks[-1]), flush=True)
            time.sleep(EVERY)
    finally:
        process.kill()
    if process.wait() != 0:
        sys.exit(f"soak: the run ended with status {process.returncode}: {(folder / 'output').read_text()[-2000:]}")
    return looks


def told(now: Look) -> str:
    return (
        f"{now.minutes:5.1f} min  {now.memory:7.1f} MiB  {now.descriptors} descriptors  "
        f"{now.threads} threads  {now.files} files"
    )


def drifts(folder: Path) -> list[float]:
    """max |W^T W - I| at the ends of a run's epochs."""
    with (folder / "metrics.csv").open(newline="") as file:
        return [float(row["recurrent/drift"]) for row in csv.DictReader(file) if row.get("recurrent/drift")]


def table(looks: list[Look], drift: list[float]) -> str:
    """Markdown: each quantity at the end of the warm-up, at the end, and what it gains a minute."""
    after = warm(looks)
    minutes = [one.minutes for one in after]
    lines = [
        f"| {looks[-1].minutes:.0f} minutes, {len(drift):,} epochs | after the warm-up | at the end | a minute |",
        "|---|---|---|---|",
    ]
    for name, key in (("MiB resident", "memory"), ("open descriptors", "descriptors"), ("threads", "threads")):
        values = [float(getattr(one, key)) for one in after]
        lines.append(f"| {name} | {values[0]:.1f} | {values[-1]:.1f} | {slope(minutes, values):+.3f} |")
    files = [float(one.files) for one in after]
    lines.append(f"| files of the run | {files[0]:.0f} | {files[-1]:.0f} | {slope(minutes, files):+.3f} |")
    third = len(drift) // 3
    lines.append(f"| max abs(WᵀW − I) | {max(drift[:third]):.2g} | {max(drift[-third:]):.2g} | |")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=whole(), default=30, help="of training (30)")
    parser.add_argument("--keep", type=Path, help="a folder for the run, which is kept")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        looks = soak(options.minutes, folder)
        print(table(looks, drifts(folder / "run")))
    after = warm(looks)
    gained = slope([one.minutes for one in after], [one.memory for one in after])
    return int(gained > MOST)


if __name__ == "__main__":
    sys.exit(main())
