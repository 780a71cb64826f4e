"""CUDA graphs: what is launched once is recorded, and launched again as one piece.

A small kernel runs for some microseconds, and the host takes longer to launch it; a graph launches all that it holds at
once. It reads and writes the same memory at every replay.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator

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
    def warm_up(self, work: Callable[[], object]) -> bool:
        """Run ``work`` before it is recorded, so that what is made once is made now: handles, kernels.

        Whether it can be recorded: not if the host reads a number of the device.
        """

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

    def warm_up(self, work: Callable[[], object]) -> bool:
        stream, current = _stream(self.device), torch.cuda.current_stream(self.device)
        stream.wait_stream(current)
        try:
            with torch.cuda.stream(stream):
                work()
                return not _waits(work)
        finally:
            current.wait_stream(stream)

    def record(self, work: Callable[[], Results]) -> tuple[Results, Callable[[], None]]:
        graph = torch.cuda.CUDAGraph()
        # torch 2.11 leaves its own stream current where a recording cannot be ended
        with torch.cuda.stream(torch.cuda.current_stream(self.device)), _own_workspaces(), _no_collection():
            # of other threads (NCCL's watchdog, a loader that pins memory) nothing is asked while this one records
            with torch.cuda.graph(graph, self._pool, _stream(self.device), capture_error_mode="thread_local"):
                before = torch.cuda.memory_reserved(self.device)  # here, as what was unused has just been given back
                results = work()
            self._size += torch.cuda.memory_reserved(self.device) - before
        return results, graph.replay

    def has_room(self) -> bool:
        # what torch keeps unused is not counted: in the pools of recordings it is theirs alone
        free, total = torch.cuda.mem_get_info(self.device)
        return free - self._size > _FREE * total


def _waits(work: Callable[[], object]) -> bool:
    """Whether the host waits for the device in ``work``.

    Asked before it is recorded: a recording that fails leaves torch 2.11 as if it went on, with random numbers that are
    refused and memory that is never given back (pytorch/pytorch#171263).
    """
    before = torch.cuda.get_sync_debug_mode()
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            work()
        finally:
            torch.cuda.set_sync_debug_mode(before)
    return any("called a synchronizing CUDA operation" in str(warning.message) for warning in told)


@contextlib.contextmanager
def _own_workspaces() -> Iterator[None]:
    """cuBLAS takes new workspaces in here.

    It keeps one for each stream, which Lightning frees at the end of a fit: replays would go on writing to memory that
    is no longer theirs. One that is taken while a graph is recorded comes from the graph's own pool, and that lasts as
    long as the graph; given back at once, it serves no other work. torch's own recordings do the same
    (``torch/_inductor/cudagraph_trees.py``); torch 2.15 keeps none, unless ``TORCH_CUBLAS_WORKSPACE_CACHE`` is 1.
    """
    torch._C._cuda_clearCublasWorkspaces()
    try:
        yield
    finally:
        torch._C._cuda_clearCublasWorkspaces()


@contextlib.contextmanager
def _no_collection() -> Iterator[None]:
    """No garbage is collected in here: with a model that is gone its graphs would be destroyed, which no recording of
    another one survives (pytorch/pytorch#161037)."""
    on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if on:
            gc.enable()


@functools.cache
def _stream(device: torch.device) -> torch.cuda.Stream:
    """Where all is warmed up and recorded: torch asks that recordings which share a pool share a stream."""
    return torch.cuda.Stream(device)


RECORDERS: dict[str, Callable[[torch.device], Recorder]] = {"cuda": CUDAGraphs}


def records_on(device: torch.device) -> bool:
    """Whether there is a recorder for the device, and the device itself."""
    return device.type in RECORDERS and (device.type != "cuda" or torch.cuda.is_available())
