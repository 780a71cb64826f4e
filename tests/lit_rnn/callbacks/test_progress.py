"""The bar of a terminal."""

from __future__ import annotations

from typing import Any

import pytest
from pytorch_lightning.callbacks import RichProgressBar

from lit_rnn.callbacks import Progress


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
