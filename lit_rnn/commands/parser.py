"""Options of the commands, refused in one sentence; nothing here needs torch."""

from __future__ import annotations

import argparse
import itertools
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from datamodules.errors import UserError, require
from lit_rnn.files import check_path, parse_yaml

_DATA = "--data."
_KINDS = {"int": "a whole number", "float": "a number", "size": "a number or a fraction such as 8/255"}


class Parser(argparse.ArgumentParser):
    """Raises a sentence instead of printing usage and leaving; takes no abbreviated options."""

    def __init__(self, command: str, description: str | None, **kwargs: Any) -> None:
        super().__init__(prog=f"python -m lit_rnn {command}", description=description, allow_abbrev=False, **kwargs)

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As argparse; nothing may be empty, and names of files are refused that cannot be any."""
        for option, argument in itertools.pairwise(["", *([] if args is None else args)]):
            name, equals, value = argument.partition("=") if argument[:2] == "--" else (option, "", argument)
            if not value and (equals or not argument):
                named = name if name[:2] == "--" else "An argument"
                raise UserError(f"{named} is empty, but it must say something: give its value, or leave it out.")
        options, unknown = super().parse_known_args(args, namespace)
        for name, value in vars(options).items():
            for one in value if isinstance(value, list) else [value]:
                if isinstance(one, str | Path):
                    check_path(one, name if name in ("file", "runs") else f"--{name}")
        return options, unknown

    def error(self, message: str) -> NoReturn:
        if found := re.match(r"argument (?:\S+/)?(\S+): invalid (\w+) value: (.*)", message):
            raise UserError(f"{found[1]} is {found[3]}, but it must be {_KINDS.get(found[2], found[2])}.")
        raise UserError(f"{message}; see {self.prog} --help.")


def add_model_options(add: Callable[..., Any], checkpoint: str) -> None:
    """What says which trained model and which data, for a command that takes ``checkpoint`` where none is named."""
    add("--ckpt_path", metavar="FILE", help="a checkpoint file, or last or best with --run_dir")
    add("--run_dir", type=Path, metavar="DIR", help=f"a run folder; its {checkpoint} checkpoint if no other is named")
    add("-c", "--config", type=Path, help="take the data from this config, not from the run folder's")
    add("--data", help="a data module; --data.init_args.KEY VALUE sets its options")


def add_threads(add: Callable[..., Any]) -> None:
    add("--threads", type=int, help="CPU threads; if not given, as many as there are cores, and one for NumPy")


def check_least(options: argparse.Namespace, **least: int) -> None:
    """Raise `UserError` where an option, by its name, is given and below its least value."""
    for name, number in least.items():
        value = getattr(options, name)
        require(value is None or value >= number, f"--{name}", value, f"a whole number of at least {number}")


def data_options(unknown: Sequence[str], command: str) -> dict[str, Any]:
    """--data.init_args.KEY VALUE (or --data.KEY VALUE) as a mapping.

    Raises:
        UserError: for any other option.
    """
    options: dict[str, Any] = {}
    rest = [part for argument in unknown for part in argument.split("=", 1 if argument.startswith("--") else 0)]
    while rest:
        name = rest.pop(0)
        key = name.removeprefix(_DATA).removeprefix("init_args.")
        if not name.startswith(_DATA) or not rest:
            problem = "needs a value" if name.startswith(_DATA) else "is not an option"
            raise UserError(f"{name} {problem}; see python -m lit_rnn {command} --help.")
        options[key] = parse_yaml(rest.pop(0), name)
    return options
