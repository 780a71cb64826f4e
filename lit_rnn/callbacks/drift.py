"""How orthogonal the orthogonal matrices still are."""

from __future__ import annotations

import torch
from pytorch_lightning import Callback, LightningModule, Trainer

from lit_rnn.parametrizations import OrthogonalMap


class Drift(Callback):
    """Logs ``recurrent/drift`` = max |W^H W - I| over all orthogonal maps, at the end of every training epoch."""

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        drifts = [module.drift() for module in pl_module.modules() if isinstance(module, OrthogonalMap)]
        if drifts:
            pl_module.log("recurrent/drift", torch.stack(drifts).max().float(), sync_dist=True, reduce_fx="max")
