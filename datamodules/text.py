"""Text: every next character, byte or word is predicted from those before."""

from __future__ import annotations

import hashlib
import math
import os
import platform
from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from datamodules.base import Split
from datamodules.checks import SPLIT_WORDS
from datamodules.errors import UserError, require
from datamodules.streams import Series, StreamDataModule
from datamodules.task import Task
from datamodules.vocabulary import (
    Bytes,
    Level,
    Vocabulary,
    Words,
    frequent,
    utf8,
    words,
)

Metric = Literal["bits_per_character", "bits_per_byte", "bits_per_word", "perplexity", "accuracy"]
_KINDS: dict[Level, type[Vocabulary]] = {"char": Vocabulary, "byte": Bytes, "word": Words}


def entropy(symbols: Tensor) -> float:
    """-sum p ln p of the frequencies of (N,) symbols, in nats: what a predictor costs that knows these alone."""
    counts = torch.bincount(symbols.long()).double()
    return float(torch.special.entr(counts / counts.sum()).sum())


class TextDataModule(StreamDataModule):
    """Base of text, which is read as parallel streams: a split is one series of symbols, and its targets the next ones.

    Args:
        name: The task's.
        kind: What its symbols are.
        size: How many there are.
        chance: The task's, in nats; None: ln(size), which is what a guess among all symbols costs.
        metric: Headline metric, one of the kind's; None: the first of them.
        tbptt: Steps in a chunk.
        batch_size: Streams of one process, in validation and test too.
        seed: Of ``carry``; text comes in its order.
        num_workers: Processes that prepare batches.
        carry: As in `StreamDataModule`.
    """

    def __init__(
        self,
        name: str,
        kind: type[Vocabulary],
        size: int,
        chance: float | None,
        metric: str | None,
        tbptt: int,
        batch_size: int,
        seed: int | None,
        num_workers: int,
        carry: bool | float = True,
    ) -> None:
        super().__init__(tbptt, batch_size, seed, num_workers, carry)
        known = kind.metrics
        accepted = f"null or one of {', '.join(known)}"
        require(metric is None or metric in known, "data.init_args.metric", metric, accepted)
        headline = known[0] if metric is None else metric
        self.task = Task(
            name=name,
            inputs="symbols",
            input_size=size,
            targets="next_symbol",
            target_size=size,
            length=None,
            scored="all",
            chance=math.log(size) if chance is None else chance,
            metric=headline,
            higher_is_better=headline == "accuracy",
        )

    @property
    @abstractmethod
    def vocabulary(self) -> Vocabulary:
        """The symbols by number; it may read a file."""

    @abstractmethod
    def symbols(self, name: Split) -> Tensor:
        """The numbers of a split's symbols, (N,)."""

    def begins(self, name: Split) -> Tensor | None:
        """Where in a split a text begins for itself, as in `Series`; here nowhere."""
        return None

    def series(self, name: Split) -> Series:
        symbols = self.symbols(name)
        if len(symbols) < 2:
            raise UserError(
                f"The {SPLIT_WORDS[name]} text of {type(self).__name__} has {len(symbols)} {self.vocabulary.unit}s, "
                "but a next one to predict needs 2: give more text in data.init_args, or a larger share of it."
            )
        return Series.of_symbols(symbols, self.begins(name))

    def told(self) -> str:
        sizes = [f"{len(self.symbols(name)):,} for {SPLIT_WORDS[name]}" for name in ("train", "val")]
        return f"text: {self.source()}, {len(self.vocabulary):,} different {self.vocabulary.unit}s, {', '.join(sizes)}"

    def source(self) -> str:
        """Where the text comes from, in words."""
        return self.task.name


def shares(count: int, val: float, test: float) -> dict[Split, slice]:
    """The first part of a text for training, what follows for validation, its end for the test."""
    last, middle = count - int(count * test), count - int(count * test) - int(count * val)
    return {"train": slice(0, middle), "val": slice(middle, last), "test": slice(last, count)}


class TextCorpus(TextDataModule):
    """Your own text, or without any the English documentation that comes with Python, so that nothing is downloaded.

    Files are read as they are, one after another; every file is a document, at whose beginning states begin anew. The
    beginning of the text is for training, what follows for validation, its end for the test, unless these have files of
    their own. Python's text is ``pydoc_data.topics``, what ``help()`` shows: about 465,000 characters, not quite the
    same in every version of Python.

    Characters are those of all files, sorted by code point; bytes are 256. Words are cut at white space, with ``<eos>``
    at the end of each line; known are those of the training text, most frequent first, and ``<unk>`` is any other.

    Args:
        files: Paths of text files, one or several; null: Python's documentation.
        level: ``char``, ``byte`` or ``word``.
        val_files: Text for validation; null: a share of ``files``.
        test_files: Text for the test; null: a share of ``files``.
        val_share: That share for validation.
        test_share: That share for the test.
        vocabulary_size: Words that are known, the most frequent ones, ``<unk>`` and ``<eos>`` among them; null: all.
        metric: Headline metric: ``bits_per_character`` or ``bits_per_byte``; of words ``perplexity`` or
            ``bits_per_word``; or ``accuracy``. Null: the first of its level.
        tbptt: Steps in a chunk, over which gradients go back.
        batch_size: Streams of one process.
        seed: Of ``carry``; text comes in its order.
        num_workers: Processes that prepare batches.
        carry: As in `StreamDataModule`.
    """

    task_options: ClassVar[tuple[str, ...]] = ("level", "val_share", "test_share", "vocabulary_size", "contents")

    def __init__(
        self,
        files: str | list[str] | None = None,
        level: Level = "char",
        val_files: str | list[str] | None = None,
        test_files: str | list[str] | None = None,
        val_share: float = 0.05,
        test_share: float = 0.05,
        vocabulary_size: int | None = None,
        metric: Metric | None = None,
        tbptt: int = 100,
        batch_size: int = 32,
        seed: int | None = None,
        num_workers: int = 0,
        carry: bool | float = True,
    ) -> None:
        for key, share in (("val_share", val_share), ("test_share", test_share)):
            require(0 <= share < 1, f"data.init_args.{key}", share, "from 0 to below 1")
        accepted = "null or a whole number of at least 3, at level word alone"
        sound = vocabulary_size is None or (vocabulary_size >= 3 and level == "word")
        require(sound, "data.init_args.vocabulary_size", vocabulary_size, accepted)
        self.level, self.vocabulary_size = level, vocabulary_size
        self.val_share = 0.0 if val_files is not None else val_share
        self.test_share = 0.0 if test_files is not None else test_share
        require(self.val_share + self.test_share < 1, "data.init_args.test_share", test_share, "less than what is left")
        for name, own, share in (("val", val_files, val_share), ("test", test_files, test_share)):
            if own is not None:
                self.tell_unread(f"{name}_share", share, f"{name}_files")
        self.files = _listed(files, "files")
        given = {
            "files": [("Python's pydoc_data.topics", _built_in())] if files is None else _read(self.files),
            "val": _read(_listed(val_files, "val_files")),
            "test": _read(_listed(test_files, "test_files")),
        }
        digest = hashlib.sha256()
        for _, content in (each for part in given.values() for each in part):
            digest.update(len(content).to_bytes(8, "big"))
            digest.update(content)
        self.contents = digest.hexdigest()[:16]  # of all files in a row, whatever each is for
        self._counts = {f"{name}_files": len(given[name]) for name in ("val", "test")}
        self._vocabulary, numbers = self._numbered(given)
        self._parts, self._begins = self._cut(numbers)
        super().__init__(
            f"text_{level}",
            _KINDS[level],
            len(self._vocabulary),
            entropy(self._parts["train"]),
            metric,
            tbptt,
            batch_size,
            seed,
            num_workers,
            carry,
        )

    def definition(self) -> dict[str, Any]:
        return {**super().definition(), **self._counts}

    def fingerprint(self) -> str:
        return hashlib.sha256(f"{self.contents} {self._counts}".encode()).hexdigest()[:16]

    @property
    def vocabulary(self) -> Vocabulary:
        return self._vocabulary

    def symbols(self, name: Split) -> Tensor:
        return self._parts[name]

    def begins(self, name: Split) -> Tensor | None:
        return self._begins[name]

    def source(self) -> str:
        if self.files:
            return self.files[0] if len(self.files) == 1 else f"{len(self.files)} files"
        return f"the documentation that comes with Python {platform.python_version()} (pydoc_data.topics)"

    def _numbered(self, given: dict[str, list[tuple[str, bytes]]]) -> tuple[Vocabulary, dict[str, list[Tensor]]]:
        """The vocabulary, and the symbols of every document."""
        documents = [each for part in given.values() for each in part]
        vocabulary: Vocabulary
        if self.level == "byte":
            vocabulary = Bytes([chr(byte) for byte in range(256)])
        elif self.level == "char":
            found = sorted(set().union(*(utf8(content, name) for name, content in documents)))
            require(len(found) > 1, "data.init_args.files", self.files, "text of at least two different characters")
            vocabulary = Vocabulary(found)
        else:
            pieces = [piece for name, content in given["files"] for piece in words(utf8(content, name))]
            train = pieces[shares(len(pieces), self.val_share, self.test_share)["train"]]
            vocabulary = Words(frequent(train, self.vocabulary_size))
        return vocabulary, {
            part: [vocabulary.read(content, name) for name, content in documents] for part, documents in given.items()
        }

    def _cut(self, numbers: dict[str, list[Tensor]]) -> tuple[dict[Split, Tensor], dict[Split, Tensor | None]]:
        """Symbols and beginnings of documents, by split."""
        whole, begins = _joined(numbers["files"])
        cuts = shares(len(whole), self.val_share, self.test_share)
        parts = {name: whole[cut] for name, cut in cuts.items()}
        starts = {name: None if begins is None else begins[cut] for name, cut in cuts.items()}
        own: tuple[Split, ...] = ("val", "test")
        for name in own:
            if numbers[name]:
                parts[name], starts[name] = _joined(numbers[name])
        if not len(parts["train"]):
            raise UserError("data.init_args.files holds no text to train on: give longer ones, or smaller shares.")
        return parts, starts


def _listed(files: str | list[str] | None, key: str) -> list[str]:
    listed = [os.fspath(one) for one in ([files] if isinstance(files, str | os.PathLike) else files or [])]
    require(files is None or len(listed) > 0, f"data.init_args.{key}", files, "null, a path, or a list of paths")
    return listed


def _built_in() -> bytes:
    try:
        from pydoc_data.topics import topics
    except ImportError as error:
        raise UserError(
            "data.init_args.files is not given, and this Python lacks pydoc_data.topics, the text that is taken then: "
            "name text files."
        ) from error
    return "\n\n".join(topics[name] for name in sorted(topics)).encode()


def _read(files: Sequence[str]) -> list[tuple[str, bytes]]:
    found = []
    for name in files:
        try:
            content = Path(name).expanduser().read_bytes()
        except OSError as error:
            raise UserError(
                f"The text file {name} cannot be read ({error.strerror}); see files, val_files and test_files of "
                "data.init_args."
            ) from error
        if not content:
            raise UserError(f"The text file {name} is empty; leave it out of data.init_args.")
        found.append((name, content))
    return found


def _joined(documents: Sequence[Tensor]) -> tuple[Tensor, Tensor | None]:
    """One behind the other, and where each begins, if there are several."""
    whole = torch.cat(list(documents))
    if len(documents) == 1:
        return whole, None
    begins = torch.zeros(len(whole), dtype=torch.bool)
    sizes = torch.tensor([0, *(len(each) for each in documents[:-1])])
    begins[sizes.cumsum(0)] = True
    return whole, begins
