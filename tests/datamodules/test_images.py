"""Rows, noise, Fashion-MNIST, KMNIST and CIFAR-10, against slow loops over bytes that the test writes."""

from __future__ import annotations

import gzip
import hashlib
import io
import struct
import tarfile
import urllib.request
from pathlib import Path
from typing import Any
from urllib.error import URLError

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import datasets

from datamodules import PixelCIFAR10, PixelDigits, PixelMNIST, UserError, image_files
from datamodules.image_files import IDX_IMAGES

COUNTS = {"train": 12, "t10k": 5}


def idx_bytes(split: str, seed: int) -> tuple[bytes, bytes]:
    """A file of images and one of labels in the idx format, big-endian."""
    random, count = np.random.RandomState(seed), COUNTS[split]
    images = struct.pack(">4i", 2051, count, 28, 28) + random.bytes(784 * count)
    return images, struct.pack(">2i", 2049, count) + bytes(random.randint(10, size=count).tolist())


def record(index: int) -> bytes:
    """A record of CIFAR-10: label, then 1,024 bytes of red, of green, of blue, each row by row."""
    return bytes([index % 10]) + np.random.RandomState(index).bytes(3 * 1024)


def cifar_members() -> dict[str, bytes]:
    """Two images in each of the five training files, numbers 0 to 9, and four of test, 100 to 103."""
    members = {f"data_batch_{k + 1}.bin": record(2 * k) + record(2 * k + 1) for k in range(5)}
    return {**members, "test_batch.bin": b"".join(record(100 + k) for k in range(4))}


@pytest.fixture
def cifar(tmp_path: Path) -> Path:
    folder = tmp_path / "cifar-10-batches-bin"
    folder.mkdir()
    for name, content in cifar_members().items():
        (folder / name).write_bytes(content)
    return tmp_path


@pytest.fixture
def mnist(tmp_path: Path) -> Path:
    for number, folder in enumerate(("MNIST", "FashionMNIST", "KMNIST")):
        raw = tmp_path / folder / "raw"
        raw.mkdir(parents=True)
        for split in COUNTS:
            images, labels = idx_bytes(split, 10 * number + COUNTS[split])
            (raw / f"{split}-images-idx3-ubyte").write_bytes(images)
            (raw / f"{split}-labels-idx1-ubyte").write_bytes(labels)
    return tmp_path


def everything(data: Any, split: str) -> tuple[torch.Tensor, torch.Tensor]:
    batches = data.split(split)
    x, y = batches[np.arange(len(batches))]
    return x, y


# ---- what a step shows


@pytest.mark.parametrize(
    ("options", "steps", "width"),
    [
        ({}, 1024, 3),
        ({"colour": "scalar"}, 3072, 1),
        ({"pixels_per_step": 32}, 32, 96),
        ({"colour": "scalar", "pixels_per_step": 96}, 32, 96),
        ({"permute": True}, 1024, 3),
    ],
)
def test_cifar_number_by_number(cifar: Path, options: dict[str, Any], steps: int, width: int) -> None:
    """Number k of a sequence is colour k mod 3 of pixel k // 3, in row order or in the seeded one."""
    data = PixelCIFAR10(root=str(cifar), val_size=3, **options)
    assert (data.task.length, data.task.input_size, data.task.target_size) == (steps, width, 10)
    order = np.random.RandomState(92916).permutation(1024) if "permute" in options else np.arange(1024)
    x, y = everything(data, "test")
    assert x.shape == (4, steps, width) and x.dtype == torch.float32
    for index, (sequence, label) in enumerate(zip(x.flatten(1).tolist(), y.tolist(), strict=True)):
        bytes_ = record(100 + index)
        assert label == bytes_[0]
        for k in (*range(9), 95, 96, 97, 1500, 3069, 3070, 3071):
            assert sequence[k] == pytest.approx(bytes_[1 + 1024 * (k % 3) + order[k // 3]] / 255, abs=1e-7)


def test_cifar_in_grey_is_pillows(cifar: Path) -> None:
    data = PixelCIFAR10(root=str(cifar), val_size=3, colour="gray")
    assert data.task.input_size == 1 and data.task.length == 1024 and data.task.name == "pixel_cifar10_gray"
    for index, sequence in enumerate(everything(data, "test")[0]):
        planes = np.frombuffer(record(100 + index), np.uint8)[1:].reshape(3, 32, 32)
        grey = np.asarray(Image.fromarray(planes.transpose(1, 2, 0)).convert("L"))
        assert np.array_equal((sequence[:, 0] * 255).round().numpy(), grey.ravel())


def test_cifar_splits_share_no_image(cifar: Path) -> None:
    data = PixelCIFAR10(root=str(cifar), val_size=3)
    labels = {name: everything(data, name)[1].tolist() for name in ("train", "val")}
    assert len(labels["val"]) == 3 and sorted(labels["train"] + labels["val"]) == list(range(10))
    assert labels["val"] == np.random.RandomState(0).permutation(10)[:3].tolist()
    with pytest.raises(UserError, match="val_size is 10"):
        PixelCIFAR10(root=str(cifar), val_size=10).split("val")


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist", "kmnist"])
def test_rows_of_28(mnist: Path, name: Any) -> None:
    data = PixelMNIST(str(mnist), val_size=2, dataset=name, pixels_per_step=28, verify=False)
    number = ("mnist", "fashion_mnist", "kmnist").index(name)
    images, labels = idx_bytes("t10k", 10 * number + 5)
    assert data.task.name == f"pixel_{name}_by_28" and (data.task.length, data.task.input_size) == (28, 28)
    x, y = everything(data, "test")
    for index in range(5):
        assert int(y[index]) == labels[8 + index]
        for row in range(28):
            start = 16 + 784 * index + 28 * row
            assert (x[index, row] * 255).round().tolist() == list(images[start : start + 28])


# ---- noise


@pytest.mark.parametrize("noise", ["each", "shared"])
def test_noise_follows_the_image(cifar: Path, noise: Any) -> None:
    options: dict[str, Any] = {"root": str(cifar), "val_size": 3, "pixels_per_step": 32}
    plain, data = PixelCIFAR10(**options), PixelCIFAR10(**options, pad_to=1000, noise=noise)
    assert data.task.name == "noisy_pixel_cifar10_by_32" and data.task.length == 1000
    parts = {}
    for name in ("train", "val", "test"):
        x, y = everything(data, name)
        image, same = everything(plain, name)
        assert x.shape[1:] == (1000, 96) and torch.equal(x[:, :32], image) and torch.equal(y, same)
        parts[name] = x[:, 32:]
        assert torch.equal(data.changeable(x)[0, :, 0], torch.arange(1000) < 32)
    drawn = torch.cat(list(parts.values()))
    if noise == "shared":
        assert (drawn == drawn[0]).all()
    else:
        assert len({tuple(one[0].tolist()) for one in drawn}) == len(drawn) == 14
    numbers = drawn[0].double()
    assert abs(numbers.mean()) < 0.02 and abs(numbers.std() - 1) < 0.02  # 92,928 of them
    assert abs((numbers[1:] * numbers[:-1]).mean()) < 0.02 and abs(numbers.pow(4).mean() - 3) < 0.2
    split = data.split("train")  # in any order, and again
    assert torch.equal(split[np.array([5, 1])][0], split[np.arange(7)][0][[5, 1]])
    other = PixelCIFAR10(**options, pad_to=1000, noise=noise, split_seed=1).split("test")[np.arange(1)][0]
    assert not torch.equal(other[:, 32:], parts["test"][:1])


def test_mnist_of_rows_and_noise(mnist: Path) -> None:
    data = PixelMNIST(str(mnist), val_size=2, pixels_per_step=28, pad_to=1000, verify=False)
    assert everything(data, "val")[0].shape == (2, 1000, 28) and data.task.length == 1000
    digits = PixelDigits(pixels_per_step=8, pad_to=50)
    assert digits.split("val")[np.arange(3)][0].shape == (3, 50, 8)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"pad_to": 28, "pixels_per_step": 28}, "pad_to is 28"),
        ({"pad_to": 1000, "protocol": "nru"}, "pad_to is 1000"),
        ({"noise": "white"}, "noise is 'white'"),
        ({"dataset": "emnist"}, "dataset is 'emnist'"),
    ],
)
def test_bad_options(options: dict[str, Any], named: str) -> None:
    with pytest.raises(UserError, match=named):
        PixelMNIST(**options)


# ---- files


def test_addresses_and_sums_are_torchvisions() -> None:
    for name, cls in (("fashion_mnist", datasets.FashionMNIST), ("kmnist", datasets.KMNIST)):
        ours = IDX_IMAGES[name]
        assert ours.address in cls.mirrors and ours.folder == cls.__name__
        assert {f"{file}.gz": sum_ for file, sum_ in ours.archives.items()} == dict(cls.resources)
    assert IDX_IMAGES["mnist"].address in datasets.MNIST.mirrors


class Served:
    """What a server gives by address; nothing but a sentence for others."""

    def __init__(self, files: dict[str, bytes]) -> None:
        self.files = files

    def __call__(self, request: Any, **_: Any) -> Any:
        if request.full_url not in self.files:
            raise URLError("Name or service not known")
        answer: Any = io.BytesIO(self.files[request.full_url])
        answer.headers = {"Content-Length": str(len(self.files[request.full_url]))}
        return answer


def test_fashion_mnist_is_downloaded_and_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = [f"{split}-{kind}-ubyte" for split in COUNTS for kind in ("images-idx3", "labels-idx1")]
    contents = [content for split in COUNTS for content in idx_bytes(split, COUNTS[split])]
    archives = {name: gzip.compress(content) for name, content in zip(names, contents, strict=True)}
    there = IDX_IMAGES["fashion_mnist"]
    sums = {name: hashlib.md5(content).hexdigest() for name, content in archives.items()}
    small = image_files.IdxImages(there.folder, there.address, sums, {})
    monkeypatch.setitem(IDX_IMAGES, "fashion_mnist", small)
    served = Served({f"{there.address}{name}.gz": content for name, content in archives.items()})
    monkeypatch.setattr(urllib.request, "urlopen", served)
    data = PixelMNIST(str(tmp_path), val_size=2, dataset="fashion_mnist")
    data.prepare_data()
    raw = tmp_path / "FashionMNIST" / "raw"
    assert [(raw / name).read_bytes() for name in names] == contents
    assert len(data.split("train")) == 10
    monkeypatch.setattr(urllib.request, "urlopen", Served({}))
    data.prepare_data()  # all there: nothing is asked for
    monkeypatch.setitem(IDX_IMAGES, "fashion_mnist", there)  # the published sums
    monkeypatch.setattr(urllib.request, "urlopen", served)
    (raw / names[0]).unlink()
    with pytest.raises(UserError, match="8d4fb7e6c68d591d4c3dfef9ec88bf0d"):
        data.prepare_data()
    assert not (raw / names[0]).exists()


def test_cifar_is_downloaded_and_nothing_gets_out_of_its_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = io.BytesIO()
    with tarfile.open(fileobj=held, mode="w:gz") as archive:
        members = {f"cifar-10-batches-bin/{name}": content for name, content in cifar_members().items()}
        for name, content in {"../escaped.txt": b"x", "/tmp/escaped": b"x", **members}.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    address = "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz"
    monkeypatch.setattr(urllib.request, "urlopen", Served({address: held.getvalue()}))
    root = tmp_path / "data"
    data = PixelCIFAR10(root=str(root), val_size=3)
    with pytest.raises(UserError, match=f"{address}.*not c32a1d4ab5d03f1284b67883e8d87530"):
        data.prepare_data()
    assert not list((root / "cifar-10-batches-bin").glob("*.bin"))
    sum_ = hashlib.md5(held.getvalue()).hexdigest()
    monkeypatch.setattr(image_files, "_CIFAR10_SUM", sum_)
    data.prepare_data()
    files = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()}
    assert files == {f"data/cifar-10-batches-bin/{name}" for name in (*cifar_members(), ".lock")}
    assert len(data.split("train")) == 7


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    """Here because it is a folder; elsewhere because it is somebody else's."""
    for name in ("cifar-10-batches-bin/test_batch.bin", "MNIST/raw/t10k-images-idx3-ubyte"):
        (tmp_path / name).mkdir(parents=True)
    for data in (PixelCIFAR10(str(tmp_path)), PixelMNIST(str(tmp_path), verify=False)):
        with pytest.raises(UserError, match=r"cannot be read \(Is a directory\); data\.init_args\.root is"):
            data.images("test")


def test_no_network_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(urllib.request, "urlopen", Served({}))
    for data in (PixelCIFAR10(root=str(tmp_path)), PixelMNIST(str(tmp_path), dataset="kmnist")):
        with pytest.raises(UserError, match=r"data\.init_args\.root") as caught:
            data.prepare_data()
        assert "\n" not in str(caught.value) and "http" in str(caught.value) and str(tmp_path) in str(caught.value)


@pytest.mark.parametrize("spoil", [lambda b: b[:-1], lambda b: b"", lambda b: bytes([10]) + b[1:], None])
def test_spoilt_cifar_is_named(cifar: Path, spoil: Any) -> None:
    path = cifar / "cifar-10-batches-bin" / "data_batch_3.bin"
    path.unlink() if spoil is None else path.write_bytes(spoil(path.read_bytes()))
    data = PixelCIFAR10(root=str(cifar), val_size=3)
    with pytest.raises(UserError, match=r"data_batch_3\.bin") as caught:
        data.split("train")
    assert "\n" not in str(caught.value)
    assert len(data.split("test")) == 4  # which is another file
