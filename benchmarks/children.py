"""What needs a process of its own: peak memory, operators per step, ranks of DDP.

    python benchmarks/children.py TASK JSON          prints its answer as one line of JSON

`speed.py` starts these; a person has no need to.
"""

from __future__ import annotations

import json
import os
import re
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import torch
import torch.distributed
from passes import Pass, Size, from_config, ours, stepwise
from reference import loop_of
from torch import nn
from torch.autograd.profiler_util import FunctionEvent

from lit_rnn.cells import Cell, ExpRNNCell, LSTMCell, NRUCell
from lit_rnn.scan import Backend

Who = Backend | Literal["reference"]  # the user's loop

CELLS: dict[str, Callable[[int], Cell]] = {
    "exprnn": lambda width: ExpRNNCell(width, 170),
    "exprnn256": lambda width: ExpRNNCell(width, 256),
    "nru": lambda width: NRUCell(width, 80, 64, 4),
    "lstm": lambda width: LSTMCell(width, 68),
}

ALLOCATE = {"aten::empty", "aten::empty_strided"}
IDLE = {name.removeprefix("aten::") for name in ALLOCATE} | {
    *("empty_like", "new_empty", "new_empty_strided", "resize_", "set_"),
    *("_unsafe_view", "result_type", "is_same_size", "item", "_local_scalar_dense"),
}
COPIES = {"copy_", "_to_copy", "fill_", "zero_"}


def make_pass(cell: str, size: list[Any], backend: Who, **options: Any) -> Pass:
    """A pass of one of `CELLS` by a backend, or by the user's loop where ``backend`` is "reference"."""
    measured, built = Size(*size), CELLS[cell](size[2])
    if backend == "reference":
        return stepwise(loop_of(built), measured.inputs(), measured, built.output_size)
    return ours(built, measured.inputs(), measured, backend, **options)


def resident(key: str) -> int:
    """VmRSS (memory in use now) or VmHWM (its peak) of this process, in bytes."""
    found = re.search(rf"{key}:\s*(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None, key
    return 1024 * int(found[1])


def peak_of(run: Pass) -> dict[str, int]:
    """Bytes at the peak of ``run``: ``above`` what was in use before it, and of the ``whole`` process.

    The high-water mark is set back first: that of importing torch may be higher. (The maximum that `resource.getrusage`
    gives cannot be, and survives fork and exec, so that a child's starts at its parent's.)
    """
    Path("/proc/self/clear_refs").write_text("5")
    before = resident("VmRSS")
    run()
    peak = resident("VmHWM")
    return {"above": peak - before, "whole": peak}


def memory(cell: str, size: list[Any], backend: Who, **options: Any) -> dict[str, Any]:
    """Peak memory of a pass, behind one of two steps, which starts threads and loads what is loaded late."""
    _, *rest = size
    make_pass(cell, [2, *rest], backend)()
    return peak_of(make_pass(cell, size, backend, **options))


def is_view(name: str) -> bool:
    """Whether an operator may only give other views of the numbers it is given."""
    packet = getattr(torch.ops.aten, name, None)
    return packet is not None and any(getattr(packet, overload).is_view for overload in packet.overloads())


def computing(event: FunctionEvent) -> list[str]:
    """The operators at and below ``event`` that compute: of nested ones the innermost.

    Copies inside an operator are its own affair; views, memory and questions of type are not counted.
    """
    below = [name for child in event.cpu_children for name in computing(child)]
    name = event.name.removeprefix("aten::")
    if "cpp_fused" in name:  # a compiled kernel
        return [name]
    if name == event.name or name in IDLE or is_view(name) or not COPIES.issuperset(below):
        return below
    return [name]


def profiled(run: Pass) -> tuple[Counter[str], int]:
    """How often each operator that computes ran in the second of two passes, and the allocations in it."""
    run()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        run()
    events = profile.events()
    names = [name for event in events if event.cpu_parent is None for name in computing(event)]
    return Counter(names), sum(event.name in ALLOCATE for event in events)


def ops(cell: str, size: list[Any], backend: Who) -> dict[str, Any]:
    """Operators per time step, forward and backward: the difference between a pass over 2T and one over T, over T."""
    import torch._inductor.config

    T, *rest = size
    torch._inductor.config.cpp.enable_kernel_profile = True  # or compiled kernels would not be seen
    (short, memory), (long, more) = (profiled(make_pass(cell, [steps, *rest], backend)) for steps in (T, 2 * T))
    per_step = {name: (long[name] - short[name]) / T for name, _ in long.most_common()}
    return {"work": sum(per_step.values()), "allocations": (more - memory) / T, "operators": per_step}


def rank(rank: int, world: int, store: str, size: list[Any], steps: int, backend: Backend) -> dict[str, Any]:
    """Seconds of ``steps`` training steps of ExpRNN on pixel MNIST's model, in one of ``world`` processes."""
    torch.distributed.init_process_group("gloo", init_method=Path(store).as_uri(), rank=rank, world_size=world)
    model, data = from_config("pixel_mnist/exprnn.yaml", backend=backend)
    T, B, *_ = size
    parallel = nn.parallel.DistributedDataParallel(model)
    optimizer = model.configure_optimizers()
    inputs, targets = torch.rand(B, T, 1), torch.randint(data.task.target_size, (B,))

    def step() -> None:
        optimizer.zero_grad()
        model.loss_of(parallel(inputs), targets).backward()
        optimizer.step()

    step()
    step()
    torch.distributed.barrier()
    start = time.perf_counter()
    for _ in range(steps):
        step()
    torch.distributed.barrier()
    found = time.perf_counter() - start
    torch.distributed.destroy_process_group()
    return {"seconds": found}


TASKS: dict[str, Callable[..., dict[str, Any]]] = {"memory": memory, "ops": ops, "rank": rank}


def main() -> None:
    from measure import prepare

    prepare(int(os.environ["OMP_NUM_THREADS"]))
    print(json.dumps(TASKS[sys.argv[1]](**json.loads(sys.argv[2]))))


if __name__ == "__main__":
    main()
