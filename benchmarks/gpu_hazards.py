"""What recordings on a GPU are in danger of, case by case, each in a process of its own.

python benchmarks/gpu_hazards.py [--only CASE...] [--seconds 90]

Each case sets up what has ended, or could end, in an illegal access, a broken process or wrong numbers, by the sources
of torch: workspaces that the memory cache lets go of, gradients that are summed on the default stream, values that the
host reads, garbage that is collected while something is recorded. Outputs and gradients stand beside the loop's. The
exit status is 1 where a case is wrong, or takes longer than that many seconds.
"""

from __future__ import annotations

import argparse
import gc
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.distributed
from lightning_fabric.accelerators.cuda import _clear_cuda_memory
from torch import Tensor, nn

from datamodules import UserError
from lit_rnn import cells
from lit_rnn.robustness import pgd
from lit_rnn.scan import graphed, scan

DEVICE = "cuda"
ROUNDING = 1e-3  # of the largest entry


def made(name: str, size: int = 32, **options: Any) -> Any:
    torch.manual_seed(0)
    return getattr(cells, name)(1, size, **options).to(DEVICE)


def inputs(steps: int = 300, batch: int = 16) -> Tensor:
    return torch.randn(steps, batch, 1, device=DEVICE, generator=torch.Generator(DEVICE).manual_seed(1))


def found(cell: Any, backend: str, given: Tensor, **options: Any) -> list[Tensor]:
    """The outputs, and the gradients of their mean square by all parameters."""
    cell.zero_grad()
    outputs, _ = scan(cell, given, backend=backend, **options)
    outputs.square().mean().backward()
    return [outputs.detach().clone(), *(one.grad.clone() for one in cell.parameters() if one.grad is not None)]


def same(ours: Sequence[Tensor], theirs: Sequence[Tensor]) -> None:
    pairs = zip(ours, theirs, strict=True)
    worst = max(float((a - b).abs().max() / b.abs().max().clamp_min(1e-12)) for a, b in pairs)
    assert worst < ROUNDING, worst


def beside_the_loop(cell: Any, backend: str = "graphed", **options: Any) -> None:
    same(found(cell, backend, inputs(), **options), found(cell, "loop", inputs()))


def still_works() -> None:
    """Nothing of a recording that failed is left: its stream, its random numbers, its memory."""
    assert torch.cuda.current_stream() == torch.cuda.default_stream()
    torch.randn(3, device=DEVICE)
    kept = torch.empty(2**28, device=DEVICE)
    del kept
    torch.cuda.empty_cache()
    assert torch.cuda.memory_reserved() < 2**30
    torch.cuda.synchronize()


def workspaces() -> None:
    """cuBLAS's, between fits: Lightning empties the cache then, and what was recorded must not write there any more."""
    plain, gated = made("ExpRNNCell"), made("GORUCell")

    def now() -> list[list[Tensor]]:
        return [found(plain, "triton", inputs()), found(gated, "graphed", inputs())]

    before = now()
    for _ in range(3):
        _clear_cuda_memory()
        others = [torch.full((2**23,), float("nan"), device=DEVICE) for _ in range(32)]
        for ours, theirs in zip(now(), before, strict=True):
            same(ours, theirs)
        del others
    for cell, ours in zip((plain, gated), before, strict=True):
        same(ours, found(cell, "loop", inputs()))


def recomputed() -> None:
    """Cells whose step reads a parameter, within the pass around ``checkpoint_every``."""
    for name in ("GORUCell", "EURNNCell"):
        beside_the_loop(made(name), checkpoint_every=100)


class Wrapped(nn.Module):
    """A pass of a cell as the forward of a module, as DDP wants it."""

    def __init__(self, backend: str) -> None:
        super().__init__()
        self.cell, self.backend = made("GORUCell"), backend

    def forward(self, given: Tensor) -> Tensor:
        return scan(self.cell, given, backend=self.backend)[0]


def ddp() -> None:
    """Keeps nodes of the parameters on the default stream; one process is enough for that."""
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT="29511", RANK="0", WORLD_SIZE="1")
    torch.distributed.init_process_group("nccl")
    gradients = []
    for backend in ("graphed", "loop"):
        net = nn.parallel.DistributedDataParallel(Wrapped(backend))
        for _ in range(3):
            net.zero_grad()
            net(inputs()).square().mean().backward()
        gradients.append([one.grad.clone() for one in net.parameters() if one.grad is not None])
    torch.distributed.destroy_process_group()
    same(*gradients)


class Reading(cells.JANETCell):
    """Reads a number on the host at every step."""

    def step(self, drive: Tensor, state: Any, weights: Any) -> Any:
        output, (h,) = super().step(drive, state, weights)
        return output, (h * (1.0 if h.sum().item() > 0 else 0.5),)


def read() -> None:
    """A step that cannot be recorded is told in a sentence, and the process works on."""
    try:
        found(Reading(1, 32).to(DEVICE), "graphed", inputs())
    except UserError as error:
        print(f"   {error}")
    else:
        raise AssertionError("not noticed")
    still_works()
    beside_the_loop(made("GORUCell"))
    still_works()


def garbage() -> None:
    """Recordings that only the collector finds, which would end one under way."""
    gc.disable()
    for _ in range(3):
        old = made("GORUCell")
        found(old, "graphed", inputs())
        old.ring = [old]
        del old
    gc.set_threshold(1, 1, 1)
    gc.enable()
    beside_the_loop(made("GORUCell"))
    still_works()


def memory() -> None:
    """On what looks like a card of 8 GiB: of 40 parts as many are recorded as there is room for."""
    asked, size = torch.cuda.mem_get_info, 2**33
    taken = torch.empty(max(0, asked()[0] - size), dtype=torch.uint8, device=DEVICE)
    torch.cuda.mem_get_info = lambda device=None: (asked()[0], size)
    cell, given = made("JANETCell", 128), inputs(256 * 40, 128)
    for _ in range(2):
        outputs, _ = scan(cell, given, backend="graphed", last_only=True)
        outputs.sum().backward()
    (kind,) = graphed._recordings[cell].values()
    print(f"   {len(kind._segments[256])} recordings for 40 parts, {asked()[0] / 2**30:.1f} GiB free")
    del taken


def compiled() -> None:
    """Nothing is compiled anew while it is recorded."""
    for name in ("GORUCell", "JANETCell"):
        beside_the_loop(made(name), backend="compiled")


def hook() -> None:
    """Of a parameter: it runs once."""
    cell = made("LSTMCell", peepholes=True)
    cell.peephole.register_hook(lambda gradient: 2 * gradient)
    beside_the_loop(cell)


def attack() -> None:
    """With torch's newer switch for TF32 set."""
    torch.backends.fp32_precision = "ieee"
    net = nn.Sequential(nn.Flatten(), nn.Linear(6, 3)).to(DEVICE)
    pgd(net, torch.rand(4, 6, 1, device=DEVICE), torch.zeros(4, dtype=torch.long, device=DEVICE), 0.1, steps=3)


CASES: dict[str, Callable[[], None]] = {  # what is least sure first
    case.__name__: case for case in (workspaces, recomputed, ddp, read, garbage, memory, compiled, hook, attack)
}


def in_its_own_process(name: str, seconds: float) -> bool:
    start = time.monotonic()
    command = [sys.executable, __file__, "--here", name]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds, check=False)
    except subprocess.TimeoutExpired:
        right, told = False, "   it did not end"
    else:
        right, told = done.returncode == 0, (done.stdout + (done.stderr[-1500:] if done.returncode else "")).rstrip()
    print(f"{'right' if right else 'WRONG'} {name}, {time.monotonic() - start:.0f} s", *filter(None, [told]), sep="\n")
    return right


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="What recordings on a GPU are in danger of.")
    parser.add_argument("--only", nargs="+", choices=CASES, default=list(CASES), help="these cases")
    parser.add_argument("--seconds", type=float, default=90, help="for a case, at most")
    parser.add_argument("--here", choices=CASES, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.here:
        CASES[options.here]()
        return 0
    if not torch.cuda.is_available():
        parser.error("there is no CUDA device")
    print(f"torch {torch.__version__}, {torch.cuda.get_device_name()}")
    return 0 if all([in_its_own_process(name, options.seconds) for name in options.only]) else 1


if __name__ == "__main__":
    raise SystemExit(main())
