"""Stops a run whose loss is no longer a number, or whose gradient no longer moves anything."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from torch import Tensor
from torch.optim import Optimizer

from lit_rnn.runs.endings import DivergedError

MOST = 1000  # losses that are kept
LOOKS = 3  # at the gradient that one after another have to be bad: a single batch may be, and the next one not


class FiniteLoss(Callback):
    """Raises `DivergedError` before a NaN or infinite loss reaches the weights, or such weights a checkpoint.

    It names the step, the norms by layer and the last good checkpoint.

    On a GPU a look at every loss would make the host wait for it at every step. There losses are kept on the GPU, and
    looked at where values are logged (``trainer.log_every_n_steps``) and before any checkpoint: weights may be no
    numbers by then, but none such are saved.

    A loss of 1e27 is a number still, but in float32 the squares of its gradient are not. Such a gradient is 0 when it
    is clipped by its norm or divided by a running mean of its squares, and a run would stay where it is to its end. It
    stops when the norm is no number at `LOOKS` looks in a row, one every ``trainer.log_every_n_steps``. Under 16-mixed
    infinite gradients are how the scale of the loss is found, and are skipped.

    Args:
        checkpoint: The checkpoint to go back to, if it exists.
    """

    def __init__(self, checkpoint: Path) -> None:
        self.checkpoint = checkpoint
        self._losses: list[tuple[int, Tensor]] = []  # by step, those not yet looked at
        self._stuck = 0  # looks in a row at an infinite gradient

    def on_before_backward(self, trainer: Trainer, pl_module: LightningModule, loss: Tensor) -> None:
        step = trainer.global_step
        if not self._is_read_late(loss):
            if not torch.isfinite(loss):
                self._tell(pl_module, f"The loss is {loss.item()} at step {step + 1}")
            return
        self._losses.append((step + 1, loss.detach()))
        logged = trainer.log_every_n_steps  # type: ignore[attr-defined]  # set by Lightning at run time
        if (logged and (step + 1) % logged == 0) or len(self._losses) == MOST:
            self._look(pl_module)

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        every, step = trainer.log_every_n_steps, trainer.global_step + 1  # type: ignore[attr-defined]  # set by Lightning at run time
        if not every or step % every or trainer.scaler is not None:
            return
        norms = [p.grad.detach().norm() for p in pl_module.parameters() if p.grad is not None]
        self._stuck = 0 if not norms or torch.stack(norms).norm().isfinite() else self._stuck + 1
        if self._stuck == LOOKS:
            at = ", ".join(str(step - every * back) for back in reversed(range(LOOKS)))
            self._tell(pl_module, f"The norm of the gradient is no number at steps {at}, so that nothing is learnt")

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        self._look(pl_module)
        if not all(parameter.isfinite().all() for parameter in pl_module.parameters()):
            self._tell(pl_module, f"The weights are no numbers after step {trainer.global_step}")

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._look(pl_module)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        loss = trainer.callback_metrics.get("val/loss")  # the last step of an epoch shows here first
        if loss is not None and not trainer.sanity_checking:
            self._look(pl_module)
            if not torch.isfinite(loss):
                where = f"on the validation split after step {trainer.global_step}"
                self._tell(pl_module, f"The loss is {loss.item()} {where}")

    @staticmethod
    def _is_read_late(loss: Tensor) -> bool:
        return loss.device.type != "cpu"

    def _look(self, module: LightningModule) -> None:
        if not self._losses:
            return
        steps, losses = zip(*self._losses, strict=True)
        self._losses = []
        for step, loss in zip(steps, torch.stack(losses).tolist(), strict=True):
            if not math.isfinite(loss):
                self._tell(module, f"The loss is {loss} at step {step}")

    def _tell(self, module: LightningModule, what: str) -> None:
        norms = ", ".join(f"{name} {p.detach().norm():.3g}" for name, p in module.named_parameters())
        back = f"the last good checkpoint is {self.checkpoint}" if self.checkpoint.is_file() else "no checkpoint yet"
        raise DivergedError(
            f"{what}; norms by layer: {norms}; {back}. A lower learning rate or trainer.gradient_clip_val may help."
        )
