"""What is done on a GPU, where the host reads no number, gives what is done on the CPU, where it does."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from lit_rnn import graphs
from lit_rnn.parametrizations import orthogonal, queued
from lit_rnn.parametrizations.exponential import _read, _series, exp_normal
from lit_rnn.parametrizations.queued import MOST_SQUARINGS, QueuedExponential, Series
from tests.logs import Logs
from tests.recording import Rerun

DTYPES = [torch.float32, torch.float64, torch.complex64, torch.complex128]


def skew(size: float, dtype: torch.dtype, n: int = 6) -> Tensor:
    """A skew-Hermitian matrix of that spectral norm."""
    A = torch.randn(n, n, dtype=dtype)
    A = A - A.mH
    return A * (size / torch.linalg.matrix_norm(A, 2))


def unread(A: Tensor, nearer: bool = False) -> Tensor:
    return QueuedExponential.apply(Series(*_series(A), nearer), lambda A: _read(A, nearer), A)


@pytest.mark.parametrize("nearer", [False, True])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("size", [0.0, 1e-3, 0.7, 3.1, 40.0, 700.0])
def test_exponential_and_its_gradient(size: float, dtype: torch.dtype, nearer: bool) -> None:
    """Equal to the CPU's way to rounding, and to what the eigenvalues give."""
    A, G = (skew(size, dtype) if size else torch.zeros(6, 6, dtype=dtype)).requires_grad_(), torch.randn(6, 6).to(dtype)
    found, read = unread(A, nearer), exp_normal(A, nearer)
    rounding = torch.finfo(dtype).eps * max(1, size)
    torch.testing.assert_close(found, read, rtol=0, atol=50 * rounding)
    by = [torch.autograd.grad((W * G).sum().abs(), A)[0] for W in (found, read)]
    torch.testing.assert_close(*by, rtol=0, atol=200 * rounding)
    values, vectors = torch.linalg.eigh(A.detach().to(torch.complex128) * -1j)
    exact = vectors @ torch.diag(torch.exp(1j * values)) @ vectors.mH
    torch.testing.assert_close(found.detach().to(torch.complex128), exact, rtol=0, atol=50 * rounding)


@pytest.mark.parametrize("nearer", [False, True])
@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128], ids=str)
def test_gradients_of_gradients(dtype: torch.dtype, nearer: bool) -> None:
    """Of a matrix that is not skew, too: every entry has its own derivative."""
    A = skew(3.0, dtype, 2).requires_grad_()
    assert torch.autograd.gradcheck(lambda A: unread(A, nearer), A)
    assert torch.autograd.gradgradcheck(lambda A: unread(A, nearer), A)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("size", [2000.0 * 2**MOST_SQUARINGS, float("nan"), float("inf")])
def test_what_needs_more_squarings_is_no_number(size: float, dtype: torch.dtype) -> None:
    assert unread(skew(1.0, dtype) * size).isnan().all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.complex64], ids=str)
def test_a_matrix_is_held_near_the_group(dtype: torch.dtype) -> None:
    """One Newton-Schulz step leaves 3/4 of the drift's square, and goes where the SVD goes."""
    W = exp_normal(skew(2.0, torch.promote_types(dtype, torch.float64))).to(dtype)
    W = W + 1e-3 * torch.randn(6, 6, dtype=dtype)
    by_svd = orthogonal.polar_(W.clone())
    nearer = orthogonal.newton_schulz(orthogonal.double(W))
    E = torch.linalg.matrix_norm(W.mH @ W - torch.eye(6), 2)
    assert E > 1e-3
    assert torch.linalg.matrix_norm(nearer.mH @ nearer - torch.eye(6), 2) <= 0.8 * E**2
    torch.testing.assert_close(nearer.to(dtype), by_svd, rtol=0, atol=float(E**2))


def test_recordings_serve_all_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two passes at once, as with accumulated gradients, whatever a replay writes over; one recording a kind."""
    monkeypatch.setitem(graphs.RECORDERS, "cpu", Rerun)
    monkeypatch.setattr(Rerun, "made", [])
    monkeypatch.setattr(queued, "_recordings", {})
    pairs = [(skew(3.0, torch.float64).requires_grad_(), torch.randn(6, 6).double()) for _ in range(3)]
    unread(pairs[0][0].detach())
    assert not Rerun.made  # nothing learns
    found = [unread(A) for A, _ in pairs]
    passes = [((W * G).sum(), A) for W, (A, G) in zip(found, pairs, strict=True)]
    by = [torch.autograd.grad(loss, A)[0] for loss, A in reversed(passes)][::-1]
    for W, grad, (A, G) in zip(found, by, pairs, strict=True):
        torch.testing.assert_close(W, read := exp_normal(A), rtol=0, atol=1e-13)
        torch.testing.assert_close(grad, torch.autograd.grad((read * G).sum(), A)[0], rtol=0, atol=1e-12)
    assert len(Rerun.made) == 1 and Rerun.made[0].replays == 3 + 3 + 2  # the last forward is still there
    assert torch.autograd.gradgradcheck(unread, pairs[0][0])
    unread(skew(3.0, torch.float32).requires_grad_())
    assert len(Rerun.made) == 2


def test_what_cannot_be_recorded_is_told_and_done(monkeypatch: pytest.MonkeyPatch, logs: Logs) -> None:
    class Broken(Rerun):
        def record(self, work: Any) -> Any:
            raise RuntimeError("no graphs here")

    monkeypatch.setitem(graphs.RECORDERS, "cpu", Broken)
    monkeypatch.setattr(queued, "_recordings", {})
    A = skew(3.0, torch.float64).requires_grad_()
    for _ in range(2):
        torch.testing.assert_close(unread(A), exp_normal(A), rtol=0, atol=1e-13)
    assert logs.messages == ["exp(A) with n = 6 is not recorded, which makes it slower: no graphs here"]
