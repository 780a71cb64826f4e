"""Arguments against annotations: what is no number, no name or not finite is refused before a constructor sees it."""

from __future__ import annotations

import inspect
import os
import types
from abc import ABCMeta
from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from typing import Any, Literal, ParamSpec, TypeVar, Union, get_args, get_origin, get_type_hints

import numpy as np

from datamodules.errors import require

_P = ParamSpec("_P")
_R = TypeVar("_R")
_LARGEST = float(np.finfo(np.float32).max)
_WORDS = {
    int: "a whole number",
    float: "a number that is finite in float32",
    bool: "true or false",
    str: "text",
    types.NoneType: "null",
}


class ChecksKinds(ABCMeta):
    """Metaclass: arguments are of the kinds that a class's constructor, and those above it, are annotated with.

    Numbers and arrays of NumPy become Python's, which are what a checkpoint keeps. A bool is no number, and a number
    that is not finite in single precision is none, either. Kinds that are not plain are left to the class.

    Raises:
        UserError: naming the argument behind ``options_at``, what was given, and what is accepted.
    """

    options_at: str
    """Where arguments stand in a config, such as ``data.init_args``."""

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        kinds: dict[str, Any] = {}
        for base in reversed(cls.__mro__):
            if isinstance(base, ChecksKinds) and "__init__" in vars(base):
                kinds |= _kinds(vars(base)["__init__"])
        args, kwargs = _plain(cls.options_at, list(cls.__signature__.parameters), kinds, args, kwargs)
        return super().__call__(*args, **kwargs)

    @property
    def __signature__(cls) -> inspect.Signature:
        """The constructor's: that of this metaclass says nothing."""
        signature = inspect.signature(cls.__init__)  # type: ignore[misc]
        return signature.replace(parameters=list(signature.parameters.values())[1:], return_annotation=cls)


def checks_kinds(place: str) -> Callable[[Callable[_P, _R]], Callable[_P, _R]]:
    """The same for a function."""

    def decorate(function: Callable[_P, _R]) -> Callable[_P, _R]:
        @wraps(function)
        def checked(*args: Any, **kwargs: Any) -> _R:
            kinds = _kinds(function)
            args, kwargs = _plain(place, list(kinds), kinds, args, kwargs)
            return function(*args, **kwargs)

        return checked

    return decorate


def _kinds(function: Any) -> dict[str, Any]:
    """What each parameter is annotated with, Any where that is unknown."""
    try:
        hints = get_type_hints(function)
    except (NameError, AttributeError, TypeError, SyntaxError):  # of somebody's class, which may import names for mypy
        hints = {}
    return {name: hints.get(name, Any) for name in inspect.signature(function).parameters}


def _plain(
    place: str, names: Sequence[str], kinds: Mapping[str, Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Both kinds of arguments, checked; the first of ``names`` are those of ``args``."""

    def plain(name: str, value: Any) -> Any:
        kind = kinds.get(name, Any)
        if isinstance(value, np.generic | np.ndarray) and kind is not Any:
            value = value.tolist()
        require(_fits(value, kind), f"{place}.{name}", value, _words(kind))
        return value

    named = tuple(plain(name, value) for name, value in zip(names, args, strict=False))
    return named + args[len(named) :], {name: plain(name, value) for name, value in kwargs.items()}


def _fits(value: Any, kind: Any) -> bool:
    origin, inner = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        return any(_fits(value, one) for one in inner)
    if origin is Literal:
        return any(type(value) is type(one) and value == one for one in inner)
    if origin in (list, Sequence):
        return isinstance(value, Sequence) and not isinstance(value, str) and all(_fits(one, inner[0]) for one in value)
    if origin in (dict, Mapping):
        return isinstance(value, Mapping) and all(_fits(one, inner[1]) for one in value.values())
    if kind is float:
        return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= _LARGEST
    if kind is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if kind is str:
        return isinstance(value, str | os.PathLike)
    return kind not in _WORDS or isinstance(value, kind)


def _words(kind: Any) -> str:
    origin, inner = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        null_first = sorted(inner, key=lambda one: one is not types.NoneType)
        return " or ".join(dict.fromkeys(map(_words, null_first)))
    if origin is Literal:
        return f"one of {', '.join(map(str, inner))}" if len(inner) > 2 else " or ".join(map(str, inner))
    if origin in (list, Sequence):
        return f"a list, each {_words(inner[0])}"
    if origin in (dict, Mapping):
        return "a mapping"
    return _WORDS.get(kind, getattr(kind, "__name__", str(kind)))
