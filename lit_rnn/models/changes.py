"""Options that a resume changes: checked, told, and put over the optimizer and the scheduler that a checkpoint holds.

What an option does is not written down here a second time. Optimizer and scheduler are built with the options that the
checkpoint was made with and with those of now, both are stepped as often as the checkpoint's, and what differs
between the two replaces what the checkpoint says; so a changed schedule is followed as if the run had always had it.
All else is restored bit for bit.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from lightning_fabric.utilities.data import AttributeDict
from torch.optim import Optimizer, RMSprop
from torch.optim.lr_scheduler import ReduceLROnPlateau

from datamodules.errors import as_in_yaml, require
from lit_rnn import optim

if TYPE_CHECKING:
    from lit_rnn.models.training import Training

Options = Mapping[str, Any]
_KEY = "model.init_args"
# what was gathered so far is of one kind or the other, or began in one way or the other
_FROM_THE_START = ("amsgrad", "apart", "centered", "initial_accumulator", "initial_accumulator_value")
_APART = ("task", "group_optimizers", "lr_scheduler_interval")  # compared in their own ways
_WATCHING = (f"{_KEY}.lr_scheduler.init_args.monitor", f"{_KEY}.lr_scheduler.init_args.mode")


class _Built(NamedTuple):
    optimizer: Optimizer
    scheduler: Any


def _made_with(model: Training, kept: Options) -> dict[str, Any]:
    """A checkpoint's options, with those of now where it comes from before an option was there."""
    return {
        **model.hparams,
        "group_optimizers": None,
        "lr_scheduler_interval": "epoch" if kept.get("lr_scheduler") else None,  # before there was a choice
        **kept,
        "optimizer": kept["optimizer"] or model.unnamed_optimizer or model.default_optimizer,
    }


def _specs(options: Options) -> dict[str, Any]:
    """What is {class_path, init_args} or None, by config key."""
    own = {f"group_optimizers.{name}": spec for name, spec in (options["group_optimizers"] or {}).items()}
    return {"optimizer": options["optimizer"], "lr_scheduler": options["lr_scheduler"], **own}


def _flat(value: Any, key: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping) and value:
        for name, item in value.items():
            yield from _flat(item, f"{key}.{name}")
    else:
        yield key, list(value) if isinstance(value, tuple) else value


def changed_options(model: Training, kept: Options) -> dict[str, tuple[Any, Any]]:
    """By config key, what the option was in the checkpoint and what it is now; the task and classes are left out."""
    both = []
    for options in (_made_with(model, kept), model.hparams):
        plain = {key: value for key, value in options.items() if key in model.hparams}
        plain = {key: value for key, value in plain.items() if key not in _APART}
        specs = {key: {"init_args": optim.options_of(spec)} for key, spec in _specs(options).items() if spec}
        both.append(dict(_flat({**plain, **specs}, _KEY)))
    was, now = both
    return {key: (was.get(key), value) for key, value in now.items() if was.get(key) != value}


def check(model: Training, kept: Options) -> None:
    """Refuse to go on training from a checkpoint made with the options ``kept`` where that has no meaning.

    Raises:
        UserError: for another optimizer or scheduler, or an option that counts from the first step on.
    """
    was, now = (
        {key: spec["class_path"].rpartition(".")[2] for key, spec in _specs(options).items() if spec}
        for options in (_made_with(model, kept), model.hparams)
    )
    for key in {**now, **was}:
        held = f"{was[key]}, whose state the checkpoint holds" if key in was else "left out, as in the checkpoint"
        require(now.get(key) == was.get(key), f"{_KEY}.{key}", now.get(key), held)
    before, after = (
        optim.interval_of(options["lr_scheduler"], options["lr_scheduler_interval"])
        for options in (_made_with(model, kept), model.hparams)
    )
    why = f"{before}, as in the checkpoint: the scheduler has counted them"
    require(before == after, f"{_KEY}.lr_scheduler_interval", after, why)
    changed = changed_options(model, kept)
    for key, (old, new) in changed.items():
        require(key not in _WATCHING, key, new, f"{as_in_yaml(old)} as before: the best so far is measured by it")
    if not changed:
        return
    old, new = _build(model, _made_with(model, kept)).optimizer, _build(model, model.hparams).optimizer
    parts = getattr(new, "parts", [new] * len(new.param_groups))
    for part, a, b in zip(parts, old.param_groups, new.param_groups, strict=True):
        for key in set(b) - {"params"}:
            starts = key == "momentum" and a.get(key) == 0 and isinstance(part, RMSprop)  # it has no buffer yet
            if (starts or key in _FROM_THE_START) and a.get(key) != b[key]:
                named = [path for path in changed if path.endswith(f".{key}")]
                require(
                    False,
                    named[0] if named else key,
                    b[key],
                    f"{as_in_yaml(a.get(key))} as before: it counts from the first step on",
                )


def apply(model: Training, checkpoint: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Put changed options over the states of optimizer and scheduler in ``checkpoint``, before they are restored.

    Returns:
        `changed_options`.

    Raises:
        UserError: as `check`.
    """
    kept = checkpoint["hyper_parameters"]
    check(model, kept)
    changed = changed_options(model, kept)
    if not changed:
        return changed
    (saved,), schedules = checkpoint["optimizer_states"], checkpoint["lr_schedulers"]
    count = schedules[0]["last_epoch"] if schedules else 0
    before, after = _build(model, _made_with(model, kept), count), _build(model, model.hparams, count)
    watching = isinstance(after.scheduler, ReduceLROnPlateau)
    for group, a, b in zip(
        saved["param_groups"], before.optimizer.param_groups, after.optimizer.param_groups, strict=True
    ):
        rate = group["lr"]
        _replace(group, a, b)
        if watching and a["lr"] != b["lr"]:  # what it was lowered by is history, not an option
            group["lr"] = rate * b["lr"] / a["lr"] if a["lr"] else b["lr"]
    for schedule in schedules:
        _replace(schedule, before.scheduler.state_dict(), after.scheduler.state_dict())
        schedule["_last_lr"] = [group["lr"] for group in saved["param_groups"]]
    return changed


def _replace(saved: dict[str, Any], before: Options, after: Options) -> None:
    for key, value in after.items():
        if key != "params" and (key not in before or before[key] != value):
            saved[key] = value


def _build(model: Training, options: Options, count: int = 0) -> _Built:
    """The optimizer and the scheduler that ``options`` stand for, after so many steps of the scheduler."""
    now, model._hparams = model.hparams, AttributeDict(options)
    try:
        built = model.configure_optimizers()
    finally:
        model._hparams = now
    if isinstance(built, Optimizer):
        return _Built(built, None)
    optimizer, scheduler = built["optimizer"], built["lr_scheduler"]["scheduler"]
    if not isinstance(scheduler, ReduceLROnPlateau):
        optimizer._opt_called = True  # no training here, and no warning that there was none
        for _ in range(count):
            scheduler.step()
    return _Built(optimizer, scheduler)
