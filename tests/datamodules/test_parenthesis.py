"""The parenthesis task, against a reader that takes one symbol after another, and all sequences of small ones."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch

from datamodules import Parenthesis, Task, UserError
from datamodules.batch import Parts
from datamodules.checks import check_batch
from lit_rnn.models import LSTM
from tests.trainers import quiet_trainer

SIZES = {"train_samples": 16, "val_samples": 9, "test_samples": 8, "batch_size": 4, "seed": 2}


def counted(symbols: list[int], types: int, most: int) -> list[list[int]]:
    """The open brackets of every type behind every step."""
    opened, found = [0] * types, []
    for symbol in symbols:
        for k in range(types):
            if symbol == 2 * k and opened[k] < most:
                opened[k] += 1
            if symbol == 2 * k + 1 and opened[k] > 0:
                opened[k] -= 1
        found.append(list(opened))
    return found


@pytest.mark.parametrize("options", [{}, {"types": 2, "noise": 1, "most": 5}, {"types": 3, "noise": 0, "most": 1}])
def test_counts_symbol_by_symbol(options: dict[str, int]) -> None:
    data = Parenthesis(length=60, **options, seed=4)
    x, y = data.split("train")[np.arange(30)]
    for inputs, targets in zip(x.tolist(), y.tolist(), strict=True):
        assert targets == counted(inputs, data.types, data.most)
    shares = torch.bincount(x.flatten(), minlength=data.task.input_size) / x.numel()
    assert len(shares) == data.task.input_size and (shares - 1 / len(shares)).abs().max() < 0.04
    assert y.max() <= data.most and (data.most > 5 or y.max() == data.most)


def test_as_goru_has_it() -> None:
    task = Parenthesis().task
    assert (task.length, task.input_size, task.target_size, task.labels) == (200, 30, 11, 10)


@pytest.mark.parametrize(("types", "noise", "most", "T"), [(1, 1, 1, 5), (1, 0, 2, 7), (2, 1, 2, 4), (1, 2, 3, 5)])
def test_chance_by_all_sequences(types: int, noise: int, most: int, T: int) -> None:
    """Every sequence is as likely: the entropy of each label, step by step, from how often it comes."""
    everything = [counted(list(s), types, most) for s in itertools.product(range(2 * types + noise), repeat=T)]
    entropies = []
    for t, k in itertools.product(range(T), range(types)):
        shares = [n / len(everything) for n in Counter(one[t][k] for one in everything).values()]
        entropies.append(-sum(share * math.log(share) for share in shares))
    expected = sum(entropies) / len(entropies)
    assert Parenthesis(length=T, types=types, noise=noise, most=most).task.chance == pytest.approx(expected, abs=1e-12)


def test_several_labels_a_step_are_learnt_measured_and_checked() -> None:
    """Loss and accuracy are those of all labels, as a loop over them has it; one type has plain labels."""
    data = Parenthesis(length=6, types=2, noise=1, most=2, val_lengths=[9], **SIZES)
    torch.manual_seed(0)
    model = LSTM(data.task, 5)
    quiet_trainer(max_epochs=1).fit(model, datamodule=data)
    metrics = {k: v for one in quiet_trainer().validate(model, datamodule=data, verbose=False) for k, v in one.items()}
    x, y = data.split("val")[np.arange(9)]
    with torch.no_grad():
        outputs = model(x)
        cut = model(x, torch.full((9,), 4))
    assert outputs.shape == (9, 6, 2, 3) and not cut[:, 4:].any()
    torch.testing.assert_close(cut[:, :4], outputs[:, :4])
    terms, right = [], []
    for i, t, k in itertools.product(range(9), range(6), range(2)):
        terms.append(-float(outputs[i, t, k].log_softmax(-1)[y[i, t, k]]))
        right.append(bool(outputs[i, t, k].argmax() == y[i, t, k]))
    assert metrics["val/loss"] == pytest.approx(np.mean(terms), rel=1e-5)
    assert metrics["val/accuracy"] == pytest.approx(np.mean(right), abs=1e-6) and "val/loss_at_9" in metrics
    with pytest.raises(UserError, match=r"targets .* its task needs torch.int64 and \(9, 6, 2\)"):
        check_batch((x, y[..., 0]), data.task, "X", "val", 0, np.arange(len(x)))
    single = Parenthesis(length=6, types=1, **SIZES)
    inputs, targets = single.split("val")[np.arange(3)]
    assert targets.shape == (3, 6) and LSTM(single.task, 4)(inputs).shape == (3, 6, 11)


def test_masks_and_old_tasks() -> None:
    """Steps that do not count leave the loss; a Task of a checkpoint that knew no labels has one."""
    data = Parenthesis(length=6, types=2, **SIZES)
    x, y = data.split("val")[np.arange(4)]
    mask = torch.arange(6) < 3
    model = LSTM(dataclasses.replace(data.task, scored="mask"), 4)
    model._log_meters = lambda *_: None  # type: ignore[method-assign]  # no Trainer to log to
    half = model._shared_step(Parts(x, y, mask.expand(4, -1)), "val")
    whole = torch.nn.functional.cross_entropy(model(x)[:, :3].flatten(0, -2), y[:, :3].flatten())
    torch.testing.assert_close(half, whole)
    old: dict[str, Any] = dataclasses.asdict(data.task)
    del old["labels"]
    assert Task(**old).labels == 1


@pytest.mark.parametrize("options", [{"types": 0}, {"noise": -1}, {"most": 0}, {"length": 0}])
def test_bad_options(options: dict[str, int]) -> None:
    with pytest.raises(UserError, match=f"{next(iter(options))} is {next(iter(options.values()))}"):
        Parenthesis(**options)
