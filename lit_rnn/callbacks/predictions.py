"""What ``predict`` leaves on disk."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import BasePredictionWriter


class PredictionFile(BasePredictionWriter):
    """Writes inputs, targets and predictions of the validation split to ``predictions.npz``, one file per process."""

    def __init__(self, folder: Path) -> None:
        super().__init__("epoch")
        self.folder = folder

    def write_on_epoch_end(
        self, trainer: Trainer, pl_module: LightningModule, predictions: Sequence[Any], batch_indices: Sequence[Any]
    ) -> None:
        inputs, targets, outputs = (torch.cat(parts).numpy() for parts in zip(*predictions, strict=True))
        rank = f"-rank{trainer.global_rank}" if trainer.world_size > 1 else ""
        path = self.folder / f"predictions{rank}.npz"
        np.savez_compressed(path, inputs=inputs, targets=targets, predictions=outputs)
        print(f"predictions: {path}")
