"""Weights are run by the function that they were trained in, or the command is refused in a sentence."""

from __future__ import annotations

from typing import Any

import pytest

from datamodules import CopyMemory
from lit_rnn.models import JANET, LSTM, ExpRNN, SequenceModel, VanillaRNN

pytestmark = [
    pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty"),
    pytest.mark.usefixtures("_no_pictures"),
]


@pytest.mark.parametrize("command", ["test", "validate", "predict", "fit"])
def test_another_map_of_the_same_shape(cli: Any, config: Any, refused: Any, command: str) -> None:
    assert cli("fit", "-c", config(trainer={"max_epochs": 1}), "--run_dir", "r").status == 0
    more = ("--run_dir", "r", "--ckpt_path", "last")
    sentence = refused(command, *more, "--model.init_args.map", "cayley")
    assert "model.init_args.map" in sentence and "'cayley'" in sentence and "'exp'" in sentence
    # how weights began, moved or are computed is another matter
    harmless = ("--model.init_args.init", "haar", "--model.init_args.backend", "loop")
    epochs = ("--trainer.max_epochs", "2") if command == "fit" else ()
    assert cli(command, *more, *harmless, *epochs).status == 0


@pytest.mark.parametrize(
    ("model", "key", "value"),
    [
        ({"class_path": "VanillaRNN", "init_args": {"hidden_size": 6}}, "nonlinearity", "relu"),
        ({"class_path": "GRU", "init_args": {"hidden_size": 6}}, "reset", "before"),
        ({"class_path": "LipschitzRNN", "init_args": {"hidden_size": 6}}, "step_size", "0.5"),
        ({"class_path": "ExpRNN", "init_args": {"hidden_size": 6}}, "hidden_size", "7"),
    ],
)
def test_options_of_other_models(cli: Any, config: Any, refused: Any, model: Any, key: str, value: str) -> None:
    assert cli("fit", "-c", config(model=model, trainer={"max_steps": 1}), "--run_dir", "r").status == 0
    sentence = refused("test", "--run_dir", "r", "--ckpt_path", "last", f"--model.init_args.{key}", value)
    assert f"model.init_args.{key}" in sentence and value in sentence


def test_what_counts() -> None:
    """A new option counts until its class says that it does not; so does one that an old checkpoint lacks."""

    class Newer(ExpRNN):
        def __init__(self, task: Any, hidden_size: int, sharpness: float = 1.0, **kwargs: Any) -> None:
            super().__init__(task, hidden_size, **kwargs)

    task = CopyMemory(delay=2).task
    given = Newer.function_options(Newer(task, 4, sharpness=2.0).hparams)
    kept = Newer.function_options(ExpRNN(task, 4).hparams)
    assert {key for key in given if given[key] != kept[key]} == {"sharpness"} and kept["sharpness"] == 1.0
    assert "beta" in JANET.function_options({}) and "beta" not in VanillaRNN.function_options({})
    assert "peepholes" in LSTM.function_options({}) and "forget_bias" not in LSTM.function_options({})
    assert not {"optimizer", "backend", "norm_penalty", "task"} & set(SequenceModel.function_options({}))
