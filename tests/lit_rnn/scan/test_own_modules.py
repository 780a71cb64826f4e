"""What is changed inside a cell is what runs, by whichever backend: none reads numbers of a module that does more."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, get_args

import pytest
import torch
from torch import Tensor, nn

from datamodules import UserError
from lit_rnn import cells
from lit_rnn.activations import ComplexModReLU, ModReLU
from lit_rnn.cells import Cell
from lit_rnn.robustness import lipschitz_bound
from lit_rnn.scan import Backend, scan, supports

I, N, T, B = 2, 8, 5, 3  # noqa: E741


def halved(_: nn.Module, __: Any, output: Tensor) -> Tensor:
    return output / 2


class HalfReal(ModReLU):
    def forward(self, z: Tensor) -> Tensor:
        return super().forward(z) / 2


class HalfComplex(ComplexModReLU):
    def forward(self, z: Tensor) -> Tensor:
        return super().forward(z) / 2


class HalfRotations(cells.RealEURNNCell):
    def weights(self) -> Tensor:
        return super().weights() / 2


class OtherDecays(cells.StatisticalRUCell):
    def weights(self) -> tuple[Tensor, Tensor]:
        W, decays = super().weights()
        return W, decays / 2


class HalfChange(cells.NRUCell):
    def _separate(self, p: Tensor, q: Tensor, weights: Tensor) -> Tensor:
        return super()._separate(p, q, weights) / 2


class HalfMatrices(cells.DeltaProductCell):
    def matrices(self, H: Tensor) -> Tensor:
        return super().matrices(H) / 2


def hooked(make: Callable[[], Cell], name: str) -> Callable[[], Cell]:
    def made() -> Cell:
        cell = make()
        cell.get_submodule(name).register_forward_hook(halved)
        return cell

    return made


def replaced(make: Callable[[], Cell], name: str, module: nn.Module) -> Callable[[], Cell]:
    def made() -> Cell:
        cell = make()
        setattr(cell, name, module)
        return cell

    return made


# the cell as it is, and a change of it
CHANGES: dict[str, tuple[Callable[[], Cell], Callable[[], Cell]]] = {
    "a modReLU of one's own": (
        lambda: cells.ExpRNNCell(I, N),
        replaced(lambda: cells.ExpRNNCell(I, N), "activation", HalfReal(N)),
    ),
    "a complex one": (
        lambda: cells.ScuRNNCell(I, N),
        replaced(lambda: cells.ScuRNNCell(I, N), "activation", HalfComplex(N)),
    ),
    "weights of rotations": (lambda: cells.RealEURNNCell(I, 40), lambda: HalfRotations(I, 40)),
    "decays": (lambda: cells.StatisticalRUCell(I, N, 4, 3), lambda: OtherDecays(I, N, 4, 3)),
    "what is written": (lambda: cells.NRUCell(I, N, 16, 4), lambda: HalfChange(I, N, 16, 4)),
    "what is kept": (lambda: cells.DeltaProductCell(I, N), lambda: HalfMatrices(I, N)),
    "a norm without a bias": (
        lambda: cells.LayerNormRNNCell(I, N),
        replaced(lambda: cells.LayerNormRNNCell(I, N), "norm", nn.LayerNorm(N, eps=1.0, bias=False)),
    ),
    "a norm of another kind": (
        lambda: cells.LayerNormRNNCell(I, N),
        replaced(lambda: cells.LayerNormRNNCell(I, N), "norm", nn.RMSNorm(N, eps=1.0)),
    ),
}
_HOOKED: dict[str, tuple[Callable[[], Cell], str]] = {
    "modrelu": (lambda: cells.ExpRNNCell(I, N), "activation"),
    "goru": (lambda: cells.GORUCell(I, N), "activation"),
    "layer norm": (lambda: cells.LayerNormRNNCell(I, N), "norm"),
    "statistical": (lambda: cells.StatisticalRUCell(I, N, 4, 3), "summary"),
    "nru": (lambda: cells.NRUCell(I, N, 16, 4), "norm"),
    "rotations": (lambda: cells.RealEURNNCell(I, 40), "recurrent"),
    "tanh": (lambda: cells.VanillaRNNCell(I, N), "input"),
    "lstm": (lambda: cells.LSTMCell(I, N), "input"),
    "gru": (lambda: cells.GRUCell(I, N), "input"),
}
CHANGES |= {f"a hook in {name}": (make, hooked(make, part)) for name, (make, part) in _HOOKED.items()}


def seeded(make: Callable[[], Cell]) -> Cell:
    torch.manual_seed(1)
    return make().double()


@pytest.mark.parametrize("name", CHANGES)
def test_every_backend_runs_the_changed_cell(name: str) -> None:
    (plain, cell), x = map(seeded, CHANGES[name]), torch.randn(T, B, I, dtype=torch.float64)
    cell.load_state_dict(plain.state_dict(), strict=False)
    expected = scan(cell, x, backend="loop")[0]
    assert not torch.allclose(expected, scan(plain, x, backend="loop")[0], atol=1e-3), "the change is one"
    for backend in get_args(Backend):
        if backend != "compiled" and supports(backend, cell):
            torch.testing.assert_close(scan(cell, x, backend=backend)[0], expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("make", [lambda: cells.VanillaRNNCell(I, N), lambda: cells.LSTMCell(I, N)])
def test_hooks_of_the_backward_are_called(make: Callable[[], Cell]) -> None:
    cell, called = seeded(make), []
    cell.get_submodule("input").register_full_backward_hook(lambda *_: called.append(1))
    for backend in ("loop", "fused", "native", "torch"):
        if supports(backend, cell):
            x = torch.randn(T, B, I, dtype=torch.float64, requires_grad=True)
            scan(cell, x, backend=backend)[0].sum().backward()
            assert called.pop() and not called, backend


def test_no_bound_of_a_nonlinearity_that_is_not_known() -> None:
    cell = cells.ExpRNNCell(I, N)
    cell.activation = HalfReal(N)
    with pytest.raises(UserError, match="HalfReal"):
        lipschitz_bound(cell, torch.eye(N), 3)


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda: cells.LipschitzRNNCell(I, N), "step_size"),
        (lambda: cells.LEMCell(I, N), "step_size"),
        (lambda: cells.CoRNNCell(I, N), "gamma"),
        (lambda: cells.UnICORNNCell(I, N), "alpha"),
    ],
)
def test_a_number_that_is_made_a_parameter_learns(make: Callable[[], Cell], name: str) -> None:
    cell = seeded(make)
    setattr(cell, name, nn.Parameter(torch.tensor(0.3, dtype=torch.float64)))
    y, _ = scan(cell, torch.randn(T, B, I, dtype=torch.float64))
    (by,) = torch.autograd.grad(y.square().sum(), [getattr(cell, name)])
    assert by != 0
