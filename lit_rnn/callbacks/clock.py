"""Seconds of the parts of a short run, from which a study estimates long ones."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from pytorch_lightning import Callback, Trainer

from lit_rnn.files import write_json

MOST = 10.0  # seconds of training batches, after the first five


class Clock(Callback):
    """Times one epoch and writes ``clock.json`` into the run folder: seconds of a training batch (the first, which
    warms up, left out), of a validation batch, and of the rest of the epoch's end; ends the epoch after `MOST` seconds.
    """

    def __init__(self) -> None:
        self.batches = self.val_batches = 0
        self._first_end = self._last_end = self._val_seconds = self._val_began = 0.0
        self._began = 0.0

    def on_train_start(self, *_: Any) -> None:
        self._began = time.monotonic()

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        self.batches += 1
        self._last_end = time.monotonic()
        if self.batches == 1:
            self._first_end = self._last_end
        if self.batches >= 5 and self._last_end - self._began > MOST:
            trainer.should_stop = True

    def on_validation_batch_start(self, trainer: Trainer, *_: Any) -> None:
        if not trainer.sanity_checking and self.val_batches == 0:
            self._val_began = time.monotonic()

    def on_validation_batch_end(self, trainer: Trainer, *_: Any) -> None:
        if not trainer.sanity_checking:
            self.val_batches += 1
            self._val_seconds = time.monotonic() - self._val_began

    def on_train_end(self, trainer: Trainer, *_: Any) -> None:
        rest = time.monotonic() - self._last_end - self._val_seconds
        training = self._last_end - self._first_end if self.batches > 1 else self._last_end - self._began
        numbers = {
            "batches": self.batches,
            "batch": training / max(1, self.batches - 1),
            "val_batches": self.val_batches,
            "val_batch": self._val_seconds / max(1, self.val_batches),
            "epoch": rest,
        }
        write_json(Path(trainer.default_root_dir, "clock.json"), numbers)
