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


def with_other(module: nn.Module, **groups: Sequence[nn.Parameter]) -> dict[str, Sequence[nn.Parameter]]:
    """These groups, and the parameters of ``module`` that are in none of them as ``other``."""
    taken = {id(parameter) for group in groups.values() for parameter in group}
    return {**groups, "other": [parameter for parameter in module.parameters() if id(parameter) not in taken]}


def split_off(
    checkpoint: dict[str, Any],
    module: nn.Module,
    now: Mapping[str, Sequence[nn.Parameter]],
    name: str,
    of: str,
    options: Mapping[str, Any],
) -> None:
    """Put a group ``name`` before the group ``of`` into a checkpoint that was made when it was a part of that.

    Args:
        checkpoint: Lightning's; the states of optimizers and schedulers are changed in place, where there are any.
        module: The model.
        now: Its groups.
        name: The new group's.
        of: That of the old one, which had its parameters in the module's order.
        options: Optimizer options of the new one, where they are not those of the old one.
    """
    new, old = ({id(parameter) for parameter in now[one]} for one in (name, of))
    moved = [id(parameter) in new for parameter in module.parameters() if id(parameter) in new | old]
    for saved in checkpoint.get("optimizer_states", ()):
        groups = saved["param_groups"]
        names = [group.get("name") for group in groups]
        place = names.index(of) if of in names else 0
        if name in names or len(groups[place]["params"]) != len(moved):  # of another network: for others to refuse
            continue
        theirs, rest = (
            [number for number, move in zip(groups[place]["params"], moved, strict=True) if move == wanted]
            for wanted in (True, False)
        )
        groups.insert(place, {**groups[place], "name": name, "params": theirs, **options})
        groups[place + 1]["params"] = rest
        for schedule in checkpoint.get("lr_schedulers", ()):
            for value in schedule.values():
                by_group = isinstance(value, list) and len(value) == len(names)
                if by_group and all(isinstance(number, int | float) for number in value):
                    value.insert(place, value[place])
