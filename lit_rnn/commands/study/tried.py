"""Every value of a study, built once in its arm before the first run starts."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from datamodules.errors import UserError
from lit_rnn.commands.study.search.space import short, text
from lit_rnn.commands.study.subject import Run, Setting
from lit_rnn.runs.options import walk

# Raises what `fit` would with these arguments, if it ran here or not; gives its whole config, and how many parameters
TryOut = Callable[[Sequence[str], bool], tuple[Mapping[str, Any], int]]


def check(try_out: TryOut, runs: Sequence[Run], folder: Path, here: bool) -> dict[str, list[int]]:
    """Refuse what any run would be refused for, before the first starts: every value is tried once in its arm.

    Returns:
        By arm, how many trainable parameters a model has.
    """
    sizes: dict[str, list[int]] = {}
    seen: set[tuple[str, str, str]] = set()
    meanings: dict[tuple[str, str], dict[str, str]] = {}
    for one in runs:
        setting = one.setting
        values = {(setting.arm, key, text(value)) for key, value in setting.values} or {(setting.arm, "", "")}
        if not values <= seen:
            try:
                config, parameters = try_out(
                    [*one.arguments(), "--run_dir", str(folder / one.name), "--threads", "1"], here
                )
            except UserError as error:
                raise UserError(f"run {one.name}: {error}") from error
            _refuse_spellings(setting, config, meanings)
            sizes.setdefault(setting.arm, []).append(parameters)
        seen |= values
    return sizes


def in_words(sizes: Mapping[str, Sequence[int]]) -> str:
    """``gru 15,243; lstm 10,494 to 16,043``."""
    told = []
    for arm, found in sizes.items():
        ends = dict.fromkeys(f"{size:,}" for size in (min(found), max(found)))
        told.append(f"{arm} {' to '.join(ends)}")
    return "; ".join(told)


def _refuse_spellings(
    setting: Setting, config: Mapping[str, Any], meanings: dict[tuple[str, str], dict[str, str]]
) -> None:
    """Refuse a value that the whole config takes for another one of its key, as 1e-1 for 0.1.

    Args:
        config: What the setting comes to.
        meanings: By arm and key, the texts of the values so far by what they come to; this one is added.
    """
    for key, value in setting.values:
        told = meanings.setdefault((setting.arm, key), {})
        if text(value) in told.values():
            continue
        if key == "config":  # an overlay, which is all that these settings differ in
            meant = {name: part for name, part in config.items() if name not in ("config", "run_dir")}
        else:
            meant = next((part for name, part in walk(config, "") if short(name) == short(key)), value)
        first = told.setdefault(json.dumps(meant, sort_keys=True, default=str), text(value))
        if first != text(value):
            raise UserError(
                f"{key} has the values {first} and {text(value)}, which mean the same, so that one setting would be "
                f"trained twice in {setting.arm}: leave one of them out."
            )
