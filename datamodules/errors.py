"""The one exception that means: the user gave something that cannot work."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from numbers import Integral
from typing import Any


class UserError(Exception):
    """Bad input, told in one sentence: what was given, what is accepted, which key or file to change.

    The command line prints the sentence and exits with status 2; ``--debug`` shows the traceback.
    """


class BadBatchError(UserError):
    """Data that is not what its Task says, found by the process that got it, and told by that one."""


def require(ok: bool, key: str, given: object, accepted: str) -> None:
    """Raise `UserError` naming the config ``key`` unless ``ok``."""
    if not ok:
        raise UserError(f"{key} is {as_in_yaml(given)}, but it must be {accepted}.")


def one_of(given: object, key: str, accepted: Iterable[str]) -> None:
    """Raise `UserError` unless it is one of these names."""
    require(given in (names := list(accepted)), key, given, f"one of {', '.join(names)}")


def whole(given: Any, key: str, least: int = 0) -> int:
    """A whole number of at least ``least``, also one of NumPy; a bool is none."""
    require(_is_whole(given, least), key, given, f"a whole number of at least {least}")
    return int(given)


def as_seed(given: Any, key: str = "seed") -> int:
    """A whole number from 0 to 2^63 - 1, which torch's generators take."""
    require(_is_whole(given, 0) and given < 2**63, key, given, "a whole number of at least 0, below 2^63")
    return int(given)


def whole_or_null(given: Any, key: str, least: int) -> None:
    """Raise `UserError` unless it is None or what `whole` takes."""
    require(given is None or _is_whole(given, least), key, given, f"null or a whole number of at least {least}")


def _is_whole(given: Any, least: int) -> bool:
    return not isinstance(given, bool) and isinstance(given, Integral) and int(given) >= least


def number(given: Any, key: str, accepted: str, fits: Callable[[float], bool]) -> float:
    """A number that ``fits``, also one of NumPy or torch; a bool is none, and NaN, which all else is, fits nothing."""
    try:
        value = math.nan if isinstance(given, bool) else float(given)
    except (TypeError, ValueError, RuntimeError, OverflowError):
        value = math.nan
    require(fits(value), key, given, accepted)
    return value


def as_in_yaml(value: object) -> str:
    """A value in a sentence or a table: ``true``, ``false`` and ``null`` as in a config, else as Python writes it."""
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else repr(value)


def one_line(text: object) -> str:
    """A text, such as another library's error, with all white space folded, to stand in a sentence."""
    return " ".join(str(text).split())


def printable(text: str) -> str:
    """The text with escapes for what would move a terminal's cursor: names in it may come from files."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def chain(error: BaseException | None, hidden: bool = False) -> Iterator[BaseException]:
    """An error, what it was raised from, and so on, each once: what is behind an error can lead back to it.

    Args:
        error: The one that was raised last.
        hidden: Also what ``from None`` hides.
    """
    seen: list[BaseException] = []
    while error is not None and not any(error is one for one in seen):
        seen.append(error)
        yield error
        error = error.__cause__ or (error.__context__ if hidden or not error.__suppress_context__ else None)


def held(content: object) -> str:
    """That a file is empty, or what it holds, for a sentence."""
    return "is empty" if content is None else f"holds {'a list' if isinstance(content, list) else repr(content)[:60]}"


def did_you_mean(given: str, accepted: Iterable[str]) -> str:
    """`` (did you mean NAME?)`` where a name is like what was given, upper and lower case alike; else nothing."""
    import difflib  # only for refusals

    names = {name.lower(): name for name in accepted}
    near = difflib.get_close_matches(given.lower(), names, n=1)
    return f" (did you mean {names[near[0]]}?)" if near else ""
