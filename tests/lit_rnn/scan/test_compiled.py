"""Which batches are compiled, and that all others are the loop's: under torch's own limit, with a quick backend."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from lit_rnn import cells
from lit_rnn.cells import Cell
from lit_rnn.scan import compiled, scan
from tests.logs import Logs

I, N = 2, 4  # noqa: E741


class Counted:
    """torch.compile's ``eager`` backend, which runs what was traced, and how often it was asked."""

    def __init__(self) -> None:
        self.graphs = 0

    def __call__(self, graph: Any, inputs: Any) -> Any:
        self.graphs += 1
        return graph.forward


@pytest.fixture
def count(monkeypatch: pytest.MonkeyPatch) -> Iterator[Counted]:
    counted = Counted()
    monkeypatch.setattr(compiled, "CHUNK", 2)
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend=counted))
    yield counted
    torch._dynamo.reset()


def check(cell: Cell, batch: int, grad: bool = True) -> None:
    x = torch.randn(5, batch, I, dtype=torch.float64, requires_grad=grad)
    with torch.set_grad_enabled(grad):
        found, expected = (scan(cell, x, backend=backend) for backend in ("compiled", "loop"))  # type: ignore[arg-type]
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
        if grad:
            leaves = [x, *cell.parameters()]
            gradients = [torch.autograd.grad(y.sum(), leaves, materialize_grads=True) for y, _ in (found, expected)]
            torch.testing.assert_close(*gradients, rtol=1e-12, atol=1e-12)


def test_more_batch_sizes_than_torch_allows(count: Counted, logs: Logs) -> None:
    """Growing, so that each deserves to be compiled; the ninth was the end of the program."""
    limit = torch._dynamo.config.recompile_limit
    cell = cells.JANETCell(I, N).double()
    for batch in range(2, limit + 6):
        check(cell, batch)
    assert count.graphs == limit
    told = [told for told in logs.messages if "run in the loop" in told]
    assert len(told) == 1 and told[0].startswith(f"JANETCell: batches of {limit + 2} run in the loop")
    assert f"{limit} kinds of batches" in told[0]
    check(cells.JANETCell(I, N).double(), 2)  # another cell has its own
    assert count.graphs == limit + 1


def test_small_and_ragged_batches(count: Counted, logs: Logs) -> None:
    cell = cells.LSTMCell(I, N).double()
    for batch in (8, 3, 8, 1, 0, 7, 3, 8):
        check(cell, batch)
    assert count.graphs == 1
    check(cell, 5, grad=False)  # without gradients it is another kind
    check(cell, 5, grad=False)
    check(cell, 2, grad=False)
    assert count.graphs == 2
    assert logs.text.count("LSTMCell: batches of 3 run in the loop, not compiled: it is compiled for larger ones") == 1
    assert logs.text.count("run in the loop") == 1


def test_few_passes_of_a_size_are_not_compiled(count: Counted, logs: Logs) -> None:
    cell, x = cells.LSTMCell(I, N), torch.randn(5, 3, I)
    y, _ = scan(cell, x, backend="compiled", expected_passes=0)
    assert count.graphs == 0 and "LSTMCell: batches of 3 run in the loop" in logs.text
    torch.testing.assert_close(scan(cell, x, backend="compiled", expected_passes=1)[0], y)
    assert count.graphs == 1


class Annealed(cells.JANETCell):
    """A number that changes with every pass, which torch compiles into the code."""

    scale = 1.0

    def step(self, u: Tensor, state: Any, w: Any) -> Any:
        y, (h,) = super().step(u, state, w)
        return y * self.scale, (h * self.scale,)


def test_what_changes_at_every_pass_ends_in_the_loop(count: Counted, logs: Logs) -> None:
    cell = Annealed(I, N).double()
    for number in range(12):
        cell.scale = 1 - number / 100
        check(cell, 3)
    assert count.graphs == torch._dynamo.config.recompile_limit
    assert logs.text.count("run in the loop") == 1


class Decides(cells.JANETCell):
    """Looks at a value to decide what to compute, which no compiled code can."""

    def step(self, u: Tensor, state: Any, w: Any) -> Any:
        (h,) = state
        return super().step(u, (h / 2,) if h.abs().max().item() > 0.1 else state, w)


def test_a_step_that_torch_cannot_compile_runs_in_the_loop(count: Counted, logs: Logs) -> None:
    cell = Decides(I, N).double()
    for batch in (3, 3, 4):
        check(cell, batch)
    assert count.graphs == 0
    (told,) = [told for told in logs.messages if "run in the loop" in told]
    assert told.startswith(f"Decides: batches of 3 run in the loop, not compiled: torch {torch.__version__} cannot: ")
    assert "\n" not in told and told[-1].strip()
