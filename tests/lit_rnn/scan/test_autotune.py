"""What ``auto`` measures, keeps and takes: on the CPU under a clock that only passes move."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from datamodules import UserError
from lit_rnn import graphs
from lit_rnn.__main__ import main
from lit_rnn.cells import Cell, JANETCell, LSTMCell, VanillaRNNCell
from lit_rnn.commands.autotune import command
from lit_rnn.scan import autotune, compiled, foreseen, graphed, run, scan
from tests.logs import Logs
from tests.recording import Rerun

CPU = torch.device("cpu")


class Clock:
    """Each backend takes its seconds, the first time a second more."""

    def __init__(self) -> None:
        self.now, self.costs, self.ran = 0.0, {"loop": 0.3, "fused": 0.02, "graphed": 0.01}, []

    def a_pass(self, name: str) -> Callable[[], object]:
        def run() -> None:
            if name not in self.costs:
                raise RuntimeError("out of memory")
            self.now += self.costs[name] + (name not in self.ran)
            self.ran.append(name)

        return run


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Clock:
    made = Clock()
    monkeypatch.setattr(time, "perf_counter", lambda: made.now)
    monkeypatch.setitem(autotune.NAMES, "cpu", lambda _: "A card (80 GB)")
    monkeypatch.setattr(autotune, "cache_folder", lambda: tmp_path / "cache")
    for memory in ("_known", "_failed", "_first"):
        monkeypatch.setattr(autotune, memory, {})
    return made


def shape(cell: Cell | None = None, steps: int = 7, batch: int = 3, learns: bool = True) -> autotune.Shape:
    return autotune.Shape(cell or JANETCell(2, 4), steps, batch, learns)


def test_a_shape_is_measured_once_and_kept_on_disk(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    names = ["loop", "fused", "graphed"]
    assert autotune.remembered(shape(), names) is None
    assert autotune.measured(shape(), names, clock.a_pass) == "graphed"
    assert clock.ran.count("loop") == 3 and clock.ran.count("graphed") == 6  # one first, and 0.5 s or five passes
    times = {"loop": 300.0, "fused": 20.0, "graphed": 10.0}
    monkeypatch.setattr(autotune, "_known", {})  # another process
    assert autotune.times_of(shape(), names) == pytest.approx(times)
    assert autotune.measured(shape(), names, clock.a_pass) == autotune.remembered(shape(), names) == "graphed"
    assert len(clock.ran) == 3 + 6 + 6
    (path,) = autotune.files()
    torch_version = torch.__version__.replace("+", "-")
    assert path.name == f"autotune-A-card-80-GB-torch-{torch_version}-lit_rnn-{autotune._code()}.json"


def test_after_an_update_of_lit_rnn_it_is_measured_again(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    assert autotune.measured(shape(), ["loop", "fused"], clock.a_pass) == "fused"
    (kept,) = autotune.files()
    monkeypatch.setattr(autotune, "_code", lambda: "01234567")
    clock.costs["fused"] = 3.0
    assert autotune.remembered(shape(), ["loop", "fused"]) is None and not autotune.files()
    assert autotune.measured(shape(), ["loop", "fused"], clock.a_pass) == "loop"
    assert main(["autotune", "--clear"]) == 0 and not kept.exists() and not autotune.files()


def test_what_fails_is_not_taken_and_what_is_new_is_measured(clock: Clock, logs: Logs) -> None:
    assert autotune.measured(shape(), ["loop", "broken"], clock.a_pass) == "loop"
    assert "backend broken cannot be measured: RuntimeError: out of memory" in logs.text
    assert autotune.measured(shape(), ["loop", "broken", "fused"], clock.a_pass) == "fused"
    assert clock.ran.count("loop") == 3
    assert (
        autotune.listed(autotune.times_of(shape(), ["loop", "broken", "fused"])) == "fused 20, loop 300, broken failed"
    )


def test_what_failed_is_tried_again_by_the_next_process(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """Out of memory beside another program, or a compiler that is installed later: not for ever."""
    names, passes = ["loop", "broken"], []
    monkeypatch.setattr(autotune, "_tried", lambda run, name, _: passes.append(name) or (None if "b" in name else 3.0))
    for _ in range(2):
        assert autotune.measured(shape(), names, clock.a_pass) == "loop"
    assert passes == names and "broken" not in autotune.files()[0].read_text()
    for memory in ("_known", "_failed"):
        monkeypatch.setattr(autotune, memory, {})
    assert autotune.remembered(shape(), names) is None
    assert autotune.measured(shape(), names, clock.a_pass) == "loop" and passes == [*names, "broken"]


def test_failures_that_were_kept_are_none(clock: Clock) -> None:
    path = autotune.file_of(CPU)
    path.parent.mkdir()
    path.write_text(json.dumps({"measured": {shape().key: {"loop": 3.0, "fused": None}}}))
    assert autotune.times_of(shape(), ["loop", "fused"]) == {"loop": 3.0}
    assert autotune.measured(shape(), ["loop", "fused"], clock.a_pass) == "loop" and clock.ran[0] == "fused"


def test_every_shape_is_measured_by_itself() -> None:
    shapes = [
        shape(),
        shape(steps=8),
        shape(batch=4),
        shape(learns=False),
        shape(JANETCell(2, 5)),
        shape(JANETCell(3, 4)),
    ]
    shapes += [shape(LSTMCell(2, 4, peepholes=p)) for p in (True, False)] + [shape(JANETCell(2, 4).double())]
    shapes += [shape(VanillaRNNCell(2, 4, f)) for f in ("tanh", "relu")]  # type: ignore[arg-type]
    assert len({each.key for each in shapes}) == len(shapes)
    assert shape().key == shape().key
    with torch.autocast("cpu", torch.bfloat16):
        assert "bfloat16 autocast" in shape().key


@pytest.mark.parametrize("content", ["", "{}", '{"measured": {"a": 3}}', '{"measured": {"a": {"loop": "x"}}}'])
def test_a_damaged_file_is_measured_anew(clock: Clock, content: str, logs: Logs) -> None:
    path = autotune.file_of(CPU)
    path.parent.mkdir()
    path.write_text(content)
    assert autotune.measured(shape(), ["loop", "fused"], clock.a_pass) == "fused"
    assert "is damaged" in logs.text and "Backends are measured again" in logs.text
    assert len(autotune.read(path)) == 1


def test_a_folder_that_cannot_be_made_costs_only_the_memory(clock: Clock, logs: Logs) -> None:
    autotune.cache_folder().write_text("a file")
    assert autotune.measured(shape(), ["loop", "fused"], clock.a_pass) == "fused"
    assert "what was measured is not kept" in logs.text
    assert autotune.files() == []


def test_scan_takes_the_fastest_where_enough_steps_are_to_come(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    cell, x = VanillaRNNCell(2, 4, "tanh"), torch.randn(7, 3, 2)
    costs = {"loop": 0.3, "fused": 0.2, "torch": 0.1, "native": 0.4, "graphed": 0.5}
    monkeypatch.setitem(graphs.RECORDERS, "cpu", Rerun)
    taken: list[str] = []
    whole = run._run

    def timed(cell: Cell, x: Any, state: Any, w: Any, chosen: str, *rest: Any) -> Any:
        clock.now += costs[chosen]
        taken.append(chosen)
        return whole(cell, x, state, w, chosen, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(run, "_run", timed)
    expected = scan(cell, x, backend="loop")[0]
    scan(cell, x, expected_passes=5)
    assert taken[-1] != "torch" and not autotune.files()
    drawn = torch.get_rng_state()
    for passes in (10_000, 10_000, 5):
        assert foreseen("auto", cell, 10_000, 3, 7) == ("torch" if autotune.files() else "measured at the first pass")
        torch.testing.assert_close(scan(cell, x, expected_passes=passes)[0], expected)
        assert taken[-1] == "torch"
    assert torch.equal(torch.get_rng_state(), drawn)
    assert all(parameter.grad is None for parameter in cell.parameters())
    with torch.no_grad():
        scan(cell, x, expected_passes=10_000)
    assert "graphed" in taken and not graphed._recordings[cell]  # what lost holds no memory
    (measured,) = [autotune.read(path) for path in autotune.files()]
    assert [key.rpartition(", ")[2] for key in measured] == ["forward and backward", "forward"]
    assert foreseen("loop", cell, 10_000, 3, 7) == "loop"


@pytest.mark.parametrize(("hidden_size", "tried"), [(512, False), (513, True)])
def test_streamed_is_tried_where_it_may_win(
    hidden_size: int, tried: bool, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "supports", lambda *_: True)
    clock.ran.clear()
    monkeypatch.setattr(autotune, "measured", lambda shape, names, _: clock.ran.extend(names) or "loop")
    scan(VanillaRNNCell(2, hidden_size), torch.randn(3, 2, 2), expected_passes=10_000)
    assert "triton" in clock.ran and ("streamed" in clock.ran) is tried


def test_lengths_of_one_order_are_measured_once(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """Batches of unequal lengths have another T each; nor is anything drawn where nothing is measured."""
    drawn: list[tuple[int, ...]] = []
    randn = torch.randn
    monkeypatch.setattr(torch, "randn", lambda size, **kwargs: drawn.append(tuple(size)) or randn(size, **kwargs))
    cell = JANETCell(2, 4)
    for T in (5, 7, 4, 5, 9, 12):
        scan(cell, randn(T, 3, 2), expected_passes=10_000, lengths=torch.tensor([T, 1, T - 1]))
    assert drawn == [(5, 3, 2), (9, 3, 2)]
    (measured,) = [autotune.read(path) for path in autotune.files()]
    assert len(measured) == 2 and all(any(f"T = {T}," in key for key in measured) for T in (5, 9))


def test_the_command_shows_and_forgets(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["autotune"]) == 0
    assert "Nothing is measured" in capsys.readouterr().out
    autotune.measured(shape(), ["loop", "fused"], clock.a_pass)
    assert main(["autotune"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "T = 7, B = 3, float32, forward and backward fused fused 20, loop 300" in said
    assert main(["autotune", "--clear"]) == 0 and autotune.files() == []
    autotune.file_of(CPU).write_text("{")
    assert main(["autotune"]) == 2
    assert "is damaged" in capsys.readouterr().err


@pytest.mark.skipif(torch.cuda.is_available(), reason="has a GPU")
def test_the_command_measures_on_a_gpu_alone(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["autotune", "--config", "quickstart.yaml"]) == 2
    assert capsys.readouterr().err.strip() == "lit_rnn: autotune --config measures on a GPU, and torch finds none here."
    for given in (["--nonsense", "3"], ["t.yaml"]):
        assert main(["autotune", *given]) == 2
        told = capsys.readouterr().err
        assert told.startswith(f"lit_rnn: autotune is given {' '.join(given)} without --config: name the config whose")


def test_half_a_config_is_refused(clock: Clock, capfd: Any, monkeypatch: Any, tmp_path: Path) -> None:
    monkeypatch.setattr(command, "_DEVICE", "cpu")
    for there, lacking in (("data", "model"), ("model", "data")):
        path = tmp_path / "t.yaml"
        path.write_text(f"{there}: {{class_path: {'CopyMemory' if there == 'data' else 'LSTM'}}}")
        assert main(["autotune", "--config", str(path)]) == 2
        assert f"config {path} has no {lacking}, and autotune" in capfd.readouterr().err


def test_the_command_measures_every_cell_of_a_config(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """On the CPU in a GPU's place: a model of two layers, with gradients and without."""
    monkeypatch.setattr(autotune, "seconds", lambda work, device: float(work() is None))
    monkeypatch.setattr(command, "_DEVICE", "cpu")
    monkeypatch.setattr(compiled, "CHUNK", 2)  # whose time is that of compilation
    options = ["--model.init_args.layers", "2", "--model.init_args.hidden_size", "4", "--data.init_args.delay", "3"]
    assert main(["autotune", "--config", "quickstart.yaml", *options]) == 0
    (measured,) = [autotune.read(path) for path in autotune.files()]
    assert len(measured) == 4 and all("n = 4, T = 23, B = " in key for key in measured)


@pytest.mark.parametrize(
    ("precision", "named"), [("32-true", "float32"), ("bf16-mixed", "bfloat16 autocast"), ("64-true", "float64")]
)
def test_the_command_measures_in_the_config_s_precision(
    precision: str, named: str, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    met: list[str] = []

    def noted(cell: Cell, x: torch.Tensor, **_: object) -> None:
        assert x.dtype == next(cell.parameters()).dtype
        met.append(autotune.Shape(cell, *x.shape[:2], torch.is_grad_enabled()).key)

    monkeypatch.setattr("lit_rnn.scan.scan", noted)
    monkeypatch.setattr(command, "_DEVICE", "cpu")
    options = ["--model.init_args.hidden_size", "4", "--trainer.precision", precision]
    assert main(["autotune", "--config", "quickstart.yaml", *options]) == 0
    assert len(met) == 2 and all(f", {named}, forward" in key for key in met)


def test_nothing_is_forgotten_for_what_cannot_be_measured(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    autotune.measured(shape(), ["loop", "fused"], clock.a_pass)
    kept = autotune.files()
    if not torch.cuda.is_available():
        assert main(["autotune", "--clear", "--config", "quickstart.yaml"]) == 2 and autotune.files() == kept
    monkeypatch.setattr(command, "_DEVICE", "cpu")
    assert main(["autotune", "--clear", "--config", "quickstart.yaml", "--model.init_args.hidden_siz", "4"]) == 2
    assert autotune.files() == kept != []


def test_a_wrong_name_is_refused_before_anything_is_measured(clock: Clock) -> None:
    with pytest.raises(UserError, match="nonsense"):
        scan(JANETCell(2, 4), torch.randn(7, 3, 2), backend="nonsense", expected_passes=10_000)  # type: ignore[arg-type]
    assert not autotune.files()
