"""What a recording on a GPU relies on: memory of its own, no garbage collected meanwhile, a host that never waits."""

from __future__ import annotations

import contextlib
import gc
import types
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

from lit_rnn import graphs

TOTAL, WORKSPACE = 100, 2


class Device:
    """A GPU as far as memory, streams and waits go, with torch 2.11.

    A product takes the workspace that is kept for the stream, or a new one from where memory comes from now; a fit ends
    with ``clear`` and with all freed memory being given back, but for that in the pools of recordings.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.source: object = "the device"
        self.kept: object = None
        self.written: list[object] = []
        self.reserved = self.unused = 0
        self.current: object = "the default"
        self.debug = 0
        for name, stand_in in {
            "graph": self.graph,
            "stream": self.on,
            "mem_get_info": self.mem_get_info,
            "memory_reserved": self.memory_reserved,
            "set_sync_debug_mode": self.set_sync_debug_mode,
            "graph_pool_handle": lambda: "the pool",
            "CUDAGraph": lambda: types.SimpleNamespace(replay=None),
            "current_stream": lambda _: types.SimpleNamespace(name=self.current, wait_stream=lambda _: None),
            "get_sync_debug_mode": lambda: self.debug,
        }.items():
            monkeypatch.setattr(torch.cuda, name, stand_in)
        side = types.SimpleNamespace(name="the recording's", wait_stream=lambda _: None)
        monkeypatch.setattr(graphs, "_stream", lambda _: side)
        monkeypatch.setattr(torch._C, "_cuda_clearCublasWorkspaces", self.clear, raising=False)

    def product(self) -> tuple[()]:
        self.kept = self.kept or self.source
        self.written.append(self.kept)
        return ()

    def read(self) -> None:
        """A number, on the host."""
        if self.debug:
            warnings.warn("called a synchronizing CUDA operation (Triggered internally)", stacklevel=2)

    def take(self, number: int) -> None:
        self.reserved += number

    def clear(self) -> None:
        self.kept = None

    def mem_get_info(self, _: object) -> tuple[int, int]:
        return TOTAL - self.reserved - self.unused, TOTAL

    def memory_reserved(self, _: object) -> int:
        return self.reserved + self.unused

    def set_sync_debug_mode(self, mode: Any) -> None:
        warnings.warn("Synchronization debug mode is a prototype feature", stacklevel=2)
        self.debug = {"warn": 1}.get(mode, mode)

    @contextlib.contextmanager
    def on(self, stream: Any) -> Iterator[None]:
        before, self.current = self.current, stream.name
        try:
            yield
        finally:
            self.current = before

    @contextlib.contextmanager
    def graph(self, graph: Any, pool: object, stream: Any, **_: Any) -> Iterator[None]:
        self.unused = 0  # given back
        source, self.source = self.source, pool
        before, self.current = self.current, stream.name
        try:
            yield
        finally:
            self.source = source
        self.current = before  # not where it fails


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> Device:
    return Device(monkeypatch)


def recorder() -> graphs.CUDAGraphs:
    return graphs.CUDAGraphs(torch.device("cuda", 0))


@pytest.mark.parametrize("before", ["nothing", "a product"])
def test_replays_write_to_memory_of_the_recording_alone(before: str, device: Device) -> None:
    """With workspaces that cuBLAS keeps (torch before 2.15), a replay behind a fit's end wrote to freed memory."""
    if before == "a product":
        device.product()
    made = recorder()
    device.written.clear()
    made.record(device.product)
    made.record(device.product)
    assert device.written == ["the pool", "the pool"]
    device.product()
    assert device.written[-1] == "the device", "what is not recorded stays out of the pool"


def failing() -> tuple[()]:
    raise RuntimeError("out of memory")


@pytest.mark.parametrize("work", [tuple, failing])
def test_no_garbage_is_collected_while_one_records(work: Callable[[], tuple[()]], device: Device) -> None:
    """It may hold graphs, and to destroy one ends the recording of another."""
    seen: list[bool] = []

    def recorded() -> tuple[()]:
        seen.append(gc.isenabled())
        device.product()
        return work()

    with contextlib.suppress(RuntimeError):
        recorder().record(recorded)
    assert (seen, gc.isenabled()) == ([False], True)
    assert device.current == "the default"
    assert device.kept is None


def test_what_the_pools_of_recordings_hold_is_no_room(device: Device) -> None:
    """A recording takes more than its results, such as what its steps no longer need, and nobody else gets that."""
    made = []
    while len(made) < TOTAL and (not made or made[-1].has_room()):
        device.unused = 30  # what torch keeps of other work
        one = recorder()
        one.record(lambda: device.take(20) or ())
        made.append(one)
    assert len(made) == 3  # 40 are left, and a fifth is to be free behind the next


@pytest.mark.parametrize("reads", [True, False])
def test_work_in_which_the_host_waits_cannot_be_recorded(reads: bool, device: Device) -> None:
    """It is found before anything is recorded; torch 2.11 does not get over a recording that fails."""
    work = device.read if reads else device.product
    assert recorder().warm_up(work) == (not reads)
    assert (device.debug, device.current) == (0, "the default")
