"""Every scheduler of torch keeps the ratios of the groups' rates over its whole schedule, or is refused."""

from __future__ import annotations

import functools
import io
import math
from typing import Any

import pytest
import torch
from torch.optim import SGD, Adagrad, Adam, RMSprop, lr_scheduler

from datamodules import CopyMemory, UserError
from lit_rnn.models import ExpRNN, ScuRNN
from lit_rnn.optim import build_optimizer, build_scheduler, interval_of
from tests.lit_rnn.conftest import rows

EPOCHS = 12
SCHEDULERS: dict[str, dict[str, Any]] = {
    "StepLR": {"step_size": 3, "gamma": 0.5},
    "MultiStepLR": {"milestones": [2, 5], "gamma": 0.3},
    "ConstantLR": {"factor": 0.5, "total_iters": 4},
    "LinearLR": {"start_factor": 0.1, "total_iters": 6},
    "ExponentialLR": {"gamma": 0.9},
    "PolynomialLR": {"total_iters": 8, "power": 2.0},
    "CosineAnnealingLR": {"T_max": 6, "eta_min": 1e-3},
    "CosineAnnealingWarmRestarts": {"T_0": 3, "T_mult": 2, "eta_min": 1e-3},
    "CyclicLR": {"base_lr": 1e-3, "max_lr": 0.1, "step_size_up": 3, "mode": "triangular2"},
    "OneCycleLR": {"max_lr": 0.1, "total_steps": EPOCHS, "three_phase": True},
    "ReduceLROnPlateau": {"factor": 0.1, "patience": 1, "min_lr": 1e-3},
    "SWALR": {"swa_lr": 0.002, "anneal_epochs": 5},
}
REFUSED = {"LambdaLR", "MultiplicativeLR", "SequentialLR", "ChainedScheduler"}
MODULES = {"SWALR": "torch.optim.swa_utils"}
each_scheduler = pytest.mark.parametrize("name", SCHEDULERS)


def spec(name: str, **changes: Any) -> dict[str, Any]:
    module = MODULES.get(name, "torch.optim.lr_scheduler")
    return {"class_path": f"{module}.{name}", "init_args": {**SCHEDULERS.get(name, {}), **changes}}


def groups(*names: str) -> list[dict[str, Any]]:
    return [{"name": name, "params": [torch.nn.Parameter(torch.ones(2))]} for name in names]


def one(factory: Any = SGD) -> torch.optim.Optimizer:
    """recurrent at a tenth of the rate."""
    recurrent, other = groups("recurrent", "other")
    return build_optimizer([{**recurrent, "lr_ratio": 0.1}, other], functools.partial(factory, lr=0.01))


def several() -> torch.optim.Optimizer:
    """Rates 0.01, 0.002, 0.05 of three kinds; Adagrad has neither momentum nor betas."""
    own = {"recurrent": functools.partial(Adam, lr=0.002), "phase": functools.partial(Adagrad, lr=0.05)}
    return build_optimizer(groups("recurrent", "phase", "other"), functools.partial(SGD, lr=0.01, momentum=0.9), own)


OPTIMIZERS = {"one": (one, [0.1, 1.0]), "several": (several, [0.2, 5.0, 1.0])}
each_optimizer = pytest.mark.parametrize("kind", OPTIMIZERS)


def rates(optimizer: torch.optim.Optimizer) -> list[float]:
    return [group["lr"] for group in optimizer.param_groups]


def step(optimizer: torch.optim.Optimizer, scheduler: Any) -> None:
    for group in optimizer.param_groups:
        group["params"][0].grad = torch.ones(2)
    optimizer.step()
    scheduler.step(1.0) if isinstance(scheduler, lr_scheduler.ReduceLROnPlateau) else scheduler.step()


def curve(optimizer: torch.optim.Optimizer, scheduler: Any, epochs: int = EPOCHS - 1) -> list[list[float]]:
    seen = [rates(optimizer)]
    for _ in range(epochs):
        step(optimizer, scheduler)
        seen.append(rates(optimizer))
    return seen


def test_none_is_forgotten() -> None:
    known = {
        name
        for name, cls in vars(lr_scheduler).items()
        if isinstance(cls, type) and issubclass(cls, lr_scheduler.LRScheduler) and cls is not lr_scheduler.LRScheduler
    }
    assert known - {"_LRScheduler"} | {"SWALR"} == set(SCHEDULERS) | REFUSED


@each_optimizer
@each_scheduler
def test_ratios_over_a_whole_schedule(name: str, kind: str) -> None:
    """The leading group has the curve that torch gives a single group, all others a multiple of it."""
    build, ratios = OPTIMIZERS[kind]
    optimizer = build()
    ours = curve(optimizer, build_scheduler(spec(name), optimizer))
    alone = SGD([torch.nn.Parameter(torch.ones(2))], lr=0.01, momentum=0.9)
    cls = getattr(torch.optim.swa_utils if name in MODULES else lr_scheduler, name)
    theirs = curve(alone, cls(alone, **SCHEDULERS[name]))
    for at, expected in zip(ours, theirs, strict=True):
        assert at == pytest.approx([expected[0] * ratio for ratio in ratios], rel=1e-12)
    assert len({round(at[0], 12) for at in theirs}) > 1, "the rate never moved"


def test_one_cycle_in_numbers() -> None:
    """max_lr / 25 at the start and max_lr at the top, a tenth of it for the group with ratio 0.1."""
    optimizer = one()
    scheduler = build_scheduler(spec("OneCycleLR", three_phase=False, pct_start=0.25), optimizer)
    seen = curve(optimizer, scheduler)
    assert seen[0] == pytest.approx([0.0004, 0.004]) and seen[2] == pytest.approx([0.01, 0.1])
    assert seen[-1] == pytest.approx([0.004e-5, 0.004e-4])
    assert scheduler.get_last_lr() == seen[-1]


def test_a_floor_is_the_leading_groups() -> None:
    optimizer = one()
    assert min(curve(optimizer, build_scheduler(spec("CosineAnnealingLR"), optimizer))) == pytest.approx([1e-4, 1e-3])


@each_optimizer
@each_scheduler
def test_a_saved_schedule_goes_on(name: str, kind: str) -> None:
    build, _ = OPTIMIZERS[kind]
    whole = build()
    expected = curve(whole, build_scheduler(spec(name), whole))
    first = build()
    scheduler = build_scheduler(spec(name), first)
    seen = curve(first, scheduler, 4)
    file = io.BytesIO()
    torch.save((first.state_dict(), scheduler.state_dict()), file)
    file.seek(0)
    optimizer_state, state = torch.load(file, weights_only=True)
    second = build()
    again = build_scheduler(spec(name), second)
    second.load_state_dict(optimizer_state)
    again.load_state_dict(state)
    assert seen + curve(second, again, EPOCHS - 5)[1:] == expected


@pytest.mark.parametrize("name", ["CyclicLR", "OneCycleLR"])
def test_momentum_is_cycled_where_there_is_one(name: str) -> None:
    optimizer = several()
    scheduler = build_scheduler(spec(name), optimizer)
    adam, adagrad, sgd = optimizer.param_groups
    start = sgd["momentum"]
    for _ in range(EPOCHS - 1):
        assert adam["betas"] == (sgd["momentum"], 0.999) and "betas" not in adagrad
        step(optimizer, scheduler)
        assert sgd["momentum"] < start or start == sgd["max_momentum"]
    assert 0.8 <= sgd["momentum"] <= 0.95


@pytest.mark.parametrize("name", ["CyclicLR", "OneCycleLR"])
def test_no_momentum_to_cycle_is_one_sentence(name: str) -> None:
    for optimizer in (one(Adagrad), build_optimizer(groups("other"), Adagrad, {"other": Adagrad})):
        with pytest.raises(UserError, match=r"^model\.init_args\.lr_scheduler cannot be built: .*cycle_momentum"):
            build_scheduler(spec(name), optimizer)
        curve(optimizer, build_scheduler(spec(name, cycle_momentum=False), optimizer))


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_functions_and_schedulers_inside_are_refused(name: str) -> None:
    with pytest.raises(UserError, match=rf"^model\.init_args\.lr_scheduler is '{name}', but .*plain values[^\n]*\.$"):
        build_scheduler(spec(name), one())


@pytest.mark.parametrize(
    ("name", "key"),
    [("OneCycleLR", "max_lr"), ("CyclicLR", "base_lr"), ("SWALR", "swa_lr"), ("ReduceLROnPlateau", "min_lr")],
)
def test_a_list_of_rates_is_refused(name: str, key: str) -> None:
    with pytest.raises(UserError, match=rf"init_args\.{key} is \[0\.1, 0\.2\], but it must be one number"):
        build_scheduler(spec(name, **{key: [0.1, 0.2]}), one())


def test_a_cycle_that_is_over_is_one_sentence() -> None:
    optimizer = one()
    scheduler = build_scheduler(spec("OneCycleLR"), optimizer)
    with pytest.raises(UserError, match=r"^model\.init_args\.lr_scheduler \(OneCycleLR\) cannot go on: .*12\.$"):
        curve(optimizer, scheduler, EPOCHS + 2)


def test_a_wrong_option_is_one_sentence() -> None:
    with pytest.raises(UserError, match=r"^model\.init_args\.lr_scheduler cannot be built: .*'steps'"):
        build_scheduler(spec("StepLR", steps=1), one())


def test_a_rate_of_zero_stays_zero() -> None:
    recurrent, other = groups("recurrent", "other")
    frozen = build_optimizer([{**recurrent, "lr_ratio": 0.0}, other], SGD)
    assert {at[0] for at in curve(frozen, build_scheduler(spec("OneCycleLR"), frozen))} == {0.0}
    rest = build_optimizer(groups("recurrent", "other"), functools.partial(SGD, lr=0.0), {"recurrent": RMSprop})
    seen = curve(rest, build_scheduler(spec("StepLR"), rest))
    assert [at[1] for at in seen] == [0.0] * EPOCHS and seen[-1][0] == pytest.approx(0.01 / 8)


def test_of_a_model() -> None:
    """The issue's own case, and three optimizers."""
    task = CopyMemory(delay=5).task
    cycle = functools.partial(lr_scheduler.OneCycleLR, max_lr=0.1, total_steps=5)
    built = ExpRNN(task, 6, recurrent_lr_ratio=0.1, lr_scheduler=cycle).configure_optimizers()
    groups = {group["name"]: group for group in built["optimizer"].param_groups}
    for _ in range(4):
        assert groups["recurrent"]["lr"] == pytest.approx(groups["other"]["lr"] / 10)
        built["optimizer"].step()
        built["lr_scheduler"]["scheduler"].step()
    own = {"recurrent": functools.partial(RMSprop, lr=1e-4), "phase": functools.partial(Adagrad, lr=1e-5)}
    built = ScuRNN(
        task, 6, optimizer=functools.partial(Adam, lr=1e-3), group_optimizers=own, lr_scheduler=cycle
    ).configure_optimizers()
    groups = {group["name"]: group for group in built["optimizer"].param_groups}
    assert math.isclose(groups["other"]["lr"], 0.004)
    assert groups["recurrent"]["lr"] == pytest.approx(4e-4) and groups["phase"]["lr"] == pytest.approx(4e-5)


@each_scheduler
def test_when_it_is_stepped(name: str) -> None:
    """torch's documentation steps these two after every batch."""
    assert interval_of(spec(name), None) == ("step" if name in ("OneCycleLR", "CyclicLR") else "epoch")
    assert interval_of(spec(name), "epoch") == "epoch"
    if name == "ReduceLROnPlateau":
        with pytest.raises(
            UserError, match=r"lr_scheduler_interval is 'step', but it must be epoch for ReduceLROnPlat"
        ):
            interval_of(spec(name), "step")
    else:
        assert interval_of(spec(name), "step") == "step"


def test_intervals_that_are_none() -> None:
    task = CopyMemory(delay=5).task
    with pytest.raises(UserError, match=r"lr_scheduler_interval is 'batch', but it must be null or epoch or step\.$"):
        ExpRNN(task, 6, lr_scheduler=lr_scheduler.OneCycleLR, lr_scheduler_interval="batch")  # type: ignore[arg-type]
    with pytest.raises(UserError, match=r"^model\.init_args\.lr_scheduler_interval is 'step'.* no lr_scheduler\.$"):
        ExpRNN(task, 6, lr_scheduler_interval="step")


@pytest.mark.usefixtures("_no_pictures")
def test_by_steps_on_the_command_line(cli: Any, config: Any) -> None:
    """The rate of every step, with two batches accumulated for each, is torch's own; a decay by steps too."""
    warm = {"class_path": "LinearLR", "init_args": {"start_factor": 0.25, "total_iters": 3}}
    adam = {"class_path": "Adam", "init_args": {"lr": 0.01}}
    options = {"hidden_size": 6, "optimizer": adam, "lr_scheduler": warm, "lr_scheduler_interval": "step"}
    path = config(model={"class_path": "ExpRNN", "init_args": options})
    assert cli("fit", "-c", path, "--run_dir", "r", "--trainer.accumulate_grad_batches", 2).status == 0
    rates = [float(row["lr-Adam/other"]) for row in rows("r") if "lr-Adam/other" in row]
    assert list(dict.fromkeys(rates)) == pytest.approx([0.0025, 0.005, 0.0075, 0.01]), "four steps in eight batches"


@pytest.mark.usefixtures("_no_pictures")
def test_on_the_command_line(cli: Any, config: Any) -> None:
    """In metrics.csv, and the parser still knows the scheduler by its short name afterwards."""
    cycle = {"class_path": "CyclicLR", "init_args": {"base_lr": 0.01, "max_lr": 0.1, "step_size_up": 1}}
    options = {"hidden_size": 6, "lr_scheduler": cycle, "lr_scheduler_interval": "epoch"}
    model = {"class_path": "ExpRNN", "init_args": options}
    for folder in ("a", "b"):
        assert cli("fit", "-c", config(model=model), "--run_dir", folder).status == 0
    found = [row for row in rows("b") if "lr-RMSprop/other" in row]
    assert [float(row["lr-RMSprop/other"]) for row in found] == pytest.approx([0.01, 0.1])
    assert [float(row["lr-RMSprop/recurrent"]) for row in found] == pytest.approx([0.001, 0.01])


@pytest.mark.parametrize(("name", "changes"), [("StepLR", {"step_size": 0}), ("CosineAnnealingLR", {"T_max": 0})])
def test_options_that_a_scheduler_divides_by_at_a_step(name: str, changes: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=rf"lr_scheduler \({name}\) cannot be used with .*{next(iter(changes))}"):
        build_scheduler(spec(name, **changes), one())


def test_a_cycle_of_one_step_is_no_fault() -> None:
    optimizer = one()
    assert build_scheduler(spec("OneCycleLR", total_steps=1), optimizer).total_steps == 1
