"""SpeechCommands: spoken words of one second (Warden 2018), raw or as cepstra."""

from __future__ import annotations

import math
import re
import tarfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from datamodules.base import Batch, SequenceDataModule, Split
from datamodules.cached import Arrays, cached, key_of, of_each
from datamodules.cepstrum import COEFFICIENTS, mfcc
from datamodules.downloads import Download, fetch, progress_bar
from datamodules.errors import UserError, one_line, require
from datamodules.loader import IndexedBatches, Indices
from datamodules.recordings import recording_in
from datamodules.sequences import SPLITS, Statistics
from datamodules.sums import check_sums
from datamodules.task import Task

_NAME = "speech_commands_v0.02"
_ARCHIVE = f"{_NAME}.tar.gz"
# the sum is that of torchaudio's SPEECHCOMMANDS and of TensorFlow Datasets
_DOWNLOAD = Download(
    f"https://storage.googleapis.com/download.tensorflow.org/data/{_ARCHIVE}",
    {_ARCHIVE: ""},
    sum="af14739ee7dc311471de98f5f9d2c9191b18aedfe957f4a6ff791c709868ff58",
    whole=True,
)
_LISTS = {"validation_list.txt": 1, "testing_list.txt": 2}
_RATE = _LENGTH = 16_000
_COUNT = 105_829  # recordings of the 35 words
_CHUNK = 512
_TEN = "yes no up down left right on off stop go"
_MORE = (
    "backward bed bird cat dog eight five follow forward four happy house learn marvin nine one seven sheila six three "
    "tree two visual wow zero"
)
WORDS = {10: sorted(_TEN.split()), 35: sorted(f"{_TEN} {_MORE}".split())}

Protocol = Literal["common", "s4"]
Features = Literal["mfcc", "raw"]


class Clips(IndexedBatches):
    """Clips of one split, standardised.

    Args:
        x: (n, T, I) cepstra, or (n, T) 16-bit samples.
        y: (n,) classes.
        statistics: Of the training split.
    """

    def __init__(self, x: NDArray[Any], y: Indices, statistics: Statistics) -> None:
        self.x, self.y = torch.from_numpy(x), torch.from_numpy(y)
        self.mean, self.std = (torch.from_numpy(part.astype(np.float32)) for part in statistics)

    def __len__(self) -> int:
        return len(self.y)

    def __getitem__(self, indices: Indices) -> Batch:
        chosen = torch.from_numpy(indices)
        given: Tensor = self.x[chosen].float()
        given = given if given.dim() == 3 else given[..., None] / (1 << 15)
        return (given - self.mean) / self.std, self.y[chosen]


class SpeechCommands(SequenceDataModule):
    """Which of 35 words, or of 10, is spoken in a second: raw samples, 16,000 steps, or 161 steps of 20 cepstra.

    Version 0.02 of the corpus. Cepstra are `datamodules.cepstrum.mfcc` of windows of 200 samples, 64 mel filters and 20
    coefficients, as in the code of neural CDEs (Kidger et al. 2020), CKConv and S4. Inputs are standardised by channel
    over the training split; every checkpoint keeps those numbers.

    Protocols:

    - ``common``: the corpus's validation_list.txt and testing_list.txt, which keep speakers apart; shorter clips are
      filled up with silence.
    - ``s4``: that of the ten words in the S4 paper (Gu et al. 2022, Table 5: SC10), first in the code of neural CDEs:
      only clips of a full second, split at random into 70, 15 and 15 percent, class by class (scikit-learn's
      ``train_test_split`` with the seeds 0 and 1). Speakers are in several splits. Theirs runs over files in the order
      in which a disc lists them, so that their clips cannot be known; here it is that of the names. S4's code also
      divides samples by 32,768 twice, and standardises raw ones step by step.

    `Task.chance` is a guess among all words.

    Args:
        root: Folder that holds ``speech_commands_v0.02.tar.gz`` (2.4 GB) or, unpacked, a folder
            ``speech_commands_v0.02``; else the archive is downloaded to it. It is read without being unpacked.
        features: ``mfcc`` or ``raw``.
        classes: 35 words, or the 10 of the S4 paper: yes, no, up, down, left, right, on, off, stop, go.
        protocol: ``common`` or ``s4``; the latter is of 10 words.
        subsample: Keep every so many samples of raw sound: 2 is the S4 paper's test at half the rate.
        cache: Folder for what is read or computed, once: of 35 words 1.4 GB of cepstra, or 3.4 GB of samples, and a
            third of it for 10. Null: ``root``.
        verify: Compare the archive with the published one by its SHA-256, and the number of its recordings; false for a
            part of it, whose cache is another one.
        batch_size: Sequences per step and process.
        seed: Seeds the order of training; None takes the run's ``seed_everything``.
        num_workers: Processes that prepare batches.
    """

    task_options: ClassVar[tuple[str, ...]] = ("features", "classes", "protocol", "subsample")

    def __init__(
        self,
        root: str = "data/SpeechCommands",
        features: Features = "mfcc",
        classes: Literal[10, 35] = 35,
        protocol: Protocol = "common",
        subsample: int = 1,
        cache: str | None = None,
        verify: bool = True,
        batch_size: int = 128,
        seed: int | None = None,
        num_workers: int = 0,
    ) -> None:
        super().__init__(batch_size, seed, num_workers)
        require(protocol == "common" or classes == 10, "data.init_args.protocol", protocol, "common for 35 words")
        raw = features == "raw"
        accepted = f"a whole number from 1 to {_LENGTH // 2:,}" if raw else "1: cepstra are of all samples"
        most = _LENGTH // 2 if raw else 1
        require(1 <= subsample <= most, "data.init_args.subsample", subsample, accepted)
        self.root, self.features, self.classes, self.protocol = root, features, classes, protocol
        self.subsample, self.verify = subsample, verify
        self.cache = root if cache is None else cache
        self.statistics: Statistics | None = None
        rate = "" if subsample == 1 else "_half_rate" if subsample == 2 else f"_every_{subsample}"
        self.task = Task(
            name=f"speech_commands_{classes}_{features}{rate}",
            inputs="values",
            input_size=1 if raw else COEFFICIENTS,
            targets="label",
            target_size=classes,
            length=-(-_LENGTH // subsample) if raw else 1 + _LENGTH // 100,
            scored="last",
            chance=math.log(classes),
            metric="accuracy",
            higher_is_better=True,
        )

    @property
    def _folder(self) -> Path:
        """The unpacked corpus, if there is one."""
        return Path(self.root, _NAME).expanduser()

    def prepare_data(self) -> None:
        """Download the archive, unless it or its folder is there."""
        if not self._folder.is_dir():
            fetch(Path(self.root).expanduser(), "SpeechCommands", [_DOWNLOAD])

    def split(self, name: Split) -> Clips:
        kept = self._kept(f"{name}_x", f"{name}_y", "mean", "std")
        if self.statistics is None:
            self.statistics = Statistics(kept["mean"], kept["std"])
        x, y = kept[f"{name}_x"], kept[f"{name}_y"]
        return Clips(x[:, :: self.subsample] if self.subsample > 1 else x, y, self.statistics)

    def learned(self) -> dict[str, Any]:
        """Mean and deviation of the training split's channels."""
        return {} if self.statistics is None else self.statistics.primitives()

    def learn(self, kept: Mapping[str, Any]) -> None:
        self.statistics = Statistics.in_checkpoint(kept, self.task.input_size, self.task.name)
        self.__dict__.pop("_validation", None)  # made with the others

    # ---- reading

    def _kept(self, *wanted: str) -> Arrays:
        """Arrays of the cache, which is made in one pass over the corpus."""
        self.prepare_data()
        source = self._folder if self._folder.is_dir() else Path(self.root, _ARCHIVE).expanduser()
        listed = [source / name for name in _LISTS] if source.is_dir() else [source]
        settings = {"features": self.features, "classes": self.classes, "protocol": self.protocol, "version": 1}
        if not self.verify:  # what nobody looked at is not taken for the published corpus, and may grow
            settings["verify"] = False
            listed += sorted(source.glob("*/*.wav")) if source.is_dir() else []
        name = (
            f"{self.task.name.removesuffix('_half_rate')}-{key_of(settings, Path(self.root).expanduser(), listed)}.npz"
        )
        path = Path(self.cache, re.sub(r"_every_\d+", "", name)).expanduser()
        return cached(path, lambda: self._made(source), wanted)

    def _made(self, source: Path) -> Arrays:
        """Every array that the cache keeps."""
        if self.verify and source.is_file():
            check_sums(source.parent, {source.name: str(_DOWNLOAD.sum)}, "data.init_args.verify")
        print(f"SpeechCommands: reading {source}, kept in {self.cache}", flush=True)
        sounds, words, places = self._read(source)
        y = np.searchsorted(WORDS[self.classes], words).astype(np.int64)
        x: NDArray[Any] = sounds
        if self.features == "mfcc":
            chunks = [sounds[first : first + _CHUNK] for first in range(0, len(sounds), _CHUNK)]
            x = np.concatenate(of_each(chunks, lambda chunk: mfcc(chunk / np.float32(1 << 15), _RATE), "cepstra"))
        made: Arrays = {}
        ends = np.searchsorted(places, [0, 1, 2, 3])
        for name, first, end in zip(SPLITS, ends, ends[1:], strict=False):
            made[f"{name}_x"], made[f"{name}_y"] = x[first:end], y[first:end]
            if len(np.unique(made[f"{name}_y"])) < self.classes:
                raise UserError(f"{source} has not every one of the {self.classes} words in the {name} split.")
        made["mean"], made["std"] = _statistics(made["train_x"])
        return made

    def _read(self, source: Path) -> tuple[NDArray[np.int16], NDArray[np.str_], Indices]:
        """(N, 16000) samples, (N,) words and (N,) numbers of splits, by split, word and file."""
        lists: dict[str, int] = {}
        found: dict[str, NDArray[np.int16]] = {}
        count = 0
        with progress_bar("SpeechCommands", _COUNT, of_bytes=False) as advance:
            for name, content in _files(source):
                if name in _LISTS:
                    try:
                        lists |= dict.fromkeys(content.decode().split(), _LISTS[name])
                    except UnicodeDecodeError as error:
                        raise UserError(f"{source / name} is damaged ({error}): it must be a list of names.") from error
                    continue
                count += 1
                advance(1)
                if name.partition("/")[0] not in WORDS[self.classes]:
                    continue
                samples, rate = recording_in(content, source / name)
                if rate != _RATE or len(samples) > _LENGTH:
                    raise UserError(
                        f"{source / name} has {len(samples):,} samples at {rate} a second: at most {_LENGTH:,} at "
                        f"{_RATE:,} are accepted."
                    )
                if len(samples) == _LENGTH or self.protocol == "common":
                    whole = np.pad(samples, (0, _LENGTH - len(samples)))
                    found[name] = (whole * (1 << 15)).astype(np.int16)
        if set(lists.values()) != {1, 2} or (self.verify and count != _COUNT):
            raise UserError(
                f"{source} has {count:,} recordings, and {len(lists):,} names in {' and '.join(_LISTS)}, but "
                f"{_COUNT:,} recordings and both lists belong to it: delete it and run again to download it anew, or "
                "set data.init_args.verify to false for a part of it."
            )
        names = sorted(found)
        words = np.array([name.partition("/")[0] for name in names])
        places = np.array([lists.get(name, 0) for name in names]) if self.protocol == "common" else _drawn(words)
        order = np.argsort(places, kind="stable")
        sounds = np.empty((len(names), _LENGTH), dtype=np.int16)
        for row, number in zip(sounds, order, strict=True):
            row[:] = found.pop(names[number])  # gigabytes: never twice
        return sounds, words[order], places[order]


def _files(source: Path) -> Iterator[tuple[str, bytes]]:
    """``word/file.wav`` of every recording and the names of both lists, with their bytes.

    Raises:
        UserError: if the archive is damaged.
    """
    wanted = re.compile(rf"(?:{'|'.join(WORDS[35])})/[^/]+\.wav|{'|'.join(map(re.escape, _LISTS))}")
    if source.is_dir():
        for path in sorted(source.glob("*")) + sorted(source.glob("*/*.wav")):
            name = path.relative_to(source).as_posix()
            if wanted.fullmatch(name):
                try:
                    content = path.read_bytes()
                except OSError as error:
                    raise UserError(f"{path} cannot be read ({error.strerror}).") from error
                yield name, content
        return
    try:
        with tarfile.open(source, "r|gz") as archive:
            for entry in archive:
                name = entry.name.removeprefix("./")
                if entry.isfile() and wanted.fullmatch(name):
                    held = archive.extractfile(entry)
                    assert held is not None  # it is a file
                    yield name, held.read()
    except (tarfile.TarError, zlib.error, EOFError, OSError) as error:
        raise UserError(
            f"{source} is damaged ({one_line(error)}): delete it and run again to download it anew."
        ) from error


def _drawn(words: NDArray[np.str_]) -> Indices:
    """(N,) numbers of splits, drawn as `SpeechCommands` says of ``s4``."""
    from sklearn.model_selection import train_test_split

    numbers = np.arange(len(words))
    try:
        _, rest = train_test_split(numbers, train_size=0.7, random_state=0, stratify=words)
        val, test = train_test_split(rest, train_size=0.5, random_state=1, stratify=words[rest])
    except ValueError as error:
        raise UserError(f"{len(words)} clips of SpeechCommands cannot be split: {one_line(error)}") from error
    places = np.zeros(len(words), dtype=np.int64)
    places[val], places[test] = 1, 2
    return places


def _statistics(x: NDArray[Any]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and deviation by channel; of samples as fractions of full scale."""
    channels = x.shape[2] if x.ndim == 3 else 1
    total, squares, count = np.zeros(channels), np.zeros(channels), 0
    for first in range(0, len(x), _CHUNK):
        part = x[first : first + _CHUNK].reshape(-1, channels).astype(np.float64)
        total, squares, count = total + part.sum(0), squares + (part**2).sum(0), count + len(part)
    scale = 1.0 if x.ndim == 3 else 2.0**-15
    mean = total / count
    variance = np.maximum(squares / count - mean**2, 0)
    return mean * scale, np.where(variance > 0, np.sqrt(variance) * scale, 1.0)
