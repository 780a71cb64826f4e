"""A drive worked on a few steps at a time: the parts join into what the loop gives."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lit_rnn import cells
from lit_rnn.cells import Cell
from lit_rnn.scan import drive, scan, supports
from lit_rnn.scan.packed import Blocks, Part

I, N, T, B = 3, 6, 10, 2  # noqa: E741
CELLS: dict[str, Callable[[], Cell]] = {
    "elu": lambda: cells.VanillaRNNCell(I, N, "elu"),
    "exprnn": lambda: cells.ExpRNNCell(I, N),
    "unitary": lambda: cells.ScuRNNCell(I, N),
    "janet": lambda: cells.JANETCell(I, N),
    "lstm": lambda: cells.LSTMCell(I, N, peepholes=True),
    "gru": lambda: cells.GRUCell(I, N),
    "gru before": lambda: cells.GRUCell(I, N, reset="before"),
    "goru": lambda: cells.GORUCell(I, N, layout="tunable"),
    "lipschitz": lambda: cells.LipschitzRNNCell(I, N),
    "layer norm": lambda: cells.LayerNormRNNCell(I, N, "tanh"),
    "statistical": lambda: cells.StatisticalRUCell(I, N, 4, 3),
    "nru": lambda: cells.NRUCell(I, N, 16, 4),
    "lem": lambda: cells.LEMCell(I, N),
    "unicornn": lambda: cells.UnICORNNCell(I, N),
}
PAIRS = [
    (name, backend) for name, make in CELLS.items() for backend in ("fused", "native") if supports(backend, make())
]


@pytest.fixture(params=[1, 3, 4], ids=lambda steps: f"{steps} steps")
def part(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Gives every drive, whatever its width, so many steps in a part; returns how long the parts were."""
    seen: list[int] = []

    def parts(self: drive.Drive, blocks: Blocks) -> list[Part]:
        monkeypatch.setattr(drive, "PART", request.param * B * self.width)
        found = whole(self, blocks)
        seen.extend(sum(block.steps for block in here.blocks) for here in found)
        return found

    whole = drive.Drive.parts
    monkeypatch.setattr(drive.Drive, "parts", parts)
    return request.param, seen


def made(name: str) -> tuple[Cell, Tensor]:
    torch.manual_seed(1)
    cell = CELLS[name]().double()
    for parameter in cell.parameters():
        if parameter.dim() == 1:
            nn.init.uniform_(parameter, -0.5, 0.7)
    return cell, torch.randn(T, B, I, dtype=torch.float64)


@pytest.mark.parametrize(("name", "backend"), PAIRS)
@pytest.mark.parametrize("last_only", [False, True], ids=["all", "last"])
@pytest.mark.parametrize("of", ["everything", "inputs", "parameters", "input weights"])
def test_parts_are_the_loop(part: Any, name: str, backend: Any, last_only: bool, of: str) -> None:
    """Outputs, final state and gradients, whichever of them are asked for."""
    cell, x = made(name)
    state = tuple(torch.randn_like(s).detach() for s in cell.initial_state(B))
    x.requires_grad_(of in ("everything", "inputs"))
    for parameter_name, parameter in cell.named_parameters():
        parameter.requires_grad_(of != "inputs" and (of != "input weights" or parameter_name.startswith("input.")))
    if of == "everything":
        state = tuple(s.requires_grad_() for s in state)
    leaves = [leaf for leaf in (*cell.parameters(), x, *state) if leaf.requires_grad]

    def results(backend: Any) -> list[Tensor]:
        y, final = scan(cell, x, state, backend, last_only=last_only)
        weigh = torch.arange(y.numel(), dtype=y.dtype).reshape(y.shape).cos()
        loss = (weigh * y).sum() + sum((s.abs() ** 2).sum() for s in final)
        gradients = torch.autograd.grad(loss, leaves, allow_unused=True)
        return [y, *final, *(torch.zeros(()) if g is None else g for g in gradients)]

    for found, expected in zip(results(backend), results("loop"), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)
    steps, seen = part
    assert max(seen) == (steps if type(cell).drive in (Cell.drive, cells.UnitaryCell.drive) else T)


@pytest.mark.parametrize(("name", "backend"), PAIRS)
@pytest.mark.parametrize("last_only", [False, True], ids=["all", "last"])
def test_parts_without_gradients(part: Any, name: str, backend: Any, last_only: bool) -> None:
    cell, x = made(name)
    with torch.no_grad():
        (y, final), (expected, end) = (scan(cell, x, None, b, last_only=last_only) for b in (backend, "loop"))
    for a, b in zip((y, *final), (expected, *end), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)
    assert y.shape == (1 if last_only else T, B, cell.output_size)


def test_a_hook_of_the_input_map_is_called() -> None:
    cell, x = made("exprnn")
    called: list[int] = []
    cell.input.register_forward_hook(lambda *_: called.append(1))
    scan(cell, x, backend="native")
    assert called == [1]


def test_what_a_pass_keeps() -> None:
    """Saved for the backward of the plain recurrence: the states, and neither drive nor its gradient."""
    cell, x = cells.ExpRNNCell(1, 32), torch.randn(400, 4, 1)
    saved: list[Tensor] = []

    def keep(tensor: Tensor) -> Tensor:
        saved.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        scan(cell, x, backend="native", last_only=True)
    storages = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in saved}
    assert sum(size > 4 * 400 * 4 * 32 * 0.9 for size in storages.values()) == 1


@pytest.mark.parametrize("name", ["exprnn", "janet"])
def test_a_changed_output_is_noticed(name: str) -> None:
    """The states that the backward reads are those that were returned."""
    cell, x = made(name)
    y, _ = scan(cell, x, backend="native")
    with pytest.raises(RuntimeError, match="modified inplace"):
        y.mul_(2)
