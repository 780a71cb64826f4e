"""Recorded steps on the CPU, under a stand-in for CUDA graphs: the loop's numbers whatever is overwritten when."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from datamodules import CopyMemory, UserError
from lit_rnn import cells, graphs, models
from lit_rnn.cells import Cell
from lit_rnn.scan import compiled, graphed, reasons, run, scan, segment, supports
from tests.recording import Rerun

I, N = 3, 4  # noqa: E741


@pytest.fixture(autouse=True)
def recorders(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Rerun]]:
    monkeypatch.setitem(graphs.RECORDERS, "cpu", Rerun)
    monkeypatch.setattr(Rerun, "made", [])
    monkeypatch.setattr(graphed, "LONGEST", 4)
    monkeypatch.setattr(segment, "TOGETHER", 2)
    yield Rerun.made


def close(found: Any, expected: Any) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-11, atol=1e-11)


def loss_of(y: Tensor, state: tuple[Tensor, ...]) -> Tensor:
    parts = (y, *state)
    return (
        sum((part.abs().square() * torch.arange(1, len(part) + 1)[:, None]).sum() for part in parts[1:])
        + (y.square() * torch.arange(1, len(y) + 1)[:, None, None]).sum()
    )


def peepholes() -> Cell:
    """Parameters that a step reads beside w."""
    return cells.LSTMCell(I, N, peepholes=True).double()


def inputs(T: int, B: int = 2) -> Tensor:
    return torch.randn(T, B, I, dtype=torch.float64, requires_grad=True)


def results(cell: Cell, x: Tensor, backend: Any, **options: Any) -> list[Tensor]:
    y, state = scan(cell, x, backend=backend, **options)
    return [y, *state, *torch.autograd.grad(loss_of(y, state), [x, *cell.parameters()], materialize_grads=True)]


def assert_it_is_the_loop(cell: Cell, x: Tensor, **options: Any) -> None:
    close(results(cell, x, "graphed", **options), results(cell, x, "loop", **options))


@pytest.mark.parametrize(("T", "parts"), [(1, [1]), (3, [2, 1]), (4, [4]), (15, [4, 4, 4, 2, 1])], ids=str)
def test_any_length_is_a_sum_of_few(T: int, parts: list[int]) -> None:
    assert graphed._parts(T) == parts


def test_recordings_serve_all_lengths(recorders: list[Rerun]) -> None:
    cell = peepholes()
    for T in (15, 7, 13, 6, 15):
        assert_it_is_the_loop(cell, inputs(T))
    assert len(recorders) == 3 + 1 + 1  # of 4, 2 and 1 steps


@pytest.mark.parametrize("most", [1, 2])
def test_without_memory_for_every_part_the_forward_is_replayed(
    most: int, monkeypatch: pytest.MonkeyPatch, recorders: list[Rerun]
) -> None:
    monkeypatch.setattr(Rerun, "most", most)
    cell = peepholes()
    assert_it_is_the_loop(cell, inputs(12))
    assert len(recorders) == most and sum(r.replays for r in recorders) == 3 + 3 + (3 - most)
    assert_it_is_the_loop(cell, inputs(12))


def test_a_cell_that_runs_twice_before_the_backward() -> None:
    """What the first pass kept is overwritten, with other weights too where each pass drops others."""
    cell = peepholes()
    first, second = inputs(6), inputs(6)
    masks = [(torch.rand(4 * N, N) > 0.5).double() for _ in range(2)]

    def both(backend: Any) -> list[Tensor]:
        y, state = scan(cell, first, backend=backend, weight_map=lambda W: W * masks[0])
        z, after = scan(cell, second + y[..., :I], state, backend=backend, weight_map=lambda W: W * masks[1])
        loss = loss_of(y, state) + loss_of(z, after)
        return [y, z, *torch.autograd.grad(loss, [first, second, *cell.parameters()])]

    for _ in range(2):
        close(both("graphed"), both("loop"))


def test_outputs_outlive_later_passes_and_gradients_add_up() -> None:
    cell, x = peepholes(), inputs(6)
    y, state = scan(cell, x, backend="graphed")
    kept = [part.detach().clone() for part in (y, *state)]
    loss_of(y, state).backward()
    first = [parameter.grad.clone() for parameter in cell.parameters() if parameter.grad is not None]
    scan(cell, inputs(6), backend="graphed")
    close([y, *state], kept)
    scan(cell, inputs(6), backend="graphed")[0].sum().backward()
    cell.zero_grad()
    for count in (1, 2):  # accumulation over batches, into the same .grad
        loss_of(*scan(cell, x, backend="graphed")).backward()
        close([parameter.grad for parameter in cell.parameters()], [count * grad for grad in first])


def test_the_weights_of_now_are_read() -> None:
    """Parameters change between passes, in place as an optimizer does, or by new tensors."""
    cell = peepholes()
    optimizer = torch.optim.SGD(cell.parameters(), lr=0.1)
    for _ in range(3):
        x = inputs(5)
        assert_it_is_the_loop(cell, x)
        loss_of(*scan(cell, x, backend="graphed")).backward()
        optimizer.step()
    cell.load_state_dict({name: 2 * value for name, value in cell.state_dict().items()}, assign=True)
    assert_it_is_the_loop(cell, inputs(5))


def test_parameters_that_change_before_the_backward_are_noticed() -> None:
    cell, x = peepholes(), inputs(5)
    y, _ = scan(cell, x, backend="graphed")
    with torch.no_grad():
        cell.get_parameter("peephole").add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()


def test_what_is_kept_holds_no_parameters_own_node(recorders: list[Rerun]) -> None:
    """Such a node would add to .grad on the stream of the recording, and keep all else waiting for it."""
    cell = peepholes()
    results(cell, inputs(4), "graphed")
    (kind,) = graphed._recordings[cell].values()
    todo = [part.grad_fn for part in kind.places(4)[0][1]._outs]
    seen: set[Any] = set()
    while todo:
        node = todo.pop()
        if node is not None and node not in seen:
            seen.add(node)
            todo += [below for below, _ in node.next_functions]
    held = {id(node.variable) for node in seen if hasattr(node, "variable")}
    assert held and not held & {id(parameter) for parameter in cell.parameters()}
    assert all(parameter.requires_grad for parameter in cell.parameters())


class Scaled(cells.JANETCell):
    """Numbers and tensors beside the parameters."""

    def __init__(self, *sizes: int) -> None:
        super().__init__(*sizes)
        self.scale, self.shift = 1.0, torch.zeros(N, dtype=torch.float64)
        self.more: Any = [1.0, {"shift": self.shift}]

    def step(self, u: Tensor, state: Any, w: Any) -> Any:
        y, (h,) = super().step(u, state, w)
        return y * self.scale + self.shift, (h * self.scale * self.more[0] + self.more[1]["shift"],)


def test_what_a_step_reads_of_its_cell_may_change(recorders: list[Rerun]) -> None:
    cell = Scaled(I, N).double()
    for scale in (1.0, 0.5, 1.0):
        cell.scale = scale
        assert_it_is_the_loop(cell, inputs(4))
    assert len(recorders) == 2
    cell.shift = torch.ones(N, dtype=torch.float64)
    assert_it_is_the_loop(cell, inputs(4))
    for more in ([0.5, {"shift": cell.shift}], (0.5, {"shift": torch.ones(N, dtype=torch.float64)})):
        cell.more = more
        assert_it_is_the_loop(cell, inputs(4))
    assert len(recorders) == 5


class Noisy(cells.JANETCell):
    def step(self, u: Tensor, state: Any, w: Any) -> Any:
        y, (h,) = super().step(u, state, w)
        return y, (h + torch.randn_like(h),)


def test_a_step_that_draws_random_numbers_is_refused() -> None:
    with pytest.raises(UserError, match=r"draws random numbers.*backend to loop"):
        scan(Noisy(I, N).double(), inputs(4), backend="graphed")


def test_a_step_that_reads_a_number_on_the_host_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before anything is recorded; the recorder sees it."""
    monkeypatch.setattr(Rerun, "warm_up", lambda self, work: bool(work()))
    monkeypatch.setattr(Rerun, "record", None)
    with pytest.raises(UserError, match=r"reads a number on the host.*backend to loop"):
        scan(peepholes(), inputs(4), backend="graphed")


def test_smaller_batches_are_filled_up(recorders: list[Rerun], monkeypatch: pytest.MonkeyPatch) -> None:
    """To those of the smallest recording that has room for them, and never run in the loop."""
    cell = peepholes()
    for batch in (2, 4, 0):
        assert_it_is_the_loop(cell, inputs(4, batch))
    cases = [inputs(4, 3), inputs(4, 1), inputs(4, 3)]
    with monkeypatch.context() as patch:
        patch.setattr(graphed, "_in_the_loop", None)
        for x in cases:
            assert_it_is_the_loop(cell, x)
    assert [recorder.replays for recorder in recorders] == [2 + 2, 2 + 2 * 2]  # each way
    with torch.no_grad():
        close(scan(cell, cases[0], backend="graphed")[0], scan(cell, cases[0], backend="loop")[0])  # one of its own
    scan(cell, inputs(4, 5), backend="graphed", expected_passes=0)
    assert len(recorders) == 3


@pytest.mark.parametrize("make", [peepholes, lambda: cells.URNNCell(I, N).double()], ids=["peepholes", "complex"])
def test_resets_anywhere_share_recordings(make: Any, recorders: list[Rerun]) -> None:
    """Of one chunk to the next the number of runs differs; those of fewer are filled up."""
    cell = make()
    for at in ([1, 2, 3], [2], [1, 3], []):
        reset = torch.zeros(4, 3, dtype=torch.bool)
        reset[at, 1] = True
        assert_it_is_the_loop(cell, inputs(4, 3), reset=reset)
    assert len(recorders) == 2  # held, and of the chunk in which nothing begins


def test_only_the_last_kinds_are_kept(monkeypatch: pytest.MonkeyPatch, recorders: list[Rerun]) -> None:
    monkeypatch.setattr(graphed, "KINDS", 2)
    cell = peepholes()
    y, state = scan(cell, inputs(4, 1), backend="graphed")
    for batch in (2, 3, 4):
        assert_it_is_the_loop(cell, inputs(4, batch))
    loss_of(y, state).backward()  # of recordings that only this pass still holds
    assert len(recorders) == 4 and [kind.batch for kind in graphed._recordings[cell]] == [3, 4]


@pytest.mark.parametrize("waste", [4, 0], ids=["held", "block by block"])
@pytest.mark.parametrize(
    "make",
    [lambda: cells.NRUCell(I, N, 9, learn_initial_state=True), lambda: cells.URNNCell(I, N), peepholes],
    ids=["NRU", "complex", "peepholes"],
)
def test_lengths_resets_and_the_last_output(make: Any, waste: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graphed, "WASTE", waste)
    cell, x = make().double(), inputs(9, 4)
    reset = torch.zeros(9, 4, dtype=torch.bool)
    reset[5, 1] = reset[0, 2] = True
    assert_it_is_the_loop(cell, x, lengths=torch.tensor([9, 4, 7, 4]))
    assert_it_is_the_loop(cell, x, reset=reset)
    assert_it_is_the_loop(cell, x, last_only=True)
    assert_it_is_the_loop(cell, x, checkpoint_every=5)
    assert_it_is_the_loop(cell, x, lengths=torch.tensor([9, 4, 7, 4]), last_only=True, checkpoint_every=4)


def test_lengths_that_differ_from_batch_to_batch_share_recordings(recorders: list[Rerun]) -> None:
    """What lies behind an end is neither read nor written: it may be anything, and its gradient is zero."""
    cell = peepholes()
    for lengths in ([4, 1, 3], [4, 4, 2], [2, 4, 4], [1, 1, 4]):
        x = inputs(4, 3).detach()
        for row, length in enumerate(lengths):
            x[length:, row] = torch.nan
        x.requires_grad_()
        assert_it_is_the_loop(cell, x, lengths=torch.tensor(lengths))
        (by_x,) = torch.autograd.grad(scan(cell, x, backend="graphed", lengths=torch.tensor(lengths))[0].sum(), x)
        assert by_x.isfinite().all() and by_x[3, lengths.index(min(lengths))].eq(0).all()
    assert len(recorders) == 1


def test_without_gradients_one_recording_a_length(recorders: list[Rerun]) -> None:
    cell, x = peepholes(), inputs(12)
    expected = scan(cell, x, backend="loop")[0]
    for mode in (torch.no_grad, torch.inference_mode, torch.no_grad):
        with mode():
            close(scan(cell, x, backend="graphed")[0].clone(), expected.detach())
    assert len(recorders) == 1
    assert_it_is_the_loop(cell, x)


def test_autocast_casts_anew_in_every_pass() -> None:
    """torch remembers casts of parameters; a recording must neither read such a one nor leave one behind."""
    cell, x = cells.LSTMCell(I, N, peepholes=True, output_matrix=False), torch.randn(6, 2, I)
    other = cells.LSTMCell(I, N, output_matrix=True)
    for each in (cell, other):
        with torch.autocast("cpu", torch.bfloat16):
            for _ in range(2):
                found, expected = (scan(each, x, backend=backend)[0] for backend in ("graphed", "loop"))  # type: ignore[arg-type]
                torch.testing.assert_close(found, expected, rtol=0, atol=0)
                with torch.no_grad():
                    for parameter in each.parameters():
                        parameter.mul_(1.5)
                torch.clear_autocast_cache()


def test_a_compiled_step_is_recorded_like_any_other(monkeypatch: pytest.MonkeyPatch, recorders: list[Rerun]) -> None:
    whole = torch.compile
    monkeypatch.setattr(torch, "compile", lambda f, **options: whole(f, **options, backend="eager"))
    cell, x = peepholes(), inputs(6)
    w = cell.weights()

    def found(run: Any, **options: Any) -> list[Tensor]:
        y, state = run(cell, cell.drive(x, w), cell.initial_state(2), w, **options)
        return [y, *state, *torch.autograd.grad(loss_of(y, state), [x, *cell.parameters()])]

    close(found(graphed.run_graphed, compiled=True), found(compiled.steps))
    assert len(recorders) == 2
    u = torch.cat((cell.drive(x, w), torch.ones(6, 2, 1)), dim=-1)
    u[4:, 1, -1] = 0
    start = cell.initial_state(2)
    expected, (h, _) = compiled.steps(cell, u[..., :-1], start, w)
    y, state = graphed.run_graphed(cell, u, start, w, compiled=True, held=True)
    close(y[:4], expected[:4])
    close(state[0], torch.stack((h[0], expected[3, 1])))
    torch._dynamo.reset()


class Looking(cells.JANETCell):
    def step(self, u: Tensor, state: Any, w: Any) -> Any:
        y, (h,) = super().step(u, state, w)
        return y, (h if h.sum() > 0 else -h,)


def test_a_step_that_torch_cannot_compile_is_a_sentence() -> None:
    cell, x = Looking(I, N).double(), inputs(4)
    w = cell.weights()
    with pytest.raises(UserError, match=r"backend is compiled, but torch .* a step of Looking: \w.*graphed or loop"):
        graphed.run_graphed(cell, cell.drive(x, w), cell.initial_state(2), w, compiled=True)
    torch._dynamo.reset()


def test_recordings_go_with_their_cell(recorders: list[Rerun]) -> None:
    cell = peepholes()
    results(cell, inputs(4), "graphed")
    there = weakref.ref(cell)
    del cell
    recorders.clear()
    gc.collect()
    assert there() is None


def test_a_network_trains_as_in_the_loop() -> None:
    """Two layers and a decoder, three optimizer steps, two batches for each."""
    data = CopyMemory(delay=5, batch_size=4)
    x = torch.randint(data.task.input_size, (3, 2, 4, 6))
    trained = []
    for backend in ("graphed", "loop"):
        torch.manual_seed(0)
        model = models.JANET(data.task, 6, backend=backend, layers=2).double()  # type: ignore[arg-type]
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        for step in x:
            for batch in step:
                model(batch).square().mean().backward()
            optimizer.step()
            optimizer.zero_grad()
        trained.append([parameter.detach() for parameter in model.parameters()])
    close(*trained)


def test_only_where_something_records(monkeypatch: pytest.MonkeyPatch) -> None:
    assert supports("graphed", peepholes())
    monkeypatch.delitem(graphs.RECORDERS, "cpu")
    assert not supports("graphed", peepholes())
    with pytest.raises(UserError, match=r"LSTMCell is on the CPU, but graphed runs on a CUDA device"):
        scan(peepholes(), inputs(3), backend="graphed")


def test_a_model_names_the_backend_of_the_gpu_that_it_trains_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """Models are built on the CPU, and those that were trained on a GPU are loaded where there is none."""
    monkeypatch.delitem(graphs.RECORDERS, "cpu")
    task, x = CopyMemory(delay=5).task, torch.zeros(2, 3, dtype=torch.long)
    torch.manual_seed(0)
    model = models.ExpRNN(task, 6, backend="triton")
    models.JANET(task, 6, backend="graphed")
    with pytest.raises(UserError, match="JANETCell is not a plain recurrence"):
        models.JANET(task, 6, backend="triton")
    torch.manual_seed(0)
    torch.testing.assert_close(model(x), models.ExpRNN(task, 6, backend="loop")(x))  # auto, as it was not moved
    with pytest.raises(
        UserError, match=r"backend is 'triton'.*: ExpRNNCell is on the CPU, .* an NVIDIA GPU"
    ):  # asked in fits
        model.backends()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(run, "runs_on", lambda n, kind, dtype, device: device.type == "cuda" and n == 6)
    monkeypatch.setattr(run, "takes", lambda dtype, device: False)
    monkeypatch.setattr(reasons, "lacking", lambda: None)
    monkeypatch.setattr(reasons, "processors_of", lambda device: 1)
    models.ExpRNN(task, 6, backend="triton")
    with pytest.raises(UserError, match=r"backend is 'triton'.*ExpRNNCell has more units"):
        models.ExpRNN(task, 7, backend="triton")  # for which the GPU that is there is too small
