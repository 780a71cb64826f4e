"""Stops a run whose loss is no longer a number."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from torch import Tensor

from lit_rnn.runs.endings import DivergedError


class FiniteLoss(Callback):
    """Raises `DivergedError` before a NaN or infinite loss reaches the weights.

    It names the step, the norms by layer and the last good checkpoint.

    On a GPU a look at every loss would make the host wait for it at every step. There the number of the first bad step
    is kept on the GPU, and looked at where values are logged (``trainer.log_every_n_steps``) and before any checkpoint:
    weights may be no numbers by then, but none such are saved.

    Args:
        checkpoint: The checkpoint to go back to, if it exists.
        every: Look at every so many losses.
    """

    def __init__(self, checkpoint: Path, every: int = 1) -> None:
        self.checkpoint, self.every = checkpoint, every
        self._bad: Tensor | None = None  # the first bad step, 0 if there is none, and its loss

    def on_before_backward(self, trainer: Trainer, pl_module: LightningModule, loss: Tensor) -> None:
        step = trainer.global_step
        if step % self.every:
            return
        if not self._is_read_late(loss):
            if not torch.isfinite(loss):
                self._tell(pl_module, loss.item(), f"at step {step + 1}")
            return
        loss = loss.detach().double()
        now = torch.where(loss.isfinite(), 0.0, torch.stack((torch.full_like(loss, step + 1), loss)))
        self._bad = now if self._bad is None else torch.where(self._bad[0] > 0, self._bad, now)
        logged = trainer.log_every_n_steps  # type: ignore[attr-defined]
        if logged and (step + 1) % logged == 0:
            self._look(pl_module)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        self._look(pl_module)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._look(pl_module)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        loss = trainer.callback_metrics.get("val/loss")  # the last step of an epoch shows here first
        if loss is not None and not trainer.sanity_checking:
            self._look(pl_module)
            if not torch.isfinite(loss):
                self._tell(pl_module, loss.item(), f"on the validation split after step {trainer.global_step}")

    @staticmethod
    def _is_read_late(loss: Tensor) -> bool:
        return loss.device.type != "cpu"

    def _look(self, module: LightningModule) -> None:
        if self._bad is not None:
            step, loss = self._bad.tolist()
            self._bad = None
            if step:
                self._tell(module, loss, f"at step {step:.0f}")

    def _tell(self, module: LightningModule, loss: float, where: str) -> None:
        norms = ", ".join(f"{name} {p.detach().norm():.3g}" for name, p in module.named_parameters())
        back = f"the last good checkpoint is {self.checkpoint}" if self.checkpoint.is_file() else "no checkpoint yet"
        raise DivergedError(
            f"The loss is {loss} {where}; norms by layer: {norms}; {back}. "
            "A lower learning rate or trainer.gradient_clip_val may help."
        )
