"""The data that a checkpoint was trained on, again."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import datamodules
from datamodules import SequenceDataModule
from datamodules.errors import UserError, did_you_mean, require
from lit_rnn.class_paths import class_in, import_class
from lit_rnn.models import made_on
from lit_rnn.runs.checkpoints import folder_of
from lit_rnn.runs.config import read_config
from lit_rnn.runs.folder import newest_config
from lit_rnn.runs.options import section


def read_data(
    checkpoint: Path, config: Path | None, name: str | None, options: dict[str, Any], seed: int
) -> SequenceDataModule:
    """The data module of a class's name, else of a config, else of the checkpoint's run; ``options`` win.

    Raises:
        UserError: if there is no config, or no such class or option.
    """
    folder = folder_of(checkpoint)
    own_word = config is not None
    if config is None and folder is not None:
        config = newest_config(folder)
    if config is None and name is None:
        raise UserError(f"{checkpoint} is not in a run folder: give its data by --data CLASS or --config FILE.")
    written: dict[str, Any] = {}
    if config is not None:
        require(config.is_file(), "--config", str(config), "a file")
        written = section(read_config(config), "data")
        require(name is not None or "class_path" in written, "--config", str(config), "a config with data.class_path")
    there = None
    if "class_path" in written:
        path = written["class_path"]
        there = class_of(path) if own_word else class_in(f"config {config}", "its data", path, SequenceDataModule)
    given = class_of(name) if name is not None else there
    assert given is not None  # one of both is there
    same = there is given
    arguments = {"seed": seed, **(written.get("init_args") or {} if same else {}), **options}
    accepted = _parameters(given)
    for key in options:
        require(key in accepted, "--data", key, f"one of the options of {given.__name__}: {', '.join(accepted)}")
    try:
        return given(**arguments)
    except TypeError as error:
        raise UserError(f"data cannot be built: {error}.") from error


def class_of(name: str) -> type[SequenceDataModule]:
    """A data module's class by its name, or by its import path."""
    found = import_class(name if "." in name else f"datamodules.{name}", SequenceDataModule)
    shipped = [
        cls.__name__
        for cls in vars(datamodules).values()
        if isinstance(cls, type) and issubclass(cls, SequenceDataModule) and not inspect.isabstract(cls)
    ]
    meant = did_you_mean(name, shipped)
    if found is None or inspect.isabstract(found):
        accepted = f"one of {', '.join(shipped)}, or the import path of a data module{meant}"
        raise UserError(f"--data is {name!r}, but it must be {accepted}.")
    return found


def _parameters(cls: type) -> list[str]:
    """The options of a constructor and, where it passes them on, of those above it."""
    names: list[str] = []
    for base in cls.__mro__:
        if "__init__" in vars(base):
            parameters = list(inspect.signature(vars(base)["__init__"]).parameters.values())[1:]
            names += [p.name for p in parameters if p.kind is not p.VAR_KEYWORD]
            if all(p.kind is not p.VAR_KEYWORD for p in parameters):
                break
    return list(dict.fromkeys(names))


def check_data(data: SequenceDataModule, checkpoint: Mapping[str, Any], path: Path) -> None:
    """Refuse data that the checkpoint's model was not trained on, and warn where only its options differ.

    The data then uses what the checkpoint's data had learned from its training split.

    Raises:
        UserError: saying what differs.
    """
    given, made_with = data.task, checkpoint["hyper_parameters"]["task"]
    for key in ("name", "inputs", "input_size", "targets", "target_size"):
        if getattr(given, key) != made_with[key]:
            sizes = ("", "") if key == "name" else (f" ({key} {getattr(given, key)})", f" ({key} {made_with[key]})")
            raise UserError(
                f"data gives {given.name}{sizes[0]}, but {path} was trained on {made_with['name']}{sizes[1]}: "
                "give that data by --data."
            )
    state = checkpoint.get(type(data).__qualname__)  # where Lightning keeps it
    if isinstance(state, Mapping) and isinstance(state.get("learned"), Mapping):
        data.learn(state["learned"])
    made_on.warn(made_on.differences(checkpoint, data, given), data)
