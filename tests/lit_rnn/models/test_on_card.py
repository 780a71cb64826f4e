"""A whole training step of every model on fake CUDA tensors: all on one device, and the host waits for nothing.

What a wait costs on a real GPU, `benchmarks/gpu_models.py` finds out there.
"""

from __future__ import annotations

import functools
from typing import Any

import pytest
import torch
from torch import Tensor

from datamodules import CopyMemory, Parts, Task
from lit_rnn import models, optim
from lit_rnn.dtypes import first
from lit_rnn.models import SequenceModel
from tests.card import Card, card, cuda_autocast
from tests.lit_rnn.models.test_precision import MODELS, MORE

B, T, SYMBOLS = 2, 3, 5
DATA = CopyMemory(delay=1)  # every DataModule moves batches alike
TASK = Task("text", "symbols", SYMBOLS, "next_symbol", SYMBOLS, None, "all", 1.8, "perplexity", False)
VALUE = Task("sums", "values", 2, "value", 1, T, "all", 0.2, "mse", False)

# what waits, with the reason; everything else may not
ALLOWED: dict[str, dict[str, int]] = {}


def symbols() -> Tensor:
    return torch.arange(B * T).view(B, T) % SYMBOLS


def built(name: str, task: Task = TASK, **options: Any) -> SequenceModel:
    model: SequenceModel = getattr(models, name)(task, 8, **MORE.get(name, {}), **options)
    for unused in [meter for meter in model.meters if not meter.startswith("train")]:
        del model.meters[unused]
    model.log = lambda *_, **__: None  # type: ignore[method-assign]  # there is no Trainer
    return model


def step(model: SequenceModel, batch: Any, at: Card, number: int = 0) -> Tensor:
    """Forward, backward, optimizer and the hooks behind it, as a Trainer does them; the loss."""
    model.to("cuda")
    optimizer: Any = model.configure_optimizers()
    moved = DATA.transfer_batch_to_device(batch, torch.device("cuda", 0), 0)
    at.waits.clear()
    model.optimizer_steps = number
    loss = model.training_step(moved, 0)
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    return loss


@pytest.mark.parametrize("name", MODELS)
def test_every_model(name: str) -> None:
    model = built(name)
    with card() as at:
        loss = step(model, (symbols(), symbols()), at, number=99)  # the next is one that rebases
        assert at.waits == ALLOWED.get(name, {})
        assert {tensor.device.type for tensor in (loss, *model.parameters(), *model.buffers())} == {"cuda"}


def test_a_bar_does_not_make_the_host_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lightning reads what it is given for its bar at every step."""
    model, shown = built("VanillaRNN"), dict[str, bool]()
    monkeypatch.setattr(model, "log", lambda name, value, prog_bar=False, **_: shown.update({name: prog_bar}))
    model.training_step((symbols(), symbols()), 0)
    assert [name for name, bar in shown.items() if bar] == ["train/loss_step"]
    with card() as at:
        step(model, (symbols(), symbols()), at)
        assert not shown["train/loss_step"]


@pytest.mark.parametrize("name", ["ExpRNN", "EURNN", "GORU", "LSTM", "NRU", "StatisticalRU", "LRU", "DeltaProduct"])
def test_mixed_precision(name: str) -> None:
    """Under bfloat16 on ``cuda`` W and the states are in single precision; cuDNN has its own way."""
    model = built(name)
    with card(told=False):
        model.to("cuda")
        inputs = symbols()[:, :1].to("cuda")
        model.options.backend = "loop" if "torch" in model.backends() else "auto"
        with cuda_autocast():
            half = model.decoder(torch.ones(1, model.decoder.in_features, device="cuda"))
            _, (states,) = model.features(inputs)
            W = first(model.cell_list()[0].weights())
        assert half.dtype == torch.bfloat16  # so it was on
        assert {tensor.dtype.to_real() for tensor in (*states, *([] if W is None else [W]))} == {torch.float32}


LENGTHS = torch.tensor([3, 1])
MASK = torch.tensor([[True, False, True], [True, True, False]])
RESET = torch.tensor([[True, True, False], [True, False, False]])
OPTIONS: dict[str, tuple[str, Task, Any, dict[str, Any], dict[str, int]]] = {  # model, task, batch, options, waits
    "lengths": ("ExpRNN", TASK, Parts(symbols(), symbols(), lengths=LENGTHS), {}, {}),
    "mask": ("LSTM", TASK, Parts(symbols(), symbols(), MASK), {}, {}),
    "mask and lengths": ("GRU", TASK, (symbols(), symbols(), MASK, LENGTHS), {}, {}),
    "streams": ("ScuRNN", TASK, Parts(symbols(), symbols(), reset=RESET), {}, {}),
    "both ways": ("MinGRU", VALUE, (torch.rand(B, T, 2), torch.rand(B, 1), LENGTHS), {"bidirectional": True}, {}),
    "mean of lengths": ("LEM", VALUE, (torch.rand(B, T, 2), torch.rand(B, 1), LENGTHS), {"pooling": "mean"}, {}),
    "dropouts": (
        "JANET",
        TASK,
        (symbols(), symbols()),
        {"embedding_size": 4, **{f"{place}_dropout": 0.5 for place in ("embedding", "input", "output", "weight")}},
        {},
    ),
    "layers": ("CoRNN", TASK, (symbols(), symbols()), {"layers": 2, "norm": "rms", "residual": True}, {}),
    "deep form": (
        "GRU",
        TASK,
        Parts(symbols(), symbols(), lengths=LENGTHS),
        {
            "encoder_size": 8,
            "layers": 2,
            "norm": "layer",
            "residual": True,
            "mixing": "glu",
            "branch_dropout": 0.5,
        },
        {},
    ),
    "recomputed": ("ScoRNN", TASK, (symbols(), symbols()), {"checkpoint_every": 2}, {}),
    "unitary, trivialized": ("DtrivRNN", TASK, (symbols(), symbols()), {"unitary": True, "map": "cayley"}, {}),
    # an SVD ends with a look at whether it converged: where W's own map does not keep it inside
    "projected": (
        "DtrivRNN",
        TASK,
        (symbols(), symbols()),
        {"project_every": 1, "rebase_every": 1},
        {"_linalg_svd": 1},
    ),
    "bounded by norm": (
        "LSTM",
        TASK,
        (symbols(), symbols()),
        {"recurrent_constraint": "spectral_norm"},
        {"_linalg_svd": 1},
    ),
    "bounded by radius": (
        "VanillaRNN",
        TASK,
        (symbols(), symbols()),
        {"recurrent_constraint": "spectral_radius"},
        {"linalg_eig": 1},
    ),
    "penalty of norms": ("LSTM", TASK, (symbols(), symbols()), {"norm_penalty": 0.1}, {"_linalg_svd": 4}),
    "Adam": ("GORU", TASK, (symbols(), symbols()), {"optimizer": torch.optim.Adam}, {}),
    **{
        name: ("FullURNN", TASK, (symbols(), symbols()), {"optimizer": getattr(optim, name)}, {})
        for name in ("RiemannianSGD", "RiemannianRMSprop", "RiemannianAdam")
    },
    **{
        f"retraction {name}": (
            "FullURNN",
            TASK,
            (symbols(), symbols()),
            {"optimizer": functools.partial(optim.RiemannianSGD, retraction=name)},
            {"_linalg_svd": 1} if name == "polar" else {},
        )
        for name in ("polar", "exp")
    },
    **{
        name: ("VanillaRNN", TASK, (symbols(), symbols()), {"optimizer": getattr(optim, name)}, {})
        for name in ("RMSpropTF", "AdamTF")
    },
}


@pytest.mark.parametrize("case", OPTIONS)
def test_options(case: str) -> None:
    name, task, batch, options, waits = OPTIONS[case]
    model = built(name, task, **options)
    with card() as at:
        step(model, batch, at)
        assert at.waits == waits


def test_a_fault_is_found() -> None:
    """Each of these would stop the host, or fail, on a real GPU."""
    with card() as at:
        x = torch.ones(2, 2).to("cuda", non_blocking=True)
        assert not at.waits
        for fault in (lambda: x.sum().item(), lambda: bool((x > 0).all()), lambda: x[x > 0], lambda: x + torch.ones(2)):
            with pytest.raises(Exception, match=r"_local_scalar_dense|nonzero|(two|different) devices|cpu and cuda"):
                fault()
        torch.linalg.solve(x, x)
        x.cpu()
        x.new_tensor([1.0, 2.0])
        torch.linalg.svdvals(x)
        assert at.waits == {"_linalg_check_errors": 1, "a copy from cuda": 1, "a copy from cpu": 1, "_linalg_svd": 1}
    with pytest.raises(AssertionError, match=r"test_on_card.py.*DataDependent"), card():
        torch.ones(1, device="cuda").item()
