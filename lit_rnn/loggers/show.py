"""Metrics, pictures, sounds, tables and results for every logger that can show them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pytorch_lightning import Trainer
from pytorch_lightning.loggers import Logger, MLFlowLogger, TensorBoardLogger, WandbLogger

from lit_rnn.loggers.lasting import outlasting
from lit_rnn.loggers.wandb import WandbDashboard
from lit_rnn.runs.metrics import MetricsCSV


def dashboards(trainer: Trainer) -> list[Logger]:
    """The loggers but metrics.csv."""
    return [logger for logger in trainer.loggers if not isinstance(logger, MetricsCSV)]


def hyperparameters(trainer: Trainer, values: Mapping[str, Any]) -> None:
    """Hand over what `flat` makes of a config. MLflow keeps the first value of each: a resume adds what is new."""
    for logger in trainer.loggers:
        with outlasting(logger):
            known = logger.experiment.get_run(logger.run_id).data.params if isinstance(logger, MLFlowLogger) else {}
            logger.log_hyperparams({key: value for key, value in values.items() if key not in known})


def metrics(trainer: Trainer, values: Mapping[str, float], step: int) -> None:
    """Hand over what is not logged by the model: to metrics.csv by its own names, to dashboards in their sections."""
    for logger in trainer.loggers:
        logger.log_metrics(dict(values) if isinstance(logger, MetricsCSV) else sections(values), step=step)


def sections(values: Mapping[str, float]) -> dict[str, float]:
    """Metrics named so that dashboards, which group by what stands before the first slash, have four sections.

    ``matrix/NAME/x`` is ``recurrent/NAME/x``, and ``gradient/x`` or ``layer 1 gradient/x`` is ``grad/x`` or
    ``grad/layer 1 x``.
    """
    named = {}
    for key, value in values.items():
        head, _, rest = key.partition("/")
        if head == "matrix":
            key = f"recurrent/{rest}"
        elif head.endswith("gradient"):
            key = f"grad/{head.removesuffix('gradient')}{rest}"
        named[key] = value
    return named


def picture(trainer: Trainer, name: str, path: Path) -> None:
    """Hand a picture to every logger that takes images."""
    for logger in trainer.loggers:
        with outlasting(logger):
            if isinstance(logger, WandbLogger):
                logger.log_image(name, [str(path)])
            elif isinstance(logger, TensorBoardLogger):
                from matplotlib.image import imread

                logger.experiment.add_image(name, imread(path)[..., :3], trainer.global_step, dataformats="HWC")
            elif isinstance(logger, MLFlowLogger):
                logger.experiment.log_artifact(logger.run_id, str(path), name.partition("/")[0])


def sounds(trainer: Trainer, name: str, paths: Sequence[Path]) -> None:
    """Hand .wav files of 16-bit samples to every logger that takes sound."""
    for logger in trainer.loggers:
        with outlasting(logger):
            if isinstance(logger, WandbLogger):
                logger.log_audio(name, [str(path) for path in paths], caption=[path.stem for path in paths])
            elif isinstance(logger, TensorBoardLogger):
                import torch
                from scipy.io import wavfile

                for path in paths:
                    rate, samples = wavfile.read(path)
                    sound = torch.from_numpy(samples / 32768)[None]
                    logger.experiment.add_audio(f"{name}/{path.stem}", sound, trainer.global_step, rate)
            elif isinstance(logger, MLFlowLogger):
                for path in paths:
                    logger.experiment.log_artifact(logger.run_id, str(path), name)


def table(trainer: Trainer, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Hand a table to every logger that takes one."""
    for logger in trainer.loggers:
        with outlasting(logger):
            if isinstance(logger, WandbLogger):
                logger.log_table(name, list(columns), [list(row) for row in rows])
            elif isinstance(logger, TensorBoardLogger):
                logger.experiment.add_text(name, _markdown(columns, rows), trainer.global_step)
            elif isinstance(logger, MLFlowLogger):
                logger.experiment.log_text(logger.run_id, _markdown(columns, rows), f"{name}.md")


def result(trainer: Trainer, values: Mapping[str, Any]) -> None:
    """Hand the result of a run to every logger that keeps one number a run."""
    for logger in trainer.loggers:
        if isinstance(logger, WandbDashboard):
            logger.summarize(values)
        elif isinstance(logger, MLFlowLogger | TensorBoardLogger):
            numbers = {key: value for key, value in values.items() if isinstance(value, int | float)}
            logger.log_metrics(numbers, step=trainer.global_step)


def flat(config: Mapping[str, Any]) -> dict[str, Any]:
    """A config as dashboards have columns: ``model`` ExpRNN, ``model.hidden_size`` 128, ``model.optimizer.lr`` 0.001.

    A class is its name, and its arguments stand below it; what is not set is left out, and so is the logger itself.
    """
    found: dict[str, Any] = {}
    _flatten(config, "", found)
    return {key: value for key, value in found.items() if not key.startswith("trainer.logger")}


def _flatten(value: Any, key: str, found: dict[str, Any]) -> None:
    if isinstance(value, Mapping):
        if isinstance(value.get("class_path"), str):
            found[key] = _short(value)
            value = {**(value.get("init_args") or {}), **(value.get("dict_kwargs") or {})}
        for name, inner in value.items():
            _flatten(inner, f"{key}.{name}" if key else str(name), found)
    elif isinstance(value, list) and any(isinstance(item, Mapping) for item in value):
        found[key] = ", ".join(_short(item) for item in value)
    elif value is not None:
        found[key] = value


def _short(value: Any) -> str:
    path = value.get("class_path") if isinstance(value, Mapping) else None
    return path.rpartition(".")[2] if isinstance(path, str) else str(value)


def _markdown(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    lines = [list(columns), ["---"] * len(columns), *rows]
    return "\n".join("| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |" for line in lines) + "\n"
