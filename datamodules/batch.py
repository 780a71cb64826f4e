"""What the tensors of a batch are."""

from __future__ import annotations

from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor

from datamodules.task import Task


class Parts(NamedTuple):
    """A batch by name.

    What says which steps count (``mask``, ``lengths``, ``reset``) stays on the CPU where a model trains on a GPU: it
    decides sizes, which the host would otherwise have to wait for (`near`).

    Args:
        inputs: (B, T) symbols or (B, T, I) values.
        targets: As the Task says.
        mask: (B, T) bool, where targets count; None: everywhere.
        lengths: (B,) int64, how many steps each sequence has; what is behind them is padding. None: all have T.
        reset: (B, T) bool, in chunks of streams: where a sequence begins anew. The first step of all others goes on
            from the last step of the batch before. None: every sequence begins with the batch.
    """

    inputs: Tensor
    targets: Tensor
    mask: Tensor | None = None
    lengths: Tensor | None = None
    reset: Tensor | None = None

    @classmethod
    def of(cls, batch: Batch) -> Parts:
        """Of a tuple (inputs, targets, ...) that goes on with a bool mask, int64 lengths, or both in this order."""
        if isinstance(batch, Parts):
            return batch
        inputs, targets, *more = batch
        mask = next((part for part in more if part.dtype == torch.bool), None)
        return cls(inputs, targets, mask, next((part for part in more if part.dtype == torch.int64), None))

    @property
    def of_host(self) -> tuple[Tensor | None, ...]:
        """What stays on the CPU."""
        return self.mask, self.lengths, self.reset

    def to(self, device: torch.device, dtype: torch.dtype | None = None) -> Parts:
        """All of it on a device, numbers in a dtype."""
        moved = [
            None if part is None else part.to(device, dtype if part.is_floating_point() else part.dtype)
            for part in self
        ]
        return Parts(*moved)  # type: ignore[arg-type]  # the first two are tensors

    def real(self) -> Tensor | None:
        """(B, T) bool, true up to each sequence's end; None where all have T steps."""
        return None if self.lengths is None else within(self.lengths, self.inputs.shape[1])

    def filled(self) -> Tensor:
        """The inputs, 0 behind each sequence's end."""
        real = self.real()
        if real is None:
            return self.inputs
        real = near(real, self.inputs)
        return self.inputs.where(real if self.inputs.dim() == 2 else real[..., None], 0)

    def counts(self, task: Task) -> Tensor | None:
        """(B, T) bool: the steps whose targets count, of a task with one per step; None where all do."""
        real = self.real() if task.per_step else None
        if real is None or self.mask is None:
            return self.mask if real is None else real
        return self.mask & real

    def share(self, task: Task) -> Tensor | None:
        """Which share of all steps is real, where a mean over those is to be one over all (``padded``); else None."""
        if task.scored != "padded" or self.lengths is None:
            return None
        return self.lengths.sum() / (self.inputs.shape[0] * self.inputs.shape[1])

    def recalled(self, recall: int) -> Tensor:
        """(B, T) bool: the last ``recall`` steps of each sequence."""
        marks = next((part for part in self.of_host if part is not None), self.inputs)
        steps = torch.arange(self.inputs.shape[1], device=marks.device)
        ends = self.lengths[:, None] if self.lengths is not None else torch.full_like(steps, len(steps))[None]
        return ((steps >= ends - recall) & (steps < ends)).expand(len(self.inputs), -1)


Batch: TypeAlias = tuple[Tensor, ...] | Parts
"""`Parts`, or what `Parts.of` takes."""


def near(marks: Tensor, to: Tensor) -> Tensor:
    """``marks`` where ``to`` is; the host does not wait for a copy to a GPU, but would read one from it half made."""
    return marks.to(to.device, non_blocking=to.device.type != "cpu")


def at(tensor: Tensor, marks: Tensor) -> Tensor:
    """``tensor[marks]``, marks a bool tensor: without a wait for a GPU where the marks are on the CPU."""
    return tensor[tuple(near(index, tensor) for index in marks.nonzero(as_tuple=True))]


def within(lengths: Tensor, steps: int) -> Tensor:
    """(B, steps) bool, true up to each length."""
    return torch.arange(steps, device=lengths.device) < lengths[:, None]
