"""A resume with other options of optimizer, scheduler or rates: applied and told, or refused in a sentence."""

from __future__ import annotations

import contextlib
import functools
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.optim import SGD, Adam, RMSprop

from datamodules import CopyMemory, UserError
from lit_rnn.models import FullURNN, NnRNN, VanillaRNN
from lit_rnn.optim import RiemannianRMSprop
from lit_rnn.runs.folder import kept_code
from tests.trainers import quiet_trainer

pytestmark = [
    pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty"),
    pytest.mark.usefixtures("_no_pictures"),
]
OPTIMIZER = "--model.init_args.optimizer.init_args"
SCHEDULER = "--model.init_args.lr_scheduler.init_args"
RESUME = ("fit", "--run_dir", "r", "--ckpt_path", "last", "--trainer.max_epochs")


def exprnn(optimizer: Any = None, lr_scheduler: Any = None, **options: Any) -> dict[str, Any]:
    optimizer = optimizer or {"class_path": "Adam", "init_args": {"lr": 0.01}}
    given = {"hidden_size": 6, "optimizer": optimizer, **options}
    if lr_scheduler:
        given["lr_scheduler"] = lr_scheduler
    return {"class_path": "ExpRNN", "init_args": given}


STEP = {"class_path": "StepLR", "init_args": {"step_size": 1, "gamma": 0.5}}
PLATEAU = {
    "class_path": "pytorch_lightning.cli.ReduceLROnPlateau",
    "init_args": {"monitor": "val/loss", "patience": 0, "factor": 0.5, "threshold": 1e9},  # nothing is ever better
}


def last(folder: str = "r") -> dict[str, Any]:
    kept: dict[str, Any] = torch.load(f"{folder}/checkpoints/last.ckpt", weights_only=True)
    return kept


def groups(folder: str = "r") -> dict[str, dict[str, Any]]:
    (state,) = last(folder)["optimizer_states"]
    return {group["name"]: group for group in state["param_groups"]}


def rates(folder: str = "r") -> tuple[float, float]:
    return groups(folder)["recurrent"]["lr"], groups(folder)["other"]["lr"]


def test_a_scheduler_that_the_checkpoint_has_not_is_refused(cli: Any, config: Any, refused: Any) -> None:
    assert cli("fit", "-c", config(model=exprnn()), "--run_dir", "r", "--trainer.max_epochs", 1).status == 0
    again = ("fit", "-c", config(model=exprnn(lr_scheduler=STEP)), "--run_dir", "r", "--ckpt_path", "last")
    assert "lr_scheduler is 'StepLR', but it must be left out, as in the checkpoint." in refused(*again, leaves=True)


def test_the_issues_own_case(cli: Any, config: Any) -> None:
    """The same as a checkpoint in which the rate is written by hand: moments are kept, weights move at the new rate."""
    assert cli("fit", "-c", config(model=exprnn()), "--run_dir", "r", "--trainer.max_epochs", 1).status == 0
    by_hand = last()
    for group, lr in zip(by_hand["optimizer_states"][0]["param_groups"], (1e-5, 1e-4), strict=True):
        group["lr"] = lr
    by_hand["hyper_parameters"]["optimizer"]["init_args"]["lr"] = 1e-4
    torch.save(by_hand, "by_hand.ckpt")
    before = last()["state_dict"]
    done = cli(*RESUME, 2, f"{OPTIMIZER}.lr", 1e-4)
    assert done.status == 0
    assert "resumed with model.init_args.optimizer.init_args.lr 0.0001 (was 0.01)" in done.out
    assert rates() == pytest.approx((1e-5, 1e-4))
    assert any("lr: 0.0001" in file.read_text() for file in Path("r").glob("config-*.yaml"))
    path = config(model=exprnn({"class_path": "Adam", "init_args": {"lr": 1e-4}}))
    again = cli("fit", "-c", path, "--run_dir", "s", "--ckpt_path", "by_hand.ckpt", "--trainer.max_epochs", 2)
    assert again.status == 0 and "resumed with" not in again.out
    ours, theirs = last()["state_dict"], last("s")["state_dict"]
    assert all(torch.equal(tensor, theirs[key]) for key, tensor in ours.items())
    moved = max((ours[key] - before[key]).abs().max().item() for key in ours if key.startswith(("cells", "decoder")))
    assert 0 < moved < 1e-3, "four steps of Adam at 1e-4"
    assert last()["hyper_parameters"]["optimizer"]["init_args"]["lr"] == 1e-4


@pytest.mark.parametrize(
    ("arguments", "key", "values"),
    [
        ((f"{OPTIMIZER}.weight_decay", 0.1), "weight_decay", (0.0, 0.1)),  # none on the generator
        ((f"{OPTIMIZER}.betas", "[0.5, 0.9]"), "betas", ((0.5, 0.9), (0.5, 0.9))),
        ((f"{OPTIMIZER}.eps", 1e-4), "eps", (1e-4, 1e-4)),
        (("--model.init_args.recurrent_lr_ratio", 0.5), "lr", (0.005, 0.01)),
    ],
)
def test_options_of_the_optimizer(cli: Any, config: Any, arguments: tuple[Any, ...], key: str, values: Any) -> None:
    assert cli("fit", "-c", config(model=exprnn()), "--run_dir", "r", "--trainer.max_epochs", 1).status == 0
    before = groups()
    assert cli(*RESUME, 2, *arguments).status == 0
    after = groups()
    assert np.array_equal([after[name][key] for name in ("recurrent", "other")], values)
    for name, group in after.items():
        unchanged = set(group) - {key, "lr_ratio"}
        assert {other: group[other] for other in unchanged} == {other: before[name][other] for other in unchanged}


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ((f"{SCHEDULER}.gamma", 0.1), 0.01 * 0.1**3),
        ((f"{SCHEDULER}.step_size", 2), 0.01 * 0.5),
        ((f"{OPTIMIZER}.lr", 1e-3), 1e-3 * 0.5**3),
        ((f"{OPTIMIZER}.lr", 1e-3, f"{SCHEDULER}.gamma", 0.1), 1e-6),
    ],
)
def test_a_schedule_is_followed_as_if_it_had_always_been(
    cli: Any, config: Any, arguments: tuple[Any, ...], expected: float
) -> None:
    """Two epochs, changed, one more."""
    assert cli("fit", "-c", config(model=exprnn(lr_scheduler=STEP)), "--run_dir", "r").status == 0
    assert rates() == pytest.approx((0.01 * 0.1 / 4, 0.01 / 4))
    assert cli(*RESUME, 3, *arguments).status == 0
    assert rates() == pytest.approx((expected / 10, expected))
    (schedule,) = last()["lr_schedulers"]
    assert schedule["last_epoch"] == 3 and schedule["_last_lr"] == list(rates())


def test_one_cycle(cli: Any, config: Any) -> None:
    """The top after one epoch, and from there half a cosine down to 0 in four: half the top after three."""
    options = {"max_lr": 0.01, "total_steps": 6, "pct_start": 1 / 3, "final_div_factor": 1e9, "cycle_momentum": False}
    cycle = {"class_path": "OneCycleLR", "init_args": options}
    model = exprnn(lr_scheduler=cycle, lr_scheduler_interval="epoch")
    assert cli("fit", "-c", config(model=model), "--run_dir", "r").err == ""
    quarter = 0.005 * (1 + 0.5**0.5)
    assert rates() == pytest.approx((quarter / 10, quarter))
    assert cli(*RESUME, 3, f"{SCHEDULER}.max_lr", 0.1).status == 0
    assert rates() == pytest.approx((0.005, 0.05))


def test_one_cycle_by_steps(cli: Any, config: Any, refused: Any) -> None:
    """The top after 8 of 20 steps; half of it after 14, halfway down to 0."""
    options = {"max_lr": 0.01, "total_steps": 21, "pct_start": 9 / 21, "final_div_factor": 1e9, "cycle_momentum": False}
    model = exprnn(lr_scheduler={"class_path": "OneCycleLR", "init_args": options})
    assert cli("fit", "-c", config(model=model), "--run_dir", "r").status == 0
    assert rates() == pytest.approx((0.001, 0.01))
    sentence = refused(*RESUME, 3, "--model.init_args.lr_scheduler_interval", "epoch")
    assert "lr_scheduler_interval is 'epoch', but it must be step, as in the checkpoint" in sentence
    assert cli(*RESUME, 4, f"{SCHEDULER}.max_lr", 0.1, "--trainer.max_steps", 14).status == 0
    assert rates() == pytest.approx((0.005, 0.05))


def test_a_checkpoint_from_before_there_were_intervals(cli: Any, config: Any, refused: Any) -> None:
    """Every scheduler was stepped by epochs then: others than OneCycleLR and CyclicLR go on as they are."""
    cycle = {"class_path": "CyclicLR", "init_args": {"base_lr": 0.01, "max_lr": 0.1}}
    for scheduler, interval in ((STEP, None), (cycle, "epoch")):
        shutil.rmtree("r", ignore_errors=True)
        model = exprnn(lr_scheduler=scheduler, lr_scheduler_interval=interval)
        assert cli("fit", "-c", config(model=model), "--run_dir", "r", "--trainer.max_epochs", 1).status == 0
        checkpoint = torch.load("r/checkpoints/last.ckpt", weights_only=True)
        del checkpoint["hyper_parameters"]["lr_scheduler_interval"]
        torch.save(checkpoint, "r/checkpoints/last.ckpt")
        if interval is not None:
            sentence = refused(*RESUME, 2, "--model.init_args.lr_scheduler_interval", "null")
            assert "lr_scheduler_interval is 'step', but it must be epoch, as in the checkpoint" in sentence
        assert cli(*RESUME, 2).status == 0


def test_what_watches_a_metric_keeps_what_it_saw(cli: Any, config: Any) -> None:
    """Halved twice, then ten times the rate and a tenth of it at the next epoch."""
    assert cli("fit", "-c", config(model=exprnn(lr_scheduler=PLATEAU)), "--run_dir", "r").status == 0
    assert rates() == pytest.approx((0.00025, 0.0025))
    (seen,) = last()["lr_schedulers"]
    assert cli(*RESUME, 3, f"{SCHEDULER}.factor", 0.1, f"{OPTIMIZER}.lr", 0.1).status == 0
    assert rates() == pytest.approx((0.00025, 0.0025))
    (schedule,) = last()["lr_schedulers"]
    assert schedule["factor"] == 0.1 and schedule["best"] == seen["best"] and schedule["last_epoch"] == 3
    assert cli(*RESUME, 4).status == 0
    assert rates() == pytest.approx((0.000025, 0.00025))


def test_options_of_a_groups_own_optimizer(cli: Any, config: Any) -> None:
    own = {"recurrent": {"class_path": "Adagrad", "init_args": {"lr": 0.02}}}
    path = config(model=exprnn(group_optimizers=own, lr_scheduler=STEP))
    assert cli("fit", "-c", path, "--run_dir", "r", "--trainer.max_epochs", 1).status == 0
    assert cli(*RESUME, 2, "--model.init_args.group_optimizers.recurrent.init_args.lr", 0.1).status == 0
    assert rates() == pytest.approx((0.1 / 4, 0.01 / 4))


def test_options_of_the_model_are_applied_and_told(cli: Any, config: Any) -> None:
    model = {"class_path": "NnRNN", "init_args": {"hidden_size": 6, "gain_penalty": 0.1}}
    assert cli("fit", "-c", config(model=model), "--run_dir", "r", "--trainer.max_epochs", 1).status == 0
    done = cli(*RESUME, 2, "--model.init_args.gain_penalty", 0.0, "--model.init_args.upper_decay", 0.5)
    assert done.status == 0 and "model.init_args.gain_penalty 0.0 (was 0.1)" in done.out
    assert groups()["upper"]["weight_decay"] == 0.5
    assert last()["hyper_parameters"]["gain_penalty"] == 0.0


@pytest.mark.filterwarnings("ignore:ExponentialLR does not take step_size")  # of the run's StepLR
@pytest.mark.parametrize(
    ("optimizer", "scheduler", "arguments", "words"),
    [
        (None, None, (f"{OPTIMIZER}.amsgrad", "true"), ("optimizer.init_args.amsgrad is true", "false as before")),
        (
            {"class_path": "RMSprop"},
            None,
            (f"{OPTIMIZER}.momentum", 0.9),
            ("optimizer.init_args.momentum is 0.9", "from the first step"),
        ),
        (
            {"class_path": "RMSpropTF"},
            None,
            (f"{OPTIMIZER}.initial_accumulator", 0.5),
            ("initial_accumulator is 0.5", "1.0 as before"),
        ),
        (None, None, ("--model.init_args.optimizer", "SGD"), ("model.init_args.optimizer is 'SGD'", "Adam")),
        (
            None,
            STEP,
            ("--model.init_args.lr_scheduler", "{class_path: ExponentialLR, init_args: {gamma: 0.5}}"),
            ("lr_scheduler is 'ExponentialLR'", "StepLR"),
        ),
        (None, STEP, ("--model.init_args.lr_scheduler", "null"), ("lr_scheduler is null", "StepLR")),
        (
            None,
            None,
            ("--model.init_args.lr_scheduler", "{class_path: ExponentialLR, init_args: {gamma: 0.5}}"),
            ("lr_scheduler is 'ExponentialLR'", "left out"),
        ),
        (
            None,
            None,
            ("--model.init_args.group_optimizers", "{recurrent: {class_path: SGD}}"),
            ("group_optimizers.recurrent is 'SGD'", "left out"),
        ),
        (None, PLATEAU, (f"{SCHEDULER}.monitor", "train/loss"), ("monitor is 'train/loss'", "'val/loss' as before")),
    ],
)
def test_what_has_no_meaning_is_refused(
    cli: Any, refused: Any, config: Any, optimizer: Any, scheduler: Any, arguments: tuple[Any, ...], words: Any
) -> None:
    path = config(model=exprnn(optimizer, scheduler))
    assert cli("fit", "-c", path, "--run_dir", "r", "--trainer.max_epochs", 1).status == 0
    sentence = refused(*RESUME, 2, *arguments)
    assert all(word in sentence for word in words), sentence


def test_a_test_of_the_weights_may_name_another_optimizer(cli: Any, config: Any) -> None:
    assert cli("fit", "-c", config(model=exprnn()), "--run_dir", "r").status == 0
    assert cli("test", "--run_dir", "r", "--ckpt_path", "best", "--model.init_args.optimizer", "SGD").status == 0


# ---- in Python


def fit(model: Any, folder: Path, epochs: int, ckpt_path: Any = None) -> Path:
    trainer = quiet_trainer(max_epochs=epochs)
    data = CopyMemory(delay=5, train_samples=32, val_samples=8, batch_size=8)
    trainer.fit(model, datamodule=data, ckpt_path=ckpt_path, weights_only=True)
    trainer.save_checkpoint(folder / f"{epochs}.ckpt")
    return folder / f"{epochs}.ckpt"


TASK = CopyMemory(delay=5).task


def test_resumed_in_python(tmp_path: Path) -> None:
    """A class's default that is not given counts as given."""
    first = fit(VanillaRNN(TASK, 6, optimizer=functools.partial(SGD, lr=0.1)), tmp_path, 1)
    model = VanillaRNN(TASK, 6, optimizer=functools.partial(SGD, lr=0.1, weight_decay=0.2, momentum=0.9))
    second = torch.load(fit(model, tmp_path, 2, first), weights_only=True)
    assert model.changed_options == {
        "model.init_args.optimizer.init_args.weight_decay": (0, 0.2),
        "model.init_args.optimizer.init_args.momentum": (0, 0.9),
    }
    assert {group["weight_decay"] for group in second["optimizer_states"][0]["param_groups"]} == {0.2}
    with pytest.raises(UserError, match=r"^model\.init_args\.optimizer is 'Adam', but it must be SGD"):
        fit(VanillaRNN(TASK, 6, optimizer=Adam), tmp_path, 3, first)


def test_a_checkpoint_from_before_optimizers_were_named(tmp_path: Path) -> None:
    """None was the class's default: nothing has changed."""
    first = fit(NnRNN(TASK, 6), tmp_path, 1)
    kept = torch.load(first, weights_only=True)
    assert kept["hyper_parameters"]["optimizer"]["class_path"] == "torch.optim.RMSprop"
    kept["hyper_parameters"]["optimizer"] = None
    del kept["hyper_parameters"]["group_optimizers"]
    torch.save(kept, tmp_path / "old.ckpt")
    model = NnRNN(TASK, 6, optimizer=functools.partial(RMSprop, lr=1e-3))
    fit(model, tmp_path, 2, tmp_path / "old.ckpt")
    assert model.changed_options == {}


def test_fullurnns_default_of_before_is_named(tmp_path: Path) -> None:
    first = fit(FullURNN(TASK, 6, optimizer=functools.partial(RiemannianRMSprop, lr=1e-3)), tmp_path, 1)
    kept = torch.load(first, weights_only=True)
    kept["hyper_parameters"]["optimizer"] = None
    torch.save(kept, tmp_path / "old.ckpt")
    with pytest.raises(UserError, match=r"optimizer is 'RiemannianAdam', but it must be RiemannianRMSprop"):
        fit(FullURNN(TASK, 6), tmp_path, 2, tmp_path / "old.ckpt")
    fit(FullURNN(TASK, 6, optimizer=RiemannianRMSprop), tmp_path, 2, tmp_path / "old.ckpt")


def test_code_of_the_users_own_that_changed_is_told(cli: Any, config: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(Path.cwd())
    monkeypatch.setitem(sys.modules, "own_lstm", None)  # type: ignore[arg-type]  # to be forgotten in the end
    own = {"class_path": "own_lstm.Own", "init_args": {"hidden_size": 4}}
    told = "^own_lstm changed since the run in r was last begun: its further steps are of the new code"
    for epochs, warned in ((1, contextlib.nullcontext()), (2, pytest.warns(UserWarning, match=told))):
        Path("own_lstm.py").write_text(f"from lit_rnn.models import LSTM\n\n\nclass Own(LSTM):\n    {epochs}\n")
        del sys.modules["own_lstm"]
        with warned:
            line = ("--run_dir", "r", "--resume", "auto", "--trainer.max_epochs", epochs)
            assert cli("fit", "-c", config(model=own), *line).status == 0
    begun = [code["own_lstm"] for code in kept_code(Path("r"))]
    assert len(begun) == 2 and begun[0] != begun[1]
