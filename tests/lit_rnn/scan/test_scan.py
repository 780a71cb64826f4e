"""Every backend gives what the loop gives: outputs, final state, and every gradient."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from datamodules import CopyMemory, Denoise, UserError
from lit_rnn import cells
from lit_rnn.cells import Cell
from lit_rnn.init import gaussian_
from lit_rnn.models import GRU, ExpRNN
from lit_rnn.scan import choose_backend, compiled, rotations, scan, supports

I, N = 3, 6  # noqa: E741
vanilla = functools.partial(cells.VanillaRNNCell, I, N, init=gaussian_)

PLAIN: dict[str, Callable[[], Cell]] = {
    "tanh": lambda: vanilla("tanh"),
    "relu": lambda: vanilla("relu"),
    "leaky relu": lambda: vanilla("leaky_relu"),
    "elu": lambda: vanilla("elu"),
    "identity": lambda: vanilla("identity"),
    "modrelu": lambda: vanilla("modrelu"),
    "exprnn": lambda: cells.ExpRNNCell(I, N),
    "exprnn learned start": lambda: cells.ExpRNNCell(I, N, learn_initial_state=True),
    "scornn": lambda: cells.ScoRNNCell(I, N),
    "nnrnn": lambda: cells.NnRNNCell(I, N),
    "householder": lambda: cells.HouseholderRNNCell(I, N),
    "householder, leaky relu": lambda: cells.HouseholderRNNCell(I, N, 4, nonlinearity="leaky_relu"),
    "real eurnn": lambda: cells.RealEURNNCell(I, N),
    "unitary exprnn": lambda: cells.UnitaryExpRNNCell(I, N),
    "scurnn": lambda: cells.ScuRNNCell(I, N),
    "urnn": lambda: cells.URNNCell(I, N),
    "full urnn": lambda: cells.FullURNNCell(I, N),
    "eurnn": lambda: cells.EURNNCell(I, N),
    "linear exprnn": lambda: cells.ExpRNNCell(I, N, linear=True),
    "linear urnn": lambda: cells.URNNCell(I, N, linear=True),
    "linear eurnn in layers": lambda: cells.EURNNCell(I, 40, linear=True),
    # few enough layers for their units that ``native`` applies them one after another
    "real eurnn in layers": lambda: cells.RealEURNNCell(I, 40),
    "eurnn in layers": lambda: cells.EURNNCell(I, 40),
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


handwritten = pytest.mark.parametrize("backend", ["fused", "native"])


@handwritten
@pytest.mark.parametrize("make", PLAIN.values(), ids=PLAIN.keys())
@pytest.mark.parametrize(("T", "B"), [(1, 1), (1, 3), (2, 3), (9, 3)])
@pytest.mark.parametrize("given", [False, True], ids=["own start", "given start"])
def test_handwritten_is_the_loop_in_float64(
    make: Callable[[], Cell], T: int, B: int, given: bool, backend: str
) -> None:
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
    for found, expected in zip(results(cell, x, state, backend), results(cell, x, state, "loop"), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)


def assert_native_on_two_threads_is_the_loop(cell: Cell, x: Tensor) -> None:
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        found = results(cell, x, None, "native")
    finally:
        torch.set_num_threads(threads)
    for a, b in zip(found, results(cell, x, None, "loop"), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("n", [1, 5, 16, 33, 50, 100])
@pytest.mark.parametrize("kind", ["leaky_relu", "tanh", "elu", "modrelu", "complex modrelu"])
def test_native_at_sizes_that_fill_no_vector(n: int, kind: str) -> None:
    """Panels, blocks of rows and shards of the batch that are cut short, on two threads."""
    torch.manual_seed(n)
    if kind == "modrelu":
        cell: Cell = cells.ExpRNNCell(I, n).double()
    elif kind == "complex modrelu":
        cell = cells.UnitaryExpRNNCell(I, n).double()
    else:
        cell = cells.VanillaRNNCell(I, n, kind, init=gaussian_).double()  # type: ignore[arg-type]
    x = torch.randn(4, 21, I, dtype=torch.float64, requires_grad=True)
    assert_native_on_two_threads_is_the_loop(cell, x)


@pytest.mark.parametrize("make", [cells.RealEURNNCell, cells.EURNNCell])
@pytest.mark.parametrize("size", [(2, 2, "tunable"), (34, 2, "tunable"), (38, 6, "tunable"), (64, 2, "fft")], ids=str)
def test_layers_of_rotations(
    make: type[cells.RealEURNNCell | cells.EURNNCell], size: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Applied one after another, on two threads, they do what their product does in the loop."""
    monkeypatch.setattr(rotations, "UNITS_PER_LAYER", 0)
    n, capacity, layout = size
    torch.manual_seed(n)
    cell = make(I, n, capacity, layout, learn_initial_state=True).double()
    nn.init.uniform_(cell.activation.bias, -0.5, 0.3)
    layers = rotations.layers_of(cell)
    assert layers is not None and len(layers.numbers) == (6 if layout == "fft" else capacity)
    x = torch.randn(5, 3, I, dtype=torch.float64, requires_grad=True)
    assert_native_on_two_threads_is_the_loop(cell, x)


@handwritten
@pytest.mark.parametrize("make", PLAIN.values(), ids=PLAIN.keys())
def test_a_nan_stays_one(make: Callable[[], Cell], backend: Any) -> None:
    cell = make()
    x = torch.zeros(2, 2, I)
    x[0, 1] = torch.nan
    y = scan(cell, x, backend=backend)[0]
    assert y[:, 0].isfinite().all() and y[:, 1].isnan().any(-1).all()


ALL = {**PLAIN, **OTHERS}


@pytest.mark.parametrize(("name", "backend"), [(name, "auto") for name in ALL] + [(name, "loop") for name in ALL])
@pytest.mark.parametrize("every", [1, 4, 7, 20])
def test_recomputed_and_last_only(name: str, backend: Any, every: int) -> None:
    """The same numbers from chunks that are run twice, of all outputs and of the last."""
    torch.manual_seed(3)
    cell = ALL[name]().double()
    x = torch.randn(9, 2, I, dtype=torch.float64)
    leaves = [p for p in cell.parameters() if p.requires_grad]

    def gradients(**options: Any) -> list[Tensor]:
        y, state = scan(cell, x, backend=backend, **options)
        assert len(y) == (1 if options.get("last_only") else 9)
        loss = y[-1].square().sum() + sum(part.abs().square().sum() for part in state)
        found = torch.autograd.grad(loss, leaves, allow_unused=True)
        return [y[-1], *state, *(torch.zeros(()) if g is None else g for g in found)]

    expected = gradients()
    for options in ({"last_only": True}, {"checkpoint_every": every}, {"checkpoint_every": every, "last_only": True}):
        for a, b in zip(gradients(**options), expected, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", ["tanh", "relu", "lstm", "gru"])
@pytest.mark.parametrize(("T", "B"), [(1, 1), (2, 3), (9, 2)])
def test_torchs_kernels_are_the_loop(name: str, T: int, B: int) -> None:
    torch.manual_seed(T)
    cell = ALL[name]().double()
    for parameter in cell.parameters():
        nn.init.normal_(parameter, std=0.4)
    x = torch.randn(T, B, I, dtype=torch.float64, requires_grad=True)
    state = tuple(torch.randn_like(part).requires_grad_() for part in cell.initial_state(B))
    for a, b in zip(results(cell, x, state, "torch"), results(cell, x, state, "loop"), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)


def test_compiled_chunks_are_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    """At every length about a chunk, with and without gradients, after a copy; the compilation is told."""
    monkeypatch.setattr(compiled, "CHUNK", 2)
    torch.manual_seed(4)
    cell = cells.JANETCell(I, N).double()
    for T in (1, 2, 3, 5):
        x = torch.randn(T, 3, I, dtype=torch.float64, requires_grad=True)
        for a, b in zip(results(cell, x, None, "compiled"), results(cell, x, None, "loop"), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)
    with torch.no_grad():
        torch.testing.assert_close(scan(copy.deepcopy(cell), x, backend="compiled")[0], scan(cell, x)[0])

    y, state = scan(cell, x, backend="compiled")
    (first,) = torch.autograd.grad(y.sum(), x, retain_graph=True)
    assert torch.equal(first, torch.autograd.grad(y.sum(), x, retain_graph=True)[0])
    for output in (y, *state):
        with pytest.raises(UserError, match="backend to loop"):
            torch.autograd.grad(output.sum(), x, create_graph=True, retain_graph=True)
    cell.requires_grad_(False)
    assert not scan(cell, x.detach(), backend="compiled")[0].requires_grad
    assert scan(cell, x, backend="compiled")[0].requires_grad


def test_compiled_complex_states(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled, "CHUNK", 2)  # whose time is that of compilation
    torch.manual_seed(4)
    cell, x = cells.ScuRNNCell(I, N).double(), torch.randn(compiled.CHUNK + 1, 2, I, dtype=torch.float64)
    x.requires_grad_()
    for a, b in zip(results(cell, x, None, "compiled"), results(cell, x, None, "loop"), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)


def test_no_steps_are_refused() -> None:
    with pytest.raises(UserError, match="at least one step"):
        scan(PLAIN["tanh"](), torch.zeros(0, 2, I))


@handwritten
@pytest.mark.parametrize("make", PLAIN.values(), ids=PLAIN.keys())
def test_handwritten_rounds_as_the_loop_does_in_float32(make: Callable[[], Cell], backend: str) -> None:
    """Both are as far from float64 as one another."""
    torch.manual_seed(1)
    cell = make()
    x = torch.randn(40, 2, I, requires_grad=True)
    exact = results(copy.deepcopy(cell).double(), x.detach().double().requires_grad_(), None, "loop")
    found, loop = results(cell, x, None, backend), results(cell, x, None, "loop")
    for truth, a, b in zip(exact, found, loop, strict=True):
        size = truth.abs().max() + 1e-12
        wide = truth.dtype
        assert (a.to(wide) - truth).abs().max() / size <= 3 * (b.to(wide) - truth).abs().max() / size + 1e-5


@handwritten
@pytest.mark.parametrize("kind", ["tanh", "relu", "leaky relu", "elu", "identity", "exprnn", "urnn"])
def test_gradcheck(kind: str, backend: Any) -> None:
    torch.manual_seed(2)
    cell = PLAIN[kind]().double()
    x = torch.randn(4, 2, I, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: scan(cell, x, backend=backend)[0], x)


@handwritten
def test_modrelu_at_zero(backend: str) -> None:
    """Zero in, zero out, whatever the bias; no NaN."""
    for make in (PLAIN["exprnn"], PLAIN["urnn"]):
        for bias in (-0.3, 0.0, 0.3):
            cell = make().double()
            nn.init.constant_(cell.get_parameter("activation.bias"), bias)
            (like,) = cell.initial_state(2)
            state = (torch.zeros_like(like).detach().requires_grad_(),)
            x = torch.zeros(3, 2, I, dtype=torch.float64, requires_grad=True)
            for a, b in zip(results(cell, x, state, backend), results(cell, x, state, "loop"), strict=True):
                torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)
                assert a.isfinite().all() if not a.is_complex() else torch.view_as_real(a).isfinite().all()


@handwritten
@pytest.mark.parametrize("make", PLAIN.values(), ids=PLAIN.keys())
def test_without_gradients_and_copied(make: Callable[[], Cell], backend: Any) -> None:
    cell = make()
    x = torch.randn(5, 2, I)
    with torch.no_grad():
        expected = scan(cell, x, backend="loop")[0]
        torch.testing.assert_close(scan(copy.deepcopy(cell), x, backend=backend)[0], expected, rtol=1e-5, atol=1e-6)
    with torch.inference_mode():
        torch.testing.assert_close(scan(cell, x, backend=backend)[0], expected, rtol=1e-5, atol=1e-6)


@handwritten
@pytest.mark.parametrize("kind", ["relu", "exprnn", "scurnn"])
def test_under_autocast_the_states_stay_precise(kind: str, backend: Any) -> None:
    cell = PLAIN[kind]()
    x = torch.randn(8, 2, I)
    exact = scan(cell, x, backend="loop")[0]
    with torch.autocast("cpu", torch.bfloat16):
        found = scan(cell, x, backend=backend)[0]
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
    lstm = OTHERS["lstm"]().double()
    assert choose_backend("auto", lstm) == ("native" if supports("native", lstm) else "torch")
    slow = cells.NRUCell(I, N, 9, use_relu=True)
    few, many = (choose_backend("auto", slow, expected_steps=steps) for steps in (1_000, 10**6))
    assert (few, many) == ("loop", "compiled" if supports("compiled", slow) else "loop")
    with pytest.raises(UserError, match="backend"):
        choose_backend("nativ", cell)  # type: ignore[arg-type]


@handwritten
def test_differentiating_twice_is_the_loops_alone(backend: Any) -> None:
    cell = PLAIN["tanh"]().double()
    x = torch.randn(3, 1, I, dtype=torch.float64, requires_grad=True)
    (first,) = torch.autograd.grad(scan(cell, x, backend="loop")[0].sum(), x, create_graph=True)
    torch.autograd.grad(first.sum(), x)
    with pytest.raises(UserError, match="backend to loop"):
        torch.autograd.grad(scan(cell, x, backend=backend)[0].sum(), x, create_graph=True)


@pytest.mark.parametrize("name", ["exprnn", "lstm", "urnn"])
def test_transforms_of_torch_func_take_the_loop(name: str) -> None:
    """A gradient a sequence, by grad under vmap: together they are that of all. A name given is refused in words."""
    torch.manual_seed(0)
    cell, x = ALL[name]().double(), torch.randn(5, 3, I).double()

    def loss(parameters: Any, x: Tensor, backend: Any = "auto") -> Tensor:
        y, _ = torch.func.functional_call(Scanned(cell, backend), parameters, (x,))
        return y.abs().square().sum()

    parameters = {f"cell.{key}": value for key, value in cell.named_parameters()}
    each = torch.func.vmap(torch.func.grad(loss), (None, 1))(parameters, x[:, :, None])
    whole = torch.autograd.grad(loss(parameters, x), list(parameters.values()))
    for gradient, expected in zip(each.values(), whole, strict=True):
        torch.testing.assert_close(gradient.sum(0), expected)
    with pytest.raises(UserError, match=r"backend is 'native'.*auto or loop: torch\.func"):
        torch.func.grad(loss)(parameters, x, "native")


class Scanned(nn.Module):
    def __init__(self, cell: Cell, backend: Any) -> None:
        super().__init__()
        self.cell, self.backend = cell, backend

    def forward(self, x: Tensor) -> Any:
        return scan(self.cell, x, backend=self.backend)


def test_two_layers_train_alike() -> None:
    """Thirty steps of a model, by backend."""
    losses = {}
    inputs, targets = CopyMemory(delay=5, seed=0).split("train")[torch.arange(8).numpy()]
    for backend, every in (("loop", None), ("fused", None), ("native", None), ("native", 6)):
        torch.manual_seed(0)
        task: Any = CopyMemory(delay=5).task
        model = ExpRNN(task, 12, layers=2, backend=backend, checkpoint_every=every).double()  # type: ignore[arg-type]
        optimizer = model.configure_optimizers()
        course = []
        for _ in range(30):
            optimizer.zero_grad()
            loss = model.loss_of(model(inputs), targets)
            loss.backward()
            optimizer.step()
            course.append(loss.item())
        losses[backend, every] = course
    loop = losses["loop", None]
    assert loop[-1] < loop[0]
    for course in losses.values():
        assert course == pytest.approx(loop, rel=1e-9)


def test_the_decoder_reads_only_what_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a batch has a mask, loss and recall are those of all outputs, looked at through it."""
    data = Denoise(delay=12, batch_size=4, seed=0)
    torch.manual_seed(0)
    model = GRU(data.task, 8)
    monkeypatch.setattr(model, "log", lambda *_, **__: None)
    inputs, targets, mask = data.split("train")[torch.arange(4).numpy()]
    outputs = model(inputs)
    right = outputs[:, -10:].argmax(-1) == targets[:, -10:]
    loss = model.training_step((inputs, targets, mask), 0)
    torch.testing.assert_close(loss, model.loss_of(outputs, targets, mask))
    torch.testing.assert_close(
        loss, nn.functional.cross_entropy(outputs[:, -10:].flatten(0, 1), targets[:, -10:].flatten())
    )
    torch.testing.assert_close(model.get_submodule("meters.train_metric").compute(), right.double().mean())  # type: ignore[operator]


def test_an_lstm_alone_on_its_thread_is_torchs() -> None:
    """As measured: torch's kernel is faster with one thread, in float32; not for other cells, and not with two."""
    lstm, native = cells.LSTMCell(I, N), "native" if supports("native", cells.LSTMCell(I, N)) else "torch"
    assert choose_backend("auto", lstm) == "torch"
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert choose_backend("auto", lstm) == native
    assert choose_backend("auto", cells.LSTMCell(I, N).double()) == native
    assert choose_backend("auto", cells.GRUCell(I, N)) == native
    assert choose_backend("auto", cells.LSTMCell(I, N, peepholes=True)) != "torch"
    try:
        torch.set_num_threads(2)
        assert choose_backend("auto", lstm) == native
    finally:
        torch.set_num_threads(1)
