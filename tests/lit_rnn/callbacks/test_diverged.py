"""A loss that is no longer a number: exit status 1, one sentence, and nothing broken on disk."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch

from lit_rnn.callbacks import FiniteLoss, finite
from lit_rnn.runs.endings import DivergedError, is_diverged

pytestmark = pytest.mark.usefixtures("_no_pictures")

INFINITE = 3e38  # a rate whose first step takes the weights beyond float32


def unstable(lr: float, nonlinearity: str = "identity", **trainer: Any) -> dict[str, Any]:
    optimizer = {"class_path": "SGD", "init_args": {"lr": lr}}
    options = {"hidden_size": 8, "nonlinearity": nonlinearity, "optimizer": optimizer}
    sizes = {"length": 8, "train_samples": 32, "val_samples": 8, "batch_size": 8}
    return {
        "model": {"class_path": "VanillaRNN", "init_args": options},
        "data": {"class_path": "Adding", "init_args": sizes},
        "trainer": {"max_epochs": 50, **trainer},
    }


def one_step_epochs(**trainer: Any) -> dict[str, Any]:
    changes = unstable(INFINITE, **trainer)
    changes["data"]["init_args"]["train_samples"] = 8
    return changes


@pytest.mark.parametrize("nonlinearity", ["identity", "relu"])
def test_names_the_step_the_layers_and_the_checkpoint(cli: Any, config: Any, nonlinearity: str) -> None:
    done = cli("fit", "-c", config(**unstable(1e30, nonlinearity)), "--run_dir", "r")
    assert done.status == 1
    (line,) = done.err.splitlines()
    assert line.startswith("lit_rnn: ") and "Traceback" not in done.out
    assert re.search(r"\b(nan|inf)\b.* at step 2\b", line)
    for name in ("cells.0.recurrent.weight", "cells.0.input.weight", "decoder.weight", "decoder.bias"):
        assert re.search(rf"{re.escape(name)} \S+", line), name
    assert "no checkpoint" in line, "there was none after one step"
    assert [path.name for path in Path("r/checkpoints").iterdir()] == ["init.ckpt"], "where it began, no more"
    assert json.loads(Path("r/diverged.json").read_text())["said"] in line and is_diverged(Path("r"))
    again = cli("fit", "-c", config(**unstable(1e-3, max_epochs=1)), "--run_dir", "r", "--resume", "auto")
    assert again.status == 0 and not Path("r/diverged.json").exists()


@pytest.mark.parametrize("lr", [0.45, 2.0])
def test_what_is_on_disk_is_finite(cli: Any, config: Any, lr: float) -> None:
    """A slow blow-up, over some epochs: best and last are from before it, and last.ckpt is named."""
    path = config(**unstable(lr))
    done = cli("fit", "-c", path, "--run_dir", "r", "--model.lam", 1.15)
    assert done.status == 1
    (line,) = done.err.splitlines()
    step = int(re.search(r"at step (\d+)", line)[1])
    kept = [path for path in Path("r/checkpoints").glob("*.ckpt") if path.name != "init.ckpt"]
    assert bool(kept) == (str(Path("r/checkpoints/last.ckpt")) in line)
    if step > 4:
        assert {file.name for file in kept} == {"best.ckpt", "last.ckpt"}
    for file in kept:
        checkpoint = torch.load(file, weights_only=True)
        assert checkpoint["global_step"] < step
        assert all(torch.isfinite(tensor).all() for tensor in checkpoint["state_dict"].values()), file
        assert all(
            torch.isfinite(tensor).all()
            for state in checkpoint["optimizer_states"][0]["state"].values()
            for tensor in state.values()
            if isinstance(tensor, torch.Tensor)
        )


def test_a_gpu_tells_late_and_nothing_bad_is_saved(cli: Any, config: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same step, by its number, though the weights have gone on from it; and the same on disk."""
    path = config(**unstable(2.0, log_every_n_steps=4))
    soon = cli("fit", "-c", path, "--run_dir", "soon", "--model.lam", 1.15)
    monkeypatch.setattr(FiniteLoss, "_is_read_late", lambda _, loss: True)
    late = cli("fit", "-c", path, "--run_dir", "late", "--model.lam", 1.15)
    assert soon.status == late.status == 1
    told = [re.search(r"The loss is (\S+) (at step \d+)", done.err).groups() for done in (soon, late)]
    assert told[0] == told[1]
    kept = [sorted(file.name for file in Path(run, "checkpoints").glob("*.ckpt")) for run in ("soon", "late")]
    assert kept[0] == kept[1]
    for name in kept[0]:
        pair = [torch.load(Path(run, "checkpoints", name), weights_only=True)["state_dict"] for run in ("soon", "late")]
        assert all(torch.equal(pair[0][key], pair[1][key]) for key in pair[0])


@pytest.mark.filterwarnings("ignore:VanillaRNN starts with a linear growth")  # which is what the test is about
@pytest.mark.parametrize("optimizer", ["SGD", "Adam"])
def test_a_gradient_whose_squares_overflow_ends_a_run_that_learns_nothing(
    cli: Any, config: Any, optimizer: str
) -> None:
    """60 to the power of 8 is 2e14: the loss is near 1e27, a number; the gradient's squares are none in float32."""
    changes = unstable(1e-3, log_every_n_steps=4)
    changes["model"]["init_args"] |= {"lam": 60.0, "optimizer": {"class_path": optimizer, "init_args": {"lr": 1e-3}}}
    changes["trainer"] |= {"gradient_clip_val": 1.0} if optimizer == "SGD" else {}
    done = cli("fit", "-c", config(**changes), "--run_dir", "r")
    assert done.status == 1
    (line,) = done.err.splitlines()
    assert line.startswith(
        "lit_rnn: The norm of the gradient is no number at steps 4, 8, 12, so that nothing is learnt;"
    )
    began, last = (torch.load(Path("r/checkpoints", name), weights_only=True) for name in ("init.ckpt", "last.ckpt"))
    weights = [key for key in began["state_dict"] if key.startswith(("cells.", "decoder."))]
    moved = [(last["state_dict"][key] - began["state_dict"][key]).abs().max().item() for key in weights]
    assert len(moved) == 5 and max(moved) < 0.02 and is_diverged(Path("r"))


@pytest.mark.parametrize(("scaler", "bad"), [(None, [True, True, False] * 3), (object(), [True] * 9)])
def test_infinite_gradients_that_end_no_run(scaler: object, bad: list[bool]) -> None:
    """The next look finds a number, and the count begins again; or the loss is scaled until they are numbers."""
    model: Any = torch.nn.Linear(1, 1)
    trainer: Any = SimpleNamespace(log_every_n_steps=1, global_step=0, scaler=scaler)
    watch, optimizer = FiniteLoss(Path("none")), torch.optim.SGD(model.parameters())
    for infinite in bad:
        for parameter in model.parameters():
            parameter.grad = torch.full_like(parameter, 1e30 if infinite else 1.0)
        watch.on_before_optimizer_step(trainer, model, optimizer)


def test_losses_do_not_pile_up_on_a_gpu_where_nothing_is_logged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(finite, "MOST", 3)
    monkeypatch.setattr(FiniteLoss, "_is_read_late", lambda _, loss: True)
    trainer: Any = SimpleNamespace(log_every_n_steps=0, global_step=0)
    watch, model = FiniteLoss(Path("none")), cast(Any, torch.nn.Linear(1, 1))
    for step, loss in enumerate([1.0, 2.0, 3.0, math.inf, math.nan]):
        trainer.global_step = step
        watch.on_before_backward(trainer, model, torch.tensor(loss))
    trainer.global_step = 5
    with pytest.raises(DivergedError, match=r"^The loss is inf at step 4;"):
        watch.on_before_backward(trainer, model, torch.tensor(1.0))


def test_last_step_of_an_epoch(cli: Any, config: Any) -> None:
    """The weights turn to NaN by the epoch's last step: no loss of training has shown it when last.ckpt is due."""
    path = config(**one_step_epochs())
    done = cli("fit", "-c", path, "--run_dir", "r")
    assert done.status == 1, done
    for file in Path("r/checkpoints").glob("*.ckpt"):
        tensors = torch.load(file, weights_only=True)["state_dict"].values()
        assert all(torch.isfinite(tensor).all() for tensor in tensors), f"{file} holds what is no number"


def test_last_step_of_the_run(cli: Any, config: Any) -> None:
    """The same where the run ends there: it may not pass for a finished one."""
    path = config(**one_step_epochs(max_epochs=1))
    done = cli("fit", "-c", path, "--run_dir", "r")
    assert done.status == 1, done
    assert not Path("r/fit.json").exists()
    for file in Path("r/checkpoints").glob("*.ckpt"):
        tensors = torch.load(file, weights_only=True)["state_dict"].values()
        assert all(torch.isfinite(tensor).all() for tensor in tensors), f"{file} holds what is no number"


def test_last_step_of_a_run_that_is_not_validated(cli: Any, config: Any) -> None:
    """max_steps ends it in mid-epoch: no loss shows what the last step did, and last.ckpt would hold it."""
    done = cli("fit", "-c", config(**unstable(INFINITE, max_steps=1)), "--run_dir", "r")
    assert done.status == 1 and "The weights are no numbers after step 1; norms by layer" in done.err, done
    assert [path.name for path in Path("r/checkpoints").iterdir()] == ["init.ckpt"]


def test_debug_shows_the_traceback(cli: Any, config: Any) -> None:
    from lit_rnn.callbacks import DivergedError

    with pytest.raises(DivergedError):
        cli("fit", "-c", config(**unstable(1e30)), "--debug")


def test_gradient_accumulation_counts_optimizer_steps(cli: Any, config: Any) -> None:
    done = cli("fit", "-c", config(**unstable(1e30, accumulate_grad_batches=2)))
    assert done.status == 1 and "at step 2" in done.err


def test_a_run_that_diverged_can_be_taken_up_with_a_lower_rate(cli: Any, config: Any) -> None:
    path = config(**unstable(2.0))
    assert cli("fit", "-c", path, "--run_dir", "r", "--model.lam", 1.15).status == 1
    if not Path("r/checkpoints/last.ckpt").exists():
        done = cli("fit", "-c", path, "--run_dir", "r", "--ckpt_path", "last")
        assert done.status == 2 and "--resume auto" in done.err
