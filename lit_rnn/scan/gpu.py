"""The plain recurrence on a GPU: all steps in one launch of a Triton kernel (`plain_triton.py`)."""

from __future__ import annotations

import functools
import importlib.util
import logging
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from datamodules.errors import one_line, require
from lit_rnn.scan.recurrence import COMPLEX, KINDS, Dense, Kept, Loss

log = logging.getLogger(__name__)

# What of a matrix a program keeps in its registers, of the 256 KB that a processor of a GPU has, the rest is for states
# and sums: where it has all of a matrix, and where several share it.
ALONE, SHARED = 36 * 32 * 32 * 4, 32 * 32 * 32 * 4
BLOCK = 32  # units in a tile: 64 took 1.29 times as long (H200, n = 170, forward and backward)
CAPABILITY = (8, 0)  # the least that the kernels are made for
WARPS = 8  # with all registers of a processor that is 255 a thread, the most there are


class Plan(NamedTuple):
    """How a pass is cut into programs.

    Args:
        rows: Rows of the batch that a program works on at once.
        group: Programs that share a matrix: each has the columns of ``own`` tiles of ``block`` units.
        own: See there.
        block: See there.
        warps: Of 32 threads, in a program.
    """

    rows: int
    group: int
    own: int
    block: int
    warps: int = WARPS

    @classmethod
    def of(cls, n: int, planes: int, batch: int, itemsize: int, processors: int) -> Plan | None:
        """For a batch of n units and as many planes (1, or real and imaginary part), or None where no group is large
        enough. The programs of a group wait for one another, so that all of a launch must run at once."""
        if not processors:
            return None
        tiles = -(-n // BLOCK)
        column = planes * tiles * BLOCK**2 * itemsize
        group = 1 if column * tiles <= ALONE else -(-tiles // max(1, SHARED // column))
        if group > 1 and (column > SHARED or group > processors):
            return None
        own = -(-tiles // group)
        if itemsize > 4 or (group == 1 and planes > 1 and column * tiles > ALONE // 2):
            most = 1
        else:  # beside a share of W more rows have room: as many as their sums and next inputs leave in registers
            most = min(8, 16 // own) if group > 1 and planes == 1 else 2
        rows = 1
        while 2 * rows <= most and -(-batch // rows) * group > processors:  # as many as spare programs a second turn
            rows *= 2
        return cls(rows, group, own, BLOCK)

    @property
    def side(self) -> int:
        """Of the matrix, with its tiles filled up."""
        return self.group * self.own * self.block

    def groups(self, batch: int, processors: int) -> tuple[int, int]:
        """How many, and how often in turn each works on ``rows`` rows."""
        pieces = -(-batch // self.rows)
        chunks = 1 if self.group == 1 else max(1, -(-pieces // (processors // self.group)))
        return -(-pieces // chunks), chunks


def parts_of(tiles: int) -> tuple[int, ...]:
    """As few powers of two as there can be, the largest first."""
    return tuple(1 << k for k in reversed(range(tiles.bit_length())) if tiles >> k & 1)


@functools.cache
def has_triton() -> bool:
    """Whether Triton is installed."""
    return importlib.util.find_spec("triton") is not None


@functools.cache
def lacking() -> str | None:
    """What Triton needs and does not find here, None where it runs.

    It compiles a launcher in C when it is first used, and keeps it in a cache: without a compiler, or a place for the
    cache, all launches fail, where other backends run.
    """
    if not has_triton():
        return "Python package triton, which is not installed"
    try:
        from triton.runtime import driver

        driver.active.get_current_device()
    except Exception as error:  # Triton's, a compiler's or the system's
        log.warning("Triton does not start on this machine, a slower backend runs instead: %s", one_line(error))
        return f"Triton, which does not start ({one_line(error)})"
    return None


@functools.cache
def processors_of(device: torch.device) -> int:
    """How many a GPU has; 0 where Triton makes nothing for it."""
    if not torch.cuda.is_available() or torch.cuda.get_device_capability(device) < CAPABILITY:
        return 0
    return torch.cuda.get_device_properties(device).multi_processor_count


def takes(dtype: torch.dtype, device: torch.device) -> bool:
    """Whether recurrences run by Triton in such numbers, on a device that is NVIDIA's and of `CAPABILITY`."""
    real = dtype.to_real() in (torch.float32, torch.float64)
    there = device.type == "cuda" and not torch.version.hip and processors_of(device) > 0
    return real and there and lacking() is None


def runs_on(n: int, kind: str, dtype: torch.dtype, device: torch.device) -> bool:
    """Whether n units with that nonlinearity run there."""
    if not takes(dtype, device):
        return False
    return Plan.of(n, 1 + (kind == COMPLEX), 1, dtype.to_real().itemsize, processors_of(device)) is not None


def check_offsets(backend: str, kept: Kept) -> None:
    """The kernels count the numbers of a step, and those of W, in 32 bits."""
    ((_, batch),), width = kept.blocks, kept.h.shape[1]
    fit = f"fused: {backend} takes at most 2^31 numbers in the states of a step, and in W"
    given = f"{backend} for {batch:,} sequences of {width:,} numbers"
    require(max(batch, width) * width <= 2**31, "model.init_args.backend", given, fit)


def launched(
    kernel: Any,
    groups: int,
    members: int,
    memory: tuple[Tensor, ...],
    numbers: tuple[int, ...],
    constants: dict[str, Any],
    warps: int,
    rounds: int,
    chunks: int = 1,
) -> None:
    """Launch a kernel of ``groups`` times ``members`` programs where ``memory`` is, which need not be the current
    device; all run at once where those of a group wait, for each of its ``chunks`` of rows by a counter of its own."""
    if not groups:
        return
    counters = torch.zeros if members > 1 else torch.empty
    ready = counters(groups * chunks, dtype=torch.int32, device=memory[0].device)
    options: dict[str, Any] = {"num_warps": warps, "enable_fp_fusion": True}
    if members > 1 and constants["WAIT"]:
        options["launch_cooperative_grid"] = True
    with torch.cuda.device_of(ready):
        for _ in range(rounds):
            kernel[(groups * members,)](*memory, ready, *numbers, **constants, **options)


class Triton(Dense):
    """The two recursions on a GPU, block by block of as many rows."""

    waits = True
    """Whether programs of a group run at once; the tests, where one runs after another, start all again instead."""

    def forward(self, u: Tensor, kept: Kept) -> None:
        run = self._run(kept)
        w = self._planes(self.W, run.plan)
        modulus = kept.modulus
        memory = (w, u, kept.before, self._bias, kept.h, kept.h if modulus is None else modulus)
        run("forward", memory, KEEP=modulus is not None)

    def deltas(self, loss: Loss, kept: Kept, delta: Tensor) -> Tensor | None:
        run = self._run(kept)
        w = self._planes(self.W.mT, run.plan)  # the adjoint's, on halves as well
        by_bias = kept.h.new_empty(run.groups, run.constants["n"])
        last = loss.last.contiguous()
        each = last if loss.each is None else loss.each.contiguous()
        modulus = kept.h if kept.modulus is None else kept.modulus
        memory = (w, each, last, kept.h, modulus, self._bias, delta, by_bias)
        run("backward", memory, EACH=loss.each is not None)
        return None if self.bias is None else by_bias.sum(0)

    @property
    def _bias(self) -> Tensor:
        return self.W if self.bias is None else self.bias.contiguous()

    def _run(self, kept: Kept) -> _Run:
        ((steps, batch),) = kept.blocks
        planes = 1 + (self.kind == COMPLEX)
        n, itemsize = kept.h.shape[1] // planes, kept.h.element_size()
        processors = processors_of(kept.h.device)
        check_offsets("triton", kept)
        plan = self.plan(n, planes, batch, itemsize, processors)
        constants = {"n": n, "KIND": KINDS.index(self.kind), "WAIT": self.waits, **constants_of(plan)}
        rounds = 1 if self.waits or plan.group == 1 else steps
        return _Run(plan, steps, batch, *plan.groups(batch, processors), constants, rounds)

    def plan(self, n: int, planes: int, batch: int, itemsize: int, processors: int) -> Plan:
        found = Plan.of(n, planes, batch, itemsize, processors)
        key = "model.init_args.backend"
        fit = "another backend, such as streamed: so many units do not fit the processors of this GPU"
        require(found is not None, key, f"triton for {n} units", fit)
        assert found is not None
        return found

    def _planes(self, M: Tensor, plan: Plan) -> Tensor:
        """A matrix (width, width) as planes (side, side), filled up to whole tiles."""
        planes = 1 + (self.kind == COMPLEX)
        n = len(M) // planes
        spare = plan.side - n
        return nn.functional.pad(M[:, :n].unflatten(0, (planes, n)), (0, spare, 0, spare)).contiguous()


def constants_of(plan: Plan) -> dict[str, Any]:
    """What the kernels are compiled for, of a plan."""
    return {
        "ROWS": plan.rows,
        "GROUP": plan.group,
        "ALL": parts_of(plan.group * plan.own),
        "OWN": parts_of(plan.own),
        "SIDE": plan.side,
        "BLOCK": plan.block,
    }


class _Run(NamedTuple):
    """A launch of a kernel for all steps of a batch."""

    plan: Plan
    steps: int
    batch: int
    groups: int
    chunks: int
    constants: dict[str, Any]
    rounds: int

    def __call__(self, name: str, memory: tuple[Tensor, ...], **constants: Any) -> None:
        from lit_rnn.scan import plain_triton

        kernel, plan = getattr(plain_triton, name), self.plan
        numbers = self.steps, self.batch, self.chunks
        constants |= self.constants
        launched(kernel, self.groups, plan.group, memory, numbers, constants, plan.warps, self.rounds, self.chunks)
