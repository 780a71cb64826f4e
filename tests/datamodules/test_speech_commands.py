"""SpeechCommands from a made archive: words, splits, cepstra against their definition, and what is refused."""

import dataclasses
import hashlib
import io
import itertools
import math
import re
import tarfile
import wave

import numpy as np
import pytest
import torch
from scipy import signal

from datamodules import SpeechCommands, UserError
from datamodules import speech_commands as module
from datamodules.cepstrum import mel_filters, mfcc
from datamodules.speech_commands import WORDS

SHORT = "go/s0_nohash_1.wav"  # filled up with silence, or left out
CLIPS = [f"{word}/s{n}_nohash_0.wav" for word in WORDS[10] for n in range(7)] + [SHORT]
VALIDATION = [name for name in CLIPS if "/s5_" in name]
TESTING = [name for name in CLIPS if "/s6_" in name]


def clip(name):
    """A second that only this file has; in the short one half of it."""
    rng = np.random.default_rng(CLIPS.index(name))
    return rng.integers(-3000, 3000, 8000 if name == SHORT else 16000).astype("<i2")


def riff(samples, rate=16000):
    file = io.BytesIO()
    with wave.open(file, "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(rate)
        sound.writeframes(samples.tobytes())
    return file.getvalue()


def contents():
    held = {f"./{name}": riff(clip(name)) for name in CLIPS}
    held["./_background_noise_/pink.wav"] = riff(clip(SHORT))
    held["./bed/s0_nohash_0.wav"] = riff(clip(SHORT))
    held["./validation_list.txt"] = "\n".join(VALIDATION).encode()
    return {**held, "./testing_list.txt": "\n".join(TESTING).encode(), "./README.md": b"words"}


def pack(path, held):
    with tarfile.open(path, "w:gz", compresslevel=1) as archive:
        for name, content in held.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))


@pytest.fixture(scope="module")
def packed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("archive")
    pack(folder / module._ARCHIVE, contents())
    return folder


@pytest.fixture
def make(packed, tmp_path):
    def built(**options):
        default = {"root": str(packed), "classes": 10, "verify": False, "cache": str(tmp_path / "cache")}
        return SpeechCommands(**{**default, **options})

    return built


def everything(data, name):
    split = data.split(name)
    x, y = split[np.arange(len(split))][:2]
    return x, [WORDS[10][number] for number in y.tolist()]


def names_of(data, name):
    """The files of a split's clips, found again by what is in them."""
    x, _ = everything(data, name)
    mean, std = (part.astype(np.float32) for part in data.statistics)
    starts = {tuple(clip(each)[:50].tolist()): each for each in CLIPS}
    raw = np.rint((x[..., 0].numpy() * std + mean) * 32768).astype(int)
    return [starts[tuple(row[:50].tolist())] for row in raw]


def test_the_words():
    assert len(WORDS[35]) == 35 and len(WORDS[10]) == 10 and set(WORDS[10]) < set(WORDS[35])
    tasks = [SpeechCommands().task, SpeechCommands(features="raw", classes=10).task]
    assert [(task.length, task.input_size, task.target_size) for task in tasks] == [(161, 20, 35), (16000, 1, 10)]
    assert [task.name for task in tasks] == ["speech_commands_35_mfcc", "speech_commands_10_raw"]
    assert [task.chance for task in tasks] == [math.log(35), math.log(10)]


def test_splits_are_those_of_the_lists(make):
    data = make(features="raw")
    found = {name: names_of(data, name) for name in ("train", "val", "test")}
    assert sorted(found["val"]) == sorted(VALIDATION) and sorted(found["test"]) == sorted(TESTING)
    assert sorted(found["train"]) == sorted(set(CLIPS) - set(VALIDATION) - set(TESTING))
    for name, files in found.items():
        assert [file.partition("/")[0] for file in files] == everything(data, name)[1]


def test_samples_are_standardised_by_training(make):
    data = make(features="raw")
    x, _ = everything(data, "train")
    whole = np.concatenate([np.pad(clip(name), (0, 16000 - len(clip(name)))) for name in names_of(data, "train")])
    mean, std = (float(part[0]) for part in data.statistics)
    assert mean == pytest.approx(whole.mean() / 32768, rel=1e-9) and std == pytest.approx(whole.std() / 32768, rel=1e-9)
    assert float(x.double().mean()) == pytest.approx(0, abs=1e-5) and float(x.double().std()) == pytest.approx(
        1, abs=1e-5
    )
    short = x[names_of(data, "train").index(SHORT), 8000:, 0]
    torch.testing.assert_close(short, torch.full((8000,), -mean / std))
    fewer = make(features="raw", subsample=2)
    assert fewer.task.length == 8000 and fewer.task.name == "speech_commands_10_raw_half_rate"
    assert torch.equal(everything(fewer, "val")[0], everything(data, "val")[0][:, ::2])


def test_cepstra_are_standardised_by_channel(make):
    data = make()
    x, words = everything(data, "train")
    assert x.shape == (51, 161, 20) and len(words) == 51
    steps = x.double().flatten(0, 1)
    torch.testing.assert_close(steps.mean(0), torch.zeros(20, dtype=torch.float64), atol=1e-4, rtol=0)
    torch.testing.assert_close(steps.std(0, unbiased=False), torch.ones(20, dtype=torch.float64), atol=1e-4, rtol=0)
    mean, std = data.statistics
    expected = (mfcc(clip(VALIDATION[0]) / 32768, 16000) - mean) / std
    np.testing.assert_allclose(everything(data, "val")[0][0], expected, rtol=0, atol=1e-3)


def test_s4_draws_70_15_15_of_whole_seconds(make):
    data = make(features="raw", protocol="s4")
    found = [names_of(data, name) for name in ("train", "val", "test")]
    assert [len(files) for files in found] == [49, 10, 11]
    assert sorted(itertools.chain(*found)) == sorted(set(CLIPS) - {SHORT})
    assert {file.partition("/")[0] for file in found[1]} == set(WORDS[10])


@pytest.mark.parametrize("source", ["archive", "folder"])
def test_an_unpacked_corpus_is_the_same(make, packed, tmp_path, source):
    if source == "folder":
        with tarfile.open(packed / module._ARCHIVE) as archive:
            archive.extractall(tmp_path / "root" / module._NAME, filter="data")
    data = make(features="raw", root=str(tmp_path / "root" if source == "folder" else packed))
    x, _ = everything(data, "val")
    reference = make(features="raw", cache=str(tmp_path / "other"))
    assert torch.equal(x, everything(reference, "val")[0])


def test_a_checkpoint_keeps_the_statistics(make):
    data = make()
    assert data.learned() == {}
    everything(data, "val")
    kept = data.learned()
    assert len(kept["mean"]) == len(kept["std"]) == 20
    other = make()
    other.learn({"mean": [0.0] * 20, "std": [2.0] * 20})
    mean, std = (np.array(kept[key]) for key in ("mean", "std"))
    halved = (everything(data, "val")[0].numpy() * std + mean) / 2
    np.testing.assert_allclose(everything(other, "val")[0], halved, rtol=0, atol=1e-4)
    with pytest.raises(UserError, match="no statistics of 20 inputs"):
        other.learn({"mean": [0.0], "std": [1.0]})


# ---- cepstra


def test_mfcc_is_its_definition():
    """Spectra by SciPy, triangles and cosines one by one."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal(1600) * 0.1
    mirrored = np.concatenate((x[100:0:-1], x, x[-2:-102:-1]))
    options = {"window": "hann", "nperseg": 200, "noverlap": 100, "boundary": None, "padded": False}
    power = np.abs(signal.stft(mirrored, **options)[2].T * 100) ** 2
    corners = [700 * (10 ** (m / 2595) - 1) for m in np.linspace(0, 2595 * math.log10(1 + 8000 / 700), 66)]
    energy = np.zeros((17, 64))
    for m in range(64):
        for k in range(101):
            f, (low, middle, high) = 80.0 * k, corners[m : m + 3]
            weight = (f - low) / (middle - low) if f <= middle else (high - f) / (high - middle)
            energy[:, m] += max(0.0, weight) * power[:, k]
    logs = np.log(1e-6 + energy)
    expected = np.zeros((17, 20))
    for k in range(20):
        scale = math.sqrt((1 if k == 0 else 2) / 64)
        expected[:, k] = scale * sum(logs[:, m] * math.cos(math.pi * k * (2 * m + 1) / 128) for m in range(64))
    np.testing.assert_allclose(mfcc(x, 16000), expected, rtol=0, atol=1e-5)
    np.testing.assert_allclose(mfcc(np.stack((x, 2 * x)), 16000)[0], expected, rtol=0, atol=1e-5)


def test_mel_filters_meet_at_their_corners():
    """Between the first and the last peak the triangles of neighbours sum to 1."""
    filters = mel_filters(8001, 16000, 10)
    peaks = filters.argmax(0)
    np.testing.assert_allclose(filters.sum(1)[peaks[0] + 1 : peaks[-1]], 1, atol=1e-12)


# ---- what is refused


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"features": "mel"}, "features is 'mel', but it must be mfcc or raw"),
        ({"classes": 12}, "classes is 12, but it must be 10 or 35"),
        ({"protocol": "s4"}, "protocol is 's4', but it must be common for 35 words"),
        ({"subsample": 2}, "subsample is 2, but it must be 1: cepstra"),
        ({"features": "raw", "subsample": 0}, "subsample is 0"),
    ],
)
def test_options_are_checked(options, sentence):
    with pytest.raises(UserError, match=sentence):
        SpeechCommands(**options)


def damaged(kind):
    held = contents()
    if kind == "no lists":
        del held["./testing_list.txt"]
    elif kind == "a word is missing":
        held = {name: content for name, content in held.items() if not name.startswith("./go/s6")}
    elif kind == "too long":
        held["./go/s0_nohash_0.wav"] = riff(np.zeros(16001, "<i2"))
    elif kind == "another rate":
        held["./go/s0_nohash_0.wav"] = riff(np.zeros(8000, "<i2"), 8000)
    elif kind == "no text":
        held["./testing_list.txt"] = b"\xff\xfe"
    elif kind == "no recording":
        held["./go/s0_nohash_0.wav"] = b"words"
    return held


@pytest.mark.parametrize(
    ("kind", "sentence"),
    [
        ("no lists", r"has 72 recordings, and 10 names in validation_list\.txt and testing_list\.txt, but 105,829"),
        ("a word is missing", r"has not every one of the 10 words in the test split"),
        ("too long", r"go/s0_nohash_0\.wav has 16,001 samples at 16000 a second: at most 16,000"),
        ("another rate", r"go/s0_nohash_0\.wav has 8,000 samples at 8000"),
        ("no recording", r"go/s0_nohash_0\.wav begins with b'words'"),
        ("no text", r"testing_list\.txt is damaged \('utf-8' codec .*\): it must be a list of names"),
        ("cut", r"is damaged \(.*\): delete it and run again"),
        ("no archive", r"is damaged \(.*\): delete it and run again"),
    ],
)
def test_an_archive_that_is_not_right(make, tmp_path, kind, sentence):
    path = tmp_path / "root" / module._ARCHIVE
    path.parent.mkdir()
    pack(path, damaged(kind))
    if kind == "cut":
        path.write_bytes(path.read_bytes()[:-200_000])
    elif kind == "no archive":
        path.write_bytes(b"no archive")
    with pytest.raises(UserError, match=sentence) as refused:
        make(features="raw", root=str(path.parent)).split("val")
    assert re.search(re.escape(str(path)), str(refused.value)) and not list((tmp_path / "cache").glob("*.npz"))


def test_verify_refuses_another_archive(make, tmp_path, packed):
    with pytest.raises(UserError, match=r"is not the published file: its SHA-256 is .*, not af14739e"):
        make(features="raw", verify=True).split("val")


def test_verify_refuses_what_was_read_without_it(make):
    """A cache of a part of the corpus is not taken for all of it."""
    make(features="raw").split("val")
    with pytest.raises(UserError, match=r"is not the published file"):
        make(features="raw", verify=True).split("val")


def test_a_recording_that_cannot_be_read_is_named(make, tmp_path):
    (tmp_path / "root" / module._NAME / "go" / "a.wav").mkdir(parents=True)
    for name in module._LISTS:
        (tmp_path / "root" / module._NAME / name).touch()
    with pytest.raises(UserError, match=r"go/a\.wav cannot be read \(Is a directory\)"):
        make(features="raw", root=str(tmp_path / "root")).split("val")


def test_a_part_of_an_unpacked_corpus_may_grow(make, packed, tmp_path):
    with tarfile.open(packed / module._ARCHIVE) as archive:
        archive.extractall(tmp_path / "root" / module._NAME, filter="data")
    last = tmp_path / "root" / module._NAME / CLIPS[0]
    content = last.read_bytes()
    last.unlink()
    counts = []
    for _ in range(2):
        counts.append(len(make(features="raw", root=str(tmp_path / "root")).split("train")))
        last.write_bytes(content)
    assert counts[1] == counts[0] + 1


def test_offline_it_says_what_to_do(make, tmp_path, monkeypatch):
    def offline(*_, **__):
        raise OSError("Name or service not known")

    monkeypatch.setattr("urllib.request.urlopen", offline)
    root = tmp_path / "root"
    with pytest.raises(UserError) as refused:
        make(root=str(root)).prepare_data()
    told = str(refused.value)
    assert str(root) in told and "storage.googleapis.com" in told and "Put speech_commands_v0.02.tar.gz there" in told
    assert [path.name for path in root.iterdir()] == [".lock"]


@pytest.mark.parametrize("right", [True, False])
def test_the_archive_is_kept_as_it_came(packed, tmp_path, monkeypatch, right):
    """Whole and with its sum, or not at all."""
    content = (packed / module._ARCHIVE).read_bytes()
    monkeypatch.setattr("urllib.request.urlopen", lambda *_, **__: Answer(content))
    expected = module._DOWNLOAD
    if right:
        expected = dataclasses.replace(expected, sum=hashlib.sha256(content).hexdigest())
    monkeypatch.setattr(module, "_DOWNLOAD", expected)
    root = tmp_path / "root"
    data = SpeechCommands(str(root), classes=10, features="raw", verify=False)
    if right:
        data.prepare_data()
        assert (root / module._ARCHIVE).read_bytes() == content and len(data.split("val")) == 10
        return
    with pytest.raises(UserError, match="it is not the published file: its SHA-256"):
        data.prepare_data()
    assert [path.name for path in root.iterdir()] == [".lock"]


class Answer(io.BytesIO):
    """What a server sends."""

    def __init__(self, content):
        super().__init__(content)
        self.headers = {}
