"""What makes a shell complete the command line: written by shtab, from the options of every command."""

from __future__ import annotations

import argparse
import types
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import shtab
from pytorch_lightning import Trainer
from pytorch_lightning.cli import ArgsType, LightningArgumentParser
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from lit_rnn.class_paths import own_module, subclasses
from lit_rnn.commands.config_parser import ConfigCLI
from lit_rnn.commands.sentences import BASES, known_names, options_of

_FOLDERS = ("run_dir", "study_dir", "study", "out", "html", "runs")
_FILES = ("config", "ckpt_path", "file")


def script(shell: str, parsers: Mapping[str, argparse.ArgumentParser], words: Mapping[str, str]) -> str:
    """The script for ``bash`` or ``zsh``.

    Args:
        shell: Whose.
        parsers: Of every command by its name, made for this: how their values are completed is noted on them.
        words: What each command does.
    """
    root = argparse.ArgumentParser(prog="lit_rnn")
    commands = root.add_subparsers()
    for name, parser in parsers.items():
        commands.add_parser(name, help=words[name])
        commands.choices[name] = parser
        for action in parser._actions:
            _note_values(action)
    text: str = shtab.complete(root, shell)
    return text


def _note_values(action: argparse.Action) -> None:
    if action.dest == "data":
        action.choices = known_names(BASES["data"])
    elif action.dest in _FOLDERS:
        action.complete = shtab.DIRECTORY  # type: ignore[attr-defined]  # where shtab looks
    elif action.dest in _FILES or action.type is Path:
        action.complete = shtab.FILE  # type: ignore[attr-defined]


class _Options(ConfigCLI):
    """Stops where the command line would be parsed."""

    def _prepare_subcommand_parser(self, klass: type, subcommand: str, **kwargs: Any) -> LightningArgumentParser:
        self.built = super()._prepare_subcommand_parser(klass, subcommand, **kwargs)
        return self.built

    def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        raise _BuiltError(self.built)


class _BuiltError(Exception):
    """All options are there: in the parser that it holds."""


def lightning_options(command: str) -> argparse.ArgumentParser:
    """The options of fit, validate, test or predict, and of all shipped models and data, to be completed alone.

    jsonargparse would write a script of 20 MB for each of these commands: it follows every class into its options.
    """
    made = argparse.ArgumentParser()
    values = _values()
    try:
        _Options([command])
    except _BuiltError as done:
        built: LightningArgumentParser = done.args[0]
    for action in built._actions:
        names = [name for name in action.option_strings if not name.endswith(("+", ".help"))]
        if names and names[-1] not in values and action.dest != "help":
            whole = names[-1] == "--print_config"
            made.add_argument(*names, dest=action.dest, nargs="?" if whole else None)
    for name, choices in values.items():
        made.add_argument(name, choices=choices or None)
    return made


def _values() -> dict[str, list[str]]:
    """Options whose values may be known: those of the trainer, of every model and of every data module."""
    found = {f"--trainer.{key}": _choices(hint) for key, hint in get_type_hints(Trainer.__init__).items()}
    del found["--trainer.return"]
    for top, base in BASES.items():
        shipped = [cls for cls in subclasses(base) if own_module(f"{cls.__module__}.x") is None]
        for option in (f"--{top}", f"--{top}.class_path", f"--{top}.help"):
            found[option] = known_names(base)
        for cls in shipped:
            hints: dict[str, Any] = {}
            for above in reversed(cls.__mro__[: cls.__mro__.index(base) + 1]):
                hints |= get_type_hints(vars(above).get("__init__", lambda: None))
            for key in options_of(cls) if cls.__name__ in known_names(base) else ():
                known = found.setdefault(f"--{top}.init_args.{key}", [])
                known += [choice for choice in _choices(hints[key]) if choice not in known]
    for key, base in (("optimizer", Optimizer), ("lr_scheduler", LRScheduler)):
        found[f"--model.init_args.{key}"] = known_names(base)
        found[f"--model.init_args.{key}.class_path"] = known_names(base)
    found["--model.init_args.optimizer.init_args.lr"] = []
    return found


def _choices(hint: Any) -> list[str]:
    """The values that a type has, where they are few."""
    if hint is bool:
        return ["true", "false"]
    if get_origin(hint) is Literal:
        return [str(value) for value in get_args(hint)]
    if get_origin(hint) in (Union, types.UnionType):
        return [choice for inner in get_args(hint) for choice in _choices(inner)]
    return []
