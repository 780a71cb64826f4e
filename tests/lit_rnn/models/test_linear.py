"""``linear: true``: every orthogonal, unitary and chain model is the linear recurrence of its W, in closed form."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from datamodules import Task, UserError
from lit_rnn import export, models
from lit_rnn.cells.orthogonal import UnitaryCell
from lit_rnn.models.base import count_parameters
from lit_rnn.robustness import lipschitz_bound
from lit_rnn.scan import scan

TASK = Task("sums", "values", 3, "value", 2, None, "last", 1.0, "mse", False)
STEPS, BATCH, N = 7, 3, 8
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "ExpRNN": ("ExpRNN", {}),
    "ExpRNN unitary": ("ExpRNN", {"unitary": True}),
    "DtrivRNN": ("DtrivRNN", {}),
    "DtrivRNN unitary": ("DtrivRNN", {"unitary": True}),
    "ScoRNN": ("ScoRNN", {}),
    "ScuRNN": ("ScuRNN", {}),
    "URNN": ("URNN", {}),
    "FullURNN": ("FullURNN", {}),
    "EURNN": ("EURNN", {}),
    "EURNN real": ("EURNN", {"unitary": False}),
    "EURNN fft": ("EURNN", {"layout": "fft"}),
    "HouseholderRNN": ("HouseholderRNN", {}),
    "NnRNN": ("NnRNN", {}),
    "VanillaRNN": ("VanillaRNN", {}),
    "VanillaRNN chain": ("VanillaRNN", {"init": "chain"}),
}
each_model = pytest.mark.parametrize("label", MODELS)


def made(label: str, **options: Any) -> models.SequenceModel:
    name, own = MODELS[label]
    torch.manual_seed(3)
    model: models.SequenceModel = getattr(models, name)(TASK, N, **own, **options)
    return model.double()


def closed_form(cell: Any, x: Tensor) -> Tensor:
    """h_T = W^T h_0 + sum over t of W^(T-t) (V x_t + c), read as the outputs show it; by powers of W, no recursion."""
    W = cell.weights()
    V, c = cell.input.weight, cell.input.bias
    if W.is_complex():
        V = torch.complex(*V.chunk(2))
    driven = x.to(W.dtype) @ V.mT + (0 if c is None else c)
    T = len(x)
    h = cell.initial_state(x.shape[1])[0].to(W.dtype) @ torch.linalg.matrix_power(W, T).mT
    for t in range(T):
        h = h + driven[t] @ torch.linalg.matrix_power(W, T - 1 - t).mT
    if not W.is_complex():
        return h
    return h.real if cell.real_output else torch.cat((h.real, h.imag), dim=-1)


@pytest.mark.parametrize("backend", ["loop", "fused", "native"])
@each_model
def test_the_last_state_is_the_closed_form(label: str, backend: Any) -> None:
    cell = made(label, linear=True).cell_list()[0]
    for name, parameter in cell.named_parameters():
        if "initial" in name or name == "input.bias":
            torch.nn.init.normal_(parameter)
    x = torch.randn(STEPS, BATCH, 3, dtype=torch.float64, requires_grad=True)
    free = [x, *cell.parameters()]
    found, expected = scan(cell, x, backend=backend)[0][-1], closed_form(cell, x)
    weigh = torch.randn_like(expected)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-11)
    gradients = (torch.autograd.grad((y * weigh).sum(), free, allow_unused=True) for y in (found, expected))
    for a, b in zip(*gradients, strict=True):
        assert (a is None) == (b is None)
        if a is not None and b is not None:
            torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)


@each_model
def test_there_is_no_threshold(label: str) -> None:
    """n numbers less than with modReLU; the plain RNN's b is part of what enters, and stays."""
    thresholds = 0 if label.startswith("VanillaRNN") else N
    assert count_parameters(made(label)) - count_parameters(made(label, linear=True)) == thresholds


@each_model
def test_it_trains_and_comes_back_from_its_options(label: str) -> None:
    model = made(label, linear=True)
    assert type(model)(**{**model.hparams, "task": TASK}).cell_list()[0].activation is model.cell_list()[0].activation  # type: ignore[attr-defined]
    groups = model.parameter_groups()
    assert sum(len(group) for group in groups.values()) == len(list(model.parameters()))
    model(torch.randn(2, 4, 3, dtype=torch.float64)).sum().backward()
    trained = [p for name, p in model.named_parameters() if not name.endswith("upper")]
    assert all(p.grad is not None for p in trained if p.numel())


@pytest.mark.parametrize("label", ["URNN", "EURNN"])
def test_a_complex_one_is_exported(label: str) -> None:
    """A step in real numbers."""
    cell = made(label, linear=True).cell_list()[0]
    assert isinstance(cell, UnitaryCell)
    step = export.network.Step(cell)
    x, (h,) = torch.randn(BATCH, 3, dtype=torch.float64), cell.initial_state(BATCH)
    h = torch.randn(h.shape, dtype=h.dtype)
    y, (after,) = cell.step(cell.drive(x[None], None)[0], (h,), cell.weights())
    found, *state = step(x, torch.cat((h.real, h.imag), dim=-1))
    torch.testing.assert_close(found, y.detach(), rtol=0, atol=1e-12)
    torch.testing.assert_close(state[0], torch.cat((after.real, after.imag), dim=-1).detach(), rtol=0, atol=1e-12)


@pytest.mark.parametrize("label", ["ExpRNN", "ScuRNN"])
def test_the_lipschitz_bound_knows_it(label: str) -> None:
    """|D| |V| sqrt(T) where |W| = 1."""
    model = made(label, linear=True)
    D, V = model.decoder.weight, model.cell_list()[0].input.weight
    norms = [float(torch.linalg.matrix_norm(M.detach(), 2)) for M in (D, V)]
    assert lipschitz_bound(model.cell_list()[0], model.decoder, 9) == pytest.approx(norms[0] * norms[1] * 3, rel=1e-6)


@pytest.mark.parametrize(
    ("name", "options", "sentence"),
    [
        ("GORU", {}, r"linear is true, but it must be false: GORU's gates"),
        ("HouseholderRNN", {"nonlinearity": "tanh"}, r"nonlinearity is 'tanh', but it must be modrelu, which is repl"),
        ("VanillaRNN", {"nonlinearity": "relu"}, r"nonlinearity is 'relu', but it must be tanh, which is replaced"),
        ("VanillaRNN", {"layer_norm": True}, r"layer_norm is true, but it must be false where"),
        ("ExpRNN", {"modrelu_bias": 0.0}, r"modrelu_bias is 0\.0, but it must be null where f is not modReLU"),
    ],
)
def test_what_cannot_be_linear_says_so(name: str, options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        getattr(models, name)(TASK, N, linear=True, **options)
