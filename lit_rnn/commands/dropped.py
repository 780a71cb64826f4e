"""What the parser would drop without a word.

Keys that are none, above a mapping that holds nothing, are refused; options of a class whose place another one took are
warned of, since most of a config still holds for another model.
"""

from __future__ import annotations

import ast
import contextlib
import itertools
import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from jsonargparse import Namespace
from pytorch_lightning import Callback
from pytorch_lightning.loggers import Logger
from pytorch_lightning.utilities import rank_zero_warn

from datamodules.errors import UserError
from lit_rnn.class_paths import arguments_of, loaded
from lit_rnn.files import parse_yaml
from lit_rnn.runs.config import read_config
from lit_rnn.runs.options import listed, walk

Dropped = tuple[str, str | None]  # a key, and the class whose option it would be, if it would be one's


def empty_mappings(arguments: Sequence[str]) -> list[dict[str, Any]]:
    """Of the configs and options of a command line, those in which a mapping holds nothing."""
    found = []
    for option, value in itertools.pairwise(arguments):
        given: dict[str, Any] = {}
        if option == "--config":
            given = read_config(Path(value))
        elif option.startswith("--") and "{" in value:
            with contextlib.suppress(UserError):  # a text, such as a folder's name
                given = {option.removeprefix("--"): parse_yaml(value, option)}
        if given and any(isinstance(part, Mapping) and not part for _, part in walk(given, "")):
            found.append(given)
    return found


def dropped(given: Any, parsed: Any, key: str = "") -> Iterator[Dropped]:
    """The keys of ``given`` that are not in ``parsed``, under which there is no value, or none but empty mappings.

    The parser refuses other keys that it does not know. Options of a class that another config replaced are left out.

    Args:
        given: What one config says under ``key``.
        parsed: What all of them come to there, defaults included.
        key: Dotted.
    """
    for one in (one for one in listed(given) if isinstance(one, Mapping)):
        there = [place for place in listed(parsed) if isinstance(place, Namespace | dict) and _fits(one, place)]
        yield from min((list(_dropped_in(one, place, key)) for place in there), key=len, default=[])


def _fits(one: Mapping[str, Any], place: Any) -> bool:
    """Whether a mapping speaks of this place: of several in a list, and of one that may have another class by now."""
    named = one.get("class_path")
    return named is None or str(named).rpartition(".")[2] == str(place.get("class_path")).rpartition(".")[2]


def _dropped_in(one: Mapping[str, Any], place: Any, key: str) -> Iterator[Dropped]:
    for name, value in one.items():
        first, _, rest = str(name).removesuffix("+").partition(".")
        value = {rest: value} if rest else value
        path, parts = (f"{key}.{first}" if key else first), vars(place) if isinstance(place, Namespace) else place
        if "class_path" in parts and first not in ("class_path", "init_args", "dict_kwargs"):  # short, as in an option
            yield from _dropped_in({"init_args": {first: value}}, place, key)
        elif first == "init_args":
            for lost, cls in dropped(value, parts.get(first) or Namespace(), path):
                yield lost, cls or (parts["class_path"] if lost.rpartition(".")[0] == path else None)
        elif first in parts:
            yield from dropped(value, parts[first], path)
        elif isinstance(place, Namespace) and first != "dict_kwargs" and _is_empty(value):
            yield path, None


def _is_empty(value: Any) -> bool:
    return isinstance(value, Mapping) and all(_is_empty(inner) for inner in value.values())


class LeftOut(logging.Filter):
    """Warns of what the parser's log calls discarded, once all is parsed: it parses most things more than once."""

    _DISCARDED = re.compile(r"Due to class_path change from '(.+?)' to '(.+?)', discarding init_args: (\{.+\})\.", re.S)

    def __init__(self) -> None:
        super().__init__()
        self._sentences: dict[str, None] = {}  # in order, each once

    def filter(self, record: logging.LogRecord) -> bool:
        """Keep what is discarded, and let nothing through."""
        found = self._DISCARDED.fullmatch(record.getMessage())
        in_a_list = found and any(loaded(found[1], kind) for kind in (Callback, Logger))  # which is replaced as a whole
        if found and not in_a_list:
            old, new = (path.rpartition(".")[2] for path in found.groups()[:2])
            if chosen := " and ".join(_chosen(found[3], loaded(found[1], object))):
                self._sentences.setdefault(f"{new} does not take {chosen}, which {old} was given: left out.")
        return False

    @contextlib.contextmanager
    def told(self) -> Iterator[None]:
        """Around the parse of what is run: one that prints the config leaves by SystemExit."""
        self._sentences.clear()
        yield
        for sentence in self._sentences:
            rank_zero_warn(sentence)


def _chosen(options: str, cls: type | None) -> list[str]:
    """The names in a text ``{'forget_bias': 2.0, 'init': 'plain'}`` whose values are not the defaults of ``cls``.

    A run's config.yaml holds defaults too, which nobody will miss.
    """
    try:
        given = ast.parse(options, mode="eval").body
    except SyntaxError:  # what a value prints as need not be Python's
        return [options]
    assert isinstance(given, ast.Dict)
    takes = arguments_of(cls) if cls else {}
    names = []
    for key, value in zip(given.keys, given.values, strict=True):
        name = ast.literal_eval(key) if key else ""
        with contextlib.suppress(ValueError):  # a Namespace, which is no default
            if name in takes and _listed(ast.literal_eval(value)) == _listed(takes[name].default):
                continue
        names.append(name)
    return names


def _listed(value: Any) -> Any:
    """A tuple as the list that YAML has for it."""
    return list(value) if isinstance(value, tuple) else value
