"""What the user typed: shipped configs found by name, and what the parser refuses told in one sentence."""

from __future__ import annotations

import ast
import difflib
import inspect
import itertools
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import yaml
from jsonargparse import ArgumentParser
from pytorch_lightning import Trainer

import lit_rnn
from datamodules import SequenceDataModule, UserError
from lit_rnn import run_config, run_folder
from lit_rnn.class_paths import loaded, subclasses
from lit_rnn.files import YAMLLimitError, check_yaml, parse_yaml, read_yaml
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
    """The arguments of ``command`` with shipped configs found and put first, and a config where none was given.

    ``fit`` alone runs the quickstart; a command on a checkpoint takes the config of the run it belongs to.
    """
    rest = _split_equals(arguments)
    if {"-h", "--help"} & set(rest):
        return rest
    configs: list[str] = []
    others: list[str] = []
    while rest:  # configs first: what is given on the command line counts wherever it stands
        argument = rest.pop(0)
        if argument in ("-c", "--config") and rest:
            configs += ["--config", find_config(rest.pop(0))]
            _check_config(configs[-1])
        else:
            others.append(argument)
            _check_text(argument)
    options = dict(itertools.pairwise([*others, ""]))
    _refuse_task(options)
    if command != "fit" and "--ckpt_path" not in options and not any("print_config" in name for name in options):
        raise UserError(
            f"ckpt_path is not given, but {command} needs trained weights: "
            "--ckpt_path FILE, or --ckpt_path best with --run_dir."
        )
    if not configs and not options.keys() & {"--model", "--model.class_path", "--data", "--data.class_path"}:
        checkpoint = options.get("--ckpt_path")
        if checkpoint is None:
            configs = ["--config", find_config(QUICKSTART)]
        else:
            found = _config_of(checkpoint, options.get("--run_dir"))
            run_config.check(found)
            configs = ["--config", str(found)]
            if "--run_dir" not in options:  # where the file lies, whatever it says itself
                others += ["--run_dir", str(found.parent)]
    return [*configs, *others]


def _check_text(argument: str) -> None:
    """Refuse an option's value that the parser would expand beyond measure."""
    try:
        check_yaml(argument)
    except YAMLLimitError as error:
        raise UserError(f"The value {argument[:40]!r}... of an option is refused: {error}.") from error
    except yaml.YAMLError:
        pass  # a text, then


def _split_equals(arguments: Sequence[str]) -> list[str]:
    """The arguments with every --name=value in two, but for --print_config, whose value is optional."""

    def split(argument: str) -> list[str]:
        whole = argument[:2] != "--" or argument.startswith("--print_config")
        return [argument] if whole else argument.split("=", 1)

    return [part for argument in arguments for part in split(argument)]


def _refuse_task(options: dict[str, str]) -> None:
    """The parser would drop what is linked from the data without a word."""
    for name, value in options.items():
        inside = parse_yaml(value, name) if name in ("--model", "--model.init_args") and value[:1] == "{" else {}
        init_args = inside.get("init_args", inside) if isinstance(inside, dict) else {}
        if re.match(r"--model(\.init_args)?\.task(\.|$)", name) or "task" in init_args:
            raise UserError(f"{name} sets model.init_args.task, but the task comes from the data: leave it out.")


def _config_of(checkpoint: str, run_dir: str | None) -> Path:
    """The config of the run that a checkpoint file, or 'last' and 'best' with --run_dir, speaks of."""
    if checkpoint in ("last", "best"):
        if not run_dir:
            raise UserError(
                f"ckpt_path is {checkpoint}, but neither a config nor the run's folder is given: add --run_dir."
            )
        config = run_folder.newest_config(Path(run_dir))
        if config is None:
            raise UserError(f"run_dir {run_dir} holds no run (no config.yaml): name the folder of one.")
        return config
    if not Path(checkpoint).is_file():
        raise UserError(f"ckpt_path is {checkpoint}, but it must be last, best or a checkpoint file.")
    run = run_folder.folder_of(Path(checkpoint))
    config = run_folder.newest_config(run) if run else None
    if config is None:
        raise UserError(f"ckpt_path {checkpoint} lies in no run folder: give the config it was made with by --config.")
    return config


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
    config = read_yaml(Path(name), "config")
    if not isinstance(config, dict):
        raise UserError(
            f"config {name} holds {type(config).__name__}, but it must hold keys such as model, data, trainer."
        )
    return config


# ---- refusing


def explain(message: str, arguments: Sequence[str]) -> str:
    """One sentence for a message of the parser: the key, what was given, what is accepted."""
    keys = [key for key in re.findall(r'Parser key "([^"]+)"', message) if key != "config"]
    key = _join(keys)
    if found := re.search(r"Option '([^']+)' is not accepted", message):
        return _no_key(_join([*keys, found[1]]), arguments, message)
    if found := re.search(r"does not accept option '([^']+)'", message):
        return _no_key(found[1], arguments, message)
    if found := re.search(r"unrecognized arguments: --(\S+)", message):
        return f"--{_no_key(found[1], arguments, message)}"
    if found := re.search(r"arguments are required: ([\w, .]+)", message):
        missing = ", ".join(_join([*keys, name.strip()]) for name in found[1].split(","))
        return f"{missing} is missing; give it in the config or as --{missing}."
    if found := re.search(r"Multiple subclasses .* (\w+)", message):
        return f"{key} names a class that more than one module has: give its full import path."
    for option, base in (("optimizer", "Optimizer"), ("lr_scheduler", "LRScheduler")):
        if f'Parser key "{option}"' in message and "callable class" in message and "class_path" not in message:
            named = re.search(r"Given value: ([\w.]+)", message)
            what = named[1] if named else "what was given"
            return f"model.init_args.{option} is {what}, but it must be a subclass of torch's {base}."
    if re.search(r"dot import path|given class_path|subclass|is abstract", message) and not _expected(message):
        return _no_class(keys, message)
    if kinds := _expected(message):
        return f"{key} is {_given(message)}, but it must be {' or '.join(kinds)}."
    return one_line(message)


def _no_class(keys: Sequence[str], message: str) -> str:
    found = re.findall(r"import path string: (\S+)|class_path '?([\w.]+)'?:?|[Ii]mport path (\S+) does", message)
    named = next((name for names in found for name in names if name), None) or _given(message)
    if inside := re.match(r"Namespace\(class_path='([\w.]+)'", named):
        named = inside[1]
    key = f"{_join(keys)}.class_path"
    if len(keys) == 1 and keys[0] in BASES:
        return f"{key} is {named}, which is no class of that kind{_instead(named, sorted(_subclasses(BASES[keys[0]])))}"
    return f"{key} is {named}, which is no known class: give a torch or Lightning class, or a full import path."


def _expected(message: str) -> list[str]:
    """What the parser would have taken, in words."""
    found = re.findall(r"Expected (?:a )?(<class '[^']*'>|typing\.Literal\[[^\]]*\])", message)
    kinds = dict.fromkeys(_kind(kind) for kind in found)
    kinds.pop("null", None)
    return list(kinds)


def _given(message: str) -> str:
    values = re.findall(r"(?:Got value|Given value): (.*)", message)
    value = values[-1] if values else "what was given"
    nested = re.match(r"NestedArg\(key='[^']*', val='?(.*?)'?\)$", value)
    inner = re.findall(r"Got value: (.*)", message)
    given = inner[0] if inner else nested[1] if nested else value
    return repr(given) if re.fullmatch(r"[A-Za-z_]\w*", given) else given


def _join(keys: Sequence[str]) -> str:
    """model, optimizer, lr -> model.init_args.optimizer.init_args.lr."""
    parts: list[str] = []
    for key in keys:
        if parts and not key.startswith(("init_args", "class_path")) and parts[0] in BASES:
            parts.append("init_args")
        parts.append(key)
    return ".".join(parts)


def _no_key(path: str, arguments: Sequence[str], message: str) -> str:
    """That ``path`` is not a key, with the keys there are beside it."""
    top, _, below = path.partition(".")
    if top == "trainer" and below:
        accepted = [name for name in inspect.signature(Trainer).parameters if name != "self"]
    elif top in BASES and path.count("init_args") > 1:  # an option of an optimizer, say
        named = re.findall(r"'?class_path'?[=:] ?'([\w.]+)'", message)
        cls = _torch_class(named[-1]) if named else None
        accepted = list(inspect.signature(cls).parameters)[1:] if cls else []
    elif top in BASES and below:
        accepted = _accepted(top, arguments)
    else:
        accepted = ["config", "seed_everything", "model", "data", "trainer", "run_dir", "threads", "ckpt_path", "debug"]
        below = top
    return f"{path} is not a key{_instead(below.rpartition('.')[2], accepted)}"


def _torch_class(name: str) -> type | None:
    """The class of an import path or of a torch optimizer's short name."""
    return loaded(name, object) if "." in name else getattr(torch.optim, name, None)


def _instead(given: str, accepted: Sequence[str]) -> str:
    near = difflib.get_close_matches(given, accepted, n=1)
    meant = f" (did you mean {near[0]}?)" if near else ""
    return f"{meant}; accepted: {', '.join(accepted)}." if accepted else "."


def _kind(expected: str) -> str:
    """<class 'int'> and typing.Literal['a', 'b'] in words."""
    if found := re.search(r"Literal(\[.*\])", expected):
        return f"one of {', '.join(str(choice) for choice in ast.literal_eval(found[1]))}"
    found = re.fullmatch(r"<class '(.*)'>", expected)
    words = {"int": "a whole number", "float": "a number", "bool": "true or false", "str": "text", "NoneType": "null"}
    return words.get(found[1], found[1]) if found else expected


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
    return {cls.__name__: cls for cls in subclasses(base) if not getattr(cls, "__abstractmethods__", None)}


def one_line(text: str) -> str:
    """The text with all white space folded."""
    return " ".join(text.split())
