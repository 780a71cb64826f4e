"""Pairs of measurements, taken in turn, and what is made of them."""

from __future__ import annotations

import gc
import json
import math
import os
import platform
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # the profiler's, read when torch is loaded: it reports on itself

import torch

from datamodules.errors import UserError

Tick = Callable[[], None]  # called behind every round


class SkipError(Exception):
    """Why a row cannot be measured here, as one sentence."""


@dataclass(frozen=True)
class Bar:
    """Which ratio a row shows, and where it has to be.

    ``faster``: theirs over ours, at least ``value``. ``share``: ours over theirs, at most ``value``. ``same``: ours
    over theirs, within ``value`` of 1. Without a value the ratio is shown and nothing is asked of it.
    """

    kind: Literal["faster", "share", "same"]
    value: float | None = None

    def ratio(self, ours: float, theirs: float) -> float:
        over, under = (theirs, ours) if self.kind == "faster" else (ours, theirs)
        return over / under if under else math.inf

    def met(self, ratio: float) -> bool | None:
        if self.value is None:
            return None
        if self.kind == "same":
            return abs(ratio - 1) <= self.value
        return ratio >= self.value if self.kind == "faster" else ratio <= self.value

    def __str__(self) -> str:
        sign = {"faster": "≥ ", "share": "≤ ", "same": "1 ± "}[self.kind]
        return "" if self.value is None else f"{sign}{self.value:g}"


@dataclass
class Pairs:
    """What was measured, in pairs: ours[i] and theirs[i] lie side by side in time."""

    unit: str = "s"
    ours: list[float] = field(default_factory=list)
    theirs: list[float] = field(default_factory=list)
    backend: str = ""  # what ran ours
    first: float | None = None  # seconds of our first call, compilation and all; in no ratio
    note: str = ""


@dataclass(frozen=True)
class Ratio:
    """Median and range of the pairs' ratios."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, bar: Bar, pairs: Pairs) -> Ratio:
        ratios = [bar.ratio(a, b) for a, b in zip(pairs.ours, pairs.theirs, strict=True)]
        return cls(statistics.median(ratios), min(ratios), max(ratios))


@dataclass(frozen=True)
class Row:
    """One line of a table.

    Args:
        name: group/rest; what the command line selects.
        work: What ours does.
        against: What theirs is.
        bar: Which ratio is shown, and where it has to be.
        measure: Takes the number of rounds and what to call behind each.
        most_rounds: Fewer rounds where one takes minutes or hardly varies.
    """

    name: str
    work: str
    against: str
    bar: Bar
    measure: Callable[[int, Tick], Pairs]
    most_rounds: int = 1_000_000

    @property
    def group(self) -> str:
        return self.name.partition("/")[0]


def status(name: str, run: Callable[[], object]) -> int:
    """The exit status of a script: 2 and a sentence where its user has to change something."""
    try:
        run()
    except UserError as error:
        print(f"{name}: {error}", file=sys.stderr)
        return 2
    return 0


def seconds(work: Callable[[], object]) -> float:
    gc.collect()
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def in_turn(ours: Callable[[], object], theirs: Callable[[], object], rounds: int, tick: Tick, backend: str) -> Pairs:
    """Seconds of A B A B ..., behind two calls of each that do not count."""
    pairs = Pairs(backend=backend, first=seconds(ours))
    theirs(), ours(), theirs()
    for _ in range(rounds):
        pairs.ours.append(seconds(ours))
        pairs.theirs.append(seconds(theirs))
        tick()
    return pairs


def in_process(task: str, threads: int, environment: dict[str, str], **arguments: Any) -> subprocess.Popen:
    """Start a task of `children` in a fresh process; `answer` waits for what it says."""
    command = [sys.executable, str(Path(__file__).with_name("children.py")), task, json.dumps(arguments)]
    counts = {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, env={**os.environ, **counts, **environment})


def ended(status: int, said: str) -> SkipError:
    """That a row's process has failed, with the last line of what it said."""
    last = (said.strip().splitlines() or ["nothing was said"])[-1]
    return SkipError(f"its process ended with status {status}: {last}")


def answer(process: subprocess.Popen) -> dict[str, Any]:
    """What a process of `in_process` found."""
    out, errors = process.communicate()
    if process.returncode:
        raise ended(process.returncode, errors)
    return json.loads(out.strip().splitlines()[-1])


def prepare(threads: int) -> None:
    """What every measuring process starts with. Denormals first: threads inherit it from the one that starts them."""
    torch.set_flush_denormal(True)
    torch.set_num_threads(threads)
    torch.manual_seed(1)


@contextmanager
def one_thread() -> Iterator[None]:
    """What is measured inside has one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def commit() -> str:
    """Of this tree, with ``-dirty`` behind it where files differ; ``unknown`` where it is no git repository."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--exclude=*"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def machine(threads: int) -> dict[str, Any]:
    """What the numbers depend on."""
    info = Path("/proc/cpuinfo")
    names = re.findall(r"model name\s*:\s*(.+)", info.read_text()) if info.exists() else []
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "cpu": names[0].strip() if names else platform.processor(),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "cores": available,
        "threads": threads,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "load": round(os.getloadavg()[0], 2),
    }
