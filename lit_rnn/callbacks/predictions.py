"""What ``predict`` leaves on disk."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer

from datamodules.base import data_of
from datamodules.batch import Parts
from lit_rnn.files import write_arrays

_NAMES = ("inputs", "targets", "predictions", "probabilities")  # in the order of predict_step


class PredictionFile(Callback):
    """Writes what ``predict_step`` gives to ``predictions.npz``, one file per process.

    That is ``inputs``, ``targets`` where they are known, and ``predictions`` (a class is -1 where outputs are NaN or
    infinite), and with ``--probabilities true`` also ``probabilities``, with the classes as the last axis. Sequences of
    unequal lengths are filled up with zeros, and ``lengths`` is there too. Of one's own files there are also names: of
    the ``sequences``, of ``classes`` and of ``symbols``, by number.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._batches: list[tuple[torch.Tensor, ...]] = []
        self._lengths: list[torch.Tensor] = []

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
        lengths = Parts.of(batch).lengths
        if lengths is not None:
            self._lengths.append(lengths.cpu())

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        arrays: dict[str, Any] = {
            name: _joined(parts).numpy() for name, *parts in zip(_NAMES, *self._batches, strict=False)
        }
        if self._lengths:
            arrays["lengths"] = torch.cat(self._lengths).numpy()
        data = data_of(trainer)
        if data is not None:
            arrays |= data.beside_predictions()
            if "sequences" in arrays:
                loader: Any = trainer.predict_dataloaders  # the data's own
                arrays["sequences"] = arrays["sequences"][loader.given()[: len(arrays["predictions"])]]
            if not data.answers_known:
                del arrays["targets"]
        rank = f"-rank{trainer.global_rank}" if trainer.world_size > 1 else ""
        path = self.folder / f"predictions{rank}.npz"
        write_arrays(path, arrays, compressed=True)
        print(f"predictions: {path}")


def _joined(parts: Sequence[torch.Tensor]) -> torch.Tensor:
    """Batches one after another, filled up with zeros to the longest sequence."""
    if len({part.shape[1:] for part in parts}) == 1:
        return torch.cat(list(parts))
    steps = max(part.shape[1] for part in parts)
    return torch.cat([torch.cat((p, p.new_zeros(len(p), steps - p.shape[1], *p.shape[2:])), dim=1) for p in parts])
