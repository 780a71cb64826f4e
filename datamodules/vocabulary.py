"""The symbols that a text is made of, and their numbers."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from datamodules.errors import UserError

Level = Literal["char", "byte", "word"]
END, UNKNOWN = "<eos>", "<unk>"


class Vocabulary:
    """Characters by number: symbol k is ``symbols[k]``.

    Args:
        symbols: All of them, each once.
    """

    unit: ClassVar[str] = "character"
    metrics: ClassVar[tuple[str, ...]] = ("bits_per_character", "accuracy")
    """Headline metrics, the usual one first."""

    def __init__(self, symbols: Sequence[str]) -> None:
        self.symbols = tuple(symbols)
        self.numbers = {symbol: number for number, symbol in enumerate(self.symbols)}

    def __len__(self) -> int:
        return len(self.symbols)

    @property
    def start(self) -> int:
        """What stands before a text: the end of a line, else a space, else the first symbol."""
        return next((self.numbers[symbol] for symbol in (END, "\n", " ") if symbol in self.numbers), 0)

    def joined(self, pieces: Iterable[str]) -> str:
        """The text of these symbols."""
        return "".join(pieces)

    def read(self, content: bytes, place: object) -> Tensor:
        """The numbers of a file's symbols.

        Raises:
            UserError: naming ``place``, if it is no UTF-8, or has a symbol that the vocabulary lacks.
        """
        return self.encode(utf8(content, place), place)

    def encode(self, text: str, place: object) -> Tensor:
        """The numbers of a text's symbols, (N,) in as few bytes as hold them.

        Raises:
            UserError: naming ``place``, if it has a symbol that the vocabulary lacks.
        """
        return self._found(np.frombuffer(text.encode("utf-32-le"), dtype=np.uint32), place)

    def decode(self, numbers: Iterable[int]) -> str:
        """The text that these numbers stand for."""
        return self.joined(self.symbols[number] for number in numbers)

    def _found(self, codes: np.ndarray, place: object) -> Tensor:
        """Characters by their code points, looked up all at once."""
        symbols = np.array([ord(symbol) for symbol in self.symbols])
        size = max(int(symbols.max()), int(codes.max(initial=0))) + 1
        known, table = np.zeros(size, dtype=bool), np.zeros(size, dtype=small_dtype(len(self)))
        known[symbols], table[symbols] = True, np.arange(len(symbols))
        unknown = ~known[codes]
        if unknown.any():
            first = int(unknown.argmax())
            self._refuse(chr(int(codes[first])), first, place)
        return torch.from_numpy(table[codes])

    def _refuse(self, symbol: str, number: int, place: object) -> None:
        raise UserError(
            f"{place} has {symbol!r}, its {self.unit} number {number + 1}, which is none of the {len(self)} that the "
            "text is made of."
        )


class Bytes(Vocabulary):
    """Bytes by number; in ``symbols``, byte b is the character of code point b."""

    unit = "byte"
    metrics = ("bits_per_byte", "accuracy")

    def joined(self, pieces: Iterable[str]) -> str:
        return "".join(pieces).encode("latin-1").decode("utf-8", "replace")

    def read(self, content: bytes, place: object) -> Tensor:
        return self._found(np.frombuffer(content, dtype=np.uint8), place)

    def encode(self, text: str, place: object) -> Tensor:
        return self.read(text.encode(), place)


class Words(Vocabulary):
    """Words, cut at white space; the end of a line is ``<eos>``, and a word that is not known ``<unk>``."""

    unit = "word"
    metrics: ClassVar[tuple[str, ...]] = ("perplexity", "bits_per_word", "accuracy")

    def pieces(self, text: str) -> list[str]:
        """A text, cut into symbols."""
        return words(text)

    def joined(self, pieces: Iterable[str]) -> str:
        return re.sub(f" ?{END} ?", "\n", " ".join(pieces))

    def encode(self, text: str, place: object) -> Tensor:
        return self.numbered(self.pieces(text), place)

    def numbered(self, pieces: Sequence[str], place: object) -> Tensor:
        """The numbers of pieces."""
        other = self.numbers.get(UNKNOWN, -1)
        found = np.fromiter((self.numbers.get(piece, other) for piece in pieces), dtype=np.int64, count=len(pieces))
        missing = np.flatnonzero(found < 0)
        if len(missing):
            self._refuse(pieces[missing[0]], int(missing[0]), place)
        return torch.from_numpy(found.astype(small_dtype(len(self))))


class SpacedCharacters(Words):
    """The Penn Treebank's characters as they are distributed: spaces between them, ``_`` for a space in the text."""

    unit = "character"
    metrics = Vocabulary.metrics

    def pieces(self, text: str) -> list[str]:
        plain = text.replace("\n", "\0").replace("_", " ")
        return [{" ": "_", "\0": END}.get(each, each) for each in plain]

    def joined(self, pieces: Iterable[str]) -> str:
        return "".join({"_": " ", END: "\n"}.get(piece, piece) for piece in pieces)

    def read(self, content: bytes, place: object) -> Tensor:
        return self.numbered(words(utf8(content, place)), place)


def words(text: str) -> list[str]:
    """A text cut at white space, ``<eos>`` at the end of each line."""
    lines = text.split("\n")
    if not lines[-1].strip():  # behind the last line's end
        del lines[-1]
    return [word for line in lines for word in (*line.split(), END)]


def frequent(pieces: Iterable[str], size: int | None = None) -> tuple[str, ...]:
    """``<unk>``, ``<eos>``, and the words by falling frequency, equal ones in the alphabet's order.

    Args:
        pieces: Of the text for training.
        size: How many symbols there may be, with those two; None: all.
    """
    counts = Counter(pieces)
    for special in (UNKNOWN, END):
        counts.pop(special, None)
    ordered = sorted(counts, key=lambda word: (-counts[word], word))
    return (UNKNOWN, END, *ordered)[:size]


def small_dtype(size: int) -> type[np.signedinteger] | type[np.unsignedinteger]:
    """The integers of fewest bytes that number so many symbols, of those that torch indexes."""
    return np.uint8 if size <= 2**8 else np.int16 if size <= 2**15 else np.int32


def utf8(content: bytes, place: object) -> str:
    """A file's text.

    Raises:
        UserError: naming the file and the byte.
    """
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise UserError(
            f"{place} is no text in UTF-8: byte {error.start + 1:,} cannot be read; data.init_args.level byte takes "
            "any file."
        ) from error
