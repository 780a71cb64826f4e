"""GORU's tasks, against slow loops written from the paper and from what its released code makes."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from datamodules import Denoise


def denoised(x: list[int], delay: int, K: int, marker: int) -> list[int]:
    """What is due at every step: blank for delay + K of them, then the symbols of ``x`` in their order.

    T + K - 1 steps hold the symbols, one the marker and K nothing: 220 in all at T = 200.
    """
    assert len(x) == delay + 2 * K and x[delay + K - 1] == marker and x[delay + K :] == [0] * K
    symbols = [symbol for symbol in x[: delay + K - 1] if symbol != 0]
    assert len(symbols) == K and all(1 <= symbol < marker for symbol in symbols)  # none has vanished
    return [0] * (delay + K) + symbols


def test_denoising_as_goru_has_it() -> None:
    data = Denoise(delay=200, protocol="goru", seed=2)
    assert (data.task.length, data.task.input_size, data.task.target_size) == (220, 11, 10)
    assert data.task.scored == "all" and data.task.chance == pytest.approx(10 * math.log(9) / 220)
    batch = data.split("train")[np.arange(400)]
    assert len(batch) == 2  # no mask
    x, y = (part.numpy() for part in batch)
    for inputs, targets in zip(x.tolist(), y.tolist(), strict=True):
        assert targets == denoised(inputs, 200, 10, 10)
    counts = np.bincount(y[:, -10:].ravel(), minlength=10)[1:] / 4000
    assert abs(counts - 1 / 9).max() < 0.025
    places = (x[:, :209] > 0).mean(0)
    assert places.mean() == pytest.approx(10 / 209) and places.max() < 0.11  # the last before the marker among them
    assert places[0] > 0 and places[208] > 0


def test_its_chance_is_the_best_that_frequencies_alone_can_do() -> None:
    """Class frequencies per step counted on one split, scored on another."""
    data = Denoise(delay=7, symbols=3, protocol="goru", train_samples=20_000, val_samples=20_000, seed=1)
    seen, unseen = (data.split(name)[np.arange(20_000)][1].numpy() for name in ("train", "val"))  # type: ignore[arg-type]
    frequency = np.stack([(seen == symbol).mean(axis=0) for symbol in range(10)])
    with np.errstate(divide="ignore"):
        loss = -np.log(frequency)[unseen, np.arange(13)].mean()
    assert loss == pytest.approx(data.task.chance, rel=2e-3)


def test_what_may_be_changed_are_the_blanks_of_the_answers() -> None:
    data = Denoise(delay=7, symbols=3, protocol="goru", seed=1)
    x = data.split("val")[np.arange(4)][0]
    assert torch.equal(data.changeable(x), (torch.arange(13) >= 10).expand(4, -1))
