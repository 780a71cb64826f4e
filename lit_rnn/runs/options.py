"""What options of a config say: their values by key, numbers that YAML reads as text, and which make no difference."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from lit_rnn.files import read_yaml
from lit_rnn.runs.folder import damaged_configs, newest_config, numbered

# Options of model and data that change neither what is measured nor what is learnt
PLACES = frozenset(
    ("seed", "root", "num_workers", "on_device", "verify", "backend", "checkpoint_every", "default_root_dir")
)
# Those of data that name files of the user's own: a run keeps a fingerprint of what is in them
FILES = frozenset(("files", "val_files", "test_files", "path", "val_path", "test_path"))
# Options of the Trainer of which 1 is one batch, and 1.0 all of them
COUNTS_OR_SHARES = frozenset(
    (
        "limit_train_batches",
        "limit_val_batches",
        "limit_test_batches",
        "limit_predict_batches",
        "overfit_batches",
        "val_check_interval",
    )
)
# Those of the Trainer
TRAINER = frozenset(
    (
        "default_root_dir",
        "logger",
        "enable_progress_bar",
        "enable_model_summary",
        "enable_checkpointing",
        "log_every_n_steps",
        "accelerator",
        "devices",  # how many processes there are is told apart
        "num_nodes",
        "strategy",
        "num_sanity_val_steps",
        "profiler",
    )
)


def makes_a_difference(key: str) -> bool:
    """Whether runs that differ in this option, by its dotted key, are different runs."""
    section, _, option = key.partition(".")
    names = option.split(".")
    return PLACES.isdisjoint(names) and (section != "trainer" or names[0] not in TRAINER)


def number(given: Any) -> float | None:
    """A finite number, which YAML reads as text where it has no point: 1e-3. None of anything else."""
    with contextlib.suppress(TypeError, ValueError, OverflowError):
        if not isinstance(given, bool) and math.isfinite(found := float(given)):
            return found
    return None


def section(config: Mapping[str, Any], key: str) -> dict[str, Any]:
    """The mapping under ``key``; empty where there is none, or a class's name alone."""
    found = config.get(key)
    return found if isinstance(found, dict) else {}


def listed(value: Any) -> list[Any]:
    """What a config gives where one thing or a list of them may stand: each; none for null."""
    return value if isinstance(value, list) else [] if value is None else [value]


def walk(value: Any, key: str) -> Iterator[tuple[str, Any]]:
    """Every value inside a value, by dotted key; items of a list have the list's key."""
    yield key, value
    if isinstance(value, Mapping):
        for name, item in value.items():
            yield from walk(item, f"{key}.{name}" if key else str(name))
    elif isinstance(value, list):
        for item in value:
            yield from walk(item, key)


def flat(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """Every value of a config that is no mapping with something in it, by dotted key.

    Args:
        key: Where ``value`` stands.
    """
    if isinstance(value, Mapping) and value:
        for name, item in value.items():
            yield from flat(item, f"{key}.{name}" if key else str(name))
    else:
        yield key, value


def without(value: Any, keys: frozenset[str]) -> Any:
    """What a config holds, without the options of these names, at any depth."""
    if isinstance(value, Mapping):
        return {str(key): without(item, keys) for key, item in value.items() if key not in keys}
    return [without(item, keys) for item in value] if isinstance(value, list) else value


def said_before(run: Path) -> tuple[dict[str, Any], ...]:
    """What earlier configs of a run, which was resumed with another, said otherwise; its limits may well be raised."""
    left_out = PLACES | TRAINER | {"max_epochs", "max_steps", "max_time"}

    def told(path: Path) -> dict[str, Any]:
        config = read_yaml(path, "config")
        parts = {key: config.get(key) for key in ("model", "data", "trainer")} if isinstance(config, dict) else {}
        return dict(flat(without(parts, left_out)))

    newest, damaged = newest_config(run), damaged_configs(run)
    earlier = [path for path in numbered(run, "config.yaml") if path not in (newest, *damaged)]
    now = told(newest) if newest is not None and earlier else {}
    differing = [{key: value for key, value in told(path).items() if now.get(key, value) != value} for path in earlier]
    return tuple(one for one in differing if one)
