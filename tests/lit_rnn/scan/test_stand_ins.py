"""Where a backward goes through steps again, parameters are other leaves, and all is as in the loop."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lit_rnn import cells, graphs
from lit_rnn.cells import Cell
from lit_rnn.scan import graphed, scan, segment
from tests.recording import Rerun

INPUTS, N = 3, 4


@pytest.fixture(autouse=True)
def recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(graphs.RECORDERS, "cpu", Rerun)
    monkeypatch.setattr(graphed, "LONGEST", 4)
    monkeypatch.setattr(segment, "TOGETHER", 2)


class Listed(cells.JANETCell):
    """A parameter that a step finds in a list as well, and one that nobody reads."""

    def __init__(self, *sizes: int) -> None:
        super().__init__(*sizes)
        self.scale, self.unread = nn.Parameter(torch.rand(N)), nn.Parameter(torch.rand(N))
        self.listed = [self.scale]

    def step(self, u: Tensor, state: Any, w: Any) -> Any:
        y, (h,) = super().step(u, state, w)
        return y + self.scale, (h * self.listed[0],)


WAYS: list[dict[str, Any]] = [
    {"backend": "loop", "checkpoint_every": 2},
    {"backend": "graphed"},
    {"backend": "graphed", "checkpoint_every": 5},
]


def by_backward(cell: Cell, x: Tensor, **options: Any) -> dict[str, Tensor]:
    cell.zero_grad()
    y, state = scan(cell, x, **options)
    (y.square().sum() + state[0].sum()).backward()
    return {name: one.grad.clone() for name, one in cell.named_parameters() if one.grad is not None}


def assert_it_is_the_loop(cell: Cell, options: dict[str, Any]) -> None:
    for T in (9, 7, 9):
        x = torch.randn(T, 2, INPUTS, dtype=torch.float64)
        found, expected = by_backward(cell, x, **options), by_backward(cell, x, backend="loop")
        assert found.keys() == expected.keys()
        for name, grad in expected.items():
            torch.testing.assert_close(found[name], grad, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("options", WAYS, ids=str)
def test_hooks_of_parameters_run_once(options: dict[str, Any]) -> None:
    cell, calls = cells.LSTMCell(INPUTS, N, peepholes=True).double(), list[str]()

    def hooked(name: str) -> Any:
        return lambda by: (calls.append(name), 2 * by)[1]

    names = [name for name, _ in cell.named_parameters()]
    for name in names:
        cell.get_parameter(name).register_hook(hooked(name))
    assert_it_is_the_loop(cell, options)
    assert sorted(calls) == sorted(names * 6)


@pytest.mark.parametrize("options", WAYS, ids=str)
def test_a_parameter_may_be_read_from_elsewhere(options: dict[str, Any]) -> None:
    assert_it_is_the_loop(Listed(INPUTS, N).double(), options)
