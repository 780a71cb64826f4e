"""A user's cell that mixes sequences or steps trains as well as another: a warning tells, before the first step."""

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from pytorch_lightning import Trainer

from datamodules import Adding, CopyMemory
from lit_rnn.cells import VanillaRNNCell
from lit_rnn.models import LSTM, SequenceModel


class Plain(VanillaRNNCell):
    def __init__(self, input_size: int) -> None:
        super().__init__(input_size, 5)


class Counts(Plain):
    passes = 0

    def weights(self) -> Any:
        self.passes += 1
        return super().weights() / self.passes


class OverRows(Plain):
    def drive(self, x: torch.Tensor, w: Any) -> torch.Tensor:
        return super().drive(x - x.mean(1, keepdim=True), w)


class OverSteps(Plain):
    def drive(self, x: torch.Tensor, w: Any) -> torch.Tensor:
        return super().drive(x.flip(0), w)


class StepsBefore(Plain):
    """A causal convolution of its inputs: right in one pass, and nowhere else."""

    def drive(self, x: torch.Tensor, w: Any) -> torch.Tensor:
        return super().drive(torch.cat((x[:1], x[1:] + x[:-1])), w)


class Remembers(Plain):
    def weights(self) -> Any:
        self.sum = 0
        return super().weights()

    def step(self, u: torch.Tensor, state: Any, w: Any) -> Any:
        y, state = super().step(u, state, w)
        self.sum = self.sum + y
        return self.sum, state


class InTraining(Plain):
    """Each is right in training alone."""

    def drive(self, x: torch.Tensor, w: Any) -> torch.Tensor:
        return super().drive(torch.nn.functional.dropout(x - x.mean() * self.training, training=self.training), w)


class InPlace(Plain):
    def step(self, u: torch.Tensor, state: Any, w: Any) -> Any:
        h = state[0].mul_(0.5).add_(u)
        return h, (h,)


class Refuses(Plain):
    """Reads whole sequences alone; that is not for us to refuse."""

    def drive(self, x: torch.Tensor, w: Any) -> torch.Tensor:
        assert len(x) == 14 or self.training
        return super().drive(x, w)


def told(kind: type[Plain], data: Adding | CopyMemory, **options: Any) -> list[str]:
    class Model(SequenceModel):
        def build_cell(self, input_size: int) -> Plain:
            return kind(input_size)

    model, random = Model(data.task, 5, **options), torch.get_rng_state()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model._parts(next(iter(data.train_dataloader())), "train", 0)
    assert torch.equal(random, torch.get_rng_state()), "the same run with and without it"
    return [str(one.message) for one in caught]


@pytest.mark.parametrize("data", [Adding(length=14, batch_size=4), CopyMemory(delay=3, symbols=2, batch_size=4)])
@pytest.mark.parametrize(
    ("kind", "said"),
    [
        (Plain, None),
        (Counts, "give other outputs the second time"),
        (OverRows, "depends on the others of the batch"),
        (OverSteps, "depends on later steps"),
        (StepsBefore, "does not go on from its state"),
        (Remembers, "does not go on from its state"),
        (InPlace, "or step changes in place what it gave before"),
        (InTraining, None),
        (Refuses, None),
    ],
)
def test_what_a_cell_mixes_is_told(kind: type[Plain], said: str | None, data: Adding | CopyMemory) -> None:
    found = told(kind, data)
    assert (len(found) == 1 and found[0].startswith(f"{kind.__name__}: ") and said in found[0]) if said else not found


def test_dropout_of_the_model_is_none_of_the_cell_s() -> None:
    data = CopyMemory(delay=3, symbols=2, batch_size=4)
    assert not told(Plain, data, embedding_size=5, embedding_dropout=0.5, weight_dropout=0.5)


def test_ours_are_not_looked_at_and_a_run_is_told_once(tmp_path: Path) -> None:
    data = Adding(length=14, batch_size=4, train_samples=8, val_samples=4)

    class Mixing(SequenceModel):
        def build_cell(self, input_size: int) -> Plain:
            return OverRows(input_size)

    options: dict[str, Any] = {
        "max_epochs": 2,
        "logger": False,
        "enable_checkpointing": False,
        "default_root_dir": tmp_path,
    }
    options |= {"accelerator": "cpu", "enable_progress_bar": False, "enable_model_summary": False}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        Trainer(**options).fit(Mixing(data.task, 5), data)
        Trainer(**options).fit(LSTM(data.task, 5), data)
    assert sum("mixes rows" in str(one.message) for one in caught) == 1
