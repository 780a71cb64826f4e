"""The Triton kernels in Triton's interpreter, on the CPU, beside the loop; run by test_gpu.py, in a process of its own.

Prints a line of JSON: by case, what differs from the loop by more than rounding, or that it is equal.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any, Literal, NamedTuple

os.environ["TRITON_INTERPRET"] = "1"  # read when Triton is imported

import torch
from torch import Tensor, nn

from lit_rnn import cells
from lit_rnn.cells import Cell, PlainCell
from lit_rnn.init import gaussian_
from lit_rnn.scan import fused, gpu, scan, streamed
from lit_rnn.scan.packed import Block, Blocks, ends, size

I = 2  # noqa: E741


class Case(NamedTuple):
    """Of a pass; ``processors`` and ``held`` say how many programs a matrix of n units is cut into."""

    kind: str
    n: int
    blocks: Blocks = (Block(2, 2),)
    last_only: bool = False
    dtype: torch.dtype = torch.float64
    processors: int = 132
    held: int = gpu.ALONE  # bytes
    backend: Literal["triton", "streamed"] = "triton"
    mixed: bool = False  # the drive in bfloat16, as under autocast

    def __str__(self) -> str:
        steps = "+".join(f"{steps}x{rows}" for steps, rows in self.blocks)
        rest = f"{str(self.dtype).removeprefix('torch.')} {self.processors}/{self.held}"
        more = f"{' bf16' if self.mixed else ''}{' last' if self.last_only else ''}"
        return f"{self.backend} {self.kind} {self.n} {steps}{more} {rest}"


KINDS = ("identity", "relu", "leaky_relu", "tanh", "elu", "modrelu", "complex modrelu")
SMALL = 32 * 32 * 8  # a tile of float64
CASES = [
    *(Case(kind, 5, last_only=kind in ("tanh", "modrelu", "complex modrelu")) for kind in KINDS),
    Case("modrelu", 33, dtype=torch.float32),
    *(Case(kind, 70) for kind in ("elu", "complex modrelu")),
    Case("relu", 64, (Block(1, 1),)),
    # several rows in a program, and a batch that does not fill them
    *(Case(kind, 5, (Block(2, 5),), dtype=torch.float32, processors=3) for kind in ("tanh", "complex modrelu")),
    # groups of programs that share a matrix, in several launches
    Case("modrelu", 70, (Block(3, 3), Block(1, 2)), processors=7, held=3 * SMALL),
    Case("complex modrelu", 40, (Block(2, 3),), True, processors=5, held=4 * SMALL),
    # several rows in each, which the batch does not fill, and a second turn of them
    Case("modrelu", 40, (Block(2, 3),), dtype=torch.float32, processors=2, held=SMALL),
    Case("complex modrelu", 40, (Block(2, 3),), dtype=torch.float32, processors=3, held=2 * SMALL),
    # ever fewer rows, and none
    *(Case("modrelu", 5, (Block(2, 4), Block(1, 3), Block(2, 1)), last) for last in (False, True)),
    Case("complex modrelu", 5, (Block(2, 0),)),
    # W read at every step: ragged tiles of rows and units, one program to some rows, and groups
    *(Case(kind, 5, (Block(3, 17),), kind == "relu", backend="streamed") for kind in ("relu", "tanh", "modrelu")),
    *(Case(kind, 70, (Block(2, 18),), processors=1, backend="streamed") for kind in ("modrelu", "complex modrelu")),
    *(Case(kind, 40, (Block(3, 17),), processors=4, backend="streamed") for kind in ("modrelu", "complex modrelu")),
    Case("tanh", 33, (Block(2, 4), Block(1, 1)), dtype=torch.float32, backend="streamed"),
    Case("relu", 5, (Block(2, 0),), backend="streamed"),
    # tiles in parts of two sizes
    *(Case(kind, 70, (Block(2, 3),), kind == "tanh", torch.float32, processors=2) for kind in ("tanh", "modrelu")),
    # the drive in bfloat16
    *(Case("modrelu", 6, dtype=torch.float32, backend=b, mixed=True) for b in ("triton", "streamed")),
    Case("complex modrelu", 6, dtype=torch.float32, mixed=True),
]


def made(kind: str, n: int) -> PlainCell:
    if kind == "complex modrelu":
        cell: Any = cells.UnitaryExpRNNCell(I, n)
    else:
        cell = cells.VanillaRNNCell(I, n, kind, init=gaussian_)  # type: ignore[arg-type]
    for name, parameter in cell.named_parameters():
        if name.endswith("activation.bias"):  # thresholds on both sides of zero, and dead units
            nn.init.uniform_(parameter, -0.5, 0.3)
    return cell


def results(case: Case, cell: PlainCell, x: Tensor, h0: Tensor, by_triton: bool) -> list[Tensor]:
    """Outputs, final state and all gradients, of a loss that weighs all outputs."""
    with torch.autocast("cpu", torch.bfloat16, enabled=case.mixed):
        if by_triton:
            y, (final,) = fused.run_plain(cell, x, (h0,), cell.weights(), case.backend, case.last_only, case.blocks)
        else:
            y, final = looped(case, cell, x, h0)
    weigh = torch.linspace(0, 9, y.numel(), dtype=torch.float64).cos().reshape(y.shape).to(y.dtype)
    loss = (weigh * y).sum() + (final.abs() ** 2).sum()
    leaves = [*cell.parameters(), x, h0]
    gradients = torch.autograd.grad(loss, leaves, allow_unused=True)
    return [y, final, *(torch.zeros(()) if g is None else g for g in gradients)]


def looped(case: Case, cell: Cell, x: Tensor, h0: Tensor) -> tuple[Tensor, Tensor]:
    """Block by block in the loop."""
    outputs, finals, state, row = [], [], h0, 0
    for steps, rows in case.blocks:
        part = x[row : row + steps * rows].unflatten(0, (steps, rows))
        y, (now,) = scan(cell, part, (state[:rows],), backend="loop")
        outputs.append(y.flatten(0, 1))
        finals.append(state[rows:])
        state, row = now, row + steps * rows
    y = torch.cat(outputs)
    final = torch.cat([state, *reversed(finals)])
    return (y[ends(case.blocks, y.device)] if case.last_only else y), final


def difference(case: Case) -> str:
    torch.manual_seed(case.n)
    gpu.ALONE, gpu.SHARED, gpu.processors_of = case.held, case.held, lambda device: case.processors  # type: ignore[assignment]
    cell = made(case.kind, case.n).to(case.dtype)
    x = torch.randn(size(case.blocks), I, dtype=case.dtype, requires_grad=True)
    (like,) = cell.initial_state(case.blocks[0].rows)
    h0 = torch.randn_like(like).detach().requires_grad_()
    tolerance = 1e-10 if case.dtype == torch.float64 else 2e-5
    found, expected = (results(case, cell, x, h0, by_triton) for by_triton in (True, False))
    try:
        torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance)
    except AssertionError as error:
        return str(error)
    return "equal"


if __name__ == "__main__":
    torch.set_num_threads(1)
    gpu.Triton.waits = streamed.Streamed.waits = False  # one program runs after another
    wanted = sys.argv[1:]
    found = {str(case): difference(case) for case in CASES if not wanted or any(w in str(case) for w in wanted)}
    print(json.dumps(found))
