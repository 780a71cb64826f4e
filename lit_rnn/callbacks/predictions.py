"""What ``predict`` leaves on disk."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from pytorch_lightning import Callback, LightningModule, Trainer


class PredictionFile(Callback):
    """Writes inputs, targets and predictions of the validation split to ``predictions.npz``, one file per process."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._batches: list[tuple[torch.Tensor, ...]] = []

    def on_predict_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        self._batches.append(tuple(part.cpu() for part in outputs))

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        inputs, targets, predictions = (torch.cat(parts).numpy() for parts in zip(*self._batches, strict=True))
        rank = f"-rank{trainer.global_rank}" if trainer.world_size > 1 else ""
        path = self.folder / f"predictions{rank}.npz"
        np.savez_compressed(path, inputs=inputs, targets=targets, predictions=predictions)
        print(f"predictions: {path}")
