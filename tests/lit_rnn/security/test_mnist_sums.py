"""SECURITY.md, "Data": MNIST's four files are what was published, or they are not used."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
import torch

from datamodules import PixelMNIST, UserError

FILES = {
    "train-images-idx3-ubyte": (0x00000803, 60_000, 28, 28),
    "train-labels-idx1-ubyte": (0x00000801, 60_000),
    "t10k-images-idx3-ubyte": (0x00000803, 10_000, 28, 28),
    "t10k-labels-idx1-ubyte": (0x00000801, 10_000),
}


@pytest.fixture(scope="module")
def forged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Whole files in MNIST's format, of other contents."""
    root = tmp_path_factory.mktemp("data")
    raw = root / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for name, (magic, *shape) in FILES.items():
        header = b"".join(number.to_bytes(4, "big") for number in (magic, *shape))
        content = torch.randint(0, 10, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
        (raw / name).write_bytes(header + content.numpy().tobytes())
    return root


def use(root: Path, verify: bool = True) -> PixelMNIST:
    data = PixelMNIST(root=str(root), verify=verify, batch_size=4)
    data.prepare_data()
    data.setup("fit")
    return data


def test_changed_files_are_refused_by_name_and_sums(forged: Path) -> None:
    with pytest.raises(UserError) as refusal:
        use(forged)
    sentence = str(refusal.value)
    named = [name for name in FILES if name in sentence]
    assert named
    assert hashlib.sha256((forged / "MNIST" / "raw" / named[0]).read_bytes()).hexdigest() in sentence
    assert "verify" in sentence


def test_other_data_needs_your_word(forged: Path) -> None:
    data = use(forged, verify=False)
    inputs, _ = next(iter(data.val_dataloader()))
    assert inputs.shape[0] == 4


def entries(raw: Path) -> dict[str, object]:
    """What an attacker, or an older version, may have left for every file: right sizes, times and sums."""
    found = {}
    for name in FILES:
        status = (raw / name).stat()
        digest = hashlib.sha256((raw / name).read_bytes()).hexdigest()
        found[name] = {"size": status.st_size, "mtime_ns": status.st_mtime_ns, "sha256": digest}
    return found


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "null", "1", "[" * 100_000, '{"train-images-idx3-ubyte": 3}', "\0", "ENTRIES", "NAMES"]
)
def test_planted_sums_are_no_proof(text: str, forged: Path) -> None:
    """Sums of other contents were never published."""
    raw = forged / "MNIST" / "raw"
    text = {"ENTRIES": json.dumps(entries(raw)), "NAMES": json.dumps(dict.fromkeys(FILES, True))}.get(text, text)
    (raw / ".sums.json").write_text(text)
    try:
        with pytest.raises(UserError):
            use(forged)
    finally:
        (raw / ".sums.json").unlink(missing_ok=True)


def test_one_file_cut_short_is_named(forged: Path, tmp_path: Path) -> None:
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for name in FILES:
        content = (forged / "MNIST" / "raw" / name).read_bytes()
        (raw / name).write_bytes(content[:1000])
    with pytest.raises(UserError, match="|".join(FILES)):
        use(tmp_path)
