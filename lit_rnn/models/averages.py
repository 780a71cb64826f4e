"""Means of the weights over the steps, as callbacks of Lightning's take them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from pytorch_lightning.callbacks import StochasticWeightAveraging, WeightAveraging
from torch import Tensor
from torch.optim.swa_utils import AveragedModel, get_swa_avg_fn

from datamodules.errors import UserError
from lit_rnn.optim.schedule import ratios_of

if TYPE_CHECKING:
    from lit_rnn.models.training import Training

_Tensors = tuple[Tensor, ...] | list[Tensor]  # as torch calls it


def check(callbacks: Sequence[Any], model: Training) -> None:
    """Refuse callbacks whose mean of the weights is no network of the model's kind (`Training.not_averaged`).

    Raises:
        UserError: naming the callback.
    """
    reason = model.not_averaged()
    for callback in callbacks:
        if reason is not None and isinstance(callback, WeightAveraging | StochasticWeightAveraging):
            raise UserError(
                f"trainer.callbacks names {type(callback).__name__}, which cannot be used with {type(model).__name__}: "
                f"{reason}."
            )


def prepare(trainer: Any, model: Training) -> None:
    """Of a trainer's callbacks: `check` them, and keep their means to what has one, in the precision of the run.

    To be called where Lightning has made the means, but not yet loaded a checkpoint into them.
    """
    check(trainer.callbacks, model)
    for average in _averages(trainer):
        _spare_whole_numbers(average)
        if trainer.precision == "64-true":  # made before the model's are doubled; a validation swaps the two
            average.double()


def keep_ratios(trainer: Any) -> None:
    """Take one number as ``swa_lrs`` for the rate of the group ``other``, as `optim.build_scheduler` takes ``max_lr``.

    Lightning would give it to all groups. To be called where the optimizer is made, but no checkpoint loaded into it.
    """
    for callback in trainer.callbacks:
        if isinstance(callback, StochasticWeightAveraging) and isinstance(callback._swa_lrs, float):
            callback._swa_lrs = [callback._swa_lrs * ratio for ratio in ratios_of(trainer.optimizers[0])]


def take_up(trainer: Any, model: Training) -> None:
    """Put the scheduler of a checkpoint's `StochasticWeightAveraging` in its place, with the rates of the checkpoint.

    Lightning would at the next epoch's beginning: the end of one that goes on had none, and no rate fell there.
    """
    for callback in trainer.callbacks:
        if isinstance(callback, StochasticWeightAveraging) and callback._scheduler_state is not None:
            groups = trainer.optimizers[0].param_groups
            rates = [group["lr"] for group in groups]
            callback.on_train_epoch_start(trainer, model)
            for group, rate in zip(groups, rates, strict=True):  # a new scheduler takes a step
                group["lr"] = rate


def follow(trainer: Any, model: Training) -> None:
    """Behind a step: until a mean begins (``update_starting_at_step``) it is the model's weights of now.

    Lightning leaves the untrained ones there, validates them and saves them, at the run's end too.
    """
    for average in _averages(trainer):
        if average.n_averaged == 0:
            average.update_parameters(model)
            average.n_averaged.zero_()


def _averages(trainer: Any) -> list[AveragedModel]:
    means = [callback._average_model for callback in trainer.callbacks if isinstance(callback, WeightAveraging)]
    return [mean for mean in means if mean is not None]


def _spare_whole_numbers(average: AveragedModel) -> None:
    """Let a mean of the weights take whole numbers from the model as they are.

    torch averages buffers that hold indices, too: at a decay of 0.9 it makes 2 of 3 and 3, as 2.9999998 is cut off, and
    on a GPU it fails. W is then built from wrong places.
    """
    one, several = average.avg_fn or get_swa_avg_fn(), average.multi_avg_fn

    def update(means: _Tensors, now: _Tensors, count: Tensor | int) -> None:
        """Of tensors of one dtype."""
        whole = not (means[0].is_floating_point() or means[0].is_complex())
        if several is not None and not whole:
            several(means, now, count)
            return
        for mean, value in zip(means, now, strict=True):
            mean.copy_(value if whole else one(mean, value, count))

    average.avg_fn, average.multi_avg_fn = None, update
