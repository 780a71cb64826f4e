"""A stand-in for CUDA graphs on the CPU: with all their traps, and none of their speed.

A replay runs the recorded function again and puts its results where those of the recording lie. What autograd kept of a
forward is only that of its last replay, as in memory that is written again. A forward's replay spoils what a backward
gave before it, as temporaries that share the pool's memory may.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

import torch

from lit_rnn.graphs import Recorder, Results


class Rerun(Recorder):
    """Runs again, instead of replaying."""

    most = 100
    """How many of them there is room for."""
    made: ClassVar[list[Rerun]] = []

    def __init__(self, device: torch.device) -> None:
        super().__init__(device)
        self.made.append(self)
        self.warmed, self.replays = 0, 0
        self.given: list[Results] = []  # by each recording

    def warm_up(self, work: Callable[[], object]) -> bool:
        self.warmed += 1
        work()
        return True

    def record(self, work: Callable[[], Results]) -> tuple[Results, Callable[[], None]]:
        mode = torch.is_grad_enabled(), torch.is_inference_mode_enabled()
        autocast = torch.is_autocast_enabled("cpu"), torch.get_autocast_dtype("cpu")
        results = tuple(None if part is None else part.detach().clone() for part in work())
        later = len(self.given)
        self.given.append(results)
        _spoil(results)  # nothing has run yet, it was only recorded

        def replay() -> None:
            self.replays += 1
            for others in self.given[later + 1 :]:
                _spoil(others)
            with (
                torch.inference_mode(mode[1]),
                torch.set_grad_enabled(mode[0]),
                torch.autocast("cpu", autocast[1], autocast[0]),
            ):
                torch.clear_autocast_cache()
                found = work()
                torch.clear_autocast_cache()
            with torch.no_grad():
                for place, part in zip(results, found, strict=True):
                    if place is not None and part is not None:
                        place.copy_(part)

        return results, replay

    def has_room(self) -> bool:
        return len(self.made) < self.most


def _spoil(results: Results) -> None:
    for part in results:
        if part is not None:
            part.fill_(torch.nan)
