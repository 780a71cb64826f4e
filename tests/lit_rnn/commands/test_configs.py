"""Every shipped config: its names are known, and it trains a step in small."""

from __future__ import annotations

import copy
import functools
import importlib
import inspect
import itertools
import json
import math
import pkgutil
import re
import struct
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
import yaml
from scipy.io import wavfile

import datamodules
import lit_rnn
from datamodules import SequenceDataModule
from datamodules.speech_commands import WORDS
from lit_rnn import models
from lit_rnn.commands.configs import config_folder
from lit_rnn.models import SequenceModel
from lit_rnn.models.base import count_parameters
from tests.lit_rnn.conftest import rows
from tests.mnist import mnist_data

FOLDER = config_folder()
OVERLAYS = ("debug", "loggers", "cluster", "studies", "campaign")
FILES = [path.relative_to(FOLDER).as_posix() for path in sorted(FOLDER.rglob("*.yaml"))]
CONFIGS = [name for name in FILES if name.split("/")[0] not in OVERLAYS]
BY_TASK = ("recall", "state_tracking")  # one model on many tasks: files are called after those
SMALL: dict[str, list[object]] = {
    "CopyMemory": ["--data.delay", 3, "--data.train_samples", 8, "--data.val_samples", 4],
    "Parenthesis": ["--data.length", 6, "--data.train_samples", 8, "--data.val_samples", 4],
    "Denoise": ["--data.delay", 3, "--data.symbols", 2, "--data.train_samples", 16, "--data.val_samples", 4],
    "Adding": ["--data.length", 6, "--data.train_samples", 8, "--data.val_samples", 4],
    **{
        name: ["--data.train_samples", 8, "--data.val_samples", 4]
        for name in (
            "Parity",
            "CycleNavigation",
            "ModularArithmetic",
            "PermutationWord",
            "Dyck",
            "InductionHeads",
            "FlipFlop",
        )
    },
    "ListOps": ["--data.min_length", 5, "--data.max_length", 30, "--data.train_samples", 8, "--data.val_samples", 4],
    "AssociativeRecall": ["--data.vocabulary", 70, "--data.train_samples", 8, "--data.val_samples", 4],
    "SelectiveCopy": ["--data.delay", 20, "--data.train_samples", 8, "--data.val_samples", 4],
    "TextCorpus": ["--data.files", "texts/PennTreebank/ptb.test.txt", "--data.val_share", 0.4, "--data.tbptt", 5],
    "PennTreebank": ["--data.root", "texts", "--data.verify", "false", "--data.tbptt", 5],
    "Text8": ["--data.root", "texts", "--data.verify", "false", "--data.tbptt", 5],
    "Enwik8": ["--data.root", "texts", "--data.verify", "false", "--data.tbptt", 5],
    "PixelDigits": ["--data.val_size", 8],
    "SequenceFiles": [],
    "UEA": ["--data.dataset", "JapaneseVowels"],  # which aeon brings
    "MNIST1D": [],
    "SpeechCommands": ["--data.root", "words", "--data.verify", "false"],
    "TIMIT": ["--data.root", "timit", "--data.verify", "false"],
    "PixelCIFAR10": ["--data.val_size", 3, "--data.root", "cifar"],
    "PixelMNIST": ["--data.val_size", 6, "--data.root", "mnist", "--data.verify", "false"],
}
SMALL_MODEL: dict[str, list[object]] = {  # what goes with the hidden size
    "EURNN": ["--model.capacity", 2],
    "ScoRNN": ["--model.negatives", 2],
    "HouseholderRNN": ["--model.reflections", 2],
    "NRU": ["--model.hidden_size", 212, "--model.memory_size", 256],  # a smaller one explodes over 785 steps
    "StatisticalRU": ["--model.statistics_size", 3, "--model.summary_size", 2],
}


def concrete(base: type) -> list[type]:
    def below(cls: type) -> Iterator[type]:
        for child in cls.__subclasses__():
            yield child
            yield from below(child)

    ours = [cls for cls in below(base) if cls.__module__.split(".")[0] in ("lit_rnn", "datamodules")]
    return [cls for cls in dict.fromkeys(ours) if not inspect.isabstract(cls)]


@functools.cache
def _read(name: str) -> Any:
    return yaml.load((FOLDER / name).read_text(), yaml.CSafeLoader if yaml.__with_libyaml__ else yaml.SafeLoader)


def read(name: str) -> Any:
    """What a config says, the caller's own."""
    return copy.deepcopy(_read(name))


def class_names(name: str) -> tuple[str, str]:
    config = _read(name)
    return config["model"]["class_path"].rpartition(".")[2], config["data"]["class_path"].rpartition(".")[2]


def needs(name: str) -> None:
    """Skip where an extra that is not among those of the tests is missing."""
    if class_names(name)[1] == "UEA":
        pytest.importorskip("aeon", reason="aeon is not installed: the extra uea, which constraints.txt cannot hold")


def numberless(value: Any, typed: bool = False) -> Any:
    """A config without its numbers: two that are equal then run the same code at different sizes and rates.

    Typed, int and float stand in their places: of two that are equal then the command line takes both or neither.
    """
    if isinstance(value, dict):
        return {key: numberless(inner, typed) for key, inner in value.items()}
    if isinstance(value, list):
        return [numberless(inner, typed) for inner in value]
    return value if type(value) not in (int, float) else type(value).__name__ if typed else "number"


def one_of_each_kind() -> list[str]:
    """Configs in which every kind of model, of data and of the rest is trained, and every model on every data's class.

    Published texts differ in their sizes alone, whose code tests/datamodules/test_text.py runs.
    """
    seen: set[str] = set()
    names = []
    for name in CONFIGS:
        config = read(name)
        model, data = class_names(name)
        if data in ("PennTreebank", "Enwik8"):
            config["data"] = data = "text"
            config["model"]["init_args"].pop("lr_scheduler", None)
            for option in [key for key in config["model"]["init_args"] if key.endswith("_dropout")]:
                del config["model"]["init_args"][option]
        kinds = [config.pop("model"), config.pop("data"), config]
        shown = {f"{model} on {data}", *(json.dumps(numberless(kind), sort_keys=True) for kind in kinds)}
        if not shown <= seen:
            names.append(name)
        seen |= shown
    return names


def of_other_keys() -> set[str]:
    """Configs with a model, data or rest whose keys, words and types no other has that the command line reads."""
    small = one_of_each_kind()
    seen: set[str] = set()
    names = set()
    for name in [*small, *CONFIGS]:
        config = read(name)
        parts = config.pop("model"), config.pop("data"), config
        shown = {json.dumps(numberless(part, typed=True), sort_keys=True) for part in parts}
        if name not in small and not shown <= seen:
            names.add(name)
        seen |= shown
    return names


def comment(name: str) -> str:
    """The lines at the head of a config, as one."""
    lines = itertools.takewhile(lambda line: line.startswith("# "), (FOLDER / name).read_text().splitlines())
    return " ".join(line[2:] for line in lines)


@pytest.fixture(scope="module", autouse=True)
def _everything_imported() -> None:
    for package in (lit_rnn, datamodules):
        for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
            if not module.name.endswith("__main__"):
                importlib.import_module(module.name)


@pytest.fixture(scope="module")
def mnist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty real images, as the file of training; there is no test file to open."""
    images, labels = mnist_data()
    chosen = np.random.RandomState(0).permutation(5000)[:20]
    raw = tmp_path_factory.mktemp("mnist") / "MNIST" / "raw"
    raw.mkdir(parents=True)
    pixels, classes = images[chosen].astype(np.uint8).tobytes(), labels[chosen].astype(np.uint8).tobytes()
    for name in ("train", "t10k"):
        (raw / f"{name}-images-idx3-ubyte").write_bytes(struct.pack(">4i", 2051, 20, 28, 28) + pixels)
        (raw / f"{name}-labels-idx1-ubyte").write_bytes(struct.pack(">2i", 2049, 20) + classes)
    return raw.parents[1]


@pytest.fixture(autouse=True)
def _gestures(tmp_path: Path) -> None:
    """The file that the config of a user's own data names, in the folder where a command runs."""
    rows = [f"{i},{t},{(i * t) % 5},{t % 3},{'ab'[i % 2]}" for i in range(40) for t in range(2 + i % 3)]
    (tmp_path / "gestures.csv").write_text("\n".join(["sequence,step,x,y,target", *rows]))


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A few letters in the place of every published text."""
    root = tmp_path_factory.mktemp("texts")
    letters = " t h e _ c a t _ s a t \n" * 3
    for level in ("", "char."):
        for split in ("train", "valid", "test"):
            (root / "PennTreebank").mkdir(exist_ok=True)
            (root / "PennTreebank" / f"ptb.{level}{split}.txt").write_text(letters)
    for name in ("text8", "enwik8"):
        (root / name).mkdir()
        (root / name / name).write_text("the cat sat " * 20)
    return root


@pytest.fixture(scope="module")
def timit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two short utterances of a training speaker, and two of one in each list, in the layout of the disc."""
    root = tmp_path_factory.mktemp("timit")
    samples = (8000 * np.sin(np.arange(1000) ** 1.5 / 40)).astype(np.int16)
    for speaker in ("TRAIN/DR1/FCJF0", "TEST/DR1/FAKS0", "TEST/DR1/MDAB0"):
        (root / speaker).mkdir(parents=True)
        for sentence in ("SI648", "SX37"):
            wavfile.write(root / speaker / f"{sentence}.WAV", 16_000, samples)
    return root


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Seven clips of each of the 35 words, a second of the ten, unpacked."""
    root = tmp_path_factory.mktemp("words")
    names = [f"{word}/s{n}_nohash_0.wav" for word in WORDS[35] for n in range(7)]
    for name in names:
        path = root / "speech_commands_v0.02" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        steps = 16_000 if path.parent.name in WORDS[10] else 400
        wavfile.write(
            path, 16_000, (8000 * np.sin(np.arange(steps) * (1 + len(path.parent.name)) / 9)).astype(np.int16)
        )
    for number, split in ((5, "validation"), (6, "testing")):
        listed = [name for name in names if f"/s{number}_" in name]
        (root / "speech_commands_v0.02" / f"{split}_list.txt").write_text("\n".join(listed))
    return root


# ---- names


def test_class_names_are_unique() -> None:
    """Short names are looked up among all subclasses; two of one name would be refused."""
    for base in (SequenceModel, SequenceDataModule):
        counts = Counter(cls.__name__ for cls in concrete(base))
        assert max(counts.values()) == 1, counts


def test_every_class_is_exported_and_has_a_config() -> None:
    used = [class_names(name) for name in CONFIGS]
    for cls in concrete(SequenceModel):
        assert getattr(models, cls.__name__, None) is cls and cls.__name__ in models.__all__
        assert cls.__name__ in {model for model, _ in used}, f"no config for {cls.__name__}"
    for data in concrete(SequenceDataModule):
        assert getattr(datamodules, data.__name__, None) is data and data.__name__ in datamodules.__all__
        assert data.__name__ in {name for _, name in used}, f"no config for {data.__name__}"


def test_files_are_named_after_what_they_hold() -> None:
    for name in CONFIGS:
        folder, _, file = name.rpartition("/")
        if folder in BY_TASK:
            snake = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", class_names(name)[1]).lower()
            assert file.startswith(snake), name
        elif folder and "_paper/" not in name:  # there, as the paper names its rows
            assert file.removesuffix(".yaml").split("_")[0] == class_names(name)[0].lower(), name
            permuted = read(name)["data"]["init_args"].get("permute", False)
            assert ("permuted" in file) == permuted, name
    folders: dict[str, set[str]] = {}
    for name in CONFIGS:
        if "/" in name and name.rpartition("/")[0] not in BY_TASK:
            folders.setdefault(name.rpartition("/")[0], set()).add(class_names(name)[1])
    assert all(len(data) == 1 for data in folders.values()), "one task to a folder"


def test_files_say_where_they_come_from() -> None:
    for name in FILES:
        first = (FOLDER / name).read_text().splitlines()[0]
        assert first.startswith("# ") and len(first) > 20, name


def test_a_comment_names_where_its_accumulators_start() -> None:
    """TensorFlow's RMSprop, Theano's and the papers' own differ in it, by a factor of thousands in the first steps."""
    seen = set()
    for name in CONFIGS:
        arguments = read(name)["model"]["init_args"]
        optimizers = [arguments["optimizer"], *arguments.get("group_optimizers", {}).values()]
        starts = {"RMSpropTF": ("initial_accumulator", 1.0), "Adagrad": ("initial_accumulator_value", 0.0)}
        used = {
            float(spec["init_args"].get(*starts[spec["class_path"]]))
            for spec in optimizers
            if spec["class_path"] in starts
        }
        told = {float(number) for number in re.findall(r"accumulator from ([\d.e-]*\d)", comment(name))}
        assert told == used, name
        seen |= used
    assert seen == {0.0, 0.001, 0.1, 1.0}


# ---- runs


def test_numberless_keeps_what_is_no_number() -> None:
    value = {"a": 1, "b": [2.0, {"c": True}], "d": None, "e": "1"}
    assert numberless(value) == {"a": "number", "b": ["number", {"c": True}], "d": None, "e": "1"}
    assert numberless(value, typed=True) == {"a": "int", "b": ["float", {"c": True}], "d": None, "e": "1"}


@pytest.mark.parametrize("name", one_of_each_kind())
def test_a_step_in_small(
    cli: Any, mnist: Path, texts: Path, timit: Path, words: Path, tmp_path: Path, name: str
) -> None:
    needs(name)
    (tmp_path / "timit").symlink_to(timit)
    (tmp_path / "words").symlink_to(words)
    (tmp_path / "mnist").symlink_to(mnist)
    (tmp_path / "texts").symlink_to(texts)
    if class_names(name)[1] == "PixelCIFAR10":
        (tmp_path / "cifar" / "cifar-10-batches-bin").mkdir(parents=True)
        for file in (*(f"data_batch_{k}" for k in range(1, 6)), "test_batch"):
            (tmp_path / "cifar" / "cifar-10-batches-bin" / f"{file}.bin").write_bytes(
                bytes(range(0, 6)) * 1024 + b"\2\3"
            )
    model, data = class_names(name)
    options = ["--model.hidden_size", 8, *SMALL_MODEL.get(model, [])]
    options += ["--data.batch_size", 2, *SMALL[data], "--threads", 1]
    options += ["--trainer.accelerator", "cpu", "--trainer.fast_dev_run", "true"]
    done = cli("fit", "-c", f"configs/{name}", *options)
    assert done.status == 0 and done.err == "", done.err
    assert f"\n{model} with" in f"\n{done.out}" and "epoch 1  step 1" in done.out
    assert "nan" not in done.out and "inf" not in done.out.replace("info", "")


@pytest.mark.parametrize(
    ("name", "by_command"), [(name, name in others) for others in [of_other_keys()] for name in CONFIGS], ids=str
)
def test_the_real_size_is_built(cli: Any, monkeypatch: pytest.MonkeyPatch, name: str, by_command: bool) -> None:
    """With nothing overridden: model and task agree, the optimizer takes its groups. No data is read.

    The command line, which takes five times as long, does it where `test_a_step_in_small` shows it none of these keys.
    A number of parameters in the comment is that of the model, one behind "about" within 3 %.
    """
    needs(name)
    given: dict[str, Any] = {}

    @functools.wraps(pl.Trainer.fit)
    def fit(self: pl.Trainer, *args: Any, **kwargs: Any) -> None:
        given.update(kwargs)

    monkeypatch.setattr(pl.Trainer, "fit", fit)
    if "enwik8" in name or "treebank_word" in name:  # matrices of 1,840 x 1,840: other tests see that they start right
        monkeypatch.setattr(torch.linalg, "qr", lambda A, *_, **__: (A, A))
    if by_command:
        accelerator = ["--trainer.accelerator", "cpu", "--trainer.fast_dev_run", "true"]
        assert cli("fit", "-c", f"configs/{name}", *accelerator).status == 0
        model, data = given["model"], given["datamodule"]
        assert (type(model).__name__, type(data).__name__) == class_names(name)
    else:
        config, (model_class, data_class) = read(name), class_names(name)
        data = getattr(datamodules, data_class)(**config["data"].get("init_args", {}))
        model = getattr(models, model_class)(data.task, **config["model"]["init_args"])
    assert model.task == data.task and math.isfinite(data.task.chance)
    optimizer = model.configure_optimizers()
    groups = (optimizer["optimizer"] if isinstance(optimizer, dict) else optimizer).param_groups
    assert sum(len(group["params"]) for group in groups) == len(list(model.parameters()))
    for about, told in re.findall(r"(about )?(\d[\d,]*) parameters", comment(name)):
        assert count_parameters(model) == pytest.approx(int(told.replace(",", "")), rel=0.03 if about else 0), told


# ---- overlays


def test_overfit(cli: Any, config: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The two batches stay the same over all epochs, and the loss falls."""
    seen: list[tuple[torch.Tensor, ...]] = []
    original = SequenceModel.training_step

    def training_step(self: SequenceModel, batch: tuple[torch.Tensor, ...], batch_idx: int) -> torch.Tensor:
        seen.append(tuple(part.clone() for part in batch))
        return original(self, batch, batch_idx)

    monkeypatch.setattr(SequenceModel, "training_step", training_step)
    model = {
        "class_path": "LSTM",
        "init_args": {"hidden_size": 16, "optimizer": {"class_path": "Adam", "init_args": {"lr": 0.03}}},
    }
    options = ("-c", "configs/debug/overfit.yaml", "--trainer.max_epochs", 15, "--run_dir", "r")
    done = cli("fit", "-c", config(model=model), *options)
    assert done.status == 0 and done.err == ""
    assert len(seen) == 30
    for number, batch in enumerate(seen):
        assert all(torch.equal(a, b) for a, b in zip(batch, seen[number % 2], strict=True))
    assert not torch.equal(seen[0][0], seen[1][0])
    losses = [float(row["train/loss"]) for row in rows("r") if "train/loss" in row]
    assert losses[-1] < 0.8 * losses[0] and len(losses) == 15


@pytest.mark.parametrize("kind", ["PixelDigits", "reuse"])
def test_overfit_on_data_that_is_shuffled(cli: Any, config: Any, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    seen: list[torch.Tensor] = []

    def on_train_batch_start(self: SequenceModel, batch: tuple[torch.Tensor, ...], batch_idx: int) -> None:
        seen.append(batch[0].clone())

    monkeypatch.setattr(SequenceModel, "on_train_batch_start", on_train_batch_start, raising=False)
    data = {"init_args": {"reuse": True}} if kind == "reuse" else {"class_path": kind, "init_args": {"batch_size": 8}}
    options = ("-c", "configs/debug/overfit.yaml", "--trainer.max_epochs", 3, "--run_dir", "r")
    assert cli("fit", "-c", config(data=data), *options).status == 0
    assert len(seen) == 6
    assert all(torch.equal(batch, seen[number % 2]) for number, batch in enumerate(seen))


@pytest.mark.parametrize(
    ("name", "overlay"),
    [
        ("pixel_mnist/exprnn.yaml", "one_gpu"),
        ("pixel_digits/gru.yaml", "ddp"),
        ("copying/dtrivrnn.yaml", "ddp"),
        ("adding/nnrnn.yaml", "multi_node"),
    ],
)
def test_cluster_overlays_are_built(cli: Any, monkeypatch: pytest.MonkeyPatch, name: str, overlay: str) -> None:
    """With any config, on this machine too; what the paper says, batch and rates, stays."""
    built: list[tuple[pl.Trainer, Any, Any]] = []

    @functools.wraps(pl.Trainer.fit)
    def fit(self: pl.Trainer, model: Any = None, datamodule: Any = None, **kwargs: Any) -> None:
        built.append((self, model, datamodule))

    monkeypatch.setattr(pl.Trainer, "fit", fit)
    fast = ("--trainer.fast_dev_run", "true")
    assert cli("fit", "-c", name, *fast).status == 0
    if overlay == "multi_node":  # what a launcher says on every node
        monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
        monkeypatch.setenv("NODE_RANK", "0")
    assert cli("fit", "-c", name, "-c", f"cluster/{overlay}.yaml", *fast).status == 0
    (_, plain, data), (trainer, model, with_workers) = built
    assert type(trainer.strategy).__name__ == ("SingleDeviceStrategy" if overlay == "one_gpu" else "DDPStrategy")
    assert trainer.num_nodes == (2 if overlay == "multi_node" else 1)
    assert trainer.precision == "32-true" and trainer.accumulate_grad_batches == 1
    assert with_workers.num_workers == 4 and with_workers.batch_size == data.batch_size
    assert model.hparams == plain.hparams
