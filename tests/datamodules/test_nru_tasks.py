"""Denoising, variable copying and the NRU paper's psMNIST, against their descriptions."""

from __future__ import annotations

import math
import struct
from pathlib import Path

import numpy as np
import pytest
import torch

from datamodules import CopyMemory, Denoise, PixelMNIST, UserError, pixel_permutation
from tests.mnist import mnist_data


@pytest.mark.parametrize("delay", [10, 11, 100])
def test_denoising(delay: int) -> None:
    data = Denoise(delay=delay, seed=3)
    x, y, mask = data.split("train")[np.arange(400)]
    assert x.shape == y.shape == mask.shape == (400, delay + 11) and mask.dtype == torch.bool
    assert (x[:, delay] == 9).all() and (x[:, delay + 1 :] == 0).all() and (x[:, :delay] <= 8).all()
    assert (y[:, :-10] == 0).all() and (mask == (torch.arange(delay + 11) > delay)).all()
    for inputs, targets in zip(x, y, strict=True):
        assert torch.equal(inputs[:delay][inputs[:delay] > 0], targets[-10:])  # in their order
    if delay == 100:
        places = (x[:, :delay] > 0).float().mean(0)
        assert places.mean() == pytest.approx(0.1) and places.min() > 0.02 and places.max() < 0.2
    counts = torch.bincount(y[:, -10:].flatten(), minlength=9)[1:].float() / 4000
    assert (counts - 1 / 8).abs().max() < 0.025
    assert data.task.chance == pytest.approx(2.0794415) and data.task.scored == "mask"
    uniform = torch.full((400, delay + 11, 9), -30.0)
    uniform[..., 1:] = 0  # any symbol but the blank
    loss = torch.nn.functional.cross_entropy(uniform[mask], y[mask])
    assert float(loss) == pytest.approx(data.task.chance, abs=1e-6)


def test_denoising_with_too_little_room() -> None:
    with pytest.raises(UserError, match="delay"):
        Denoise(delay=9)


def test_variable_copying() -> None:
    data = CopyMemory(delay=20, variable=True, seed=5, batch_size=4, same_length=4)
    split = data.split("train")
    lags, terms, cost = [], 0, 0.0
    for batch in range(600):
        x, y = split[np.arange(4 * batch, 4 * batch + 4)]
        lag = x.shape[1] - 20
        assert 1 <= lag <= 20 and (x[:, 10 + lag - 1] == 9).all() and (x == 9).sum() == 4
        assert torch.equal(x[:, :10], y[:, -10:]) and (y[:, :-10] == 0).all() and (x[:, 10 + lag :] == 0).all()
        lags.append(lag)
        terms += y.numel()
        cost += 4 * 10 * math.log(8)  # a blank is free, a guess at a symbol costs ln 8
    assert set(lags) == set(range(1, 21)) and np.mean(lags) == pytest.approx(10.5, abs=0.7)
    assert data.task.length is None and data.task.chance == pytest.approx(10 * math.log(8) / 30.5)
    assert cost / terms == pytest.approx(data.task.chance, rel=0.03)
    again = CopyMemory(delay=20, variable=True, seed=5, same_length=4).split("train")[np.arange(8, 12)]
    assert torch.equal(again[0], split[np.arange(8, 12)][0])


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    images, labels = mnist_data()
    chosen = np.random.RandomState(1).permutation(5000)[:60]
    raw = tmp_path_factory.mktemp("mnist") / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for name in ("train", "t10k"):
        pixels, classes = images[chosen].astype(np.uint8).tobytes(), labels[chosen].astype(np.uint8).tobytes()
        (raw / f"{name}-images-idx3-ubyte").write_bytes(struct.pack(">4i", 2051, 60, 28, 28) + pixels)
        (raw / f"{name}-labels-idx1-ubyte").write_bytes(struct.pack(">2i", 2049, 60) + classes)
    return raw.parents[1]


def test_the_nru_papers_psmnist(root: Path) -> None:
    data = PixelMNIST(str(root), permute=True, protocol="nru", val_size=20, verify=False)
    images, labels = mnist_data()
    chosen = np.random.RandomState(1).permutation(5000)[:60]
    state = np.random.RandomState(50)
    state.permutation(60_000)
    order = state.permutation(784)
    assert np.array_equal(order, pixel_permutation("nru", 784))
    split = np.random.RandomState(50).permutation(60)
    for name, part in (("train", split[:40]), ("val", split[40:])):
        x, y = data.split(name)[np.arange(len(part))]  # type: ignore[arg-type]
        assert x.shape == (len(part), 785, 1) and not x[:, 784].any()
        np.testing.assert_allclose(x[:, :784, 0].numpy(), images[chosen][part][:, order] / 255, atol=1e-7)
        assert np.array_equal(y.numpy(), labels[chosen][part])
    assert data.task.length == 785 and data.split("test")[np.arange(3)][0].shape == (3, 785, 1)
    assert PixelMNIST(str(root), protocol="nru").val_size == 10_000
    assert PixelMNIST(str(root)).val_size == 5_000 and PixelMNIST(str(root)).task.length == 784
    with pytest.raises(UserError, match="protocol"):
        PixelMNIST(str(root), protocol="other")  # type: ignore[arg-type]
