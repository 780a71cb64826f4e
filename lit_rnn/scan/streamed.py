"""The plain recurrence on a GPU where W is too large for its registers: Triton kernels that read W from the L2 cache at
every step (`streamed_triton.py`)."""

from __future__ import annotations

from typing import Any, NamedTuple

from torch import Tensor

from lit_rnn.dtypes import rounds_as_ieee
from lit_rnn.scan import gpu
from lit_rnn.scan.packed import Block
from lit_rnn.scan.recurrence import COMPLEX, KINDS, Dense, Kept, Loss


class StreamedPlan(NamedTuple):
    """How a pass is cut into programs.

    Args:
        rows: Rows of the batch that a program works on: the fewest that a product takes.
        group: Programs that share these rows: each has the columns of ``own`` tiles of ``block`` units.
        own: See there.
        block: See there.
        deep: States that a product sums over at once.
        warps: Of 32 threads, in a program.
    """

    rows: int
    group: int
    own: int
    block: int
    deep: int = 32
    warps: int = 4

    @classmethod
    def of(cls, n: int, batch: int, processors: int) -> StreamedPlan:
        """The programs of a group wait for one another, so that all of a launch must run at once: where the rows alone
        are too many for that, a program has all columns."""
        rows = 16
        spare = max(1, processors // max(1, -(-batch // rows)))
        block = 32 if -(-n // 32) <= spare else 64
        tiles = -(-n // block)
        own = -(-tiles // spare)
        return cls(rows, -(-tiles // own), own, block)

    def groups(self, batch: int) -> int:
        return -(-batch // self.rows)


class Streamed(Dense):
    """The two recursions on a GPU, W read at every step; products in TF32 where torch is told to allow that."""

    waits = True
    """As `Triton.waits`."""

    def forward(self, u: Tensor, kept: Kept) -> None:
        modulus = kept.h if kept.modulus is None else kept.modulus
        memory = (self.W.mT.contiguous(), u, kept.before.contiguous(), self._bias, kept.h, modulus)
        self._run("forward", kept, memory, KEEP=kept.modulus is not None)

    def deltas(self, loss: Loss, kept: Kept, delta: Tensor) -> Tensor | None:
        plan, n, (_, batch) = self._cut(kept)
        by_bias = kept.h.new_empty(plan.groups(batch), n)
        last = loss.last.contiguous()
        each = last if loss.each is None else loss.each.contiguous()
        modulus = kept.h if kept.modulus is None else kept.modulus
        memory = (self.W.contiguous(), each, last, kept.h, modulus, self._bias, delta, by_bias)
        self._run("backward", kept, memory, EACH=loss.each is not None)
        return None if self.bias is None else by_bias.sum(0)

    @property
    def _bias(self) -> Tensor:
        return self.W if self.bias is None else self.bias.contiguous()

    def _cut(self, kept: Kept) -> tuple[StreamedPlan, int, Block]:
        """How, how many units, and of what."""
        (block,) = kept.blocks
        n = kept.h.shape[1] // (1 + (self.kind == COMPLEX))
        return StreamedPlan.of(n, block.rows, gpu.processors_of(kept.h.device)), n, block

    def _run(self, name: str, kept: Kept, memory: tuple[Tensor, ...], **constants: Any) -> None:
        from lit_rnn.scan import streamed_triton

        gpu.check_offsets("streamed", kept)
        plan, n, (steps, batch) = self._cut(kept)
        constants |= {"n": n, "KIND": KINDS.index(self.kind), "WAIT": self.waits, **constants_of(plan)}
        rounds = 1 if self.waits or plan.group == 1 else steps
        kernel = getattr(streamed_triton, name)
        gpu.launched(kernel, plan.groups(batch), plan.group, memory, (steps, batch), constants, plan.warps, rounds)


def constants_of(plan: StreamedPlan) -> dict[str, Any]:
    """What the kernels are compiled for, of a plan and of torch's setting."""
    return {
        "ROWS": plan.rows,
        "GROUP": plan.group,
        "OWN": plan.own,
        "BLOCK": plan.block,
        "DEEP": plan.deep,
        "PRECISION": "ieee" if rounds_as_ieee() else "tf32",
    }
