"""Completes what the user typed: configs come first, and one is found where none was given."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from datamodules.errors import UserError, require
from lit_rnn.commands.configs import QUICKSTART, check_config, find_config
from lit_rnn.files import check_path, parse_yaml
from lit_rnn.runs import config as run_config
from lit_rnn.runs import limits
from lit_rnn.runs.checkpoints import folder_of
from lit_rnn.runs.folder import newest_config
from lit_rnn.runs.options import section
from lit_rnn.yaml_limits import YAMLLimitError, check_yaml


def complete(command: str, arguments: Sequence[str]) -> list[str]:
    """The arguments of ``command`` with shipped configs found and put first, and a config where none was given.

    ``fit`` without options runs the quickstart; a command on a checkpoint takes the config of the run it belongs to.
    """
    for option, argument in itertools.pairwise(["", *arguments]):
        named = option if option[:1] == "-" else "An argument"
        require("\0" not in argument, named, argument, "text without the character NUL")
    rest = _split_equals(arguments)
    if {"-h", "--help"} & set(rest):
        return rest
    configs: list[str] = []
    others: list[str] = []
    while rest:  # configs first: an option on the command line wins wherever it stands
        argument = rest.pop(0)
        if argument in ("-c", "--config") and rest:
            check_path(rest[0], "config")
            configs += ["--config", find_config(rest.pop(0))]
            check_config(configs[-1])
            _check_content(configs[-1])
        else:
            others.append(argument)
            _check_text(argument)
    options = dict(itertools.pairwise([*others, ""]))
    _check_names(options)
    _refuse_task(configs[1::2], options)
    if command != "fit" and "--ckpt_path" not in options and not any("print_config" in name for name in options):
        folder = options.get("--run_dir")
        if folder and not Path(folder).is_dir():
            raise UserError(f"run_dir is {folder}, but there is no such folder: name a run folder.")
        raise UserError(
            f"ckpt_path is not given, but {command} needs trained weights: "
            "--ckpt_path FILE, or --ckpt_path best with --run_dir."
        )
    others = _with_full_names(others)
    if configs:
        return [*configs, *others]
    chooses = bool(options.keys() & {"--model", "--model.class_path", "--data", "--data.class_path"})
    run, checkpoint = options.get("--run_dir"), options.get("--ckpt_path")
    if checkpoint is None and "--resume" in options and run and newest_config(Path(run)) is not None:
        checkpoint = "last"
    if checkpoint is None:
        return others if chooses else ["--config", find_config(QUICKSTART), *others]
    try:
        found = _config_of(checkpoint, run)
    except UserError:
        if chooses:  # model and data may be all there is to say
            return others
        raise
    run_config.check(found)
    if run is None:  # the folder that the file is in, whatever run_dir the file names
        others += ["--run_dir", str(found.parent)]
    return ["--config", str(found), *others]


def _check_text(argument: str) -> None:
    """Refuse an option's value that the parser would expand beyond measure."""
    try:
        check_yaml(argument)
    except YAMLLimitError as error:
        raise UserError(f"The value {argument[:40]!r}... of an option is refused: {error}.") from error
    except yaml.YAMLError:
        pass  # a text, then


def _check_content(name: str) -> None:
    """Refuse what the parser would stumble over, or take for the name of another file."""
    content = run_config.read_config(Path(name))
    limits.check_values(content)
    run_config.check_named(content, where=f"config {name}: ")
    trainer = content.get("trainer", {})
    accepted = "a mapping of the Trainer's options, such as {max_epochs: 10}"
    require(isinstance(trainer, dict), f"config {name}: trainer", trainer, accepted)


def _check_names(options: Mapping[str, str]) -> None:
    """Refuse names of files that cannot be any, or that YAML would read as something else: config.yaml keeps them."""
    for name in ("--run_dir", "--ckpt_path"):
        if name in options:
            check_path(options[name], name)
    for name, value in options.items():
        if name[:2] == "--" and value[:1] == "#":
            raise UserError(f"{name} is {value}, which YAML reads as a comment, and so as nothing: take another name.")
    run = options.get("--run_dir", "")
    other = run in ("null", "Null", "NULL", "~") or re.fullmatch(r"[-+]?[\d_]*\.?[\d_]+([eE][-+]?\d+)?", run)
    if other and not run.isdecimal():
        raise UserError(f"--run_dir is {run}, which YAML does not read as a name: take another, such as run-{run}.")


def _split_equals(arguments: Sequence[str]) -> list[str]:
    """The arguments with every --name=value in two, but for --print_config, whose value is optional."""

    def split(argument: str) -> list[str]:
        whole = argument[:2] != "--" or argument.startswith("--print_config")
        return [argument] if whole else argument.split("=", 1)

    return [part for argument in arguments for part in split(argument)]


def _with_full_names(arguments: Sequence[str]) -> list[str]:
    """The arguments with `run_config.with_full_names` of what options give by themselves, if it can name classes."""
    named = []
    for option, value in itertools.pairwise(["", *arguments]):
        key = re.sub(r"^--|\+$|\.class_path$", "", option)
        key = re.sub(r"^model\.(?!init_args)", "model.init_args.", key)
        above = any(place.startswith(key) for place in (*run_config.PLACES, run_config.GROUPS))
        if option[:2] == "--" and key and (above or run_config.base_of(key)):
            given = parse_yaml(value, option)
            run_config.check_named(given, key)
            full = run_config.with_full_names(given, key)
            value = value if full == given else full if isinstance(full, str) else json.dumps(full)
        named.append(value)
    return named


def _refuse_task(configs: Sequence[str], options: Mapping[str, str]) -> None:
    """Refuse a task set by hand: the parser would silently drop it: the task is linked from the data."""
    for where in itertools.chain(_tasks_in(configs), _tasks_among(options)):
        raise UserError(f"{where} sets model.init_args.task, but the task comes from the data: leave it out.")


def _tasks_in(configs: Sequence[str]) -> Iterator[str]:
    for name in configs:
        if _has_task(section(run_config.read_config(Path(name)), "model").get("init_args")):
            yield f"config {name}"


def _tasks_among(options: Mapping[str, str]) -> Iterator[str]:
    for name, value in options.items():
        inside = parse_yaml(value, name) if name in ("--model", "--model.init_args") and value[:1] == "{" else {}
        given = inside.get("init_args", inside) if isinstance(inside, dict) else {}
        if re.match(r"--model(\.init_args)?\.task(\.|$)", name) or _has_task(given):
            yield name


def _has_task(init_args: Any) -> bool:
    return isinstance(init_args, dict) and "task" in init_args


def _config_of(checkpoint: str, run_dir: str | None) -> Path:
    """The config of the run that a checkpoint file belongs to, or that 'last' or 'best' means with --run_dir."""
    if checkpoint in ("last", "best"):
        if not run_dir:
            raise UserError(
                f"ckpt_path is {checkpoint}, but neither a config nor the run's folder is given: add --run_dir."
            )
        config = newest_config(Path(run_dir))
        if config is None:
            raise UserError(f"run_dir {run_dir} holds no run (no config.yaml): name a run folder.")
        return config
    if not Path(checkpoint).is_file():
        raise UserError(f"ckpt_path is {checkpoint}, but it must be last, best or a checkpoint file.")
    run = folder_of(Path(checkpoint))
    config = newest_config(run) if run else None
    if config is None:
        raise UserError(
            f"ckpt_path {checkpoint} is not in a run folder: give the config it was made with, by --config."
        )
    return config
