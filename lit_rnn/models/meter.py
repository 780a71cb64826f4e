"""A weighted mean over batches and ranks."""

from __future__ import annotations

import torch
from torch import Tensor
from torchmetrics import Metric


class WeightedMean(Metric):
    """sum_i w_i x_i / sum_i w_i, exact over ragged batches and ranks, NaN where an x_i is NaN.

    torchmetrics' MeanMetric drops NaNs, or with ``nan_strategy="disable"`` drops the weights (1.9).
    """

    full_state_update = False
    total: Tensor
    weight: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("total", torch.tensor(0.0), dist_reduce_fx="sum")
        self.add_state("weight", torch.tensor(0.0), dist_reduce_fx="sum")

    def update(self, value: Tensor, weight: int) -> None:
        self.total += value * weight
        self.weight += weight

    def update_called_before(self) -> None:
        """Take the state that was loaded for one that was updated, so that `compute` does not warn."""
        self._update_count = max(1, self._update_count)

    def compute(self) -> Tensor:
        return self.total / self.weight
