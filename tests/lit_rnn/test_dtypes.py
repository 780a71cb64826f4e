"""Modules moved to another dtype: complex tensors stay complex, constrained parameters in float32, nothing else."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from datamodules import CopyMemory, UserError
from lit_rnn import cells, models, parametrizations
from lit_rnn.parametrizations import drift

N = 6
Move = Callable[[nn.Module], nn.Module]

# name: the move, what a real tensor becomes, what a complex one becomes
MOVES: dict[str, tuple[Move, torch.dtype, torch.dtype]] = {
    "to float64": (lambda m: m.to(torch.float64), torch.float64, torch.complex128),
    "double": (lambda m: m.double(), torch.float64, torch.complex128),
    "type float64": (lambda m: m.type(torch.float64), torch.float64, torch.complex128),
    "to like": (lambda m: m.to(torch.zeros(1, dtype=torch.float64)), torch.float64, torch.complex128),
    "float": (lambda m: m.float(), torch.float32, torch.complex64),
    "to float32": (lambda m: m.to(torch.float32), torch.float32, torch.complex64),
    "half": (lambda m: m.half(), torch.float16, torch.complex64),
    "bfloat16": (lambda m: m.bfloat16(), torch.bfloat16, torch.complex64),
    "to bfloat16": (lambda m: m.to(torch.bfloat16), torch.bfloat16, torch.complex64),
}


def task() -> dict[str, Any]:
    return asdict(CopyMemory(delay=3).task)


# every module that holds a complex tensor, alone and inside others
HOLDERS: dict[str, Callable[[], nn.Module]] = {
    "FreeUnitary": lambda: parametrizations.FreeUnitary(N),
    "Exponential base": lambda: parametrizations.Exponential(N, trivialized=True, unitary=True),
    "Cayley base": lambda: parametrizations.Cayley(N, trivialized=True, unitary=True),
    "FullURNNCell": lambda: cells.FullURNNCell(3, N),
    "UnitaryExpRNNCell": lambda: cells.UnitaryExpRNNCell(3, N, trivialized=True),
    "FullURNN": lambda: models.FullURNN(task(), N),
    "DtrivRNN": lambda: models.DtrivRNN(task(), N, unitary=True),
    "in a list": lambda: nn.ModuleList([parametrizations.FreeUnitary(N)]),
}


def complex_tensors(module: nn.Module) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in module.state_dict().items() if tensor.is_complex()}


@pytest.mark.parametrize("name", MOVES)
@pytest.mark.parametrize("holder", HOLDERS)
def test_a_complex_tensor_keeps_its_kind(holder: str, name: str) -> None:
    """Its value, too: that of NumPy's rounding, and unitary to the rounding of the dtype it is in."""
    module = HOLDERS[holder]()
    before = {key: tensor.clone() for key, tensor in complex_tensors(module).items()}
    assert before
    move, _, dtype = MOVES[name]
    move(module)
    after = complex_tensors(module)
    eps = torch.finfo(dtype).eps
    for key, tensor in after.items():
        assert tensor.dtype == dtype, key
        torch.testing.assert_close(tensor.to(torch.complex128), before[key].to(torch.complex128), rtol=0, atol=5e-7)
        assert drift(tensor) <= 4 * N * eps
    assert after.keys() == before.keys()


@pytest.mark.parametrize("holder", ["FreeUnitary", "FullURNN"])
def test_back_and_forth_is_the_same_matrix(holder: str) -> None:
    module = HOLDERS[holder]()
    before = {key: tensor.clone() for key, tensor in complex_tensors(module).items()}
    for move in ("to float64", "to bfloat16", "double", "half", "float"):
        MOVES[move][0](module)
    for key, tensor in complex_tensors(module).items():
        assert tensor.dtype == torch.complex64
        torch.testing.assert_close(tensor, before[key], rtol=0, atol=5e-7)


@pytest.mark.parametrize("name", MOVES)
def test_what_is_constrained_stays_in_float32_and_the_rest_does_not(name: str) -> None:
    model = models.ExpRNN(task(), N)
    move, dtype, _ = MOVES[name]
    move(model)
    skew = model.cell_list()[0].recurrent.skew
    assert skew.dtype == (dtype if dtype.itemsize >= 4 else torch.float32)
    assert model.decoder.weight.dtype == model.cell_list()[0].input.weight.dtype == dtype


def test_the_gradient_moves_along() -> None:
    module = parametrizations.FreeUnitary(N)
    module().abs().sum().backward()
    by_entries = module.entries.grad.clone()
    module.to(torch.float64)
    assert module.entries.grad.dtype == torch.complex128
    torch.testing.assert_close(module.entries.grad, by_entries.to(torch.complex128))


@pytest.mark.parametrize("make", [HOLDERS["FreeUnitary"], lambda: cells.ExpRNNCell(3, N), HOLDERS["FullURNN"]])
@pytest.mark.parametrize("dtype", [torch.complex64, torch.complex128])
@pytest.mark.filterwarnings("ignore:Complex modules are a new feature")
def test_a_complex_dtype_is_refused_and_changes_nothing(make: Callable[[], nn.Module], dtype: torch.dtype) -> None:
    module = make()
    before = copy.deepcopy(module.state_dict())
    with pytest.raises(UserError, match=f"{dtype}.*real dtype.*{dtype.to_real()}"):
        module.to(dtype)
    for key, tensor in module.state_dict().items():
        assert tensor.dtype == before[key].dtype
        torch.testing.assert_close(tensor, before[key], rtol=0, atol=0)


def test_copies_and_state_dicts_are_exact() -> None:
    for name in ("to float64", "bfloat16"):
        model = models.FullURNN(task(), N)
        MOVES[name][0](model)
        other = models.FullURNN(task(), N)
        MOVES[name][0](other)
        other.load_state_dict(model.state_dict())
        for twin in (copy.deepcopy(model), other):
            for key, tensor in twin.state_dict().items():
                assert tensor.dtype == model.state_dict()[key].dtype
                torch.testing.assert_close(tensor, model.state_dict()[key], rtol=0, atol=0)


def test_moves_that_are_none_of_a_dtype() -> None:
    """To a device and shared memory: the tensors are what they were."""
    module = parametrizations.FreeUnitary(N)
    before = module.entries.detach().clone()
    module.to("cpu").share_memory()
    assert module.entries.is_shared()
    torch.testing.assert_close(module.entries.detach(), before, rtol=0, atol=0)
    empty = parametrizations.FreeUnitary(N).to("meta")
    assert empty.entries.dtype == torch.complex64 and empty.entries.is_meta
    assert empty.to_empty(device="cpu").entries.shape == (N, N)
