"""export.save and load: the same network bit for bit, and no other file for one of ours."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from datamodules import UserError
from lit_rnn import __version__, export, models
from lit_rnn.models import SequenceModel

safetensors = pytest.importorskip("safetensors.torch")

MODELS = [name for name in models.__all__ if name[0].isupper() and name not in ("SequenceModel", "OrthogonalRNN")]
FORMS: list[tuple[str, dict[str, Any]]] = [
    *((name, {}) for name in MODELS),
    ("ExpRNN", {"unitary": True, "layers": 2, "double_precision_map": True}),
    ("DtrivRNN", {"unitary": True, "learn_initial_state": True}),
    ("EURNN", {"unitary": False}),
    ("LSTM", {"peepholes": True, "optimizer": {"class_path": "torch.optim.Adam", "init_args": {"lr": 1e-2}}}),
    ("VanillaRNN", {"recurrent_constraint": "spectral_norm", "layer_norm": True, "nonlinearity": "modrelu"}),
    ("StatisticalRU", {"alphas": (0.5, 0.9), "adversarial": None, "lr_scheduler": None}),
]
Inputs = Callable[[SequenceModel, int, int], Tensor]


def weights(model: SequenceModel) -> dict[str, Tensor]:
    return model.weights_in(model.state_dict())


@pytest.mark.parametrize(("name", "options"), FORMS, ids=lambda value: str(value)[:30])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
def test_a_model_comes_back_bit_for_bit(
    name: str, options: dict[str, Any], dtype: torch.dtype, make: Any, inputs: Inputs, tmp_path: Path
) -> None:
    model = make(name, **options).to(dtype)
    loaded = export.load(export.save(model, tmp_path / "there" / "model"))
    assert type(loaded) is type(model) and loaded.task == model.task
    kept = {key: list(value) if isinstance(value, tuple) else value for key, value in model.hparams.items()}
    assert dict(loaded.hparams) == kept
    before, after = weights(model), weights(loaded)
    assert before.keys() == after.keys()
    for key, tensor in before.items():
        assert tensor.dtype == after[key].dtype and torch.equal(tensor, after[key]), key
    x = inputs(model, 2, 5)
    with torch.no_grad():
        assert torch.equal(model(x), loaded(x))


def test_what_the_files_hold(make: Any, tmp_path: Path) -> None:
    """For who reads them with something else."""
    model = make("FullURNN")
    export.save(model, tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    parts = safetensors.load_file(tmp_path / "model.safetensors")
    assert config["lit_rnn"] == __version__ and config["format"] == 1 and config["dtype"] == "float64"
    assert config["class_path"] == "lit_rnn.models.orthogonal.FullURNN"
    assert config["task"]["target_size"] == 5 and config["init_args"]["hidden_size"] == 8
    assert config["complex"] == ["cells.0.recurrent.entries"]
    assert not [name for name in parts if name.startswith("meters")]
    entries = model.cell_list()[0].recurrent.entries
    assert torch.equal(parts["cells.0.recurrent.entries"], torch.stack((entries.real, entries.imag), dim=-1))
    assert torch.equal(parts["decoder.weight"], model.decoder.weight)


def test_saving_again_replaces_and_a_file_in_the_way_is_told(make: Any, tmp_path: Path) -> None:
    export.save(make("LSTM"), tmp_path / "a")
    other = make("GRU")
    export.save(other, tmp_path / "a")
    assert torch.equal(export.load(tmp_path / "a").decoder.weight, other.decoder.weight)
    (tmp_path / "b").write_text("here")
    with pytest.raises(UserError, match=r"folder .*/b is not a folder"):
        export.save(other, tmp_path / "b")


# ---- what is refused


@pytest.fixture
def folder(make: Any, tmp_path: Path) -> Path:
    return export.save(make("ExpRNN"), tmp_path / "model")


def change(folder: Path, **changes: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def refusal(folder: Path) -> str:
    with pytest.raises(UserError) as told:
        export.load(folder)
    assert str(folder) in str(told.value) and "\n" not in str(told.value)
    return str(told.value)


@pytest.mark.parametrize("where", [0, 9, 200, -1])
def test_a_flipped_bit_is_noticed(folder: Path, where: int) -> None:
    content = bytearray((folder / "model.safetensors").read_bytes())
    content[where] ^= 1
    (folder / "model.safetensors").write_bytes(content)
    assert "SHA-256 differs" in refusal(folder)


@pytest.mark.parametrize("keep", [0, 100, -8])
def test_files_cut_short_are_noticed(folder: Path, keep: int) -> None:
    whole = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(whole[:keep])
    assert "SHA-256 differs" in refusal(folder)
    change(folder, sha256=hashlib.sha256(whole[:keep]).hexdigest())
    assert "is no safetensors file" in refusal(folder)
    text = (folder / "config.json").read_text()
    (folder / "config.json").write_text(text[: len(text) // 2])
    assert "config.json is damaged" in refusal(folder)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_missing_file_is_named(folder: Path, name: str) -> None:
    (folder / name).unlink()
    assert f"There is no file {folder / name}" in refusal(folder)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"format": 2}, "is of format 2, and this version of lit_rnn reads 1"),
        ({"dtype": "float8"}, "is damaged"),
        ({"init_args": [1]}, "is damaged"),
        ({"complex": None}, "is damaged"),
        ({"task": {"name": "x"}}, "does not fit this version of lit_rnn.models.exprnn.ExpRNN"),
        ({"init_args": {"hidden_size": 5}}, "does not fit this version"),
        ({"init_args": {"hidden_size": 8, "colour": "red"}}, "does not fit this version"),
        ({"complex": ["decoder.weight"]}, "does not fit this version"),
        ({"dtype": "float32"}, "does not fit this version"),
        ({"class_path": "os.system"}, "names 'os.system' as its model, which is no loaded SequenceModel"),
        ({"class_path": "lit_rnn.cells.LSTMCell"}, "which is no loaded SequenceModel"),
        ({"class_path": 3}, "which is no loaded SequenceModel"),
        ({"init_args": {"hidden_size": 8, "optimizer": {"class_path": "os.system"}}}, "which is no loaded Optimizer"),
        ({"init_args": {"hidden_size": 8, "group_optimizers": [1]}}, "group_optimizers that are no mapping"),
    ],
    ids=str,
)
def test_a_foreign_config_is_refused(folder: Path, changes: dict[str, Any], told: str) -> None:
    change(folder, **changes)
    assert told in refusal(folder)


def test_a_config_of_another_library_is_refused(folder: Path) -> None:
    (folder / "config.json").write_text(json.dumps({"architectures": ["Mamba"], "model_type": "mamba"}))
    assert "config.json is damaged (it lacks 'format')" in refusal(folder)


def test_weights_of_another_model_are_refused(folder: Path, make: Any, tmp_path: Path) -> None:
    for other in (make("LSTM"), make("ExpRNN", learn_initial_state=True), make("ExpRNN", size=7)):
        foreign = (export.save(other, tmp_path / "other") / "model.safetensors").read_bytes()
        (folder / "model.safetensors").write_bytes(foreign)
        change(folder, sha256=hashlib.sha256(foreign).hexdigest())
        assert "does not fit this version of lit_rnn.models.exprnn.ExpRNN" in refusal(folder)
    parts = safetensors.load_file(folder / "model.safetensors")
    own = {name: tensor for name, tensor in weights(make("ExpRNN")).items() if name != "decoder.bias"}
    assert parts.keys() != own.keys()
    content = safetensors.save(own)
    (folder / "model.safetensors").write_bytes(content)
    change(folder, sha256=hashlib.sha256(content).hexdigest())
    assert "other weights are decoder.bias" in refusal(folder)


def test_no_module_is_imported_because_a_folder_names_it(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "planted_export.py").write_text(
        "from lit_rnn.models import ExpRNN\n\n\nclass Mine(ExpRNN):\n    '''Mine.'''\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    change(folder, class_path="planted_export.Mine")
    assert "add --trust planted_export" in refusal(folder)
    assert "planted_export" not in sys.modules
    assert type(export.load(folder, trust=["planted_export"])).__name__ == "Mine"
    del sys.modules["planted_export"]


def test_what_cannot_be_saved_is_told_and_nothing_is_written(make: Any, tmp_path: Path) -> None:
    model = make("ExpRNN")
    model.hparams["extra"] = torch.nn.Tanh()
    with pytest.raises(UserError, match=r"options of this ExpRNN cannot be kept in config\.json"):
        export.save(model, tmp_path / "a")
    with pytest.raises(UserError, match=r"model is 'LSTMCell', but it must be a lit_rnn.models.SequenceModel"):
        export.save(models.LSTM({**vars(model.task)}, 4).cell_list()[0], tmp_path / "a")  # type: ignore[arg-type]
    assert not (tmp_path / "a").exists()


def test_a_missing_package_is_one_sentence(folder: Path, make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "safetensors.torch", None)
    for call in (lambda: export.load(folder), lambda: export.save(make("GRU"), folder)):
        with pytest.raises(UserError, match=r"Python package safetensors, .*: pip install 'lit_rnn\[export\]'"):
            call()
