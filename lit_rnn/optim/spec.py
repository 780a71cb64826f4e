"""Optimizers and schedulers as {class_path, init_args}: what a config says and a checkpoint keeps."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any

from datamodules.errors import UserError
from lit_rnn.class_paths import class_path, import_class

Factory = Callable[..., Any] | Mapping[str, Any]


def build(factory: Factory, first: Any) -> Any:
    """Call a factory, or the class that a {class_path, init_args} mapping names, with ``first`` as first argument."""
    if isinstance(factory, Mapping):
        return import_class(factory["class_path"])(first, **factory.get("init_args", {}))
    return factory(first)


def options_of(spec: Mapping[str, Any]) -> dict[str, Any]:
    """The options that a {class_path, init_args} stands for, its class's defaults included."""
    parameters = inspect.signature(import_class(spec["class_path"])).parameters.values()
    defaults = {
        parameter.name: parameter.default for parameter in parameters if parameter.default is not parameter.empty
    }
    return {**defaults, **spec.get("init_args", {})}


def to_primitives(factory: Any, key: str) -> Any:
    """The {class_path, init_args} of a class or a `functools.partial` of one, so that checkpoints hold primitives only.

    Raises:
        UserError: for any other callable, which a checkpoint could not name.
    """
    if factory is None or isinstance(factory, Mapping):
        return factory
    arguments: dict[str, Any] = {}
    target = factory
    if isinstance(factory, functools.partial) and not factory.args:
        target, arguments = factory.func, factory.keywords
    primitive = all(isinstance(value, bool | int | float | str | tuple | list | None) for value in arguments.values())
    if isinstance(target, type) and primitive:
        return {"class_path": class_path(target), "init_args": dict(arguments)}
    raise UserError(
        f"{key} is {factory!r}, but it must be a class, functools.partial(Class, option=value), or "
        "{'class_path': ..., 'init_args': {...}}, options plain values: a checkpoint cannot keep anything else."
    )
