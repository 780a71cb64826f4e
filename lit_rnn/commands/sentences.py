"""What the parser refuses, in one sentence: the key, what was given, what is accepted."""

from __future__ import annotations

import ast
import importlib.util
import inspect
import itertools
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser
from pytorch_lightning import Callback, Trainer
from pytorch_lightning.loggers import Logger
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from datamodules import SequenceDataModule
from datamodules.errors import did_you_mean, one_line
from lit_rnn.class_paths import full_name, loaded, shorten, subclasses
from lit_rnn.models import SequenceModel
from lit_rnn.optim.schedule import NOT_PLAIN
from lit_rnn.runs.config import PLACES, base_of, read_config
from lit_rnn.runs.options import walk

_NOT_TO_NAME = {*NOT_PLAIN, "GroupedOptimizer", "RiemannianOptimizer", "SparseAdam", "LBFGS"}  # cannot be used
BASES = {key: PLACES[key] for key in ("model", "data")}
_AS_IN_YAML = {"": "''", "True": "true", "False": "false", "None": "null"}
_WORDS = {SequenceModel: "model", SequenceDataModule: "data module", Optimizer: "optimizer", LRScheduler: "scheduler"}


def explain(message: str, arguments: Sequence[str]) -> str:
    """One sentence for a message of the parser: the key, what was given, what is accepted."""
    keys = [key for key in re.findall(r'Parser key "([^"]+)"', message) if key != "config"]
    if not keys:  # --model.help NAME is no key of a config
        keys = [argument[2:-5] for argument in arguments if re.fullmatch(r"--\S+\.help", argument)][:1]
    key = _join(keys)
    if found := re.search(r"argument (?:\S+/)?(--\S+): expected one argument", message):
        bare = [one for one, following in itertools.pairwise([*arguments, "--"]) if following[:2] == "--"]
        return f"{next((one for one in bare if one.startswith(found[1])), found[1])} needs a value."
    if found := re.search(r"Option '([^']+)' is not accepted", message):
        return _no_key(_join([*keys, found[1]]), arguments, message)
    if found := re.search(r"does not accept option '([^']+)'", message):
        return _no_key(found[1], arguments, message)
    if found := re.search(r"unrecognized arguments: --(\S+)", message):
        return f"--{_no_key(found[1], arguments, message)}"
    if found := re.search(r"unrecognized arguments: ([^-\s]\S*)", message):
        return f"{found[1]} belongs to no option: give a config by -c, a run folder by --run_dir, a model by --model."
    if found := re.search(r"arguments are required: ([\w, .]+)", message):
        if (kind := _kind_at(key)) is not None and _class_named(key, arguments) is None:
            return f"{key}.class_path is missing{_instead('', known_names(kind))}"
        names = [re.sub(r"^(fit|validate|test|predict)\.", "", name.strip()) for name in found[1].split(",")]
        missing = [_join([*keys, name]) for name in names]
        if any(name.startswith("model.init_args.task.") for name in missing):  # each field of it would be an option
            own = (_class_named("model", arguments) or "the model").rpartition(".")[2]
            return f"{own} takes task: Task, but a config gives it as a mapping: write task: dict, or no type at all."
        given = "is missing; give it" if len(missing) == 1 else "are missing; give them"
        return f"{' and '.join(missing)} {given} in the config or as {' and '.join(f'--{name}' for name in missing)}."
    if found := re.search(r"Multiple subclasses .*?: (.*)", message):
        paths = sorted(set(re.findall(r"[\w.]+\.\w+", found[1])))
        choice = f"one of {', '.join(paths)}" if paths else "its full import path"
        return f"{key} names a class that more than one module has: give {choice}."
    for option, base in (("optimizer", "Optimizer"), ("lr_scheduler", "LRScheduler")):
        if f'Parser key "{option}"' in message and "callable class" in message and "class_path" not in message:
            named = re.search(r"Given value: ([\w.]+)", message)
            what = named[1] if named else "what was given"
            return f"model.init_args.{option} is {what}, but it must be a subclass of torch's {base}."
    if key in BASES and _given(message).startswith("{'init_args'") and (later := _class_named(key, arguments)):
        return (
            f"{key}.class_path is {later}, but {key}.init_args stand in a config before it, where no class is named "
            f"yet: name the class there, or give that config after one that names it."
        )
    if re.search(r"dot import path|given class_path|subclass|is abstract", message) and not _expected(message):
        return _no_class(keys, message)
    if "Unable to load config" in message:
        given = re.findall(r"Unable to load config ['\"](.*?)['\"]", message)[0]
        key = _join(list(dict.fromkeys(keys)))
        return f"{key} is {shorten(given)}, but it must be a mapping of options, such as {{name: value}}."
    if unknown := _unknown(key, message, arguments):
        return _no_class(keys, f"class_path '{unknown}'")
    if _kind_at(key) is Logger and re.match(r"\{(?!'class_path')", _given(message)):
        return _no_class(keys, message)
    if kinds := _expected(message):
        return f"{key} is {_shown(message)}, but it must be {' or '.join(kinds)}."
    if keys:
        return f"{key} is {_shown(message)}, which is not what belongs there."
    return one_line(re.sub(r'Parser key "(\w+)":', r"\1:", message))


def _unknown(key: str, message: str, arguments: Sequence[str]) -> str | None:
    """The name that stands where a class belongs under ``key``, if there is no such class."""
    kind = _kind_at(key)
    listed = re.search(r"(?:Got value|Given value): \[?(?:\{'class_path': )?'?([A-Za-z_][\w.]*)", message)
    named = _class_named(key, arguments) or (listed[1] if listed and kind in (Callback, Logger) else None)
    return named if kind and named and loaded(full_name(named, kind), kind) is None else None


def _no_class(keys: Sequence[str], message: str) -> str:
    found = re.findall(r"import path string: (\S+)|class_path '?([\w.]+)'?:?|[Ii]mport path (\S+) does", message)
    named = next((name for names in found for name in names if name), None) or _given(message)
    if inside := re.match(r"Namespace\(class_path='([\w.]+)'|\{'class_path': '([\w.]+)'", named):
        named = inside[1] or inside[2]
    key = f"{_join(keys)}.class_path"
    if len(keys) == 1 and keys[0] in BASES:
        if "Not a valid subclass of" in message or not re.fullmatch(r"[\w.]+", named):  # a mapping without class_path
            return f"{key} is missing{_instead('', known_names(BASES[keys[0]]))}"
        module, _, name = named.rpartition(".")
        if re.fullmatch(r"[\w.]+", module) and importlib.util.find_spec(module.partition(".")[0]) is None:
            instead = _instead(named, sorted(_subclasses(BASES[keys[0]])))
            return f"{key} is {named}, but there is no module {module} in this folder or on PYTHONPATH{instead}"
        if missing := sorted(getattr(getattr(sys.modules.get(module), name, None), "__abstractmethods__", ())):
            return f"{key} is {named}, which must still define {', '.join(missing)}."
        base = BASES[keys[0]]
        instead = _instead(named, [*known_names(base), f"your own subclasses of {base.__name__}"])
        return f"{key} is {named}, which is not a known {_WORDS[base]}{instead}"
    kind = _kind_at(_join(keys))
    known = known_names(kind) if kind else []
    if kind and not re.fullmatch(r"[\w.]+", named):
        return f"{key} is missing: give a torch or Lightning class, or a full import path."
    if kind in (Optimizer, LRScheduler):
        return f"{key} is {named}, which is not a known {_WORDS[kind]}{_instead(named, known)}"
    meant = did_you_mean(named.rpartition(".")[2], known)  # as of lightning.pytorch, which is another package
    return (
        f"{key} is {named}, which is not a known class{meant}: give a torch or Lightning class, or a full import path."
    )


def _expected(message: str) -> list[str]:
    """What the parser would have taken, in words."""
    found = re.findall(r"Expected (?:a )?(<class '[^']*'>|typing\.Literal\[[^\]]*\])", message)
    choices = [
        choice for kind in found if "Literal" in kind for choice in ast.literal_eval(kind[len("typing.Literal") :])
    ]
    kinds = dict.fromkeys(_kind(kind) for kind in found if "Literal" not in kind)
    kinds.pop("null", None)
    names = ", ".join(dict.fromkeys(map(str, choices)))
    return [f"one of {names}", *kinds] if names else list(kinds)


def _given(message: str) -> str:
    values = re.findall(r"(?:Got value|Given value): (.*)", message)
    value = values[-1] if values else "what was given"
    nested = re.match(r"NestedArg\(key='[^']*', val='?(.*?)'?\)$", value)
    inner = re.findall(r"Got value: (.*)", message)
    given = inner[0] if inner else nested[1] if nested else value
    if given in _AS_IN_YAML:
        return _AS_IN_YAML[given]
    return repr(given) if re.fullmatch(r"[A-Za-z_]\w*", given) else given


def _shown(message: str) -> str:
    """What was given, in the user's words and not too long."""
    given = one_line(_given(message))
    if len(given) > 100 or "Namespace(" in given:  # a whole section: what is inside of all others is the fault
        inner = min(re.findall(r"Given value: (.*)", message), key=len, default=given)
        given = repr(inner) if re.fullmatch(r"[A-Za-z_]\w*", inner) else inner
    if "Namespace(" in given or "NestedArg(" in given:  # the parser's words for what it has read
        return "a mapping with other keys or values"
    return given if len(given) <= 100 else f"{given[:96]} ..."


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
    place, _, option = path.rpartition(".")
    place = place.removesuffix(".init_args")
    base = _kind_at(place)
    if base is not None and place not in BASES and not (_holder(message, option) or _class_named(place, arguments)):
        return f"{path} is given, but no class that would take it: give {place}.class_path too."
    if base is not None and place not in BASES:  # an option of an optimizer, say
        accepted = _options_of(_holder(message, option) or _class_named(place, arguments), base)
    elif top == "trainer" and below:
        options = [name for name in inspect.signature(Trainer).parameters if name != "self"]
        first = below.partition(".")[0]
        path, below, accepted = (path, below, []) if first in options else (f"{top}.{first}", first, options)
    elif top in BASES and below:
        accepted = _accepted(top, arguments)
    else:
        accepted = ["config", "seed_everything", "model", "data", "trainer"]
        accepted += ["run_dir", "resume", "threads", "ckpt_path", "debug"]
        accepted = [name for name in accepted if name != top]  # --debug is no key of a file
        below = top
    return f"{path} is not a key{_instead(below.rpartition('.')[2], accepted)}"


def _kind_at(key: str) -> type | None:
    """What a class under ``key`` has to be below; of a mapping to classes, what each of them has to be."""
    return base_of(key) or base_of(f"{key}.name")


def _holder(message: str, option: str) -> str | None:
    """The class that was given an option it does not have, as the innermost value that the parser shows tells it."""
    for text in re.findall(r"Given value: (.*)", message):
        try:
            value = ast.literal_eval(text)
        except (ValueError, SyntaxError):
            continue
        for _, inner in walk(value, ""):
            if isinstance(inner, Mapping) and option in (inner.get("init_args") or ()):
                return str(inner.get("class_path"))
    return None


def _options_of(name: str | None, base: type) -> list[str]:
    """What the subclass of ``base`` with this name takes, but for what it is built on."""
    cls = _named(name, base)
    parameters = inspect.signature(cls).parameters.values() if cls else ()
    return [p.name for p in parameters if p.name not in ("params", "optimizer") and p.kind is not p.VAR_KEYWORD]


def _instead(given: str, accepted: Sequence[str]) -> str:
    return f"{did_you_mean(given, accepted)}; accepted: {', '.join(accepted)}." if accepted else "."


def _kind(expected: str) -> str:
    """<class 'int'> in words."""
    found = re.fullmatch(r"<class '(.*)'>", expected)
    words = {"int": "a whole number", "float": "a number", "bool": "true or false", "str": "text", "NoneType": "null"}
    words |= {
        "dict": "a mapping",
        "list": "a list",
        "collections.abc.Iterable": "a list",
        "collections.abc.Sequence": "a list",
    }
    return words.get(found[1], found[1]) if found else expected


def _accepted(top: str, arguments: Sequence[str]) -> list[str]:
    """The init_args of the class that the arguments name under ``top``."""
    cls = _named(_class_named(top, arguments), BASES[top])
    return [] if cls is None else options_of(cls)


def _named(name: str | None, base: type) -> type | None:
    """The subclass of ``base`` that somebody means by ``name``."""
    return None if name is None else loaded(full_name(name, base), base) or _subclasses(base).get(name)


def options_of(cls: type) -> list[str]:
    """The init_args of a model or a data module, those that it passes on to the classes above among them."""
    return [key for key in ArgumentParser().add_class_arguments(cls, skip={"task"}) if key]


def _class_named(key: str, arguments: Sequence[str]) -> str | None:
    """The class that the arguments name under a key, in config files too; what stands last counts."""
    names = (key, key.replace(".init_args", ""))
    options = {f"--{name}{plus}{end}" for name in names for plus in ("", "+") for end in ("", ".class_path")}
    named = None
    for option, value in itertools.pairwise(arguments):
        if option in options:
            named = value
        elif option in ("-c", "--config"):
            named = _in_config(read_config(Path(value)), key) or named
    return named


def _in_config(config: Any, key: str) -> str | None:
    for part in key.split("."):
        config = config.get(part) if isinstance(config, dict) else None
    found = config.get("class_path") if isinstance(config, dict) else config
    return found if isinstance(found, str) else None


def known_names(base: type) -> list[str]:
    """The short names of the classes below ``base`` that are loaded and can be used."""
    return sorted(set(_subclasses(base)) - _NOT_TO_NAME)


def _subclasses(base: type) -> dict[str, type]:
    """The concrete classes below ``base`` by short name."""
    found = (cls for cls in subclasses(base) if not getattr(cls, "__abstractmethods__", None))
    return {cls.__name__: cls for cls in found if cls.__name__[0] != "_" and "<locals>" not in cls.__qualname__}
