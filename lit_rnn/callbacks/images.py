"""Pictures for the loggers that take images."""

from __future__ import annotations

from pathlib import Path

from pytorch_lightning import Trainer
from pytorch_lightning.loggers import WandbLogger


def show(trainer: Trainer, name: str, picture: Path) -> None:
    """Hand a picture to every logger that takes images."""
    for logger in trainer.loggers:
        if isinstance(logger, WandbLogger):
            logger.log_image(name, [str(picture)])
