"""The associative scan, in both of its ways, and products in chunks against loops written here; what runs by them."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from lit_rnn import cells
from lit_rnn.scan import choose_backend, chunked, parallel, scan, supports


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


def multiplied(q: Tensor, k: Tensor, v: Tensor, beta: Tensor, H: Tensor) -> tuple[Tensor, Tensor]:
    """Every step as a matrix (d, d) on H."""
    eye, o = torch.eye(k.shape[-1], dtype=k.dtype), []
    for t in range(len(q)):
        for j in range(k.shape[-2]):
            k_j, v_j, beta_j = (part[t, ..., j, :].unsqueeze(-1) for part in (k, v, beta))
            H = (eye - beta_j * k_j @ k_j.mT) @ H + beta_j * k_j @ v_j.mT
        o.append((H.mT @ q[t].unsqueeze(-1)).squeeze(-1))
    return torch.stack(o), H


@pytest.mark.parametrize(("length", "steps"), [(1, 1), (1, 3), (5, 2), (16, 1), (17, 2), (21, 3), (5, 19)])
def test_products_of_householder_steps(length: int, steps: int) -> None:
    """Shorter than a chunk, one, several and a ragged one, and more steps an input than a chunk has."""
    torch.manual_seed(length)
    B, heads, d, d_v = 2, 2, 3, 4

    def random(*shape: int) -> Tensor:
        return torch.randn(length, B, heads, *shape, dtype=torch.float64)

    k = torch.nn.functional.normalize(random(steps, d), dim=-1)
    start = torch.randn(B, heads, d, d_v, dtype=torch.float64)
    beta = 2 * random(steps, 1).sigmoid()
    assert float((beta > 1).double().mean()) > 0.1  # eigenvalues 1 - beta below zero
    leaves = [part.requires_grad_() for part in (random(d), k, random(steps, d_v), beta, start)]
    found, expected = (run(*leaves) for run in (chunked.products, multiplied))
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)
    seen = [torch.randn_like(part) for part in found]
    slopes = [torch.autograd.grad(results, leaves, seen) for results in (found, expected)]
    torch.testing.assert_close(slopes[0], slopes[1], rtol=1e-10, atol=1e-10)


def test_reflections_for_ever_stay_exact() -> None:
    """500 steps of beta = 2 along keys that are nearly the same, the hardest case for a triangular system: H keeps its
    length."""
    torch.manual_seed(0)
    T, d = 500, 4
    k = torch.ones(T, 1, 1, d, dtype=torch.float64) + 1e-3 * torch.randn(T, 1, 1, d, dtype=torch.float64)
    k, beta = torch.nn.functional.normalize(k, dim=-1), torch.full((T, 1, 1, 1), 2.0, dtype=torch.float64)
    q, v, H = k[:, :, 0], torch.zeros_like(k), torch.eye(d, dtype=torch.float64)[None]
    found, expected = (run(q, k, v, beta, H) for run in (chunked.products, multiplied))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-10)
    torch.testing.assert_close(found[1].norm(), H.norm(), rtol=1e-12, atol=0)


def test_in_half_precision_products_keep_single() -> None:
    """Under autocast states keep their precision; a cell that is in bfloat16 gives bfloat16."""
    torch.manual_seed(0)
    cell, x = cells.DeltaProductCell(2, 4), torch.randn(9, 2, 2)
    with torch.no_grad(), torch.autocast("cpu"):
        results = [scan(cell, x, backend=backend) for backend in ("parallel", "loop")]  # type: ignore[arg-type]
    torch.testing.assert_close(*results, rtol=1e-5, atol=1e-5)
    y, (H,) = scan(cell.bfloat16(), x.bfloat16(), backend="parallel")
    assert y.dtype == H.dtype == torch.bfloat16


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
    deltaproduct = cells.DeltaProductCell(2, 4, householder=5, heads=2, key_size=3, learn_initial_state=True)
    for cell in (cells.MinLSTMCell(2, 3, learn_initial_state=True), cells.LRUCell(2, 3), deltaproduct):
        cell.double()
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

    class Faded(cells.DeltaProductCell):
        def step(self, u: Tensor, state: cells.State, w: None) -> tuple[Tensor, cells.State]:
            return super().step(u, (0.9 * state[0],), w)

    for name in ("LRUCell", "LinOSSCell", "MinGRUCell", "MinLSTMCell", "DeltaProductCell"):
        cell = getattr(cells, name)(2, 3)
        assert supports("parallel", cell)
        assert choose_backend("auto", cell) == ("native" if supports("native", cell) else "parallel")
    for cell in (Squashed(2, 3), Faded(2, 3), cells.SLSTMCell(2, 3)):
        assert not supports("parallel", cell) and choose_backend("auto", cell) != "parallel"
    for cell in (Squashed(2, 3), Faded(2, 3)):
        assert not supports("native", cell)
