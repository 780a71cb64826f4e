"""What a stranger met as a traceback, or as silence: one sentence that names the key, and nothing written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from datamodules import UserError
from lit_rnn.commands.attack.command import size
from lit_rnn.commands.fit import settings
from lit_rnn.files import parse_yaml

pytestmark = pytest.mark.usefixtures("_no_pictures")


@pytest.mark.parametrize(
    ("option", "value", "words"),
    [
        ("val_check_interval", 99999, ["val_check_interval", "99999", "training batches (4)"]),
        ("check_val_every_n_epoch", 0, ["trainer.check_val_every_n_epoch is 0", "at least 1"]),
        ("accumulate_grad_batches", 0, ["trainer.accumulate_grad_batches is 0"]),
        ("log_every_n_steps", -1, ["trainer.log_every_n_steps is -1"]),
        ("num_sanity_val_steps", -5, ["trainer.num_sanity_val_steps is -5"]),
        ("min_epochs", -1, ["trainer.min_epochs is -1"]),
        ("gradient_clip_val", -1, ["trainer.gradient_clip_val is -1", "null or 0"]),
        ("gradient_clip_val", ".nan", ["trainer.gradient_clip_val is nan"]),
        ("strategy", "ddpp", ["trainer.strategy is 'ddpp'", "did you mean ddp?"]),
        ("devices", 0, ["trainer.devices is '0'", "at least 1"]),
        ("max_epochs", 0, ["trainer.max_epochs is 0", "nothing would be trained"]),
        ("limit_train_batches", 0, ["trainer.limit_train_batches is 0"]),
        ("precision", 7, ["trainer.precision is 7", "16-mixed, bf16-true, bf16-mixed, 32-true, 64-true, bf16."]),
        ("logger", "Nope", ["trainer.logger.class_path is Nope, which is not a known class"]),
        ("callbacks", "Nope", ["trainer.callbacks.class_path is Nope, which is not a known class"]),
        ("callbacks", "lightning.pytorch.callbacks.EarlyStopping", ["a known class (did you mean EarlyStopping?)"]),
        ("devices", 99999, ["trainer.devices is 99999", "GB of memory", "fit"]),
    ],
)
def test_options_of_the_trainer(refused: Any, config: Any, option: str, value: Any, words: list[str]) -> None:
    sentence = refused("fit", "-c", config(), f"--trainer.{option}", value, "--run_dir", "r")
    assert all(word in sentence for word in words), sentence


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--model.help", "LSTN"], "model.class_path is LSTN, which is not a known model (did you mean LSTM?)"),
        (["--model.hidden_size"], "--model.hidden_size needs a value."),
        (["--model.hidden_size", "--threads", "1"], "--model.hidden_size needs a value."),
        (
            ["--resume", "auto"],
            "resume is 'auto', but it must be given together with --run_dir, the run that is meant.",
        ),
    ],
)
def test_options_of_fit(refused: Any, config: Any, options: list[str], words: str) -> None:
    assert words in refused("fit", "-c", config(), *options)


@pytest.mark.parametrize(
    "arguments", [["compare", ""], ["analyze", "--out", ""], ["analyze", "--out="], ["attack", "--run_dir", "r", ""]]
)
def test_nothing_is_not_this_folder(refused: Any, arguments: list[str]) -> None:
    assert "is empty, but it must say something" in refused(*arguments)


def test_a_base_that_is_not_there(refused: Any, tmp_path: Path) -> None:
    (tmp_path / "study.yaml").write_text("base: nope.yaml\n")
    assert "config nope.yaml cannot be read ([Errno 2] No such file or directory" in refused("study", "study.yaml")


def test_as_many_processes_as_the_memory_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    from jsonargparse import Namespace

    monkeypatch.setattr(settings, "machine_memory", lambda: 8_192_000_000)
    settings.check_devices(Namespace(accelerator="cpu", devices=10, num_nodes=1))
    with pytest.raises(UserError, match=r"devices is 11, .* about 9 GB .* has 8 GB: at most 10 fit"):
        settings.check_devices(Namespace(accelerator="cpu", devices=11, num_nodes=1))


@pytest.mark.parametrize("text", ["a: 1\na: 2\n", "{a: 1, a: 2}", "b:\n  a: [1, {c: 1, d: {}, c: 2}]\n"])
def test_a_key_that_stands_twice(text: str) -> None:
    with pytest.raises(UserError, match=r"the key [ac] stands twice"):
        parse_yaml(text, "config")


def test_a_key_may_stand_in_two_mappings_and_be_a_value() -> None:
    text = "a: a\nb: {a: 1}\nc: [a, a, {a: 1}, {a: 2}]\nbase: &x {a: 1}\nd: {<<: *x, a: 2}\n"
    assert parse_yaml(text, "config") == yaml.safe_load(text)


def test_a_config_with_a_key_twice(refused: Any, config: Any) -> None:
    path = config()
    Path(path).write_text(Path(path).read_text() + "\nthreads: 2\n")
    assert "the key threads stands twice" in refused("fit", "-c", path)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--eps", "8/0"], "--eps is '8/0'"),
        (["--eps", "abc"], "--eps is 'abc', but it must be a number or a fraction such as 8/255"),
        (["--eps", "nan"], "--eps is nan"),
        (["--eps", "-1"], "--eps is -1.0"),
        (["--bounds", "1", "0"], "--bounds is [1.0, 0.0]"),
        (["--steps", "x"], "--steps is 'x', but it must be a whole number"),
    ],
)
def test_options_of_attack(refused: Any, options: list[str], words: str) -> None:
    assert words in refused("attack", *options)


def test_sizes_are_numbers_and_fractions() -> None:
    assert (size("8/255"), size("1e-2")) == (8 / 255, 0.01)


def test_a_picture_is_refused_before_anything_is_read(refused: Any, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert "--picture is 'x.xyz'" in refused("compare", "nothing", "--picture", "x.xyz")
    assert "--picture is 'x'" in refused("compare", "nothing", "--picture", "x")
    assert "file is not a folder" in refused("compare", "nothing", "--html", "file")
    assert "file is not a folder" in refused("compare", "nothing", "--csv", "file/a.csv")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--model.adversarial", 3], "model.init_args.adversarial is 3, but it must be a mapping"),
        (["--model.optimizer.init_args.lr", -1], "give model.init_args.optimizer.class_path too"),
        (["--model.lr_scheduler", "ReduceLROnPlateau"], "torch.optim.lr_scheduler.ReduceLROnPlateau"),
    ],
)
def test_options_of_the_model(refused: Any, config: Any, options: list[Any], words: str) -> None:
    assert words in refused("fit", "-c", config(), *options, "--run_dir", "r")


def test_files_and_folders_that_are_not_there(refused: Any, tmp_path: Path) -> None:
    (tmp_path / "empty.yaml").write_text("")
    (tmp_path / "trainer.yaml").write_text("trainer: {max_epochs: 1}\n")
    assert "config empty.yaml is empty" in refused("fit", "-c", "empty.yaml")
    assert "study file empty.yaml is empty" in refused("study", "empty.yaml")
    assert "nosuch.yaml does not exist" in refused("study", "nosuch.yaml")
    for command in ("validate", "test", "predict"):
        assert "run_dir is nowhere, but there is no such folder" in refused(command, "--run_dir", "nowhere")
    sentence = refused("fit", "-c", "trainer.yaml")
    assert "data and model are missing" in sentence and "--data and --model" in sentence


@pytest.mark.parametrize(("total", "interval"), [(7, "step"), (1, "epoch")])
def test_a_cycle_shorter_than_the_run_is_refused_before_training(
    refused: Any, config: Any, total: int, interval: str
) -> None:
    """The run has 8 steps, in 2 epochs."""
    scheduler = {"class_path": "OneCycleLR", "init_args": {"max_lr": 0.1, "total_steps": total}}
    optimizer = {"class_path": "SGD", "init_args": {"lr": 0.1, "momentum": 0.9}}
    model = {"init_args": {"optimizer": optimizer, "lr_scheduler": scheduler, "lr_scheduler_interval": interval}}
    sentence = refused("fit", "-c", config(model=model), "--run_dir", "r")
    steps = {"step": 8, "epoch": 2}[interval]
    assert f"is {total}, but it must be at least the {steps} {interval}s of the run" in sentence


def test_a_cycle_as_long_as_the_run_is_taken(cli: Any, config: Any) -> None:
    scheduler = {"class_path": "OneCycleLR", "init_args": {"max_lr": 0.1, "total_steps": 8}}
    optimizer = {"class_path": "SGD", "init_args": {"lr": 0.1, "momentum": 0.9}}
    model = {"init_args": {"optimizer": optimizer, "lr_scheduler": scheduler}}
    assert cli("fit", "-c", config(model=model), "--run_dir", "r").status == 0
