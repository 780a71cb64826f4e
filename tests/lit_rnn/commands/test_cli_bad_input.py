"""Bad input: exit status 2, one sentence that names the key or file and what is accepted, nothing touched."""

from __future__ import annotations

import json
import shutil
import struct
import urllib.request
from importlib.metadata import version
from pathlib import Path
from typing import Any
from urllib.error import URLError

import numpy as np
import pytest
import torch
from pytorch_lightning.accelerators import CUDAAccelerator, MPSAccelerator, XLAAccelerator

from datamodules import UserError
from lit_rnn.__main__ import main
from tests.mnist import mnist_data

MODEL_KEYS = ["hidden_size", "layers", "optimizer"]
DATA_KEYS = ["delay", "batch_size", "train_samples"]
OPTIMIZER = {"class_path": "RMSprop", "init_args": {"lr": 1e-3}}

pytestmark = pytest.mark.usefixtures("_no_pictures")


# ---- keys and values, in a file and on the command line


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        pytest.param({"trainr": {"max_epochs": 1}}, ["trainr", "trainer"], id="top level"),
        pytest.param({"model": {"init_args": {"hiden_size": 8}}}, ["hiden_size", *MODEL_KEYS], id="model"),
        pytest.param({"data": {"init_args": {"dealy": 8}}}, ["dealy", *DATA_KEYS], id="data"),
        pytest.param({"trainer": {"max_epoch": 1}}, ["trainer.max_epoch", "max_epochs"], id="trainer"),
        pytest.param(
            {"model": {"init_args": {"optimizer": {"class_path": "Adam", "init_args": {"lrr": 1}}}}},
            ["optimizer.init_args.lrr", "betas"],
            id="optimizer",
        ),
        pytest.param(
            {"model": {"init_args": {"optimizer": {"class_path": "RMSpropTF", "init_args": {"lrr": 1}}}}},
            ["optimizer.init_args.lrr", "did you mean lr?", "initial_accumulator"],
            id="optimizer of ours",
        ),
        pytest.param(
            {"model": {"init_args": {"group_optimizers": {"other": {"class_path": "AdamTF", "init_args": {"e": 1}}}}}},
            ["group_optimizers.init_args.e", "betas"],
            id="optimizer of a group",
        ),
        pytest.param(
            {"model": {"init_args": {"lr_scheduler": {"class_path": "StepLR", "init_args": {"step": 1}}}}},
            ["lr_scheduler.init_args.step", "did you mean step_size?"],
            id="scheduler",
        ),
        pytest.param(
            {"trainer": {"callbacks": [{"class_path": "EarlyStopping", "init_args": {"patiense": 1}}]}},
            ["trainer.callbacks.patiense", "did you mean patience?"],
            id="callback",
        ),
        pytest.param(
            {"model": {"dict_kwargs": {"hiden_size": 8}}},
            ["model.dict_kwargs is {'hiden_size': 8}", "ExpRNN", "init_args"],
            id="beside the options",
        ),
        pytest.param(
            {"trainer": {"callbacks": [{"class_path": "Timer", "dict_kwargs": {"patience": 1}}]}},
            ["trainer.callbacks.dict_kwargs is {'patience': 1}", "Timer", "init_args"],
            id="beside the options of a callback",
        ),
    ],
)
def test_misspelt_key_in_a_file(refused: Any, config: Any, changes: dict[str, Any], words: list[str]) -> None:
    sentence = refused("fit", "-c", config(**changes))
    assert all(word in sentence for word in words), sentence


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--trainr.max_epochs", 1], ["--trainr.max_epochs", "trainer"]),
        (["--rundir", "x"], ["--rundir", "run_dir"]),
        (["--model.init_args.hiden_size", 8], ["hiden_size", *MODEL_KEYS]),
        (["--model.hiden_size", 8], ["hiden_size", *MODEL_KEYS]),
        (["--data.init_args.dealy=8"], ["dealy", *DATA_KEYS]),
        (["--trainer.maxepochs", 1], ["trainer.maxepochs", "max_epochs"]),
        (["--trainer.max_epoch", 1], ["trainer.max_epoch"]),  # not an abbreviation of max_epochs
        (["--model.init_args.optimizer.init_args.lrr", 1], ["optimizer.init_args.lrr"]),
        (["--model.optimizer", "RMSpropTF", "--model.optimizer.lrr", 1], ["optimizer.init_args.lrr", "eps_inside"]),
        (["--trainer.callbacks+", "Timer", "--trainer.callbacks.durration", "1"], ["did you mean duration?"]),
        (["surplus"], ["surplus belongs to no option", "-c", "--run_dir"]),
    ],
    ids=lambda value: str(value[0]) if isinstance(value, list) else None,
)
def test_misspelt_key_on_the_command_line(refused: Any, config: Any, arguments: list[Any], words: list[str]) -> None:
    sentence = refused("fit", "-c", config(model={"init_args": {"optimizer": OPTIMIZER}}), *arguments, "--run_dir", "r")
    assert all(word in sentence for word in words), sentence


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        pytest.param({"model": {"class_path": "ExpRN"}}, ["model.class_path", "ExpRN", "ExpRNN"], id="model"),
        pytest.param({"data": {"class_path": "CopyMem"}}, ["data.class_path", "CopyMemory", "Adding"], id="data"),
        pytest.param({"model": {"class_path": "foo.Bar"}}, ["model.class_path", "foo.Bar", "ExpRNN"], id="module"),
        pytest.param(
            {"model": {"class_path": "torch.nn.Linear"}}, ["model.class_path", "torch.nn.Linear"], id="foreign"
        ),
        pytest.param({"model": {"class_path": "SequenceModel"}}, ["SequenceModel", "ExpRNN"], id="abstract"),
        pytest.param({"model": 3}, ["model"], id="no class"),
        pytest.param(
            {"model": {"init_args": {"optimizer": {"class_path": "Adamm"}}}},
            ["model.init_args.optimizer.class_path", "Adamm", "did you mean Adam?", "RMSpropTF"],
            id="optimizer",
        ),
        pytest.param(
            {"model": {"init_args": {"lr_scheduler": {"class_path": "StepLRR"}}}},
            ["model.init_args.lr_scheduler.class_path", "StepLRR", "did you mean StepLR?", "OneCycleLR"],
            id="scheduler",
        ),
        pytest.param({"trainer": {"callbacks": [{"class_path": "Foo"}]}}, ["trainer.callbacks", "Foo"], id="callback"),
        pytest.param({"trainer": {"callbacks": ["EarlyStoping"]}}, ["did you mean EarlyStopping?"], id="near callback"),
    ],
)
def test_unknown_class(refused: Any, config: Any, changes: dict[str, Any], words: list[str]) -> None:
    sentence = refused("fit", "-c", config(**changes))
    assert all(word in sentence for word in words), sentence


def test_missing_model(refused: Any) -> None:
    assert refused("fit", "--data", "Adding").startswith(
        "lit_rnn: model is missing; give it in the config or as --model."
    )


def test_unknown_class_on_the_command_line(refused: Any, config: Any) -> None:
    assert "ExpRNN" in refused("fit", "-c", config(), "--model", "ExpRN")
    assert "CopyMemory" in refused("fit", "-c", config(), "--data", "CopyMem")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        pytest.param({"model": {"init_args": {"hidden_size": "eight"}}}, ["hidden_size", "whole number"], id="int"),
        pytest.param({"model": {"init_args": {"hidden_size": 8.5}}}, ["hidden_size", "whole number"], id="float"),
        pytest.param({"model": {"init_args": {"init": "henaf"}}}, ["model.init_args.init", "henaff"], id="choice"),
        pytest.param({"data": {"init_args": {"reuse": "often"}}}, ["data.init_args.reuse", "true or false"], id="bool"),
        pytest.param({"trainer": {"max_epochs": "one"}}, ["trainer.max_epochs", "'one'"], id="trainer"),
        pytest.param({"trainer": {"precision": 3}}, ["trainer.precision", "64-true"], id="precision"),
        pytest.param({"threads": "all"}, ["threads", "whole number"], id="threads"),
        pytest.param({"seed_everything": "a"}, ["seed_everything"], id="seed"),
        pytest.param(
            {"model": {"init_args": {"optimizer": {"class_path": "Adam", "init_args": {"lr": "fast"}}}}},
            ["optimizer.init_args.lr", "'fast'", "number"],
            id="learning rate",
        ),
        pytest.param({"run_dir": [1]}, ["run_dir"], id="run_dir"),
    ],
)
def test_wrong_type(refused: Any, config: Any, changes: dict[str, Any], words: list[str]) -> None:
    sentence = refused("fit", "-c", config(**changes))
    assert all(word in sentence for word in words), sentence


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        pytest.param({"model": {"init_args": {"hidden_size": -8}}}, ["model.init_args.hidden_size", "-8"], id="hidden"),
        pytest.param({"model": {"init_args": {"hidden_size": 0}}}, ["model.init_args.hidden_size", "0"], id="zero"),
        pytest.param({"model": {"init_args": {"layers": 0}}}, ["model.init_args.layers", "0"], id="layers"),
        pytest.param({"data": {"init_args": {"delay": 0}}}, ["data.init_args.delay", "at least 1"], id="short delay"),
        pytest.param({"data": {"init_args": {"symbols": -1}}}, ["data.init_args.symbols"], id="symbols"),
        pytest.param({"data": {"init_args": {"batch_size": -1}}}, ["data.init_args.batch_size"], id="batch"),
        pytest.param({"data": {"init_args": {"batch_size": 33}}}, ["batch_size", "at most 32"], id="large batch"),
        pytest.param({"data": {"init_args": {"val_samples": 0}}}, ["data.init_args.val_samples"], id="no validation"),
        pytest.param({"data": {"init_args": {"seed": -1}}}, ["data.init_args.seed"], id="data seed"),
        pytest.param(
            {"data": {"class_path": "Adding", "init_args": {"length": 2}}}, ["length", "at least 3"], id="add"
        ),
        pytest.param({"seed_everything": -1}, ["seed_everything"], id="seed"),
        pytest.param({"threads": 0}, ["threads", "at least 1"], id="threads"),
        pytest.param({"trainer": {"max_epochs": -5}}, ["max_epochs", "-5"], id="epochs"),
        pytest.param({"trainer": {"devices": 0}}, ["devices"], id="devices"),
        pytest.param({"trainer": {"accelerator": "abacus"}}, ["accelerator", "abacus", "cpu"], id="accelerator"),
        pytest.param({"trainer": {"strategy": "luck"}}, ["strategy", "luck"], id="strategy"),
        pytest.param(
            {"model": {"init_args": {"optimizer": {"class_path": "Adam", "init_args": {"lr": -1.0}}}}},
            ["optimizer", "-1.0"],
            id="learning rate",
        ),
        pytest.param({"model": {"init_args": {"lr_scheduler": {"class_path": "StepLR"}}}}, ["step_size"], id="missing"),
        pytest.param({"model": {"class_path": "ExpRNN"}}, ["model.init_args.hidden_size"], id="no size"),
        pytest.param({"trainer": {"max_epochs": None}}, ["trainer.max_epochs"], id="no end"),
    ],
)
def test_value_out_of_range(refused: Any, config: Any, changes: dict[str, Any], words: list[str]) -> None:
    sentence = refused("fit", "-c", config(**changes), "--run_dir", "r")
    assert all(word in sentence for word in words), sentence


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["accelerator", "gpu"], ["'gpu'", "no GPU", "cpu"]),
        (["accelerator", "cuda"], ["'cuda'", "no CUDA GPU", "cpu"]),
        (["accelerator", "mps"], ["'mps'", "no Apple GPU", "cpu"]),
        (["accelerator", "tpu"], ["'tpu'", "no TPU", "cpu"]),
        (["devices", 4, "--trainer.accelerator", "auto"], ["trainer.devices is 4", "--trainer.accelerator cpu"]),
        (["devices", 4, "--trainer.accelerator", "gpu"], ["no GPU"]),
    ],
    ids=lambda value: "-".join(map(str, value[:2])),
)
def test_no_such_device(
    refused: Any, config: Any, monkeypatch: pytest.MonkeyPatch, options: list[Any], words: list[str]
) -> None:
    for kind in (CUDAAccelerator, MPSAccelerator, XLAAccelerator):
        monkeypatch.setattr(kind, "is_available", lambda: False)
    sentence = refused("fit", "-c", config(), "--run_dir", "r", f"--trainer.{options[0]}", *options[1:])
    assert all(word in sentence for word in words), sentence


@pytest.mark.parametrize(("cuda", "words"), [(None, "built without CUDA"), ("12.8", "nvidia-smi")])
def test_what_may_be_missing_for_a_gpu(
    refused: Any, config: Any, monkeypatch: pytest.MonkeyPatch, cuda: str | None, words: str
) -> None:
    monkeypatch.setattr(CUDAAccelerator, "is_available", lambda: False)
    monkeypatch.setattr(torch.version, "cuda", cuda)
    monkeypatch.setattr(torch.version, "hip", None)
    assert words in refused("fit", "-c", config(), "--trainer.accelerator", "cuda")


@pytest.mark.parametrize("bad", [("model.hidden_size", -8), ("data.batch_size", 33), ("seed_everything", -1)])
def test_the_corrected_command_runs_in_the_same_folder(cli: Any, config: Any, bad: tuple[str, int]) -> None:
    command = ("fit", "-c", config(trainer={"max_epochs": 1}), "--run_dir", "r")
    assert cli(*command, f"--{bad[0]}", bad[1]).status == 2
    assert cli(*command).status == 0


@pytest.mark.parametrize(
    "arguments",
    [
        ["--model.init_args.task", "3"],
        ["--model.task.input_size", "3"],
        ["--model.init_args.task.input_size", "3"],
        ["--model.init_args", "{hidden_size: 8, task: {name: a}}"],
    ],
    ids=str,
)
def test_task_set_by_hand_on_the_command_line(refused: Any, config: Any, arguments: list[str]) -> None:
    sentence = refused("fit", "-c", config(), *arguments)
    assert "model.init_args.task" in sentence and "data" in sentence


def test_task_set_by_hand_in_a_file(refused: Any, config: Any) -> None:
    path = config(model={"init_args": {"task": {"name": "mine"}}})
    sentence = refused("fit", "-c", path)
    assert "model.init_args.task" in sentence and path in sentence and "data" in sentence


# ---- config files


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"- 1\n- 2\n", ["list"]),
        (b"a: [1\n", ["not YAML", "line"]),
        (b"", ["model"]),
        (b"just words", ["model"]),
        (bytes(range(256)), ["a YAML file, in UTF-8"]),
    ],
    ids=["list", "broken", "empty", "text", "binary"],
)
def test_config_that_is_none(refused: Any, tmp_path: Path, content: bytes, words: list[str]) -> None:
    (tmp_path / "odd.yaml").write_bytes(content)
    sentence = refused("fit", "-c", "odd.yaml")
    assert all(word in sentence for word in ["odd.yaml", *words]), sentence


def test_config_that_is_missing(refused: Any, tmp_path: Path) -> None:
    sentence = refused("fit", "--config", "copying/exprn.yaml")
    assert "copying/exprn.yaml" in sentence and "copying/exprnn.yaml" in sentence
    assert "here.yaml" in refused("fit", "--config=here.yaml")
    (tmp_path / "folder.yaml").mkdir()
    assert "folder.yaml" in refused("fit", "-c", "folder.yaml")
    assert "config" in refused("fit", "-c")


def test_unknown_command(refused: Any) -> None:
    sentence = refused("train")
    assert all(word in sentence for word in ("train", "fit", "validate", "test", "predict"))


# ---- run folders


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A finished run (1 epoch) and one that was cut off before its end."""
    folder = tmp_path_factory.mktemp("made")
    options = ["--model.hidden_size", 8, "--data.delay", 5, "--data.train_samples", 32, "--data.val_samples", 8]
    options += ["--data.batch_size", 8, "--data.test_samples", 8, "--trainer.max_epochs", 1, "--threads", 1]
    options += ["--trainer.log_every_n_steps", 1]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert main(["fit", *map(str, options), "--run_dir", str(folder / "finished")]) == 0
    shutil.copytree(folder / "finished", folder / "unfinished")
    (folder / "unfinished" / "fit.json").unlink()
    return {name: folder / name for name in ("finished", "unfinished")}


@pytest.fixture
def finished(made: dict[str, Path], tmp_path: Path) -> str:
    shutil.copytree(made["finished"], tmp_path / "finished")
    return "finished"


@pytest.fixture
def unfinished(made: dict[str, Path], tmp_path: Path) -> str:
    shutil.copytree(made["unfinished"], tmp_path / "unfinished")
    return "unfinished"


def test_folder_of_a_finished_run(refused: Any, config: Any, finished: str) -> None:
    sentence = refused("fit", "-c", config(), "--run_dir", finished)
    assert f"run_dir {finished}" in sentence and "finished run" in sentence and "--run_dir" in sentence


def test_folder_of_an_unfinished_run(refused: Any, cli: Any, config: Any, unfinished: str) -> None:
    sentence = refused("fit", "-c", config(), "--run_dir", unfinished)
    assert f"run_dir {unfinished}" in sentence and "--ckpt_path last" in sentence
    assert cli("fit", "--run_dir", unfinished, "--ckpt_path", "last", "--trainer.max_epochs", 2).status == 0


def test_nothing_more_to_train_keeps_the_result(cli: Any, finished: str, snapshot: Any) -> None:
    """Resuming a finished run without a higher max_epochs has nothing to do: its numbers stay."""
    before = json.loads((Path(finished) / "fit.json").read_text())
    done = cli("fit", "--run_dir", finished, "--ckpt_path", "last")
    assert done.status in (0, 2)
    after = json.loads((Path(finished) / "fit.json").read_text())
    assert {**after, "seconds": 0} == {**before, "seconds": 0}


@pytest.mark.parametrize("folder", ["file", "file/below", "file/far/below", "/proc/none", ""])
def test_unwritable_folder(refused: Any, config: Any, tmp_path: Path, folder: str) -> None:
    (tmp_path / "file").write_text("not a folder")
    sentence = refused("fit", "-c", config(), "--run_dir", folder)
    assert "run_dir" in sentence and folder in sentence


# ---- checkpoints


def test_no_checkpoint(refused: Any, config: Any) -> None:
    for command in ("validate", "test", "predict"):
        sentence = refused(command, "-c", config())
        assert "ckpt_path" in sentence and command in sentence
    for name in ("none.ckpt", "last", "best"):
        sentence = refused("test", "-c", config(), "--ckpt_path", name)
        assert "ckpt_path" in sentence
        assert "--run_dir" in refused("fit", "-c", config(), "--ckpt_path", name)


def test_command_without_anything(refused: Any, finished: str) -> None:
    """A run folder says which config is meant, so that only the checkpoint is missing."""
    for command in ("validate", "test", "predict"):
        assert "ckpt_path" in refused(command)
    assert "ckpt_path" in refused("test", "--run_dir", finished)


@pytest.mark.parametrize("share", [0.0, 0.05, 0.25, 0.5, 0.75, 0.9, 0.99])
def test_truncated_checkpoint(refused: Any, config: Any, finished: str, tmp_path: Path, share: float) -> None:
    whole = (tmp_path / finished / "checkpoints" / "last.ckpt").read_bytes()
    (tmp_path / "cut.ckpt").write_bytes(whole[: int(share * len(whole))])
    for command in ("fit", "test"):
        sentence = refused(command, "-c", config(), "--ckpt_path", "cut.ckpt")
        assert "ckpt_path cut.ckpt" in sentence and "checkpoint" in sentence


@pytest.mark.parametrize(
    "content",
    ["noise", "text", "yaml", "list", "dict", "module", "other Lightning"],
)
def test_file_that_is_no_checkpoint(refused: Any, config: Any, tmp_path: Path, content: str) -> None:
    path = tmp_path / "odd.ckpt"
    if content in ("noise", "text", "yaml"):
        noise = np.random.RandomState(0).bytes(3000)
        path.write_bytes({"noise": noise, "text": b"hello", "yaml": b"model: {}\n"}[content])
    else:
        foreign = {"state_dict": {}, "hyper_parameters": {}, "pytorch-lightning_version": "2.6.6"}
        other = {"list": [1], "dict": {"a": 1}, "module": torch.nn.Linear(2, 2), "other Lightning": foreign}
        torch.save(other[content], path)
    sentence = refused("test", "-c", config(), "--ckpt_path", "odd.ckpt")
    assert "ckpt_path odd.ckpt" in sentence


def test_checkpoint_of_another_run(refused: Any, config: Any, finished: str, unfinished: str) -> None:
    """Its numbers would take the place of the run's own."""
    other = f"{finished}/checkpoints/last.ckpt"
    for command in ("test", "validate", "predict"):
        sentence = refused(command, "--run_dir", unfinished, "--ckpt_path", other)
        assert f"run_dir {unfinished} holds another run than ckpt_path {other}" in sentence
    assert "holds another run" in refused("test", "-c", config(), "--run_dir", unfinished, "--ckpt_path", other)


def test_checkpoint_that_is_a_folder(refused: Any, config: Any, finished: str) -> None:
    assert f"{finished}/checkpoints" in refused("test", "-c", config(), "--ckpt_path", f"{finished}/checkpoints")


def test_checkpoint_of_another_model(refused: Any, config: Any, finished: str) -> None:
    path = f"{finished}/checkpoints/last.ckpt"
    for model in ("LSTM", "DtrivRNN"):
        for command in ("fit", "test"):
            sentence = refused(command, "-c", config(), "--model", model, "--ckpt_path", path)
            assert all(word in sentence for word in (path, "ExpRNN", model, "model.class_path"))


@pytest.mark.parametrize(
    ("option", "value", "kept"), [("hidden_size", 9, 8), ("layers", 2, 1), ("learn_initial_state", "true", "false")]
)
def test_checkpoint_of_another_size(
    refused: Any, config: Any, finished: str, option: str, value: object, kept: object
) -> None:
    path = f"{finished}/checkpoints/last.ckpt"
    for command in ("fit", "test"):
        sentence = refused(command, "-c", config(), f"--model.{option}", value, "--ckpt_path", path)
        assert f"model.init_args.{option}" in sentence and str(kept) in sentence


def test_checkpoint_of_another_task(refused: Any, config: Any, finished: str) -> None:
    path = f"{finished}/checkpoints/last.ckpt"
    for command in ("fit", "test"):
        adding = config(data={"class_path": "Adding", "init_args": {"length": 6, "train_samples": 32, "batch_size": 8}})
        assert "copy_memory" in refused(command, "-c", adding, "--ckpt_path", path)
        assert "data" in refused(command, "-c", config(), "--data.alphabet", 7, "--ckpt_path", path)


def test_another_optimizer_for_a_checkpoint(refused: Any, config: Any, finished: str) -> None:
    """Its state is that of the first one: RMSprop's square averages mean nothing to Adam."""
    path = f"{finished}/checkpoints/last.ckpt"
    sentence = refused("fit", "-c", config(), "--model.optimizer", "Adam", "--ckpt_path", path)
    assert "model.init_args.optimizer" in sentence and "RMSprop" in sentence


# ---- MNIST files

TRAIN = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte")
TEST = ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixty real images to train on and twenty to test on."""
    images, labels = mnist_data()
    order = np.random.RandomState(0).permutation(5000)[:80]
    raw = tmp_path_factory.mktemp("real") / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for (image_file, label_file), chosen in ((TRAIN, order[:60]), (TEST, order[60:])):
        header = struct.pack(">4i", 2051, len(chosen), 28, 28)
        (raw / image_file).write_bytes(header + images[chosen].astype(np.uint8).tobytes())
        (raw / label_file).write_bytes(
            struct.pack(">2i", 2049, len(chosen)) + labels[chosen].astype(np.uint8).tobytes()
        )
    return raw


@pytest.fixture
def mnist(real: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(real, tmp_path / "data" / "MNIST" / "raw"))


@pytest.fixture
def pixel(config: Any) -> str:
    return config(data={"class_path": "PixelMNIST", "init_args": {"val_size": 10, "batch_size": 8, "verify": False}})


@pytest.mark.parametrize("damage", ["truncated", "no magic", "labels as images", "short labels", "empty"])
def test_damaged_mnist(refused: Any, pixel: str, mnist: Path, damage: str) -> None:
    images, labels = (mnist / name for name in TRAIN)
    whole = images.read_bytes()
    if damage == "short labels":
        labels.write_bytes(struct.pack(">2i", 2049, 59) + labels.read_bytes()[8:67])
    else:
        spoilt = {"truncated": whole[:-100], "no magic": b"\0\0" + whole[2:][::-1], "empty": b""}
        images.write_bytes(spoilt.get(damage, labels.read_bytes()))
    assert TRAIN[0] in refused("fit", "-c", pixel, "--run_dir", "r")


def test_no_network(refused: Any, pixel: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def offline(*_: object, **__: object) -> None:
        raise URLError("Name or service not known")

    monkeypatch.setattr(urllib.request, "urlopen", offline)
    monkeypatch.setattr(urllib.request, "urlretrieve", offline)
    sentence = refused("fit", "-c", pixel, "--run_dir", "r", leaves=True)
    assert all(word in sentence for word in ("data.init_args.root", "MNIST", "Name or service not known"))
    assert not (tmp_path / "r").exists(), "a corrected command must not find an unfinished run"


# ---- --debug


def test_debug_shows_the_traceback(cli: Any, config: Any) -> None:
    with pytest.raises(UserError, match="threads"):
        cli("fit", "-c", config(), "--threads", 0, "--debug")


# ---- options before the config


def test_options_count_wherever_they_stand(cli: Any, config: Any) -> None:
    """-c after an option neither undoes it nor breaks it."""
    options = ["--model.hidden_size", 9, "--trainer.max_epochs", 1]
    assert cli("fit", *options, "-c", config(), "--run_dir", "r").status == 0
    weights = torch.load("r/checkpoints/last.ckpt", weights_only=True)["state_dict"]
    assert weights["decoder.weight"].shape[1] == 9


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        (("anlyze",), "analyze"),
        (("FIT",), "fit"),
        (("fit", "--model", "exprnn"), "ExpRNN"),
        (("fit", "--data", "copymemory", "--model", "LSTM"), "CopyMemory"),
    ],
    ids=lambda given: given if isinstance(given, str) else " ".join(given),
)
def test_what_was_meant(refused: Any, given: tuple[str, ...], meant: str) -> None:
    assert f"(did you mean {meant}?)" in refused(*given)


def test_the_version(cli: Any) -> None:
    done = cli("--version")
    assert (done.status, done.out) == (0, f"lit_rnn {version('lit_rnn')}\n")
