"""Backend native gives what the loop gives for every cell beyond the plain recurrence: outputs, states, gradients."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from datamodules import UserError
from lit_rnn import cells
from lit_rnn.activations import NONLINEARITIES
from lit_rnn.cells import Cell
from lit_rnn.scan import choose_backend, scan, supports

I = 3  # noqa: E741
Make = Callable[[int], Cell]

GATED: dict[str, Make] = {
    "janet": lambda n: cells.JANETCell(I, n),
    "janet beta 0": lambda n: cells.JANETCell(I, n, beta=0.0),
    "lstm": lambda n: cells.LSTMCell(I, n),
    "lstm peepholes": lambda n: cells.LSTMCell(I, n, peepholes=True),
    "lstm output matrix": lambda n: cells.LSTMCell(I, n, output_matrix=True),
    "gru": lambda n: cells.GRUCell(I, n),
    "gru before": lambda n: cells.GRUCell(I, n, reset="before"),
    "goru": lambda n: cells.GORUCell(I, n + n % 2, layout="tunable"),
    "lipschitz": lambda n: cells.LipschitzRNNCell(I, n),
    "antisymmetric": lambda n: cells.AntisymmetricRNNCell(I, n),
    **{f"layer norm {f}": lambda n, f=f: cells.LayerNormRNNCell(I, n, f) for f in NONLINEARITIES},  # type: ignore[misc]
    "statistical": lambda n: cells.StatisticalRUCell(I, n, n + 2, 7),
    "nru": lambda n: cells.NRUCell(I, n, 64, 4),
    "nru paper": lambda n: cells.NRUCell(I, n, 25, 3, form="paper"),
    "slstm": lambda n: cells.SLSTMCell(I, n),
    "lem": lambda n: cells.LEMCell(I, n, 0.7),
    "cornn": lambda n: cells.CoRNNCell(I, n),
    "unicornn": lambda n: cells.UnICORNNCell(I, n),
    "lru": lambda n: cells.LRUCell(I, n, n + 1),
    "linoss": lambda n: cells.LinOSSCell(I, n, n + 1, glu=False),
    "mingru": lambda n: cells.MinGRUCell(I, n),
    "minlstm": lambda n: cells.MinLSTMCell(I, n, positive=False),
    "deltaproduct": lambda n: cells.DeltaProductCell(I, 2 * min(n, 37), 3, 2, key_size=min(n, 37) + 3),
    "deltaproduct positive": lambda n: cells.DeltaProductCell(I, min(n, 37), 1, negative=False),
}
EVERY = pytest.mark.parametrize("make", GATED.values(), ids=GATED.keys())

pytestmark = pytest.mark.skipif(not supports("native", cells.JANETCell(1, 1)), reason="no C++ compiler on this machine")


def drawn(make: Make, n: int, dtype: torch.dtype = torch.float64) -> Cell:
    """The cell with every parameter away from special values: biases at zero, gains at one."""
    cell = make(n).to(dtype)
    for parameter in cell.parameters():
        if parameter.dim() == 1:
            nn.init.uniform_(parameter, -0.5, 0.7)
    return cell


def random_state(cell: Cell, batch: int) -> tuple[Tensor, ...]:
    """The normaliser of sLSTM is positive: near zero, outputs are as large as one likes."""
    parts = (torch.randn_like(part).detach() for part in cell.initial_state(batch))
    return tuple((part.abs() if isinstance(cell, cells.SLSTMCell) else part).requires_grad_() for part in parts)


@contextlib.contextmanager
def threads(count: int) -> Iterator[None]:
    torch.set_num_threads(count)
    yield
    torch.set_num_threads(1)


def results(cell: Cell, x: Tensor, state: Any, backend: Any, last_only: bool = False) -> list[Tensor]:
    """Outputs, final state and gradients by parameters, inputs and initial state, of a loss that weighs all outputs."""
    leaves = [p for p in cell.parameters() if p.requires_grad] + [x] + list(state or ())
    y, final = scan(cell, x, state, backend, last_only=last_only)
    weigh = torch.randn(y.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64).to(y.dtype)
    loss = (y * weigh).sum() + sum((s**2).sum() for s in final)
    gradients = torch.autograd.grad(loss, leaves, allow_unused=True)
    return [y, *final, *(torch.zeros(()) if g is None else g for g in gradients)]


def assert_alike(cell: Cell, x: Tensor, state: Any, count: int = 1, **options: Any) -> None:
    """Native on ``count`` threads is the loop, entry by entry, to 1e-10 of the largest."""
    with threads(count):
        native = results(cell, x, state, "native", **options)
    for found, expected in zip(native, results(cell, x, state, "loop", **options), strict=True):
        size = max(1.0, expected.abs().max().item())
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-10 * size)


@EVERY
@pytest.mark.parametrize("n", [5, 37, 100])
@pytest.mark.parametrize("count", [1, 2])
def test_native_is_the_loop_in_float64(make: Make, n: int, count: int) -> None:
    for T, B in ((1, 1), (1, 19), (2, 3), (9, 1), (9, 19)):
        torch.manual_seed(T + 7 * B)
        cell = drawn(make, n)
        x = torch.randn(T, B, I, dtype=torch.float64, requires_grad=True)
        assert_alike(cell, x, random_state(cell, B), count)


@EVERY
@pytest.mark.parametrize("T", [1, 4])
def test_the_last_output_alone(make: Make, T: int) -> None:
    cell = drawn(make, 9)
    x = torch.randn(T, 3, I, dtype=torch.float64, requires_grad=True)
    assert_alike(cell, x, None, last_only=True)
    assert scan(cell, x, backend="native", last_only=True)[0].shape == (1, 3, cell.output_size)


@EVERY
def test_part_of_what_is_returned(make: Make) -> None:
    """A loss of the outputs alone, or of the last part of the final state alone."""
    cell = drawn(make, 6)
    x = torch.randn(5, 2, I, dtype=torch.float64, requires_grad=True)
    for pick in (lambda y, final: y[2].sum(), lambda y, final: final[-1].sum()):
        found, expected = (
            torch.autograd.grad(pick(*scan(cell, x, backend=b)), x)[0]  # type: ignore[arg-type,no-untyped-call]
            for b in ("native", "loop")
        )
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-10)


def test_a_learned_start() -> None:
    learned = {"learn_initial_state": True}
    for cell in (
        cells.JANETCell(I, 6, **learned),  # type: ignore[arg-type]
        cells.LSTMCell(I, 6, peepholes=True, **learned),  # type: ignore[arg-type]
        cells.NRUCell(I, 6, 16, **learned),  # type: ignore[arg-type]
        cells.StatisticalRUCell(I, 6, 4, 3, **learned),  # type: ignore[arg-type]
        cells.GRUCell(I, 6, reset="before", **learned),  # type: ignore[arg-type]
    ):
        x = torch.randn(4, 3, I, dtype=torch.float64, requires_grad=True)
        for start in cell.double().initial:
            nn.init.normal_(start)
        assert_alike(cell, x, None)


@EVERY
def test_native_rounds_as_the_loop_does_in_float32(make: Make) -> None:
    cell = drawn(make, 21, torch.float32)
    x = torch.randn(40, 2, I, requires_grad=True)
    exact = results(copy.deepcopy(cell).double(), x.detach().double().requires_grad_(), None, "loop")
    native, loop = results(cell, x, None, "native"), results(cell, x, None, "loop")
    for truth, a, b in zip(exact, native, loop, strict=True):
        size = truth.abs().max() + 1e-12
        assert (a.double() - truth).abs().max() / size <= 3 * (b.double() - truth).abs().max() / size + 1e-6


@EVERY
def test_without_gradients_and_copied(make: Make) -> None:
    cell = drawn(make, 7, torch.float32)
    x = torch.randn(5, 2, I)
    with torch.no_grad():
        expected = scan(cell, x, backend="loop")[0]
        torch.testing.assert_close(scan(copy.deepcopy(cell), x, backend="native")[0], expected, rtol=1e-5, atol=1e-5)
    with torch.inference_mode():
        torch.testing.assert_close(scan(cell, x, backend="native")[0], expected, rtol=1e-5, atol=1e-5)
    frozen = copy.deepcopy(cell).requires_grad_(False)
    assert not scan(frozen, x, backend="native")[0].requires_grad


@EVERY
def test_a_nan_stays_in_its_row(make: Make) -> None:
    cell = drawn(make, 19)
    x = torch.randn(4, 3, I, dtype=torch.float64)
    x[1, 1] = torch.nan
    y, final = scan(cell, x, backend="native")
    assert y[:, [0, 2]].isfinite().all() and y[0].isfinite().all()
    assert y[1:, 1].isnan().all() and all(part[1].isnan().any() for part in final)


@EVERY
def test_saturated_gates(make: Make) -> None:
    """Pre-activations of a thousand: as the loop, and finite."""
    cell = drawn(make, 10)
    x = (1000 * torch.randn(3, 4, I, dtype=torch.float64)).requires_grad_()
    assert_alike(cell, x, None)


def test_a_zero_memory_of_the_nru() -> None:
    """A part of norm zero gives zero, with gradient zero."""
    cell = cells.NRUCell(I, 6, 16).double()
    with torch.no_grad():
        cell.write.weight[:4] = 0
        cell.write.bias[:4] = 0
    assert_alike(cell, torch.randn(3, 2, I, dtype=torch.float64, requires_grad=True), None)


@pytest.mark.parametrize(
    ("n", "m", "by_m", "by_i"),
    [(0.5, 0.25, 0.5, 0.5), (0.5, 0.5, 1.0, 0.0), (0.5, 0.125, 0.0, 1.0), (0.0, 5.0, 0.0, 1.0)],
    ids=["tie", "kept", "new", "nothing remembered"],
)
def test_what_wins_the_stabiliser_of_slstm(n: float, m: float, by_m: float, by_i: float) -> None:
    """m' = max(log sigma(f) + m, i) with f = 800, i = 0.25, shared where both are equal, and i where n = 0."""
    cell = cells.SLSTMCell(I, 4).double()
    with torch.no_grad():
        cell.input.weight.zero_()
        cell.input.bias.copy_(torch.tensor([0.25, 800.0, 0.5, -0.25]).double().repeat_interleave(4))
    x = torch.randn(2, 3, I, dtype=torch.float64, requires_grad=True)
    state = tuple(torch.full((3, 4), v, dtype=torch.float64, requires_grad=True) for v in (0.1, 2.0, n, m))
    assert_alike(cell, x, state)
    final = scan(cell, x[:1], state, "native")[1]
    by_state, by_bias = torch.autograd.grad(final[3].sum(), (state[3], cell.input.bias))
    assert by_state.eq(by_m).all() and by_bias[:4].eq(3 * by_i).all()


@pytest.mark.parametrize("make", [cells.MinGRUCell, cells.MinLSTMCell])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_gates_that_are_shut_for_good(make: Callable[..., Cell], dtype: torch.dtype) -> None:
    """minGRU and minLSTM where a sigmoid is no number: f / (f + i) stays what it is, and no gradient becomes a NaN."""
    cell = make(I, I).to(dtype)
    gates = len(cell.input_matrices())
    with torch.no_grad():
        cell.input.weight.copy_(torch.eye(I, dtype=dtype).repeat(gates, 1))
        cell.input.bias[I:] = torch.randn(len(cell.input.bias) - I)
    far = 80.0 if dtype == torch.float32 else 600.0
    x = torch.tensor([[far, -far, 0.0], [-far, far, -3.0], [2 * far, -2 * far, 3.0]], dtype=dtype)[:, None]
    native, loop = (results(cell, x.clone().requires_grad_(), None, backend) for backend in ("native", "loop"))
    for found, expected in zip(native, loop, strict=True):
        assert found.isfinite().all()
        size = max(1.0, expected.abs().max().item())
        torch.testing.assert_close(found, expected, rtol=0, atol=(1e-6 if dtype == torch.float32 else 1e-10) * size)


def test_another_step_or_output_is_another_cell() -> None:
    class Shifted(cells.LRUCell):
        def terms(self, u: Tensor, w: Any) -> tuple[Tensor, Tensor]:
            A, b = super().terms(u, w)
            return A, b + 1

    class Doubled(cells.MinGRUCell):
        def drive(self, x: Tensor, w: Any) -> Tensor:
            return 2 * super().drive(x, w)

    for cell in (Shifted(I, 4), Doubled(I, 4)):
        assert not supports("native", cell) and choose_backend("auto", cell) == "parallel"


def test_recomputed_chunks() -> None:
    cell = drawn(GATED["lstm peepholes"], 6)
    x = torch.randn(7, 2, I, dtype=torch.float64, requires_grad=True)
    found, expected = (
        torch.autograd.grad(scan(cell, x, backend="native", checkpoint_every=every)[0].square().sum(), x)[0]
        for every in (3, None)
    )
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("kind", ["janet", "statistical", "nru", "nru paper", "goru"])
def test_under_autocast_the_states_stay_precise(kind: str) -> None:
    cell = drawn(GATED[kind], 6, torch.float32)
    x = torch.randn(8, 2, I)
    exact = scan(cell, x, backend="loop")[1]
    with torch.autocast("cpu", torch.bfloat16):
        y, final = scan(cell, x, backend="native")
        y.sum().backward()
    for found, expected in zip(final, exact, strict=True):
        assert found.dtype == torch.float32
        torch.testing.assert_close(found, expected, rtol=0.05, atol=0.1)  # the inputs' product ran in bfloat16
    assert all(p.grad is None or p.grad.isfinite().all() for p in cell.parameters())


def test_choices() -> None:
    for name, make in GATED.items():
        assert supports("native", make(6)), name
        assert choose_backend("auto", make(6).double()) == "native", name
    assert not supports("native", make(6).bfloat16())
    others = [
        cells.NRUCell(I, 6, 16, layer_norm=True),
        cells.NRUCell(I, 6, 16, use_relu=True),
        cells.NRUCell(I, 6, 9, 4),  # a row of M is no whole number of rows of its outer product
    ]
    for cell in others:
        assert not supports("native", cell)
        with pytest.raises(UserError, match="NRUCell"):
            choose_backend("native", cell)


def test_differentiating_twice_is_the_loops_alone() -> None:
    cell = drawn(GATED["janet"], 4)
    x = torch.randn(3, 1, I, dtype=torch.float64, requires_grad=True)
    with pytest.raises(UserError, match="backend to loop"):
        torch.autograd.grad(scan(cell, x, backend="native")[0].sum(), x, create_graph=True)
