"""Published files by their sums: a changed one is refused, an unchanged one is read once, a read-only folder works."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import numpy as np
import pytest

from datamodules import PixelMNIST, UserError, image_files, sums
from datamodules.sums import MARKER, check_sums


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of files whose sums are computed."""
    names: list[str] = []
    real = sums.sum_of

    def sum_of(path, published):
        names.append(path.name)
        return real(path, published)

    monkeypatch.setattr(sums, "sum_of", sum_of)
    return names


def test_an_unchanged_file_is_read_once_and_a_changed_one_is_refused(tmp_path: Path, read: list[str]) -> None:
    path, published = tmp_path / "a", {"a": digest(b"right"), "missing": digest(b"")}
    path.write_bytes(b"right")
    for _ in range(3):
        check_sums(tmp_path, published, "key")
    assert read == ["a"] and set(json.loads((tmp_path / MARKER).read_text())) == {"a"}
    path.write_bytes(b"wrong")
    os.utime(path, ns=(0, 1))
    with pytest.raises(UserError) as error:
        check_sums(tmp_path, published, "key")
    assert all(word in str(error.value) for word in (str(path), digest(b"right"), digest(b"wrong"), "key"))
    path.write_bytes(b"right")
    check_sums(tmp_path, published, "key")
    assert sorted(path.name for path in tmp_path.iterdir()) == [MARKER, "a"]


@pytest.mark.parametrize("marker", ["", "[]", "{", '{"a": 3}', "[" * 100_000])
def test_a_damaged_marker_is_no_marker(tmp_path: Path, read: list[str], marker: str) -> None:
    (tmp_path / "a").write_bytes(b"right")
    (tmp_path / MARKER).write_text(marker)
    check_sums(tmp_path, {"a": digest(b"right")}, "key")
    assert read == ["a"]


def test_where_no_marker_can_be_written_every_call_reads(
    tmp_path: Path, read: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args, **kwargs):
        raise PermissionError

    monkeypatch.setattr(sums.tempfile, "mkstemp", refuse)  # root may write anywhere
    (tmp_path / "a").write_bytes(b"right")
    for _ in range(2):
        check_sums(tmp_path, {"a": digest(b"right")}, "key")
    assert read == ["a", "a"] and not (tmp_path / MARKER).exists()


def test_other_data_in_mnists_format_needs_a_word(tmp_path: Path) -> None:
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for train, (images, labels) in image_files._IDX_FILES.items():
        count = 30 if train else 10
        header = np.array([2051, count, 28, 28], ">i4").tobytes()
        (raw / images).write_bytes(header + bytes(784 * count))
        (raw / labels).write_bytes(np.array([2049, count], ">i4").tobytes() + bytes(count))
    for use in (lambda data: data.prepare_data(), lambda data: data.split("train"), lambda data: data.split("test")):
        with pytest.raises(UserError, match=r"data\.init_args\.verify"):
            use(PixelMNIST(str(tmp_path), val_size=5))
    data = PixelMNIST(str(tmp_path), val_size=5, verify=False)
    data.prepare_data()
    assert len(data.split("train")) == 25 and not (raw / MARKER).exists()


@pytest.mark.parametrize(("kind", "name"), [("md5", "MD5"), ("sha1", "SHA-1"), ("sha256", "SHA-256")])
def test_the_kind_of_a_sum_is_that_of_the_published_one(tmp_path: Path, kind: str, name: str) -> None:
    right, wrong = (hashlib.new(kind, content).hexdigest() for content in (b"right", b"wrong"))
    (tmp_path / "a").write_bytes(b"right")
    check_sums(tmp_path, {"a": right}, "key")
    with pytest.raises(UserError, match=f"its {name} is {right}, not {wrong}"):
        check_sums(tmp_path, {"a": wrong}, "key")
