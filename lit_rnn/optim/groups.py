"""Named parameter groups that are a partition of the parameters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn


def named_groups(module: nn.Module, groups: Mapping[str, Sequence[nn.Parameter]]) -> list[dict[str, Any]]:
    """Optimizer groups {"name", "params"}, the empty ones left out.

    Raises:
        RuntimeError: if they are not a partition: a parameter of ``module`` is in no group, or in two.
    """
    names = {id(parameter): name for name, parameter in module.named_parameters()}
    counts = dict.fromkeys(names, 0)
    for parameters in groups.values():
        for parameter in parameters:
            counts[id(parameter)] = counts.get(id(parameter), 0) + 1
    wrong = [f"{names.get(key, 'a foreign tensor')} ({count} times)" for key, count in counts.items() if count != 1]
    if wrong:
        raise RuntimeError(f"Optimizer groups must hold each parameter exactly once, but: {', '.join(wrong)}.")
    return [{"name": name, "params": list(parameters)} for name, parameters in groups.items() if parameters]
