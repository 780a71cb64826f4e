"""Lightning's precisions: every model trains, validates and resumes; maps stay exact, and W is applied as it is."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from datamodules import Adding, CopyMemory, SequenceDataModule, UserError
from lit_rnn import models
from lit_rnn.models import SequenceModel
from lit_rnn.parametrizations import OrthogonalMap
from lit_rnn.parametrizations.orthogonal import double
from lit_rnn.scan.run import supports
from tests.trainers import quiet_trainer

N = 8
MODELS = sorted(
    name
    for name in models.__all__
    if isinstance(cls := getattr(models, name), type)
    and issubclass(cls, SequenceModel)
    and cls not in (SequenceModel, models.OrthogonalRNN)
)
MORE: dict[str, dict[str, Any]] = {
    "NRU": {"memory_size": 4},
    "StatisticalRU": {"statistics_size": 4, "summary_size": 4},
}
PRECISIONS = {
    "64-true": torch.float64,
    "32-true": torch.float32,
    "bf16-mixed": torch.float32,
    "bf16-true": torch.bfloat16,
    "16-true": torch.float16,
}
RIVALS = {name for name in MODELS if getattr(models, name).__module__ == "lit_rnn.models.rivals"}
CASES = [  # the rivals have no maps of their own: mixed precision and the coarsest are enough
    (name, precision)
    for name in MODELS
    for precision in PRECISIONS
    if name not in RIVALS or precision in ("bf16-mixed", "16-true")
]
SIZES: Any = {"train_samples": 16, "val_samples": 8, "batch_size": 8}


def symbols() -> SequenceDataModule:
    return CopyMemory(delay=3, **SIZES)


def values() -> SequenceDataModule:
    return Adding(length=6, **SIZES)


def build(name: str, data: SequenceDataModule, **options: Any) -> SequenceModel:
    torch.manual_seed(1)
    prefix = "lit_rnn.optim.Riemannian" if name == "FullURNN" else "torch.optim."
    optimizer = {"class_path": f"{prefix}RMSprop", "init_args": {"lr": 1e-3, "eps": 1e-3}}  # float16 has no 1e-8
    return getattr(models, name)(asdict(data.task), N, optimizer=optimizer, **MORE.get(name, {}), **options)


def check(model: SequenceModel, precision: str) -> None:
    """Finite, in the dtype that was asked for, and the maps as exact as theirs."""
    assert model.decoder.weight.dtype == PRECISIONS[precision]
    assert all(parameter.isfinite().all() for parameter in model.parameters())
    eps = torch.finfo(torch.float64 if precision == "64-true" else torch.float32).eps
    for module in model.modules():
        if isinstance(module, OrthogonalMap):
            assert module.drift() <= 2 * N * eps
            for parameter in module.parameters():
                assert torch.finfo(parameter.dtype).eps == eps


@pytest.mark.filterwarnings("ignore:You're resuming from a checkpoint that ended")
@pytest.mark.parametrize(("name", "precision"), CASES)
def test_trains_validates_and_resumes(name: str, precision: str, tmp_path: Path) -> None:
    """A run of two epochs equals one that is saved after the first and taken up, bit for bit."""
    model = build(name, symbols())
    whole = quiet_trainer(precision=precision, max_epochs=2)
    whole.fit(model, symbols())
    check(model, precision)
    first = quiet_trainer(precision=precision, max_epochs=1)
    first.fit(build(name, symbols()), symbols())
    first.save_checkpoint(tmp_path / "one.ckpt")
    resumed = build(name, symbols())
    again = quiet_trainer(precision=precision, max_epochs=2)
    again.fit(resumed, symbols(), ckpt_path=tmp_path / "one.ckpt")
    for key, tensor in model.state_dict().items():
        torch.testing.assert_close(resumed.state_dict()[key], tensor, rtol=0, atol=0, msg=key)
    (told,) = again.validate(resumed, symbols(), verbose=False)
    assert told["val/loss"] == pytest.approx(float(whole.callback_metrics["val/loss"]), rel=1e-3)


@pytest.mark.parametrize(("name", "precision"), [case for case in CASES if case[1] != "32-true"])
def test_trains_on_values(name: str, precision: str) -> None:
    model = build(name, values(), layers=2)
    quiet_trainer(precision=precision, max_epochs=1).fit(model, values())
    check(model, precision)


CONSTRAINED = [name for name in MODELS if issubclass(getattr(models, name), models.OrthogonalRNN)]
Run = Callable[[SequenceModel, Tensor], tuple[Tensor, list[Any]]]


@pytest.mark.parametrize("half", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", CONSTRAINED)
def test_states_are_those_of_the_exact_matrix(name: str, half: torch.dtype) -> None:
    """Half a precision rounds the weights around the recurrence once, not the state at every step.

    So a float64 network with the same rounded V, b and h_0 and the same W has the same states up to the rounding of one
    product with V at each step, for each backend, over 200 steps.
    """
    data = symbols()
    model = build(name, data)
    for parameter in model.parameters():  # so that nothing is at a threshold of modReLU or zero
        parameter.data += 0.01 * torch.randn_like(parameter) * (not parameter.is_complex())
    model.to(half)
    exact = copy.deepcopy(model)
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    exact.double()
    x = torch.randint(0, data.task.input_size, (4, 200))
    with torch.no_grad():
        expected = exact.run(x)[1]
    for backend in ("loop", "fused", "native"):
        if not supports(backend, model.cell_list()[0]):
            continue
        model.hparams["backend"] = backend
        with torch.no_grad():
            outputs, states = model.run(x)
        assert outputs.dtype == half
        for state, reference in zip(states[0], expected[0], strict=True):
            assert state.dtype in (torch.float32, torch.complex64)
            assert (state.to(reference.dtype) - reference).abs().max() <= 40 * torch.finfo(half).eps
    assert all(torch.equal(before[key], tensor) for key, tensor in model.state_dict().items())


@pytest.mark.parametrize("name", CONSTRAINED)
def test_a_map_in_double_precision_is_rounded_once(name: str) -> None:
    """W of the same numbers in float64, cast."""
    model = build(name, symbols(), double_precision_map=True)
    exact = copy.deepcopy(model)
    for parameter in exact.parameters():
        parameter.data = double(parameter.data)
    matrices = [m.cell_list()[0].recurrent_matrices() for m in (model, exact)]
    for W, reference in zip(*(found.values() for found in matrices), strict=True):
        assert W.dtype in (torch.float32, torch.complex64) and torch.equal(W, reference.to(W.dtype))


@pytest.mark.parametrize("name", ["ExpRNN", "FullURNN", "GORU", "LSTM"])
def test_backends_have_the_same_gradients_in_bfloat16(name: str) -> None:
    data = symbols()
    model = build(name, data)
    model.to(torch.bfloat16)
    x = torch.randint(0, data.task.input_size, (4, 30))
    gradients = {}
    for backend in ("loop", "auto"):
        model.hparams["backend"] = backend
        model.zero_grad()
        model(x).float().square().mean().backward()
        gradients[backend] = {key: parameter.grad for key, parameter in model.named_parameters()}
    for key, gradient in gradients["loop"].items():
        scale = gradient.abs().max().float()
        difference = (gradients["auto"][key] - gradient).abs().max()
        assert difference <= 8 * torch.finfo(torch.bfloat16).eps * scale, key


@pytest.mark.parametrize(
    ("name", "backend"),
    [("ExpRNN", "auto"), ("LSTM", "loop"), ("StatisticalRU", "loop")],
)
def test_the_loss_falls_as_in_single_precision(name: str, backend: str) -> None:
    """Mixed: 12 steps on the same batches; the curves lie apart by a tenth of what other starts do, at most."""

    def curve(precision: str, seed: int) -> Tensor:
        data = CopyMemory(delay=2, train_samples=96, batch_size=8)
        torch.manual_seed(seed)
        model = getattr(models, name)(asdict(data.task), N, backend=backend, **MORE.get(name, {}))
        optimizer = torch.optim.Adam(model.parameters(), 3e-3)
        losses = []
        for inputs, targets in data.loader("train"):
            with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16-mixed"):
                loss = model.loss_of(model(inputs), targets)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.detach())
        return torch.stack(losses)

    single, other, mixed = curve("32-true", 1), curve("32-true", 2), curve("bf16-mixed", 1)
    assert single[-3:].mean() < 0.98 * single[:3].mean()
    assert 0 < (mixed - single).abs().max() < 0.1 * (other - single).abs().max()


def test_a_checkpoint_in_float64_loads_as_it_is(tmp_path: Path) -> None:
    model = build("FullURNN", symbols())
    first = quiet_trainer(precision="64-true", max_epochs=1)
    first.fit(model, symbols())
    first.save_checkpoint(tmp_path / "one.ckpt")
    loaded = models.load(tmp_path / "one.ckpt")
    for key, tensor in model.state_dict().items():
        torch.testing.assert_close(loaded.state_dict()[key], tensor, rtol=0, atol=0)


def test_an_eps_that_the_precision_takes_for_zero_is_refused() -> None:
    model = models.LSTM(asdict(symbols().task), N)
    with pytest.raises(UserError, match=r"optimizer\.init_args\.eps is 1e-08.*float16.*bf16-true"):
        quiet_trainer(precision="16-true", max_epochs=1).fit(model, symbols())
