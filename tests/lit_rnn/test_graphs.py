"""Recordings own all memory that their replays write to."""

from __future__ import annotations

import contextlib
import types
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from lit_rnn import graphs


class Device:
    """A GPU as far as memory goes: a product takes the workspace that is kept for the stream, or a new one from where
    memory comes from now; a fit ends with ``clear`` and with all freed memory being given back."""

    def __init__(self) -> None:
        self.source: object = "the device"
        self.kept: object = None
        self.written: list[object] = []

    def product(self) -> tuple[()]:
        self.kept = self.kept or self.source
        self.written.append(self.kept)
        return ()

    def clear(self) -> None:
        self.kept = None

    @contextlib.contextmanager
    def graph(self, graph: Any, pool: object, *_: Any, **__: Any) -> Iterator[None]:
        self.source, before = pool, self.source
        yield
        self.source = before


@pytest.mark.parametrize("before", ["nothing", "a product"])
def test_replays_write_to_memory_of_the_recording_alone(before: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With workspaces that cuBLAS keeps (torch before 2.15), a replay behind a fit's end wrote to freed memory."""
    device = Device()
    for name, stand_in in {
        "graph_pool_handle": lambda: "the pool",
        "CUDAGraph": lambda: types.SimpleNamespace(replay=None),
        "memory_allocated": lambda _: 0,
        "graph": device.graph,
    }.items():
        monkeypatch.setattr(torch.cuda, name, stand_in)
    monkeypatch.setattr(graphs, "_stream", lambda _: None)
    monkeypatch.setattr(torch._C, "_cuda_clearCublasWorkspaces", device.clear, raising=False)
    if before == "a product":
        device.product()
    recorder = graphs.CUDAGraphs(torch.device("cuda", 0))
    device.written.clear()
    recorder.record(device.product)
    recorder.record(device.product)
    assert device.written == ["the pool", "the pool"]
    device.product()
    assert device.written[-1] == "the device", "what is not recorded stays out of the pool"
