"""States that go on from one chunk of parallel streams to the next: truncated backpropagation through time."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from datamodules.errors import UserError
from lit_rnn.cells import State

_KEY = "carried"


class Carried:
    """The states after the last chunk, by stage: training, and a validation in the midst of it, have each their own.

    A checkpoint keeps those of training, the streams of all processes one behind the other, so that a run goes on in
    the midst of an epoch as if it had not stopped.
    """

    def __init__(self) -> None:
        self._states: dict[str, list[State]] = {}

    def before(self, stage: str, reset: Tensor, device: torch.device) -> list[State] | None:
        """Those to go on from, on ``device``; None for a chunk with which all streams begin.

        Raises:
            UserError: for another chunk, if the one before was not of this stage and of as many streams.
        """
        states = self._states.get(stage)
        if states and len(states[0][0]) == len(reset):
            return [tuple(part.to(device) for part in state) for state in states]
        if not bool(reset[:, 0].all()):
            raise UserError(
                f"A chunk of {len(reset)} streams goes on from one that was not seen: batches of streams come in "
                "their order, and a run goes on with the data.init_args.batch_size and trainer.devices it had."
            )
        return None

    def keep(self, stage: str, states: Sequence[State]) -> None:
        """No gradient crosses from one chunk to the next."""
        self._states[stage] = [tuple(part.detach() for part in state) for state in states]

    def note(self, stage: str, gather: Callable[[Tensor], Any], world_size: int) -> dict[str, Any]:
        """What a checkpoint keeps; to be called by all processes."""
        states = self._states.get(stage)
        if not states:
            return {}
        return {_KEY: [[_of_all(part, gather, world_size) for part in state] for state in states]}

    def take_up(self, stage: str, kept: Mapping[str, Any], rank: int, world_size: int) -> None:
        """From what `note` gave, the streams of this process."""
        self._states.pop(stage, None)
        if _KEY in kept and len(kept[_KEY][0][0]) % world_size == 0:  # else these are others, which begin anew
            self._states[stage] = [tuple(part.chunk(world_size)[rank] for part in state) for state in kept[_KEY]]


def _of_all(part: Tensor, gather: Callable[[Tensor], Any], world_size: int) -> Tensor:
    if world_size == 1:
        return part.cpu().clone()
    real = torch.view_as_real(part) if part.is_complex() else part
    together = gather(real.contiguous()).flatten(0, 1)
    return (torch.view_as_complex(together) if part.is_complex() else together).cpu()
