"""`Task` is what data tells a model: frozen, made of primitives, known before any data is read."""

import dataclasses
import io
import json
import math
from typing import Any

import pytest
import torch

from datamodules import Adding, CopyMemory, PixelDigits, PixelMNIST, Task, UserError

SIZES: dict[str, Any] = {"train_samples": 8, "val_samples": 8, "test_samples": 8, "batch_size": 4, "seed": 0}

# What every DataModule must say about itself. Chance of copying: K ln(alphabet) / (delay + 2 K) nats; of adding: the
# variance of a sum of two independent U(0, 1), 1/12 + 1/12; of ten balanced classes: ln 10.
EXPECTED: dict[str, tuple[Any, dict[str, Any]]] = {
    "copying": (
        lambda root: CopyMemory(delay=7, symbols=3, alphabet=5, **SIZES),
        {
            "inputs": "symbols",
            "input_size": 7,
            "targets": "label_per_step",
            "target_size": 6,
            "length": 13,
            "scored": "all",
            "recall": 3,
            "chance": 3 * math.log(5) / 13,
            "higher_is_better": True,
        },
    ),
    "copying, expRNN": (
        lambda root: CopyMemory(delay=7, symbols=3, alphabet=5, protocol="exprnn", **SIZES),
        {"input_size": 7, "target_size": 6, "length": 13, "recall": 3, "chance": 3 * math.log(5) / 13},
    ),
    "adding": (
        lambda root: Adding(length=20, **SIZES),
        {
            "inputs": "values",
            "input_size": 2,
            "targets": "value",
            "target_size": 1,
            "length": 20,
            "scored": "last",
            "recall": None,
            "chance": 1 / 6,
        },
    ),
    "pixel mnist": (
        lambda root: PixelMNIST(root=root),
        {
            "inputs": "values",
            "input_size": 1,
            "targets": "label",
            "target_size": 10,
            "length": 784,
            "scored": "last",
            "recall": None,
            "chance": math.log(10),
            "higher_is_better": True,
        },
    ),
    "pixel digits": (
        lambda root: PixelDigits(),
        {
            "inputs": "values",
            "input_size": 1,
            "targets": "label",
            "target_size": 10,
            "length": 64,
            "scored": "last",
            "recall": None,
            "chance": math.log(10),
            "higher_is_better": True,
        },
    ),
}
FIELDS = {
    "name",
    "inputs",
    "input_size",
    "targets",
    "target_size",
    "length",
    "scored",
    "recall",
    "labels",
    "chance",
    "metric",
    "higher_is_better",
}


@pytest.mark.parametrize("case", EXPECTED)
def test_task_is_known_at_construction(case, tmp_path):
    make, expected = EXPECTED[case]
    folder = tmp_path / "absent"
    task = make(str(folder)).task
    assert isinstance(task, Task)
    for field, value in expected.items():
        given = getattr(task, field)
        if isinstance(value, float):
            assert given == pytest.approx(value, rel=1e-12), field
        else:
            assert given == value and type(given) is type(value), field
    assert not folder.exists()


@pytest.mark.parametrize("case", EXPECTED)
def test_task_is_frozen_primitives_and_survives_a_checkpoint(case, tmp_path):
    task = EXPECTED[case][0](str(tmp_path)).task
    fields = dataclasses.asdict(task)
    assert set(fields) == FIELDS
    assert all(type(value) in (str, int, float, bool, type(None)) for value in fields.values()), fields
    assert task.name and task.metric
    assert Task(**fields) == task
    assert Task(**json.loads(json.dumps(fields))) == task

    buffer = io.BytesIO()
    torch.save(fields, buffer)
    buffer.seek(0)
    assert Task(**torch.load(buffer, weights_only=True)) == task

    with pytest.raises(dataclasses.FrozenInstanceError):
        task.chance = 0.0


@pytest.mark.parametrize("case", EXPECTED)
def test_direction_agrees_with_the_metric(case, tmp_path):
    task = EXPECTED[case][0](str(tmp_path)).task
    is_error = any(word in task.metric.lower() for word in ("mse", "mae", "error", "loss", "entropy", "perplexity"))
    assert task.higher_is_better is not is_error, task.metric


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"targets": "labels"}, "task.targets is 'labels', but it must be one of label, label_per_step, "),
        ({"inputs": "value"}, "task.inputs is 'value', but it must be symbols or values"),
        ({"scored": "every"}, "task.scored is 'every', but it must be one of last, all, mask, padded"),
        ({"scored": "last"}, "task.scored is 'last', but it must be all or mask with targets label_per_step"),
        ({"targets": "label", "recall": None, "labels": 2}, "task.labels is 2, but it must be 1 with targets label"),
        ({"input_size": 0}, "task.input_size is 0, but it must be a whole number of at least 1"),
        ({"target_size": -1}, "task.target_size is -1, but it must be a whole number of at least 1"),
        ({"length": 0}, "task.length is 0, but it must be null or a whole number of at least 1"),
        ({"recall": 0}, "task.recall is 0, but it must be null or a whole number of at least 1"),
        ({"targets": "label"}, "task.recall is 10, but it must be null with targets label"),
    ],
)
def test_a_task_that_contradicts_itself(options, sentence):
    """What it says and nobody did: per-step targets scored last were all counted."""
    with pytest.raises(UserError, match=sentence):
        dataclasses.replace(CopyMemory().task, **options)


def test_tasks_of_different_data_differ():
    assert CopyMemory(delay=7, **SIZES).task != CopyMemory(delay=8, **SIZES).task
    assert Adding(length=20, **SIZES).task != Adding(length=21, **SIZES).task
    assert CopyMemory(delay=7, **SIZES).task == CopyMemory(delay=7, **SIZES | {"seed": 1}).task


@pytest.mark.parametrize(
    ("delay", "chance", "digits"),
    [(200, 0.09452, 5), (1000, 0.020387, 6), (2000, 0.010294, 6), (100, 0.1733, 4), (480, 0.0416, 4)],
)
@pytest.mark.parametrize("protocol", ["common", "exprnn"])
def test_chance_of_copying_is_the_published_baseline(delay, chance, digits, protocol):
    """10 ln 8 / (T + 20), and the non-normal paper's 0.0416 for 500 steps in all (a delay of 480)."""
    task = CopyMemory(delay=delay, protocol=protocol, **SIZES).task
    assert round(task.chance, digits) == chance
    assert task.length == delay + 20
    assert (task.input_size, task.target_size, task.recall) == (10, 9, 10)


def test_defaults():
    assert CopyMemory().task.length == 120
    assert CopyMemory().task.recall == 10
    assert round(CopyMemory().task.chance, 4) == 0.1733
    assert Adding().task.length == 200
