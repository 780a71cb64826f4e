"""What is read off the states of LRU and LinOSS in C++ is what their own ``output`` gives, with all gradients."""

from __future__ import annotations

import pytest
import torch

from lit_rnn import cells
from lit_rnn.scan import readout, scan, supports
from lit_rnn.scan.readout import read_out

pytestmark = pytest.mark.skipif(not supports("native", cells.LRUCell(1, 1)), reason="no C++ compiler on this machine")


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("glu", [True, False])
def test_outputs_and_gradients(glu: bool, threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """More rows than a tile, states that lie apart in memory, and gates that are shut."""
    for n, N in ((2, 300), (37, 130), (20, 20)):
        torch.manual_seed(n)
        cell = cells.LRUCell(3, n, n + 1, glu=glu).double()
        memory = (10 * torch.randn(N, 3 * (n + 1), dtype=torch.float64)).requires_grad_()
        x = torch.randn(N, 3, dtype=torch.float64, requires_grad=True)
        h, leaves = (
            memory[:, n + 1 :],
            (memory, x, cell.C.weight, cell.D.weight, *(cell.glu.parameters() if cell.glu else ())),
        )
        expected = cell.output(h, cell.D(x))
        torch.set_num_threads(threads)
        try:
            found = read_out(cell, h, x)
            assert type(found.grad_fn).__name__ == "_ReadBackward"
            seen = torch.randn_like(found)
            slopes = torch.autograd.grad(found, leaves, seen)
        finally:
            torch.set_num_threads(1)
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(slopes, torch.autograd.grad(expected, leaves, seen), rtol=1e-10, atol=1e-10)


def test_maps_that_are_more_than_their_weights() -> None:
    """A hook, or another output, runs as torch runs it."""

    class Doubled(cells.LinOSSCell):
        def output(self, seen: torch.Tensor, direct: torch.Tensor) -> torch.Tensor:
            return 2 * super().output(seen, direct)

    hooked, x = cells.LRUCell(2, 3).double(), torch.randn(5, 2, 2, dtype=torch.float64)
    hooked.C.register_forward_hook(lambda module, inputs, y: y + 1)
    for cell in (hooked, Doubled(2, 3).double()):
        torch.testing.assert_close(scan(cell, x, backend="native"), scan(cell, x, backend="loop"))


def test_under_autocast_products_run_in_half_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    cell, x = cells.LRUCell(2, 4), torch.randn(6, 2, 2)
    exact, (state, _) = scan(cell, x, backend="loop")
    monkeypatch.setattr(readout, "function", lambda *_: pytest.fail("ran in single precision"))
    with torch.autocast("cpu", torch.bfloat16):
        y, final = scan(cell, x, backend="native")
        y.sum().backward()
    assert final[0].dtype == torch.float32
    torch.testing.assert_close(y.float(), exact, rtol=0.05, atol=0.1)
    torch.testing.assert_close(final[0], state, rtol=0.05, atol=0.1)
