"""What the user typed: shipped configs found by name, and what the parser refuses told in one sentence."""

from __future__ import annotations

import ast
import difflib
import itertools
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import ArgumentParser

import lit_rnn
from datamodules import SequenceDataModule, UserError
from lit_rnn import run_folder
from lit_rnn.models import SequenceModel

QUICKSTART = "configs/quickstart.yaml"
BASES: dict[str, type] = {"model": SequenceModel, "data": SequenceDataModule}


# ---- completing


def config_folder() -> Path:
    """Where the configs lie: inside the package when installed from a wheel, beside it in a source tree."""
    package = Path(lit_rnn.__file__).parent
    return package / "configs" if (package / "configs").is_dir() else package.parent / "configs"


def find_config(name: str) -> str:
    """``name`` if there is such a file, else the shipped config of that name (``configs/`` before it or not)."""
    shipped = config_folder() / name.removeprefix("configs/")
    return name if Path(name).is_file() or not shipped.is_file() else str(shipped)


def complete(command: str, arguments: Sequence[str]) -> list[str]:
    """The arguments of ``command`` with shipped configs found, and a config where none was given.

    ``fit`` alone runs the quickstart; a command on a checkpoint takes the config of the run it belongs to.
    """
    rest = _split_equals(arguments)
    if {"-h", "--help"} & set(rest):
        return rest
    for i, name in enumerate(rest[:-1]):
        if name in ("-c", "--config"):
            rest[i + 1] = find_config(rest[i + 1])
            _check_config(rest[i + 1])
    options = dict(zip(rest, [*rest[1:], ""], strict=True))
    if not options.keys() & {"-c", "--config", "--model", "--model.class_path", "--data", "--data.class_path"}:
        run = _run_of(options.get("--ckpt_path"), options.get("--run_dir"))
        config = run / "config.yaml" if run else None
        if config is None and command == "fit" and "--ckpt_path" not in options:
            config = Path(find_config(QUICKSTART))
        if config is not None and config.is_file():
            rest = ["--config", str(config), *rest]
    return rest


def _split_equals(arguments: Sequence[str]) -> list[str]:
    """The arguments with every --name=value in two."""
    return [part for argument in arguments for part in (argument.split("=", 1) if argument[:2] == "--" else [argument])]


def _run_of(checkpoint: str | None, run_dir: str | None) -> Path | None:
    """The run that a checkpoint file, or 'last' and 'best' with --run_dir, speaks of."""
    if checkpoint in ("last", "best"):
        return Path(run_dir) if run_dir else None
    return run_folder.folder_of(Path(checkpoint)) if checkpoint else None


def _check_config(name: str) -> None:
    """Refuse what the parser would report without the file's name, or pass over in silence."""
    if not Path(name).is_file():
        shipped = sorted(str(path.relative_to(config_folder())) for path in config_folder().rglob("*.yaml"))
        near = difflib.get_close_matches(name, shipped, n=3, cutoff=0.5) or shipped[:5]
        raise UserError(f"config {name} is not a file; shipped configs are, among others, {', '.join(near)}.")
    config = _load(name)
    init_args = (config.get("model") or {}).get("init_args") if isinstance(config.get("model"), dict) else None
    if isinstance(init_args, dict) and "task" in init_args:
        raise UserError(f"{name} sets model.init_args.task, but the task comes from the data: remove that key.")


def _load(name: str) -> dict[str, Any]:
    try:
        config = yaml.safe_load(Path(name).read_text())
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"config {name} is not YAML: {_one_line(str(error))}") from error
    if not isinstance(config, dict):
        raise UserError(
            f"config {name} holds {type(config).__name__}, but it must hold keys such as model, data, trainer."
        )
    return config


# ---- refusing


def explain(message: str, arguments: Sequence[str]) -> str:
    """One sentence for a message of the parser: the key, what was given, what is accepted."""
    keys = [key for key in re.findall(r'Parser key "([^"]+)"', message) if key != "config"]
    parent = _join(keys[:-1]) if len(keys) > 1 else _join(keys)
    if found := re.search(r"Option '([^']+)' is not accepted", message):
        accepted = _accepted(keys[0] if keys else "", arguments)
        return f"{_join([*keys, found[1]])} is not a key{_instead(found[1].rpartition('.')[2], accepted)}"
    if found := re.search(r"Expected a dot import path string: (\S+)", message):
        key = _join(keys)
        known = sorted(_subclasses(BASES[keys[0]])) if len(keys) == 1 and keys[0] in BASES else []
        hint = (
            _instead(found[1], known) if known else ": a torch class such as Adam, or a full import path, is accepted."
        )
        return f"{key}.class_path is {found[1]!r}, which is no known class{hint}"
    if found := re.search(r"Expected a (.+?)\. Got value: (.*)", message):
        return f"{_join(keys) or parent} is {found[2]!r}, but it must be {_kind(found[1])}."
    if found := re.search(r"does not accept option '([^']+)'", message):
        return f"{found[1]} is not a key{_instead(found[1].partition('.')[0], _top_level())}"
    if found := re.search(r"unrecognized arguments: (.*)", message, re.DOTALL):
        option = found[1].split()[0]
        near = _instead(option.lstrip("-").partition(".")[0], _top_level())
        return f"{option} is not an option{near}"
    return _one_line(message)


def _join(keys: Sequence[str]) -> str:
    """model, hidden_size -> model.init_args.hidden_size."""
    if len(keys) > 1 and keys[0] in BASES and not keys[1].startswith(("init_args", "class_path")):
        keys = [keys[0], "init_args", *keys[1:]]
    return ".".join(keys)


def _instead(given: str, accepted: Sequence[str]) -> str:
    near = difflib.get_close_matches(given, accepted, n=1)
    meant = f" (did you mean {near[0]}?)" if near else ""
    return f"{meant}; accepted: {', '.join(accepted)}." if accepted else "."


def _kind(expected: str) -> str:
    """<class 'int'> and typing.Literal['a', 'b'] in words."""
    if found := re.search(r"Literal(\[.*\])", expected):
        return f"one of {', '.join(str(choice) for choice in ast.literal_eval(found[1]))}"
    found = re.fullmatch(r"<class '(.*)'>", expected)
    names = {"int": "a whole number", "float": "a number", "bool": "true or false", "str": "text"}
    return names.get(found[1], found[1]) if found else expected


def _top_level() -> list[str]:
    return ["config", "seed_everything", "model", "data", "trainer", "run_dir", "threads", "ckpt_path", "debug"]


def _accepted(top: str, arguments: Sequence[str]) -> list[str]:
    """The init_args of the class that the arguments name under ``top``."""
    name = _class_named(top, arguments)
    cls = _subclasses(BASES[top]).get(name.rpartition(".")[2]) if top in BASES and name else None
    if cls is None:
        return []
    return [key for key in ArgumentParser().add_class_arguments(cls, skip={"task"}) if key]


def _class_named(top: str, arguments: Sequence[str]) -> str | None:
    named = None
    for option, value in itertools.pairwise(arguments):
        if option in (f"--{top}", f"--{top}.class_path"):
            named = value
        elif option in ("-c", "--config") and isinstance(section := _load(value).get(top), dict):
            named = section.get("class_path", named)
    return named


def _subclasses(base: type) -> dict[str, type]:
    """The concrete classes below ``base`` by short name."""

    def below(cls: type) -> Iterator[type]:
        child: type
        for child in cls.__subclasses__():
            yield child
            yield from below(child)

    return {cls.__name__: cls for cls in below(base) if not getattr(cls, "__abstractmethods__", None)}


def _one_line(text: str) -> str:
    return " ".join(text.split())
