"""The contract of `lit_rnn.scan.scan`: every backend equals a loop over ``step``, for every cell.

The oracle is a loop written here, so that ``loop`` itself is tested too. A backend may refuse a cell, and must then do
so in a sentence that names both; `lit_rnn.scan.supports` has to say the same. To put a new backend under the contract,
add its name to BACKENDS; to put a new cell under it, export it from `lit_rnn.cells` and, where it takes more than
``(input_size, hidden_size)``, add its arguments to ARGUMENTS.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

import lit_rnn.cells
from datamodules import UserError
from lit_rnn import graphs
from lit_rnn.cells import Cell
from lit_rnn.scan import scan, supports
from lit_rnn.scan.deltaproduct import is_deltaproduct
from lit_rnn.scan.fused import kind_of
from lit_rnn.scan.plans import is_gated
from tests.recording import Rerun

BACKENDS = ["loop", "auto", "fused", "native", "torch"]
# tried with these cells alone: ``auto`` is another backend's name, ``compiled`` takes long to start
ONLY: dict[str, list[str]] = {
    "auto": ["VanillaRNNCell nonlinearity=tanh", "ExpRNNCell", "LSTMCell", "JANETCell", "URNNCell"],
    "compiled": ["LSTMCell", "URNNCell"],
    "graphed": ["LSTMCell peepholes=True", "URNNCell", "GORUCell"],
    "parallel": [
        "LRUCell learn_initial_state=True",
        "LinOSSCell discretization=IMEX",
        "MinGRUCell",
        "DeltaProductCell heads=2 key_size=3",
        "LSTMCell",
    ],
}
# (T, B); a compiled backend takes chunks of 10 steps: less than one, one, two and a rest
SHAPES = [(1, 1), (1, 3), (2, 3), (7, 1), (8, 3), (9, 1), (9, 3), (10, 3), (21, 1), (21, 3)]
SPAN = 12  # one chunk and a rest
TOLERANCE = 1e-10
INPUTS, HIDDEN = 3, 4  # even, and a power of two, as the rotations want it

# what a cell needs beside its two sizes, and the variants whose equations differ
ARGUMENTS: dict[str, list[dict[str, Any]]] = {
    "AntisymmetricRNNCell": [{"learn_initial_state": True}],
    "DeltaProductCell": [{"heads": 2, "key_size": 3}],
    "ExpRNNCell": [{}, {"learn_initial_state": True}],
    "EURNNCell": [{}, {"layout": "fft"}],
    "GRUCell": [{}, {"reset": "before"}, {"learn_initial_state": True}],
    "JANETCell": [{}, {"beta": 0.0}],
    "LSTMCell": [{}, {"peepholes": True}, {"output_matrix": True}, {"learn_initial_state": True}],
    "LRUCell": [{"learn_initial_state": True}],
    "LinOSSCell": [{"discretization": "IMEX"}],
    "LayerNormRNNCell": [{}, {"nonlinearity": "tanh"}],
    "NRUCell": [
        {"memory_size": 9, "heads": 4},
        {"memory_size": 8, "heads": 2, "use_relu": True, "layer_norm": True, "learn_initial_state": True},
        {"memory_size": 9, "heads": 2, "form": "paper"},
    ],
    "StatisticalRUCell": [{"statistics_size": 3, "summary_size": 2}],
    "URNNCell": [{}, {"linear": True}],
    "VanillaRNNCell": [{"nonlinearity": f} for f in ("tanh", "relu", "leaky_relu", "elu", "identity")],
}


def _concrete_cells() -> Iterator[tuple[str, type[Cell]]]:
    """Every exported cell that can be built from sizes alone: the shared bases take their matrix as a module."""
    for name, cls in vars(lit_rnn.cells).items():
        if inspect.isclass(cls) and issubclass(cls, Cell) and not inspect.isabstract(cls) and cls is not Cell:
            required = [p.name for p in inspect.signature(cls).parameters.values() if p.default is p.empty]
            if "recurrent" not in required:
                yield name, cls


def _builders() -> dict[str, Callable[[], Cell]]:
    builders: dict[str, Callable[[], Cell]] = {}
    for name, cls in _concrete_cells():
        for options in ARGUMENTS.get(name, [{}]):
            label = " ".join([name, *(f"{key}={value}" for key, value in options.items())])
            builders[label] = lambda cls=cls, options=options: cls(INPUTS, HIDDEN, **options)
    return builders


def _refuses(backend: str, cell: Cell) -> bool:
    """Whether it does so by what the cell is, whatever the machine."""
    if backend == "native":
        return kind_of(cell) is None and not is_gated(cell) and not is_deltaproduct(cell)
    return backend in ("fused", "torch", "parallel") and not supports(backend, cell)


BUILDERS = _builders()
each_cell = pytest.mark.parametrize("label", BUILDERS)
each_backend = pytest.mark.parametrize("backend", BACKENDS)
PAIRS = [(b, label) for b in [*BACKENDS, "parallel", "graphed"] for label in ONLY.get(b, BUILDERS)]
# whatever is asked of them: once is enough to see that they are
REFUSED = [(b, label) for b, label in PAIRS if _refuses(b, BUILDERS[label]())]
each_backend_and_cell = pytest.mark.parametrize(("backend", "label"), [pair for pair in PAIRS if pair not in REFUSED])


@pytest.fixture(autouse=True)
def record_on_the_cpu(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if "graphed" in request.node.name:
        monkeypatch.setitem(graphs.RECORDERS, "cpu", Rerun)


def test_the_arguments_are_of_cells_that_exist() -> None:
    names = {name for name, _ in _concrete_cells()}
    assert set(ARGUMENTS) <= names
    assert {label for labels in ONLY.values() for label in labels} <= set(BUILDERS)
    assert {"ExpRNNCell", "LSTMCell", "NRUCell", "URNNCell", "LipschitzRNNCell"} <= names


# -- helpers ----------------------------------------------------------------------------------------------------------


def built(label: str) -> Cell:
    """In float64, every parameter off its start but near it: what must stay unitary is left where it is."""
    cell = BUILDERS[label]().double()
    with torch.no_grad():
        for parameter in cell.parameters():
            if not parameter.is_complex():
                parameter.add_(0.1 * torch.randn_like(parameter))
    return cell


@pytest.fixture
def cell(backend: str, label: str, record_on_the_cpu: None) -> Cell:
    """`built`, where this machine lets the backend run it: one without a compiler does not."""
    made = built(label)
    if refused(backend, made, inputs(2, 1)):
        pytest.skip(f"{backend} runs nowhere here")
    return made


def random_state(cell: Cell, batch: int, grad: bool = True) -> tuple[Tensor, ...]:
    return tuple(torch.randn_like(s).requires_grad_(grad) for s in cell.initial_state(batch))


def inputs(length: int, batch: int) -> Tensor:
    return torch.randn(length, batch, INPUTS, dtype=torch.float64, requires_grad=True)


def oracle(cell: Cell, x: Tensor, state: tuple[Tensor, ...] | None = None) -> tuple[Tensor, tuple[Tensor, ...]]:
    state = cell.initial_state(x.shape[1]) if state is None else state
    w = cell.weights()
    u = cell.drive(x, w)
    outputs = []
    for t in range(len(x)):
        y, state = cell.step(u[t], state, w)
        outputs.append(y)
    return torch.stack(outputs), tuple(state)


def refused(backend: str, cell: Cell, x: Tensor) -> bool:
    """Whether the backend refuses the cell; it must say so, and why it may."""
    if supports(backend, cell):
        return False
    with pytest.raises(UserError) as caught:
        scan(cell, x, backend=backend)
    sentence = str(caught.value)
    assert backend in sentence and type(cell).__name__ in sentence and "\n" not in sentence, sentence
    return True


class Loss:
    """A real number made of the outputs and the final state with fixed random weights, so that nothing cancels."""

    def __init__(self, y: Tensor, state: tuple[Tensor, ...], parts: str = "both") -> None:
        self.y = torch.randn_like(y)
        self.state = [torch.randn_like(s) for s in state]
        self.parts = parts

    def __call__(self, y: Tensor, state: tuple[Tensor, ...]) -> Tensor:
        total = torch.zeros((), dtype=torch.float64)
        if self.parts in ("both", "outputs"):
            total = total + (self.y * y).sum()
        if self.parts == "last output":
            total = total + (self.y[-1] * y[-1]).sum()
        if self.parts in ("both", "state"):
            total = total + sum((w.conj() * s).real.sum() for w, s in zip(self.state, state, strict=True))
        return total


def close(ours: Any, expected: Any) -> None:
    torch.testing.assert_close(ours, expected, rtol=TOLERANCE, atol=TOLERANCE)


def gradients(loss: Tensor, leaves: list[Tensor], **options: Any) -> list[Tensor]:
    return list(torch.autograd.grad(loss, leaves, materialize_grads=True, **options))


def check(
    backend: str,
    cell: Cell,
    x: Tensor,
    state: tuple[Tensor, ...] | None,
    leaves: list[Tensor],
    parts: str = "both",
) -> None:
    """Outputs, final state and the gradients of ``leaves``, against the oracle's."""
    expected, expected_state = oracle(cell, x, state)
    y, final = scan(cell, x, state, backend=backend)
    assert y.shape == (*x.shape[:2], cell.output_size)
    close(y, expected)
    assert isinstance(final, tuple)
    close(final, expected_state)
    loss = Loss(y, final, parts)
    close(gradients(loss(y, final), leaves), gradients(loss(expected, expected_state), leaves))


def parameters(cell: Cell) -> list[Tensor]:
    return list(cell.parameters())


@pytest.mark.parametrize(("backend", "label"), REFUSED)
def test_what_a_backend_refuses(backend: str, label: str) -> None:
    assert refused(backend, built(label), torch.randn(2, 1, INPUTS, dtype=torch.float64))


# -- the contract -----------------------------------------------------------------------------------------------------


@each_backend_and_cell
def test_outputs_state_and_every_gradient(backend: str, cell: Cell) -> None:
    """At one size after another, so that what is kept of one must not come into the next."""
    for length, batch in SHAPES:
        x, state = inputs(length, batch), random_state(cell, batch)
        check(backend, cell, x, state, [x, *state, *parameters(cell)])


@each_backend_and_cell
def test_from_the_cells_own_initial_state(backend: str, cell: Cell) -> None:
    """``state=None``: the gradient goes on into a learned initial state."""
    x = inputs(SPAN, 3)
    check(backend, cell, x, None, [x, *parameters(cell)])


@pytest.mark.parametrize("parts", ["outputs", "last output", "state"])
@each_backend_and_cell
def test_a_loss_that_sees_only_a_part(backend: str, cell: Cell, parts: str) -> None:
    x = inputs(SPAN, 2)
    state = random_state(cell, 2)
    check(backend, cell, x, state, [x, *state, *parameters(cell)], parts)


@each_backend_and_cell
def test_whatever_needs_no_gradient_changes_nothing(backend: str, cell: Cell) -> None:
    """Frozen parameters, inputs or states, one kind at a time: the rest of the gradients stay right."""
    x = torch.randn(SPAN, 2, INPUTS, dtype=torch.float64)
    state = random_state(cell, 2, grad=False)
    expected = oracle(cell, x, state)  # with every gradient, of which each pass below has its share
    loss = Loss(*expected)
    slopes = gradients(loss(*expected), parameters(cell))
    for frozen in (None, *parameters(cell)):  # None in training
        cell.requires_grad_(True)
        if frozen is not None:
            frozen.requires_grad_(False)
        rest = [(p, slope) for p, slope in zip(cell.parameters(), slopes, strict=True) if p.requires_grad]
        if rest:
            ours = scan(cell, x, state, backend=backend)
            close(ours, expected)
            close(gradients(loss(*ours), [p for p, _ in rest]), [slope for _, slope in rest])
    cell.requires_grad_(False)
    seen = x.clone().requires_grad_()
    check(backend, cell, seen, state, [seen])  # an attack
    start = random_state(cell, 2)
    check(backend, cell, x, start, list(start), "state")  # a Jacobian
    y, final = scan(cell, x, state, backend=backend)
    assert not y.requires_grad and not any(s.requires_grad for s in final)


@each_backend_and_cell
def test_without_grad(backend: str, cell: Cell) -> None:
    x = torch.randn(SPAN, 3, INPUTS, dtype=torch.float64)
    state = random_state(cell, 3, grad=False)
    expected, expected_state = oracle(cell, x, state)
    for mode in (torch.no_grad, torch.inference_mode):
        with mode():
            y, final = scan(cell, x, state, backend=backend)
            assert not y.requires_grad and not any(s.requires_grad for s in final)
            close(y.clone(), expected.detach())
            close(tuple(s.clone() for s in final), tuple(s.detach() for s in expected_state))
    # and with it again: nothing of the mode is left behind
    check(backend, cell, x, state, parameters(cell))


@each_backend_and_cell
def test_a_deep_copy_has_weights_of_its_own(backend: str, cell: Cell) -> None:
    x = torch.randn(SPAN, 2, INPUTS, dtype=torch.float64)
    before, _ = scan(cell, x, backend=backend)  # whatever it keeps, it keeps by now
    twin = copy.deepcopy(cell)
    check(backend, twin, x, None, parameters(twin))
    with torch.no_grad():
        for parameter in twin.parameters():
            if not parameter.is_complex():
                parameter.add_(0.1 * torch.randn_like(parameter))
    check(backend, twin, x, None, parameters(twin))
    close(scan(cell, x, backend=backend)[0], before)
    assert not torch.allclose(scan(twin, x, backend=backend)[0], before), "the copy still runs on the old weights"


@each_backend_and_cell
def test_weights_changed_in_place_are_seen(backend: str, cell: Cell, label: str) -> None:
    """An optimizer's step, and a loaded checkpoint."""
    other = built(label)
    x = torch.randn(SPAN, 2, INPUTS, dtype=torch.float64)
    y, final = scan(cell, x, backend=backend)
    Loss(y, final)(y, final).backward()
    torch.optim.SGD([p for p in cell.parameters() if not p.is_complex()], lr=1e-3).step()
    check(backend, cell, x, None, parameters(cell))
    cell.load_state_dict(other.state_dict())
    close(scan(cell, x, backend=backend), oracle(other, x))
    check(backend, cell, x, None, parameters(cell))


@each_backend_and_cell
def test_two_halves_make_a_whole(backend: str, cell: Cell) -> None:
    """Truncated backpropagation's state goes in again; undetached, the gradient crosses the cut."""
    x = inputs(2 * SPAN, 2)
    state = random_state(cell, 2)
    first, middle = scan(cell, x[: SPAN - 1], state, backend=backend)
    second, final = scan(cell, x[SPAN - 1 :], middle, backend=backend)
    y = torch.cat([first, second])
    expected, expected_state = oracle(cell, x, state)
    close((y, final), (expected, expected_state))
    loss, leaves = Loss(y, final), [x, *state, *parameters(cell)]
    close(gradients(loss(y, final), leaves), gradients(loss(expected, expected_state), leaves))


@each_backend_and_cell
def test_the_last_output_alone(backend: str, cell: Cell) -> None:
    x = inputs(SPAN, 2)
    state = random_state(cell, 2)
    expected, expected_state = oracle(cell, x, state)
    y, final = scan(cell, x, state, backend=backend, last_only=True)
    assert y.shape == (1, 2, cell.output_size)
    close((y, final), (expected[-1:], expected_state))
    loss, leaves = Loss(y, final), [x, *state, *parameters(cell)]
    close(gradients(loss(y, final), leaves), gradients(loss(expected[-1:], expected_state), leaves))


@each_backend_and_cell
def test_checkpointing_changes_nothing(backend: str, cell: Cell) -> None:
    x = inputs(SPAN, 2)
    state = random_state(cell, 2)
    expected, expected_state = oracle(cell, x, state)
    loss, leaves = Loss(expected, expected_state), [x, *state, *parameters(cell)]
    slopes = gradients(loss(expected, expected_state), leaves)
    for every in (1, 5, 3 * SPAN):
        y, final = scan(cell, x, state, backend=backend, checkpoint_every=every)
        close((y, final), (expected, expected_state))
        close(gradients(loss(y, final), leaves), slopes)


@each_backend_and_cell
def test_inputs_in_any_layout_and_left_alone(backend: str, cell: Cell) -> None:
    """Models are batch first outside: what arrives is a transposed view; a constant input is an expanded one."""
    batch_first = inputs(3, SPAN)
    state = random_state(cell, 3)
    kept = [t.detach().clone() for t in (batch_first, *state, *cell.parameters(), *cell.buffers())]
    check(backend, cell, batch_first.transpose(0, 1), state, [batch_first, *state])
    constant = inputs(1, 1)
    check(backend, cell, constant.expand(SPAN, 3, INPUTS), state, [constant, *state])
    for now, then in zip((batch_first, *state, *cell.parameters(), *cell.buffers()), kept, strict=True):
        assert torch.equal(now, then)


@each_backend_and_cell
def test_backward_twice_and_in_between_another_pass(backend: str, cell: Cell) -> None:
    x = inputs(SPAN, 2)
    y, final = scan(cell, x, backend=backend)
    loss, leaves = Loss(y, final), [x, *parameters(cell)]
    first = gradients(loss(y, final), leaves, retain_graph=True)
    scan(cell, torch.randn_like(x), backend=backend)
    close(gradients(loss(y, final), leaves), first)


@each_backend_and_cell
def test_double_backward_is_right_or_refused(backend: str, cell: Cell) -> None:
    """Right in ``loop``; elsewhere a sentence, never a wrong second derivative in silence."""
    x = inputs(SPAN, 2)
    leaves = [x, *parameters(cell)]
    expected, expected_state = oracle(cell, x)
    loss = Loss(expected, expected_state)

    def second(y: Tensor, state: tuple[Tensor, ...]) -> list[Tensor]:
        # quadratic, so that the second derivative of a linear cell is not zero either
        slopes = gradients(loss(y, state) ** 2, leaves, create_graph=True)
        penalty = sum((g.abs() ** 2).sum() for g in slopes)
        assert isinstance(penalty, Tensor) and penalty.requires_grad
        return gradients(penalty, leaves)

    by_the_oracle = second(expected, expected_state)
    y, final = scan(cell, x, backend=backend)
    try:
        ours = second(y, final)
    except UserError as error:
        assert backend != "loop" and "loop" in str(error), "the sentence must name the backend that can"
    else:
        for mine, theirs in zip(ours, by_the_oracle, strict=True):
            torch.testing.assert_close(mine, theirs, rtol=1e-8, atol=1e-8)


@each_backend
def test_each_backend_supports_the_vanilla_cell(backend: str) -> None:
    """A backend that refuses everything would pass the rest of this file."""
    assert supports(backend, lit_rnn.cells.VanillaRNNCell(INPUTS, HIDDEN))


@each_cell
def test_loop_and_auto_refuse_no_cell(label: str) -> None:
    cell = BUILDERS[label]()
    assert supports("loop", cell) and supports("auto", cell)


def test_an_unknown_backend_is_refused() -> None:
    cell = lit_rnn.cells.VanillaRNNCell(INPUTS, HIDDEN)
    with pytest.raises(UserError, match="nonsense"):
        scan(cell, torch.randn(2, 1, INPUTS), backend="nonsense")


@each_backend
def test_an_empty_sequence_is_refused(backend: str) -> None:
    cell = lit_rnn.cells.VanillaRNNCell(INPUTS, HIDDEN)
    with pytest.raises(UserError):
        scan(cell, torch.randn(0, 2, INPUTS), backend=backend)
