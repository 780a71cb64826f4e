"""Data: what a batch is. Knows nothing of models."""

from datamodules.adding import Adding
from datamodules.base import GeneratedDataModule, IndexedBatches, SequenceDataModule, SequenceLoader
from datamodules.copying import CopyMemory
from datamodules.denoising import Denoise
from datamodules.errors import UserError
from datamodules.pixels import PixelDigits, PixelMNIST, pixel_permutation
from datamodules.task import Task

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
