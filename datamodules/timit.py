"""TIMIT: the next frame of a log-magnitude spectrogram (Wisdom et al. 2016)."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import ClassVar, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from datamodules.base import SequenceDataModule, Split
from datamodules.batch import Parts
from datamodules.cached import Arrays, cached, key_of, of_each
from datamodules.errors import UserError, require, whole
from datamodules.loader import IndexedBatches, Indices
from datamodules.recordings import Recording, read_recording
from datamodules.spectrogram import FLOOR, Samples, hann, log_magnitude, rebuilt, resampled, stft
from datamodules.task import Task

Protocol = Literal["common", "urnn", "exprnn"]

# Speakers of the disc's TEST, as in timit_dev_spk.list and timit_test_spk.list of github.com/stwisdom/urnn; the first
# is conf/dev_spk.list of Kaldi's TIMIT recipe, the second the core test set of the corpus's documentation.
_DEVELOPMENT = """
faks0 fdac1 fjem0 mgwt0 mjar0 mmdb1 mmdm2 mpdf0 fcmh0 fkms0 mbdg0 mbwm0 mcsh0 fadg0 fdms0 fedw0 mgjf0 mglb0 mrtk0 mtaa0
mtdt0 mthc0 mwjg0 fnmr0 frew0 fsem0 mbns0 mmjr0 mdls0 mdlf0 mdvc0 mers0 fmah0 fdrw0 mrcs0 mrjm4 fcal1 mmwh0 fjsj0 majc0
mjsw0 mreb0 fgjd0 fjmg0 mroa0 mteb0 mjfc0 mrjr0 fmml0 mrws1
"""
_CORE = """
mdab0 mwbt0 felc0 mtas1 mwew0 fpas0 mjmp0 mlnt0 fpkt0 mlll0 mtls0 fjlm0 mbpm0 mklt0 fnlp0 mcmj0 mjdh0 fmgd0 mgrt0 mnjm0
fdhc0 mjln0 mpam0 fmld0
"""
_COUNTS: dict[Protocol, dict[Split, int]] = {
    "common": {"train": 3_696, "val": 400, "test": 192},
    "urnn": {"train": 3_640, "val": 400, "test": 192},
    "exprnn": {"train": 3_640, "val": 192, "test": 400},
}


class Utterance(NamedTuple):
    """A sentence, as the disc has it; names in lower case.

    Args:
        path: The recording.
        training: Whether it is in TRAIN, rather than TEST.
        dialect: ``dr1`` to ``dr8``.
        speaker: Such as ``fcjf0``.
        sentence: Such as ``sx37``; ``sa1`` and ``sa2`` are the two that all speakers read.
    """

    path: Path
    training: bool
    dialect: str
    speaker: str
    sentence: str


def utterances(root: Path) -> list[Utterance]:
    """All sentences of the corpus, by dialect, speaker and name.

    Args:
        root: The folder that holds TRAIN and TEST, or one that holds a folder TIMIT with them; upper or lower case.

    Raises:
        UserError: if there is no such folder.
    """
    tops = [root, *_inside(root, "timit")]
    parts = [(part, top) for top in tops for name in ("train", "test") for part in _inside(top, name)]
    if {part.name.lower() for part, _ in parts} != {"train", "test"} or len({top for _, top in parts}) != 1:
        raise UserError(
            f"TIMIT is not in {root}: set data.init_args.root to the folder of its disc that holds TRAIN and TEST. The "
            "corpus is licensed by the Linguistic Data Consortium (LDC93S1) and cannot be downloaded here."
        )
    found: dict[tuple[str, ...], Utterance] = {}
    for part, _ in parts:
        for path in sorted(part.glob("*/*/*"), key=lambda path: (len(path.name), path.name)):
            dialect, speaker, name = (word.lower() for word in path.parts[-3:])
            sentence, _, ending = name.partition(".")
            if re.fullmatch(r"dr\d", dialect) and ending in ("wav", "wav.wav", "sph") and path.is_file():
                # where one has been re-encoded beside the disc's own, the disc's is shorter and comes first
                one = Utterance(path, part.name.lower() == "train", dialect, speaker, sentence)
                found.setdefault((part.name.lower(), dialect, speaker, sentence), one)
    return [found[key] for key in sorted(found)]


def _inside(folder: Path, name: str) -> list[Path]:
    """The folders in ``folder`` of this name, upper or lower case."""
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if path.name.lower() == name and path.is_dir())


def chosen(all_of_it: list[Utterance], split: Split, protocol: Protocol) -> list[Utterance]:
    """The utterances of a split: see `TIMIT`. The two sentences that all speakers read are in none."""
    read = [one for one in all_of_it if not _is_dropped(one, protocol)]
    if split == "train":
        return [one for one in read if one.training]
    swapped = protocol == "exprnn"
    speakers = (_DEVELOPMENT if (split == "val") != swapped else _CORE).split()
    return [one for one in read if not one.training and one.speaker in speakers]


def _is_dropped(one: Utterance, protocol: Protocol) -> bool:
    """Whether it is SA1 or SA2; the released filter looks for "sa" in the path, and so finds speakers, too."""
    return one.sentence.startswith("sa") or (protocol != "common" and "sa" in one.speaker)


class Frames(IndexedBatches):
    """Spectrograms of one split, and what is to be answered at each frame.

    Args:
        frames: (S, F) float32 decibels, one utterance after another.
        counts: (n,) frames of each.
        protocol: As of `TIMIT`.
        longest: Frames that the released code fills every utterance up to; not used by ``common``.
    """

    def __init__(self, frames: Tensor, counts: Indices, protocol: Protocol, longest: int) -> None:
        self.frames, self.counts, self.protocol, self.longest = frames, counts, protocol, longest
        self.starts = counts.cumsum() - counts
        self.lengths = counts - 1 if protocol == "common" else counts

    def __len__(self) -> int:
        return len(self.counts)

    def __getitem__(self, indices: Indices) -> Parts:
        assert self.lengths is not None
        lengths, counts = self.lengths[indices], self.counts[indices][:, None]
        step = np.arange(self.longest if self.protocol == "urnn" else int(lengths.max()))
        here = self._read(indices, np.minimum(step, counts - 1))
        ahead = self._read(indices, np.minimum(step + 1, counts - 1))
        if self.protocol != "common":  # an utterance is followed by silence, but the longest by nothing
            ahead[torch.from_numpy((step + 1 >= counts) & (counts < self.longest))] = 10 * math.log10(FLOOR)
        behind = torch.from_numpy(step >= lengths[:, None])
        here[behind], ahead[behind] = 0, 0
        inputs, targets = (ahead, here) if self.protocol == "exprnn" else (here, ahead)
        return Parts(inputs, targets, None, torch.from_numpy(lengths))

    def _read(self, indices: Indices, step: NDArray[np.int64]) -> Tensor:
        return self.frames[torch.from_numpy(self.starts[indices][:, None] + step)]


class TIMIT(SequenceDataModule):
    """The next frame of speech at 8 kHz, as its log-magnitude spectrum: 129 numbers in, 129 out, in dB.

    Frames are ``10 log10(1e-5 + |X|^2)`` of windows of 32 ms, one every 16 ms (`datamodules.spectrogram.stft`), not
    normalised; the loss is the mean squared error over all real frames, those to predict being the second to the last.
    Training is on the 462 speakers of TRAIN, 8 sentences of each, validation on the 50 development speakers of TEST,
    the test on its 24 core speakers. The two sentences that all speakers read, SA1 and SA2, are left out.

    Protocols:

    - ``common``: 3,696 / 400 / 192 utterances, as said.
    - ``urnn`` (Wisdom et al. 2016): trains on 3,640 utterances, as their filter for the SA sentences also drops the 7
      speakers with ``sa`` in their name; the last frame has to predict the silence of -50 dB behind it; and squared
      errors are averaged over all steps of batches filled up to the longest utterance, TRAIN's or TEST's, where those
      behind an end count as 0. Their errors are therefore lower than those of ``common``.
    - ``exprnn`` (Lezcano-Casado and Martínez-Rubio 2019; Lezcano-Casado 2019): their recipe makes the frame ahead
      the input and the one before it the target, so that a network has to recall, not to predict; it calls the core
      speakers ``val`` and the development speakers ``test``; the mean is over real frames. Whether the published
      figures are of this recipe is unconfirmed: they cannot be compared with those of the other protocols.

    The corpus is licensed (LDC93S1) and is read as it lies on its disc. Recordings may be NIST SPHERE or RIFF, whatever
    their names; the features are computed once and kept in ``cache``.

    ``chance`` is a guess among all values, from -50 dB to a tone of full scale: their range squared, over 12. The
    variance of the frames is not known before the data is read.

    Args:
        root: Folder that holds ``TRAIN/DR1/FCJF0/SI1027.WAV`` and so on, in upper or lower case.
        protocol: ``common``, ``urnn`` or ``exprnn``.
        cache: Folder for the features: about 350 MB for training. A change of the settings or of a recording makes new
            ones beside the old.
        sample_rate: Samples a second, resampled from the disc's 16,000.
        frame_length: Samples in a window, an even number.
        hop_length: Samples from one window to the next, a divisor of half the window.
        verify: Refuse a corpus without the published number of utterances; false for a part of it.
        bucket_by_length: Training batches are of utterances of similar length.
        batch_size: Utterances per step and process.
        seed: Seeds the order of training; None takes the run's ``seed_everything``.
        num_workers: Processes that prepare batches.
    """

    task_options: ClassVar[tuple[str, ...]] = ("protocol", "sample_rate", "frame_length", "hop_length")

    def __init__(
        self,
        root: str = "data/TIMIT",
        protocol: Protocol = "common",
        cache: str = "data/timit_features",
        sample_rate: int = 8_000,
        frame_length: int = 256,
        hop_length: int = 128,
        verify: bool = True,
        bucket_by_length: bool = False,
        batch_size: int = 32,
        seed: int | None = None,
        num_workers: int = 0,
    ) -> None:
        super().__init__(batch_size, seed, num_workers)
        whole(sample_rate, "data.init_args.sample_rate", 1)
        even = frame_length >= 4 and frame_length % 2 == 0
        require(even, "data.init_args.frame_length", frame_length, "an even number of at least 4")
        divides = hop_length >= 1 and frame_length // 2 % hop_length == 0
        accepted = f"a divisor of {frame_length // 2}, half of data.init_args.frame_length"
        require(divides, "data.init_args.hop_length", hop_length, accepted)
        self.root, self.protocol, self.cache, self.verify = root, protocol, cache, verify
        self.sample_rate, self.frame_length, self.hop_length = sample_rate, frame_length, hop_length
        self.bucket_by_length = bucket_by_length
        width = frame_length // 2 + 1
        span = 10 * math.log10(float(hann(frame_length).sum()) ** 2 / FLOOR)  # decibels, from silence to a tone
        self.task = Task(
            name="timit",
            inputs="values",
            input_size=width,
            targets="frame_per_step",
            target_size=width,
            length=None,
            scored="padded" if protocol == "urnn" else "all",
            chance=span**2 / 12,
            metric="mse",
            higher_is_better=False,
        )

    def split(self, name: Split) -> Frames:
        every = utterances(Path(self.root).expanduser())
        some = self._counted(every, name)
        kept = self._cached(name, [one.path for one in some])
        longest = int(kept["counts"].max())
        if self.protocol != "common" and name != "train":  # theirs holds all of TEST
            read = [one.path for one in every if not one.training and not _is_dropped(one, self.protocol)]
            longest = int(self._cached("longest", read)["counts"].max())
        return Frames(torch.from_numpy(kept["frames"]), kept["counts"], self.protocol, longest)

    def _counted(self, every: list[Utterance], name: Split) -> list[Utterance]:
        some, expected = chosen(every, name, self.protocol), _COUNTS[self.protocol][name]
        if self.verify and len(some) != expected:
            raise UserError(
                f"TIMIT in {self.root} has {len(some):,} utterances for the {name} split of protocol {self.protocol}, "
                f"but the published corpus has {expected:,}: give all of it, or set data.init_args.verify to false."
            )
        if not some:
            raise UserError(f"TIMIT in {self.root} has no utterance for the {name} split.")
        return some

    def _cached(self, name: str, files: list[Path]) -> Arrays:
        """Frames and their counts of these files; of ``longest`` the counts alone."""
        settings = {option: getattr(self, option) for option in self.task_options if option != "protocol"}
        folder, root = Path(self.cache).expanduser(), Path(self.root).expanduser()
        path = folder / f"{name}-{key_of({**settings, 'features': 1}, root, files)}.npz"

        def make() -> Arrays:
            print(f"TIMIT: computing the features of {len(files):,} utterances, kept in {folder}", flush=True)
            each = of_each(files, self._features, "TIMIT")
            counts = np.array([len(one) for one in each], dtype=np.int64)
            return {"counts": counts} if name == "longest" else {"counts": counts, "frames": np.concatenate(each)}

        return cached(path, make)

    def _features(self, path: Path) -> NDArray[np.float32]:
        return log_magnitude(self._spectrum(read_recording(path)))

    def _spectrum(self, recording: Recording) -> NDArray[np.complex128]:
        samples = resampled(recording.samples, recording.rate, self.sample_rate)
        return stft(samples, self.frame_length, self.hop_length)

    # ---- back to sound

    def recordings(self, split: Split) -> list[Utterance]:
        """The utterances of the disc that a split's samples are, in their order."""
        return chosen(utterances(Path(self.root).expanduser()), split, self.protocol)

    def rebuilt(self, path: Path, predicted: NDArray[np.float32]) -> tuple[Samples, Samples]:
        """An utterance, and what a network's frames make of it with the true phase, both (S,) at the task's rate.

        The first frame, which nothing predicts, is the true one (but for ``exprnn``, whose frames are all there).

        Args:
            path: The recording.
            predicted: (T, F) decibels, the outputs at its real steps.
        """
        spectrum = self._spectrum(read_recording(path))
        true = log_magnitude(spectrum)
        frames = predicted if self.protocol == "exprnn" else np.concatenate((true[:1], predicted))[: len(true)]
        hop = self.hop_length
        return rebuilt(true, spectrum, hop), rebuilt(frames, spectrum, hop)
