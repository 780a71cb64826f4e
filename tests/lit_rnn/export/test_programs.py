"""Networks as programs: torch's own and onnxruntime's outputs are those of the model, at any batch size and length."""

from __future__ import annotations

import ast
import functools
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.torch_version import TorchVersion

from datamodules import SequenceFiles, Task, UserError
from lit_rnn import export, models
from lit_rnn.cells import Cell, ExpRNNCell, LSTMCell, UnitaryExpRNNCell, VanillaRNNCell
from lit_rnn.export import programs
from lit_rnn.export.network import network
from lit_rnn.models import SequenceModel
from lit_rnn.parametrizations import constrain_recurrent
from lit_rnn.scan import scan
from tests.trainers import quiet_trainer

onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")
ROOT = Path(__file__).parents[3]

MODELS = [name for name in models.__all__ if name[0].isupper() and name not in ("SequenceModel", "OrthogonalRNN")]
FORMS: list[tuple[str, dict[str, Any]]] = [
    ("ExpRNN", {"unitary": True, "layers": 2, "learn_initial_state": True}),
    ("EURNN", {"unitary": False}),
    ("LSTM", {"peepholes": True, "layers": 2, "learn_initial_state": True}),
    ("LSTM", {"output_matrix": True}),
    ("GRU", {"reset": "before"}),
    ("JANET", {"beta": 0.3}),
    ("NRU", {"use_relu": True, "layer_norm": True}),
    ("NRU", {"form": "paper"}),
    ("VanillaRNN", {"nonlinearity": "leaky_relu", "recurrent_constraint": "spectral_radius", "constraint_bound": 0.5}),
    ("VanillaRNN", {"nonlinearity": "relu", "layer_norm": True}),
]
Inputs = Callable[[SequenceModel, int, int], Tensor]


@pytest.fixture(scope="module", autouse=True)
def _one_registry() -> Iterator[None]:
    """torch reads its whole library for every ONNX model, which is half of the time; here once."""
    from torch.onnx._internal.exporter._registration import ONNXRegistry

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ONNXRegistry, "from_torchlib", staticmethod(functools.cache(ONNXRegistry.from_torchlib)))
        yield


def real(states: Any) -> list[Tensor]:
    """States as programs have them."""
    parts = [part for state in states for part in state]
    return [torch.cat((part.real, part.imag), dim=-1) if part.is_complex() else part for part in parts]


def rows() -> dict[str, list[str]]:
    """The table of docs/howto/export.md."""
    page = (ROOT / "docs/howto/export.md").read_text()
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in page.splitlines() if line.startswith("| `")]
    return {row[0].strip("`"): row[1:] for row in cells}


def by_onnx(path: Path) -> Callable[..., list[Tensor]]:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [each.name for each in session.get_inputs()]

    def run(*arguments: Tensor) -> list[Tensor]:
        given = zip(names, arguments, strict=True)
        return [torch.from_numpy(value) for value in session.run(None, {name: value.numpy() for name, value in given})]

    return run


@torch.no_grad()
def check(model: SequenceModel, form: Any, run: Callable[..., Any], inputs: Inputs, tolerance: float = 1e-12) -> None:
    """Outputs and states of a program are the model's, at several batch sizes and lengths."""
    model.options.backend = "loop"
    for batch, length in ((2, 5), (1, 1), (4, 9)):
        x, state = inputs(model, batch, length), export.initial_state(model, batch)
        want, finals = model.run(x)
        if form == "sequence":
            got, *state = run(x, *state)
        else:
            outputs = []
            for x_t in x.unbind(1):
                y, *state = run(x_t, *state)
                outputs.append(y)
            got = torch.stack(outputs, 1) if model.task.per_step else outputs[-1]
        names = [type(cell).__name__ for cell, final in zip(model.cell_list(), finals, strict=True) for _ in final]
        for name, part, right in zip(["output", *names], [got, *state], [want, *real(finals)], strict=True):
            torch.testing.assert_close(
                part, right, rtol=tolerance, atol=tolerance, msg=lambda text, n=name: f"{n}: {text}"
            )


@torch.no_grad()
def stack(make: Any, task: Task, kinds: list[tuple[str, dict[str, Any]]]) -> SequenceModel:
    """A network with a layer of each of some models: torch exports it in a fraction of the time that they all take."""
    model = make("LSTM", task)
    cells, below = nn.ModuleList(), task.input_size
    for name, options in kinds:
        like = make(name, task, **options)
        cell = like.build_cell(below).double()
        for parameter in cell.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
        constrain_recurrent(cell, like.options.recurrent_constraint, like.options.constraint_bound)
        cells.append(cell)
        below = cell.output_size
    model.cells, model.decoder = cells, nn.Linear(below, task.target_size).double()
    return model


@pytest.mark.parametrize(
    ("kinds", "form"),
    [([(name, {}) for name in MODELS], "sequence"), ([(name, {}) for name in MODELS], "step"), (FORMS, "sequence")],
    ids=["models-sequence", "models-step", "forms-sequence"],
)
def test_every_cell(
    kinds: list[tuple[str, dict[str, Any]]], form: Any, make: Any, last: Task, inputs: Inputs, tmp_path: Path
) -> None:
    """By torch.export and by ONNX, made of one program: symbols in and labels out, or values in and one value out."""
    model = stack(make, last if kinds is FORMS else make("LSTM").task, kinds)
    program = export.program(model, form)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(programs, "program", lambda *_: program)
        path = export.to_onnx(model, tmp_path / "x.onnx", form)
    check(model, form, program.module(), inputs)
    check(model, form, by_onnx(path), inputs, 1e-10 if kinds is FORMS else 1e-12)  # ONNX's LayerNorm has a float32 eps


@pytest.mark.parametrize("name", MODELS)
def test_what_the_table_says(name: str, make: Any) -> None:
    """The state's widths, the forms that are exported, and torch's module of the same kind."""
    model = make(name)
    width, forms, module = rows()[name]
    sizes = {"n": 8, "M": 9, "P": 20, "D": 64}
    told = [int(term[:-1] or 1) * sizes[term[-1]] for term in width.split(", ")]
    assert [part.shape[1] for part in export.initial_state(model, 1)] == told
    assert forms == "step, sequence"  # which `test_every_cell` runs
    assert all(network(model, form).layers for form in forms.split(", "))
    if module == "-":
        with pytest.raises(UserError, match="none of torch's"):
            export.to_torch(model)
    else:
        assert type(export.to_torch(model)).__name__ == module.removeprefix("`nn.").removesuffix("`")


def test_the_table_has_every_model() -> None:
    assert sorted(rows()) == sorted(MODELS)


@torch.no_grad()
def test_a_cell_alone(tmp_path: Path) -> None:
    """Time first, as scan."""
    cell = UnitaryExpRNNCell(3, 4, learn_initial_state=True)
    x = torch.randn(6, 2, 3)
    y, final = scan(cell, x, backend="loop")
    state = export.initial_state(cell, 2)
    whole = by_onnx(export.to_onnx(cell, tmp_path / "x.onnx", "sequence"))(x, *state)
    step = export.program(cell).module()
    for x_t in x:
        last, *state = step(x_t, *state)
    for got, right in zip(
        (whole[0], *whole[1:], last, *state), (y, *real([final]), y[-1], *real([final])), strict=True
    ):
        torch.testing.assert_close(got, right, rtol=1e-5, atol=1e-6)


# ---- the files


def test_a_pt2_holds_what_is_applied(make: Any, inputs: Inputs, tmp_path: Path) -> None:
    model = make("ExpRNN", layers=2, learn_initial_state=True)
    path = export.to_pt2(model, tmp_path / "new" / "x.pt2")
    about = {"lit_rnn.json": ""}
    loaded = torch.export.load(path, extra_files=about)
    check(model, "step", loaded.module(), inputs)
    told = json.loads(about["lit_rnn.json"])
    assert told["class_path"] == "lit_rnn.models.exprnn.ExpRNN" and told["form"] == "step"
    for part, start in zip(told["initial_state"], export.initial_state(model, 1), strict=True):
        assert torch.equal(torch.tensor(part, dtype=torch.float64), start[0])
    held = loaded.state_dict
    assert not [name for name in held if "skew" in name or "initial" in name]
    for layer, cell in enumerate(model.cell_list()):
        assert torch.equal(held[f"layers.{layer}.w0"], cell.weights())
    assert sum(tensor.numel() for tensor in held.values()) == 8 * 5 + 2 * (64 + 8) + 64 + 5 * 8 + 5


def test_an_onnx_file_says_what_it_is_and_runs_in_single_precision(make: Any, inputs: Inputs, tmp_path: Path) -> None:
    model = make("LSTM").float()
    path = export.to_onnx(model, tmp_path / "x.onnx", "sequence")
    check(model, "sequence", by_onnx(path), inputs, 1e-5)
    session = onnxruntime.InferenceSession(path)
    told = json.loads(session.get_modelmeta().custom_metadata_map["lit_rnn"])
    assert told["form"] == "sequence" and np.shape(told["initial_state"]) == (2, 8)
    assert [(each.name, each.shape) for each in session.get_inputs()] == [
        ("input", ["batch", "time"]),
        ("state_0", ["batch", 8]),
        ("state_1", ["batch", 8]),
    ]
    assert [(each.name, each.shape) for each in session.get_outputs()] == [
        ("output", ["batch", "time", 5]),
        ("next_state_0", ["batch", 8]),
        ("next_state_1", ["batch", 8]),
    ]


def test_a_program_says_what_its_inputs_were_made_of(tmp_path: Path) -> None:
    """From a Trainer, a checkpoint and a folder: with these numbers alone raw inputs give the model's answer."""
    random = np.random.default_rng(0)
    x, y = 100 + 5 * random.normal(size=(20, 6, 2)), ["left", "right"] * 10
    data = SequenceFiles.from_arrays(x, y, batch_size=4)
    model = models.LSTM(data.task, 8)
    trainer = quiet_trainer(max_steps=1)
    trainer.fit(model, data)
    trainer.save_checkpoint(tmp_path / "x.ckpt")
    loaded = models.load(tmp_path / "x.ckpt")
    again = export.load(export.save(loaded, tmp_path / "folder"))
    for number, source in enumerate((model, loaded, again)):
        session = onnxruntime.InferenceSession(export.to_onnx(source, tmp_path / f"{number}.onnx", "sequence"))
        told = json.loads(session.get_modelmeta().custom_metadata_map["lit_rnn"])
        assert told["task"] == asdict(data.task) and told["learned"] == data.learned()
        assert told["learned"]["classes"] == ["left", "right"] and told["learned"]["missing"] == "refuse"
        inputs = ((x - told["learned"]["mean"]) / told["learned"]["std"]).astype(np.float32)
        state = [np.tile(np.float32(part), (20, 1)) for part in told["initial_state"]]
        named = {"input": inputs, **{f"state_{at}": part for at, part in enumerate(state)}}
        given = data.split("train")[np.arange(3)][0]
        assert any(np.allclose(given[0], one, atol=1e-5) for one in inputs), "what training read"
        expected = loaded(torch.from_numpy(inputs)).detach().numpy()
        np.testing.assert_allclose(session.run(None, named)[0], expected, atol=1e-5)


def test_the_model_stays_as_it_is(make: Any, inputs: Inputs) -> None:
    model = make("VanillaRNN", recurrent_constraint="spectral_norm").train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    x = inputs(model, 2, 3)
    y = model(x)
    export.program(model)
    assert model.training and all(parameter.requires_grad for parameter in model.parameters())
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert torch.equal(model(x), y)


# ---- a cell of one's own, and what is refused


class Own(Cell):
    """h_t = tanh(W h_{t-1} + V x_t), or what a test makes of it."""

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__(input_size, hidden_size)
        self.input = nn.Linear(input_size, hidden_size)
        self.recurrent = nn.Linear(hidden_size, hidden_size)

    def weights(self) -> dict[str, Any]:
        return {"W": self.recurrent.weight, "f": torch.tanh, "none": None}

    def step(self, u: Tensor, state: Any, w: Any) -> Any:
        h = w["f"](u + state[0] @ w["W"].mT)
        return h, (h,)

    def recurrent_matrices(self) -> dict[str, Tensor]:
        return {"W": self.recurrent.weight}


class Branches(Own):
    def step(self, u: Tensor, state: Any, w: Any) -> Any:
        return super().step(u if u.sum() > 0 else -u, state, w)


class Spins(Own):
    """A complex state with a step of its own."""

    def initial_state(self, batch_size: int) -> Any:
        return (torch.zeros(batch_size, self.hidden_size, dtype=torch.complex64),)


@torch.no_grad()
def test_a_cell_of_ones_own_is_exported(tmp_path: Path) -> None:
    cell, x = Own(3, 4), torch.randn(5, 2, 3)
    run = by_onnx(export.to_onnx(cell, tmp_path / "own.onnx", "sequence"))
    torch.testing.assert_close(run(x, torch.zeros(2, 4))[0], scan(cell, x, backend="loop")[0], rtol=1e-5, atol=1e-6)


class Encodes(models.LSTM):
    def encode(self, inputs: Tensor) -> Tensor:
        return 2 * super().encode(inputs)


@pytest.mark.parametrize("write", [export.to_pt2, export.to_onnx])
def test_what_cannot_be_exported_is_one_sentence(write: Any, make: Any, tmp_path: Path) -> None:
    task = vars(make("LSTM").task)
    path = tmp_path / ("x.pt2" if write is export.to_pt2 else "x.onnx")
    cases: list[tuple[Any, str]] = [
        (Branches(3, 4), r"^Branches cannot be exported as one step to torch\.export \(.*\)\.$"),
        (Spins(3, 4), r"^Spins has a complex state and a step of its own: ONNX has no complex numbers"),
        (Encodes(task, 4), r"^Encodes has a encode of its own, and only encoder, cells and decoder are exported\.$"),
        (ExpRNNCell(3, 4).half(), r"^The weights are float16 and float32, but they must be float32 or float64"),
        (LSTMCell(3, 4).bfloat16(), r"^The weights are bfloat16, but"),
        (nn.LSTM(3, 4), r"^A LSTM cannot be exported, but a SequenceModel or a Cell can\.$"),
    ]
    for source, told in cases:
        with pytest.raises(UserError, match=told):
            write(source, path)
    cell = VanillaRNNCell(3, 4)
    with pytest.raises(UserError, match=r"path is .*x\.bin', but it must be a file that ends in \.(pt2|onnx)\."):
        write(cell, tmp_path / "x.bin")
    with pytest.raises(UserError, match="form is 'all', but it must be one of step, sequence"):
        write(cell, path, "all")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("package", ["onnx", "onnxscript"])
def test_a_missing_package_is_one_sentence(package: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    told = rf"needs the Python package {package}, which is not installed: pip install 'lit_rnn\[export\]'\."
    with pytest.raises(UserError, match=told):
        export.to_onnx(LSTMCell(3, 4), tmp_path / "x.onnx")


def test_an_older_torch_is_one_sentence(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(torch, "__version__", TorchVersion("2.9.1+cpu"))
    for write, name in ((export.to_pt2, "a.pt2"), (export.to_onnx, "a.onnx")):
        with pytest.raises(UserError, match=r"^torch is 2\.9\.1\+cpu, but lit_rnn\.export .* torch 2\.12 or newer\.$"):
            write(LSTMCell(2, 3), tmp_path / name)


def test_packages_are_imported_when_they_are_needed() -> None:
    packages = {"safetensors", "onnx", "onnxscript", "onnxruntime", "onnx_ir"}
    for path in (ROOT / "lit_rnn/export").glob("*.py"):
        for node in ast.parse(path.read_text()).body:
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not packages & {name.partition(".")[0] for name in names}, path
