"""How orthogonal and unitary cells start, and the models around them: manifold, groups, penalties, odd sizes."""

import functools
import math
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from scipy import linalg, stats
from torch import Tensor, nn

from datamodules import CopyMemory, PixelMNIST, UserError
from lit_rnn import models
from lit_rnn.cells import (
    EURNNCell,
    FullURNNCell,
    GORUCell,
    HouseholderRNNCell,
    NnRNNCell,
    RealEURNNCell,
    ScoRNNCell,
    ScuRNNCell,
    URNNCell,
)
from lit_rnn.init import henaff_
from lit_rnn.scan import scan
from tests.lit_rnn.cells.test_cells_orthogonal import learned_vector
from tests.oracles.modules import close

F64, C128 = torch.float64, torch.complex128
T, B, I = 7, 3, 4  # noqa: E741


# -- how a cell starts -----------------------------------------------------------------------------


def uniform(values: Tensor, limit: float) -> None:
    v = values.detach().double().numpy().ravel()
    assert np.abs(v).max() <= limit * (1 + 1e-6)
    assert stats.kstest(v, "uniform", args=(-limit, 2 * limit)).pvalue > 1e-4


def test_scornn_starts_as_the_released_code() -> None:
    """U ~ U(-0.01, 0.01), no bias but modReLU's b = 0, half of the signs negative."""
    torch.manual_seed(0)
    cell = ScoRNNCell(20, 101)
    uniform(cell.input.weight, 0.01)
    assert not cell.activation.bias.any() and cell.activation.bias.requires_grad
    assert cell.recurrent.signs.sum() == 51 - 50
    close(np.linalg.det(cell.recurrent().detach().double().numpy()), 1.0, atol=1e-4)


def test_scurnn_starts_as_the_released_code() -> None:
    """U Glorot uniform over its 2n columns, h_0 ~ U(-0.01, 0.01), b ~ U(-0.01, 0.01)."""
    torch.manual_seed(0)
    cell = ScuRNNCell(20, 400)
    uniform(cell.input.weight, math.sqrt(6 / (20 + 800)))
    uniform(learned_vector(cell), 0.01)
    uniform(cell.activation.bias, 0.01)


@pytest.mark.parametrize("cell_class", [URNNCell, FullURNNCell])
def test_urnns_start_as_the_released_code(cell_class: Callable[..., Any]) -> None:
    """V Glorot uniform over its 2n columns, h_0 ~ U(+-sqrt(3 / 2n)), b ~ U(-0.01, 0.01)."""
    torch.manual_seed(0)
    cell = cell_class(20, 200)
    uniform(cell.input.weight, math.sqrt(6 / (20 + 400)))
    uniform(learned_vector(cell), math.sqrt(3 / 400))
    uniform(cell.activation.bias, 0.01)


def test_full_capacity_urnn_starts_unitary_dense_and_not_real() -> None:
    torch.manual_seed(0)
    W = FullURNNCell(3, 64).double().recurrent_matrices()["recurrent"].detach().numpy()
    assert W.dtype == complex
    assert np.abs(W.conj().T @ W - np.eye(64)).max() < 1e-12, "Module.double() leaves complex tensors alone"
    assert np.abs(W.T @ W - np.eye(64)).max() > 0.1 and np.count_nonzero(np.abs(W) > 1e-6) > 0.95 * 64**2


@pytest.mark.parametrize("cell_class", [EURNNCell, RealEURNNCell])
def test_eurnns_start_as_the_released_code(cell_class: Callable[..., Any]) -> None:
    torch.manual_seed(0)
    cell = cell_class(20, 200)
    uniform(cell.input.weight, 0.01)
    uniform(cell.recurrent.theta, math.pi)


def test_goru_starts_as_the_released_code() -> None:
    """W, U ~ U(-0.01, 0.01), b_r = 2, b_c = 0.01."""
    torch.manual_seed(0)
    cell = GORUCell(20, 64)
    uniform(cell.input.weight, 0.01)
    uniform(cell.gates.weight, 0.01)
    assert cell.gates.bias[:64].tolist() == [2.0] * 64
    close(cell.activation.bias, np.full(64, 0.01), atol=1e-8)


def test_householder_rnn_starts_as_the_released_code() -> None:
    """W_in Glorot uniform, h_0 ~ U(+-sqrt(3 / 2n))."""
    torch.manual_seed(0)
    cell = HouseholderRNNCell(20, 400, reflections=4)
    uniform(cell.input.weight, math.sqrt(6 / 420))
    uniform(learned_vector(cell), math.sqrt(3 / 800))


def test_nnrnn_starts_orthogonal_at_its_named_initialiser() -> None:
    torch.manual_seed(0)
    cell = NnRNNCell(3, 100, henaff_)
    W = cell.recurrent_matrices()["recurrent"].detach().double().numpy()
    close(W.T @ W, np.eye(100), atol=2e-5)
    assert np.abs(np.angle(linalg.eigvals(cell.recurrent.basis().detach().double().numpy()))).max() > 2.5


# -- models ----------------------------------------------------------------------------------------


MODELS: dict[str, tuple[dict[str, Any], str]] = {
    "ScoRNN": ({"negatives": 2}, r"\bO\(8\) with det 1|\bSO\(8\)"),
    "ScuRNN": ({}, r"\bU\(8\)"),
    "URNN": ({}, r"subset of U\(8\)"),
    "FullURNN": ({}, r"\bU\(8\)"),
    "EURNN": ({"capacity": 4}, r"\bU\(8\)"),
    "GORU": ({}, r"\bSO\(8\)"),
    "HouseholderRNN": ({"reflections": 3}, r"\bO\(8\) with det -1"),
    "NnRNN": ({}, r"\bSO\(8\)"),
}


@pytest.mark.parametrize("name", MODELS)
def test_printing_a_model_names_its_manifold(name: str) -> None:
    options, pattern = MODELS[name]
    assert re.search(pattern, repr(getattr(models, name)(PixelMNIST().task, 8, **options)))


@pytest.mark.parametrize("task", [PixelMNIST().task, CopyMemory(delay=5).task], ids=["label", "label_per_step"])
@pytest.mark.parametrize("name", MODELS)
def test_a_model_decodes_its_cell_and_trains_every_parameter(name: str, task: Any) -> None:
    model = getattr(models, name)(task, 8, **MODELS[name][0]).double()
    x = torch.randint(task.input_size, (B, 12)) if task.inputs == "symbols" else torch.rand(B, 12, 1, dtype=F64)
    out = model(x)
    entry = nn.functional.one_hot(x, task.input_size).double() if task.inputs == "symbols" else x
    y, _ = scan(model.cells[0], entry.transpose(0, 1), backend="loop")
    close(out, model.decoder(y.transpose(0, 1) if task.per_step else y[-1]).detach().numpy(), atol=1e-13)
    out.square().sum().backward()
    for key, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), key
    assert model.cells[0].recurrent_parameters()


@pytest.mark.parametrize("name", MODELS)
def test_groups_are_a_partition(name: str) -> None:
    model = getattr(models, name)(PixelMNIST().task, 8, **MODELS[name][0])
    groups = model.configure_optimizers().param_groups
    grouped = [id(p) for group in groups for p in group["params"]]
    assert len(set(grouped)) == len(grouped)
    assert set(grouped) == {id(p) for p in model.parameters()}
    named = {group["name"]: {id(p) for p in group["params"]} for group in groups}
    assert {"recurrent", "other"} <= set(named)
    assert all(id(p) in named["other"] for p in model.decoder.parameters())
    if name == "ScuRNN":  # other, recurrent, phase, with rates of their own
        assert named["phase"] == {id(model.cells[0].recurrent.phase)}
        assert id(model.cells[0].recurrent.skew) in named["recurrent"]


def step_loss(model: Any, x: Tensor, labels: Tensor, monkeypatch: pytest.MonkeyPatch) -> tuple[Tensor, float]:
    """The loss that is differentiated, and the one that is logged."""
    logged: dict[str, Any] = {}
    monkeypatch.setattr(model, "log", lambda key, value, **_: logged.setdefault(key, value))
    loss = model.training_step((x, labels), 0)
    return loss, float(logged["train/loss"].compute())


def test_nnrnn_penalises_gains_in_the_loss_and_not_in_the_log(monkeypatch: pytest.MonkeyPatch) -> None:
    """+ delta sum (gamma - 1)^2; the released code adds it in place to what it logs."""
    torch.manual_seed(0)
    x, labels = torch.rand(B, 5, 1, dtype=F64), torch.tensor([1, 2, 3])
    slopes, gains = [], torch.tensor([1.0, 0.5, 1.5, 1.0], dtype=F64)
    state = None
    for delta in (0.0, 0.3):
        model = models.NnRNN(PixelMNIST().task, 8, gain_penalty=delta).double()
        state = state or {key: v.clone() for key, v in model.state_dict().items()}
        model.load_state_dict(state)
        with torch.no_grad():
            model.cells[0].recurrent.gains.copy_(gains)
        loss, logged = step_loss(model, x, labels, monkeypatch)
        cross_entropy = nn.functional.cross_entropy(model(x), labels).item()
        assert math.isclose(loss.item(), cross_entropy + delta * 0.5, rel_tol=1e-12)
        assert math.isclose(logged, cross_entropy, rel_tol=1e-6)
        loss.backward()
        slopes.append(model.cells[0].recurrent.gains.grad.clone())
    close(slopes[1] - slopes[0], (2 * 0.3 * (gains - 1)).numpy())


def test_nnrnn_decays_only_what_lies_above_the_blocks() -> None:
    """Of W, whatever the optimizer decays: a step of AdamW without gradients leaves gamma and theta where they are."""
    for optimizer in (torch.optim.RMSprop, functools.partial(torch.optim.AdamW, lr=0.1, weight_decay=0.5)):
        model = models.NnRNN(PixelMNIST().task, 8, upper_decay=0.25, optimizer=optimizer)
        form = model.cells[0].recurrent
        stepped = model.configure_optimizers()
        of_W = {id(parameter) for parameter in form.parameters()}
        decayed = {
            id(p): group["weight_decay"] for group in stepped.param_groups for p in group["params"] if id(p) in of_W
        }
        assert {name: decayed[id(p)] for name, p in form.named_parameters() if decayed[id(p)]} == {"upper": 0.25}
        before = {name: p.detach().clone() for name, p in model.named_parameters()}
        for parameter in model.parameters():
            parameter.grad = torch.zeros_like(parameter)
        stepped.step()
        moved = {name for name, p in model.named_parameters() if not torch.equal(p, before[name])}
        assert not {name for name in moved if "recurrent" in name}  # T is 0
        assert ("decoder.weight" in moved) == (optimizer is not torch.optim.RMSprop)


@pytest.mark.parametrize(
    ("name", "size", "options"),
    [
        ("EURNN", 7, {}),
        ("EURNN", 8, {"capacity": 3}),
        ("EURNN", 8, {"capacity": 10}),
        ("EURNN", 6, {"layout": "fft"}),
        ("GORU", 12, {}),
        ("NnRNN", 7, {}),
        ("HouseholderRNN", 4, {"reflections": 5}),
        ("ScoRNN", 4, {"negatives": 5}),
    ],
)
def test_a_model_refuses_what_its_design_does_not_admit(name: str, size: int, options: dict[str, Any]) -> None:
    with pytest.raises(UserError) as refusal:
        getattr(models, name)(PixelMNIST().task, size, **options)
    sentence = str(refusal.value)
    key = next(iter(options), "hidden_size")
    key = "hidden_size" if key == "layout" else key
    assert f"model.init_args.{key}" in sentence and str(options.get(key, size)) in sentence and sentence.endswith(".")


@pytest.mark.parametrize("name", ["ScoRNN", "ScuRNN", "URNN", "FullURNN", "HouseholderRNN"])
@pytest.mark.parametrize("n", [1, 2, 3, 17])
def test_odd_and_tiny_sizes_work(name: str, n: int) -> None:
    model = getattr(models, name)(PixelMNIST().task, n)
    out = model(torch.rand(2, 5, 1))
    assert out.shape == (2, 10) and out.isfinite().all()
