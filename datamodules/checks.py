"""What a batch must be for its Task, told of the sample that is wrong."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from datamodules.batch import Parts
from datamodules.errors import BadBatchError
from datamodules.task import Task

SPLIT_WORDS = {"train": "training", "val": "validation", "test": "test", "predict": "predicted"}  # to a person


def check_batch(
    batch: Any,
    task: Task,
    owner: str,
    split: str,
    number: int,
    indices: NDArray[np.int64] | None = None,
    exact: bool = True,
) -> None:
    """Refuse a batch that is not what ``task`` says: a few comparisons, and on the CPU a look at every number. The host
    would have to wait for those of a GPU.

    Targets count where the mask is true, if there is one, and inputs up to each sequence's end.

    Args:
        batch: What the split gave.
        task: What it should be.
        owner: The data's class.
        split: Its split.
        number: Which batch of it, from 0.
        indices: The samples of the batch; None where nobody knows more than their places in it.
        exact: Whether numbers must be float32, rather than in any precision.

    Raises:
        BadBatchError: naming the data's class, the split, the batch and, where one sample is wrong, that.
    """
    where = f"{owner} gives, in batch {number} of the {SPLIT_WORDS[split]} split,"
    if not _has_parts(batch):
        given = type(batch).__name__
        if isinstance(batch, tuple | list):
            given = f"({', '.join(_kind(part) for part in batch)})"
        accepted = "(inputs, targets), then if need be a bool mask, int64 lengths, or both, tensors"
        raise BadBatchError(f"{where} {given}, but it must give {accepted}.")
    parts = Parts.of(batch)
    inputs, targets, mask, lengths, reset = parts
    B, T = len(inputs), inputs.shape[1] if inputs.dim() > 1 else 0
    indices = np.arange(B) if indices is None else indices
    if inputs.dim() > 1 and (len(indices) != B or not T):
        raise BadBatchError(
            f"{where} inputs of shape {tuple(inputs.shape)}, but it must give {len(indices)} sequences, as many as "
            "indices were asked for, of at least one step."
        )
    symbols = task.inputs == "symbols"
    read = torch.int64 if symbols else torch.float32
    _check_form(where, "inputs", inputs, read, (B, T) if symbols else (B, T, task.input_size), exact)
    wanted = (B, T, task.target_size) if task.per_step else (B, task.target_size)
    dtype = torch.int64 if task.classifies else torch.float32
    several = (task.labels,) if task.labels > 1 else ()
    _check_form(where, "targets", targets, dtype, (*wanted[:-1], *several) if task.classifies else wanted, exact)
    if mask is not None and not task.per_step:
        raise BadBatchError(
            f"{where} a mask, but its task has one target a sequence ({task.targets}): leave it out, or give lengths."
        )
    if mask is None and task.per_step and task.scored == "mask":
        raise BadBatchError(
            f"{where} no mask, but its task is scored 'mask': give every batch one, true at the steps that count, or "
            "say scored 'all'."
        )
    for name, flags in (("the mask", mask), ("the resets", reset)):
        if flags is not None:
            _check_form(where, name, flags, torch.bool, (B, T))
    if lengths is not None:
        _check_form(where, "lengths", lengths, torch.int64, (B,))
        _check_lengths(where, lengths, T, indices)
    for name, part, size, counts in (
        ("inputs", inputs, task.input_size if symbols else None, parts.real()),
        ("targets", targets, task.target_size if task.classifies else None, parts.counts(task)),
    ):
        if part.device.type == "cpu":
            _check_numbers(where, name, part, size, counts, indices)


def _has_parts(batch: Any) -> bool:
    """Whether `Parts.of` takes it."""
    if isinstance(batch, Parts):
        return isinstance(batch.inputs, Tensor) and isinstance(batch.targets, Tensor)
    if not isinstance(batch, tuple | list) or len(batch) < 2 or not all(isinstance(part, Tensor) for part in batch):
        return False
    more = [part.dtype for part in batch[2:]]
    return more in ([], [torch.bool], [torch.int64], [torch.bool, torch.int64])


def _kind(part: object) -> str:
    return str(part.dtype).removeprefix("torch.") if isinstance(part, Tensor) else type(part).__name__


def _check_form(
    where: str, name: str, part: Tensor, dtype: torch.dtype, shape: tuple[int, ...], exact: bool = True
) -> None:
    fits = part.dtype == dtype or (not exact and part.is_floating_point() and dtype.is_floating_point)
    if not fits or tuple(part.shape) != shape:
        raise BadBatchError(
            f"{where} {name} of {part.dtype} and shape {tuple(part.shape)}, but its task needs {dtype} and {shape}."
        )


def _check_lengths(where: str, lengths: Tensor, T: int, indices: NDArray[np.int64]) -> None:
    bad = ((lengths < 1) | (lengths > T)).nonzero()
    if len(bad):
        first = int(bad[0])
        raise BadBatchError(
            f"{where} {int(lengths[first])} as the length of sample {indices[first]}, but it must be from 1 to {T}, "
            "the steps of its inputs."
        )


def _check_numbers(
    where: str,
    name: str,
    part: Tensor,
    size: int | None,
    counts: Tensor | None,
    indices: NDArray[np.int64],
) -> None:
    """All finite, or all whole numbers from 0 to size - 1."""
    looked_at = part if counts is None else part[counts]
    if looked_at.numel() == 0:
        return
    low, high = (float(extreme) for extreme in torch.aminmax(looked_at))  # NaN where there is one
    if size is None and np.isfinite(low) and np.isfinite(high):
        return
    if size is not None and low >= 0 and high < size:
        return
    bad = ~part.isfinite() if size is None else (part < 0) | (part >= size)
    bad = bad if counts is None else bad & counts.view(*counts.shape, *(1,) * (bad.dim() - counts.dim()))
    first = torch.nonzero(bad)[0].tolist()
    step = f", step {first[1]}" if len(first) > 1 and (name == "inputs" or part.dim() > 2 or size is not None) else ""
    accepted = "finite" if size is None else f"from 0 to {size - 1}"
    number = part[tuple(first)].item()
    sample = indices[first[0]]
    raise BadBatchError(f"{where} {number} in the {name} of sample {sample}{step}, but they must be {accepted}.")
