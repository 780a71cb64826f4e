"""The mean squared error of unequal frames, over what is real, and as Wisdom's TIMIT code dilutes it, by hand."""

import numpy as np
import pytest
import torch

from datamodules import Task, UserError
from datamodules.batch import Parts
from datamodules.timit import Frames
from lit_rnn.models import LSTM

# one bin; utterances 1 2 4 7 11 and 3 5, and a network that always answers 6
FRAMES = torch.tensor([[1.0], [2], [4], [7], [11], [3], [5]])
COUNTS = np.array([5, 2])


def task(scored: str, metric: str = "mse") -> Task:
    return Task("frames", "values", 1, "frame_per_step", 1, None, scored, 1.0, metric, False)  # type: ignore[arg-type]


def answering(number: float, scored: str) -> LSTM:
    model = LSTM(task(scored), 3)
    with torch.no_grad():
        model.decoder.weight.zero_()
        model.decoder.bias.fill_(number)
    return model


def measured(model: LSTM, *batches: Parts) -> tuple[float, float, float]:
    """The loss of the last batch, and both meters over all."""
    model.log = lambda *_, **__: None  # type: ignore[method-assign]
    for batch in batches:
        loss = model._shared_step(batch, "val")
    meters = model.meters.of("val")
    return float(loss.detach()), float(meters["loss"].compute()), float(meters["mse"].compute())


def test_over_real_frames() -> None:
    """Targets 2 4 7 11 and 5: (16 + 4 + 1 + 25 + 1) / 5."""
    batch = Frames(FRAMES, COUNTS, "common", 5)[np.array([0, 1])]
    assert measured(answering(6, "all"), batch) == pytest.approx((47 / 5,) * 3)


def test_diluted_by_padding() -> None:
    """Targets 2 4 7 11 -50 and 5 -50, of two utterances filled up to 9 steps: 47 + 2 * 56^2 over 18 steps."""
    batch = Frames(FRAMES, COUNTS, "urnn", 9)[np.array([0, 1])]
    expected = (47 + 2 * 56**2) / 18
    assert measured(answering(6, "padded"), batch) == pytest.approx((expected,) * 3)


def test_diluted_over_ragged_batches() -> None:
    """The epoch's mean is that of all steps: the same in one batch or in two of other sizes."""
    split = Frames(torch.cat((FRAMES, FRAMES)), np.array([5, 2, 5, 2]), "urnn", 9)
    model = answering(6, "padded")
    last, *epoch = measured(model, split[np.array([0, 1, 2])], split[np.array([3])])
    assert last == pytest.approx((1 + 56**2) / 9)
    assert epoch == pytest.approx([2 * (47 + 2 * 56**2) / 36] * 2)


def test_gradients_are_diluted_too() -> None:
    """d/dc of sum (c - y)^2 / 18 at c = 6 is 2 (sum over the seven real targets of 6 - y) / 18."""
    model = answering(6, "padded")
    model.log = lambda *_, **__: None  # type: ignore[method-assign]
    model._shared_step(Frames(FRAMES, COUNTS, "urnn", 9)[np.array([0, 1])], "train").backward()
    assert float(model.decoder.bias.grad) == pytest.approx(2 * (4 + 2 - 1 - 5 + 56 + 1 + 56) / 18)


def test_other_metrics_are_not_diluted() -> None:
    with pytest.raises(UserError, match=r"task\.metric is 'rmse', but it must be mse, as the task is scored padded"):
        LSTM(task("padded", "rmse"), 3)
