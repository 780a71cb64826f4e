"""What no backend takes is refused in the same sentence by all, before any address is read; the rest is taken."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from datamodules import Adding, UserError
from lit_rnn import cells
from lit_rnn.analysis import gradient_against_lag, step_jacobians
from lit_rnn.cells import Cell
from lit_rnn.models import VanillaRNN
from lit_rnn.scan import native, scan, supports
from lit_rnn.scan.native import Memory, packed

I, N, T, B = 2, 6, 5, 3  # noqa: E741
BACKENDS = ["loop", "fused", "native", "compiled", "torch"]
CELLS: dict[str, Callable[[], Cell]] = {
    "tanh": lambda: cells.VanillaRNNCell(I, N),
    "exprnn": lambda: cells.ExpRNNCell(I, N, learn_initial_state=True),
    "urnn": lambda: cells.URNNCell(I, N),
    "eurnn in layers": lambda: cells.EURNNCell(I, 40),
    "lstm": lambda: cells.LSTMCell(I, N),
    "lstm with output matrix": lambda: cells.LSTMCell(I, N, output_matrix=True),
    "peepholes": lambda: cells.LSTMCell(I, N, peepholes=True),
    "gru": lambda: cells.GRUCell(I, N),
    "gru before": lambda: cells.GRUCell(I, N, reset="before"),
    "goru": lambda: cells.GORUCell(I, 8),
    "janet": lambda: cells.JANETCell(I, N),
    "lipschitz": lambda: cells.LipschitzRNNCell(I, N),
    "layer norm": lambda: cells.LayerNormRNNCell(I, N),
    "statistical": lambda: cells.StatisticalRUCell(I, N, 4, 3),
    "nru": lambda: cells.NRUCell(I, N, 9),
}
each_cell = pytest.mark.parametrize("make", CELLS.values(), ids=CELLS.keys())


def each_cell_on(backends: list[str]) -> pytest.MarkDecorator:
    """Every cell on those of the backends that take it."""
    pairs = [
        pytest.param(make, backend, id=f"{backend}-{name}")
        for name, make in CELLS.items()
        for backend in backends
        if supports(backend, make())  # type: ignore[arg-type]
    ]
    return pytest.mark.parametrize(("make", "backend"), pairs)


each_backend_and_cell = each_cell_on(BACKENDS)
each_address_and_cell = each_cell_on(["loop", "fused", "native", "torch"])  # compiling takes long, and no addresses

# what is wrong with a state (B, n): (given the good one) the bad one
BAD_STATES: dict[str, Callable[[tuple[Tensor, ...]], Any]] = {
    "more rows": lambda s: tuple(torch.cat((p, p)) for p in s),
    "fewer rows": lambda s: tuple(p[:1] for p in s),
    "no rows": lambda s: tuple(p[:0] for p in s),
    "wider": lambda s: tuple(torch.cat((p, p), dim=1) for p in s),
    "narrower": lambda s: tuple(p[:, :-1] for p in s),
    "one dimension": lambda s: tuple(p[0] for p in s),
    "three dimensions": lambda s: tuple(p[None] for p in s),
    "no dimension": lambda s: tuple(p.sum() for p in s),
    "another precision": lambda s: tuple(p.to(torch.complex128 if p.is_complex() else torch.float64) for p in s),
    "half precision": lambda s: tuple(p.real.half() for p in s),
    "whole numbers": lambda s: tuple(p.real.long() for p in s),
    "real or complex": lambda s: tuple(p.real if p.is_complex() else p.to(torch.complex64) for p in s),
    "elsewhere": lambda s: tuple(p.to("meta") for p in s),
    "sparse": lambda s: tuple(p.to_sparse() for p in s),
    "one too many": lambda s: (*s, s[0]),
    "none": lambda s: (),
    "no tuple": lambda s: s[0],
    "no tensors": lambda s: tuple(p.tolist() for p in s),
    "Nones": lambda s: (None,) * len(s),
}
BAD_INPUTS: dict[str, Callable[[Tensor], Any]] = {
    "wider": lambda x: torch.cat((x, x), dim=2),
    "narrower": lambda x: x[..., :1],
    "two dimensions": lambda x: x[0],
    "four dimensions": lambda x: x[None],
    "no dimension": lambda x: x.sum(),
    "no steps": lambda x: x[:0],
    "another precision": lambda x: x.double(),
    "half precision": lambda x: x.half(),
    "whole numbers": lambda x: x.long(),
    "complex": lambda x: x.to(torch.complex64),
    "elsewhere": lambda x: x.to("meta"),
    "sparse": lambda x: x.to_sparse(),
    "a list": lambda x: x.tolist(),
}


def refusal(cell: Cell, x: Any, state: Any, backend: Any) -> str:
    with pytest.raises(UserError) as caught:
        scan(cell, x, state, backend)
    sentence = str(caught.value)
    assert ("\n" not in sentence and type(cell).__name__ in sentence) or "x is" in sentence
    return sentence


@each_cell
@pytest.mark.parametrize("bad", BAD_STATES.values(), ids=BAD_STATES.keys())
def test_a_state_that_does_not_fit(make: Callable[[], Cell], bad: Callable[[Any], Any]) -> None:
    cell, x = make(), torch.randn(T, B, I)
    state = bad(tuple(torch.randn_like(part) for part in cell.initial_state(B)))
    able = [backend for backend in BACKENDS if supports(backend, cell)]  # type: ignore[arg-type]
    assert len({refusal(cell, x, state, backend) for backend in able}) == 1


@each_cell
@pytest.mark.parametrize("bad", BAD_INPUTS.values(), ids=BAD_INPUTS.keys())
def test_inputs_that_do_not_fit(make: Callable[[], Cell], bad: Callable[[Tensor], Any]) -> None:
    cell, x = make(), bad(torch.randn(T, B, I))
    assert len({refusal(cell, x, None, backend) for backend in BACKENDS}) == 1


def test_the_sentence() -> None:
    cell = cells.VanillaRNNCell(2, 8)
    assert refusal(cell, torch.randn(10, 3, 2), (torch.randn(8, 8),), "native") == (
        "state[0] is float32 (8, 8) on cpu, but that of VanillaRNNCell must be float32 (3, 8) on cpu, dense, for a "
        "batch of 3."
    )


def test_a_model_and_its_states() -> None:
    model = VanillaRNN(Adding(length=10).task, 8, layers=2)
    _, states = model.run(torch.randn(8, 10, 2))
    for wrong in (states[:1], [], [*states, states[0]]):
        with pytest.raises(UserError, match="states is"):
            model.run(torch.randn(8, 10, 2), wrong)
    with pytest.raises(UserError, match=r"\(8, 8\).*\(3, 8\)"):
        model.run(torch.randn(3, 10, 2), states)
    model.run(torch.randn(8, 10, 2), states)


def in_other_memory(tensor: Tensor) -> list[Tensor]:
    """The same numbers, not contiguous, and with their sign only marked."""
    apart = torch.stack((tensor, tensor), dim=-1)[..., 0]
    return [apart, tensor.clone().mT.contiguous().mT, *([] if tensor.is_complex() else [torch._neg_view(-tensor)])]


@each_address_and_cell
def test_memory_of_any_kind_is_read_as_numbers(make: Callable[[], Cell], backend: Any) -> None:
    cell, x = make(), torch.randn(T, B, I)
    state = tuple(torch.randn_like(part) for part in cell.initial_state(B))
    expected = scan(cell, x, state, backend)
    for number, other in enumerate(in_other_memory(x)):
        states = [in_other_memory(part) for part in state]
        given = [parts[min(number, len(parts) - 1)] for parts in states]  # a list too
        y, final = scan(cell, other, given, backend)  # type: ignore[arg-type]
        torch.testing.assert_close((y, final), expected)
    alike = tuple(part[:1].expand_as(part) for part in state)  # without a stride
    torch.testing.assert_close(
        scan(cell, x, alike, backend), scan(cell, x, tuple(part.clone() for part in alike), backend)
    )


@each_address_and_cell
def test_gradients_that_come_in_any_memory(make: Callable[[], Cell], backend: Any) -> None:
    cell, x = make().double(), torch.randn(T, B, I, dtype=torch.float64)
    y, _ = scan(cell, x, backend=backend)
    by = torch.randn_like(y)
    parameters = list(cell.parameters())

    def gradients(by: Tensor) -> tuple[Tensor, ...]:
        return torch.autograd.grad(y, parameters, by, retain_graph=True, materialize_grads=True)

    expected = gradients(by)
    for other in in_other_memory(by):
        torch.testing.assert_close(gradients(other), expected)
    constant = torch.full((), 0.5, dtype=torch.float64).expand_as(y)
    torch.testing.assert_close(gradients(constant), gradients(constant.clone()))


@each_backend_and_cell
@pytest.mark.parametrize("last_only", [False, True])
def test_a_batch_of_none(make: Callable[[], Cell], backend: Any, last_only: bool) -> None:
    cell, x = make(), torch.randn(12, 0, I, requires_grad=True)
    state = cell.initial_state(0)
    for every in (None, 2):
        y, final = scan(cell, x, None, backend, last_only=last_only, checkpoint_every=every)
        assert y.shape == (1 if last_only else 12, 0, cell.output_size)
        assert [(part.shape, part.dtype) for part in final] == [(part.shape, part.dtype) for part in state]
        found = torch.autograd.grad(y.sum(), [x, *cell.parameters()], materialize_grads=True)
        assert not any(gradient.any() for gradient in found)
    with torch.no_grad():
        scan(cell, x, None, backend)


# ---- cells that are not what they were, or never were


@pytest.mark.parametrize(
    ("start", "given"),
    [
        (lambda batch_size: torch.zeros(batch_size, N), rf"a tensor \(\d, {N}\)"),
        (lambda batch_size: None, "NoneType"),
        (lambda batch_size: (), r"\(\)"),
        (lambda batch_size: (None,), r"\(NoneType,\)"),
        (lambda batch_size: (torch.zeros(N),), rf"\(\({N},\),\)"),
        (lambda batch_size: (torch.tensor(0.0),), r"\(\(\),\)"),
    ],
)
def test_a_start_that_is_no_state(start: Callable[[int], Any], given: str) -> None:
    """It was step that was blamed, or torch's own error."""

    class Wrong(cells.VanillaRNNCell):
        def initial_state(self, batch_size: int) -> Any:
            return start(batch_size)

    cell, x = Wrong(I, N), torch.randn(T, B, I)
    calls: list[Callable[[], Any]] = [lambda backend=backend: scan(cell, x, None, backend) for backend in BACKENDS]
    calls += [lambda: step_jacobians(cell, x), lambda: gradient_against_lag(cell, x, Tensor.sum)]
    for call in calls:
        with pytest.raises(UserError, match=rf"^Wrong\.initial_state returns {given}, but it must return a tuple of"):
            call()


class Changed(nn.Module):
    """Gives what it is told to."""

    def __init__(self, W: Tensor) -> None:
        super().__init__()
        self.W = W

    def forward(self) -> Tensor:
        return self.W


def broken(name: str, cell: Cell, change: Callable[[Cell], None]) -> Any:
    changed = copy.deepcopy(cell)
    change(changed)
    return pytest.param(changed, id=name)


def _wide_recurrent(cell: Any) -> None:
    cell.recurrent = nn.Linear(N + 1, cell.recurrent.out_features, bias=False)


def _tall_recurrent(cell: Any) -> None:
    cell.recurrent = nn.Linear(N, cell.recurrent.out_features + 20, bias=False)


def _resized(cell: Any) -> None:
    cell.recurrent.weight.data = torch.randn(2, 2)


def _other_input(cell: Any) -> None:
    cell.input = nn.Linear(I, cell.input.out_features - 1)


def _hidden(cell: Any) -> None:
    cell.hidden_size = 40


def _short_bias(cell: Any) -> None:
    cell.activation.bias = nn.Parameter(torch.randn(2))


def _no_bias(cell: Any) -> None:
    cell.activation.bias = None


def _elsewhere(cell: Any) -> None:
    cell.recurrent = cell.recurrent.to("meta")


def _half(cell: Any) -> None:
    cell.recurrent = cell.recurrent.half()


def _gives(W: Tensor) -> Callable[[Any], None]:
    def change(cell: Any) -> None:
        cell.recurrent = Changed(W)

    return change


def _partner(value: int) -> Callable[[Any], None]:
    def change(cell: Any) -> None:
        cell.recurrent.partners[0, 0] = value

    return change


def _fewer_partners(cell: Any) -> None:
    cell.recurrent.partners = cell.recurrent.partners[:, :-1]


def _peephole(cell: Any) -> None:
    cell.peephole = nn.Parameter(torch.randn(1, N))


def _no_affine(cell: Any) -> None:
    cell.norm = nn.LayerNorm(N, elementwise_affine=False)


def _summary(cell: Any) -> None:
    cell.summary = nn.Linear(cell.summary.in_features, 30)


def _double_summary(cell: Any) -> None:
    cell.summary = cell.summary.double()


vanilla, lstm, gru = cells.VanillaRNNCell(I, N), cells.LSTMCell(I, N), cells.GRUCell(I, N)
BROKEN = [
    *(
        broken(f"{name} {change.__name__}", cell, change)
        for name, cell in (("tanh", vanilla), ("lstm", lstm), ("gru", gru), ("janet", cells.JANETCell(I, N)))
        for change in (_wide_recurrent, _tall_recurrent, _resized, _other_input, _elsewhere, _half)
    ),
    *(broken(f"{name} hidden", cell, _hidden) for name, cell in (("lstm", lstm), ("gru", gru))),
    *(
        broken(f"exprnn gives {tuple(W.shape)} {W.dtype}", cells.ExpRNNCell(I, N), _gives(W))
        for W in (torch.randn(N), torch.randn(N, N + 1), torch.randn(N, N, 1), torch.randn(9, 9), torch.randn(0, 0))
    ),
    *(
        broken(f"exprnn gives {W.dtype}", cells.ExpRNNCell(I, N), _gives(W))
        for W in (torch.randn(N, N).half(), torch.randn(N, N, dtype=torch.complex64), torch.ones(N, N).long())
    ),
    *(
        broken(f"urnn gives {tuple(W.shape)} {W.dtype}", cells.URNNCell(I, N), _gives(W))
        for W in (torch.randn(N, N), torch.randn(N, N + 1, dtype=torch.complex64), torch.eye(9, dtype=torch.complex64))
    ),
    broken("exprnn short bias", cells.ExpRNNCell(I, N), _short_bias),
    broken("urnn short bias", cells.URNNCell(I, N), _short_bias),
    broken("exprnn no bias", cells.ExpRNNCell(I, N), _no_bias),
    broken("urnn no bias", cells.URNNCell(I, N), _no_bias),
    broken("goru short bias", cells.GORUCell(I, 8), _short_bias),
    *(broken(f"partner {value}", cells.EURNNCell(I, 40), _partner(value)) for value in (40, -1, 2**31 - 1)),
    broken("fewer partners", cells.EURNNCell(I, 40), _fewer_partners),
    broken("peephole", cells.LSTMCell(I, N, peepholes=True), _peephole),
    broken("no affine", cells.LayerNormRNNCell(I, N), _no_affine),
    broken("summary", cells.StatisticalRUCell(I, N, 4, 3), _summary),
    broken("double summary", cells.StatisticalRUCell(I, N, 4, 3), _double_summary),
]


@pytest.mark.parametrize("cell", BROKEN)
@pytest.mark.parametrize("backend", ["native", "torch"])
def test_weights_that_are_not_the_cells(cell: Cell, backend: Any) -> None:
    """C++ is given nothing that it would read or write the end of; which sentence says so depends on who looks."""
    if not supports(backend, cell) or (backend == "torch" and cell.hidden_size == 40):  # which torch does not read
        return
    x = torch.randn(T, B, I, requires_grad=True)
    with pytest.raises((UserError, RuntimeError, AttributeError, TypeError, IndexError)):
        y, _ = scan(cell, x, backend=backend)
        y.sum().backward()


@pytest.mark.parametrize("make", [cells.VanillaRNNCell, cells.LSTMCell, cells.JANETCell])
@pytest.mark.parametrize("size", [1, 40])
def test_weights_replaced_between_forward_and_backward(make: Any, size: int) -> None:
    cell = make(I, N)
    y, _ = scan(cell, torch.randn(T, B, I), backend="native")
    cell.recurrent.weight.data = torch.randn(size, size)
    with pytest.raises((UserError, RuntimeError)):
        y.sum().backward()


@pytest.mark.parametrize("make", [cells.VanillaRNNCell, cells.LSTMCell, cells.ExpRNNCell])
def test_the_recurrent_weights_alone_in_float64(make: Any) -> None:
    """Moved half way: the recurrence runs in the precision of W."""
    cell, x = make(I, N), torch.randn(T, B, I)
    cell.recurrent.double()
    y, _ = scan(cell, x, backend="native")
    torch.testing.assert_close(y.float(), scan(copy.deepcopy(cell).float(), x, backend="loop")[0])
    assert all(g.isfinite().all() for g in torch.autograd.grad(y.sum(), list(cell.parameters())))


def test_another_number_of_threads_before_the_backward() -> None:
    cell, x = cells.ExpRNNCell(I, N), torch.randn(T, 8, I)
    expected = torch.autograd.grad(scan(cell, x, backend="native")[0].sum(), list(cell.parameters()))
    y, _ = scan(cell, x, backend="native")
    try:
        torch.set_num_threads(2)
        found = torch.autograd.grad(y.sum(), list(cell.parameters()))
    finally:
        torch.set_num_threads(1)
    torch.testing.assert_close(found, expected)


def test_a_saved_tensor_that_comes_back_as_another() -> None:
    cell, x = cells.VanillaRNNCell(I, N), torch.randn(T, B, I)
    for unpack in (lambda t: t.half(), lambda t: t[..., :1], lambda t: t[:0]):
        with torch.autograd.graph.saved_tensors_hooks(lambda t: t, unpack):
            y, _ = scan(cell, x, backend="native")
        with pytest.raises((UserError, RuntimeError, ValueError)):
            y.sum().backward()


@pytest.mark.parametrize(
    "tensor",
    [
        torch.zeros(3, 4),
        torch.zeros(4, 3, dtype=torch.float64),
        torch.zeros(4, 3, device="meta"),
        torch.zeros(3, 4).mT,
        torch.zeros(1, 3).expand(4, 3),
        torch._neg_view(torch.zeros(4, 3)),
        torch.zeros(4, 3).to_sparse(),
        None,
        4.0,
    ],
    ids=["shape", "type", "place", "strides", "no stride", "negated", "sparse", "none", "no tensor"],
)
def test_no_address_of_what_it_is_not(tensor: Any) -> None:
    with pytest.raises(UserError, match="The drive"):
        Memory("The drive", tensor, (4, 3)).address(torch.float32)
    assert Memory("The drive", torch.zeros(4, 3), (4, 3)).address(torch.float32).value


def test_rows_that_may_lie_apart_are_each_in_one_piece() -> None:
    wide = torch.zeros(4, 5)
    address = Memory("h", wide[:, 1:4], (4, 3), apart=True).address(torch.float32)
    assert address.value == wide.data_ptr() + 4
    for tensor in (torch.zeros(3, 4).mT, wide[:, ::2], torch._neg_view(torch.zeros(4, 3)), wide[:, :3].double().half()):
        with pytest.raises(UserError, match="h"):
            Memory("h", tensor, (4, 3), apart=True).address(torch.float32)
    with pytest.raises(UserError, match="contiguous"):
        Memory("h", wide[:, 1:4], (4, 3)).address(torch.float32)


@pytest.mark.skipif(native.library("plain") is None, reason="no C++ compiler on this machine")
def test_packing_takes_no_other_matrix() -> None:
    for M in (torch.zeros(3, 4), torch.zeros(4, 3).half(), torch.zeros(4, 3, device="meta"), torch.zeros(12)):
        with pytest.raises(UserError):
            packed("plain", M, (4, 3))
    M = torch.randn(4, 3)
    torch.testing.assert_close(packed("plain", torch._neg_view(-M), (4, 3)), packed("plain", M, (4, 3)))


def test_all_that_takes_an_address_checks_it() -> None:
    """The only two places that hand one on: `Memory.address` and `packed`; graphed.py compares them."""
    files = Path(native.__file__).parent.glob("*.py")
    assert {path.name: path.read_text().count("data_ptr") for path in files if "data_ptr" in path.read_text()} == {
        "native.py": 3,
        "graphed.py": 2,
    }
