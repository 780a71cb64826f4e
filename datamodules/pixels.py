"""Images read pixel by pixel (Le et al. 2015), in row order or in one fixed random order."""

from __future__ import annotations

import math
import random
from abc import abstractmethod
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import ClassVar, Literal, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from datamodules.base import Batch, IndexedBatches, Indices, SequenceDataModule, Split
from datamodules.downloads import Download, fetch
from datamodules.errors import UserError, one_line, require
from datamodules.sums import check_sums
from datamodules.task import Task

# (images, labels) by whether they are for training
_MNIST_FILES = {
    True: ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    False: ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}

_MNIST_SUMS = {
    "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}

# the mirror that torchvision takes
_MNIST_DOWNLOADS = [
    Download(f"https://ossci-datasets.s3.amazonaws.com/mnist/{name}.gz", {name: ""}, sums={name: value})
    for name, value in _MNIST_SUMS.items()
]

PublishedPermutation = Literal["urnn", "nnrnn", "eunn", "nru"]
_SEEDS = {"urnn": 92916, "nnrnn": 1234}


def pixel_permutation(seed: int | PublishedPermutation, pixels: int) -> NDArray[np.int64]:
    """The order in which pixels are read: step t shows pixel perm[t].

    An int is ``RandomState(seed).permutation(pixels)``; the names are those of the released codes:

    - ``urnn``: seed 92916 (Wisdom's full-capacity uRNN, scoRNN, scuRNN, expRNN, projUNN);
    - ``nnrnn``: seed 1234;
    - ``eunn``: Python's ``random.seed(2017)`` and ``shuffle``, as Python 3 draws it;
    - ``nru``: seed 50, drawn after a permutation of the 60,000 training images (NRU, LMU).
    """
    if seed == "eunn":
        order = list(range(pixels))
        random.Random(2017).shuffle(order)
        return np.array(order)
    if seed == "nru":
        state = np.random.RandomState(50)
        state.permutation(60_000)
        return state.permutation(pixels)
    number = _SEEDS.get(cast(str, seed), seed)
    accepted = "a whole number from 0 to 2**32 - 1, or one of urnn, nnrnn, eunn, nru"
    require(isinstance(number, int) and 0 <= number < 2**32, "data.init_args.permutation_seed", seed, accepted)
    return np.random.RandomState(cast(int, number)).permutation(pixels)


class _Pixels(IndexedBatches):
    """Images as (N, T, channels) bytes in reading order, given out as float32 fractions of ``full_scale``."""

    def __init__(self, pixels: Tensor, labels: Tensor, full_scale: float) -> None:
        self.pixels, self.labels, self.full_scale = pixels, labels, full_scale

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, indices: Indices) -> Batch:
        chosen = torch.from_numpy(indices)
        return self.pixels[chosen].float() / self.full_scale, self.labels[chosen]


class PixelDataModule(SequenceDataModule):
    """Common to all pixel tasks: the permutation, and splits that share no image.

    Labels are read from the last step; a predictor that does not look costs ln(classes) nats.
    """

    classes = 10
    full_scale: float
    bounds = (0.0, 1.0)
    task_options: ClassVar[tuple[str, ...]] = (
        "permute",
        "permutation_seed",
        "pixels_per_step",
        "val_size",
        "split_seed",
    )

    def __init__(
        self,
        name: str,
        steps: int,
        channels: int,
        permute: bool,
        permutation_seed: int | PublishedPermutation,
        val_size: int,
        split_seed: int,
        batch_size: int,
        seed: int | None,
        num_workers: int,
        blank_steps: int = 0,
        pixels_per_step: int = 1,
    ) -> None:
        super().__init__(batch_size, seed, num_workers)
        whole = pixels_per_step >= 1 and steps % pixels_per_step == 0
        require(whole, "data.init_args.pixels_per_step", pixels_per_step, f"a divisor of the image's {steps} pixels")
        require(val_size >= 1, "data.init_args.val_size", val_size, "a whole number of at least 1")
        require(0 <= split_seed < 2**32, "data.init_args.split_seed", split_seed, "a whole number of at least 0")
        self.val_size, self.split_seed, self.blank_steps = val_size, split_seed, blank_steps
        permutation = pixel_permutation(permutation_seed, steps)  # refused even where it is not used
        self.permute = permute
        self.permutation_seed = _SEEDS.get(cast(str, permutation_seed), permutation_seed) if permute else None
        self.order = torch.from_numpy(permutation if permute else np.arange(steps))
        self.channels, self.pixels_per_step = channels, pixels_per_step
        steps //= pixels_per_step
        name = name if pixels_per_step == 1 else f"{name}_by_{pixels_per_step}"
        self.task = Task(
            name=f"permuted_{name}" if permute else name,
            inputs="values",
            input_size=channels * pixels_per_step,
            targets="label",
            target_size=self.classes,
            length=steps + blank_steps,
            scored="last",
            chance=math.log(self.classes),
            metric="accuracy",
            higher_is_better=True,
        )

    @abstractmethod
    def images(self, name: Split) -> tuple[Tensor, Tensor]:
        """(N, T, channels) bytes in row order and (N,) labels of the split called ``name``."""

    def changeable(self, inputs: Tensor) -> Tensor:
        """The pixels, not the blank steps behind them."""
        free = torch.ones_like(inputs, dtype=torch.bool)
        free[:, len(self.order) // self.pixels_per_step :] = False
        return free

    def split(self, name: Split) -> IndexedBatches:
        images, labels = self.images(name)
        blank = self.blank_steps * self.pixels_per_step
        pixels = nn.functional.pad(images[:, self.order], (0, 0, 0, blank))
        return _Pixels(pixels.reshape(len(labels), -1, self.task.input_size), labels, self.full_scale)


class PixelMNIST(PixelDataModule):
    """MNIST pixel by pixel: 784 scalar steps in [0, 1] (pixel / 255, nothing else), label at the last step.

    The validation split is carved out of the training file; the released expRNN, scoRNN and scuRNN scripts choose
    their best epoch on the test set instead. The test file is opened only by ``test``.

    Protocol ``nru`` (Chandar et al. 2019; LMU) reads the label at an extra 785th step, a blank one; it cuts the
    validation images, 10,000, off the end of ``RandomState(50).permutation`` of the training file, and permutes by
    ``permutation_seed: nru``.

    Args:
        root: Folder that holds (or will hold, after the download) ``MNIST/raw/*-ubyte``.
        permute: Read the pixels in one fixed random order (psMNIST).
        permutation_seed: Which order; see `pixel_permutation` for the published ones by name. Null: the protocol's,
            92916 for ``common``.
        val_size: Images set apart from the training file for validation; null: 5,000, or 10,000 for ``nru``.
        split_seed: Chooses which ones; ``nru`` has its own.
        protocol: ``common`` or ``nru``.
        batch_size: Sequences per step and process.
        seed: Seeds the order of training; None takes the run's ``seed_everything``.
        num_workers: Processes that prepare batches.
        pixels_per_step: How many pixels, after the permutation, are read at a step; 28 reads row by row.
        verify: Compare the files with the published ones by their SHA-256; false for other data in MNIST's format.
    """

    full_scale = 255.0
    task_options = (*PixelDataModule.task_options, "protocol")

    def __init__(
        self,
        root: str = "data",
        permute: bool = False,
        permutation_seed: int | PublishedPermutation | None = None,
        val_size: int | None = None,
        split_seed: int = 0,
        batch_size: int = 128,
        seed: int | None = None,
        num_workers: int = 0,
        protocol: Literal["common", "nru"] = "common",
        pixels_per_step: int = 1,
        verify: bool = True,
    ) -> None:
        require(protocol in ("common", "nru"), "data.init_args.protocol", protocol, "common or nru")
        published = protocol == "nru"
        super().__init__(
            "pixel_mnist",
            784,
            1,
            permute,
            ("nru" if published else 92916) if permutation_seed is None else permutation_seed,
            (10_000 if published else 5_000) if val_size is None else val_size,
            split_seed,
            batch_size,
            seed,
            num_workers,
            blank_steps=int(published),
            pixels_per_step=pixels_per_step,
        )
        self.root, self.protocol, self.verify = root, protocol, verify

    def _file(self, name: str) -> Path:
        return Path(self.root, "MNIST", "raw", name)

    def prepare_data(self) -> None:
        """Download the four files unless they are there; check what is there by its sum."""
        if all(self._file(name).is_file() for pair in _MNIST_FILES.values() for name in pair):
            self._check_files(_MNIST_SUMS)
            return
        fetch(self._file(""), "MNIST", _MNIST_DOWNLOADS)

    def _check_files(self, names: Iterable[str]) -> None:
        if self.verify:
            check_sums(self._file(""), {name: _MNIST_SUMS[name] for name in names}, "data.init_args.verify")

    def _read(self, train: bool) -> tuple[Tensor, Tensor]:
        from torchvision.datasets.mnist import read_image_file, read_label_file

        def read(reader: Callable[[str], Tensor], name: str, content: str) -> Tensor:
            try:
                return reader(str(self._file(name)))
            except FileNotFoundError as error:
                raise UserError(f"{self._file(name)} is missing; data.init_args.root is {self.root!r}.") from error
            except (RuntimeError, TypeError, ValueError, AssertionError, IndexError, KeyError) as error:
                raise UserError(
                    f"{self._file(name)} is not an idx file of {content}, or is cut short "
                    f"({one_line(error) or type(error).__name__}); delete it and run again to download it anew."
                ) from error

        image_file, label_file = _MNIST_FILES[train]
        self._check_files(_MNIST_FILES[train])
        images = read(read_image_file, image_file, "28x28 images")
        labels = read(read_label_file, label_file, "labels")
        sound = images.shape == (len(labels), 28, 28) and len(labels) > 0 and int(labels.max()) < self.classes
        if not sound:
            raise UserError(
                f"{self._file(image_file)} holds {tuple(images.shape)} and {label_file} {len(labels)} labels up to "
                f"{int(labels.max()) if len(labels) else 'none'}: as many 28x28 images as labels 0 to 9 are accepted; "
                "delete both and run again to download them anew."
            )
        return images, labels

    def images(self, name: Split) -> tuple[Tensor, Tensor]:
        images, labels = self._read(train=name != "test")
        if name != "test":
            require(
                self.val_size < len(labels),
                "data.init_args.val_size",
                self.val_size,
                f"less than the {len(labels)} images of the training file",
            )
            if self.protocol == "nru":
                train, val = np.split(np.random.RandomState(50).permutation(len(labels)), [-self.val_size])
            else:
                order = np.random.RandomState(self.split_seed).permutation(len(labels))
                val, train = np.split(order, [self.val_size])
            chosen = torch.from_numpy(val if name == "val" else train)
            images, labels = images[chosen], labels[chosen]
        return images.reshape(len(images), 784, 1), labels


class PixelDigits(PixelDataModule):
    """scikit-learn's 1,797 handwritten 8x8 digits pixel by pixel: 64 scalar steps in [0, 1] (value / 16), no download.

    Args:
        permute: Read the pixels in one fixed random order.
        permutation_seed: Which order; see `pixel_permutation`.
        val_size: Images for validation.
        test_size: Images for the test.
        split_seed: Chooses which ones.
        batch_size: Sequences per step and process.
        seed: Seeds the order of training; None takes the run's ``seed_everything``.
        num_workers: Processes that prepare batches.
        pixels_per_step: How many pixels, after the permutation, are read at a step; 8 reads row by row.
    """

    full_scale = 16.0
    task_options = (*PixelDataModule.task_options, "test_size")
    total = 1_797

    def __init__(
        self,
        permute: bool = False,
        permutation_seed: int | PublishedPermutation = 92916,
        val_size: int = 180,
        test_size: int = 360,
        split_seed: int = 0,
        batch_size: int = 64,
        seed: int | None = None,
        num_workers: int = 0,
        pixels_per_step: int = 1,
    ) -> None:
        super().__init__(
            "pixel_digits",
            64,
            1,
            permute,
            permutation_seed,
            val_size,
            split_seed,
            batch_size,
            seed,
            num_workers,
            pixels_per_step=pixels_per_step,
        )
        require(test_size >= 1, "data.init_args.test_size", test_size, "a whole number of at least 1")
        require(
            val_size + test_size < self.total,
            "data.init_args.val_size",
            val_size,
            f"less than the {self.total} images minus test_size = {test_size}",
        )
        self.test_size = test_size

    def images(self, name: Split) -> tuple[Tensor, Tensor]:
        from sklearn.datasets import load_digits

        data, target = load_digits(return_X_y=True)
        order = np.random.RandomState(self.split_seed).permutation(len(target))
        test, val, train = np.split(order, [self.test_size, self.test_size + self.val_size])
        chosen = {"train": train, "val": val, "test": test}[name]
        images = torch.from_numpy(data[chosen].astype(np.uint8)).reshape(len(chosen), 64, 1)
        return images, torch.from_numpy(target[chosen].astype(np.int64))
