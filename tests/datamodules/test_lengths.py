"""Other lengths than that of training, and a curriculum: which samples, of which length, in which batch."""

from __future__ import annotations

import copy
import math
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch

from datamodules import Adding, CopyMemory, Denoise, LengthDataModule, UserError
from datamodules.base import random_words
from lit_rnn.models import ExpRNN
from tests.trainers import SaveEachStep, quiet_trainer

SMALL: dict[str, Any] = {"train_samples": 48, "val_samples": 7, "test_samples": 5, "batch_size": 8, "seed": 3}
KINDS: dict[str, tuple[type[LengthDataModule], dict[str, Any], dict[str, Any]]] = {
    # the class, its options, and those that make the same data with a length of 30
    "copying": (CopyMemory, {"delay": 12}, {"delay": 30}),
    "variable copying": (CopyMemory, {"delay": 12, "variable": True}, {"delay": 30}),
    "copying, exprnn": (CopyMemory, {"delay": 12, "protocol": "exprnn"}, {"delay": 30, "protocol": "exprnn"}),
    "adding": (Adding, {"length": 12}, {"length": 30}),
    "denoising": (Denoise, {"delay": 12}, {"delay": 30}),
    "denoising, goru": (Denoise, {"delay": 12, "protocol": "goru"}, {"delay": 30, "protocol": "goru"}),
}


def lengths(data: LengthDataModule, processes: int = 1, **place: Any) -> list[list[int]]:
    """The number of steps of every batch of an epoch, process by process."""
    found = []
    for rank in range(processes):
        loader = data.loader("train", rank, processes)
        loader.load_state_dict({"epoch": 0, "position": 0, "steps": len(loader), **place})
        found.append([batch[0].shape[1] for batch in loader])
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_another_length_is_measured_as_data_of_that_length(kind: str) -> None:
    """Sample by sample the validation and test sets of a module whose own length it is, each once on two ranks."""
    cls, options, alone = KINDS[kind]
    data, there = cls(val_lengths=[30], **options, **SMALL), cls(**alone, **SMALL)
    assert data.other_tasks() == {30: there.task}
    for split in ("val", "test"):
        (other,) = data.other_splits(split)
        if kind != "variable copying":  # it has another word for each sample, its delay
            for mine, theirs in zip(other[np.arange(5)], there.split(split)[np.arange(5)], strict=True):
                assert torch.equal(mine, theirs)
        loaders = [data._loader_of(other, split, rank, 2) for rank in (0, 1)]
        seen = torch.cat([batch[0] for loader in loaders for batch in loader])
        assert sorted(seen.flatten(1).tolist()) == sorted(other[np.arange(len(other))][0].flatten(1).tolist())
    for loaded, count in ((data.val_dataloader(), 7), (data.test_dataloader(), 5)):
        assert [len(loader.split) for loader in loaded] == [count, count]
        assert loaded[0].split[np.arange(2)][0].shape[1] <= loaded[1].split[np.arange(2)][0].shape[1]
    assert not isinstance(there.val_dataloader(), list)


def test_variable_copying_is_measured_at_just_that_delay() -> None:
    data = CopyMemory(delay=4, variable=True, val_lengths=[9], **SMALL)
    (other,) = data.other_splits("val")
    assert {other[np.arange(i, i + 1)][0].shape[1] for i in range(7)} == {29}
    assert data.other_tasks()[9].chance == pytest.approx(10 * math.log(8) / 29)
    assert data.task.length is None and data.task.name == "variable_copy_memory"


@pytest.mark.parametrize("processes", [1, 2, 3])
def test_by_steps_every_batch_has_the_length_of_its_number(processes: int) -> None:
    """Counted over epochs, by a loop; 50 samples leave some out of every epoch, and no rank may be ahead."""
    options = {**SMALL, "train_samples": 50, "batch_size": 4, "curriculum": {"lengths": [3, 7], "steps": [5, 13]}}
    data = Adding(length=11, **options)
    number, expected, given = 0, [], []
    for epoch in range(4):
        for _ in range(50 // (4 * processes)):
            expected.append(3 if number < 5 else 7 if number < 13 else 11)
            number += 1
        ranks = lengths(data, processes, epoch=epoch)
        assert all(rank == ranks[0] for rank in ranks)
        given += ranks[0]
    assert given == expected


def test_a_sample_of_a_stage_is_a_function_of_seed_index_and_length() -> None:
    data = CopyMemory(delay=9, curriculum={"lengths": [2], "steps": [3]}, **SMALL)
    split = data.split("train").read_by(8)
    first, later = split[np.arange(8, 16)], split[np.arange(24, 32)]
    words = random_words(3, "train", np.arange(8, 16), 10)
    assert torch.equal(first[0], data.make_at(words, 2)[0]) and later[0].shape[1] == 29
    assert torch.equal(later[0], CopyMemory(delay=9, **SMALL).split("train")[np.arange(24, 32)][0])
    workers = CopyMemory(delay=9, curriculum={"lengths": [2], "steps": [3]}, **SMALL, num_workers=2)
    pairs = zip(data.loader("train"), workers.loader("train"), strict=True)
    assert all(torch.equal(one[0], other[0]) for one, other in pairs)


def test_of_variable_copying_the_longest_delay_grows() -> None:
    curriculum = {"lengths": [2], "steps": [300]}
    data = CopyMemory(delay=9, variable=True, curriculum=curriculum, **{**SMALL, "train_samples": 4800})
    given = np.array(lengths(data)[0]) - 20
    assert set(given[:300]) == {1, 2} and set(given[300:]) == set(range(1, 10))


@pytest.mark.parametrize("limit", [2, 0.5])
def test_steps_are_those_that_the_trainer_takes(limit: float) -> None:
    data = Adding(length=11, curriculum={"lengths": [3], "steps": [4]}, **SMALL)
    taken: list[int] = []

    class Seen(ExpRNN):
        def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
            taken.append(batch[0].shape[1])

    trainer = quiet_trainer(max_epochs=3, limit_train_batches=limit, limit_val_batches=0, num_sanity_val_steps=0)
    trainer.fit(Seen(data.task, 4), datamodule=data)
    each = int(limit if limit > 1 else 6 * limit)
    assert taken == [3 if number < 4 else 11 for number in range(3 * each)]


def test_by_a_threshold_the_next_epoch_is_longer() -> None:
    """An accuracy has to be reached, an error fallen below; NaN is neither."""
    data = CopyMemory(delay=9, curriculum={"lengths": [2, 4], "threshold": 0.9}, **SMALL)
    for metric, steps in ((0.89, 22), (math.nan, 22), (0.9, 24), (0.5, 24), (1.0, 29), (1.0, 29)):
        data.epoch_ended(metric)
        assert set(lengths(data)[0]) == {steps}
    again = CopyMemory(delay=9, curriculum={"lengths": [2, 4], "threshold": 0.9}, **SMALL)
    kept = copy.deepcopy(data.state_dict())
    assert kept["stage"] == 2
    again.load_state_dict(kept)
    assert set(lengths(again)[0]) == {29} and again.told().endswith("now 9")
    with pytest.raises(UserError, match="stage 3 of the curriculum"):
        again.load_state_dict({**kept, "stage": 3})


class Recorded(pl.Callback):
    """The batches that a run saw."""

    def __init__(self) -> None:
        self.seen: list[torch.Tensor] = []

    def on_train_batch_start(self, trainer: Any, model: Any, batch: Any, batch_idx: int) -> None:
        self.seen.append(batch[0].clone())


@pytest.mark.parametrize("ends", [{"steps": [4, 9]}, {"threshold": 0.0}])
def test_a_resume_goes_on_in_the_stage(ends: dict[str, Any], tmp_path: Any) -> None:
    """From inside every epoch, and from behind its last batch, whose end is still to come: batches and weights."""

    def run(checkpoint: Any = None) -> tuple[list[torch.Tensor], dict[str, torch.Tensor]]:
        torch.manual_seed(0)
        data = CopyMemory(delay=9, curriculum={"lengths": [2, 4], **ends}, val_lengths=[15], **SMALL)
        model = ExpRNN(data.task, 4)
        callbacks = [recorded := Recorded(), *([SaveEachStep(tmp_path)] if checkpoint is None else [])]
        trainer = quiet_trainer(max_epochs=3, callbacks=callbacks, num_sanity_val_steps=0)
        trainer.fit(model, datamodule=data, ckpt_path=checkpoint, weights_only=True)
        return recorded.seen, {name: weight.clone() for name, weight in model.weights_in(model.state_dict()).items()}

    batches, weights = run()
    expected = [22] * 4 + [24] * 5 + [29] * 9 if "steps" in ends else [22] * 6 + [24] * 6 + [29] * 6
    assert [batch.shape[1] for batch in batches] == expected
    for step in (3, 6, 8):
        seen, ended = run(tmp_path / f"{step}.ckpt")
        assert len(seen) == 18 - step and all(map(torch.equal, seen, batches[step:]))
        assert all(torch.equal(ended[name], weights[name]) for name in weights)


def test_other_lengths_have_meters_of_their_own() -> None:
    """Each number is that of a validation at that length alone, as a loop over its samples has it."""
    data = CopyMemory(delay=3, symbols=2, alphabet=2, val_lengths=[5, 9], **SMALL)
    torch.manual_seed(1)
    model = ExpRNN(data.task, 6)
    (found,) = quiet_trainer().validate(model, datamodule=data, verbose=False)[:1]
    (first, *rest) = quiet_trainer().validate(model, datamodule=data, verbose=False)
    metrics = {**first, **{key: value for one in rest for key, value in one.items()}}
    assert set(metrics) == {f"val/{name}{at}" for name in ("loss", "accuracy") for at in ("", "_at_5", "_at_9")}
    assert set(found) == {"val/loss", "val/accuracy"}
    for length, at in ((3, ""), (5, "_at_5"), (9, "_at_9")):
        alone = CopyMemory(delay=length, symbols=2, alphabet=2, **SMALL)
        inputs, targets = alone.split("val")[np.arange(7)]
        with torch.no_grad():
            outputs = model(inputs)
        loss = torch.nn.functional.cross_entropy(outputs.flatten(0, 1), targets.flatten())
        right = (outputs.argmax(-1) == targets)[:, -2:].float().mean()
        assert metrics[f"val/loss{at}"] == pytest.approx(float(loss), rel=1e-5)
        assert metrics[f"val/accuracy{at}"] == pytest.approx(float(right), abs=1e-6)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"val_lengths": [20, 20]}, "val_lengths"),
        ({"val_lengths": [0]}, "val_lengths is 0"),
        ({"curriculum": {}}, "curriculum"),
        ({"curriculum": {"lengths": [3], "steps": [2], "threshold": 0.5}}, "curriculum"),
        ({"curriculum": {"lengths": [], "steps": []}}, r"curriculum.lengths is \[\]"),
        ({"curriculum": {"lengths": [5, 3], "steps": [1, 2]}}, "curriculum.lengths"),
        ({"curriculum": {"lengths": [0, 3], "steps": [1, 2]}}, "curriculum.lengths"),
        ({"curriculum": {"lengths": [3], "steps": [1, 2]}}, "curriculum.steps"),
        ({"curriculum": {"lengths": [3, 5], "steps": [2, 2]}}, "curriculum.steps"),
        ({"curriculum": {"lengths": [3], "threshold": "high"}}, "curriculum.threshold"),
        ({"curriculum": {"lengths": [3], "threshold": math.nan}}, "curriculum.threshold"),
        ({"curriculum": {"lengths": [3], "threshold": 2}}, "curriculum.threshold is 2.0, but it must be from 0 to 1"),
        ({"curriculum": {"lengths": [3], "threshold": -0.1}}, "curriculum.threshold"),
        ({"curriculum": {"lengths": [12], "steps": [1]}}, "below 12, which is data.init_args.delay"),
        ({"curriculum": {"lengths": [3], "steps": [1]}, "reuse": True}, "reuse is true"),
    ],
)
def test_bad_input_is_one_sentence(options: dict[str, Any], named: str) -> None:
    with pytest.raises(UserError, match=named) as caught:
        CopyMemory(delay=12, **{**SMALL, **options})
    assert "\n" not in str(caught.value)


def test_lengths_that_the_task_cannot_have_are_refused() -> None:
    with pytest.raises(UserError, match="lengths is 9"):
        Denoise(delay=20, curriculum={"lengths": [9], "steps": [1]})
    with pytest.raises(UserError, match="val_lengths is 2"):
        Adding(length=20, val_lengths=[2])
