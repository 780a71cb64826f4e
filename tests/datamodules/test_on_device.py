"""Synthetic data made on the device: NumPy's words, the batches that the CPU gives, and no wait of the host."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
import torch

from datamodules import Adding, CopyMemory, Denoise, SelectiveCopy, UserError, on_device
from datamodules.base import random_words
from datamodules.batch import near
from datamodules.on_device import below, uniform, words_on
from tests.card import card

CPU = torch.device("cpu")
SIZES: dict[str, Any] = {"train_samples": 96, "val_samples": 4, "batch_size": 8, "seed": 5}
KINDS: dict[str, Callable[..., Any]] = {
    "copying": lambda **more: CopyMemory(delay=3, **SIZES | more),
    "variable copying": lambda **more: CopyMemory(delay=9, variable=True, raw=True, **SIZES | more),
    "adding": lambda **more: Adding(length=9, **SIZES | more),
    "adding, marks first": lambda **more: Adding(length=8, protocol="urnn", mark_first=True, **SIZES | more),
    "denoising": lambda **more: Denoise(delay=12, **SIZES | more),
    "denoising, goru": lambda **more: Denoise(delay=12, protocol="goru", **SIZES | more),
    "selective copying": lambda **more: SelectiveCopy(delay=20, symbols=4, **SIZES | more),
}
ROWS = {"one after another": np.arange(7, 12), "any": np.array([3, 0, 10**12, 3])}


def equal(found: Any, expected: Any) -> bool:
    parts = zip(found, expected, strict=True)
    return all(a is b is None or (a.dtype == b.dtype and torch.equal(a, b)) for a, b in parts)


@pytest.mark.parametrize("indices", ROWS)
@pytest.mark.parametrize("count", [1, 4, 11])
@pytest.mark.parametrize(("seed", "split"), [(0, "train"), (2**63 - 1, "val"), (1234567891011121314, "test")])
def test_the_words_are_those_of_numpy(indices: str, count: int, seed: int, split: Any) -> None:
    drawn = random_words(seed, split, ROWS[indices], count)
    assert np.array_equal(words_on(CPU, seed, split, ROWS[indices], count).numpy().view(np.uint64), drawn)


def test_words_are_unsigned() -> None:
    words = [0, 1, 2**63 - 1, 2**63, 2**64 - 1, 0xD2E7470EE14C6C93]
    as_tensor = torch.from_numpy(np.array(words, dtype=np.uint64).view(np.int64))
    for number in (1, 2, 7, 10, 2**40 + 1):
        assert below(as_tensor, number).tolist() == [word % number for word in words]
    assert uniform(as_tensor).tolist() == [(word >> 11) / 2**53 for word in words]


def test_the_smallest_words_take_the_places() -> None:
    """By NumPy's order of unsigned words; the adding problem's numbers by its division."""
    words = random_words(3, "train", np.arange(40), 24)
    inputs, _, _ = SelectiveCopy(delay=20, symbols=4).make_at(words, 20)
    places = np.sort(np.argsort(words[:, 4:], axis=1)[:, :4], axis=1)
    assert np.array_equal(np.nonzero(inputs[:, :20].numpy())[1].reshape(40, 4), places)
    x, y = Adding().make_at(words, 22)
    numbers = ((words >> np.uint64(11)) * 2.0**-53).astype(np.float32)
    assert np.array_equal(x[..., 0].numpy(), numbers[:, 2:]) and bool((x[..., 1].sum(1) == 2).all())
    assert torch.equal(y[:, 0], (x[..., 0] * x[..., 1]).sum(1))


@pytest.mark.parametrize("reuse", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_the_batches_are_those_of_the_loader(kind: str, reuse: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """In every epoch, on both of two processes, and from the middle of an epoch on; however many are made at once."""
    monkeypatch.setattr(on_device, "WORDS", 500)
    ours, theirs = (KINDS[kind](on_device=ahead, reuse=reuse) for ahead in (True, False))
    for rank in (0, 1):
        ahead, loaded = ours.loader("train", rank, 2), theirs.loader("train", rank, 2)
        for _ in range(2):
            batches = list(ahead)
            assert len(batches) == 6 and all(map(equal, batches, list(loaded)))
    state = ahead.state_dict() | {"position": 4, "samples": 64}
    resumed = ours.loader("train", 1, 2)
    resumed.load_state_dict(state)
    assert all(map(equal, list(resumed), batches[4:]))
    assert equal(ours.split("val")[np.arange(4)], theirs.split("val")[np.arange(4)])


@pytest.mark.parametrize("kind", ["variable copying", "adding", "denoising"])
def test_nothing_waits_for_the_device(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    data = KINDS[kind](on_device=True, reuse=kind == "adding", train_samples=24)
    monkeypatch.setattr(data, "device", lambda: torch.device("cuda"))
    with card() as at:
        batches = list(data.loader("train"))
        assert not at.waits
        assert {part.device.type for part in batches[0][:2]} == {"cuda"}
        assert all(mask.device.type == "cpu" for mask in batches[0][2:] if mask is not None)  # says which steps count
    assert len(batches) == 3


@pytest.mark.parametrize("to", ["cpu", "cuda"])
def test_only_copies_to_a_gpu_are_not_waited_for(to: str) -> None:
    """One to the CPU would be read before it is there."""
    marks, place = Mock(), Mock(device=torch.device(to))
    near(marks, place)
    marks.to.assert_called_once_with(place.device, non_blocking=to == "cuda")


def test_a_curriculum_is_refused() -> None:
    with pytest.raises(UserError, match=r"data.init_args.on_device is true, but it must be false with a curriculum"):
        Adding(length=20, on_device=True, curriculum={"lengths": [5], "steps": [3]})
