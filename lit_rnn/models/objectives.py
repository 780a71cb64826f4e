"""What a Task asks of a model: its loss, its headline metric, and the meters that hold both over an epoch."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor, nn
from torchmetrics import Metric, classification, regression
from torchmetrics.utilities import dim_zero_cat, dim_zero_max, dim_zero_min, dim_zero_sum

from datamodules import Task, UserError
from datamodules.batch import Parts, at
from datamodules.errors import one_line, require
from lit_rnn.dtypes import as_plain
from lit_rnn.models.meter import AUROC, R2, RMSE, ExpOfMean, WeightedMean, nan_of_nan
from lit_rnn.robustness.objective import wrong_label

STAGES = ("train", "val", "test")
UNITS = ("symbol", "character", "byte", "word")  # of text, which all mean the same of a task's symbols
_MERGED_BY = (dim_zero_sum, dim_zero_cat, dim_zero_max, dim_zero_min)  # in any order, and in parts


def loss_of(task: Task, outputs: Tensor, targets: Tensor) -> Tensor:
    """Mean cross-entropy in nats, or mean squared error over all numbers, of what counts; 0 where nothing does.

    Outputs in half precision are taken as float32, as autocast does: bfloat16 has three digits for a loss.
    """
    outputs, targets = as_plain(outputs), as_plain(targets)
    if not targets.numel():
        return outputs.sum()  # its gradient is 0, too: a mean of nothing would be NaN
    if task.classifies:
        return nn.functional.cross_entropy(outputs.flatten(0, -2), targets.flatten())
    return nn.functional.mse_loss(outputs, targets)


@dataclass(frozen=True)
class HeadlineMetric:
    """A metric by its name.

    Args:
        words: As a person reads it.
        of_classes: Whether it is of classes, rather than of numbers.
        higher_is_better: Its direction, None where it has none.
        meter: What gathers it over an epoch.
        read: From outputs (N, O) and targets (N,) or (N, O), what the meter takes.
    """

    words: str
    of_classes: bool
    higher_is_better: bool | None
    meter: Callable[[Task], Metric]
    read: Callable[[Tensor, Tensor], tuple[Any, Any]]


def _mean(
    words: str,
    of_classes: bool,
    higher: bool,
    of: Callable[[Tensor, Tensor], Tensor],
    meter: Callable[[], Metric] = WeightedMean,
) -> HeadlineMetric:
    return HeadlineMetric(words, of_classes, higher, lambda task: meter(), lambda o, t: (of(o, t), t.numel()))


def _library(words: str, cls: Callable[..., Metric], of_classes: bool) -> HeadlineMetric:
    """A class of torchmetrics, in double precision: sums of squares cancel."""

    def meter(task: Task) -> Metric:
        options = {"num_classes": task.target_size} if of_classes else {}
        made: Metric = nan_of_nan(cls)(**options).set_dtype(torch.float64)
        return made

    def read(outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        if of_classes:  # probabilities: torchmetrics takes outputs that happen to lie in [0, 1] for those
            return outputs.double().softmax(-1), targets
        width = slice(None) if outputs.shape[-1] > 1 else 0
        return outputs.double()[..., width], targets.double()[..., width]

    return HeadlineMetric(words, of_classes, getattr(cls, "higher_is_better", None), meter, read)


def _share(right: Tensor) -> Tensor:
    return right.mean(dtype=torch.float32 if right.device.type == "mps" else torch.float64)


def _accuracy(outputs: Tensor, targets: Tensor) -> Tensor:
    return _share(~wrong_label(outputs, targets))


def _bits(outputs: Tensor, targets: Tensor) -> Tensor:
    nats = nn.functional.cross_entropy(outputs, targets)
    return nats / torch.log(nats.new_tensor(2.0))


def _within(outputs: Tensor, targets: Tensor) -> Tensor:
    return _share(((outputs - targets).abs() < 0.04).all(-1))


# Shares of right answers count one of NaN (`predicted_class`) as wrong; every other metric is then NaN, as the loss is
METRICS: dict[str, HeadlineMetric] = {
    "accuracy": _mean("accuracy", True, True, _accuracy),
    "cross_entropy": _mean("cross-entropy", True, False, nn.functional.cross_entropy),
    **{f"bits_per_{unit}": _mean(f"bits per {unit}", True, False, _bits) for unit in UNITS},
    "perplexity": _mean("perplexity", True, False, nn.functional.cross_entropy, ExpOfMean),
    "f1": _library("F1, mean of the classes", classification.MulticlassF1Score, True),
    "auroc": _library("area under the ROC, mean of the classes", AUROC, True),
    "mse": _mean("mean squared error", False, False, nn.functional.mse_loss),
    "within_0.04": _mean("predictions within 0.04", False, True, _within),
    "mae": _library("mean absolute error", regression.MeanAbsoluteError, False),
    "rmse": _library("root of the mean squared error", RMSE, False),
    "r2": _library("R squared", R2, False),
}


def headline(task: Task) -> HeadlineMetric:
    """The metric that ``task`` names: one of `METRICS`, or a class of torchmetrics that is made without options.

    Of `torchmetrics.classification` the multiclass ones, named with or without ``Multiclass``; of
    `torchmetrics.regression` all.

    Raises:
        UserError: if there is no such metric of such targets.
    """
    found = METRICS.get(task.metric)
    if found is not None and found.of_classes == task.classifies:
        return found
    library = classification if task.classifies else regression
    prefix = "Multiclass" if task.classifies else ""
    named = f"{prefix}{task.metric.removeprefix(prefix)}"
    cls: Any = getattr(library, named, None) if named in library.__all__ else None
    kind = "classes" if task.classifies else "numbers"
    ours = ", ".join(name for name, metric in METRICS.items() if metric.of_classes == task.classifies)
    require(
        cls is not None,
        "task.metric",
        task.metric,
        f"one of {ours}, or a class of {library.__name__}: the targets are {kind}",
    )
    return _library(task.metric, cls, task.classifies)


def at_length(name: str, length: int | None) -> str:
    """What a loss or metric is called at another length than that of training; None is that."""
    return name if length is None else f"{name}_at_{length}"


def measured_names(task: Task, lengths: Iterable[int] = ()) -> list[str]:
    """What validation measures, each behind ``val/``: loss and headline metric, and both at other lengths."""
    return [at_length(name, length) for length in (None, *lengths) for name in ("loss", task.metric)]


def metric_words(task: Task) -> str:
    """The headline metric as a person reads it."""
    words = headline(task).words
    return f"{words} of the {task.recall} recalled symbols" if task.recall else words


def better(task: Task) -> str:
    """``max`` or ``min``: which value of the headline metric is the best.

    Raises:
        UserError: if the task says the opposite of the metric.
    """
    own = headline(task).higher_is_better
    require(
        own is None or own == task.higher_is_better,
        "task.higher_is_better",
        task.higher_is_better,
        f"{own} for {task.metric}: the best checkpoint would be the worst",
    )
    return "max" if task.higher_is_better else "min"


def _meter(task: Task) -> Metric:
    """What gathers the headline metric, tried out first: what it cannot take must not show after an epoch.

    Raises:
        UserError: if it cannot be made, read, or added up over batches and processes.
    """
    metric = headline(task)
    if task.metric in METRICS and issubclass(type(meter := metric.meter(task)), WeightedMean):
        return meter
    try:
        meter = metric.meter(task)
        count = min(task.target_size, 8)
        outputs = torch.linspace(0, 9, count * task.target_size).sin().view(count, task.target_size)
        targets = torch.arange(count) if task.classifies else outputs.cos()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for _ in range(2):
                meter.update(*metric.read(outputs, targets))
            value = meter.compute()
        meter.reset()
    except Exception as error:  # whatever a class of torchmetrics raises
        reason = one_line(error)
        raise UserError(
            f"task.metric is {task.metric!r}, which torchmetrics refuses for this task: {reason}"
        ) from error
    single = isinstance(value, Tensor) and value.numel() == 1
    require(single, "task.metric", task.metric, "a metric of one number")
    added = all(reduction in _MERGED_BY for reduction in meter._reductions.values())
    require(added, "task.metric", task.metric, "a metric whose parts can be put together, over processes and resumes")
    return meter


class Meters(nn.ModuleDict):
    """Loss and headline metric of each stage, exact over ragged batches, masks, ranks and resumes.

    Those of training are in the state_dict, so that an epoch goes on with its values: what is a list of tensors in
    torchmetrics is one tensor there.

    Args:
        task: What is measured.

    Raises:
        UserError: if the task's metric is none.
    """

    def __init__(self, task: Task) -> None:
        super().__init__()
        self.task = task
        headline(task)  # refuses what is none
        sound = task.scored != "padded" or task.metric == "mse"
        require(sound, "task.metric", task.metric, "mse, as the task is scored padded")
        for stage in STAGES:
            self._add(stage, None)
        self.register_state_dict_post_hook(_lists_to_tensors)
        self.register_load_state_dict_pre_hook(_tensors_to_lists)
        for meter in self.of("train").values():
            meter.persistent(True)

    @property
    def metric(self) -> HeadlineMetric:
        """Read anew, so that a model can be pickled: it is made of functions."""
        return headline(self.task)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Sums follow the model to another device, but to no coarser dtype, unless it has no other: they would lose
        terms."""

        def move(tensor: Tensor) -> Tensor:
            device = fn(torch.empty(0, device=tensor.device)).device
            coarse = device.type == "mps" and tensor.dtype == torch.float64  # Apple's GPUs have no float64
            return tensor.to(device, torch.float32 if coarse else tensor.dtype)

        return super()._apply(move, recurse)

    def _add(self, stage: str, length: int | None) -> None:
        self[at_length(f"{stage}_loss", length)] = WeightedMean()
        self[at_length(f"{stage}_metric", length)] = _meter(self.task)

    def measure_at(self, lengths: Iterable[int]) -> None:
        """Have meters of validation and test for these other lengths too."""
        for length in lengths:
            for stage in ("val", "test"):
                if at_length(f"{stage}_loss", length) not in self:
                    self._add(stage, length)

    def of(self, stage: str, length: int | None = None) -> dict[str, Metric]:
        """The meters of a stage, by what they are logged as; ``length`` is another one than that of training."""
        names = {"loss": "loss", self.task.metric: "metric"}
        return {
            at_length(label, length): self[at_length(f"{stage}_{name}", length)]  # type: ignore[misc]  # Metrics alone are added
            for label, name in names.items()
        }

    @torch.no_grad()
    def count(self, stage: str, loss: Tensor, outputs: Tensor, parts: Parts, length: int | None = None) -> None:
        """Count a batch.

        Args:
            stage: Of `STAGES`.
            loss: Its mean loss.
            outputs: As of the model's ``forward``, but only of the steps that count, where not all do.
            parts: The batch.
            length: As of `of`.
        """
        counts = parts.counts(self.task)
        counted = parts.targets if counts is None else at(parts.targets, counts)
        loss_meter, metric_meter = self.of(stage, length).values()
        share = parts.share(self.task)
        weight = counted.numel() if share is None else parts.targets.numel()
        loss_meter.update(loss.detach(), weight)
        outputs, counted = self._recalled(as_plain(outputs.detach()), as_plain(counted), parts, counts)
        gathers = any(isinstance(state, list) for state in metric_meter._defaults.values())
        if len(counted) or gathers:  # ranks exchange lists: none may lack one
            found = self.metric.read(outputs, counted)
            metric_meter.update(*(found if share is None else (found[0] * share, weight)))
        else:
            self.mark_updated(stage, length)

    def _recalled(self, outputs: Tensor, targets: Tensor, parts: Parts, counts: Tensor | None) -> tuple[Tensor, Tensor]:
        """What the headline metric counts, as (N, O) and (N,) or (N, O)."""
        recall = self.task.recall if self.task.per_step else None
        if recall is not None and counts is None:
            outputs, targets = outputs[:, -recall:], targets[:, -recall:]
        elif recall is not None:
            last = parts.recalled(recall)[counts]
            outputs, targets = at(outputs, last), at(targets, last)
        return outputs.flatten(0, -2), targets.flatten(0, -1 if self.task.classifies else -2)

    def guessed(self, seen: Parts, asked: Parts) -> float | None:
        """The accuracy in one batch of whoever always gives the most frequent answer of another.

        What chance is of the headline metric (the task's own ``chance`` is a loss); in the same batch the answer that
        happens to be frequent would look better than it is.

        Returns:
            None where the metric is not the accuracy, or nothing counts.
        """
        if self.metric is not METRICS["accuracy"]:
            return None
        answers, right = self._answers(seen), self._answers(asked)
        if not len(answers) or not len(right):
            return None
        values, counts = answers.unique(return_counts=True)
        return float((right == values[counts.argmax()]).double().mean())

    def _answers(self, parts: Parts) -> Tensor:
        """The targets (N,) that the headline metric counts."""
        counts = parts.counts(self.task)
        counted = parts.targets if counts is None else at(parts.targets, counts)
        return self._recalled(counted.unsqueeze(-1), counted, parts, counts)[1]

    def reset(self, stage: str) -> None:
        """Begin an epoch."""
        for meter in self.of(stage).values():
            meter.reset()

    def mark_updated(self, stage: str, length: int | None = None) -> None:
        """Take what was loaded, or nothing, for what was counted, so that torchmetrics does not warn."""
        for meter in self.of(stage, length).values():
            meter._update_count = max(1, meter._update_count)
            meter._computed = None

    def of_all_ranks(self, prefix: str) -> dict[str, Any]:
        """The state_dict of all processes together; to be called by all of them."""
        meters = self.of("train").values()
        for meter in meters:
            meter.sync()
        try:
            return self.state_dict(prefix=prefix)
        finally:
            for meter in meters:
                if meter._is_synced:
                    meter.unsync()


def _lists_to_tensors(meters: nn.Module, state: dict[str, Any], prefix: str, *_: Any) -> None:
    for key, value in state.items():
        if key.startswith(prefix) and isinstance(value, list):
            state[key] = dim_zero_cat(value) if value else torch.empty(0)


def _tensors_to_lists(meters: nn.Module, state: dict[str, Any], prefix: str, *_: Any) -> None:
    """Of another metric nothing is taken over."""
    own = meters.state_dict(prefix=prefix)
    given = {key: value for key, value in state.items() if key.startswith(prefix)}
    for key in given:
        del state[key]
    state.update(given if given.keys() == own.keys() else own)
    for name, meter in meters.named_children():
        for key, default in meter._defaults.items():  # type: ignore[union-attr, operator]  # a Metric's
            path = f"{prefix}{name}.{key}"
            if isinstance(default, list) and path in state:
                state[path] = [state[path]] if state[path].numel() else []
            elif path in state:  # older checkpoints have float32
                state[path] = state[path].to(default.dtype)
