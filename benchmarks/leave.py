"""A callback that leaves before the first step, for `starting.py`."""

from __future__ import annotations

import os
from typing import Any

from pytorch_lightning import Callback, LightningModule, Trainer


class Leave(Callback):
    """Ends the process where the first training step would begin: what came before is start-up."""

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        os._exit(0)
