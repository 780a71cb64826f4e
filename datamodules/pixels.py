"""Images read pixel by pixel (Le et al. 2015), in row order or in one fixed random order."""

from __future__ import annotations

import math
import random
from abc import abstractmethod
from typing import ClassVar, Literal, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from datamodules.base import SPLIT_IDS, Batch, IndexedBatches, Indices, SequenceDataModule, Split
from datamodules.errors import require, whole
from datamodules.image_files import IDX_IMAGES
from datamodules.task import Task

NoiseKind = Literal["each", "shared"]
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


class Noise:
    """White normal noise behind every image: a function of (seed, split, index), or of the seed alone.

    Each number is one of 65,536 equally likely quantiles of the standard normal law, ndtri((k + 1/2) / 65,536): mean 0,
    variance 0.99998, at most 4.32 in size, and eight times as fast as exact draws.

    Args:
        seed: Of the noise.
        split: Which split it is for; None: all images of all splits have the same.
    """

    def __init__(self, seed: int, split: Split | None) -> None:
        from scipy.special import ndtri  # for noise alone

        self.seed, self.split = seed, split
        self.quantiles = ndtri((np.arange(1 << 16) + 0.5) / (1 << 16)).astype(np.float32)

    def fill(self, steps: Tensor, indices: Indices) -> None:
        """Put it into ``steps`` (B, T, I), each sample of which is one piece of memory."""
        if self.split is None:
            steps[:] = torch.from_numpy(self._draw(np.empty(steps.shape[1:], dtype=np.float32), []))
            return
        for sample, index in zip(steps.numpy(), indices.tolist(), strict=True):
            self._draw(sample, [SPLIT_IDS[self.split], index])

    def _draw(self, into: NDArray[np.float32], key: list[int]) -> NDArray[np.float32]:
        words = np.random.SFC64([_NOISE_ID, self.seed, *key]).random_raw(-(-into.size // 4))
        places = words.view(np.uint16)[: into.size].reshape(into.shape)
        return np.take(self.quantiles, places, out=into, mode="wrap")  # with mode raise it would be buffered


_NOISE_ID = 16  # away from what samples and their order are drawn by


class _Pixels(IndexedBatches):
    """Images as (N, T, channels) bytes in reading order, given out as float32 fractions of ``full_scale``.

    Args:
        pixels: The images.
        labels: (N,).
        full_scale: What a byte is divided by.
        pad_to: Steps in all, those behind the image filled with ``noise``.
    """

    def __init__(self, pixels: Tensor, labels: Tensor, full_scale: float, pad_to: int, noise: Noise | None) -> None:
        self.pixels, self.labels, self.full_scale = pixels, labels, full_scale
        self.pad_to, self.noise = pad_to, noise

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, indices: Indices) -> Batch:
        chosen = torch.from_numpy(indices)
        images = self.pixels[chosen]
        B, T, I = images.shape  # noqa: E741
        given = torch.empty(B, self.pad_to, I, dtype=torch.float32)
        torch.div(images, self.full_scale, out=given[:, :T])
        if self.noise is not None:
            self.noise.fill(given[:, T:], indices)
        return given, self.labels[chosen]


class PixelDataModule(SequenceDataModule):
    """Common to all pixel tasks: the permutation, and splits that share no image.

    Labels are read from the last step; a predictor that does not look costs ln(classes) nats. ``bounds`` are those of
    the pixels: noise has none.
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
        "pad_to",
        "noise",
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
        pad_to: int | None = None,
        noise: NoiseKind = "each",
    ) -> None:
        super().__init__(batch_size, seed, num_workers)
        divides = pixels_per_step >= 1 and steps % pixels_per_step == 0
        require(divides, "data.init_args.pixels_per_step", pixels_per_step, f"a divisor of the image's {steps} pixels")
        whole(val_size, "data.init_args.val_size", 1)
        require(0 <= split_seed < 2**32, "data.init_args.split_seed", split_seed, "a whole number of at least 0")
        self.val_size, self.split_seed, self.blank_steps = val_size, split_seed, blank_steps
        permutation = pixel_permutation(permutation_seed, steps)  # refused even where it is not used
        self.permute = permute
        self.permutation_seed = _SEEDS.get(cast(str, permutation_seed), permutation_seed) if permute else None
        self.order = torch.from_numpy(permutation if permute else np.arange(steps))
        self.channels, self.pixels_per_step = channels, pixels_per_step
        steps //= pixels_per_step
        name = name if pixels_per_step == 1 else f"{name}_by_{pixels_per_step}"
        more = f"null, or more than the {steps} steps of the image, and no blank step with it"
        require(pad_to is None or (pad_to > steps and not blank_steps), "data.init_args.pad_to", pad_to, more)
        if pad_to is None:
            self.tell_unread("noise", noise, "pad_to: null")
        self.pad_to, self.noise = pad_to, noise if pad_to is not None else None
        name = name if pad_to is None else f"noisy_{name}"
        self.task = Task(
            name=f"permuted_{name}" if permute else name,
            inputs="values",
            input_size=channels * pixels_per_step,
            targets="label",
            target_size=self.classes,
            length=steps + blank_steps if pad_to is None else pad_to,
            scored="last",
            chance=math.log(self.classes),
            metric="accuracy",
            higher_is_better=True,
        )

    def tell_unread_order(self, permutation_seed: int | PublishedPermutation | None) -> None:
        """Tell of an order that nothing is read in, as the user gave it."""
        if not self.permute:
            self.tell_unread("permutation_seed", permutation_seed, "permute: false")

    @abstractmethod
    def images(self, name: Split) -> tuple[Tensor, Tensor]:
        """(N, T, channels) bytes in row order and (N,) labels of the split called ``name``."""

    def changeable(self, inputs: Tensor) -> Tensor:
        """The pixels, not the blank or noisy steps behind them."""
        free = torch.ones_like(inputs, dtype=torch.bool)
        free[:, len(self.order) // self.pixels_per_step :] = False
        return free

    def check_val_size(self, count: int) -> None:
        """Refuse to set all of ``count`` training images apart."""
        accepted = f"less than the {count} images of the training file"
        require(self.val_size < count, "data.init_args.val_size", self.val_size, accepted)

    def drawn(self, name: Split, count: int) -> Tensor:
        """Which of ``count`` training images are those of validation, or of training."""
        order = np.random.RandomState(self.split_seed).permutation(count)
        val, train = np.split(order, [self.val_size])
        return torch.from_numpy(val if name == "val" else train)

    def split(self, name: Split) -> IndexedBatches:
        images, labels = self.images(name)
        blank = self.blank_steps * self.pixels_per_step
        pixels = nn.functional.pad(images[:, self.order], (0, 0, 0, blank))
        pixels = pixels.reshape(len(labels), -1, self.task.input_size)
        noise = None
        if self.pad_to is not None:
            noise = Noise(self.split_seed, name if self.noise == "each" else None)
        return _Pixels(pixels, labels, self.full_scale, self.pad_to or pixels.shape[1], noise)


class PixelMNIST(PixelDataModule):
    """MNIST pixel by pixel: 784 scalar steps in [0, 1] (pixel / 255, nothing else), label at the last step.

    The validation split is carved out of the training file; the released expRNN, scoRNN and scuRNN scripts choose
    their best epoch on the test set instead. The test file is opened only by ``test``.

    Protocol ``nru`` (Chandar et al. 2019; LMU) reads the label at an extra 785th step, a blank one; it cuts the
    validation images, 10,000, off the end of ``RandomState(50).permutation`` of the training file, and permutes by
    ``permutation_seed: nru``.

    With ``pad_to`` noise follows the image, and the label is read behind it: the image has to be remembered. With
    ``pixels_per_step: 28`` and ``pad_to: 1000`` that is 28 rows and 972 steps of noise.

    Args:
        root: Folder that holds (or will hold, after the download) ``MNIST/raw/*-ubyte``.
        permute: Read the pixels in one fixed random order (psMNIST).
        permutation_seed: Which order; see `pixel_permutation` for the published ones by name. Null: the protocol's,
            92916 for ``common``.
        val_size: Images set apart from the training file for validation; null: 5,000, or 10,000 for ``nru``.
        split_seed: Chooses which ones, and the noise; ``nru`` has its own.
        protocol: ``common`` or ``nru``.
        batch_size: Sequences per step and process.
        seed: Seeds the order of training; None takes the run's ``seed_everything``.
        num_workers: Processes that prepare batches.
        pixels_per_step: How many pixels, after the permutation, are read at a step; 28 reads row by row.
        verify: Compare the files with the published ones by their SHA-256; false for other data in MNIST's format. Of
            the other two sets only archives have a published sum: they are compared when they are downloaded.
        dataset: ``mnist``, or what has its format: ``fashion_mnist`` (Xiao et al. 2017) or ``kmnist`` (Clanuwat et al.
            2018), in ``FashionMNIST/raw`` and ``KMNIST/raw``.
        pad_to: Steps in all, noise behind the image; null: the image alone.
        noise: Standard normal; ``each`` image of each split has its own, or ``shared``: all have the same, as the
            released codes of LipschitzRNN and coRNN do it.
    """

    full_scale = 255.0
    task_options = (*PixelDataModule.task_options, "protocol", "dataset")

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
        dataset: Literal["mnist", "fashion_mnist", "kmnist"] = "mnist",
        pad_to: int | None = None,
        noise: NoiseKind = "each",
    ) -> None:
        published = protocol == "nru"
        super().__init__(
            f"pixel_{dataset}",
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
            pad_to=pad_to,
            noise=noise,
        )
        self.root, self.protocol, self.verify, self.dataset = root, protocol, verify, dataset
        self.tell_unread_order(permutation_seed)
        if published:
            self.tell_unread("split_seed", split_seed, "protocol: nru")

    def prepare_data(self) -> None:
        """Download the four files unless they are there; check what is there by its sum."""
        IDX_IMAGES[self.dataset].prepare(self.root, self.verify)

    def images(self, name: Split) -> tuple[Tensor, Tensor]:
        images, labels = IDX_IMAGES[self.dataset].read(self.root, name != "test", self.classes, self.verify)
        if name != "test":
            self.check_val_size(len(labels))
            if self.protocol == "nru":
                train, val = np.split(np.random.RandomState(50).permutation(len(labels)), [-self.val_size])
                chosen = torch.from_numpy(val if name == "val" else train)
            else:
                chosen = self.drawn(name, len(labels))
            images, labels = images[chosen], labels[chosen]
        return images.reshape(len(images), 784, 1), labels


class PixelDigits(PixelDataModule):
    """scikit-learn's 1,797 handwritten 8x8 digits pixel by pixel: 64 scalar steps in [0, 1] (value / 16), no download.

    Args:
        permute: Read the pixels in one fixed random order.
        permutation_seed: Which order; see `pixel_permutation`.
        val_size: Images for validation.
        test_size: Images for the test.
        split_seed: Chooses which ones, and the noise.
        batch_size: Sequences per step and process.
        seed: Seeds the order of training; None takes the run's ``seed_everything``.
        num_workers: Processes that prepare batches.
        pixels_per_step: How many pixels, after the permutation, are read at a step; 8 reads row by row.
        pad_to: Steps in all, noise behind the image; null: the image alone.
        noise: Standard normal; ``each`` image of each split has its own, or ``shared``: all have the same.
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
        pad_to: int | None = None,
        noise: NoiseKind = "each",
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
            pad_to=pad_to,
            noise=noise,
        )
        self.tell_unread_order(permutation_seed)
        whole(test_size, "data.init_args.test_size", 1)
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
