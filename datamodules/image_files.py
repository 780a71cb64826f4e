"""The files of published images: MNIST and what has its format, and CIFAR-10's binary version."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from datamodules.downloads import Download, fetch
from datamodules.errors import UserError, one_line
from datamodules.sums import check_sums

# (images, labels) by whether they are for training
_IDX_FILES = {
    True: ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    False: ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}


@dataclass(frozen=True)
class IdxImages:
    """A set of 28x28 images in MNIST's format, four files.

    Args:
        folder: Below the root, as torchvision calls it.
        address: Where the four files are, each with ``.gz`` behind its name.
        archives: MD5 of those, by the file's name, where they are published.
        files: SHA-256 of the files themselves, where they are published; only such can be compared later.
    """

    folder: str
    address: str
    archives: Mapping[str, str]
    files: Mapping[str, str]

    def of(self, root: str) -> Path:
        """The folder that holds the files."""
        return Path(root, self.folder, "raw").expanduser()

    def prepare(self, root: str, verify: bool) -> None:
        """Download the files unless they are there; check what is there by its sums."""
        names = [name for pair in _IDX_FILES.values() for name in pair]
        if all((self.of(root) / name).is_file() for name in names):
            self._check(root, names, verify)
            return
        downloads = [
            Download(f"{self.address}{name}.gz", {name: ""}, self.archives.get(name), self._published([name]))
            for name in names
        ]
        fetch(self.of(root), self.folder, downloads)

    def _published(self, names: Sequence[str]) -> dict[str, str]:
        return {name: self.files[name] for name in names if name in self.files}

    def _check(self, root: str, names: Sequence[str], verify: bool) -> None:
        if verify:
            check_sums(self.of(root), self._published(names), "data.init_args.verify")

    def read(self, root: str, train: bool, classes: int, verify: bool) -> tuple[Tensor, Tensor]:
        """(N, 28, 28) bytes and (N,) labels.

        Raises:
            UserError: naming the file that is missing, not the published one, cut short, or does not fit the other.
        """
        from torchvision.datasets.mnist import read_image_file, read_label_file

        def read(reader: Callable[[str], Tensor], name: str, content: str) -> Tensor:
            path = self.of(root) / name
            try:
                return reader(str(path))
            except OSError as error:
                raise _unreadable(path, error, root) from error
            except (RuntimeError, TypeError, ValueError, AssertionError, IndexError, KeyError) as error:
                raise UserError(
                    f"{path} is not an idx file of {content}, or is cut short "
                    f"({one_line(error) or type(error).__name__}); delete it and run again to download it anew."
                ) from error

        image_file, label_file = _IDX_FILES[train]
        self._check(root, _IDX_FILES[train], verify)
        images = read(read_image_file, image_file, "28x28 images")
        labels = read(read_label_file, label_file, "labels")
        sound = images.shape == (len(labels), 28, 28) and len(labels) > 0 and int(labels.max()) < classes
        if not sound:
            raise UserError(
                f"{self.of(root) / image_file} holds {tuple(images.shape)} and {label_file} {len(labels)} labels up to "
                f"{int(labels.max()) if len(labels) else 'none'}: as many 28x28 images as labels 0 to 9 are accepted; "
                "delete both and run again to download them anew."
            )
        return images, labels


def _unreadable(path: Path, error: OSError, root: str) -> UserError:
    why = "is missing" if isinstance(error, FileNotFoundError) else f"cannot be read ({error.strerror})"
    return UserError(f"{path} {why}; data.init_args.root is {root!r}.")


IDX_IMAGES = {
    "mnist": IdxImages(
        "MNIST",
        "https://ossci-datasets.s3.amazonaws.com/mnist/",  # the mirror that torchvision takes
        {},
        {
            "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
            "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
            "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
            "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
        },
    ),
    # of these two torchvision publishes the MD5 of the archives
    "fashion_mnist": IdxImages(
        "FashionMNIST",
        "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
        {
            "train-images-idx3-ubyte": "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
            "train-labels-idx1-ubyte": "25c81989df183df01b3e8a0aad5dffbe",
            "t10k-images-idx3-ubyte": "bef4ecab320f06d8554ea6380940ec79",
            "t10k-labels-idx1-ubyte": "bb300cfdad3c16e7a12a480ee83cd310",
        },
        {},
    ),
    "kmnist": IdxImages(
        "KMNIST",
        "http://codh.rois.ac.jp/kmnist/dataset/kmnist/",
        {
            "train-images-idx3-ubyte": "bdb82020997e1d708af4cf47b453dcf7",
            "train-labels-idx1-ubyte": "e144d726b3acfaa3e44228e80efcd344",
            "t10k-images-idx3-ubyte": "5c965bf0a639b31b8f53240b1b52f4d7",
            "t10k-labels-idx1-ubyte": "7320c461ea6c1c855c0b718fb2a4b134",
        },
        {},
    ),
}


CIFAR10_FILES = {True: tuple(f"data_batch_{number}.bin" for number in range(1, 6)), False: ("test_batch.bin",)}
_CIFAR10 = "cifar-10-batches-bin"  # the archive's own folder
_CIFAR10_ADDRESS = "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz"
_CIFAR10_SUM = "c32a1d4ab5d03f1284b67883e8d87530"
_RECORD = 1 + 3 * 32 * 32  # a label, then 1,024 bytes of red, of green and of blue, each row by row


def prepare_cifar10(root: str) -> None:
    """Download CIFAR-10's binary version unless it is there. Its archive has a published sum, its files have none."""
    names = [name for pair in CIFAR10_FILES.values() for name in pair]
    archive = Download(_CIFAR10_ADDRESS, {name: f"{_CIFAR10}/{name}" for name in names}, _CIFAR10_SUM)
    fetch(Path(root, _CIFAR10).expanduser(), "CIFAR-10", [archive])


def read_cifar10(root: str, train: bool) -> tuple[Tensor, Tensor]:
    """(N, 1024, 3) bytes, pixel by pixel in row order, and (N,) labels.

    Raises:
        UserError: naming the file that is missing, cut short or of another format.
    """
    parts = []
    for name in CIFAR10_FILES[train]:
        path = Path(root, _CIFAR10, name).expanduser()
        try:
            content = np.fromfile(path, dtype=np.uint8)
        except OSError as error:
            raise _unreadable(path, error, root) from error
        whole = len(content) > 0 and len(content) % _RECORD == 0
        records = content.reshape(-1, _RECORD) if whole else content
        if not whole or records[:, 0].max() > 9:
            raise UserError(
                f"{path} has {len(content):,} bytes, but CIFAR-10's binary version has records of {_RECORD:,}, each of "
                "which begins with a label from 0 to 9; delete it and run again to download it anew."
            )
        parts.append(records)
    records = np.concatenate(parts)
    pixels = records[:, 1:].reshape(-1, 3, 1024).transpose(0, 2, 1)
    return torch.from_numpy(np.ascontiguousarray(pixels)), torch.from_numpy(records[:, 0].astype(np.int64))
