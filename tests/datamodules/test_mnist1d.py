"""MNIST-1D, as its package makes it."""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from datamodules import MNIST1D, Parts, UserError
from datamodules.mnist1d import _made


@pytest.fixture(autouse=True)
def _nothing_kept() -> Iterator[None]:
    _made.cache_clear()
    yield
    _made.cache_clear()


def test_as_the_package_makes_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """In small: all 5,000 take seconds."""
    package = pytest.importorskip("mnist1d.data", reason="mnist1d is not installed: the extra mnist1d")
    published = package.get_dataset_args(as_dict=True)
    assert (published["num_samples"], published["train_split"], published["seed"]) == (5000, 0.8, 42)
    monkeypatch.setattr(package, "get_dataset_args", lambda: SimpleNamespace(**published | {"num_samples": 200}))
    random.seed(5)
    np.random.seed(5)
    data = MNIST1D(val_share=0.2)
    drawn = random.random(), np.random.rand()
    random.seed(5)
    np.random.seed(5)
    assert drawn == (random.random(), np.random.rand()), "the package seeds these two"
    made = package.make_dataset(package.get_dataset_args())
    test = Parts.of(data.split("test")[np.arange(40)])
    assert torch.equal(test.inputs[..., 0], torch.from_numpy(made["x_test"]).float()) and test.lengths is None
    assert test.targets.tolist() == made["y_test"].tolist()
    counts = [len(data.split(name)) for name in ("train", "val")]
    assert sum(counts) == 160 and abs(counts[1] - 32) < 6
    task = data.task
    assert (task.input_size, task.target_size, task.length, task.metric) == (1, 10, 40, "accuracy")
    permuted = Parts.of(MNIST1D(permute=True).split("test")[np.arange(40)])
    order = [int((permuted.inputs[:, [t], 0] == test.inputs[..., 0]).all(0).nonzero()) for t in range(40)]
    assert sorted(order) == list(range(40)) and order != sorted(order)


def test_without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mnist1d.data", None)
    with pytest.raises(UserError, match=r"MNIST1D needs the Python package mnist1d.*pip install 'lit_rnn\[mnist1d\]'"):
        MNIST1D()
