"""A logger that loses its server, or its disk, is one warning, and the run is what it is without."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

import pytest
from pytorch_lightning.loggers import CSVLogger, Logger, MLFlowLogger

from lit_rnn.loggers import outlast
from lit_rnn.loggers.lasting import outlasting
from tests.lit_rnn.runs import kills

LOST = '''
"""MLflow's logger with a server that goes away after so many answers."""
from pytorch_lightning.loggers import Logger, MLFlowLogger
from pytorch_lightning.loggers.logger import rank_zero_experiment


class Server:
    def __init__(self, answers):
        self.answers = answers

    def __getattr__(self, name):
        self.answers -= 1
        if self.answers < 0:
            raise {error}("nobody answers " + name)
        return lambda *given, **named: self

    data = property(lambda self: self)
    params = ()
    info = property(lambda self: self)
    run_id = experiment_id = "7"


class Lost(MLFlowLogger):
    def __init__(self, answers: int) -> None:
        Logger.__init__(self)
        self.server, self._run_id, self._experiment_id = Server(answers), None, "1"
        self._tracking_uri, self._initialized, self._checkpoint_callback = "http://nowhere", True, None

    @property
    @rank_zero_experiment
    def experiment(self):
        if self._run_id is None:
            self._run_id = self.server.create_run().info.run_id
        return self.server

    def log_metrics(self, metrics, step=None):
        self.experiment.log_batch(run_id=self.run_id, metrics=metrics)

    def log_hyperparams(self, params):
        self.experiment.log_batch(run_id=self.run_id, params=params)
'''


def lost(answers: int, error: str = "ConnectionError") -> MLFlowLogger:
    names: dict[str, Any] = {}
    exec(LOST.format(error=error), names)
    logger: MLFlowLogger = names["Lost"](answers)
    outlast(logger)
    return logger


@pytest.mark.usefixtures("_no_pictures")
@pytest.mark.parametrize("answers", [0, 9])  # none, or some of the first epoch's
def test_a_lost_server_stops_no_run(cli: Any, config: Any, monkeypatch: Any, tmp_path: Path, answers: int) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    Path("lost.py").write_text(LOST.format(error="ConnectionError"))
    assert cli("fit", "-c", config(), "--run_dir", "w").status == 0
    logger = {"class_path": "lost.Lost", "init_args": {"answers": answers}}
    with pytest.warns(UserWarning, match="Lost takes no more notes .*nobody answers") as told:
        assert cli("fit", "-c", config(trainer={"logger": logger}), "--run_dir", "r").status == 0
    assert len(told) == 1
    whole, run = kills.kept(Path("w")), kills.kept(Path("r"))
    if answers:
        assert json.loads(Path("r/mlflow.json").read_text()) == {"run_id": "7"}
        run["files"] -= {"mlflow.json"}
    assert not kills.differences(whole, run)


def test_a_server_that_takes_the_connection_and_says_nothing() -> None:
    """As MLflow's client asks: by requests, with an end to its patience."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"http://127.0.0.1:{silent.getsockname()[1]}"
        for answers in (0, 1):
            logger = lost(answers, f"__import__('requests').get({address!r}, timeout=0.2) or ConnectionError")
            with pytest.warns(UserWarning, match="takes no more notes .*ReadTimeout.*run goes on") as told:
                for step in range(3):
                    logger.log_metrics({"a": 1.0}, step)
                logger.finalize("success")
            assert len(told) == 1


def test_everything_that_is_told_may_fail() -> None:
    told = {
        "metrics": lambda logger: logger.log_metrics({"a": 1.0}, 1),
        "hyperparams": lambda logger: logger.log_hyperparams({"a": 1}),
        "end": lambda logger: logger.finalize("success"),
    }
    for tell in told.values():
        logger = lost(1, "ValueError")  # whatever it is, once there was a server
        assert logger.run_id == "7"
        with pytest.warns(UserWarning, match="takes no more notes"):
            tell(logger)
        for again in told.values():
            again(logger)
    logger = lost(1)
    with pytest.warns(UserWarning, match="takes no more notes"), outlasting(logger):
        logger.experiment.log_artifact(logger.run_id, "picture.png")
    logger.experiment.log_artifact(logger.run_id, "picture.png")


def test_what_is_wrong_from_the_start_is_refused() -> None:
    with pytest.raises(ValueError, match="create_run"):
        lost(0, "ValueError").experiment  # noqa: B018


def test_other_loggers_are_left_alone(tmp_path: Path) -> None:
    logger: Logger = CSVLogger(tmp_path)
    outlast(logger)
    assert type(logger) is CSVLogger
    with pytest.raises(OSError), outlasting(logger):
        raise OSError
