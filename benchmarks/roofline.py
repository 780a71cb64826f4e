"""What a step of the recurrences must cost on a GPU: launches, arithmetic and bytes, computed and not measured.

    python benchmarks/roofline.py                     the table, in a few minutes, most of them for compiling
    python benchmarks/roofline.py --write-readme      into README.md

Launches and bytes of the loop are counted at full size on tensors without numbers: every operator that computes, with
what it reads and writes. Launches of ``graphed`` and ``compiled`` are those of the same recordings on the CPU, by its
profiler. The least bytes are those of the recurrence as one kernel: u read twice, its gradient written and read, states
written once and read twice.
"""

from __future__ import annotations

import argparse
import functools
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from children import IDLE, profiled
from gpu import WORKS, Work, str_of
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only
from torch.utils.flop_counter import FlopCounterMode

HERE = Path(__file__).parent
sys.path.append(str(HERE.parent))

from lit_rnn import graphs  # noqa: E402
from lit_rnn.scan import graphed  # noqa: E402
from lit_rnn.scan.compiled import steps  # noqa: E402
from lit_rnn.scan.drive import driven  # noqa: E402
from lit_rnn.scan.packed import Block  # noqa: E402
from tests.recording import Rerun  # noqa: E402

# IEEE float32 outside the tensor cores in operations a second, and memory in bytes a second, by NVIDIA's data sheets
DEVICES = {"H100 SXM": (67e12, 3.35e12), "H200": (67e12, 4.8e12)}
START, END = "<!-- computed: start -->", "<!-- computed: end -->"
COLUMNS = ("work", "launches a step: loop", "graphed", "compiled", "MFLOP", "MB: loop", "least", *DEVICES)


class Counted(TorchDispatchMode):
    """Operators that compute, and the bytes of the tensors that they read and write."""

    def __init__(self) -> None:
        super().__init__()
        self.launches, self.bytes = 0, 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        name = func._schema.name.removeprefix("aten::")
        if not func.is_view and name not in IDLE and name not in ("empty", "empty_strided", "detach"):
            self.launches += 1
            tensors = {id(leaf): leaf for leaf in tree_leaves((args, kwargs, found)) if isinstance(leaf, Tensor)}
            self.bytes += sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
        return found


def passed(
    work: Work, T: int, run: Callable[..., Any], B: int | None = None, device: str = "meta"
) -> Callable[[], None]:
    """A pass over T steps, forward and backward, from the drive on."""
    built, size = work.build(work.size.I), work.size
    rows = B or size.B
    # made once a pass, which is not counted
    w = tree_map_only(Tensor, lambda part: part.detach().to(device).requires_grad_(), built.weights())
    cell = built.to(device)

    def a_pass() -> None:
        x = torch.zeros(T, rows, size.I, device=device)
        u = driven(cell, x.flatten(0, 1), w, (Block(T, rows),)).unflatten(0, (T, rows))
        y, _ = run(cell, u, cell.initial_state(rows), w)
        (y[-1] if size.reads == "last" else y).sum().backward()

    return a_pass


def per_step(count: Callable[[int], tuple[float, ...]], T: int = 8) -> list[float]:
    """What each of T further steps adds."""
    short, long = count(T), count(2 * T)
    return [(b - a) / T for a, b in zip(short, long, strict=True)]


def of_the_loop(work: Work) -> list[float]:
    """Launches, bytes and floating-point operations a step."""

    def count(T: int) -> tuple[float, ...]:
        run = passed(work, T, steps)
        with FlopCounterMode(display=False) as flops, Counted() as counted:
            run()
        return counted.launches, counted.bytes, flops.get_total_flops()

    launches, moved, flops = per_step(count)
    is_complex = any(part.is_complex() for part in work.build(work.size.I).initial_state(1))
    return [launches, moved, 4 * flops if is_complex else flops]  # a complex product is counted as a real one


def recorded(work: Work, compiled: bool) -> float:
    """Launches a step of recordings, on the CPU."""
    import torch._inductor.config

    torch._inductor.config.cpp.enable_kernel_profile = True  # or compiled kernels would not be seen
    graphs.RECORDERS["cpu"] = Rerun
    graphed.LONGEST = 128  # one part for each length
    run = functools.partial(graphed.run_graphed, compiled=compiled)
    return per_step(lambda T: (profiled(passed(work, T, run, 2, "cpu"))[0].total(),), 16)[0]


def least_bytes(work: Work) -> float:
    cell = work.build(work.size.I)
    u = cell.drive(torch.zeros(1, 1, work.size.I), cell.weights())
    states = sum(part.numel() * part.element_size() for part in cell.initial_state(1))
    return work.size.B * (4 * u.numel() * u.element_size() + 3 * states)


def row(work: Work, compiles: bool) -> list[str]:
    launches, moved, flops = of_the_loop(work)
    least, T = least_bytes(work), work.size.T
    bounds = []
    for arithmetic, memory in DEVICES.values():
        times = {"arithmetic": T * flops / arithmetic, "memory": T * least / memory}
        bound = max(times, key=lambda name: times[name])
        bounds.append(f"{1e3 * times[bound]:.2g} ms ({bound})")
    of_recordings = [f"{recorded(work, False):.3g}", f"{recorded(work, True):.3g}" if compiles else ""]
    return [
        str_of(work),
        f"{launches:.3g}",
        *of_recordings,
        f"{flops / 1e6:.3g}",
        f"{moved / 1e6:.3g}",
        f"{least / 1e6:.3g}",
        *bounds,
    ]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", nargs="+", default=list(WORKS), choices=list(WORKS), metavar="ROW")
    parser.add_argument("--compiled", nargs="*", default=list(WORKS), metavar="ROW", help="those that are compiled too")
    parser.add_argument("--write-readme", action="store_true")
    options = parser.parse_args(arguments)
    if options.write_readme and options.rows != list(WORKS):
        parser.error("--write-readme puts the whole table there: leave --rows out")
    rows = [COLUMNS, ["---"] * len(COLUMNS)]
    for name in options.rows:
        rows.append(row(WORKS[name], name in options.compiled))
        print(json.dumps(rows[-1], ensure_ascii=False), flush=True)
    if options.write_readme:
        table = "\n".join("| " + " | ".join(cells) + " |" for cells in rows)
        readme = HERE / "README.md"
        before, _, rest = readme.read_text().partition(START)
        readme.write_text(f"{before}{START}\n{table}\n{END}{rest.partition(END)[2]}")


if __name__ == "__main__":
    main()
