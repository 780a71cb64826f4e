"""SPHERE files written byte by byte and RIFF files: read to the sample, or refused by their path."""

import re
import struct
import wave

import numpy as np
import pytest

from datamodules import UserError
from datamodules.recordings import read_recording

SAMPLES = [0, 1, -1, 256, -32768, 32767]
BYTES = struct.pack("<6h", *SAMPLES)
FIELDS = {
    "database_id": "-s5 TIMIT",
    "channel_count": "-i 1",
    "sample_count": "-i 6",
    "sample_rate": "-i 16000",
    "sample_n_bytes": "-i 2",
    "sample_byte_format": "-s2 01",
    "sample_sig_bits": "-i 16",
}


def sphere(samples=SAMPLES, order="<", size=1024, magic=b"NIST_1A\n", end="end_head\n", **fields):
    """The bytes of a SPHERE file; a field that is None is left out."""
    lines = {name: text for name, text in (FIELDS | fields).items() if text is not None}
    head = magic + f"{size:7d}\n".encode() + "".join(f"{k} {v}\n" for k, v in lines.items()).encode() + end.encode()
    return head.ljust(size) + struct.pack(f"{order}{len(samples)}h", *samples)


def read(tmp_path, content):
    path = tmp_path / "SA1.WAV"
    path.write_bytes(content)
    return read_recording(path)


@pytest.mark.parametrize(("order", "name"), [("<", "01"), (">", "10")])
@pytest.mark.parametrize("size", [1024, 3072])
def test_sphere_in_both_byte_orders(tmp_path, order, name, size):
    found = read(tmp_path, sphere(order=order, size=size, sample_byte_format=f"-s2 {name}"))
    assert found.rate == 16000 and found.samples.dtype == np.float32
    assert (found.samples * 32768).tolist() == SAMPLES


def test_a_header_need_not_name_what_is_usual(tmp_path):
    """TIMIT's own has no sample_coding; one that says pcm is the same, and so is a field in another order."""
    plain = read(tmp_path, sphere())
    same = read(tmp_path, sphere(sample_coding="-s3 pcm", channel_count=None))
    assert np.array_equal(plain.samples, same.samples)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", r"is empty: a recording in NIST SPHERE"),
        (sphere(magic=b"NIST_1B\n"), r"begins with b'NIST_1B\\n'"),
        (sphere()[:100], r"cut short or damaged: its header of 1,024 bytes has no end_head"),
        (b"NIST_1A\n   10", r"says that its header has '10' bytes: a multiple of 1,024"),
        (b"NIST_1A\n   -1024\n", r"says that its header has"),
        (b"NIST_1A\n99999744\n", r"says that its header has"),
        (sphere(end=""), r"has no end_head"),
        (sphere()[:500], r"6 samples of 2 bytes are announced, and 0 bytes follow"),
        (sphere()[:-2], r"6 samples of 2 bytes are announced, and 10 bytes follow"),
        (sphere()[:-1], r"and 11 bytes follow"),
        (sphere()[:1024], r"and 0 bytes follow"),
        (sphere() + b"\0\0", r"and 14 bytes follow"),
        (sphere(sample_count="-i 5"), r"5 samples of 2 bytes are announced, and 12 bytes follow"),
        (sphere(sample_count="-i -6"), r"has the sample_count -6 in its header: a whole number"),
        (sphere(sample_count="-i 6e0"), r"has the sample_count 6e0"),
        (sphere(sample_count=None), r"has the sample_count none"),
        (sphere(samples=[], sample_count="-i 0"), r"has 0 samples at 16000 a second"),
        (sphere(sample_rate="-i 0"), r"has 6 samples at 0 a second"),
        (sphere(sample_coding="-s27 pcm,embedded-shorten-v2.00"), r"coded as pcm,embedded-shorten-v2\.00: plain pcm"),
        (sphere(sample_coding="-s4 ulaw"), r"coded as ulaw"),
        (sphere(channel_count="-i 2"), r"has 2 channel\(s\) of 2 bytes a sample: one channel"),
        (sphere(sample_n_bytes="-i 1"), r"has 1 channel\(s\) of 1 bytes"),
        (sphere(sample_byte_format="-s2 11"), r"has the sample_byte_format 11: 01 and 10"),
        (sphere(sample_byte_format=None), r"has the sample_byte_format none"),
    ],
)
def test_what_sphere_must_not_be(tmp_path, content, sentence):
    with pytest.raises(UserError, match=sentence) as refused:
        read(tmp_path, content)
    assert str(tmp_path / "SA1.WAV") in str(refused.value) and "\n" not in str(refused.value)


def riff(path, channels=1, width=2, rate=16000, data=BYTES):
    with wave.open(str(path), "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(width)
        file.setframerate(rate)
        file.writeframes(data)
    return path.read_bytes()


def test_riff_is_read_whatever_its_name(tmp_path):
    found = read(tmp_path, riff(tmp_path / "a", rate=8000))
    assert found.rate == 8000 and (found.samples * 32768).tolist() == SAMPLES


def test_chunks_of_riff_that_say_nothing_of_the_sound_are_passed_over(tmp_path):
    content = riff(tmp_path / "a") + b"junk" + struct.pack("<I", 4) + b"\0" * 4
    assert len(read(tmp_path, content).samples) == 6


@pytest.mark.parametrize(("order", "magic"), [("<", b"RIFF"), (">", b"RIFX")])
@pytest.mark.parametrize("extensible", [False, True])
def test_riff_in_both_byte_orders_and_its_longer_form(tmp_path, order, magic, extensible):
    coding = struct.pack(f"{order}HHIIHH", 0xFFFE if extensible else 1, 1, 8000, 16000, 2, 16)
    more = struct.pack(f"{order}HHIH", 22, 16, 4, 1) + bytes.fromhex("000000001000800000AA00389B71")
    chunks = {b"fmt ": coding + more * extensible, b"odd ": b"\0", b"data": struct.pack(f"{order}6h", *SAMPLES)}
    body = b"".join(k + struct.pack(f"{order}I", len(v)) + v + b"\0" * (len(v) % 2) for k, v in chunks.items())
    found = read(tmp_path, magic + struct.pack(f"{order}I", 4 + len(body)) + b"WAVE" + body)
    assert found.rate == 8000 and (found.samples * 32768).tolist() == SAMPLES


def test_reading_does_not_touch_how_a_program_takes_warnings(tmp_path, monkeypatch):
    """Several threads read, and what one of them sets for a while, another may leave for good."""
    monkeypatch.setattr("warnings.catch_warnings", lambda *_, **__: pytest.fail("filters of all threads are changed"))
    read(tmp_path, riff(tmp_path / "a"))


@pytest.mark.parametrize(
    ("options", "cut", "sentence"),
    [
        ({}, 3, "is no whole RIFF recording"),
        ({}, 30, "is no whole RIFF recording"),
        ({"channels": 2}, 0, r"has 2 channel\(s\) of 2 bytes"),
        ({"width": 1}, 0, r"has 1 channel\(s\) of 1 bytes a sample, which are no whole numbers|of 1 bytes"),
        ({"width": 3, "data": b"\0" * 12}, 0, r"of 3 bytes"),
        ({"width": 4, "data": b"\0" * 12}, 0, r"of 4 bytes"),
        ({"data": b""}, 0, "has 0 samples|no whole RIFF"),
    ],
)
def test_what_riff_must_not_be(tmp_path, options, cut, sentence):
    content = riff(tmp_path / "a", **options)
    with pytest.raises(UserError, match=sentence) as refused:
        read(tmp_path, content[: len(content) - cut])
    assert re.search(re.escape(str(tmp_path / "SA1.WAV")), str(refused.value))


def test_a_missing_file(tmp_path):
    with pytest.raises(UserError, match=r"gone\.wav cannot be read \(No such file"):
        read_recording(tmp_path / "gone.wav")
