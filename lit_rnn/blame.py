"""Errors raised by other people's code, in one sentence: a user's module, or what a config adds to the trainer."""

from __future__ import annotations

import contextlib
import importlib.util
import inspect
import os
import re
import sysconfig
import traceback
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeGuard

from lightning_fabric.utilities.exceptions import MisconfigurationException
from torch import nn

import datamodules
import lit_rnn
from datamodules.arguments import OURS
from datamodules.errors import UserError, chain, one_line
from lit_rnn.memory import out_of_memory

_NOT_THE_USERS = (
    *(os.path.join(sysconfig.get_path(name), "") for name in ("stdlib", "platstdlib", "purelib", "platlib")),
    *(os.path.join(os.path.dirname(str(package.__file__)), "") for package in (lit_rnn, datamodules)),
)


def refusal(error: BaseException, added: Sequence[object] = ()) -> UserError | None:
    """The sentence for ``error`` where the user's code, or an object of ``added``, raised it; None where ours did.

    It names the file and the line, the innermost that lie in a file of the user, or the class of the object.
    """
    errors = list(chain(error))
    told = out_of_memory(error) or next((each for each in errors if isinstance(each, UserError)), None)
    if told is not None:
        return told
    for each in reversed(errors):  # where it began
        place = _place(each) or _called(each)
        if place is not None:
            return UserError(f"{place}: {_told(each)}.")
        if "modified by an inplace operation" in str(each) and (owner := _own_cell(each)) is not None:
            return UserError(
                f"{owner}: what it computes with changes in place, as by h.add_() or h[:, 0] = ..., a tensor that its "
                "gradient still needs: compute a new one."
            )
        for frame, _ in traceback.walk_tb(each.__traceback__):
            thrower = frame.f_locals.get("self")
            if any(thrower is one for one in added):
                return UserError(f"{type(thrower).__name__}, which the config adds, cannot be used: {one_line(each)}")
    wrapped = [name for each in errors for name in re.findall(r"Problem with given class_path '([\w.]+)'", str(each))]
    missing = getattr(errors[-1], "name", None) if isinstance(errors[-1], ModuleNotFoundError) else None
    unknown = missing is not None and bool(wrapped) and wrapped[-1].startswith(missing)  # the class's own module
    unknown = unknown or (bool(wrapped) and importlib.util.find_spec(wrapped[-1].partition(".")[0]) is None)
    if wrapped and not unknown and wrapped[-1].partition(".")[0] not in OURS:
        return UserError(f"{wrapped[-1]} cannot be used: {one_line(errors[-1])}")
    for each in errors:
        # some of them late, such as max_epochs already passed
        if isinstance(each, MisconfigurationException) or (isinstance(each, ValueError) and _by_lightning(each)):
            return UserError(f"trainer cannot run this: {one_line(each)}")
    return None


def _by_lightning(error: BaseException) -> bool:
    """Whether a statement of Lightning's raised it."""
    frames = traceback.extract_tb(error.__traceback__)
    return bool(frames) and any(
        f"/{name}/" in frames[-1].filename for name in ("pytorch_lightning", "lightning_fabric")
    )


def defined(function: Callable[..., Any]) -> str:
    """FILE line N, in NAME, of a function."""
    lines = inspect.getsourcelines(function)
    return f"{inspect.getsourcefile(function)} line {lines[1]}, in {function.__name__}"


def is_users(file: str | None) -> TypeGuard[str]:
    """Whether a file is of the user's own code: neither ours, nor Python's, nor an installed package's."""
    if file is None:
        return False
    path = os.path.abspath(file)
    return not path.startswith(_NOT_THE_USERS) and os.path.isfile(path)  # no file: <string>, <frozen importlib>


def _place(error: BaseException) -> str | None:
    if isinstance(error, SyntaxError) and is_users(error.filename):
        return f"{error.filename} line {error.lineno}"
    frames = [(frame.filename, frame.lineno, frame.name) for frame in traceback.extract_tb(error.__traceback__)]
    # of an error in a worker of the DataLoader only the text comes over
    frames += re.findall(r'File "([^"]+)", line (\d+), in (\S+)', str(error))
    for file, line, name in reversed(frames):
        if is_users(file):
            return f"{file} line {line}" + ("" if name == "<module>" else f", in {name}")
    return None


def _in_reach(error: BaseException) -> Iterator[object]:
    """What the functions that an error went through had, from the innermost on."""
    for frame, _ in reversed(list(traceback.walk_tb(error.__traceback__))):
        yield from frame.f_locals.values()


def _called(error: BaseException) -> str | None:
    """Where a method of the user's is written that a statement of ours called with other arguments than it takes."""
    found = re.match(r"([\w.<>]+)\(\) (takes|missing|got) ", str(error)) if isinstance(error, TypeError) else None
    if found is None:
        return None
    for value in _in_reach(error):
        function: Any = getattr(type(value), found[1].rpartition(".")[2], None)
        if getattr(function, "__qualname__", None) == found[1] and is_users(inspect.getsourcefile(function)):
            return defined(function)
    return None


def _own_cell(error: BaseException) -> str | None:
    """The innermost cell of the user's that an error went through."""
    for value in _in_reach(error):
        for part in value.modules() if isinstance(value, nn.Module) else ():
            with contextlib.suppress(TypeError, OSError):  # of a class that was made in a shell
                if hasattr(part, "recurrent_matrices") and is_users(inspect.getsourcefile(type(part))):
                    return f"{inspect.getsourcefile(type(part))}, {type(part).__name__}"
    return None


def _told(error: BaseException) -> str:
    if "Original Traceback" in str(error):
        return str(error).strip().splitlines()[-1].rstrip(".")
    text = error.msg if isinstance(error, SyntaxError) else one_line(error)
    return f"{type(error).__name__}: {text}".rstrip(".")
