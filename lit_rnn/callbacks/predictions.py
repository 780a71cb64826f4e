"""What ``predict`` leaves on disk."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from pytorch_lightning import Callback, LightningModule, Trainer

_NAMES = ("inputs", "targets", "predictions", "probabilities")  # in the order of predict_step


class PredictionFile(Callback):
    """Writes what ``predict_step`` gives on the validation split to ``predictions.npz``, one file per process.

    That is ``inputs``, ``targets`` and ``predictions``, and with ``--probabilities true`` also ``probabilities``, with
    the classes as the last axis.
    """

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
        arrays: dict[str, Any] = {
            name: torch.cat(parts).numpy() for name, *parts in zip(_NAMES, *self._batches, strict=False)
        }
        rank = f"-rank{trainer.global_rank}" if trainer.world_size > 1 else ""
        path = self.folder / f"predictions{rank}.npz"
        np.savez_compressed(path, **arrays)
        print(f"predictions: {path}")
