"""torch's kernels on a GPU do their products in IEEE float32, unless torch is told otherwise."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor

from lit_rnn.cells import GRUCell, LSTMCell
from lit_rnn.dtypes import rounds_as_ieee
from lit_rnn.scan import scan
from lit_rnn.scan.kernels import InIeee, in_ieee


class _Told(torch.autograd.Function):
    """Notes what cuDNN would do, forward and backward."""

    told: ClassVar[list[str]] = []

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        _Told.told.append(torch.backends.cudnn.rnn.fp32_precision)
        return x.clone()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        _Told.told.append(torch.backends.cudnn.rnn.fp32_precision)
        return grad


def test_both_ways_and_no_longer() -> None:
    before = torch.backends.cudnn.rnn.fp32_precision
    assert before != "ieee"
    _Told.told.clear()
    x, unused = torch.ones(3, requires_grad=True), torch.ones(3)
    y, z = InIeee.apply(lambda x, _: (_Told.apply(x) * 2, x * 3), x, unused)
    y.sum().backward()
    assert _Told.told == ["ieee", "ieee"] and torch.backends.cudnn.rnn.fp32_precision == before
    assert torch.equal(x.grad, torch.full((3,), 2.0)) and z.requires_grad
    with pytest.raises(ZeroDivisionError), in_ieee():
        _ = 1 / 0
    assert torch.backends.cudnn.rnn.fp32_precision == before


@pytest.mark.filterwarnings("ignore:Please use the new API settings:UserWarning")  # says torch 2.9 of the first way
def test_torch_is_asked() -> None:
    """In both of its ways, which it does not let mix."""
    assert rounds_as_ieee()
    matmul = torch.backends.cuda.matmul
    try:
        torch.set_float32_matmul_precision("high")
        assert not rounds_as_ieee()
        torch.set_float32_matmul_precision("highest")
        for precision in ("tf32", "ieee"):
            matmul.fp32_precision = precision
            assert rounds_as_ieee() == (precision == "ieee")
    finally:
        matmul.fp32_precision = "none"


@pytest.mark.parametrize("make", [LSTMCell, GRUCell])
@pytest.mark.parametrize("last_only", [False, True])
def test_the_gradients_are_the_same(make: Any, last_only: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a GPU, where every kernel goes through it, and as without, bit for bit."""
    cell, x = make(3, 5), torch.randn(7, 2, 3, requires_grad=True)
    leaves = (x, *cell.parameters())
    found = []
    for wrapped in (False, True):
        with monkeypatch.context() as patch:
            if wrapped:
                patch.setattr(Tensor, "is_cuda", True)
            y, state = scan(cell, x, backend="torch", last_only=last_only)
        assert wrapped == ("InIeee" in str(state[-1].grad_fn.next_functions[0][0]))
        found.append((y, *state, *torch.autograd.grad(y.square().sum(), leaves)))
    assert all(map(torch.equal, *found))
