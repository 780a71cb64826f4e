"""A callback that says when things happened, for `resume.py`."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from pytorch_lightning import Callback, LightningModule, Trainer

IMPORTED = time.monotonic(), time.process_time()  # a config is read behind the imports


class Marks(Callback):
    """Writes when the imports were over, and every step, to a file: what, by a clock that all processes share, and by
    the CPU seconds of this one.

    Args:
        path: The file, which is appended to.
    """

    def __init__(self, path: str) -> None:
        self.path = Path(path)

    def _mark(self, what: object, clock: float, cpu: float) -> None:
        with self.path.open("a") as file:
            file.write(f"{what} {clock} {cpu}\n")

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._mark("imported", *IMPORTED)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self._mark(trainer.global_step, time.monotonic(), time.process_time())
