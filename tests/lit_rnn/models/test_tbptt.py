"""Truncated backpropagation: states go on over chunk borders, gradients do not, and a resume changes nothing."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from datamodules import Parts, Series, StreamDataModule, Task, UserError
from lit_rnn import models
from lit_rnn.models import SequenceModel
from lit_rnn.models.carried import Carried
from tests.trainers import SaveEachStep, quiet_trainer

SYMBOLS, STEPS = 6, 61
CPU = torch.device("cpu")
TASK = Task("text", "symbols", SYMBOLS, "next_symbol", SYMBOLS, None, "all", 1.8, "perplexity", False)
MODELS: dict[str, dict[str, Any]] = {
    "LSTM": {"layers": 2, "learn_initial_state": True},
    "ExpRNN": {},
    "ScuRNN": {},
    "NRU": {"memory_size": 16},
}


class Text(StreamDataModule):
    def __init__(self, documents: tuple[int, ...] = (), **options: Any) -> None:
        super().__init__(**{"tbptt": 7, "batch_size": 2, **options})
        self.task, self.documents = TASK, documents

    def series(self, name: str) -> Series:
        generator = torch.Generator().manual_seed(len(name))
        begins = torch.zeros(STEPS, dtype=torch.bool)
        begins[list(self.documents)] = True
        return Series.of_symbols(torch.randint(SYMBOLS, (STEPS,), generator=generator), begins)


def built(name: str, **options: Any) -> SequenceModel:
    torch.manual_seed(0)
    model = getattr(models, name)(TASK, 5, **MODELS[name], **options)
    model._log_meters = lambda *_: None  # no Trainer to log to
    return model


def chunks(documents: tuple[int, ...] = ()) -> list[Parts]:
    return list(Text(documents).loader("train"))  # type: ignore[arg-type]


@pytest.mark.parametrize("documents", [(), (3, 14, 33, 34)])
@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("backend", ["loop", "auto"])
def test_chunks_say_what_the_whole_series_says(name: str, documents: tuple[int, ...], backend: str) -> None:
    """Each document of each stream alone, in one pass."""
    model, given = built(name, backend=backend).double(), chunks(documents)
    found = torch.cat([model.decode(model._features_of(part, "val")) for part in given], dim=1)
    inputs = torch.cat([part.inputs for part in given], dim=1)
    for b, row in enumerate(inputs):
        borders = sorted({0, len(row), *(start - b * 30 for start in documents if b * 30 < start < b * 30 + 30)})
        for start, stop in itertools.pairwise(borders):
            expected = model(row[None, start:stop])[0]
            torch.testing.assert_close(found[b, start:stop], expected, rtol=1e-12, atol=1e-12)


def test_no_gradient_crosses_a_border() -> None:
    """That of a chunk is of its own steps from a state that is given: a loop over two chunks, by hand."""
    model = built("LSTM").double()
    first, second = chunks()[:2]
    for part in (first, second):
        loss = model._shared_step(part, "train")
    found = torch.autograd.grad(loss, list(model.parameters()), materialize_grads=True)
    _, states = model.run(first.inputs)
    given = [tuple(part.detach() for part in state) for state in states]
    outputs, _ = model.run(second.inputs, given)
    expected = torch.autograd.grad(
        model.loss_of(outputs, second.targets), list(model.parameters()), materialize_grads=True
    )
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    carried = model.carried.before("train", second.reset, CPU) or ()
    assert all(not part.requires_grad for state in carried for part in state)


def test_a_chunk_out_of_order_is_refused() -> None:
    model = built("LSTM")
    with pytest.raises(UserError, match="A chunk of 2 streams goes on from one that was not seen"):
        model._shared_step(chunks()[1], "train")
    model._shared_step(chunks()[0], "train")
    with pytest.raises(UserError, match="not seen"):  # of this stage
        model._shared_step(chunks()[1], "val")


def test_streams_of_all_processes_are_kept_and_shared_out_anew() -> None:
    """Two processes, each with states of its own, one of them complex; then two again, and one."""
    ranks = [Carried(), Carried()]
    state = [[torch.randn(2, 3), torch.randn(2, 2, dtype=torch.complex64)] for _ in ranks]
    for rank, parts in zip(ranks, state, strict=True):
        rank.keep("train", [tuple(parts)])
    order = iter(range(2))

    def gather(part: Tensor) -> Tensor:  # as torch.distributed: of all processes, stacked
        number = next(order)
        others = [parts[number] for parts in state]
        return torch.stack([torch.view_as_real(part) if part.is_complex() else part for part in others])

    kept = ranks[0].note("train", gather, 2)
    reset = torch.zeros(2, 1, dtype=torch.bool)
    for number in range(2):
        again = Carried()
        again.take_up("train", kept, number, 2)
        (found,) = again.before("train", reset, CPU) or ()
        assert all(torch.equal(a, b) for a, b in zip(found, state[number], strict=True))
    alone = Carried()
    alone.take_up("train", kept, 0, 1)
    (found,) = alone.before("train", torch.zeros(4, 1, dtype=torch.bool), CPU) or ()
    assert torch.equal(found[0], torch.cat([parts[0] for parts in state]))


def trained(folder: Path, checkpoint: Path | None = None, name: str = "LSTM", **options: Any) -> SequenceModel:
    torch.manual_seed(0)
    model = getattr(models, name)(TASK, 5, **MODELS[name])
    callbacks = [SaveEachStep(folder)] if checkpoint is None else []
    trainer = quiet_trainer(max_epochs=2, num_sanity_val_steps=1, callbacks=callbacks, **options)
    trainer.fit(model, datamodule=Text((9, 40)), ckpt_path=checkpoint)
    return model


@pytest.mark.parametrize("name", ["LSTM", "ScuRNN"])
def test_a_resume_inside_an_epoch_changes_nothing(name: str, tmp_path: Path) -> None:
    """Five steps an epoch: from the second, the last, and the seventh."""
    (tmp_path / "whole").mkdir()
    whole = trained(tmp_path / "whole", name=name).state_dict()
    for step in (2, 5, 7):
        again = trained(tmp_path, tmp_path / "whole" / f"{step}.ckpt", name).state_dict()
        assert all(torch.equal(again[key], value) for key, value in whole.items()), step


def test_a_validation_inside_an_epoch_does_not_disturb_the_streams(tmp_path: Path) -> None:
    whole = trained(tmp_path).state_dict()
    watched = trained(tmp_path, val_check_interval=2).state_dict()
    for key in (key for key in whole if not key.startswith("meters.")):
        assert torch.equal(watched[key], whole[key])
