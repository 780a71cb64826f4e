"""Adversarial training is training on the inputs that PGD makes."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from datamodules import Adding, CopyMemory, PixelDigits, Task
from datamodules.errors import UserError
from lit_rnn.models import LSTM, SequenceModel, VanillaRNN, load
from lit_rnn.robustness import pgd
from tests.forked import forked_ranks

PIXELS = PixelDigits().task
ADDING = Adding(length=6).task
FRAMES = Task("frames", "values", 2, "frame_per_step", 3, None, "mask", 1.0, "mse", False)


def heard(model: SequenceModel, batch: tuple[Tensor, ...], monkeypatch: pytest.MonkeyPatch) -> Tensor:
    """The inputs that a training step computes its loss on."""
    seen: list[Tensor] = []
    monkeypatch.setattr(model, "_shared_step", lambda batch, stage: seen.append(batch[0]) or torch.zeros(()))
    monkeypatch.setattr(model, "log", lambda *_, **__: None)
    model.training_step(batch, 3)
    return seen[0]


def test_the_batch_is_what_pgd_makes_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    model = VanillaRNN(PIXELS, 8, adversarial={"eps": 0.1, "bounds": [0, 1], "steps": 5})
    x, y = torch.rand(4, 9, 1), torch.tensor([0, 1, 2, 3])
    state = torch.random.get_rng_state()
    moved = heard(model, (x, y), monkeypatch)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert torch.equal(moved, pgd(model, x, y, 0.1, bounds=(0, 1), steps=5, seed=3 << 12))
    assert (moved - x).abs().max() <= 0.1 + 1e-6 and moved.min() >= 0 and moved.max() <= 1
    assert model.training and all(p.grad is None and p.requires_grad for p in model.parameters())
    with torch.no_grad():
        losses = [model.loss_of(model(inputs), y) for inputs in (x, moved)]
    assert losses[1] > losses[0]


def test_channels_and_masks(monkeypatch: pytest.MonkeyPatch) -> None:
    model = LSTM(ADDING, 6, adversarial={"eps": 0.1, "channels": [0]})
    x = torch.rand(4, 6, 2)
    moved = heard(model, (x, torch.rand(4, 1)), monkeypatch)
    assert torch.equal(moved[..., 1], x[..., 1]) and not torch.equal(moved[..., 0], x[..., 0])
    model = LSTM(FRAMES, 6, adversarial={"eps": 0.1, "norm": 2})
    x, mask = torch.rand(4, 5, 2), torch.arange(5) < torch.tensor([5, 4, 3, 1])[:, None]
    moved = heard(model, (x, torch.rand(4, 5, 3), mask), monkeypatch)
    late = (moved - x).abs().amax(-1)
    assert bool((late.amax(1) > 0).all())
    assert (moved - x).flatten(1).norm(dim=1).max() <= 0.1 + 1e-6


@pytest.mark.parametrize(("data", "held"), [(PixelDigits(pixels_per_step=8, pad_to=11), 8), (Adding(length=6), None)])
def test_what_decides_the_answer_and_noise_are_held(data: Any, held: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Noise behind an image lies outside the box that holds the image; a marked number is what is added."""
    model = VanillaRNN(data.task, 6, adversarial={"eps": 0.3, "bounds": [0, 1], "steps": 2})
    monkeypatch.setattr("lit_rnn.models.base.data_of", lambda _: data)
    x, y = data.split("train")[np.arange(5)]
    moved, free = heard(model, (x, y), monkeypatch), torch.zeros_like(x, dtype=torch.bool)
    if held is None:
        free[..., 0] = x[..., 1] == 0
    else:
        free[:, :held] = True
        assert x[~free].min() < 0 and x[~free].max() > 1
    assert torch.equal(moved[~free], x[~free]) and (moved - x)[free].abs().amax() > 0.1
    assert (moved - x).abs().amax() <= 0.3 + 1e-6 and moved[free].min() >= 0 and moved[free].max() <= 1


@pytest.mark.parametrize(("step", "radius"), [(0, 0.0), (1, 0.025), (3, 0.075), (4, 0.1), (9, 0.1)])
def test_the_radius_grows_evenly_to_eps(step: int, radius: float, monkeypatch: pytest.MonkeyPatch) -> None:
    model = VanillaRNN(PIXELS, 8, adversarial={"eps": 0.1, "warmup": 4})
    model.optimizer_steps = step
    x = torch.rand(4, 9, 1)
    moved = heard(model, (x, torch.tensor([0, 1, 2, 3])), monkeypatch)
    assert (moved - x).abs().max().item() == pytest.approx(radius, rel=1e-5)


def test_bad_options() -> None:
    with pytest.raises(UserError, match="are symbols"):
        LSTM(CopyMemory(delay=3).task, 4, adversarial={"eps": 0.1})
    for options, words in (
        ({}, "eps"),
        ({"eps": 0.1, "radius": 1}, "eps and, at will"),
        ({"eps": -1}, "eps is -1"),
        ({"eps": "much"}, "eps is 'much'"),
        ({"eps": math.nan}, "eps is nan"),
        ({"eps": 0.1, "norm": 1}, "norm is 1"),
        ({"eps": 0.1, "steps": 0}, "steps is 0"),
        ({"eps": 0.1, "steps": True}, "steps is true"),
        ({"eps": 0.1, "channels": [2]}, "channels"),
        ({"eps": 0.1, "channels": [True]}, "channels"),
        ({"eps": 0.1, "warmup": -1}, "warmup is -1"),
        ({"eps": 0.1, "warmup": True}, "warmup is true"),
    ):
        with pytest.raises(UserError, match=words):
            LSTM(ADDING, 4, adversarial=options)  # type: ignore[arg-type]


@pytest.mark.usefixtures("_no_pictures")
@pytest.mark.parametrize("norm", ["inf", ".inf", 2])
def test_a_run_trains_saves_and_loads(cli: Any, tmp_path: Any, norm: object) -> None:
    (tmp_path / "c.yaml").write_text(
        f"""
seed_everything: 1
threads: 1
model:
  class_path: VanillaRNN
  init_args: {{hidden_size: 8, adversarial: {{eps: 0.1, norm: {norm}, steps: 2, bounds: [0, 1]}}}}
data: {{class_path: PixelDigits, init_args: {{batch_size: 64}}}}
trainer: {{max_epochs: 1, limit_train_batches: 3, limit_val_batches: 1, accelerator: cpu, log_every_n_steps: 1}}
"""
    )
    done = cli("fit", "-c", "c.yaml", "--run_dir", "r")
    assert done.status == 0 and done.err == "", done.err
    model = load("r/checkpoints/last.ckpt")
    assert model.options.adversarial["eps"] == 0.1 and model.adversarial is not None


RECORDER = """
import torch
from pytorch_lightning import Callback


class Recorder(Callback):
    def __init__(self, folder: str) -> None:
        self.folder, self.kept = folder, {}

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.kept = {"batch": batch, "before": {k: v.clone() for k, v in pl_module.state_dict().items()}}

    def on_train_end(self, trainer, pl_module):
        self.kept["after"] = pl_module.state_dict()
        torch.save(self.kept, f"{self.folder}/rank{trainer.global_rank}.pt")
"""


def test_two_ranks_take_the_mean_of_their_own_attacks(tmp_path: Any) -> None:
    """One step of SGD under DDP, computed again by hand: each rank attacks its own batch, gradients are averaged."""
    (tmp_path / "adversarial_recorder.py").write_text(RECORDER)
    (tmp_path / "c.yaml").write_text(
        f"""
seed_everything: 1
threads: 1
model:
  class_path: VanillaRNN
  init_args:
    hidden_size: 5
    optimizer: {{class_path: SGD, init_args: {{lr: 0.5}}}}
    adversarial: {{eps: 0.2, steps: 2, bounds: [0, 1], channels: [0]}}
data: {{class_path: Adding, init_args: {{length: 6, batch_size: 4, train_samples: 8, val_samples: 4}}}}
trainer:
  max_steps: 1
  limit_val_batches: 0
  log_every_n_steps: 1
  callbacks: [{{class_path: adversarial_recorder.Recorder, init_args: {{folder: {tmp_path}}}}}]
"""
    )
    done = forked_ranks(tmp_path, "fit", "-c", "c.yaml", "--run_dir", "r")
    assert done.returncode == 0 and done.stderr == "", done.stderr
    ranks = [torch.load(tmp_path / f"rank{rank}.pt", weights_only=True) for rank in (0, 1)]
    assert not torch.equal(ranks[0]["batch"][0], ranks[1]["batch"][0])
    model = VanillaRNN(ADDING, 5, adversarial={"eps": 0.2, "steps": 2, "bounds": [0, 1], "channels": [0]})
    gradients: list[list[Tensor]] = []
    for rank, kept in enumerate(ranks):
        model.load_state_dict(kept["before"])
        x, y = kept["batch"]
        mask = torch.stack((x[..., 1] == 0, torch.zeros_like(x[..., 1], dtype=torch.bool)), dim=-1)  # nor what is added
        moved = pgd(model, x, y, 0.2, bounds=(0, 1), steps=2, loss="squared_error", mask=mask, seed=rank)
        assert not torch.equal(moved, x)
        gradients.append(list(torch.autograd.grad((model(moved) - y).square().mean(), list(model.parameters()))))
    for (name, _), first, second in zip(model.named_parameters(), *gradients, strict=True):
        expected = ranks[0]["before"][name] - 0.5 * (first + second) / 2
        for kept in ranks:
            torch.testing.assert_close(kept["after"][name], expected, rtol=1e-5, atol=1e-6)
