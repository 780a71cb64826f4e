"""A run stopped after any step and taken up again equals the uninterrupted run bit for bit."""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from lit_rnn.__main__ import main
from lit_rnn.models import SequenceModel
from tests.forked import Forked
from tests.lit_rnn.conftest import rows, tree
from tests.lit_rnn.runs.kills import differences, flat

ADAM = {"class_path": "Adam", "init_args": {"lr": 0.01}}
MODELS: dict[str, dict[str, Any]] = {
    "ExpRNN": {"class_path": "ExpRNN", "init_args": {"hidden_size": 8, "optimizer": ADAM}},
    "DtrivRNN": {
        "class_path": "DtrivRNN",
        "init_args": {"hidden_size": 8, "rebase_every": 3, "project_every": 2, "optimizer": ADAM},
    },
    "LSTM": {
        "class_path": "LSTM",
        "init_args": {
            "hidden_size": 6,
            "layers": 2,
            "optimizer": ADAM,
            "lr_scheduler": {"class_path": "StepLR", "init_args": {"step_size": 1, "gamma": 0.5}},
        },
    },
}
PLATEAU = {"class_path": "pytorch_lightning.cli.ReduceLROnPlateau", "init_args": {"monitor": "val/loss", "patience": 0}}
CYCLE = {"class_path": "OneCycleLR", "init_args": {"max_lr": 0.02, "total_steps": 13}}
VARIANTS: dict[str, dict[str, Any]] = {
    **{name: {"model": model} for name, model in MODELS.items()},
    "worker": {"data": {"init_args": {"num_workers": 1}}},
    "reuse": {"data": {"init_args": {"reuse": True}}},
    "digits": {"data": {"class_path": "PixelDigits", "init_args": {"batch_size": 350, "val_size": 180}}},
    "accumulated": {"model": MODELS["DtrivRNN"], "trainer": {"accumulate_grad_batches": 2, "max_epochs": 4}},
    "plateau": {
        "model": {"class_path": "ExpRNN", "init_args": {"hidden_size": 8, "optimizer": ADAM, "lr_scheduler": PLATEAU}},
    },
    "validated within epochs": {"trainer": {"val_check_interval": 2}},
    "one cycle": {
        "model": {"class_path": "ExpRNN", "init_args": {"hidden_size": 8, "optimizer": ADAM, "lr_scheduler": CYCLE}},
    },
}
EPOCHS = {"trainer": {"max_epochs": 3}}  # of 4 steps
# the first step, inside epochs, at the ends of two
STOPS = [("DtrivRNN", step) for step in (1, 3, 4, 6, 8, 11)] + [("LSTM", step) for step in (1, 4, 6)] + [("ExpRNN", 6)]

# says so at every resume; `test_a_resume_warns_of_nothing` holds it to account
pytestmark = [
    pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty"),
    pytest.mark.usefixtures("_no_pictures"),
]


def state(folder: str | Path) -> dict[str, Any]:
    """All that a run's last.ckpt says about what comes next."""
    checkpoint = torch.load(Path(folder) / "checkpoints" / "last.ckpt", weights_only=True)
    wanted = ("state_dict", "optimizer_states", "lr_schedulers", "epoch", "global_step")
    kept = {key: checkpoint[key] for key in wanted}
    kept["optimizer_steps"] = checkpoint["lit_rnn"]["optimizer_steps"]
    kept["loader"] = checkpoint["loops"]["fit_loop"]["state_dict"]["combined_loader"]
    (best,) = (value for key, value in checkpoint["callbacks"].items() if key.startswith("ModelCheckpoint"))
    kept["best"] = best["best_model_score"]
    return dict(flat(kept))


Whole = Callable[[str], Path]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, write_tiny: Any) -> Whole:
    """The uninterrupted run of a variant, made once."""
    made: dict[str, Path] = {}

    def run(variant: str) -> Path:
        if variant not in made:
            folder = tmp_path_factory.mktemp("whole")
            write_tiny(folder / "c.yaml", EPOCHS, VARIANTS[variant])
            assert main(["fit", "-c", str(folder / "c.yaml"), "--run_dir", str(folder / "run")]) == 0
            made[variant] = folder
        return made[variant]

    return run


def compare(whole: Path, resumed: str) -> None:
    different = differences(state(whole / "run"), state(resumed))
    assert not different, {key: different[key] for key in sorted(different)[:5]}


@pytest.mark.parametrize(("variant", "step"), STOPS)
def test_stopped_by_max_steps(cli: Any, whole: Whole, variant: str, step: int) -> None:
    path = whole(variant) / "c.yaml"
    assert cli("fit", "-c", path, "--run_dir", "r", "--trainer.max_steps", step).status == 0
    assert torch.load("r/checkpoints/last.ckpt", weights_only=True)["global_step"] == step
    assert cli("fit", "--run_dir", "r", "--ckpt_path", "last", "--trainer.max_steps", -1).status == 0
    compare(whole(variant), "r")


@pytest.mark.parametrize(
    ("variant", "step"),
    [
        ("worker", 3),
        ("worker", 4),
        ("reuse", 6),
        ("digits", 3),
        ("accumulated", 3),
        ("plateau", 4),
        ("plateau", 6),
        ("validated within epochs", 3),
        ("validated within epochs", 6),
    ],
)
def test_stopped_by_max_steps_in_other_settings(cli: Any, whole: Whole, variant: str, step: int) -> None:
    test_stopped_by_max_steps(cli, whole, variant, step)


@pytest.mark.parametrize(("variant", "epochs"), [("DtrivRNN", 2), ("LSTM", 1)])
def test_stopped_by_max_epochs(cli: Any, whole: Whole, variant: str, epochs: int) -> None:
    path = whole(variant) / "c.yaml"
    assert cli("fit", "-c", path, "--run_dir", "r", "--trainer.max_epochs", epochs).status == 0
    assert cli("fit", "--run_dir", "r", "--ckpt_path", "last", "--trainer.max_epochs", 3).status == 0
    compare(whole(variant), "r")


def test_stopped_again_and_again(cli: Any, whole: Whole) -> None:
    path = whole("DtrivRNN") / "c.yaml"
    assert cli("fit", "-c", path, "--run_dir", "r", "--trainer.max_steps", 1).status == 0
    for step in (2, 4, 5, 7, 8, 9):
        assert cli("fit", "--run_dir", "r", "--ckpt_path", "last", "--trainer.max_steps", step).status == 0
    assert cli("fit", "--run_dir", "r", "--ckpt_path", "last", "--trainer.max_steps", -1).status == 0
    compare(whole("DtrivRNN"), "r")


def test_taken_up_in_another_folder(cli: Any, whole: Whole) -> None:
    path = whole("ExpRNN") / "c.yaml"
    assert cli("fit", "-c", path, "--run_dir", "r", "--trainer.max_steps", 6).status == 0
    assert cli("fit", "-c", path, "--ckpt_path", "r/checkpoints/last.ckpt", "--run_dir", "s").status == 0
    compare(whole("ExpRNN"), "s")


def test_taken_up_from_the_best(cli: Any, whole: Whole) -> None:
    path = whole("ExpRNN") / "c.yaml"
    assert cli("fit", "-c", path, "--run_dir", "r", "--trainer.max_epochs", 1).status == 0
    assert cli("fit", "--run_dir", "r", "--ckpt_path", "best", "--trainer.max_epochs", 3).status == 0
    compare(whole("ExpRNN"), "r")


@pytest.mark.parametrize("step", [1, 4, 6])
def test_metrics_are_those_of_the_uninterrupted_run(cli: Any, whole: Whole, step: int) -> None:
    path = whole("ExpRNN") / "c.yaml"
    assert cli("fit", "-c", path, "--run_dir", "r", "--trainer.max_steps", step).status == 0
    assert cli("fit", "--run_dir", "r", "--ckpt_path", "last", "--trainer.max_steps", -1).status == 0
    assert rows("r") == rows(whole("ExpRNN") / "run")


@pytest.mark.parametrize("step", [3, 8])
def test_a_schedule_of_steps(cli: Any, whole: Whole, step: int) -> None:
    """Inside an epoch and between two: weights, schedule, momentum and the rates in metrics.csv."""
    test_stopped_by_max_steps(cli, whole, "one cycle", step)
    assert rows("r") == rows(whole("one cycle") / "run")
    assert len({row["lr-Adam/other"] for row in rows("r") if "lr-Adam/other" in row}) == 12, "a rate for every step"


def test_rows_written_after_the_last_checkpoint_are_not_doubled(cli: Any, whole: Whole) -> None:
    """A run killed outright (no checkpoint since the epoch's end) repeats steps; metrics.csv has each once."""
    whole_run = whole("ExpRNN") / "run"
    path = whole("ExpRNN") / "c.yaml"
    assert cli("fit", "-c", path, "--run_dir", "r", "--trainer.max_epochs", 1).status == 0
    shutil.copy(whole_run / "metrics.csv", "r/metrics.csv")
    Path("r/fit.json").unlink()
    assert cli("fit", "--run_dir", "r", "--ckpt_path", "last", "--trainer.max_epochs", 3).status == 0
    steps = [row["step"] for row in rows("r") if "train/loss_step" in row]
    assert steps == [str(step) for step in range(12)]
    assert rows("r") == rows(whole_run)


@pytest.mark.filterwarnings("error")
def test_a_resume_warns_of_nothing(cli: Any, whole: Whole) -> None:
    path = whole("ExpRNN") / "c.yaml"
    assert cli("fit", "-c", path, "--run_dir", "r", "--trainer.max_steps", 3).status == 0
    done = cli("fit", "--run_dir", "r", "--ckpt_path", "last", "--trainer.max_steps", -1)
    assert done.status == 0 and done.err == ""


def test_both_configs_are_kept(cli: Any, whole: Whole) -> None:
    path = whole("ExpRNN") / "c.yaml"
    assert cli("fit", "-c", path, "--run_dir", "r", "--trainer.max_steps", 3).status == 0
    first = Path("r/config.yaml").read_text()
    assert cli("fit", "--run_dir", "r", "--ckpt_path", "last", "--trainer.max_steps", 6).status == 0
    assert cli("fit", "--run_dir", "r", "--ckpt_path", "last", "--trainer.max_steps", -1).status == 0
    assert Path("r/config.yaml").read_text() == first
    assert "max_steps: 6" in "".join(file.read_text() for file in Path("r").glob("config*.yaml")), "the second is lost"


# ---- signals


def send_at(monkeypatch: pytest.MonkeyPatch, signum: int, step: int) -> None:
    """Let the process get a signal during optimizer step number ``step``."""

    def on_train_batch_start(self: SequenceModel, batch: Any, batch_idx: int) -> None:
        if self.optimizer_steps == step - 1:
            os.kill(os.getpid(), signum)

    monkeypatch.setattr(SequenceModel, "on_train_batch_start", on_train_batch_start, raising=False)


@pytest.mark.parametrize(
    ("signum", "status", "step"),
    [(signal.SIGINT, 130, 1), (signal.SIGTERM, 143, 3), (signal.SIGINT, 130, 4), (signal.SIGTERM, 143, 11)],
)
def test_stopped_by_a_signal(
    cli: Any, whole: Whole, monkeypatch: pytest.MonkeyPatch, signum: signal.Signals, status: int, step: int
) -> None:
    path = whole("DtrivRNN") / "c.yaml"  # made here if it is the first test that asks: no signal may stop that
    with monkeypatch.context() as patch:
        send_at(patch, signum, step)
        done = cli("fit", "-c", path, "--run_dir", "r")
    (line,) = done.err.splitlines()
    assert done.status == status and line.startswith("lit_rnn: ") and signum.name in line and f"step {step}" in line
    assert "--ckpt_path last" in line and "--run_dir r" in line, "it does not say how to go on"
    assert torch.load("r/checkpoints/last.ckpt", weights_only=True)["global_step"] == step
    assert not Path("r/fit.json").exists()
    assert cli("fit", "--run_dir", "r", "--ckpt_path", "last").status == 0
    compare(whole("DtrivRNN"), "r")


def test_signals_are_given_back(cli: Any, config: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a stop, too: whoever called the command line from Python has their own handlers again."""
    for signum in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signum, signal.SIG_IGN if signum == signal.SIGTERM else signal.default_int_handler)
    before = [signal.getsignal(signum) for signum in (signal.SIGINT, signal.SIGTERM)]
    try:
        assert cli("fit", "-c", config(trainer={"max_epochs": 1})).status == 0
        assert [signal.getsignal(signum) for signum in (signal.SIGINT, signal.SIGTERM)] == before
        send_at(monkeypatch, signal.SIGINT, 2)
        assert cli("fit", "-c", config()).status == 130
        assert [signal.getsignal(signum) for signum in (signal.SIGINT, signal.SIGTERM)] == before
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)


def test_stopped_by_a_signal_while_validating(cli: Any, whole: Whole, monkeypatch: pytest.MonkeyPatch) -> None:
    def on_validation_batch_start(self: SequenceModel, *_: Any) -> None:
        if self.optimizer_steps == 4:
            os.kill(os.getpid(), signal.SIGTERM)

    path = whole("ExpRNN") / "c.yaml"
    with monkeypatch.context() as patch:
        patch.setattr(SequenceModel, "on_validation_batch_start", on_validation_batch_start, raising=False)
        done = cli("fit", "-c", path, "--run_dir", "r")
    assert done.status == 143
    assert cli("fit", "--run_dir", "r", "--ckpt_path", "last").status == 0
    compare(whole("ExpRNN"), "r")


def test_a_real_process(whole: Whole, tmp_path: Path, cli: Any) -> None:
    """Ctrl-C in a terminal, at whatever step it comes."""
    path = whole("ExpRNN") / "c.yaml"
    process = Forked(tmp_path, ("fit", "-c", path, "--run_dir", "r", "--trainer.max_epochs", 4000))
    deadline = time.monotonic() + 60
    while not (tmp_path / "r" / "checkpoints" / "last.ckpt").exists():
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert err.startswith("lit_rnn: Stopped by SIGINT after step ") and len(err.splitlines()) == 1, err
    assert "Traceback" not in out
    epoch = torch.load("r/checkpoints/last.ckpt", weights_only=True)["epoch"]
    epochs = ["--trainer.max_epochs", epoch + 2]
    assert cli("fit", "--run_dir", "r", "--ckpt_path", "last", *epochs).status == 0
    assert cli("fit", "-c", path, "--run_dir", "s", *epochs).status == 0
    assert not differences(state("r"), state("s"))


def test_a_refused_resume_leaves_nothing(cli: Any, whole: Whole) -> None:
    """Its config would otherwise be the newest, and refused again."""
    path = whole("ExpRNN") / "c.yaml"
    assert cli("fit", "-c", path, "--run_dir", "r", "--trainer.max_epochs", 2).status == 0
    before, last, steps = tree(Path("r")), "r/checkpoints/last.ckpt", 8
    for key, asked, moment in (("max_epochs", 1, "epoch 2"), ("max_steps", 3, f"step {steps}")):
        done = cli("fit", "--run_dir", "r", "--ckpt_path", "last", f"--trainer.{key}", asked)
        assert done.status == 2 and f"trainer.{key} is {asked}, but {last} is from {moment}: nothing" in done.err
        assert done.err.count("\n") == 1 and tree(Path("r")) == before
    for key, epochs in (("max_epochs", 2), ("max_steps", 3)):
        more = ("--trainer.max_epochs", epochs, "--trainer.max_steps", steps, "--trainer.log_every_n_steps", 7)
        done = cli("fit", "--run_dir", "r", "--ckpt_path", "last", *more)
        assert done.status == 0 and f"nothing is left to do. Raise trainer.{key}, which" in done.out, done
        assert done.err == "" and tree(Path("r")) == before
    assert cli("fit", "--run_dir", "r", "--ckpt_path", "last", "--trainer.max_epochs", 3).status == 0
    compare(whole("ExpRNN"), "r")
