"""A checkpoint may be taken at any moment, by any callback: the run that goes on from it is the uninterrupted one."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Checkpoint

from datamodules import CopyMemory, PixelDigits
from lit_rnn import callbacks
from lit_rnn.commands.fit import command as command_line
from lit_rnn.models import GRU, ExpRNN
from tests.lit_rnn.conftest import rows
from tests.lit_rnn.runs.kills import differences
from tests.lit_rnn.runs.test_resume import ADAM, MODELS, PLATEAU, state
from tests.trainers import quiet_trainer

pytestmark = [
    pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty"),
    pytest.mark.filterwarnings("ignore:The dirpath has changed"),
    pytest.mark.usefixtures("_no_pictures"),
]


class EveryMoment(Checkpoint):
    """Takes a checkpoint in every hook where a callback may, and keeps metrics.csv as a kill would leave it then."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()

    def take(self, trainer: pl.Trainer, hook: str) -> None:
        if trainer.sanity_checking:
            return
        path = self.folder / f"{len(list(self.folder.glob('*.ckpt'))):02} {hook}.ckpt"
        trainer.save_checkpoint(path)
        metrics = Path(trainer.default_root_dir) / "metrics.csv"
        if metrics.is_file():
            shutil.copy(metrics, path.with_suffix(".csv"))

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        self.take(trainer, "batch")

    def on_validation_end(self, trainer: pl.Trainer, *_: Any) -> None:
        self.take(trainer, "validation")

    def on_train_epoch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        self.take(trainer, "epoch")


@pytest.fixture(autouse=True)
def _fewer_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    for hook in ("on_fit_start", "on_fit_end"):
        monkeypatch.setattr(callbacks.StatePicture, hook, getattr(pl.Callback, hook))


def exp_rnn(scheduler: dict[str, Any]) -> dict[str, Any]:
    return {"class_path": "ExpRNN", "init_args": {"hidden_size": 6, "optimizer": ADAM, "lr_scheduler": scheduler}}


def plateau(monitor: str) -> dict[str, Any]:
    # every epoch is a bad one, so that a lost or doubled step shows
    init_args = {"monitor": monitor, "patience": 0, "factor": 0.5, "threshold": 10.0}
    return exp_rnn({**PLATEAU, "init_args": init_args})


DIGITS = {"class_path": "PixelDigits", "init_args": {"batch_size": 200, "val_size": 180}}  # 6 batches
SETTINGS: dict[str, dict[str, Any]] = {
    "plateau, limit 3": {"model": plateau("val/loss"), "trainer": {"limit_train_batches": 3}},
    "plateau on train/loss, every second epoch validated, limit 0.5": {
        "model": plateau("train/loss"),
        "trainer": {"limit_train_batches": 0.5, "check_val_every_n_epoch": 2, "max_epochs": 4},
    },
    "steps, accumulated, validated within windows": {
        "model": MODELS["DtrivRNN"],
        "trainer": {"accumulate_grad_batches": 2, "val_check_interval": 3},
    },
    "max_steps in mid-epoch": {"model": MODELS["LSTM"], "trainer": {"max_steps": 6, "max_epochs": -1}},
    "both, max_steps at an epoch's end": {"model": plateau("val/loss"), "trainer": {"max_steps": 8, "max_epochs": 9}},
    "both, max_epochs first, validated twice": {
        "model": plateau("val/loss"),
        "trainer": {"max_steps": 1000, "val_check_interval": 0.5},
    },
    "digits, limit 0.4": {"data": DIGITS, "model": exp_rnn(PLATEAU), "trainer": {"limit_train_batches": 0.4}},
}
FROM_EVERY = ("plateau, limit 3", "steps, accumulated, validated within windows")  # the others: from one of each kind


def one_of_each_kind(taken: list[Path]) -> list[Path]:
    """The first moment of each kind: a hook and the hook that comes next, or the run's end."""
    hooks = [file.stem.split()[1] for file in taken]
    kinds = list(zip(hooks, [*hooks[1:], "end"], strict=True))
    return [file for number, file in enumerate(taken) if kinds[number] not in kinds[:number]]


@pytest.mark.parametrize("setting", SETTINGS)
def test_every_moment(cli: Any, config: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, setting: str) -> None:
    path = config(**SETTINGS[setting])
    with monkeypatch.context() as patch:
        ours = command_line.run_callbacks
        moments = EveryMoment(tmp_path / "moments")
        patch.setattr(command_line, "run_callbacks", lambda *given: [*ours(*given), moments])
        assert cli("fit", "-c", path, "--run_dir", "r").status == 0
    Path("r").rename("whole")
    end = json.loads(Path("whole/fit.json").read_text())
    taken = sorted(Path("moments").glob("*.ckpt"))
    assert {file.stem.split()[1] for file in taken} == {"batch", "validation", "epoch"}
    for number, checkpoint in enumerate(taken if setting in FROM_EVERY else one_of_each_kind(taken)):
        # as after a kill at that moment, and as after a run that went on
        left = checkpoint.with_suffix(".csv") if number % 2 else Path("whole/metrics.csv")
        Path("r").mkdir()
        if left.is_file():
            shutil.copy(left, "r/metrics.csv")
        done = cli("fit", "-c", path, "--run_dir", "r", "--ckpt_path", checkpoint)
        assert done.status == 0, done.err
        different = differences(state("whole"), state("r"))
        assert not different, (checkpoint.name, {key: different[key] for key in sorted(different)[:5]})
        if left.is_file():
            assert rows("r") == rows("whole"), checkpoint.name
        ended = json.loads(Path("r/fit.json").read_text())
        assert {**ended, "seconds": 0} == {**end, "seconds": 0}, checkpoint.name
        shutil.rmtree("r")


@pytest.mark.parametrize("limits", [{"max_epochs": 2}, {"max_steps": 6, "max_epochs": -1}])
def test_killed_before_the_end_was_written(cli: Any, config: Any, limits: dict[str, int]) -> None:
    """fit.json is what says that a run is finished: a resume writes it, and the next finds nothing to do."""
    assert cli("fit", "-c", config(trainer=limits), "--run_dir", "r").status == 0
    end = json.loads(Path("r/fit.json").read_text())
    Path("r/fit.json").unlink()
    before = state("r")
    assert cli("fit", "--run_dir", "r", "--ckpt_path", "last").status == 0
    assert {**json.loads(Path("r/fit.json").read_text()), "seconds": 0} == {**end, "seconds": 0}
    assert not differences(state("r"), before)
    written = Path("r/fit.json").read_bytes()
    again = cli("fit", "--run_dir", "r", "--ckpt_path", "last")
    assert (
        again.status == 0 and "is finished: nothing is left" in again.out and Path("r/fit.json").read_bytes() == written
    )


# ---- in Python


def first_samples(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """Every batch that a model trains on, in order, as it comes to its training step."""
    seen: list[bytes] = []
    for cls in (ExpRNN, GRU):
        step = cls.training_step

        def training_step(self: Any, batch: Any, batch_idx: int, step: Any = step) -> Any:
            seen.append(batch[0].numpy().tobytes())
            return step(self, batch, batch_idx)

        monkeypatch.setattr(cls, "training_step", training_step)
    return seen


def tiny(kind: str) -> Any:
    if kind == "digits":
        return PixelDigits(batch_size=400, val_size=180)
    return CopyMemory(delay=2, train_samples=24, val_samples=8, batch_size=8)


@pytest.mark.parametrize("kind", ["copying", "digits"])
@pytest.mark.parametrize("way", ["reload", "fit again", "limited"])
def test_the_loop_says_which_epoch(kind: str, way: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Three epochs are the same three however often loaders are made, or however short the epochs are."""
    batches = list(tiny(kind).loader("train"))
    source = tiny(kind).loader("train")
    epochs = [[batch[0].numpy().tobytes() for batch in source] for _ in range(3)]
    assert len({batch for epoch in epochs for batch in epoch}) == 3 * len(batches)
    seen = first_samples(monkeypatch)
    data = tiny(kind)
    model = GRU(data.task, 4)
    options: dict[str, Any] = {"max_epochs": 3, "default_root_dir": tmp_path, "limit_val_batches": 0}
    if way == "reload":
        options["reload_dataloaders_every_n_epochs"] = 1
    if way == "limited":
        options["limit_train_batches"] = 2
    if way == "fit again":
        trainer = quiet_trainer(**options | {"max_epochs": 1})
        for more in (1, 2, 3):
            trainer.fit_loop.max_epochs = more
            trainer.fit(model, datamodule=data)
    else:
        quiet_trainer(**options).fit(model, datamodule=data)
    used = 2 if way == "limited" else len(batches)
    assert seen == [batch for epoch in epochs for batch in epoch[:used]]
    assert [len(batch) for batch in data.train_dataloader()] == [len(batch) for batch in batches], "no loop, all of it"


def test_loading_a_model_takes_nothing_up(tmp_path: Path) -> None:
    """A model that was tested on a checkpoint, then trained: from the beginning."""
    data = tiny("copying")
    model = GRU(data.task, 4)
    trainer = quiet_trainer(max_epochs=2, default_root_dir=tmp_path)
    trainer.fit(model, datamodule=data)
    trainer.save_checkpoint(tmp_path / "x.ckpt")
    other = GRU(data.task, 4)
    quiet_trainer(default_root_dir=tmp_path).test(other, datamodule=data, ckpt_path=tmp_path / "x.ckpt", verbose=False)
    again = quiet_trainer(max_epochs=1, default_root_dir=tmp_path)
    again.fit(other, datamodule=data)
    assert (again.current_epoch, again.global_step) == (1, 3)
    assert torch.isfinite(again.callback_metrics["train/loss"])
