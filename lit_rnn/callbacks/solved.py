"""Ends a run that has solved its task."""

from __future__ import annotations

import sys

from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import EarlyStopping

from datamodules.errors import require
from lit_rnn.models.base import SequenceModel


class Solved(EarlyStopping):
    """Ends training once the validation loss is below a share of chance: what is asked is after how many updates.

    ``fit.json`` says so under ``ended_early``.

    Args:
        below_chance: The share, between 0 and 1.

    Raises:
        UserError: if it is not.
    """

    def __init__(self, below_chance: float = 0.1) -> None:
        require(0 < below_chance < 1, "below_chance of Solved", below_chance, "a share of chance between 0 and 1")
        super().__init__("val/loss", patience=sys.maxsize, check_finite=False)  # NaN ends it elsewhere
        self.below_chance = below_chance

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        super().setup(trainer, pl_module, stage)
        assert isinstance(pl_module, SequenceModel)
        self.stopping_threshold = self.below_chance * pl_module.task.chance
