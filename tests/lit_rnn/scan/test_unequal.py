"""Unequal lengths and sequences that begin anew: every backend equals each sequence run alone, for every cell."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from datamodules import UserError
from lit_rnn import cells
from lit_rnn.cells import Cell
from lit_rnn.scan import drive, plain, scan, supports
from lit_rnn.scan.packed import Block
from lit_rnn.scan.unequal import runs_of
from tests.lit_rnn.scan.test_contract import BUILDERS, INPUTS, ONLY, Loss, built, gradients, oracle, random_state

T, LENGTHS = 12, (5, 12, 1, 11, 5, 12)
B = len(LENGTHS)
PAIRS = [
    (backend, label)
    for backend in ("loop", "auto", "fused", "native", "torch")
    for label in ONLY.get(backend, BUILDERS)
    if backend in ("loop", "auto") or supports(backend, BUILDERS[label]())  # type: ignore[arg-type]
]
each_pair = pytest.mark.parametrize(("backend", "label"), PAIRS)


@pytest.fixture
def _small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fewer rows of a drive are worked on at a time than the first steps have."""
    whole = drive.Drive.parts

    def parts(self: drive.Drive, blocks: Any) -> Any:
        monkeypatch.setattr(drive, "PART", 3 * self.width)
        return whole(self, blocks)

    monkeypatch.setattr(drive.Drive, "parts", parts)


def alone(
    cell: Cell, x: Tensor, state: tuple[Tensor, ...], lengths: tuple[int, ...], reset: Tensor | None = None
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Every sequence, and every stretch of it between resets, by itself."""
    columns, ends = [], []
    for b, length in enumerate(lengths):
        now = tuple(part[b : b + 1] for part in state)
        starts = [t for t in range(length) if t == 0 or (reset is not None and reset[t, b])]
        pieces = []
        for start, stop in zip(starts, [*starts[1:], length], strict=True):
            if reset is not None and reset[start, b]:
                now = cell.initial_state(1)
            y, now = oracle(cell, x[start:stop, b : b + 1], now)
            pieces.append(y)
        columns.append(torch.cat([*pieces, y.new_zeros(len(x) - length, 1, y.shape[-1])]))
        ends.append(now)
    return torch.cat(columns, dim=1), tuple(torch.cat(parts) for parts in zip(*ends, strict=True))


def close(ours: Any, expected: Any) -> None:
    """To 1e-12 of the largest number: sums of large ones cancel."""
    for mine, theirs in zip(ours, expected, strict=True):
        if isinstance(theirs, tuple):
            close(mine, theirs)
        else:
            scale = max(1.0, float(theirs.detach().abs().max()))
            torch.testing.assert_close(mine, theirs, rtol=1e-12, atol=1e-12 * scale)


def padded(grad: bool = True) -> Tensor:
    """Inputs of which nothing may be read behind an end."""
    x = torch.randn(T, B, INPUTS, dtype=torch.float64)
    for b, length in enumerate(LENGTHS):
        x[length:, b] = torch.nan
    return x.requires_grad_(grad)


def check(backend: Any, label: str, reset: Tensor | None = None, **options: Any) -> None:
    cell, x = built(label), padded()
    state = random_state(cell, B)
    expected, expected_state = alone(cell, x, state, LENGTHS, reset)
    if options.get("last_only"):
        expected = torch.stack([expected[length - 1, b] for b, length in enumerate(LENGTHS)])[None]
    y, final = scan(cell, x, state, backend, lengths=torch.tensor(LENGTHS), reset=reset, **options)
    close((y, final), (expected, expected_state))
    loss, leaves = Loss(y, final), [x, *state, *cell.parameters()]
    by, by_x = gradients(loss(y, final), leaves), gradients(loss(expected, expected_state), leaves)
    close(by, by_x)
    for b, length in enumerate(LENGTHS):
        assert not by[0][length:, b].any(), "padding has a gradient"
    with torch.no_grad():
        close(scan(cell, x, state, backend, lengths=torch.tensor(LENGTHS), reset=reset, **options), (y, final))


each_way = pytest.mark.parametrize(
    "options", [{}, {"last_only": True}, {"last_only": True, "checkpoint_every": 5}], ids=["all", "last", "checkpoints"]
)


@each_way
@each_pair
def test_lengths_are_every_sequence_alone(backend: str, label: str, options: dict[str, Any]) -> None:
    check(backend, label, **options)


@pytest.mark.usefixtures("_small_parts")
@pytest.mark.parametrize("last_only", [False, True], ids=["all", "last"])
@pytest.mark.parametrize(("backend", "label"), [pair for pair in PAIRS if pair[0] in ("fused", "native")])
def test_lengths_in_small_parts(backend: str, label: str, last_only: bool) -> None:
    check(backend, label, last_only=last_only)


@pytest.mark.skipif(not supports("native", BUILDERS["ExpRNNCell"]()), reason="no C++ compiler on this machine")
@pytest.mark.parametrize("label", ["ExpRNNCell", "URNNCell"])
@pytest.mark.parametrize("threads", [2, 3, 7])
@pytest.mark.parametrize("last_only", [False, True], ids=["all", "last"])
def test_threads_share_unequal_lengths_in_one_call(
    label: str, threads: int, last_only: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Forward, backward, and forward without a graph, however many lengths there are."""
    calls: list[str] = []
    inside = plain.function

    def function(library: str, name: str, dtype: torch.dtype) -> Any:
        calls.append(name)
        return inside(library, name, dtype)

    monkeypatch.setattr(plain, "function", function)
    try:
        torch.set_num_threads(threads)
        check("native", label, last_only=last_only)
    finally:
        torch.set_num_threads(1)
    assert calls == ["forward", "backward", "forward"]


@pytest.mark.parametrize("every", [None, 5])
@each_pair
def test_resets_are_every_stretch_alone(backend: str, label: str, every: int | None) -> None:
    """In the first step, in the last, at once in two rows, twice in a row, and behind an end."""
    reset = torch.zeros(T, B, dtype=torch.bool)
    for t, b in ((0, 0), (4, 0), (3, 1), (11, 1), (3, 3), (4, 3), (7, 4), (0, 5), (6, 5)):
        reset[t, b] = True
    check(backend, label, reset, checkpoint_every=every)


@pytest.mark.parametrize("label", ["LSTMCell", "ExpRNNCell"])
def test_compiled_chunks_with_lengths(label: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Batches that become fewer run in the loop behind a compiled one; here the compiler is left out."""
    monkeypatch.setattr("lit_rnn.scan.compiled.torch.compile", lambda f, **_: f)
    if supports("compiled", BUILDERS[label]()):
        check("compiled", label)


@pytest.mark.parametrize("backend", ["loop", "native", "fused"])
def test_one_step_of_one_sequence_and_none_at_all(backend: Any) -> None:
    cell = cells.ExpRNNCell(INPUTS, 4)
    y, _ = scan(cell, torch.randn(3, 1, INPUTS), backend=backend, lengths=torch.tensor([1]))
    assert y[0].any() and not y[1:].any()
    y, (h,) = scan(cell, torch.randn(3, 0, INPUTS), backend=backend, lengths=torch.zeros(0, dtype=torch.int64))
    assert y.shape == (3, 0, 4) and h.shape == (0, 4)


def test_full_lengths_are_no_lengths() -> None:
    """And cost nothing: no packed copy is made."""
    x = torch.randn(T, 3, INPUTS)
    assert runs_of(x, torch.full((3,), T), None) is None
    assert runs_of(x, None, torch.zeros(T, 3, dtype=torch.bool)) is None


def test_a_learned_initial_state_learns_from_every_beginning() -> None:
    cell = cells.LSTMCell(INPUTS, 4, learn_initial_state=True).double()
    x = torch.randn(4, 1, INPUTS, dtype=torch.float64)
    reset = torch.tensor([[False], [False], [True], [False]])
    y, _ = scan(cell, x, reset=reset)
    (found,) = torch.autograd.grad(y.sum(), cell.initial[0])
    halves = [scan(cell, half)[0].sum() for half in (x[:2], x[2:])]
    (expected,) = torch.autograd.grad(halves[0] + halves[1], cell.initial[0])
    close([found], [expected])


def test_no_step_is_run_twice_or_behind_an_end() -> None:
    """As many rows as there are real steps, the longest first."""
    runs = runs_of(torch.randn(T, B, INPUTS), torch.tensor(LENGTHS), None)
    assert runs is not None
    assert runs.blocks == (Block(1, 6), Block(4, 5), Block(6, 3), Block(1, 2))
    steps, rows = runs.place // B, runs.place % B
    assert len(set(runs.place.tolist())) == len(runs.place) == sum(LENGTHS)
    assert bool((steps < torch.tensor(LENGTHS)[rows]).all())


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"lengths": torch.tensor([1, 4])}, "lengths holds 4, but a length must be from 1 to 3"),
        ({"lengths": torch.tensor([0, 3])}, "lengths holds 0"),
        ({"lengths": torch.tensor([1.0, 2.0])}, "lengths is float32"),
        ({"lengths": torch.tensor([3])}, "must be int64 (2,)"),
        ({"lengths": [3, 2]}, "lengths is of type list"),
        ({"reset": torch.zeros(2, 3, dtype=torch.bool)}, "must be bool (3, 2)"),
        ({"reset": torch.zeros(3, 2)}, "reset is float32"),
    ],
)
def test_bad_lengths_are_refused(options: Any, words: str) -> None:
    with pytest.raises(UserError) as caught:
        scan(cells.VanillaRNNCell(INPUTS, 4), torch.randn(3, 2, INPUTS), **options)
    assert words in str(caught.value)
