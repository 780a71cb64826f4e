"""TIMIT on made corpora in the disc's layout: splits, frames, the published quirks by hand, and the cache."""

import math
import os
import re
import struct
import threading

import numpy as np
import pytest
import torch

from datamodules import TIMIT, UserError
from datamodules import timit as timit_module
from datamodules.batch import Parts
from datamodules.spectrogram import log_magnitude, resampled, stft
from datamodules.timit import Frames, utterances

SENTENCES = ["SA1", "SA2", *(f"SI{n}" for n in (648, 1027, 1657)), *(f"SX{n}" for n in (37, 127, 217, 307, 397))]


def write(path, samples, rate=16000):
    """A SPHERE file as the disc has it."""
    head = f"NIST_1A\n   1024\nchannel_count -i 1\nsample_count -i {len(samples)}\nsample_rate -i {rate}\n"
    head += "sample_n_bytes -i 2\nsample_byte_format -s2 01\nsample_sig_bits -i 16\nend_head\n"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(head.encode().ljust(1024) + struct.pack(f"<{len(samples)}h", *samples))


@pytest.fixture(scope="module")
def disc(tmp_path_factory):
    """The layout of the whole disc, 630 speakers of 10 sentences, with nothing in the files.

    Those of the two lists are in TEST, and seven of TRAIN have SA in their name, as the released count needs.
    """
    root = tmp_path_factory.mktemp("disc") / "TIMIT"
    listed = [*timit_module._DEVELOPMENT.split(), *timit_module._CORE.split()]
    test = [*(name.upper() for name in listed), *(f"MZZ{n:02d}" for n in range(94))]
    train = [*(f"FSA{letter}0" for letter in "ABCDEFG"), *(f"MX{n:03d}" for n in range(455))]
    for part, speakers in (("TEST", test), ("TRAIN", train)):
        for number, speaker in enumerate(speakers):
            folder = root / part / f"DR{number % 8 + 1}" / speaker
            folder.mkdir(parents=True)
            for sentence in SENTENCES:
                (folder / f"{sentence}.WAV").touch()
    (root / "TEST" / "DR1" / "FAKS0" / "SX37.PHN").touch()
    every = utterances(root.parent)  # a folder that holds TIMIT
    assert len(every) == 6300
    return every


@pytest.fixture
def corpus(tmp_path):
    """A few seconds of noise: three training speakers (one with SA in its name), one of each list, and another."""
    rng, root = np.random.default_rng(0), tmp_path / "timit"
    speakers = {"TRAIN": ["FCJF0", "MDAB1", "FSAH0"], "TEST": ["FAKS0", "MDAB0", "MZZ00"]}
    for part, names in speakers.items():
        for speaker in names:
            for sentence in ("SA1", "SI648", "SX37"):
                count = 16000 if speaker == "MZZ00" else int(rng.integers(2000, 5000))
                write(root / part / "DR1" / speaker / f"{sentence}.WAV", rng.integers(-9000, 9000, count))
    return root


def make(corpus, **options):
    return TIMIT(str(corpus), **{"verify": False, "cache": str(corpus.parent / "cache"), "batch_size": 2} | options)


def batch(data, name):
    split = data.split(name)
    return Parts.of(split[np.arange(len(split))])


# ---- which utterances


@pytest.mark.parametrize(
    ("protocol", "counts"),
    [("common", (3696, 400, 192)), ("urnn", (3640, 400, 192)), ("exprnn", (3640, 192, 400))],
)
def test_the_published_counts(disc, protocol, counts):
    data = TIMIT(protocol=protocol)
    splits = [data._counted(disc, split) for split in ("train", "val", "test")]  # refuses another number
    assert tuple(map(len, splits)) == counts
    speakers = [{one.speaker for one in split} for split in splits]
    assert not speakers[0] & speakers[1] and not speakers[1] & speakers[2] and not speakers[0] & speakers[2]
    assert not any(one.sentence in ("sa1", "sa2") for split in splits for one in split)
    assert {one.training for one in splits[0]} == {True} and {one.training for one in splits[1] + splits[2]} == {False}
    core = splits[1] if protocol == "exprnn" else splits[2]
    assert len({one.speaker for one in core}) == 24 and sum(one.speaker[0] == "f" for one in core) == 8 * 8


@pytest.mark.parametrize("change", ["lower case", "riff beside", "root above"])
def test_other_forms_of_the_disc(corpus, change):
    before = [one[1:] for one in utterances(corpus)]
    root = corpus
    if change == "lower case":
        for path in sorted(corpus.rglob("*"), key=lambda path: -len(path.parts)):
            path.rename(path.with_name(path.name.lower()))
    elif change == "riff beside":
        for path in sorted(corpus.rglob("*.WAV")):
            path.with_name(path.name + ".wav").write_bytes(b"RIFF")
    else:
        root = corpus.parent
    after = utterances(root)
    assert [one[1:] for one in after] == before and len(before) == 18
    assert not any(one.path.name.endswith(".WAV.wav") for one in after)


def test_what_is_not_the_corpus(tmp_path, corpus):
    (tmp_path / "TRAIN").mkdir()
    for root in (tmp_path / "TRAIN", tmp_path / "nowhere"):
        with pytest.raises(UserError, match=rf"TIMIT is not in {re.escape(str(root))}: set data\.init_args\.root"):
            TIMIT(str(root)).split("val")
    with pytest.raises(UserError, match=r"has 4 utterances for the train split of protocol urnn, .* has 3,640"):
        make(corpus, verify=True, protocol="urnn").split("train")
    for path in (corpus / "TEST" / "DR1" / "MDAB0").iterdir():
        path.unlink()
    with pytest.raises(UserError, match="has no utterance for the test split"):
        make(corpus).split("test")


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"protocol": "wisdom"}, "protocol is 'wisdom', but it must be one of common, urnn, exprnn"),
        ({"sample_rate": 0}, "sample_rate is 0"),
        ({"frame_length": 255}, "frame_length is 255"),
        ({"hop_length": 96}, "hop_length is 96, but it must be a divisor of 128"),
        ({"hop_length": 256}, "hop_length is 256"),
    ],
)
def test_options_are_checked(options, sentence):
    with pytest.raises(UserError, match=sentence):
        TIMIT(**options)


# ---- frames and targets


def test_frames_are_those_of_the_recording(corpus):
    """Each utterance alone, by way of the functions that test_spectrogram.py holds to SciPy."""
    data = make(corpus)
    split = data.split("train")
    for number in range(6):
        raw = data.recordings("train")[number].path.read_bytes()[1024:]
        samples = np.frombuffer(raw, "<i2").astype(np.float32) / 32768
        expected = torch.from_numpy(log_magnitude(stft(resampled(samples, 16000, 8000))))
        one = Parts.of(split[np.array([number])])
        torch.testing.assert_close(one.inputs[0], expected[:-1])
        torch.testing.assert_close(one.targets[0], expected[1:])
        assert one.lengths.tolist() == [len(expected) - 1]


def test_the_task_and_its_chance():
    task = TIMIT().task
    assert (task.input_size, task.target_size, task.targets, task.metric) == (129, 129, "frame_per_step", "mse")
    loudest = 10 * math.log10(128**2)  # a constant of full scale in the window, whose sum is 128
    assert task.chance == pytest.approx((loudest + 50) ** 2 / 12, rel=1e-6)
    assert TIMIT(frame_length=64, hop_length=16).task.input_size == 33


HAND = torch.tensor([[1.0], [2], [4], [7], [11], [3], [5]])  # two utterances of one bin: 1 2 4 7 11 and 3 5


@pytest.mark.parametrize(
    ("protocol", "longest", "inputs", "targets", "lengths"),
    [
        ("common", 5, [[1, 2, 4, 7], [3, 0, 0, 0]], [[2, 4, 7, 11], [5, 0, 0, 0]], [4, 1]),
        # filled up to seven frames; the last frame of each has to predict the padding
        (
            "urnn",
            7,
            [[1, 2, 4, 7, 11, 0, 0], [3, 5, 0, 0, 0, 0, 0]],
            [[2, 4, 7, 11, -50, 0, 0], [5, -50, 0, 0, 0, 0, 0]],
            [5, 2],
        ),
        # behind the longest there is no padding: its last frame has to predict itself
        (
            "urnn",
            5,
            [[1, 2, 4, 7, 11], [3, 5, 0, 0, 0]],
            [[2, 4, 7, 11, 11], [5, -50, 0, 0, 0]],
            [5, 2],
        ),
        # what is ahead is shown, and what was before is asked for
        (
            "exprnn",
            7,
            [[2, 4, 7, 11, -50], [5, -50, 0, 0, 0]],
            [[1, 2, 4, 7, 11], [3, 5, 0, 0, 0]],
            [5, 2],
        ),
    ],
)
def test_protocols_by_hand(protocol, longest, inputs, targets, lengths):
    split = Frames(HAND, np.array([5, 2]), protocol, longest)
    found = Parts.of(split[np.array([0, 1])])
    assert found.inputs[..., 0].tolist() == inputs and found.targets[..., 0].tolist() == targets
    assert found.lengths.tolist() == lengths == split.lengths.tolist() and found.mask is None


def test_protocols_fill_up_to_the_longest_of_their_part(corpus):
    """TEST's longest is of a speaker in neither list; TRAIN's is among the four utterances that are kept."""
    train, val = (batch(make(corpus, protocol="urnn"), name) for name in ("train", "val"))
    assert val.inputs.shape[1] == 8000 // 128 + 1 + 3 and int(val.lengths.max()) < val.inputs.shape[1]
    assert train.inputs.shape[1] == int(train.lengths.max()) and len(train.lengths) == 4
    common = batch(make(corpus), "val")
    assert common.inputs.shape[1] == int(common.lengths.max()) and torch.equal(common.lengths, val.lengths - 1)


def test_exprnn_calls_the_core_speakers_val(corpus):
    urnn, exprnn = make(corpus, protocol="urnn"), make(corpus, protocol="exprnn")
    for one, other in (("val", "test"), ("test", "val")):
        right, swapped = batch(urnn, one), batch(exprnn, other)
        steps = int(right.lengths.max())
        assert torch.equal(right.lengths, swapped.lengths)
        assert torch.equal(right.inputs[:, :steps], swapped.targets)
        assert torch.equal(right.targets[:, :steps], swapped.inputs)


def test_bucketing_sorts_by_length(corpus):
    loader = make(corpus, bucket_by_length=True).loader("train")
    assert loader.bucket and loader.padding(True) <= loader.padding(False)


# ---- back to sound


@pytest.mark.parametrize("protocol", ["common", "urnn", "exprnn"])
def test_true_frames_rebuild_the_signal(corpus, protocol):
    """What a perfect network gives, with the true phase, is the recording at 8 kHz, to 1e-4."""
    data = make(corpus, protocol=protocol)
    one = Parts.of(data.split("val")[np.array([1])])
    length, path = int(one.lengths[0]), data.recordings("val")[1].path
    true, rebuilt = data.rebuilt(path, one.targets[0, :length].numpy())
    samples = np.frombuffer(path.read_bytes()[1024:], "<i2") / 32768
    signal = resampled(samples, 16000, 8000)
    for found in (true, rebuilt):
        np.testing.assert_allclose(found[: len(signal)], signal, rtol=0, atol=1e-4)


# ---- the cache


def test_features_are_computed_once_and_anew_for_other_settings(corpus, monkeypatch):
    computed = []
    original = TIMIT._features
    monkeypatch.setattr(TIMIT, "_features", lambda self, path: computed.append(path) or original(self, path))
    first = batch(make(corpus), "val")
    assert len(computed) == 2
    again = batch(make(corpus), "val")
    assert len(computed) == 2 and torch.equal(first.inputs, again.inputs)
    batch(make(corpus, hop_length=64), "val")
    assert len(computed) == 4
    path = make(corpus).recordings("val")[0].path
    os.utime(path, (1, 1))  # another recording
    batch(make(corpus), "val")
    assert len(computed) == 6
    assert not list((corpus.parent / "cache").glob(".part-*"))


@pytest.mark.parametrize("damage", ["cut", "empty", "text"])
def test_a_damaged_cache_is_made_anew(corpus, damage):
    first = batch(make(corpus), "val")
    (path,) = (corpus.parent / "cache").glob("val-*.npz")
    content = path.read_bytes()
    path.write_bytes({"cut": content[: len(content) // 2], "empty": b"", "text": b"no arrays"}[damage])
    assert torch.equal(batch(make(corpus), "val").inputs, first.inputs)
    assert path.read_bytes()[:2] == b"PK" and path.stat().st_size == len(content)


def test_two_at_once_compute_once(corpus, monkeypatch):
    """The second waits for the first; its own lock, as of another process, as flock is of the open file."""
    computed, found = [], []
    original = TIMIT._features
    monkeypatch.setattr(TIMIT, "_features", lambda self, path: computed.append(path) or original(self, path))
    threads = [threading.Thread(target=lambda: found.append(batch(make(corpus), "train"))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(computed) == 6 and all(torch.equal(found[0].inputs, other.inputs) for other in found)


def test_a_cache_that_cannot_be_written(corpus):
    (corpus.parent / "file").touch()
    with pytest.raises(UserError, match=r"neither read nor made \(File exists\): set data\.init_args\.cache to"):
        make(corpus, cache=str(corpus.parent / "file")).split("val")


def test_no_room(corpus, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez", full)
    with pytest.raises(UserError, match="No space left on device"):
        make(corpus).split("val")
    assert [path.name for path in (corpus.parent / "cache").iterdir()] == [".lock"]


def test_a_broken_recording_is_named(corpus):
    path = make(corpus).recordings("train")[3].path
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(UserError, match=re.escape(str(path))):
        make(corpus).split("train")
    assert not list((corpus.parent / "cache").glob("*.npz"))
