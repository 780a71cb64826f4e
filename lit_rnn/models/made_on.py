"""The data that a checkpoint was made on, and how that of now differs from it."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from datamodules import SequenceDataModule, Task, UserError
from lit_rnn.class_paths import class_path, shorten


def note(data: object) -> dict[str, Any] | None:
    """What a checkpoint keeps of its data module; None where there is none of ours."""
    if not isinstance(data, SequenceDataModule):
        return None
    return {"class_path": class_path(type(data)), "init_args": data.definition(), "fingerprint": data.fingerprint()}


def differences(checkpoint: Mapping[str, Any], data: object, task: Task) -> dict[str, tuple[Any, Any]]:
    """By config key, what ``checkpoint`` was made on and what is there now: class, else options, files, the task.

    Empty for a checkpoint of a version that kept no note, or of a trainer without a data module.
    """
    was, now = checkpoint["lit_rnn"].get("data"), note(data)
    if not isinstance(was, Mapping):
        return {}
    if now is not None and was.get("class_path") != now["class_path"]:
        return {"data.class_path": (was.get("class_path"), now["class_path"])}
    kept = was.get("init_args")
    if now is not None and isinstance(kept, Mapping):
        found = _differing("data.init_args", kept, now["init_args"])
        if found:
            return found
    if now is not None and was.get("fingerprint", now["fingerprint"]) != now["fingerprint"]:
        return {"data.fingerprint": (was["fingerprint"], now["fingerprint"])}
    return _differing("task", checkpoint["hyper_parameters"]["task"], asdict(task))


def _differing(place: str, was: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Of what both have: an option that one of them lacks is of another version."""
    return {f"{place}.{key}": (was[key], now[key]) for key in now if key in was and was[key] != now[key]}


def refuse(found: Mapping[str, tuple[Any, Any]]) -> None:
    """Training that goes on does so on the same data.

    Raises:
        UserError: if there are any `differences`.
    """
    if found:
        raise UserError(
            f"{_told(found)}: training that goes on from a checkpoint does so on the same data; "
            "give that, or leave ckpt_path out."
        )


def warn(found: Mapping[str, tuple[Any, Any]], data: object) -> None:
    """Say in one warning that a checkpoint is measured on other ``data``, which may be what is wanted."""
    if found:
        drawn = isinstance(data, SequenceDataModule) and data.draws_splits
        trained_on = (
            " Their splits are drawn anew: sequences of the training may be among those that are measured, unless the "
            "data give the splits."
        )
        warnings.warn(f"{_told(found)}: the numbers are those of other data.{trained_on * drawn}", stacklevel=2)


def _told(found: Mapping[str, tuple[Any, Any]]) -> str:
    """All of them in half a sentence."""
    return " and ".join(
        f"what data reads has changed (its checksum is {shorten(now)}, but the checkpoint was made on {shorten(was)})"
        if key in ("data.init_args.contents", "data.fingerprint")  # no option of the user's
        else f"{key} is {shorten(now)}, but the checkpoint was made on {shorten(was)}"
        for key, (was, now) in found.items()
    )
