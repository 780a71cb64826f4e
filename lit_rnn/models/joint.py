"""The loss of a step that several processes take together: the mean over all that counts, wherever it lies.

DDP averages gradients over the W processes, which is the gradient of that mean only where each has as much that counts.
Process r, with n_r targets that count and L_r their mean loss, goes back through

    W n_r / (n_1 + .. + n_W) L_r,   whose mean over processes is   (n_1 L_1 + .. + n_W L_W) / (n_1 + .. + n_W).
"""

from __future__ import annotations

import torch
from torch import Tensor

from datamodules.batch import Parts, near
from datamodules.errors import UserError
from datamodules.task import Task


def counts_may_differ(task: Task, parts: Parts) -> bool:
    """Whether one process may have more that counts in a training batch than another; all of them answer alike.

    Chunks of streams are as long in every process.

    Raises:
        UserError: if this batch has a mask or lengths by which they may, and its task says that they do not: a process
            without them would not wait for this one.
    """
    differ = task.per_step and (task.scored == "mask" or (task.length is None and parts.reset is None))
    if not differ and parts.counts(task) is not None:
        given = "lengths" if parts.mask is None else "a mask"
        says = "length None" if parts.mask is None else "scored 'mask'"
        raise UserError(
            f"A training batch of several processes has {given}, but its Task {task.name} has scored {task.scored!r} "
            f"and length {task.length}: give it {says}, so that processes wait for each other's counts."
        )
    return differ


def anything_counts(task: Task, parts: Parts) -> bool:
    counts = parts.counts(task)
    return counts is None or bool(counts.any())


def how_many(task: Task, parts: Parts) -> Tensor:
    """What the loss is a mean over: the targets that count, or all steps, where the task is scored ``padded``.

    Every process pads to its own longest sequence.
    """
    counts = parts.counts(task)
    if counts is None or parts.share(task) is not None:
        return torch.tensor(parts.inputs.shape[0] * parts.inputs.shape[1])
    return counts.sum()


def joint_loss(loss: Tensor, count: Tensor, world_size: int) -> tuple[Tensor, Tensor]:
    """What this process goes back through, of its mean loss over ``count`` targets, and the mean of all processes.

    All of them call this together. Where nothing counts in any of them the first is 0, and the mean NaN.
    """
    count = near(count, loss)
    loss = torch.where(count > 0, loss, torch.zeros_like(loss))  # a mean of nothing may be NaN
    told = torch.stack((count.to(torch.promote_types(loss.dtype, torch.float32)), loss.detach() * count))
    torch.distributed.all_reduce(told)
    total, summed = told
    return loss * (world_size * count / total.clamp(min=1)).to(loss.dtype), summed / total


def mean_loss(loss: Tensor, world_size: int) -> Tensor:
    """The mean of all processes, which call this together, where each has as much that counts."""
    told = loss.detach().clone()
    torch.distributed.all_reduce(told)
    return told / world_size
