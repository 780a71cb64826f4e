"""Published text: the Penn Treebank, text8 and enwik8, downloaded once."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
from torch import Tensor

from datamodules.base import Split
from datamodules.downloads import Download, fetch
from datamodules.errors import UserError
from datamodules.sums import check_sums
from datamodules.text import Metric, TextDataModule, shares
from datamodules.vocabulary import END, UNKNOWN, Bytes, SpacedCharacters, Vocabulary, Words, frequent, utf8, words


class PublishedText(TextDataModule):
    """Base of text that is downloaded, to a folder of its own below ``root``.

    `Task.chance` is ln of the vocabulary's size: frequencies are not known before the data is read.
    """

    folder_name: ClassVar[str]
    downloads: ClassVar[Sequence[Download]]
    root: str
    verify = True

    @property
    def folder(self) -> Path:
        """Where the files are."""
        return Path(self.root, self.folder_name).expanduser()

    def prepare_data(self) -> None:
        """Download the files unless they are there."""
        fetch(self.folder, self.folder_name, self.downloads)

    def content(self, name: str) -> bytes:
        """A file, compared with its published sum if there is one.

        Raises:
            UserError: if it is missing, or another file.
        """
        if self.verify:
            sums = {file: value for each in self.downloads for file, value in each.sums.items() if file == name}
            check_sums(self.folder, sums, "data.init_args.verify")
        path = self.folder / name
        try:
            return path.read_bytes()
        except OSError as error:
            raise UserError(
                f"{path} cannot be read ({error.strerror}); data.init_args.root is {self.root!r}."
            ) from error


class PennTreebank(PublishedText):
    """The Penn Treebank as Mikolov prepared it, 10,000 words or 50 characters, with its own three files.

    Words are in lower case, numbers ``N``, rare words ``<unk>``, and ``<eos>`` ends each line: 929,589 words for
    training, 73,760 for validation, 82,430 for the test. The characters are those of the same text, ``<unk>`` spelt
    out, with ``<eos>``: 393,043 for validation, 442,424 for the test. What Orhan and Pitkow call bits per
    character of words is ``bits_per_word``; perplexity is 2 to that power.

    Source: Mikolov et al. 2012, "Subword language modeling with neural networks"; Marcus et al. 1993.

    Args:
        root: Folder that holds (or will hold, after the download) ``PennTreebank/ptb.char.train.txt`` and its like.
        level: ``char`` or ``word``.
        metric: Headline metric: ``bits_per_character``; of words ``perplexity`` or ``bits_per_word``; or ``accuracy``.
            Null: the first of its level.
        verify: Refuse files that have not as many words or characters, of as many kinds, as the published ones; false
            for other text in this format, of no more kinds.
        tbptt: Steps in a chunk.
        batch_size: Streams of one process.
        seed: Of ``carry``; text comes in its order.
        num_workers: Processes that prepare batches.
        carry: As in `StreamDataModule`.
    """

    folder_name = "PennTreebank"
    downloads = (
        Download(
            "http://www.fit.vutbr.cz/~imikolov/rnnlm/simple-examples.tgz",
            {
                f"ptb.{level}{split}.txt": f"simple-examples/data/ptb.{level}{split}.txt"
                for level in ("", "char.")
                for split in ("train", "valid", "test")
            },
            sum="30177ea32e27c525793142b6bf2c8e2d",  # MD5, as PaddlePaddle's paddle.text.Imikolov has it
        ),
    )
    task_options = ("level",)
    sizes: ClassVar[dict[str, int]] = {"char": 50, "word": 10_000}
    counts: ClassVar[dict[tuple[str, Split], int]] = {
        ("char", "val"): 393_043,
        ("char", "test"): 442_424,
        ("word", "train"): 929_589,
        ("word", "val"): 73_760,
        ("word", "test"): 82_430,
    }

    def __init__(
        self,
        root: str = "data",
        level: Literal["char", "word"] = "char",
        metric: Metric | None = None,
        verify: bool = True,
        tbptt: int = 150,
        batch_size: int = 128,
        seed: int | None = None,
        num_workers: int = 0,
        carry: bool | float = True,
    ) -> None:
        self.root, self.level, self.verify = root, level, verify
        self._read: dict[Split, Tensor] = {}
        self._kind = SpacedCharacters if level == "char" else Words
        name = f"penn_treebank_{level}"
        super().__init__(name, self._kind, self.sizes[level], None, metric, tbptt, batch_size, seed, num_workers, carry)

    def _file(self, name: Split) -> str:
        level = "char." if self.level == "char" else ""
        return f"ptb.{level}{'valid' if name == 'val' else name}.txt"

    @functools.cached_property
    def vocabulary(self) -> Vocabulary:
        name, size = self._file("train"), self.sizes[self.level]
        place = self.folder / name
        found = frequent(words(utf8(self.content(name), place)))
        symbols = [symbol for symbol in found if self.level == "word" or symbol != UNKNOWN]
        if len(symbols) > size or (self.verify and len(symbols) < size):
            raise UserError(
                f"{place} has {len(symbols):,} different {self.level}s with {END}, but Mikolov's has {size:,}: put "
                "that file there, or set data.init_args.verify to false for other text of no more kinds."
            )
        return self._kind(symbols)

    def symbols(self, name: Split) -> Tensor:
        if name not in self._read:
            self._read[name] = self._numbers(name)
        return self._read[name]

    def _numbers(self, name: Split) -> Tensor:
        place = self.folder / self._file(name)
        read = self.vocabulary.read(self.content(self._file(name)), place)
        expected = self.counts.get((self.level, name))
        if self.verify and expected not in (None, len(read)):
            raise UserError(
                f"{place} has {len(read):,} {self.vocabulary.unit}s, but Mikolov's has {expected:,}: it is cut short "
                "or another file; delete it and run again to download it anew, or set data.init_args.verify to false."
            )
        return read


class _HundredMegabytes(PublishedText):
    """Text in one file: 90 % of it for training, then 5 % for validation, and the last 5 % for the test."""

    task_options = ("verify",)
    kind: ClassVar[type[Vocabulary]]
    size: ClassVar[int]

    def __init__(
        self,
        root: str = "data",
        verify: bool = True,
        metric: Metric | None = None,
        tbptt: int = 150,
        batch_size: int = 128,
        seed: int | None = None,
        num_workers: int = 0,
        carry: bool | float = True,
    ) -> None:
        self.root, self.verify = root, verify
        name, size = self.folder_name, self.size
        super().__init__(name, self.kind, size, None, metric, tbptt, batch_size, seed, num_workers, carry)

    @functools.cached_property
    def _all(self) -> Tensor:
        return self.vocabulary.read(self.content(self.folder_name), self.folder / self.folder_name)

    def symbols(self, name: Split) -> Tensor:
        return self._all[shares(len(self._all), 0.05, 0.05)[name]]


class Text8(_HundredMegabytes):
    """English Wikipedia as 27 characters, a to z and the space: 90, 5 and 5 million of them, in this order.

    Source: Mahoney 2006, "Large text compression benchmark"; the split is that of Mikolov et al. 2012.

    Args:
        root: Folder that holds (or will hold, after the download) ``text8/text8``.
        verify: Compare the file with the published one by its MD5; false for other text of these characters.
        metric: Headline metric: ``bits_per_character`` (null) or ``accuracy``.
        tbptt: Steps in a chunk.
        batch_size: Streams of one process.
        seed: Of ``carry``; text comes in its order.
        num_workers: Processes that prepare batches.
        carry: As in `StreamDataModule`.
    """

    folder_name = "text8"
    kind, size = Vocabulary, 27
    downloads = (
        # the MD5 as public programs that read text8 compare it
        Download(
            "https://mattmahoney.net/dc/text8.zip",
            {"text8": "text8"},
            sums={"text8": "3bea1919949baf155f99411df5fada7e"},
        ),
    )

    @property
    def vocabulary(self) -> Vocabulary:
        return Vocabulary(" abcdefghijklmnopqrstuvwxyz")


class Enwik8(_HundredMegabytes):
    """The first 100 million bytes of English Wikipedia, XML and all, 205 kinds: 90, 5 and 5 million, in this order.

    Source: Mahoney 2006, "Large text compression benchmark", "About the test data".

    Args:
        root: Folder that holds (or will hold, after the download) ``enwik8/enwik8``.
        verify: Compare the file with the published one by its SHA-1; false for other data of no more than 205 kinds of
            bytes.
        metric: Headline metric: ``bits_per_byte`` (null) or ``accuracy``.
        tbptt: Steps in a chunk.
        batch_size: Streams of one process.
        seed: Of ``carry``; text comes in its order.
        num_workers: Processes that prepare batches.
        carry: As in `StreamDataModule`.
    """

    folder_name = "enwik8"
    kind, size = Bytes, 205
    downloads = (
        Download(
            "https://mattmahoney.net/dc/enwik8.zip",
            {"enwik8": "enwik8"},
            sums={"enwik8": "57b8363b814821dc9d47aa4d41f58733519076b2"},  # mattmahoney.net/dc/textdata.html
        ),
    )

    @functools.cached_property
    def vocabulary(self) -> Vocabulary:
        counts = np.bincount(np.frombuffer(self.content(self.folder_name), dtype=np.uint8), minlength=256)
        found = np.flatnonzero(counts).tolist()
        if len(found) > self.size or len(found) < 2:
            raise UserError(
                f"{self.folder / self.folder_name} has {len(found)} kinds of bytes, but enwik8 has {self.size}: put "
                "that file there, or read yours with TextCorpus at level byte."
            )
        return Bytes([chr(byte) for byte in found])
