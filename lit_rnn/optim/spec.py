"""Optimizers and schedulers as {class_path, init_args}: what a config says and a checkpoint keeps."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any

from datamodules.errors import UserError
from lit_rnn.class_paths import class_path, full_name, loaded, shorten, subclasses

Factory = Callable[..., Any] | Mapping[str, Any]


def build(factory: Factory, first: Any, base: type) -> Any:
    """An object of the subclass of ``base`` that `to_primitives` sees in a factory; ``first`` is its first argument.

    Raises:
        UserError: if it names anything else, which is not called then.
    """
    spec = to_primitives(factory, base.__name__, base) or {}
    return _class(spec, base.__name__, base)(first, **spec.get("init_args", {}))


def options_of(spec: Mapping[str, Any]) -> dict[str, Any]:
    """The options that a {class_path, init_args} stands for, its class's defaults included."""
    parameters = inspect.signature(_class(spec, "A class", object)).parameters.values()
    defaults = {
        parameter.name: parameter.default for parameter in parameters if parameter.default is not parameter.empty
    }
    return {**defaults, **spec.get("init_args", {})}


def to_primitives(factory: Any, key: str, base: type) -> dict[str, Any] | None:
    """The {class_path, init_args} of a class or a `functools.partial` of one, so that checkpoints hold primitives only.

    Of a {class_path, init_args} with a short name the one in full, as `full_name` takes it from configs.

    Raises:
        UserError: for what is no subclass of ``base``, or any other callable, which a checkpoint could not name.
    """
    if factory is None:
        return None
    if isinstance(factory, Mapping):
        named = dict(factory)
        if isinstance(named.get("class_path"), str):
            named["class_path"] = full_name(named["class_path"], base)
        _class(named, key, base)
        return named
    arguments: dict[str, Any] = {}
    target = factory
    if isinstance(factory, functools.partial) and not factory.args:
        target, arguments = factory.func, factory.keywords
    primitive = all(isinstance(value, bool | int | float | str | tuple | list | None) for value in arguments.values())
    if isinstance(target, type) and issubclass(target, base) and primitive:
        return {"class_path": class_path(target), "init_args": dict(arguments)}
    raise UserError(
        f"{key} is {shorten(factory)}, but it must be a subclass of torch's {base.__name__}, "
        "functools.partial(Class, option=value), or {'class_path': ..., 'init_args': {...}}, options plain values: a "
        "checkpoint cannot keep anything else."
    )


def _class(spec: Mapping[str, Any], key: str, base: type) -> type[Any]:
    name, arguments = spec.get("class_path"), spec.get("init_args", {})
    cls = loaded(name, base)
    if cls is None or not isinstance(arguments, Mapping):
        raise UserError(
            f"{key} is {shorten(name)}, but it must name a subclass of torch's {base.__name__} whose module is "
            f"imported, with its options as init_args{_in_full(name, base)}."
        )
    return cls


def _in_full(name: object, base: type) -> str:
    """What a short name may mean that is somebody's own, or of several."""
    paths = dict.fromkeys(class_path(cls) for cls in subclasses(base) if cls.__name__ == name)
    return f" (did you mean {' or '.join(paths)}?)" if paths else ""
