"""Data: what a batch is. Knows nothing of models."""

from typing import TYPE_CHECKING

from datamodules.errors import UserError
from datamodules.lazy import on_demand
from datamodules.task import Task

if TYPE_CHECKING:
    from datamodules.adding import Adding
    from datamodules.base import GeneratedDataModule, IndexedBatches, SequenceDataModule, SequenceLoader
    from datamodules.copying import CopyMemory
    from datamodules.denoising import Denoise
    from datamodules.pixels import PixelDigits, PixelMNIST, pixel_permutation
else:  # they need torch and Lightning, which take seconds; an error and a Task do not
    __getattr__ = on_demand(__name__, ("adding", "base", "copying", "denoising", "pixels"))

__all__ = [
    "Adding",
    "CopyMemory",
    "Denoise",
    "GeneratedDataModule",
    "IndexedBatches",
    "PixelDigits",
    "PixelMNIST",
    "SequenceDataModule",
    "SequenceLoader",
    "Task",
    "UserError",
    "pixel_permutation",
]
