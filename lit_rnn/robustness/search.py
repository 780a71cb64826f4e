"""What searches for the worst input share: the worst found so far, example by example."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from lit_rnn.robustness.objective import Objective
from lit_rnn.robustness.state import tensor


class Search:
    """The worst input found so far for each example, from the inputs themselves on: doing nothing is in every ball.

    Args:
        objective: What is to be maximised.
        x: The inputs.
        y: Their targets.
    """

    def __init__(self, objective: Objective, x: Tensor, y: Tensor) -> None:
        self.objective, self.x, self.y = objective, x.clone(), tensor(y, "y").clone()
        dtype = x.dtype if x.is_floating_point() else torch.get_default_dtype()
        self.value = torch.full((len(x),), -math.inf, dtype=dtype, device=x.device)
        self.fooled = torch.zeros(len(x), dtype=torch.bool, device=x.device)
        self.rows = torch.arange(len(x), device=x.device)
        self.judge(self.x, self.rows)

    def offer(self, moved: Tensor, values: Tensor, fooled: Tensor, rows: Tensor) -> None:
        """Take what fools before what does not, then what is of larger value; ``rows`` are the examples' numbers."""
        values = values.detach().to(self.value)
        better = (fooled & ~self.fooled[rows]) | ((fooled == self.fooled[rows]) & (values > self.value[rows]))
        taken = rows[better]
        self.x[taken], self.value[taken], self.fooled[taken] = moved.detach()[better], values[better], fooled[better]

    @torch.no_grad()
    def judge(self, moved: Tensor, rows: Tensor) -> Tensor:
        """Offer inputs for ``rows``; gives their values, in the inputs' precision whatever the model's is."""
        values, fooled = self.objective(moved, self.y[rows], rows)
        self.offer(moved, values, fooled, rows)
        return values.to(self.value)

    def open(self) -> Tensor:
        """The numbers of the examples that are not fooled yet."""
        return (~self.fooled).nonzero().squeeze(1)

    def rounds(self, count: int, early_stop: bool = True) -> Iterator[Tensor]:
        """``count`` times the numbers of the examples to go on with, those not fooled or all, while there are any."""
        for _ in range(count):
            rows = self.open() if early_stop else self.rows
            if not len(rows):
                return
            yield rows
