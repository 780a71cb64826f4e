"""How long commands and imports take to start, as ratios to what they cannot do without: ``import torch``, Lightning.

    python benchmarks/startup.py            # a Markdown table, best of 5 each, in turn
    python benchmarks/startup.py --times 11

Every start is a fresh process. CPU seconds are compared, user and system together, because a busy machine stretches
the clock's but not those.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from arguments import whole

HERE = Path(__file__).parent
FIT = "-m lit_rnn fit --trainer.callbacks+=leave.Leave --run_dir"


class Start(NamedTuple):
    """A process, what it is compared with, and the most that the ratio may be."""

    name: str
    arguments: tuple[str, ...]
    against: str
    most: float


TORCH, LIGHTNING = "import torch", "import torch, pytorch_lightning"
LEAVING = "import os, torch, pytorch_lightning; os._exit(0)"  # without Python's own end, as `leave` has it
STARTS = [
    Start("import lit_rnn.cells", ("-c", "import lit_rnn.cells"), TORCH, 1.15),
    Start("import lit_rnn.analysis", ("-c", "import lit_rnn.analysis"), TORCH, 1.3),
    *(
        Start(f"{command} --help", ("-m", "lit_rnn", command, "--help"), TORCH, 0.3)
        for command in ("compare", "study", "analyze", "attack")
    ),
    Start("fit --help", ("-m", "lit_rnn", "fit", "--help"), LIGHTNING, 1.1),
    Start("fit, quickstart, to its first step", tuple(FIT.split()), LEAVING, 1.2),
]


def seconds(arguments: tuple[str, ...]) -> float:
    """CPU seconds of a fresh Python, from its start to its end."""
    with tempfile.TemporaryDirectory() as folder:
        line = [sys.executable, *arguments, *([str(Path(folder, "run"))] if arguments[-1] == "--run_dir" else [])]
        path = os.pathsep.join([str(HERE.parent), str(HERE)])
        environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive"}
        before = os.times()
        subprocess.run(line, check=True, capture_output=True, cwd=folder, env=environment)
        after = os.times()
    return after.children_user + after.children_system - before.children_user - before.children_system


def measure(times: int) -> dict[str, float]:
    """The least CPU seconds of each start, all taken in turn."""
    lines = {code: ("-c", code) for code in (TORCH, LIGHTNING, LEAVING)}
    lines |= {start.name: start.arguments for start in STARTS}
    taken: dict[str, list[float]] = {name: [] for name in lines}
    for _ in range(times):
        for name, arguments in lines.items():
            taken[name].append(seconds(arguments))
    return {name: min(some) for name, some in taken.items()}


def table(best: dict[str, float]) -> str:
    """Markdown: seconds, ratio, and the bound it is held to."""
    rows = ["| start | CPU seconds | ratio | to | at most |", "|---|---|---|---|---|"]
    rows += [f"| `{name}` | {best[name]:.2f} | | | |" for name in (TORCH, LIGHTNING, LEAVING)]
    for start in STARTS:
        ratio = best[start.name] / best[start.against]
        rows.append(f"| `{start.name}` | {best[start.name]:.2f} | {ratio:.2f} | `{start.against}` | {start.most:g} |")
    return "\n".join(rows)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=whole(), default=5, help="starts of each; the best counts (5)")
    options = parser.parse_args(arguments)
    load = os.getloadavg()[0] / (os.cpu_count() or 1)
    print(table(measure(options.times)))
    if load > 0.5:
        print(f"\nThe machine was busy: load {load:.1f} per core at the start.")


if __name__ == "__main__":
    main()
