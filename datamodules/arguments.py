"""Arguments against annotations: what is no number, no name or not finite is refused before a constructor sees it."""

from __future__ import annotations

import functools
import inspect
import os
import sys
import types
from abc import ABCMeta
from collections.abc import Callable, Mapping, Sequence
from inspect import Parameter
from typing import Any, Literal, ParamSpec, TypeVar, Union, _ProtocolMeta, get_args, get_origin, get_type_hints

from datamodules.errors import require

_P = ParamSpec("_P")
_R = TypeVar("_R")
_LARGEST = (2 - 2**-23) * 2.0**127  # in float32
_WORDS = {
    int: "a whole number",
    float: "a number that is finite in float32",
    bool: "true or false",
    str: "text",
    types.NoneType: "null",
}
_LISTS = (list, tuple, Sequence)
OURS = ("datamodules", "lit_rnn")
"""Packages whose classes are this project's."""


class ChecksKinds(_ProtocolMeta, ABCMeta):  # of protocols too, so that a class may have one among its bases
    """Metaclass: arguments are of the kinds that this project's constructors are annotated with.

    Numbers and arrays of NumPy become Python's where those are asked for, which are what a checkpoint keeps. A bool is
    no number, and a number that is not finite in single precision is none, either. Kinds that are not plain are left to
    the class. A class from elsewhere takes what it likes, and is held to this for what it hands on by name.

    It is no wrapper of constructors, as `save_hyperparameters` reads the arguments of the frames that called it.

    Raises:
        UserError: naming the argument behind ``options_at``, what was given, and what is accepted.
    """

    options_at: str
    """Where arguments stand in a config, such as ``data.init_args``."""

    __instancecheck__ = ABCMeta.__instancecheck__  # none of a protocol's
    __subclasscheck__ = ABCMeta.__subclasscheck__

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        kinds: dict[str, Any] = {}
        for base in reversed(cls.__mro__):
            if "__init__" in vars(base):
                kinds |= _kinds(vars(base)["__init__"], base.__module__.partition(".")[0] in OURS)
        args, kwargs = _plain(cls.options_at, cls.__signature__, kinds, args, kwargs)
        return super().__call__(*args, **kwargs)

    @property
    def __signature__(cls) -> inspect.Signature:
        """The constructor's: that of this metaclass says nothing."""
        return inspect.signature(types.MethodType(cls.__init__, cls))  # type: ignore[misc]  # read, not called


def checks_kinds(place: str) -> Callable[[Callable[_P, _R]], Callable[_P, _R]]:
    """The same for a function."""

    def decorate(function: Callable[_P, _R]) -> Callable[_P, _R]:
        @functools.wraps(function)
        def checked(*args: Any, **kwargs: Any) -> _R:
            args, kwargs = _plain(place, inspect.signature(function), _kinds(function, True), args, kwargs)
            return function(*args, **kwargs)

        return checked

    return decorate


@functools.lru_cache(maxsize=1024)
def _kinds(function: Callable[..., Any], known: bool) -> Mapping[str, Any]:
    """By name; Any where there is no annotation, or where it is not to be ``known``."""
    hints = get_type_hints(function) if known else {}
    return {name: hints.get(name, Any) for name in inspect.signature(function).parameters}


def _plain(
    place: str, signature: inspect.Signature, kinds: Mapping[str, Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Both sorts of arguments, checked."""

    def plain(name: str, value: Any) -> Any:
        kind = kinds.get(name, Any)
        if _is_plain(kind) and _fits(pythons := _as_pythons(value), kind):
            return pythons
        require(_fits(value, kind), f"{place}.{name}", value, _words(kind))
        return value

    placed = (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD)
    names = [name for name, parameter in signature.parameters.items() if parameter.kind in placed]
    told = tuple(plain(name, value) for name, value in zip(names, args, strict=False))
    return told + args[len(told) :], {name: plain(name, value) for name, value in kwargs.items()}


def _as_pythons(value: Any) -> Any:
    np = sys.modules.get("numpy")  # not imported, as --help needs none: without it no value is of it
    if np is not None and isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    return type(value)(map(_as_pythons, value)) if type(value) in (list, tuple) else value


def _is_union(kind: Any) -> bool:
    return get_origin(kind) in (Union, types.UnionType)


def _is_single(kind: Any) -> bool:
    """Whether it is a number, a name, a flag or null."""
    return get_origin(kind) is Literal or kind in _WORDS


def _is_plain(kind: Any) -> bool:
    """Whether it is single, or a list of such, or one of several that are."""
    several = _is_union(kind) or get_origin(kind) in _LISTS
    return all(_is_plain(one) for one in get_args(kind) if one is not ...) if several else _is_single(kind)


def _fits(value: Any, kind: Any) -> bool:
    origin, inner = get_origin(kind), get_args(kind)
    if _is_union(kind):
        return any(_fits(value, one) for one in inner)
    if origin is Literal:
        return any(type(value) is type(one) and value == one for one in inner)
    if origin in _LISTS:
        return isinstance(value, Sequence) and not isinstance(value, str) and all(_fits(one, inner[0]) for one in value)
    if origin in (dict, Mapping):
        return isinstance(value, Mapping) and all(_fits(one, inner[1]) for one in value.values())
    if kind is float:
        return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= _LARGEST
    if kind is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if kind is str:
        return isinstance(value, str | os.PathLike)
    return not _is_single(kind) or isinstance(value, kind)


def _words(kind: Any) -> str:
    origin, inner = get_origin(kind), get_args(kind)
    if _is_union(kind):
        null_first = sorted(inner, key=lambda one: one is not types.NoneType)
        return " or ".join(dict.fromkeys(map(_words, null_first)))
    if origin is Literal:
        return f"one of {', '.join(map(str, inner))}" if len(inner) > 2 else " or ".join(map(str, inner))
    if origin in _LISTS:
        return f"a list, each {_words(inner[0])}"
    if origin in (dict, Mapping):
        return "a mapping"
    return _WORDS.get(kind, getattr(kind, "__name__", str(kind)))
