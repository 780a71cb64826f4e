"""Lightning's callbacks, loggers and options in a config: each works, or is one sentence at the start."""

from __future__ import annotations

import inspect
import signal
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch

from lit_rnn.models import load
from lit_rnn.parametrizations import OrthogonalMap

pytestmark = pytest.mark.usefixtures("_no_pictures")


def callback(name: str, **options: Any) -> list[dict[str, Any]]:
    return [{"class_path": f"pytorch_lightning.callbacks.{name}", "init_args": options}]


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("Timer", {"duration": "00:00:10:00"}),
        ("EarlyStopping", {"monitor": "val/loss"}),
        ("GradientAccumulationScheduler", {"scheduling": {0: 1, 1: 2}}),
        ("ModelCheckpoint", {"every_n_train_steps": 2}),
        ("ModelSummary", {}),
        ("RichModelSummary", {}),
        ("LambdaCallback", {}),
        ("LearningRateMonitor", {}),
        ("EMAWeightAveraging", {}),
        ("WeightAveraging", {}),
        ("RichProgressBar", {}),
        ("TQDMProgressBar", {}),
    ],
)
def test_works_and_config_yaml_runs_again(cli: Any, config: Any, name: str, options: dict[str, Any]) -> None:
    assert cli("fit", "-c", config(trainer={"callbacks": callback(name, **options)}), "--run_dir", "r").status == 0
    kept = Path("r/config.yaml").read_text()
    assert name in kept and "Unable" not in kept
    assert cli("fit", "-c", "r/config.yaml", "--run_dir", "again").status == 0
    first, second = (
        torch.load(f"{run}/checkpoints/last.ckpt", weights_only=True)["state_dict"] for run in ("r", "again")
    )
    assert all(torch.equal(tensor, second[key]) for key, tensor in first.items())


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("StochasticWeightAveraging", {"swa_lrs": 1e-3}, ["than it validates", "EMAWeightAveraging"]),
        ("LearningRateFinder", {}, ["config.yaml", "study"]),
        ("BatchSizeFinder", {}, ["data.init_args.batch_size"]),
        ("ModelPruning", {"pruning_fn": "l1_unstructured"}, ["recurrence"]),
        ("OnExceptionCheckpoint", {"dirpath": "x"}, ["last.ckpt"]),
        ("BackboneFinetuning", {}, ["backbone"]),
        ("EarlyStopping", {"monitor": "val_loss"}, ["'val_loss'", "val/loss"]),
        ("ModelCheckpoint", {"monitor": "val/los"}, ["'val/los'", "val/accuracy"]),
        ("Timer", {"duration": "soon"}, ["soon"]),
    ],
)
def test_is_refused(refused: Any, config: Any, name: str, options: dict[str, Any], words: list[str]) -> None:
    sentence = refused("fit", "-c", config(trainer={"callbacks": callback(name, **options)}), "--run_dir", "r")
    assert all(word in sentence for word in [name, *words]), sentence


@pytest.mark.parametrize("options", [{}, {"cpu_stats": True}])
def test_a_package_that_a_callback_misses(
    refused: Any, config: Any, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any]
) -> None:
    """Found out at the start, or in the first step."""
    for module in ("callbacks.device_stats_monitor", "accelerators.cpu"):
        monkeypatch.setattr(f"pytorch_lightning.{module}._PSUTIL_AVAILABLE", False)
    path = config(trainer={"callbacks": callback("DeviceStatsMonitor", **options)})
    sentence = refused("fit", "-c", path, "--run_dir", "r")
    assert "DeviceStatsMonitor" in sentence and "psutil" in sentence


def test_a_mean_of_unitary_matrices_is_refused(refused: Any, config: Any) -> None:
    for model, word in (("FullURNN", "not unitary"), ("DtrivRNN", "rebase_every")):
        chosen = {"class_path": model, "init_args": {"hidden_size": 8}}
        path = config(model=chosen, trainer={"callbacks": callback("EMAWeightAveraging")})
        sentence = refused("fit", "-c", path, "--run_dir", "r")
        assert model in sentence and word in sentence


@pytest.mark.parametrize("model", ["ExpRNN", "DtrivRNN", "URNN", "HouseholderRNN", "ScoRNN", "EURNN", "NnRNN"])
def test_a_mean_of_what_is_free_is_orthogonal(cli: Any, config: Any, model: str) -> None:
    """The saved weights are a mean of the free ones, and W is a map of that."""
    options = {"hidden_size": 8, **({"rebase_every": None} if model == "DtrivRNN" else {})}
    averaging = callback("EMAWeightAveraging", decay=0.5)
    path = config(model={"class_path": model, "init_args": options}, trainer={"callbacks": averaging})
    assert cli("fit", "-c", path, "--run_dir", "r").status == 0
    trained = load("r/checkpoints/last.ckpt")
    maps = [module for module in trained.modules() if isinstance(module, OrthogonalMap)]
    assert maps and all(module.drift() < 2e-6 for module in maps)


def test_the_average_resumes_as_it_was(cli: Any, config: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """After an epoch, and from inside a validation, which has the mean in the model's place."""
    path = config(trainer={"callbacks": callback("EMAWeightAveraging", decay=0.5)})
    assert cli("fit", "-c", path, "--run_dir", "whole").status == 0
    assert cli("fit", "-c", path, "--run_dir", "half", "--trainer.max_epochs", 1).status == 0

    def asked(*_: Any) -> int:
        return signal.SIGTERM if inspect.stack()[2].function == "on_validation_batch_end" else 0

    with monkeypatch.context() as patched:
        patched.setattr("lit_rnn.callbacks.checkpoints.largest", asked)
        assert cli("fit", "-c", path, "--run_dir", "half", "--ckpt_path", "last").status == 128 + signal.SIGTERM
    assert cli("fit", "-c", path, "--run_dir", "half", "--ckpt_path", "last").status == 0
    first, second = (torch.load(f"{run}/checkpoints/last.ckpt", weights_only=True) for run in ("whole", "half"))
    for key in ("state_dict", "current_model_state"):
        if key in first:
            assert all(torch.equal(tensor, second[key][key2]) for key2, tensor in first[key].items()), key


@pytest.mark.parametrize(
    ("logger", "package"),
    [("TensorBoardLogger", "tensorboard"), ("MLFlowLogger", "mlflow"), ("CometLogger", "comet_ml")],
)
def test_a_logger_whose_package_is_missing(refused: Any, config: Any, logger: str, package: str) -> None:
    if find_spec(package) is not None:
        pytest.skip(f"{package} is installed")
    options = {"save_dir": "x"} if logger == "TensorBoardLogger" else {}
    sentence = refused("fit", "-c", config(trainer={"logger": {"class_path": logger, "init_args": options}}))
    assert logger in sentence and "pip install" in sentence


@pytest.mark.parametrize(
    ("trainer", "words"),
    [
        ({"precision": "transformer-engine"}, ["trainer.precision", "transformer-engine", "bf16-true"]),
        ({"precision": "16-mixed"}, ["trainer.precision", "16-mixed", "bf16-mixed", "CPU"]),
        ({"strategy": "ddp_spawn", "devices": 2}, ["trainer.strategy", "ddp_spawn", "ddp"]),
        ({"strategy": "ddp_fork", "devices": 2}, ["trainer.strategy", "ddp_fork", "ddp"]),
        ({"barebones": True}, ["trainer.barebones"]),
    ],
    ids=str,
)
def test_options_that_no_run_here_can_do(refused: Any, config: Any, trainer: dict[str, Any], words: list[str]) -> None:
    sentence = refused("fit", "-c", config(trainer=trainer), "--run_dir", "r")
    assert all(word in sentence for word in words), sentence


def test_sparse_adam(refused: Any, config: Any) -> None:
    assert "dense" in refused("fit", "-c", config(), "--model.optimizer", "SparseAdam", "--run_dir", "r")


PRECISIONS, WATCHED = ("64-true", "bf16-true", "bf16-mixed", "16-true"), ("FullURNN", "GORU", "LSTM")


@pytest.mark.parametrize(
    ("model", "precision", "data"),
    [  # every model and every precision on either kind of data
        (model, precision, ("PixelDigits", "CopyMemory")[(i + j) % 2])
        for i, model in enumerate(WATCHED)
        for j, precision in enumerate(PRECISIONS)
    ],
)
def test_a_whole_run_in_every_precision(cli: Any, config: Any, model: str, precision: str, data: str) -> None:
    """With everything that watches it; then validated, and its predictions written, from what it left."""
    optimizer = {"class_path": "lit_rnn.optim.RiemannianRMSprop" if model == "FullURNN" else "RMSprop"}
    optimizer["init_args"] = {"lr": 1e-3, "eps": 1e-3}
    chosen = {"class_path": model, "init_args": {"hidden_size": 8, "optimizer": optimizer}}
    read = {"class_path": "PixelDigits", "init_args": {"batch_size": 128}}
    changes = {"data": read} if data == "PixelDigits" else {}
    trainer = {"max_epochs": 1, "precision": precision, "limit_train_batches": 2, "limit_val_batches": 1}
    path = config(model=chosen, trainer=trainer, **changes)
    assert cli("fit", "-c", path, "--run_dir", "r").status == 0
    for command in ("validate", "predict"):
        assert cli(command, "-c", path, "--run_dir", "r", "--ckpt_path", "last").status == 0


# ---- an end


def test_what_has_an_end_needs_no_epochs(cli: Any, config: Any) -> None:
    model, data = ["--model", "ExpRNN", "--model.hidden_size", 8], ["--data", "CopyMemory", "--data.delay", 5]
    assert cli("fit", "-c", "debug/fast.yaml", *model, *data, "--threads", 1).status == 0
    endless = {"max_epochs": None}
    for trainer in (
        {"fast_dev_run": 2},
        {"max_time": "00:00:00:01"},
        {"callbacks": callback("Timer", duration="00:00:00:01")},
        {"max_steps": 3},
    ):
        done = cli("fit", "-c", config(trainer={**endless, **trainer}))
        assert done.status == 0 and "1000" not in done.err, trainer


@pytest.mark.parametrize(
    "trainer", [{}, {"overfit_batches": 2}, {"callbacks": callback("Timer")}, {"limit_train_batches": 1}], ids=str
)
def test_what_has_none_does(refused: Any, config: Any, trainer: dict[str, Any]) -> None:
    assert "trainer.max_epochs" in refused("fit", "-c", config(trainer={"max_epochs": None, **trainer}))


# ---- clipping


def test_value_clipping_bounds_real_and_imaginary_parts() -> None:
    from lit_rnn.models import FullURNN

    model = FullURNN({**_TASK}, 4)
    optimizer = model.configure_optimizers()
    for parameter in model.parameters():
        parameter.grad = torch.randn_like(parameter)
    given = {name: parameter.grad.clone() for name, parameter in model.named_parameters()}
    model.configure_gradient_clipping(optimizer, 0.25, "value")
    for name, parameter in model.named_parameters():
        if parameter.is_complex():
            expected = torch.complex(given[name].real.clip(-0.25, 0.25), given[name].imag.clip(-0.25, 0.25))
        else:
            expected = given[name].clip(-0.25, 0.25)
        assert torch.equal(parameter.grad, expected), name


@pytest.mark.parametrize("bound", [0, -1.0])
def test_no_bound_clips_no_value(bound: float) -> None:
    """As in Lightning, where 0 switches clipping off."""
    from lit_rnn.models import VanillaRNN

    model = VanillaRNN({**_TASK}, 4)
    model.decoder.bias.grad = torch.tensor([1.0, -2.0, 3.0])[: len(model.decoder.bias)]
    given = model.decoder.bias.grad.clone()
    model.configure_gradient_clipping(model.configure_optimizers(), bound, "value")
    assert torch.equal(model.decoder.bias.grad, given)


def test_value_clipping_in_a_run(cli: Any, config: Any) -> None:
    chosen = {"class_path": "FullURNN", "init_args": {"hidden_size": 8}}
    clip = {"gradient_clip_algorithm": "value", "gradient_clip_val": 0.1}
    assert cli("fit", "-c", config(model=chosen, trainer=clip)).status == 0


_TASK: dict[str, Any] = {
    "name": "t",
    "inputs": "symbols",
    "input_size": 3,
    "targets": "label",
    "target_size": 3,
    "length": 4,
    "scored": "last",
    "chance": 1.0,
    "metric": "accuracy",
    "higher_is_better": True,
}
