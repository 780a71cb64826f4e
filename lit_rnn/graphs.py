"""CUDA graphs: what is launched once is recorded, and launched again as one piece.

A small kernel runs for some microseconds, and the host takes longer to launch it; a graph launches all that it holds at
once. It reads and writes the same memory at every replay.
"""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor

Results = tuple[Tensor | None, ...]

# Of the device's memory, what recordings leave free: all beyond the first of a kind are there to spare time alone.
_FREE = 0.2


class Recorder(ABC):
    """Records on one device. What one recorder records shares its memory: a replay may overwrite what a later recording
    made, and what an earlier one made and nobody holds."""

    def __init__(self, device: torch.device) -> None:
        self.device = device

    @abstractmethod
    def warm_up(self, work: Callable[[], object]) -> None:
        """Run ``work`` before it is recorded, so that what is made once is made now: handles, kernels."""

    @abstractmethod
    def record(self, work: Callable[[], Results]) -> tuple[Results, Callable[[], None]]:
        """What ``work`` gives, whose numbers are there after the first replay, and what replays it."""

    @abstractmethod
    def has_room(self) -> bool:
        """Whether the device has memory for another recorder's recordings, as large as these."""


class CUDAGraphs(Recorder):
    """CUDA graphs in a memory pool of their own."""

    def __init__(self, device: torch.device) -> None:
        super().__init__(device)
        self._pool = torch.cuda.graph_pool_handle()
        self._size = 0

    def warm_up(self, work: Callable[[], object]) -> None:
        stream, current = _stream(self.device), torch.cuda.current_stream(self.device)
        stream.wait_stream(current)
        with torch.cuda.stream(stream):
            work()
        current.wait_stream(stream)

    def record(self, work: Callable[[], Results]) -> tuple[Results, Callable[[], None]]:
        graph = torch.cuda.CUDAGraph()
        _let_workspaces_go()
        before = torch.cuda.memory_allocated(self.device)
        # of other threads (NCCL's watchdog, a loader that pins memory) nothing is asked while this one records
        with torch.cuda.graph(graph, self._pool, _stream(self.device), capture_error_mode="thread_local"):
            results = work()
        self._size += torch.cuda.memory_allocated(self.device) - before
        _let_workspaces_go()
        return results, graph.replay

    def has_room(self) -> bool:
        free, total = torch.cuda.mem_get_info(self.device)
        unused = torch.cuda.memory_reserved(self.device) - torch.cuda.memory_allocated(self.device)
        return free + unused - self._size > _FREE * total


def _let_workspaces_go() -> None:
    """Have cuBLAS take new workspaces.

    It keeps one for each stream, which Lightning frees at the end of a fit: replays would go on writing to memory that
    is no longer theirs. One that is taken while a graph is recorded comes from the graph's own pool, and that lasts as
    long as the graph; given back at once, it serves no other work. torch's own recordings do the same
    (``torch/_inductor/cudagraph_trees.py``); torch 2.15 keeps none.
    """
    torch._C._cuda_clearCublasWorkspaces()


@functools.cache
def _stream(device: torch.device) -> torch.cuda.Stream:
    """Where all is warmed up and recorded: torch asks that recordings which share a pool share a stream."""
    return torch.cuda.Stream(device)


RECORDERS: dict[str, Callable[[torch.device], Recorder]] = {"cuda": CUDAGraphs}


def records_on(device: torch.device) -> bool:
    """Whether there is a recorder for the device, and the device itself."""
    return device.type in RECORDERS and (device.type != "cuda" or torch.cuda.is_available())
