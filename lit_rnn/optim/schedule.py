"""Any torch scheduler, with the ratios between the groups' rates kept over the whole schedule."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

import torch
from torch import nn
from torch.optim import SGD, Optimizer
from torch.optim.lr_scheduler import CyclicLR, LRScheduler, OneCycleLR, ReduceLROnPlateau

from datamodules.errors import UserError, require
from lit_rnn.class_paths import loaded
from lit_rnn.optim.spec import build

KEY = "model.init_args.lr_scheduler"
Interval = Literal["epoch", "step"]
NOT_PLAIN = ("LambdaLR", "MultiplicativeLR", "SequentialLR", "ChainedScheduler")
_REFUSALS = (TypeError, ValueError, KeyError, IndexError, ArithmeticError, AttributeError)
_RATES = ("base_lr", "max_lr", "min_lr", "swa_lr")


def interval_of(spec: Mapping[str, Any] | None, asked: Interval | None) -> Interval:
    """When the scheduler of a {class_path, init_args} is stepped: as asked, else as torch means it.

    torch's documentation steps `OneCycleLR` and `CyclicLR` after every batch, and the others after every epoch.

    Raises:
        UserError: for an interval without a scheduler, and for steps of a scheduler that watches an epoch's metric.
    """
    key = f"{KEY}_interval"
    require(
        asked is None or asked in get_args(Interval), key, asked, f"one of {', '.join(get_args(Interval))}, or null"
    )
    if spec is None:
        require(asked is None, key, asked, "left out where there is no lr_scheduler")
        return "epoch"
    cls = loaded(spec.get("class_path"), LRScheduler) or LRScheduler
    watches = issubclass(cls, ReduceLROnPlateau)
    require(
        not (watches and asked == "step"), key, asked, f"epoch for {cls.__name__}, which watches a metric of epochs"
    )
    return asked or ("step" if issubclass(cls, OneCycleLR | CyclicLR) else "epoch")


def build_scheduler(spec: Mapping[str, Any], optimizer: Optimizer) -> Any:
    """The scheduler that a {class_path, init_args} names; what it does to one group's rate it does to all.

    It moves the group ``other`` (else the last one) and the others follow at the ratios that the rates have here. So
    ``max_lr``, ``eta_min`` and the like are rates of that group; most schedulers of torch would give them to all.
    Where momentum is cycled, a group with ``betas`` takes it as the first of them.

    Raises:
        UserError: for a scheduler made of functions or other schedulers, which no checkpoint keeps, a list of rates,
            and whatever the scheduler itself refuses, also at a step.
    """
    name, options = str(spec["class_path"]).rpartition(".")[2], spec.get("init_args", {})
    require(
        name not in NOT_PLAIN,
        KEY,
        name,
        "a scheduler whose options are plain values, because a checkpoint keeps nothing else: put this one's options "
        "into the __init__ of a subclass",
    )
    for key in _RATES:
        given = options.get(key)
        require(
            not isinstance(given, list | tuple),
            f"{KEY}.init_args.{key}",
            given,
            "one number: the groups' rates keep their ratios, which recurrent_lr_ratio and group_optimizers set",
        )
    ratios = ratios_of(optimizer)
    try:
        scheduler: Any = build(spec, optimizer, LRScheduler)
    except _REFUSALS as error:
        raise UserError(f"{KEY} cannot be built: {str(error).rstrip('.')}.") from error
    try:
        _try_out(spec, optimizer.param_groups)
    except _REFUSALS as error:
        raise UserError(f"{KEY} ({name}) cannot be used with {options}: {str(error).rstrip('.')}.") from error
    cls: Any = type(scheduler)
    scheduler.__class__ = _keeping_ratios(cls)
    scheduler.lr_ratios = ratios
    _follow(scheduler, "lr", "initial_lr", *_RATES)
    return scheduler


def _try_out(spec: Mapping[str, Any], groups: Sequence[Mapping[str, Any]]) -> None:
    """Step a scheduler of a {class_path, init_args} twice: some divide by an option then.

    Its optimizer has one number to train in place of each group's parameters.
    """
    kept = [{key: value for key, value in group.items() if key not in ("params", "initial_lr")} for group in groups]
    numbers = [{**group, "params": [nn.Parameter(torch.zeros(1))]} for group in kept]
    optimizer = SGD(numbers, lr=1.0, momentum=0.5)
    scheduler = build(spec, optimizer, LRScheduler)
    for _ in range(2):
        optimizer.step()
        try:
            scheduler.step(*([1.0] if isinstance(scheduler, ReduceLROnPlateau) else []))
        except ValueError:  # a cycle of one step is over
            return


def ratios_of(optimizer: Optimizer) -> list[float]:
    """The rates of the groups over that of the one that is scheduled, which has ratio 1."""
    groups = optimizer.param_groups
    rates = [float(group["lr"]) for group in groups]
    named = [number for number, group in enumerate(groups) if group.get("name") == "other"]
    leading = rates[named[0] if named else -1] or max(rates)
    return [rate / leading if leading else 1.0 for rate in rates]


@functools.cache
def _keeping_ratios(cls: Any) -> Any:
    class KeepingRatios(cls):
        def step(self, *args: Any, **kwargs: Any) -> None:
            try:
                super().step(*args, **kwargs)
            except _REFUSALS as error:  # one cycle is over, say
                raise UserError(f"{KEY} ({cls.__name__}) cannot go on: {str(error).rstrip('.')}.") from error
            _follow(self, "lr")

    return KeepingRatios


def _follow(scheduler: Any, *keys: str) -> None:
    groups = scheduler.optimizer.param_groups
    leading = groups[scheduler.lr_ratios.index(1.0)]
    for group, ratio in zip(groups, scheduler.lr_ratios, strict=True):
        for key in keys:
            if key in leading:
                group[key] = leading[key] * ratio
        if getattr(scheduler, "cycle_momentum", False) and not scheduler.use_beta1 and "betas" in group:
            group["betas"] = (group["momentum"], *group["betas"][1:])
    scheduler._last_lr = [group["lr"] for group in groups]
