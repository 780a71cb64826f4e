"""What gathers a value over batches and ranks: torchmetrics' classes, and where they are not exact, ours."""

from __future__ import annotations

import functools
import warnings
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric, classification, regression
from torchmetrics.utilities import dim_zero_cat


class WeightedMean(Metric):
    """sum_i w_i x_i / sum_i w_i, exact over ragged batches and ranks, NaN where an x_i is NaN.

    torchmetrics' MeanMetric drops NaNs, or with ``nan_strategy="disable"`` drops the weights (1.9). The sums are in
    float64: in float32 one of 2^24 and 1 is 2^24, and an epoch of many small batches drifts.
    """

    full_state_update = False
    total: Tensor
    weight: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.updates = 0  # here and since the last reset: torchmetrics' own count is also that of what was loaded
        self.add_state("total", torch.tensor(0.0, dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("weight", torch.tensor(0.0, dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, value: Tensor, weight: int) -> None:
        self.updates += 1
        if weight:  # the mean of nothing is NaN
            self.total.add_(value, alpha=weight)  # in float64, as total is
            self.weight += weight

    def reset(self) -> None:
        super().reset()
        self.updates = 0

    def compute(self) -> Tensor:
        return self.total / self.weight


class ExpOfMean(WeightedMean):
    """exp of the mean: torchmetrics' Perplexity, which is infinite where a softmax underflows."""

    def compute(self) -> Tensor:
        return super().compute().exp()


@functools.cache
def nan_of_nan(cls: Any) -> Any:
    """``cls`` of torchmetrics, but NaN once an output was: it takes NaN for class 0, or for a place in a ranking."""

    class OrNaN(cls):
        lost: Tensor

        def __init__(self, **options: Any) -> None:
            super().__init__(**options)
            self.add_state("lost", torch.tensor(0), dist_reduce_fx="sum")

        def update(self, outputs: Tensor, targets: Tensor) -> None:
            none = outputs.isnan()
            self.lost += none.sum()
            super().update(outputs.masked_fill(none, 0), targets)

        def compute(self) -> Tensor:
            value: Tensor = super().compute()
            return value.where(self.lost == 0, torch.nan)

        def __reduce__(self) -> Any:
            return _unpickled, (cls,), self.__getstate__()

    OrNaN.__name__ = cls.__name__  # as messages name it
    return OrNaN


def _unpickled(cls: Any) -> Any:
    return object.__new__(nan_of_nan(cls))


class AUROC(classification.MulticlassAUROC):
    """One class against the rest, averaged over the classes for which both are there; torchmetrics counts others as 0.

    Exact: it keeps every score of the epoch.
    """

    def __init__(self, num_classes: int) -> None:
        super().__init__(num_classes, average="none")

    def compute(self) -> Tensor:  # type: ignore[override]  # it declares its parent's
        targets = dim_zero_cat(self.target)
        counts = torch.bincount(targets, minlength=self.num_classes)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "No (positive|negative) samples")
            return super().compute()[(counts > 0) & (counts < len(targets))].mean()


class RMSE(regression.MeanSquaredError):
    def __init__(self) -> None:
        super().__init__(squared=False)


class R2(regression.R2Score):
    """NaN, not an error, for fewer than two samples."""

    def compute(self) -> Tensor:
        return super().compute() if self.total > 1 else self.residual.sum() * torch.nan
