"""The associative scan against a loop written here, in both of its ways; what runs by it, and what does not."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from lit_rnn import cells
from lit_rnn.scan import choose_backend, parallel, scan, supports


def looped(A: Tensor, b: Tensor, before: Tensor) -> Tensor:
    """By matrices (k, k) of each unit."""
    h, found = before, []
    for t in range(len(b)):
        A_t = A if A.dim() == 3 else A[t]
        h = torch.einsum("...ijn,...jn->...in", A_t, h) + b[t]
        found.append(h)
    return torch.stack(found)


@pytest.mark.parametrize("wide", [1, 13, 10**9], ids=["step by step", "mixed", "halved"])
@pytest.mark.parametrize("length", [1, 2, 3, 8, 129])
def test_equals_the_loop(wide: int, length: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """States and all gradients, A the same at all steps or not, of blocks of 1 to 3."""
    monkeypatch.setattr(parallel, "WIDE", {"cpu": wide})
    torch.manual_seed(length)
    B, n = 2, 3
    for k in (1, 2, 3):
        for shape in ((k, k, n), (length, B, k, k, n)):
            A = (torch.rand(shape, dtype=torch.float64) / k * 1.02).requires_grad_()
            b = torch.randn(length, B, k, n, dtype=torch.float64, requires_grad=True)
            before = torch.randn(B, k, n, dtype=torch.float64, requires_grad=True)
            found, expected = (run(A, b, before) for run in (parallel.states, looped))
            torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)
            seen = torch.randn_like(found)
            slopes = [torch.autograd.grad((h * seen).sum(), (A, b, before)) for h in (found, expected)]
            torch.testing.assert_close(slopes[0], slopes[1], rtol=1e-10, atol=1e-10)


def test_oscillators_that_never_fade_stay_exact() -> None:
    """1,000 steps of LinOSS-IMEX, whose eigenvalues have modulus 1: powers of A by squaring lose next to nothing."""
    torch.manual_seed(0)
    cell = cells.LinOSSCell(2, 3, discretization="IMEX", glu=False).double()
    x = torch.randn(1000, 1, 2, dtype=torch.float64)
    with torch.no_grad():
        y, expected = (scan(cell, x, backend=backend)[0] for backend in ("parallel", "loop"))  # type: ignore[arg-type]
    torch.testing.assert_close(y, expected, rtol=1e-10, atol=1e-10)


def test_sequences_of_any_length_and_those_that_begin_anew() -> None:
    torch.manual_seed(0)
    for cell in (cells.MinLSTMCell(2, 3, learn_initial_state=True).double(), cells.LRUCell(2, 3).double()):
        x = torch.randn(9, 3, 2, dtype=torch.float64, requires_grad=True)
        reset = torch.rand(9, 3) < 0.2
        for options in ({"lengths": torch.tensor([9, 2, 5])}, {"reset": reset}):
            results = []
            for backend in ("parallel", "loop"):
                y, final = scan(cell, x, backend=backend, **options)  # type: ignore[arg-type]
                loss = y.square().sum() + sum(part.sum() for part in final)
                results.append((y, *final, *torch.autograd.grad(loss, (x, *cell.parameters()))))
            for mine, theirs in zip(*results, strict=True):
                torch.testing.assert_close(mine, theirs, rtol=1e-10, atol=1e-10)


def test_what_runs_by_it() -> None:
    class Squashed(cells.MinGRUCell):
        """Another step is another recurrence."""

        def step(self, u: Tensor, state: cells.State, w: None) -> tuple[Tensor, cells.State]:
            y, (h,) = super().step(u, state, w)
            return y, (torch.tanh(h),)

    for cell in (cells.LRUCell(2, 3), cells.LinOSSCell(2, 3), cells.MinGRUCell(2, 3), cells.MinLSTMCell(2, 3)):
        assert choose_backend("auto", cell) == "parallel"
    for cell in (Squashed(2, 3), cells.DeltaProductCell(2, 3), cells.SLSTMCell(2, 3)):
        assert not supports("parallel", cell) and choose_backend("auto", cell) == "loop"
