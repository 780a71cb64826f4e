"""Configs, and what one found in a run folder may say: it is somebody's file, not the user's own word."""

from __future__ import annotations

import inspect
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml
from pytorch_lightning import Callback
from pytorch_lightning.loggers import Logger
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from datamodules import SequenceDataModule, UserError
from datamodules.errors import held, require
from lit_rnn.class_paths import class_in, class_path, full_name, loaded, shorten
from lit_rnn.files import inside, read_yaml
from lit_rnn.models import SequenceModel
from lit_rnn.runs.folder import is_cut
from lit_rnn.runs.options import listed, walk
from lit_rnn.yaml_limits import YAMLLimitError, check_yaml

PLACES: dict[str, type] = {
    "model": SequenceModel,
    "model.init_args.optimizer": Optimizer,
    "model.init_args.lr_scheduler": LRScheduler,
    "data": SequenceDataModule,
    "trainer.callbacks": Callback,
    "trainer.logger": Logger,
}
GROUPS = "model.init_args.group_optimizers"
_WORDS = ("strategy", "accelerator", "plugins", "profiler")  # options of the Trainer that would take a class too
_SECTIONS = ("model", "data", "trainer")
_OF_A_CLASS = ("class_path", "init_args", "dict_kwargs")
_LISTS = ("trainer.callbacks", "trainer.logger")  # where several classes may stand
_NAME = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*")
_FOLDERS = ("dirpath", "save_dir", "log_dir", "root_dir", "dir", "folder", "artifact_location", "exclude_batches_path")
_DOTS = re.compile(r"(^|[/\\])\.\.([/\\]|$)")
_SERVERS = {"tracking_uri": "MLFLOW_TRACKING_URI", "base_url": "WANDB_BASE_URL"}  # options; who may name one
_SCHEME = re.compile(r"(?!https?:)[\w+.-]+(://|::)")  # of another disk to Lightning; local:// is this one
_EXPANDED = re.compile(r"[~$]|.*(://|::)")  # what a folder's name becomes another by


def read_config(path: Path) -> dict[str, Any]:
    """A config as it is written.

    Raises:
        UserError: if it is no mapping.
    """
    config = read_yaml(path, "config")
    if not isinstance(config, dict):
        raise UserError(f"config {path} {held(config)}, but it must hold keys such as model, data, trainer.")
    return config


def check(path: Path) -> None:
    """Refuse a run folder's config that names what is not loaded, or a place to write outside of the folder.

    Raises:
        UserError: naming the key.
    """
    config = read_yaml(path, "config")
    if not isinstance(config, dict) or "config" in config:
        raise UserError(f"config {path} was not written by fit: give the run's config by -c.")
    if is_cut(path):
        raise UserError(f"config {path} has lost its end: give the run's config by -c.")
    for key, value in config.items():
        if key in _SECTIONS and not isinstance(value, dict):
            raise _refusal(path, str(key), value, "a mapping, as fit writes it")
    for key in _WORDS:
        for value in listed(config.get("trainer", {}).get(key)):
            if isinstance(value, dict | list) or (isinstance(value, str) and not re.fullmatch(r"[\w-]*", value)):
                raise _refusal(
                    path, f"trainer.{key}", value, "a plain word in a run folder's config: give the config by -c"
                )
    for key, value in walk(config, ""):
        _check_value(path, key, value)


def check_named(value: Any, key: str = "", where: str = "") -> None:
    """Refuse what cannot name a class in a place where one belongs; whether there is that class is for the parser.

    Args:
        value: A config as it is written, or what it holds under ``key``.
        key: Dotted.
        where: What begins the sentence, such as the config's name.

    Raises:
        UserError: naming the key.
    """
    for place, given in walk(value, key):
        if place == GROUPS:
            mapped = isinstance(given, Mapping | None)
            require(mapped, f"{where}{place}", given, "a mapping from groups of parameters to optimizers")
        several = place in _LISTS and isinstance(given, list | bool if place == "trainer.logger" else list)
        if base_of(place) is None or given is None or several:
            continue
        if isinstance(given, Mapping):
            name, options = given.get("class_path"), given.get("init_args")
            named = ("class_path" not in given and place != "trainer.callbacks") or _is_name(name)
            require(named, f"{where}{place}.class_path", name, "a class's name")
            mapped = isinstance(options, Mapping | None)
            require(mapped, f"{where}{place}.init_args", options, "a mapping from options to values")
            beside = next((name for name in given if name not in _OF_A_CLASS), None)
            if beside is not None and given.keys() & set(_OF_A_CLASS):
                raise UserError(
                    f"{where}{place}.{beside} is not a key; accepted: {', '.join(_OF_A_CLASS)}: an option of the class "
                    "belongs in init_args."
                )
        else:
            accepted = "a class's name, or a mapping with class_path and init_args"
            accepted += ", or a list of such" if place in _LISTS else ""
            require(_is_name(given), f"{where}{place}", given, accepted)


def _is_name(value: Any) -> bool:
    """Whether it can be a class's name, or a file's that holds one."""
    return isinstance(value, str) and (_NAME.fullmatch(value) is not None or Path(value).is_file())


def check_places(config: Mapping[str, Any]) -> None:
    """Refuse the user's own config, parsed, where a place holds no class that belongs there; nothing is called yet.

    Raises:
        UserError: naming the key.
    """
    for key, value in walk(config, ""):
        base, name = base_of(key), value.get("class_path") if isinstance(value, Mapping) else None
        if base is not None and name is not None and loaded(name, base) is None:
            raise UserError(f"{key}.class_path is {name}, but it must be a subclass of {class_path(base)}.")


def _check_value(path: Path, key: str, value: Any) -> None:
    base = base_of(key)
    if isinstance(value, Mapping) and "class_path" in value:
        if base is None:
            raise _refusal(path, f"{key}.class_path", value["class_path"], "left out: no class belongs there")
        cls = class_in(f"config {path}", f"{key}.class_path", value["class_path"], base)
        arguments: dict[str, Any] = {}
        for part in ("init_args", "dict_kwargs"):
            if not isinstance(value.get(part) or {}, dict):
                raise _refusal(path, f"{key}.{part}", value[part], "a mapping")
            arguments |= value.get(part) or {}
        for name in _functions(cls):
            if (
                arguments.get(name) is not None
                and base_of(f"{key}.init_args.{name}") is None
                and name != "group_optimizers"
            ):
                text = f"null in a run folder's config: {cls.__name__} would call the function it names; use -c"
                raise _refusal(path, f"{key}.init_args.{name}", arguments[name], text)
        if base in (Callback, Logger):
            takes = inspect.signature(cls).parameters
            own = {name for name in arguments.keys() & takes.keys() if arguments[name] == takes[name].default}
            _check_folders(path, key, {name: value for name, value in arguments.items() if name not in own})
    elif key == GROUPS and not isinstance(value, Mapping | None):
        raise _refusal(path, key, value, "a mapping from groups to optimizers")
    elif base is not None and value is not None and not isinstance(value, bool | list):
        raise _refusal(path, key, value, "a mapping with class_path and init_args")
    if isinstance(value, str):
        try:
            check_yaml(value)  # the parser reads YAML in a text once more
        except YAMLLimitError as error:
            raise _refusal(path, key, value, "a shorter text") from error
        except yaml.YAMLError:
            pass  # a text it is, then
    if isinstance(value, Mapping):
        for name in value:
            if not (isinstance(name, str) and name.isidentifier()):
                raise _refusal(
                    path, f"a key of {key or 'it'}", name, "one plain word: dots and signs are for the command line"
                )


def _check_folders(path: Path, key: str, arguments: Mapping[str, Any]) -> None:
    """What a callback or logger writes goes into the run folder."""
    for name, text in walk(arguments, f"{key}.init_args"):
        if not isinstance(text, str):
            continue
        option = name.rpartition(".")[2]
        if option in _SERVERS:
            if text != os.environ.get(_SERVERS[option]):  # which may be sent your key
                raise _refusal(path, name, text, f"what {_SERVERS[option]} says, or the config given by -c")
            continue
        place = option in _FOLDERS
        elsewhere = _EXPANDED.match(text) if place else _SCHEME.match(text) and "://" in text
        place = place or Path(text).is_absolute() or _DOTS.search(text) is not None
        if elsewhere or (place and text != "." and not inside(text, path.parent)):
            raise _refusal(path, name, text, f"a folder inside {path.parent}, or the config given by -c")


def base_of(key: str) -> type | None:
    """What a class under ``key`` has to be below; None where no class belongs."""
    return Optimizer if key.rpartition(".")[0] == GROUPS else PLACES.get(key)


def _functions(cls: type) -> set[str]:
    """The options of a class, and of those above it, that take a function."""
    found: set[str] = set()
    for above in cls.__mro__:
        if "__init__" in vars(above) and above is not object:
            parameters = inspect.signature(vars(above)["__init__"]).parameters.values()
            found |= {p.name for p in parameters if "Callable" in str(p.annotation)}
    return found


def with_full_names(value: Any, key: str = "") -> Any:
    """A config, or what it holds under ``key``, with `full_name` of every class in its place.

    Args:
        value: A mapping, list or plain value.
        key: Where it stands, dotted.
    """
    if isinstance(value, dict):
        places = {name: key if name == "class_path" else f"{key}.{name}" if key else str(name) for name in value}
        return {name: with_full_names(item, places[name]) for name, item in value.items()}
    if isinstance(value, list):
        return [with_full_names(item, key) for item in value]
    base = base_of(key)
    return full_name(value, base) if base is not None and isinstance(value, str) else value


def _refusal(path: Path, key: str, value: Any, accepted: str) -> UserError:
    return UserError(f"config {path}: {key} is {shorten(value)}, but it must be {accepted}.")


def check_state(state: Any, path: Path) -> None:
    """Refuse what callbacks kept in a checkpoint where its paths lead away: Lightning deletes the files they name.

    Raises:
        UserError: naming the path.
    """
    for text in _texts(state):
        if _DOTS.search(text) or _SCHEME.match(text):
            raise UserError(f"ckpt_path {path} remembers the path {shorten(text)}, which leads out of its folder.")


def _texts(value: Any) -> Iterator[str]:
    """Every text inside a value, keys too: best_k_models has paths as keys."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for pair in value.items():
            yield from _texts(pair)
    elif isinstance(value, list | tuple | set):
        for item in value:
            yield from _texts(item)
