"""Recordings: NIST SPHERE, as TIMIT's disc has it under the name of .WAV, and RIFF."""

from __future__ import annotations

import re
import struct
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from datamodules.errors import UserError, one_line

_SPHERE = b"NIST_1A\n"
_BLOCK = 1024  # a SPHERE header has a multiple of this many bytes
_LONGEST_HEADER = 64 * _BLOCK
_BYTE_ORDERS = {"01": "<i2", "10": ">i2"}
_PCM, _EXTENSIBLE = 1, 0xFFFE  # what a RIFF file calls its format
_FIELD = re.compile(r"(\w+) -(?:i|r|s\d+) (.*)")


class Recording(NamedTuple):
    """One channel of sound.

    Args:
        samples: (S,) float32, a 16-bit sample over 32,768.
        rate: Samples in a second.
    """

    samples: NDArray[np.float32]
    rate: int


def read_recording(path: Path) -> Recording:
    """A recording of one channel in 16-bit PCM, by its first bytes, whatever its name.

    Raises:
        UserError: naming the file, if it is neither SPHERE nor RIFF, compressed, cut short, of several channels, of
            other samples, or if its header says another number of samples than there are.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror or one_line(error)}).") from error
    return recording_in(content, path)


def recording_in(content: bytes, path: Path) -> Recording:
    """The same of a file's bytes; ``path`` is for sentences."""
    if content.startswith(_SPHERE):
        return _read_sphere(path, content)
    if content.startswith((b"RIFF", b"RIFX")):
        return _read_riff(path, content)
    given = f"begins with {content[:8]!r}" if content else "is empty"
    raise UserError(
        f"{path} {given}: a recording in NIST SPHERE, which begins with {_SPHERE!r}, or in RIFF is accepted."
    )


def _read_sphere(path: Path, content: bytes) -> Recording:
    size = content[len(_SPHERE) : 16].strip()
    length = int(size) if size.isdigit() else 0
    if not 0 < length <= _LONGEST_HEADER or length % _BLOCK:
        raise UserError(
            f"{path} says that its header has {size.decode('ascii', 'replace')!r} bytes: a multiple of {_BLOCK:,} is "
            "accepted."
        )
    head, end, _ = content[:length].decode("ascii", "replace").partition("\nend_head")
    if not end:
        raise UserError(f"{path} is cut short or damaged: its header of {length:,} bytes has no end_head.")
    fields = {found[1]: found[2].strip() for line in head.splitlines() if (found := _FIELD.fullmatch(line))}

    coding = fields.get("sample_coding", "pcm")
    if coding != "pcm":
        raise UserError(
            f"{path} is coded as {coding}: plain pcm is accepted, so unpack it first, as with w_decode or sph2pipe."
        )
    channels, width = (_number(path, fields, name, 1) for name in ("channel_count", "sample_n_bytes"))
    count, rate = (_number(path, fields, name, None) for name in ("sample_count", "sample_rate"))
    _check_form(path, channels, width)
    order = fields.get("sample_byte_format", "none")
    if order not in _BYTE_ORDERS:
        raise UserError(f"{path} has the sample_byte_format {order}: 01 and 10 are accepted.")
    held = max(0, len(content) - length)
    if held != 2 * count:
        raise UserError(
            f"{path} is cut short or its header is wrong: {count:,} samples of 2 bytes are announced, and {held:,} "
            "bytes follow."
        )
    return _recording(path, np.frombuffer(content, _BYTE_ORDERS[order], offset=length), rate)


def _number(path: Path, fields: dict[str, str], name: str, default: int | None) -> int:
    text = fields.get(name, "none" if default is None else str(default))
    if not text.isdigit() or len(text) > 18:
        raise UserError(f"{path} has the {name} {text} in its header: a whole number is needed.")
    return int(text)


def _read_riff(path: Path, content: bytes) -> Recording:
    """The chunk ``data``, as the chunk ``fmt`` before it says.

    SciPy's reader warns of a recording that is cut short, and several threads, as read here, share their warnings.
    """
    order, place, form = ">" if content.startswith(b"RIFX") else "<", 12, None
    while content[8:12] == b"WAVE" and len(content) >= place + 8:
        name, size = content[place : place + 4], int(struct.unpack_from(f"{order}I", content, place + 4)[0])
        body = content[place + 8 : place + 8 + size]
        if len(body) < size:
            break
        if name == b"fmt " and size >= 16:
            form = struct.unpack_from(f"{order}HHIIHH", body)
            if form[0] == _EXTENSIBLE and size >= 26:  # the format is the beginning of an identifier of its own
                form = (*struct.unpack_from(f"{order}H", body, 24), *form[1:])
        if name == b"data" and form is not None:
            coding, channels, rate, _, _, bits = form
            _check_form(path, channels, -(-bits // 8), coding == _PCM)
            if size % 2:
                break
            return _recording(path, np.frombuffer(body, f"{order}i2"), rate)
        place += 8 + size + size % 2
    raise UserError(f"{path} is no whole RIFF recording: 16-bit PCM is accepted.")


def _check_form(path: Path, channels: int, width: int, whole: bool = True) -> None:
    if channels != 1 or width != 2 or not whole:
        kind = "" if whole else ", which are no whole numbers"
        raise UserError(
            f"{path} has {channels} channel(s) of {width} bytes a sample{kind}: one channel of 16-bit PCM is accepted."
        )


def _recording(path: Path, samples: NDArray[np.integer], rate: int) -> Recording:
    if not len(samples) or not rate:
        raise UserError(f"{path} has {len(samples)} samples at {rate} a second, but it must have some.")
    return Recording(samples.astype(np.float32) / np.float32(32768), rate)
