"""Whether what a user's cell gives depends on its own sequence and the steps until then, and on nothing else."""

from __future__ import annotations

import contextlib
import copy
import warnings
from collections.abc import Iterator

import torch
from pytorch_lightning.utilities import rank_zero_warn
from torch import Tensor

from datamodules.batch import Parts
from lit_rnn.cells import Cell
from lit_rnn.class_paths import is_own
from lit_rnn.models.network import Network
from lit_rnn.scan import scan

_ROWS, _STEPS = 3, 8  # that are looked at, at most


def warn_of_mixing(model: Network, parts: Parts) -> None:
    """Warn where a cell that is not ours mixes sequences or steps, which its numbers alone would not show.

    Args:
        model: Its first cell is looked at: a copy runs over a few steps, in evaluation mode.
        parts: A batch.
    """
    cell, fault = model.cell_list()[0], None
    if not is_own(type(cell)):
        return
    with contextlib.suppress(Exception), model.without_dropout(), torch.no_grad():  # some cannot read so few
        x = model.read_by(0, model.encode(parts.filled()[:_ROWS, :_STEPS]).transpose(0, 1))
        with torch.autocast(x.device.type, enabled=False), warnings.catch_warnings(action="ignore"):  # of one row, say
            fault = next(_faults(copy.deepcopy(cell).eval(), x), None)
    if fault is not None:
        rank_zero_warn(f"{type(cell).__name__}: {fault}.", stacklevel=2)


def _faults(cell: Cell, x: Tensor) -> Iterator[str]:
    """What a recurrence does not do, the first that is found first."""
    half = len(x) // 2
    whole, _ = scan(cell, x, backend="loop")
    if _differ(whole, scan(cell, x, backend="loop")[0]):
        yield (
            "the same inputs give other outputs the second time, in evaluation mode, so that no number of a validation "
            "stays; what it keeps from step to step belongs in the state, and random numbers under self.training"
        )
    if x.shape[1] > 1 and _differ(whole[:, :1], scan(cell, x[:, :1], backend="loop")[0]):
        yield (
            "what it gives for a sequence depends on the others of the batch, in evaluation mode: drive or step mixes "
            "rows, as a mean over the batch does, and numbers would depend on data.init_args.batch_size"
        )
    begun, state = scan(cell, x[:half], backend="loop") if half else (whole[:0], None)
    if _differ(whole[:half], begun):
        yield (
            "what it gives at a step depends on later steps: drive mixes steps, and reads what is to come, and "
            "padding, or step changes in place what it gave before"
        )
    if half and _differ(whole[half:], scan(cell, x[half:], state, backend="loop")[0]):
        yield (
            "it does not go on from its state as in one pass: drive mixes steps, or it keeps something beside the "
            "state, so that streams, checkpoint_every and programs that take one step give other numbers"
        )


def _differ(a: Tensor, b: Tensor) -> bool:
    size = float(a.abs().max()) if a.numel() else 0.0
    near = max(1e-3, 50 * torch.finfo(a.dtype).eps)
    return not torch.allclose(a, b, rtol=near, atol=near * size, equal_nan=True)
