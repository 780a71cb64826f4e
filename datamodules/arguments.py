"""Arguments against annotations: what is no number, no name or not finite is refused before a constructor sees it."""

from __future__ import annotations

import functools
import inspect
import os
import types
from abc import ABCMeta
from collections.abc import Callable, Mapping, Sequence
from inspect import Parameter
from typing import (
    Any,
    Literal,
    NamedTuple,
    ParamSpec,
    SupportsFloat,
    SupportsIndex,
    TypeVar,
    Union,
    _ProtocolMeta,
    get_args,
    get_origin,
    get_type_hints,
)

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
    SupportsIndex: "a whole number",
    SupportsFloat: "a number",
}
_LISTS = (list, tuple, Sequence)
_PACKAGES = ("datamodules", "lit_rnn")
# What is asked for in a class of somebody else's: infinity may mean something there, and true is 1 as in Python
_LOOSE: dict[Any, Any] = {int: SupportsIndex, float: SupportsFloat, bool: bool | SupportsIndex}


class ChecksKinds(_ProtocolMeta, ABCMeta):  # so that a class may have a protocol among its bases
    """Metaclass: arguments are of the kinds that a class's constructor, and those above it, are annotated with.

    Numbers and arrays of NumPy become Python's where those are asked for, which are what a checkpoint keeps. A bool is
    no number, and a number that is not finite in single precision is none, either. Kinds that are not plain are left to
    the class; so are, in one from outside this project, which numbers it takes, and what is in its lists and mappings.

    Raises:
        UserError: naming the argument behind ``options_at``, what was given, and what is accepted.
    """

    options_at: str
    """Where arguments stand in a config, such as ``data.init_args``."""

    __instancecheck__ = ABCMeta.__instancecheck__  # none of a protocol's
    __subclasscheck__ = ABCMeta.__subclasscheck__

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        found: list[_Taken] = []
        for base in cls.__mro__[:-1]:
            if "__new__" in vars(base):  # which takes what it likes
                break
            if "__init__" in vars(base):
                ours = base.__module__.partition(".")[0] in _PACKAGES
                found.append(_taken(base.__init__, isinstance(base, ChecksKinds), ours))  # type: ignore[misc]
                if not found[-1].hands_on:
                    break
        (_, *args), kwargs = _plain(cls.options_at, found, (cls, *args), kwargs)  # type: ignore[assignment]
        return super().__call__(*args, **kwargs)

    @property
    def __signature__(cls) -> inspect.Signature:
        """The constructor's: that of this metaclass says nothing."""
        return inspect.signature(types.MethodType(cls.__init__, cls))  # type: ignore[misc]


def checks_kinds(place: str) -> Callable[[Callable[_P, _R]], Callable[_P, _R]]:
    """The same for a function."""

    def decorate(function: Callable[_P, _R]) -> Callable[_P, _R]:
        @functools.wraps(function)
        def checked(*args: Any, **kwargs: Any) -> _R:
            args, kwargs = _plain(place, [_taken(function)], args, kwargs)
            return function(*args, **kwargs)

        return checked

    return decorate


class _Taken(NamedTuple):
    """What a function takes: names and kinds of what has a place, kinds by name, and whether others are handed on."""

    by_place: tuple[tuple[str, Any], ...]
    by_name: Mapping[str, Any]
    hands_on: bool


@functools.lru_cache(maxsize=1024)
def _taken(function: Callable[..., Any], known: bool = True, ours: bool = True) -> _Taken:
    """Any is the kind of what is not ``known``; what is not ``ours`` is held to its annotations loosely."""
    parameters = inspect.signature(function).parameters
    try:
        hints = get_type_hints(function) if known else {}
    except Exception:  # of somebody's class, which may import names for mypy, or write anything there
        hints = {}
    kinds = {name: hints.get(name, Any) for name in parameters}
    if not ours:
        kinds = {name: _loosened(kind) for name, kind in kinds.items()}
    for name, parameter in parameters.items():
        if parameter.default is not Parameter.empty and not _fits(parameter.default, kinds[name]):
            kinds[name] = Union[kinds[name], None] if parameter.default is None else Any  # noqa: UP007

    def of(*sorts: Any) -> list[tuple[str, Any]]:
        return [(name, kinds[name]) for name in parameters if parameters[name].kind in sorts]

    return _Taken(
        tuple(of(Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD)),
        dict(of(Parameter.POSITIONAL_OR_KEYWORD, Parameter.KEYWORD_ONLY)),
        len(of(Parameter.VAR_KEYWORD)) > 0,
    )


def _loosened(kind: Any) -> Any:
    if _is_union(kind):
        return Union[tuple(map(_loosened, get_args(kind)))]  # noqa: UP007
    return _LOOSE.get(kind, kind) if _is_single(kind) else Any


def _plain(
    place: str, functions: Sequence[_Taken], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Both kinds of arguments, checked: ``args`` are the first function's, ``kwargs`` of whichever names them first."""

    def plain(name: str, value: Any, kind: Any) -> Any:
        if _is_plain(kind) and _fits(pythons := _as_pythons(value), kind):
            return pythons
        require(_fits(value, kind), f"{place}.{name}", value, _words(kind))
        return value

    placed = functions[0].by_place if functions else ()
    kinds: dict[str, Any] = {}
    for function in reversed(functions):
        kinds |= function.by_name
    told = tuple(plain(name, value, kind) for (name, kind), value in zip(placed, args, strict=False))
    return told + args[len(told) :], {name: plain(name, value, kinds.get(name, Any)) for name, value in kwargs.items()}


def _as_pythons(value: Any) -> Any:
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    return type(value)(map(_as_pythons, value)) if type(value) in (list, tuple) else value


def _is_union(kind: Any) -> bool:
    return get_origin(kind) in (Union, types.UnionType)


def _is_single(kind: Any) -> bool:
    """Whether it is a number, a name, a flag or null."""
    return get_origin(kind) is Literal or any(kind is one for one in _WORDS)  # not all kinds can be hashed


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
