"""The bar of a terminal."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import pytest
import torch
from pytorch_lightning.callbacks import RichProgressBar

from datamodules import CopyMemory
from lit_rnn.callbacks import Progress, progress
from lit_rnn.callbacks.progress import changed_seed


@pytest.mark.usefixtures("_no_pictures")
def test_a_long_run_has_no_more_bars_than_a_short_one(cli: Any, config: Any, monkeypatch: Any) -> None:
    bars: list[int] = []

    def count(self: Progress, *_: Any) -> None:
        assert self.progress is not None
        bars.append(len(self.progress.tasks))
        RichProgressBar.on_train_epoch_end(self, *_)

    monkeypatch.setattr(Progress, "on_train_epoch_end", count)
    trainer = {"callbacks": [{"class_path": "Progress"}], "max_epochs": 4}
    assert cli("fit", "-c", config(trainer=trainer), "--run_dir", "r").status == 0
    assert bars == [3, 3, 3, 3], "one before training, one for training, one for all validations"


def test_another_seed_of_the_data_than_before_is_told() -> None:
    data = CopyMemory(delay=2, train_samples=8, batch_size=4, seed=4)
    for was, told in ((4, {}), (3, {"data.init_args.seed": (3, 4)})):
        data.train_dataloader().load_state_dict({"epoch": 1, "position": 0, "steps": 2, "seed": was})
        assert changed_seed(data) == told


def test_a_loss_on_a_gpu_is_looked_at_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each look waits for it."""
    clock, bar = iter([0.0, 0.1, 0.6, 0.7, 0.7]), Progress()
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    monkeypatch.setattr(RichProgressBar, "get_metrics", lambda *_: {})
    trainer: Any = None
    on_gpu = Mock(spec=torch.Tensor, device=SimpleNamespace(type="cuda"), item=Mock(side_effect=[3.0, 2.0]))
    module: Any = SimpleNamespace(shown_loss=on_gpu)
    assert [bar.get_metrics(trainer, module) for _ in range(4)] == [
        {"train/loss_step": x} for x in (3.0, 3.0, 2.0, 2.0)
    ]
    module.shown_loss = torch.tensor(1.0)
    assert bar.get_metrics(trainer, module) == {"train/loss_step": 1.0}
    module.shown_loss = None
    assert bar.get_metrics(trainer, module) == {}, "nothing has counted yet"
