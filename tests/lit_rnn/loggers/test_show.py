"""Configs as columns, metrics in sections, and TensorBoard and MLflow with pictures and tables."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from jsonargparse import Namespace
from pytorch_lightning.loggers import TensorBoardLogger
from scipy.io import wavfile

from lit_rnn.commands.fit import subject
from lit_rnn.loggers import WandbDashboard, show
from lit_rnn.runs.metrics import MetricsCSV


def test_a_config_is_flat() -> None:
    optimizer = {"class_path": "torch.optim.RMSprop", "init_args": {"lr": 0.1, "eps": None}}
    config = {
        "seed_everything": 1,
        "model": {"class_path": "lit_rnn.models.ExpRNN", "init_args": {"hidden_size": 8, "optimizer": optimizer}},
        "trainer": {
            "devices": [0, 1],
            "callbacks": [{"class_path": "a.B", "init_args": {"x": 1}}, {"class_path": "c.D"}],
            "logger": {"class_path": "e.F", "init_args": {"project": "p"}},
            "max_time": {"days": 1},
        },
    }
    assert show.flat(config) == {
        "seed_everything": 1,
        "model": "ExpRNN",
        "model.hidden_size": 8,
        "model.optimizer": "RMSprop",
        "model.optimizer.lr": 0.1,
        "trainer.devices": [0, 1],
        "trainer.callbacks": "B, D",
        "trainer.max_time.days": 1,
    }


def test_sections() -> None:
    names = {"matrix/recurrent/henrici", "gradient/lag_3", "layer 1 gradient/lag_0", "val/loss", "lr-Adam"}
    told = show.sections(dict.fromkeys(names, 1.0))
    assert set(told) == {"recurrent/recurrent/henrici", "grad/lag_3", "grad/layer 1 lag_0", "val/loss", "lr-Adam"}


def test_sounds_go_to_those_that_take_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = [tmp_path / "a-true.wav", tmp_path / "a-rebuilt.wav"]
    for path in paths:
        wavfile.write(path, 8000, np.array([0, 16384, -32768], dtype=np.int16))
    told: list[Any] = []
    monkeypatch.setattr(WandbDashboard, "log_audio", lambda self, key, files, **more: told.append((key, files, more)))
    board = SimpleNamespace(add_audio=lambda tag, sound, step, rate: told.append((tag, sound.tolist(), step, rate)))
    monkeypatch.setattr(TensorBoardLogger, "experiment", board)
    loggers = [MetricsCSV(tmp_path), *(cls.__new__(cls) for cls in (WandbDashboard, TensorBoardLogger))]
    show.sounds(SimpleNamespace(loggers=loggers, global_step=7), "audio/test", paths)  # type: ignore[arg-type]
    captions = {"caption": ["a-true", "a-rebuilt"]}
    assert told == [
        ("audio/test", [str(path) for path in paths], captions),
        *((f"audio/test/{path.stem}", [[0.0, 0.5, -1.0]], 7, 8000) for path in paths),
    ]


def test_tensorboard_shows_everything(cli: Any, config: Any) -> None:
    pytest.importorskip("tensorboard", reason="the extra tensorboard is not installed")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    for more in ((), ("--ckpt_path", "last", "--trainer.max_epochs", 3)):  # a resume goes on in the same place
        done = cli("fit", "-c", config(), "-c", "loggers/tensorboard.yaml", "--run_dir", "r", *more)
        assert done.status == 0 and done.err == "", done.err
    events = EventAccumulator("r/tensorboard")
    events.Reload()
    tags = events.Tags()
    assert {"train/loss", "val/loss", "val/accuracy", "recurrent/drift", "grad/norm", "fit/loss"} <= set(
        tags["scalars"]
    )
    assert [event.step for event in events.Scalars("grad/norm")] == list(range(12))
    assert {"pictures/task", "pictures/spectrum"} <= set(tags["images"])
    assert {name.split("/text_summary")[0] for name in tags["tensors"]} >= {"tables/spectra", "tables/predictions"}


@pytest.mark.usefixtures("_no_pictures")
def test_a_run_folder_that_was_moved_is_its_own(cli: Any, config: Any) -> None:
    """Its config says that the logger writes into the run folder, not where that once was."""
    pytest.importorskip("tensorboard", reason="the extra tensorboard is not installed")
    assert cli("fit", "-c", config(), "-c", "loggers/tensorboard.yaml", "--run_dir", "r").status == 0
    Path("r").rename("moved")
    done = cli("test", "--run_dir", "moved", "--ckpt_path", "last")
    assert done.status == 0 and not Path("r").exists(), done.err


def test_mlflow_shows_everything(cli: Any, config: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("mlflow", reason="the extra mlflow is not installed")
    from mlflow.tracking import MlflowClient

    store = (tmp_path / "store").as_uri()
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")  # a database needs more packages
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store)
    for more in ((), ("--ckpt_path", "last", "--trainer.max_epochs", 3)):
        assert cli("fit", "-c", config(), "-c", "loggers/mlflow.yaml", "--run_dir", "r", *more).status == 0
    client = MlflowClient(store)
    (run,) = client.search_runs([client.get_experiment_by_name("lit_rnn").experiment_id])
    assert run.info.run_id == json.loads(Path("r/mlflow.json").read_text())["run_id"], "a resume goes on with its run"
    assert run.data.params["model"] == "ExpRNN" and run.data.params["model.hidden_size"] == "8"
    assert {"train/loss", "val/loss", "grad/norm", "fit/loss"} <= set(run.data.metrics)
    assert len(client.get_metric_history(run.info.run_id, "grad/norm")) == 12
    kept = {file.path for folder in ("pictures", "tables") for file in client.list_artifacts(run.info.run_id, folder)}
    assert {"pictures/task.png", "pictures/spectrum.png", "tables/spectra.md", "tables/predictions.md"} <= kept


def test_mlflow_keeps_pictures_beside_our_database(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its own default is ./mlruns, whatever the database; a server chooses itself."""
    tracking = pytest.importorskip("mlflow.tracking", reason="the extra mlflow is not installed")
    monkeypatch.setattr(tracking, "MlflowClient", str)

    def artifacts(**given: str) -> Any:
        arguments = Namespace(tracking_uri=None, artifact_location=None, run_id=None)
        arguments.update(Namespace(**given))
        logger = Namespace(class_path="pytorch_lightning.loggers.MLFlowLogger", init_args=arguments)
        return subject.prepared_loggers(Path("r"), logger).init_args.artifact_location

    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert artifacts() == "runs/mlflow" and artifacts(artifact_location="s3://mine") == "s3://mine"
    assert artifacts(tracking_uri="sqlite:///my.db") is None
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://my-server:5000")
    assert artifacts() is None


@pytest.mark.parametrize("key", ["trainer.logger.init_args.tracking_uri", "MLFLOW_TRACKING_URI"])
@pytest.mark.parametrize("uri", ["file:store", "nothing://store"])
def test_a_store_that_mlflow_does_not_take_is_a_sentence(
    uri: str, key: str, refused: Any, config: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    mlflow = pytest.importorskip("mlflow", reason="the extra mlflow is not installed")
    if uri == "file:store" and not hasattr(mlflow.environment_variables, "MLFLOW_ALLOW_FILE_STORE"):
        pytest.skip("MLflow 3.1 takes files without being asked to")
    monkeypatch.delenv("MLFLOW_ALLOW_FILE_STORE", raising=False)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    by_option = () if key == "MLFLOW_TRACKING_URI" else (f"--{key}", uri)
    sentence = refused("fit", "-c", config(), "-c", "loggers/mlflow.yaml", "--run_dir", "r", *by_option)
    assert f"{key} is '{uri}', but it must be one that MLflow takes, as http://my-server:5000" in sentence
    assert not Path("r").exists()


@pytest.mark.parametrize("name", ["tensorboard", "mlflow", "wandb"])
def test_a_missing_package_is_a_sentence(name: str, refused: Any, config: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def find_spec(wanted: str) -> Any:
        return None if wanted == name else importlib.util.find_spec(wanted)

    monkeypatch.setattr(subject, "find_spec", find_spec)
    sentence = refused("fit", "-c", config(), "-c", f"loggers/{name}.yaml", "--run_dir", "r")
    assert f"{name} is not installed: pip install {name}." in sentence
