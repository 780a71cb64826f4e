"""The UEA archive: sets that aeon brings, and `.ts` files written by hand."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from datamodules import UEA, Parts, UserError

HEAD = "@problemName Two\n@timeStamps false\n@missing {missing}\n@univariate false\n@dimensions 2\n@equalLength false\n"
MISSING = "aeon is not installed: the extra uea, which constraints.txt cannot hold"


@pytest.fixture
def _aeon() -> None:
    pytest.importorskip("aeon", reason=MISSING)


def write(root: Path, train: str, test: str, goal: str = "@classLabel true no yes\n", missing: str = "false") -> None:
    (root / "Two").mkdir(exist_ok=True)
    for part, body in (("TRAIN", train), ("TEST", test)):
        (root / "Two" / f"Two_{part}.ts").write_text(HEAD.format(missing=missing) + goal + "@data\n" + body)


TRAIN = "1,2,3:4,5,6:yes\n7,8:9,10:no\n1,1:2,2:yes\n0,1:5,5:no\n3:4:yes\n"
TEST = "2,3:1,1:no\n"


@pytest.mark.usefixtures("_aeon")
def test_a_file_by_hand(tmp_path: Path) -> None:
    write(tmp_path, TRAIN, TEST)
    data = UEA("Two", str(tmp_path), val_share=0.4, standardize=False)
    assert data.classes == ["no", "yes"] and data.task.input_size == 2 and data.task.length is None
    batch = Parts.of(data.split("test")[np.arange(1)])
    assert batch.inputs.tolist() == [[[2, 1], [3, 1]]] and batch.targets.tolist() == [0]
    both = [Parts.of(data.split(name)[np.arange(len(data.split(name)))]) for name in ("train", "val")]
    first = next(part for part in both if int(part.inputs.shape[1]) == 3)
    row = int(first.lengths.argmax())
    assert first.inputs[row].tolist() == [[1, 4], [2, 5], [3, 6]] and first.targets[row] == 1
    assert sum(len(part.targets) for part in both) == 5


@pytest.mark.usefixtures("_aeon")
def test_missing_values_and_numbers(tmp_path: Path) -> None:
    write(tmp_path, "1,?:1,2:0.5\n3,4:1,2:1.5\n5,6:7,8:2.5\n", "1,1:1,1:9\n", "@targetLabel true\n", "true")
    with pytest.raises(UserError, match=r"Two_TRAIN\.ts, sequence 0, step 1 has a missing value in channel 0"):
        UEA("Two", str(tmp_path))
    data = UEA("Two", str(tmp_path), missing="forward_fill", standardize=False)
    assert data.task.targets == "value" and data.task.metric == "rmse" and data.classes is None
    batches = [Parts.of(data.split(name)[np.arange(len(data.split(name)))]) for name in ("train", "val")]
    found = {float(y): x.tolist() for part in batches for x, y in zip(part.inputs, part.targets, strict=True)}
    assert found[0.5] == [[1, 1], [1, 2]] and sorted(found) == [0.5, 1.5, 2.5]


@pytest.mark.usefixtures("_aeon")
def test_japanese_vowels_are_as_published() -> None:
    """270 training sequences of 12 channels and 7 to 26 steps, thirty of each of nine speakers; 370 in the test."""
    data = UEA()
    sizes = [len(data.split(name)) for name in ("train", "val", "test")]
    assert sizes == [243, 27, 370] and (data.task.input_size, data.task.target_size) == (12, 9)
    train = data.split("train")
    batch = Parts.of(train[np.arange(243)])
    real = batch.real()
    assert real is not None and torch.bincount(batch.targets).tolist() == [27] * 9
    steps = batch.inputs[real].double()
    assert torch.allclose(steps.mean(0), torch.zeros(12, dtype=torch.float64), atol=1e-5)
    assert torch.allclose(steps.std(0, unbiased=False), torch.ones(12, dtype=torch.float64), atol=1e-5)
    test = data.split("test")
    assert (int(test.steps.min()), int(test.steps.max())) == (7, 29)


@pytest.mark.usefixtures("_aeon")
def test_acsf1_is_as_published() -> None:
    data = UEA("ACSF1")
    assert (data.task.length, data.task.input_size, data.task.target_size) == (1460, 1, 10)
    assert [len(data.split(name)) for name in ("train", "val", "test")] == [90, 10, 100]


@pytest.mark.usefixtures("_aeon")
def test_a_broken_file_and_no_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, "1,2:1,2:yes\n1:1,2:no\n", TEST)
    with pytest.raises(UserError, match=r"Two_TRAIN\.ts is no whole \.ts file"):
        UEA("Two", str(tmp_path))

    def offline(*_: object, **__: object) -> None:
        raise OSError("Network is unreachable")

    monkeypatch.setattr("urllib.request.urlopen", offline)
    with pytest.raises(UserError) as caught:
        UEA("NoSuchSet", str(tmp_path))
    told = str(caught.value)
    assert "https://timeseriesclassification.com/aeon-toolkit/NoSuchSet.zip" in told and str(tmp_path) in told
    assert "NoSuchSet_TRAIN.ts" in told and "\n" not in told


def test_bad_names_and_no_aeon(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("../x", "a/b", ""):
        with pytest.raises(UserError, match=r"data\.init_args\.dataset"):
            UEA(name)
    monkeypatch.setitem(sys.modules, "aeon.datasets", None)
    with pytest.raises(UserError, match=r"UEA needs the Python package aeon.*pip install 'lit_rnn\[uea\]'"):
        UEA()
