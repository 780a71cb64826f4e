"""Lightning's Model.load_from_checkpoint: on checkpoints of fit and of a Trainer, for every model."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from datamodules import CopyMemory, Task, UserError
from lit_rnn import models
from lit_rnn.models import LSTM, ExpRNN, SequenceModel
from tests.trainers import quiet_trainer

MODELS = [name for name in models.__all__ if name[0].isupper() and name not in ("SequenceModel", "OrthogonalRNN")]
NEEDED: dict[str, dict[str, Any]] = {
    "NRU": {"memory_size": 4},
    "StatisticalRU": {"statistics_size": 4, "summary_size": 4, "alphas": (0.2, 0.9)},
}
Checkpoint = Callable[..., Path]


@pytest.fixture
def checkpoint(tmp_path: Path) -> Checkpoint:
    """What a Trainer saves after one step."""

    def made(name: str, **options: Any) -> Path:
        data = CopyMemory(delay=2, train_samples=8, val_samples=8, batch_size=8)
        model = getattr(models, name)(data.task, 8, **NEEDED.get(name, {}), **options)
        trainer = quiet_trainer(max_steps=1, limit_val_batches=0)
        trainer.fit(model, data)
        trainer.save_checkpoint(tmp_path / "x.ckpt")
        return tmp_path / "x.ckpt"

    return made


def same(model: SequenceModel, other: SequenceModel) -> bool:
    one, two = (each.weights_in(each.state_dict()) for each in (model, other))
    return one.keys() == two.keys() and all(torch.equal(tensor, two[name]) for name, tensor in one.items())


@pytest.mark.parametrize("name", MODELS)
def test_every_model(name: str, checkpoint: Checkpoint) -> None:
    path, cls = checkpoint(name), getattr(models, name)
    loaded = cls.load_from_checkpoint(path)
    assert type(loaded) is cls and same(loaded, models.load(path))
    held = models.read_checkpoint(path)
    assert all(torch.equal(tensor, held["state_dict"][key]) for key, tensor in loaded.state_dict().items())
    assert dict(loaded.hparams) == dict(held["hyper_parameters"]) and loaded.optimizer_steps == 1


@pytest.mark.usefixtures("_no_pictures")
def test_of_a_run_of_fit(cli: Any, config: Callable[..., str], tmp_path: Path) -> None:
    assert cli("fit", "-c", config(), "--run_dir", "run").status == 0
    path = tmp_path / "run/checkpoints/last.ckpt"
    right = models.load(path)
    for cls in (ExpRNN, SequenceModel):
        loaded = cls.load_from_checkpoint(path)
        assert type(loaded) is ExpRNN and same(loaded, right) and loaded.options.hidden_size == 8
    loaded = ExpRNN.load_from_checkpoint(str(path), backend="loop", optimizer=torch.optim.SGD)
    assert same(loaded, right) and loaded.options.backend == "loop"
    assert loaded.options.optimizer == {"class_path": "torch.optim.sgd.SGD", "init_args": {}}
    tokens = torch.randint(loaded.task.input_size, (2, 9))
    torch.testing.assert_close(loaded(tokens), right(tokens))
    with pytest.raises(UserError, match=r"last.ckpt holds a ExpRNN, which is no LSTM: call ExpRNN.load_from_"):
        LSTM.load_from_checkpoint(path)


def test_where_it_goes(checkpoint: Checkpoint) -> None:
    path = checkpoint("GRU")
    for location in (None, "cpu", torch.device("cpu"), {"cuda:0": "cpu"}, lambda storage, _: storage):
        assert models.GRU.load_from_checkpoint(path, map_location=location).device.type == "cpu"
    with pytest.raises(UserError, match="meta tensor"):  # what torch refuses, with the path
        models.GRU.load_from_checkpoint(path, map_location="meta")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU on this machine")
def test_it_goes_to_a_gpu(checkpoint: Checkpoint) -> None:
    model = ExpRNN.load_from_checkpoint(path := checkpoint("ExpRNN"), map_location="cuda")
    assert {tensor.device.type for tensor in model.state_dict().values()} == {"cuda"}
    assert ExpRNN.load_from_checkpoint(path).decoder.weight.device.type == "cpu"


def test_options_over_the_checkpoints(checkpoint: Checkpoint) -> None:
    path = checkpoint("ExpRNN")
    other = Task("another", "symbols", 10, "label_per_step", 9, None, "all", 1.0, "accuracy", True)
    before = models.load(path).task
    assert (before.input_size, before.target_size) == (10, 9)
    assert ExpRNN.load_from_checkpoint(path, task=other).task == other
    assert ExpRNN.load_from_checkpoint(path, norm_penalty=0.5).options.norm_penalty == 0.5
    with pytest.raises(UserError, match=r"x.ckpt does not fit hidden_size as given .*leave out what changes"):
        ExpRNN.load_from_checkpoint(path, hidden_size=9)
    with pytest.raises(UserError, match=r"ExpRNN has no option 'hiden_size' \(did you mean hidden_size\?\)"):
        ExpRNN.load_from_checkpoint(path, hiden_size=9)


def test_strict(checkpoint: Checkpoint) -> None:
    path = checkpoint("ExpRNN")
    held = torch.load(path, weights_only=True)
    del held["state_dict"]["decoder.bias"]
    torch.save(held, path)
    for strict in (None, True):
        with pytest.raises(UserError, match=r"made by another version .*Missing key.*decoder.bias"):
            ExpRNN.load_from_checkpoint(path, strict=strict)
    loaded = ExpRNN.load_from_checkpoint(path, strict=False)
    assert torch.equal(loaded.decoder.weight, held["state_dict"]["decoder.weight"])


def test_what_lightning_would_take_and_we_do_not(checkpoint: Checkpoint, tmp_path: Path) -> None:
    path = checkpoint("ExpRNN")
    assert same(ExpRNN.load_from_checkpoint(path, weights_only=True), models.load(path))
    refused: list[tuple[str, dict[str, Any]]] = [
        ("weights_only is false, but it must be left out", {"weights_only": False}),
        ("hparams_file is 'hparams.yaml', but it must be None", {"hparams_file": "hparams.yaml"}),
    ]
    for told, options in refused:
        with pytest.raises(UserError, match=told):
            ExpRNN.load_from_checkpoint(path, **options)
    with pytest.raises(UserError, match="there is no such file"):
        ExpRNN.load_from_checkpoint(tmp_path / "no.ckpt")
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    shutil.copy(path, tmp_path / "run" / "checkpoints" / "last.ckpt")
    with pytest.raises(UserError, match=r"no such file: name .*/run/checkpoints/last\.ckpt\.$"):
        models.load(tmp_path / "run")
    with (
        path.open("rb") as file,
        pytest.raises(UserError, match=r"checkpoint_path is .*, but it must be a file's path"),
    ):
        ExpRNN.load_from_checkpoint(file)


def test_a_name_in_the_file_runs_nothing(checkpoint: Checkpoint) -> None:
    """Lightning itself would import and call ``_instantiator``."""
    path = checkpoint("ExpRNN")
    held = torch.load(path, weights_only=True)
    held["hyper_parameters"]["_instantiator"] = "os.abort"
    torch.save(held, path)
    assert type(ExpRNN.load_from_checkpoint(path)) is ExpRNN
    held["hyper_parameters"]["optimizer"] = {"class_path": "os.abort"}
    torch.save(held, path)
    with pytest.raises(UserError, match="which is no loaded Optimizer"):
        ExpRNN.load_from_checkpoint(path)
