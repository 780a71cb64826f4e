"""The plain recurrence on a GPU: all steps in one launch of a Triton kernel (`plain_triton.py`)."""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from datamodules.errors import require
from lit_rnn.scan.recurrence import COMPLEX, KINDS, Engine, Kept, Loss

# What of a matrix a program keeps in its registers, of the 256 KB that a processor of a GPU has: the rest is for sums.
HELD = 9 * 64 * 64 * 4
BLOCKS = (64, 32)  # units in a tile, the better first
WARPS = 8  # with all registers of a processor that is 255 a thread, the most there are
ROWS = (1, 2, 4)  # of the batch, in a program


class Plan(NamedTuple):
    """How a pass is cut into programs.

    Args:
        rows: Rows of the batch in a program.
        group: Programs that share a matrix: each has the columns of ``own`` tiles of ``block`` units.
        own: See there.
        block: See there.
        warps: Of 32 threads, in a program.
        join: How many sums meet in one reduction, a power of two.
    """

    rows: int
    group: int
    own: int
    block: int
    warps: int = WARPS
    join: int = 1

    @classmethod
    def of(cls, n: int, planes: int, batch: int, itemsize: int, processors: int) -> Plan | None:
        """For a batch of n units and as many planes (1, or real and imaginary part), or None where no group is large
        enough. The programs of a group wait for one another, so that all of a launch must run at once."""
        for block in BLOCKS:
            tiles = -(-n // block)
            own = min(tiles, HELD // (planes * tiles * block * block * itemsize))
            if not own or -(-tiles // own) > processors:
                continue
            group = -(-tiles // own)
            own = -(-tiles // group)
            fits = (rows for rows in ROWS if -(-batch // rows) * group <= processors or rows == ROWS[-1])
            rows = next(fits) if itemsize == 4 else 1
            return cls(rows, group, own, block, WARPS, _power_of_two(rows * planes * own))
        return None

    @property
    def side(self) -> int:
        """Of the matrix, with its tiles filled up."""
        return self.group * self.own * self.block

    def fold(self, itemsize: int) -> int:
        """How many lines of a tile lie in different threads: each loads 16 bytes of a line."""
        return min(self.block, 16 // itemsize * 32 * self.warps // self.block)

    def launches(self, batch: int, processors: int) -> list[tuple[int, int]]:
        """From which row on, and in how many groups."""
        groups = -(-batch // self.rows)
        most = groups if self.group == 1 else processors // self.group
        return [(first * self.rows, min(most, groups - first)) for first in range(0, groups, max(1, most))]


def _power_of_two(least: int) -> int:
    return 1 << (least - 1).bit_length()


@functools.cache
def has_triton() -> bool:
    """Whether Triton is installed."""
    return importlib.util.find_spec("triton") is not None


@functools.cache
def _processors(device: torch.device) -> int:
    """How many a GPU has; 0 where Triton makes nothing for it."""
    if not torch.cuda.is_available() or torch.cuda.get_device_capability(device) < (8, 0):
        return 0
    return torch.cuda.get_device_properties(device).multi_processor_count


def runs_on(n: int, kind: str, dtype: torch.dtype, device: torch.device) -> bool:
    """Whether n units with that nonlinearity run there."""
    real = dtype.to_real()
    if device.type != "cuda" or torch.version.hip or real not in (torch.float32, torch.float64) or not has_triton():
        return False
    return Plan.of(n, 1 + (kind == COMPLEX), 1, real.itemsize, _processors(device)) is not None


class Triton(Engine):
    """The two recursions on a GPU, block by block of as many rows."""

    waits = True
    """Whether programs of a group run at once; the tests, where one runs after another, start all again instead."""

    def forward(self, u: Tensor, kept: Kept) -> None:
        run = self._run(kept)
        n = run.constants["n"]
        w = self._planes(self.W[:n, :n].mT, self.W[n:, :n].mT)
        modulus = kept.modulus
        memory = (w, u, kept.before, self._bias, kept.h, kept.h if modulus is None else modulus)
        run("forward", memory, KEEP=modulus is not None)

    def backward(
        self, loss: Loss, kept: Kept, previous: Callable[[], Tensor], delta: Tensor, by_W: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        run = self._run(kept)
        n = run.constants["n"]
        w = self._planes(self.W[:n, :n], -self.W[n:, :n])
        through = torch.empty_like(kept.before)
        by_bias = kept.h.new_zeros(-(-run.batch // run.plan.rows), n)
        last = loss.last.contiguous()
        each = last if loss.each is None else loss.each.contiguous()
        modulus = kept.h if kept.modulus is None else kept.modulus
        memory = (w, each, last, kept.h, modulus, self._bias, delta, through, by_bias)
        run("backward", memory, EACH=loss.each is not None)
        if by_W is not None:
            by_W.addmm_(delta.mT, previous())
        return through, None if self.bias is None else by_bias.sum(0)

    @property
    def _bias(self) -> Tensor:
        return self.W if self.bias is None else self.bias.contiguous()

    def _run(self, kept: Kept) -> _Run:
        ((steps, batch),) = kept.blocks
        planes = 1 + (self.kind == COMPLEX)
        n, itemsize = kept.h.shape[1] // planes, kept.h.element_size()
        processors = _processors(kept.h.device)
        plan = self.plan(n, planes, batch, itemsize, processors)
        constants = {"n": n, "KIND": KINDS.index(self.kind), **constants_of(plan, itemsize), "WAIT": self.waits}
        return _Run(plan, steps, batch, processors, constants, 1 if self.waits else steps + 1)

    def plan(self, n: int, planes: int, batch: int, itemsize: int, processors: int) -> Plan:
        found = Plan.of(n, planes, batch, itemsize, processors)
        key = "model.init_args.backend"
        fit = "another backend, such as fused: so many units do not fit the processors of this GPU"
        require(found is not None, key, f"triton for {n} units", fit)
        assert found is not None
        return found

    def _planes(self, real: Tensor, imaginary: Tensor) -> Tensor:
        """Of (n, n), filled up to whole tiles."""
        planes = 1 + (self.kind == COMPLEX)
        n = len(self.W) // planes
        plan = self.plan(n, planes, 1, self.W.element_size(), _processors(self.W.device))
        filled = self.W.new_zeros(planes, plan.side, plan.side)
        for plane, part in zip(filled, (real, imaginary), strict=False):
            plane[:n, :n] = part
        return filled


def constants_of(plan: Plan, itemsize: int) -> dict[str, int]:
    """What the kernels are compiled for, of a plan."""
    return {
        "ROWS": plan.rows,
        "GROUP": plan.group,
        "OWN": plan.own,
        "BLOCK": plan.block,
        "FOLD": plan.fold(itemsize),
        "JOIN": plan.join,
    }


class _Run(NamedTuple):
    """Launches of a kernel over all steps of a batch."""

    plan: Plan
    steps: int
    batch: int
    processors: int
    constants: dict[str, int]
    rounds: int

    def __call__(self, name: str, memory: tuple[Tensor, ...], **constants: Any) -> None:
        if not self.batch:
            return
        from lit_rnn.scan import plain_triton

        kernel, plan = getattr(plain_triton, name), self.plan
        launches = plan.launches(self.batch, self.processors)
        options: dict[str, Any] = {"num_warps": plan.warps, "enable_fp_fusion": True}
        if plan.group > 1 and self.constants["WAIT"]:
            options["launch_cooperative_grid"] = True
        arrivals = torch.zeros(len(launches), launches[0][1], dtype=torch.int32, device=memory[0].device)
        for ready, (start, groups) in zip(arrivals, launches, strict=True):
            for _ in range(self.rounds if plan.group > 1 else 1):
                arguments = *memory, ready, self.steps, self.batch, start
                kernel[(groups * plan.group,)](*arguments, **self.constants, **constants, **options)
