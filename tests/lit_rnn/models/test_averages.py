"""Means of the weights over the steps, as Lightning's callbacks take them, in a Trainer from Python."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from pytorch_lightning.callbacks import EMAWeightAveraging, StochasticWeightAveraging, WeightAveraging
from torch.optim.swa_utils import get_ema_multi_avg_fn, get_swa_multi_avg_fn

from datamodules import CopyMemory
from datamodules.errors import UserError
from lit_rnn.models import EURNN, URNN, DtrivRNN, ExpRNN, FullURNN, HouseholderRNN, NnRNN, ScuRNN, SequenceModel
from tests.lit_rnn.models.test_plain_trainer import TASK, fitted
from tests.trainers import SaveEachStep, quiet_trainer


def averaged(model: SequenceModel, callback: Any, **options: Any) -> SequenceModel:
    fitted(model, max_epochs=2, callbacks=[callback], **options)
    return model


ONE_BY_ONE, SEVERAL, ON_A_GPU = (
    partial(EMAWeightAveraging, decay=0.9),
    partial(WeightAveraging, multi_avg_fn=get_ema_multi_avg_fn(0.9)),
    partial(WeightAveraging, multi_avg_fn=get_swa_multi_avg_fn()),  # what torch takes there
)
CASES = [(model, ONE_BY_ONE) for model in (ExpRNN, ScuRNN, NnRNN, HouseholderRNN, EURNN, URNN)]
CASES += [(model, callback) for model in (ExpRNN, URNN) for callback in (SEVERAL, ON_A_GPU)]


@pytest.mark.parametrize(("model", "callback"), CASES)
def test_indices_stay_as_they_are(model: type[SequenceModel], callback: Any) -> None:
    """torch's mean of 3 and 3 at a decay of 0.9 was 2, and W was built from wrong places."""
    fresh = model(TASK, 8)
    before = {name: buffer.clone() for name, buffer in fresh.named_buffers() if not buffer.is_floating_point()}
    after = dict(averaged(fresh, callback()).named_buffers())
    assert before and all(torch.equal(after[name], buffer) for name, buffer in before.items())


@pytest.mark.parametrize(
    ("callback", "weight"),
    [
        (EMAWeightAveraging(decay=0.5), lambda count: 0.5),
        (WeightAveraging(multi_avg_fn=get_ema_multi_avg_fn(0.5)), lambda count: 0.5),
        (WeightAveraging(), lambda count: 1 / (count + 1)),
    ],
    ids=["one by one", "several", "equal"],
)
def test_a_mean_is_one_to_the_precision_of_the_run(callback: Any, weight: Any) -> None:
    """Validations put it in the model's place: made in float32, it rounded both in a run in float64."""
    seen: list[torch.Tensor] = []
    rounded: list[bool] = []

    class Noting(ExpRNN):
        def after_step(self, step: int) -> None:
            seen.append(self.cells[0].recurrent.skew.detach().clone())

        def on_train_batch_start(self, *_: Any) -> None:
            rounded.extend([not torch.equal(self.cells[0].recurrent.skew, seen[-1])] if seen else [])

    model = averaged(Noting(TASK, 6), callback, precision="64-true")
    mean = seen[0]
    for count, now in enumerate(seen[1:], 1):
        mean = mean + weight(count) * (now - mean)
    assert len(seen) == 4 and rounded == [False] * 3
    torch.testing.assert_close(model.cells[0].recurrent.skew.detach(), mean, rtol=0, atol=1e-15)


@pytest.mark.parametrize("callback", [EMAWeightAveraging(), StochasticWeightAveraging(swa_lrs=1e-3)])
@pytest.mark.parametrize(("model", "words"), [(DtrivRNN, "rebase_every"), (FullURNN, "not unitary")])
def test_a_mean_that_is_no_such_network_is_refused(callback: Any, model: type[SequenceModel], words: str) -> None:
    """From Python as on the command line: a mean of A over moving bases belongs to none of them."""
    with pytest.raises(UserError, match=f"{type(callback).__name__}.*{model.__name__}.*{words}"):
        averaged(model(TASK, 6), callback)


@pytest.mark.parametrize(
    ("given", "rates"), [(0.5, {"recurrent": 0.05, "other": 0.5}), ([0.5, 0.25], {"recurrent": 0.5, "other": 0.25})]
)
@pytest.mark.parametrize("scheduled", [False, True])
def test_one_rate_of_an_average_keeps_the_ratio_of_the_groups(given: Any, rates: Any, scheduled: bool) -> None:
    """Lightning gave it to both; a rate for each is one's own word."""
    schedule = {"class_path": "StepLR", "init_args": {"step_size": 1}} if scheduled else None
    model = ExpRNN(TASK, 6, recurrent_lr_ratio=0.1, lr_scheduler=schedule)
    average = StochasticWeightAveraging(swa_lrs=given, swa_epoch_start=1, annealing_epochs=1)
    (optimizer,) = fitted(model, max_epochs=3, callbacks=[average]).optimizers
    assert {group["name"]: group["lr"] for group in optimizer.param_groups} == pytest.approx(rates)


def test_a_fit_resumed_where_it_averages_goes_on_as_it_was(tmp_path: Path) -> None:
    """Two steps an epoch, means from the second epoch on. Lightning's rate stood still at the resumed one's end."""

    def weights(*more: Any, **options: Any) -> dict[str, torch.Tensor]:
        torch.manual_seed(0)
        data = CopyMemory(delay=3, batch_size=2, train_samples=4, val_samples=2, test_samples=2)
        model = ExpRNN(data.task, 6)
        average = StochasticWeightAveraging(swa_lrs=0.05, swa_epoch_start=2)
        trainer = quiet_trainer(max_epochs=4, limit_val_batches=0, callbacks=[average, *more])
        trainer.fit(model, data, **options)
        return model.state_dict()

    whole = weights(SaveEachStep(tmp_path))
    for step in (3, 4, 5):  # inside the first epoch of the mean, behind its last step, inside the next
        resumed = weights(ckpt_path=tmp_path / f"{step}.ckpt", weights_only=True)
        assert all(torch.equal(resumed[name], whole[name]) for name in whole), step


def test_before_a_mean_begins_it_is_the_model() -> None:
    """It was the untrained weights: they were validated, and took the place of the trained ones at the run's end."""
    runs = []
    for callbacks in ([], [EMAWeightAveraging(update_starting_at_step=100)]):
        torch.manual_seed(0)
        model = ExpRNN(TASK, 6)
        trainer = fitted(model, max_epochs=2, callbacks=callbacks)
        runs.append((model.state_dict(), trainer.callback_metrics))
    for plain, with_mean in zip(*runs, strict=True):
        assert all(torch.equal(plain[name], with_mean[name]) for name in plain)
