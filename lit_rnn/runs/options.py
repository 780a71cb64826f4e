"""What options of a config say: their values by key, numbers that YAML reads as text, and which make no difference."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Mapping
from typing import Any

# Options of model and data that change neither what is measured nor what is learnt
PLACES = frozenset(
    ("seed", "root", "num_workers", "on_device", "verify", "backend", "checkpoint_every", "default_root_dir")
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
