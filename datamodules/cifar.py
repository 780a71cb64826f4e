"""CIFAR-10 (Krizhevsky 2009) as sequences."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from datamodules.base import Split
from datamodules.image_files import prepare_cifar10, read_cifar10
from datamodules.pixels import NoiseKind, PixelDataModule, PublishedPermutation


class PixelCIFAR10(PixelDataModule):
    """CIFAR-10 pixel by pixel, row by row, or padded with noise: bytes / 255, label at the last step.

    The validation split is carved out of the 50,000 training images; the test file is opened only by ``test``.

    - As it is, 1,024 steps of three colours, as in AntisymmetricRNN (Chang et al. 2019), LipschitzRNN (Erichson et al.
      2021) and S4's sequential CIFAR. The released LipschitzRNN code also crops and mirrors the training images, and
      standardises the colours.
    - ``colour: gray`` reads 1,024 scalars, as the Long Range Arena does, ``colour: scalar`` all 3,072: red, green and
      blue of a pixel in turn.
    - ``pixels_per_step: 32`` reads rows: 32 steps of 96 numbers, pixel by pixel. The released codes have colour by
      colour inside a row, which is the same up to the order of a network's inputs.
    - ``pixels_per_step: 32`` and ``pad_to: 1000`` is noise-padded CIFAR-10: 32 rows, then 968 steps of noise.

    Args:
        root: Folder that holds (or will hold, after the download) ``cifar-10-batches-bin``, the binary version: the one
            for Python is made of pickles, which can run code.
        colour: ``rgb``, ``gray`` (ITU-R 601-2 luma, as Pillow rounds it) or ``scalar``.
        permute: Read the pixels in one fixed random order.
        permutation_seed: Which order; see `pixel_permutation`.
        val_size: Images set apart for validation.
        split_seed: Chooses which ones, and the noise.
        batch_size: Sequences per step and process.
        seed: Seeds the order of training; None takes the run's ``seed_everything``.
        num_workers: Processes that prepare batches; noise of each image is worth one.
        pixels_per_step: How many pixels (numbers, of ``scalar``) are read at a step; 32 reads row by row.
        pad_to: Steps in all, noise behind the image; null: the image alone.
        noise: Standard normal; ``each`` image of each split has its own, or ``shared``: all have the same, as the
            released codes of LipschitzRNN and coRNN do it.
    """

    full_scale = 255.0
    task_options = (*PixelDataModule.task_options, "colour")

    def __init__(
        self,
        root: str = "data",
        colour: Literal["rgb", "gray", "scalar"] = "rgb",
        permute: bool = False,
        permutation_seed: int | PublishedPermutation = 92916,
        val_size: int = 5_000,
        split_seed: int = 0,
        batch_size: int = 128,
        seed: int | None = None,
        num_workers: int = 0,
        pixels_per_step: int = 1,
        pad_to: int | None = None,
        noise: NoiseKind = "each",
    ) -> None:
        super().__init__(
            "pixel_cifar10" if colour == "rgb" else f"pixel_cifar10_{colour}",
            3 * 1024 if colour == "scalar" else 1024,
            3 if colour == "rgb" else 1,
            permute,
            permutation_seed,
            val_size,
            split_seed,
            batch_size,
            seed,
            num_workers,
            pixels_per_step=pixels_per_step,
            pad_to=pad_to,
            noise=noise,
        )
        self.root, self.colour = root, colour
        self.tell_unread_order(permutation_seed)

    def prepare_data(self) -> None:
        """Download the archive, compare it with its sum and take its six files out, unless they are there."""
        prepare_cifar10(self.root)

    def images(self, name: Split) -> tuple[Tensor, Tensor]:
        images, labels = read_cifar10(self.root, train=name != "test")
        if name != "test":
            self.check_val_size(len(labels))
            chosen = self.drawn(name, len(labels))
            images, labels = images[chosen], labels[chosen]
        if self.colour == "gray":
            weights = torch.tensor([19595, 38470, 7471], dtype=torch.int32)  # of 65,536
            images = ((images.int() * weights).sum(-1, keepdim=True) + 0x8000 >> 16).to(torch.uint8)
        return images.reshape(len(images), -1, self.channels), labels
