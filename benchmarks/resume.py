"""How long a killed run stands still: seconds from the kill to its next training step.

    python benchmarks/resume.py             # a Markdown table, medians of 5 pairs
    python benchmarks/resume.py --pairs 9

A pair is a run from nothing, killed (SIGKILL) at a step, and the same line given again at once, as a launcher does. The
run is the quickstart, saved every ten steps. Most of the time is the imports of torch and Lightning, which stand in a
row of their own. A busy machine stretches the clock's seconds, but not those of the CPU.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import yaml
from arguments import whole

HERE = Path(__file__).parent
KILLED_AT, PATIENCE = 35, 120.0  # a step between two saves; seconds
TRAINER = {
    "callbacks": [
        {"class_path": "marks.Marks", "init_args": {"path": "marks"}},
        {"class_path": "LastCheckpoint", "init_args": {"every_n_steps": 10}},
    ]
}


class Begun(NamedTuple):
    """When a process had imported all, and made its first step: by the clock, and in CPU seconds of its own."""

    imported: float
    imported_cpu: float
    stepped: float
    stepped_cpu: float
    step: int

    def since(self, moment: float) -> tuple[float, float, float, float]:
        """As `Took`, from a moment of the clock."""
        return self.stepped - moment, self.stepped_cpu, self.imported - moment, self.imported_cpu


class Took(NamedTuple):
    """Seconds to the first step, and of these until all was imported, by the clock and of the CPU."""

    step: float
    step_cpu: float
    imports: float
    imports_cpu: float


class Pair(NamedTuple):
    """A start from nothing; what follows its kill; and how many steps were then done twice."""

    start: Took
    resume: Took
    again: int


def begun(marks: Path) -> Begun | None:
    """What the last process to write there did, once it has made a step."""
    lines = marks.read_text().splitlines() if marks.is_file() else []
    words = [line.split() for line in lines if line.count(" ") == 2]
    starts = [index for index, (what, *_) in enumerate(words) if what == "imported"]
    if not starts or len(words) < starts[-1] + 2:
        return None
    (_, *imported), (step, *stepped) = words[starts[-1]], words[starts[-1] + 1]
    return Begun(*map(float, imported), *map(float, stepped), int(step))


def until(holds: Callable[[], bool], process: subprocess.Popen[bytes]) -> None:
    """Wait.

    Raises:
        SystemExit: if the process ends before, or takes too long.
    """
    end = time.monotonic() + PATIENCE
    while not holds():
        if process.poll() is not None or time.monotonic() > end:
            process.kill()
            sys.exit(f"resume: the run does not train (status {process.wait()}); see its output above")
        time.sleep(0.005)


def pair(folder: Path) -> Pair:
    """Start, kill, and start again."""
    (folder / "c.yaml").write_text(yaml.safe_dump({"trainer": TRAINER}))
    configs = ["-c", str(HERE.parent / "configs" / "quickstart.yaml"), "-c", "c.yaml"]
    line = [sys.executable, "-m", "lit_rnn", "fit", *configs, "--run_dir", "run", "--resume", "auto"]
    path = os.pathsep.join([str(HERE.parent), str(HERE)])
    environment = {**os.environ, "PYTHONPATH": path}

    def start() -> subprocess.Popen[bytes]:
        return subprocess.Popen(line, cwd=folder, env=environment, stdout=subprocess.DEVNULL)

    marks = folder / "marks"
    began, process = time.monotonic(), start()
    until(lambda: marks.is_file() and f"\n{KILLED_AT} " in marks.read_text(), process)
    first = begun(marks)
    process.kill()
    killed = time.monotonic()
    process.wait()
    done = int(marks.read_text().splitlines()[-1].split()[0])
    marks.unlink()
    process = start()
    until(lambda: begun(marks) is not None, process)
    second = begun(marks)
    process.kill()
    process.wait()
    assert first is not None and second is not None
    return Pair(Took(*first.since(began)), Took(*second.since(killed)), done - second.step + 1)


def table(pairs: list[Pair]) -> str:
    """Markdown: medians, with the least and the most by the clock."""

    def row(name: str, clock: list[float], cpu: list[float]) -> str:
        middle, own = statistics.median(clock), statistics.median(cpu)
        return f"| {name} | {middle:.2f} | {min(clock):.2f} to {max(clock):.2f} | {own:.2f} |"

    lines = ["| | seconds | range | CPU seconds |", "|---|---|---|---|"]
    for what, all_of_it in (
        ("from the kill to the next step", [one.resume for one in pairs]),
        ("from a start from nothing to the first step", [one.start for one in pairs]),
    ):
        lines.append(row(what, [one.step for one in all_of_it], [one.step_cpu for one in all_of_it]))
        imports = [one.imports for one in all_of_it], [one.imports_cpu for one in all_of_it]
        lines.append(row("of these, until all is imported", *imports))
    again = [one.again for one in pairs]
    return "\n".join([*lines, "", f"Steps that were done twice: {min(again)} to {max(again)}."])


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=whole(), default=5, help="kills; the median counts (5)")
    options = parser.parse_args(arguments)
    load = os.getloadavg()[0] / (os.cpu_count() or 1)
    pairs = []
    for _ in range(options.pairs):
        with tempfile.TemporaryDirectory() as folder:
            pairs.append(pair(Path(folder)))
    print(table(pairs))
    if load > 0.5:
        print(f"\nThe machine was busy: load {load:.1f} per core at the start.")


if __name__ == "__main__":
    main()
