"""What a run works on: its folder, its config in plain values, and the checkpoint it resumes."""

from __future__ import annotations

import copy
import math
import os
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from jsonargparse import Namespace
from pytorch_lightning.callbacks import Timer

from datamodules.errors import UserError, as_in_yaml, one_line, require
from lit_rnn.class_paths import class_path, loaded
from lit_rnn.files import read_text
from lit_rnn.loggers import WandbDashboard
from lit_rnn.models import SequenceModel, changes, made_on, read_checkpoint
from lit_rnn.models.loading import cannot_take_up, class_of, taken_up
from lit_rnn.models.resuming import straighten
from lit_rnn.runs import config as run_config
from lit_rnn.runs import folder as run_folder
from lit_rnn.runs.checkpoints import best_checkpoint, folder_of, is_started, last_checkpoint, read_last
from lit_rnn.runs.endings import AllDone
from lit_rnn.runs.options import listed, section
from lit_rnn.runs.results import is_finished


def plain(value: Any) -> Any:
    """A config with Lightning's enums, such as Timer's interval, as the text that YAML can hold."""
    if isinstance(value, Namespace):
        for key, inner in vars(value).items():
            value[key] = plain(inner)
    elif isinstance(value, list):
        return [plain(inner) for inner in value]
    return str(value.value) if isinstance(value, Enum) and isinstance(value, str) else value


# ---- the folder


def folder_name(config: Any) -> str:
    """What the folders of runs that name none are called, before their number."""
    data, model = (str(config[key].class_path).rpartition(".")[2] for key in ("data", "model"))
    return f"{data}-{model}".lower()


def choose_folder(config: Any, command: str) -> Path | None:
    """The folder that --run_dir names, else that of the checkpoint; None for a new one."""
    if config.run_dir is not None:
        require(config.run_dir.strip() != "", "run_dir", config.run_dir, "the name of a folder")
        return Path(config.run_dir).expanduser()  # as Lightning does with what it is given
    if config.ckpt_path in ("last", "best"):
        return run_folder.newest(folder_name(config)) or run_folder.RUNS / f"{folder_name(config)}-1"
    return folder_of(Path(config.ckpt_path)) if config.ckpt_path is not None and command != "fit" else None


def enter(config: Any, command: str) -> tuple[Path, run_folder.Claim | None]:
    """The run folder, made or taken, after a look at what is to be done there; `--resume auto` becomes a checkpoint.

    Raises:
        UserError: if it is no place for this run.
        AllDone: if the run that --resume speaks of is finished.
    """
    _check_resume(config, command)
    _check_owner(config, command)
    folder, name, trains = choose_folder(config, command), folder_name(config), command == "fit"
    if config.trainer.fast_dev_run:
        return folder or run_folder.proposed(name), None
    run_folder.check_place(folder or run_folder.proposed(name))
    claim = run_folder.Claim(folder, trains) if folder else run_folder.Claim.fresh(name, trains)
    try:
        if config.resume is not None:
            _resume(config, claim.folder)
        if trains and config.ckpt_path is None and run_folder.first_process():
            run_folder.check_free(claim.folder)
    except (UserError, AllDone):
        claim.take_back()
        claim.release()
        raise
    return claim.folder, claim


def _resume(config: Any, folder: Path) -> None:
    if _has_ended(folder, config.trainer) and not last_checkpoint(folder).is_file():
        raise AllDone(folder)  # else once it is known to be the run that is meant
    if is_started(folder):
        config.ckpt_path = "last"
    elif run_folder.first_process():
        run_folder.clear(folder)


def _check_resume(config: Any, command: str) -> None:
    """Refuse --resume where it says nothing, or nothing would be kept to go on from.

    Raises:
        UserError: naming the key.
    """
    if config.resume is None:
        return
    require(command == "fit", "resume", config.resume, f"left out: {command} trains nothing")
    require(config.run_dir is not None, "resume", config.resume, "given together with --run_dir, the run that is meant")
    both = "left out with --ckpt_path, which says where to go on from"
    require(config.ckpt_path is None, "resume", config.resume, both)
    kept = "left alone with --resume auto: there would be nothing to go on from"
    require(config.trainer.enable_checkpointing is not False, "trainer.enable_checkpointing", False, kept)


def _check_owner(config: Any, command: str) -> None:
    """Refuse to write what a run's checkpoint does into the folder of another run, over its own numbers.

    Raises:
        UserError: naming both.
    """
    if command == "fit" or config.run_dir is None or config.ckpt_path in (None, "last", "best"):
        return
    owner, folder = folder_of(Path(config.ckpt_path)), Path(config.run_dir).expanduser()
    if owner is not None and is_started(folder) and owner.resolve() != folder.resolve():
        raise UserError(
            f"run_dir {folder} holds another run than ckpt_path {config.ckpt_path}, whose numbers would take the place "
            f"of its own: leave --run_dir out, or name a folder without a run."
        )


def _has_ended(folder: Path, trainer: Any) -> bool:
    """Whether the run of a folder is finished, and ``trainer``, a config's, asks for no more of it."""
    config = run_folder.newest_config(folder)
    if not is_finished(folder):
        return False
    was = section(run_config.read_config(config), "trainer") if config is not None else {}
    more = any(_limit(trainer[key]) > _limit(was.get(key)) for key in ("max_epochs", "max_steps") if key in was)
    return not more and trainer.max_time == was.get("max_time")


def _limit(given: Any) -> float:
    return math.inf if given in (None, -1) else float(given)


_MLFLOW = f"sqlite:///{run_folder.RUNS}/mlflow.db"  # beside the run folders, which it compares
_MLFLOW_FILES = f"{run_folder.RUNS}/mlflow"  # by default they would be in ./mlruns
_NEEDED = {
    "TensorBoardLogger": "tensorboard",
    "MLFlowLogger": "mlflow",
    "WandbLogger": "wandb",
    "WandbDashboard": "wandb",
}


def prepared_loggers(folder: Path, loggers: Any) -> Any:
    """What loggers keep goes into the run folder, unless the config puts it elsewhere; W&B's may not stop a run.

    Raises:
        UserError: for a logger whose package is not installed, or a store that MLflow does not take.
    """
    prepared = copy.deepcopy(loggers)
    for logger in listed(prepared):
        path, arguments = getattr(logger, "class_path", None), getattr(logger, "init_args", None)
        if path is None or arguments is None:
            continue
        name = path.rpartition(".")[2]
        needed = _NEEDED.get(name)
        if needed is not None and find_spec(needed) is None:
            raise UserError(f"trainer.logger names {name}, but {needed} is not installed: pip install {needed}.")
        if name == "WandbLogger" and path.startswith("pytorch_lightning."):
            logger.class_path = class_path(WandbDashboard)
        if needed == "mlflow":
            _choose_store(arguments)
            kept = folder / "mlflow.json"
            if arguments.run_id is None and kept.is_file():
                arguments.run_id = read_text(kept, "run_id")
        elif arguments.get("save_dir") == ".":
            arguments.save_dir = str(folder)
    return prepared


def _choose_store(arguments: Any) -> None:
    """What the config says, or the environment, or a database of ours with its files beside it."""
    from mlflow.exceptions import MlflowException
    from mlflow.tracking import MlflowClient

    named = os.environ.get("MLFLOW_TRACKING_URI")
    key = "trainer.logger.init_args.tracking_uri" if arguments.tracking_uri or not named else "MLFLOW_TRACKING_URI"
    arguments.tracking_uri = arguments.tracking_uri or named or _MLFLOW
    if arguments.tracking_uri == _MLFLOW:
        arguments.artifact_location = arguments.artifact_location or _MLFLOW_FILES
    try:
        MlflowClient(arguments.tracking_uri)
    except (MlflowException, ImportError) as error:
        accepted = "one that MLflow takes, as http://my-server:5000, or sqlite:///my.db with all of mlflow installed"
        raise UserError(f"{key} is {arguments.tracking_uri!r}, but it must be {accepted}: {one_line(error)}") from error


def run_name(model: SequenceModel, seed: object) -> str:
    """Task, model, size and seed of a run, for those who see many."""
    layers, units = (model.hparams.get(key) for key in ("layers", "hidden_size"))  # a user's own model may have none
    size = "" if units is None else f" {units}" if layers in (None, 1) else f" {layers} x {units}"
    return f"{model.task.name} {type(model).__name__}{size}, seed {seed}"


# ---- the checkpoint


@dataclass(frozen=True)
class Taken:
    """A checkpoint that a run resumes.

    Args:
        path: The file.
        made_with: The options of the model in it.
        notes: What else this project keeps in a checkpoint.
        shapes: Of its weights.
        done: Where it leaves nothing to train, and the run is finished.
    """

    path: Path
    made_with: Mapping[str, Any]
    notes: Mapping[str, Any]
    shapes: Mapping[str, torch.Size]
    done: AllDone | None


def take(config: Any, folder: Path, command: str) -> Taken:
    """The file that ckpt_path means, after a look inside: it must hold the model that the config describes.

    Raises:
        UserError: if it holds another, or is further than the config asks for.
    """
    if config.ckpt_path == "last":
        path, kept = read_last(folder, repair=command == "fit" and run_folder.first_process())
    else:
        path = best_checkpoint(folder) if config.ckpt_path == "best" else Path(config.ckpt_path)
        kept = read_checkpoint(path)
    with taken_up(path):
        return _taken(config, folder, path, kept, command)


def _taken(config: Any, folder: Path, path: Path, kept: dict[str, Any], command: str) -> Taken:
    held = class_of(kept, path)
    run_config.check_state(kept.get("callbacks"), path)
    if held is not loaded(config.model.class_path, SequenceModel):
        raise UserError(
            f"ckpt_path {path} holds a {class_path(held)}, but model.class_path is {config.model.class_path}; "
            "give the config that the checkpoint was made with."
        )
    trains = command == "fit" and not config.trainer.fast_dev_run
    done = None
    if trains and config.resume is not None and _has_ended(folder, config.trainer):
        done = AllDone(folder)
    elif trains:
        done = _done(config.trainer, folder, path, kept)
    shapes = {name: tensor.shape for name, tensor in held.weights_in(kept["state_dict"]).items()}
    return Taken(path, kept["hyper_parameters"], kept["lit_rnn"], shapes, done)


def _done(trainer: Any, folder: Path, path: Path, kept: dict[str, Any]) -> AllDone | None:
    """What there is to say where a checkpoint is just where the config's ``trainer`` ends, and the run is finished.

    A run that was killed behind its last step still has its end.

    Raises:
        UserError: if it is further than that.
    """
    if "loops" not in kept:  # made by hand
        return None
    straighten(kept)
    epochs, steps = kept["loops"]["fit_loop"]["epoch_progress"]["current"], kept["global_step"]
    counted = {"max_epochs": (epochs["ready"], epochs["processed"], "epoch"), "max_steps": (steps, steps, "step")}
    for key, (begun, _, unit) in counted.items():
        limit = _limit(trainer[key])
        if begun > limit:
            raise UserError(
                f"trainer.{key} is {limit:.0f}, but {path} is from {unit} {begun}: nothing would be left to train; "
                "raise it to go on."
            )
    for key, (_, ended, _) in counted.items():
        if ended >= _limit(trainer[key]) and is_finished(folder):
            return AllDone(folder, f"trainer.{key}, which is {ended} as in {path},")
    if trainer.max_time is not None and "Timer" in kept["callbacks"] and is_finished(folder):
        timer = Timer(trainer.max_time)
        timer.load_state_dict(kept["callbacks"]["Timer"])
        if (timer.time_remaining() or 0.0) <= 0:
            return AllDone(folder, f"trainer.max_time, which counts the {timer.time_elapsed():.0f} seconds before,")
    return None


def check_fits(model: SequenceModel, data: object, taken: Taken, command: str) -> None:
    """Refuse a checkpoint whose weights would not fit, or make another function, before the run starts.

    Raises:
        UserError: naming what differs.
        AllDone: if nothing does, and nothing is left to train.
    """
    with taken_up(taken.path):
        given, kept = model.hparams["task"], taken.made_with["task"]
        if any(given[size] != kept[size] for size in ("inputs", "input_size", "targets", "target_size")):
            raise UserError(
                f"data gives a task with {given['inputs']} of {given['input_size']} and {given['target_size']} "
                f"targets, but the checkpoint was made on {kept['name']} with {kept['inputs']} of "
                f"{kept['input_size']} and {kept['target_size']} targets: use the data it was made on."
            )
        given, kept = (model.function_options(options) for options in (model.hparams, taken.made_with))
        for key, value in given.items():
            if kept.get(key) != value:
                raise UserError(
                    f"model.init_args.{key} is {as_in_yaml(value)}, but the checkpoint was made with "
                    f"{as_in_yaml(kept.get(key))}: with another value, its weights compute another function. Use the "
                    "same."
                )
        weights = model.weights_in(model.state_dict())
        if taken.shapes != {name: tensor.shape for name, tensor in weights.items()}:
            raise UserError("The checkpoint's weights do not fit this version's model: train it again.")
        if command == "fit":
            changes.check(model, taken.made_with)
            checkpoint = {"lit_rnn": taken.notes, "hyper_parameters": taken.made_with}
            made_on.refuse(made_on.differences(checkpoint, data, model.task))
            if taken.done is not None:
                raise taken.done


def unrestored(error: BaseException, taken: Taken | None) -> UserError | None:
    """The sentence for ``error`` where Lightning raised it while it put a checkpoint's contents in their places."""
    frames = traceback.extract_tb(error.__traceback__)
    if taken is None or not any(Path(frame.filename).name == "checkpoint_connector.py" for frame in frames):
        return None
    return cannot_take_up(taken.path, error)
