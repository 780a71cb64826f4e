"""Stops a run whose loss is no longer a number."""

from __future__ import annotations

from pathlib import Path

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from torch import Tensor

from lit_rnn.runs.endings import DivergedError


class FiniteLoss(Callback):
    """Raises `DivergedError` before a NaN or infinite loss reaches the weights.

    It names the step, the norms by layer and the last good checkpoint.

    Args:
        checkpoint: The checkpoint to go back to, if it exists.
        every: Look at every so many losses; looking makes a GPU wait for the host.
    """

    def __init__(self, checkpoint: Path, every: int = 1) -> None:
        self.checkpoint, self.every = checkpoint, every

    def on_before_backward(self, trainer: Trainer, pl_module: LightningModule, loss: Tensor) -> None:
        if trainer.global_step % self.every == 0:
            self._check(trainer, pl_module, loss, f"at step {trainer.global_step + 1}")

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        loss = trainer.callback_metrics.get("val/loss")  # the last step of an epoch shows here first
        if loss is not None and not trainer.sanity_checking:
            self._check(trainer, pl_module, loss, f"on the validation split after step {trainer.global_step}")

    def _check(self, trainer: Trainer, pl_module: LightningModule, loss: Tensor, where: str) -> None:
        if torch.isfinite(loss):
            return
        norms = ", ".join(f"{name} {p.detach().norm():.3g}" for name, p in pl_module.named_parameters())
        back = f"the last good checkpoint is {self.checkpoint}" if self.checkpoint.is_file() else "no checkpoint yet"
        raise DivergedError(
            f"The loss is {loss.item()} {where}; norms by layer: {norms}; {back}. "
            "A lower learning rate or trainer.gradient_clip_val may help."
        )
