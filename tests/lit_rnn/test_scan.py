"""Every backend gives what the loop gives: outputs, final state, and every gradient."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from datamodules import CopyMemory, UserError
from lit_rnn import cells
from lit_rnn.cells import Cell
from lit_rnn.init import gaussian_
from lit_rnn.models import ExpRNN
from lit_rnn.scan import choose_backend, scan, supports

I, N = 3, 6  # noqa: E741
vanilla = functools.partial(cells.VanillaRNNCell, I, N, init=gaussian_)

PLAIN: dict[str, Callable[[], Cell]] = {
    "tanh": lambda: vanilla("tanh"),
    "relu": lambda: vanilla("relu"),
    "elu": lambda: vanilla("elu"),
    "identity": lambda: vanilla("identity"),
    "exprnn": lambda: cells.ExpRNNCell(I, N),
    "exprnn learned start": lambda: cells.ExpRNNCell(I, N, learn_initial_state=True),
    "scornn": lambda: cells.ScoRNNCell(I, N),
    "nnrnn": lambda: cells.NnRNNCell(I, N),
    "householder": lambda: cells.HouseholderRNNCell(I, N),
    "real eurnn": lambda: cells.RealEURNNCell(I, N),
    "unitary exprnn": lambda: cells.UnitaryExpRNNCell(I, N),
    "scurnn": lambda: cells.ScuRNNCell(I, N),
    "urnn": lambda: cells.URNNCell(I, N),
    "full urnn": lambda: cells.FullURNNCell(I, N),
    "eurnn": lambda: cells.EURNNCell(I, N),
}
OTHERS: dict[str, Callable[[], Cell]] = {
    "lstm": lambda: cells.LSTMCell(I, N),
    "gru": lambda: cells.GRUCell(I, N),
    "goru": lambda: cells.GORUCell(I, 8),
    "janet": lambda: cells.JANETCell(I, N),
    "nru": lambda: cells.NRUCell(I, N, 9),
    "statistical": lambda: cells.StatisticalRUCell(I, N, 4, 3),
    "layer norm": lambda: cells.LayerNormRNNCell(I, N),
}


def results(cell: Cell, x: Tensor, state: tuple[Tensor, ...] | None, backend: Any, grad: bool = True) -> list[Tensor]:
    """Outputs, final state and gradients by parameters, inputs and initial state, of a loss that weighs all outputs."""
    leaves = [p for p in cell.parameters() if p.requires_grad] + [x] + list(state or ())
    y, final = scan(cell, x, state, backend)
    generator = torch.Generator().manual_seed(0)
    weigh = torch.randn(y.shape, generator=generator, dtype=torch.float64).to(y.dtype)
    loss = (y * weigh).sum() + sum((s.abs() ** 2).sum() for s in final)
    gradients = torch.autograd.grad(loss, leaves, allow_unused=True) if grad else ()
    return [y, *final, *(torch.zeros(()) if g is None else g for g in gradients)]


@pytest.mark.parametrize("make", PLAIN.values(), ids=PLAIN.keys())
@pytest.mark.parametrize(("T", "B"), [(1, 1), (1, 3), (2, 3), (9, 3)])
@pytest.mark.parametrize("given", [False, True], ids=["own start", "given start"])
def test_fused_is_the_loop_in_float64(make: Callable[[], Cell], T: int, B: int, given: bool) -> None:
    torch.manual_seed(T + 7 * B)
    cell = make().double()
    for name, parameter in cell.named_parameters():
        if name.endswith("activation.bias"):  # thresholds on both sides of zero, and dead units
            nn.init.uniform_(parameter, -0.5, 0.3)
    x = torch.randn(T, B, I, dtype=torch.float64, requires_grad=True)
    state = None
    if given:
        (like,) = cell.initial_state(B)
        state = (torch.randn_like(like).detach().requires_grad_(),)
    for found, expected in zip(results(cell, x, state, "fused"), results(cell, x, state, "loop"), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("make", PLAIN.values(), ids=PLAIN.keys())
def test_fused_rounds_as_the_loop_does_in_float32(make: Callable[[], Cell]) -> None:
    """Both are as far from float64 as one another."""
    torch.manual_seed(1)
    cell = make()
    x = torch.randn(40, 2, I, requires_grad=True)
    exact = results(copy.deepcopy(cell).double(), x.detach().double().requires_grad_(), None, "loop")
    fused, loop = results(cell, x, None, "fused"), results(cell, x, None, "loop")
    for truth, a, b in zip(exact, fused, loop, strict=True):
        size = truth.abs().max() + 1e-12
        wide = truth.dtype
        assert (a.to(wide) - truth).abs().max() / size <= 3 * (b.to(wide) - truth).abs().max() / size + 1e-5


@pytest.mark.parametrize("kind", ["tanh", "relu", "elu", "identity", "exprnn", "urnn"])
def test_gradcheck(kind: str) -> None:
    torch.manual_seed(2)
    cell = PLAIN[kind]().double()
    x = torch.randn(4, 2, I, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: scan(cell, x, backend="fused")[0], x)


def test_modrelu_at_zero() -> None:
    """Zero in, zero out, whatever the bias; no NaN."""
    for make in (PLAIN["exprnn"], PLAIN["urnn"]):
        for bias in (-0.3, 0.0, 0.3):
            cell = make().double()
            nn.init.constant_(cell.get_parameter("activation.bias"), bias)
            (like,) = cell.initial_state(2)
            state = (torch.zeros_like(like).detach().requires_grad_(),)
            x = torch.zeros(3, 2, I, dtype=torch.float64, requires_grad=True)
            for a, b in zip(results(cell, x, state, "fused"), results(cell, x, state, "loop"), strict=True):
                torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)
                assert a.isfinite().all() if not a.is_complex() else torch.view_as_real(a).isfinite().all()


@pytest.mark.parametrize("make", PLAIN.values(), ids=PLAIN.keys())
def test_without_gradients_and_copied(make: Callable[[], Cell]) -> None:
    cell = make()
    x = torch.randn(5, 2, I)
    with torch.no_grad():
        expected = scan(cell, x, backend="loop")[0]
        torch.testing.assert_close(scan(copy.deepcopy(cell), x, backend="fused")[0], expected, rtol=1e-5, atol=1e-6)
    with torch.inference_mode():
        torch.testing.assert_close(scan(cell, x, backend="fused")[0], expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", ["relu", "exprnn", "scurnn"])
def test_under_autocast_the_states_stay_precise(kind: str) -> None:
    cell = PLAIN[kind]()
    x = torch.randn(8, 2, I)
    exact = scan(cell, x, backend="loop")[0]
    with torch.autocast("cpu", torch.bfloat16):
        found = scan(cell, x, backend="fused")[0]
        found.sum().backward()
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, exact, rtol=0.05, atol=0.05)  # the inputs' product ran in bfloat16
    assert all(p.grad is not None and p.grad.isfinite().all() for p in cell.parameters() if p.requires_grad)


@pytest.mark.parametrize("make", OTHERS.values(), ids=OTHERS.keys())
def test_what_is_not_plain_is_refused(make: Callable[[], Cell]) -> None:
    cell = make()
    assert choose_backend("auto", cell) in ("loop", "native", "torch")
    with pytest.raises(UserError, match=type(cell).__name__):
        choose_backend("fused", cell)


def test_choices() -> None:
    cell = PLAIN["exprnn"]()
    best = "native" if supports("native", cell) else "fused"
    assert [choose_backend(asked, cell) for asked in ("auto", "fused", "loop")] == [best, "fused", "loop"]
    assert choose_backend("auto", OTHERS["lstm"]()) == "torch"
    slow = cells.NRUCell(I, N, 9, use_relu=True)
    few, many = (choose_backend("auto", slow, expected_steps=steps) for steps in (1_000, 10**6))
    assert (few, many) == ("loop", "compiled")
    with pytest.raises(UserError, match="backend"):
        choose_backend("nativ", cell)  # type: ignore[arg-type]


def test_differentiating_twice_is_the_loops_alone() -> None:
    cell = PLAIN["tanh"]().double()
    x = torch.randn(3, 1, I, dtype=torch.float64, requires_grad=True)
    (first,) = torch.autograd.grad(scan(cell, x, backend="loop")[0].sum(), x, create_graph=True)
    torch.autograd.grad(first.sum(), x)
    with pytest.raises(UserError, match="backend to loop"):
        torch.autograd.grad(scan(cell, x, backend="fused")[0].sum(), x, create_graph=True)


def test_two_layers_train_alike() -> None:
    """Thirty steps of a model, by backend."""
    losses = {}
    inputs, targets = CopyMemory(delay=5, seed=0).split("train")[torch.arange(8).numpy()]
    for backend in ("loop", "fused"):
        torch.manual_seed(0)
        model = ExpRNN(CopyMemory(delay=5).task, 12, layers=2, backend=backend).double()  # type: ignore[arg-type]
        optimizer = model.configure_optimizers()
        course = []
        for _ in range(30):
            optimizer.zero_grad()
            loss = model.loss_of(model(inputs), targets)
            loss.backward()
            optimizer.step()
            course.append(loss.item())
        losses[backend] = course
    assert losses["fused"] == pytest.approx(losses["loop"], rel=1e-9) and losses["loop"][-1] < losses["loop"][0]
