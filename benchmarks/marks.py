"""A callback that says when things happened, for `resume.py`."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from pytorch_lightning import Callback, LightningModule, Trainer

IMPORTED = time.monotonic()  # a config is read behind the imports; the clock is the same in every process


class Marks(Callback):
    """Writes the moment of the imports' end, and that of every step's, to a file, each behind what it is of.

    Args:
        path: The file, which is appended to.
    """

    def __init__(self, path: str) -> None:
        self.path = Path(path)

    def _mark(self, what: object, when: float) -> None:
        with self.path.open("a") as file:
            file.write(f"{what} {when}\n")

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._mark("imported", IMPORTED)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self._mark(trainer.global_step, time.monotonic())
