"""Numbers and names that no machine or file can have: refused before anything is made."""

from __future__ import annotations

import json
from typing import Any

import pytest

pytestmark = pytest.mark.usefixtures("_no_pictures")

HUGE = 10**9
MODEL, DATA, TRAINER = ("model", "init_args"), ("data", "init_args"), ("trainer",)


def put(place: tuple[str, ...], key: str, value: object) -> dict[str, Any]:
    changes: dict[str, Any] = {key: value}
    for name in reversed(place):
        changes = {name: changes}
    return changes


@pytest.mark.parametrize(
    ("place", "key", "value", "words"),
    [
        (MODEL, "layers", HUGE, ["ExpRNN", "GiB"]),
        (MODEL, "hidden_size", 10**6, ["ExpRNN", "GiB"]),
        (MODEL, "hidden_size", 2**63, ["64 bits"]),
        (MODEL, "recurrent_lr_ratio", float("inf"), ["inf"]),
        (DATA, "delay", HUGE, ["batch of 8 sequences of 1,000,000,020 steps", "59.6 GiB"]),
        (DATA, "train_samples", 10**13, ["order", "74,505.8 GiB"]),
        (DATA, "num_workers", HUGE, ["0 to 1,024"]),
        (MODEL, "modrelu_bias", 1e308, ["float32"]),
        (DATA, "batch_size", None, ["null", "whole number"]),
        (DATA, "reuse", None, ["null", "true or false"]),
        (TRAINER, "inference_mode", None, ["trainer.inference_mode", "null", "true or false"]),
        (TRAINER, "max_epochs", 2**63, ["64 bits"]),
        (TRAINER, "accumulate_grad_batches", 0, ["at least 1"]),
        (TRAINER, "check_val_every_n_epoch", 0, ["at least 1"]),
        (TRAINER, "devices", HUGE, ["processes", "GB"]),
        (TRAINER, "num_nodes", 2, ["torchrun"]),
        (TRAINER, "profiler", "xla", ["simple, advanced or pytorch"]),
        (TRAINER, "max_time", {"days": 10**12}, ["DD:HH:MM:SS"]),
        (TRAINER, "max_time", {"minuts": 3}, ["DD:HH:MM:SS"]),
        (TRAINER, "max_time", "00:00:00:00", ["positive"]),
        (TRAINER, "callbacks", [{"class_path": "Timer", "init_args": {"duration": "3h"}}], ["duration", "DD:HH:MM:SS"]),
        ((), "trainer", [], ["mapping"]),
        ((), "trainer", None, ["mapping"]),
        ((), "trainer", "x", ["mapping"]),
        ((), "threads", HUGE, ["1,024"]),
        ((), "run_dir", "a\0b", ["NUL"]),
        ((), "run_dir", "x" * 256, ["255"]),
        ((), "ckpt_path", "x" * 256, ["255"]),
    ],
    ids=lambda value: str(value)[:20] if isinstance(value, str | int) else None,
)
def test_what_no_machine_has(
    refused: Any, config: Any, place: tuple[str, ...], key: str, value: Any, words: Any
) -> None:
    sentence = refused("fit", "-c", config(**put(place, key, value)))
    named = key if key != "delay" else ""
    assert all(word in sentence for word in [named, *words]), sentence


@pytest.mark.parametrize(
    "scheduler", [("StepLR", {"step_size": 0}), ("CosineAnnealingLR", {"T_max": 0})], ids=lambda one: one[0]
)
def test_scheduler_that_divides_by_zero_at_its_first_step(refused: Any, config: Any, scheduler: Any) -> None:
    name, options = scheduler
    changes = put(MODEL, "lr_scheduler", {"class_path": name, "init_args": options})
    sentence = refused("fit", "-c", config(**changes))
    assert all(word in sentence for word in ("model.init_args.lr_scheduler", name, *options)), sentence


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--run_dir", "1e5"], ["--run_dir", "1e5"]),
        (["--run_dir", "null"], ["--run_dir", "null"]),
        (["--run_dir", "#x"], ["--run_dir", "comment"]),
        (["--run_dir", "\ud800"], ["--run_dir"]),
        (["--model", "{a"], ["--model", "YAML"]),
        (["--trainer", "{a"], ["trainer", "mapping"]),
        (["--ckpt_path", "/etc/passwd"], ["ckpt_path", "/etc/passwd"]),
        (["--ckpt_path", "x" * 256], ["ckpt_path", "255"]),
        (["-c", "x" * 256], ["config", "255"]),
        (["-c\0", "x"], ["argument", "NUL"]),
        (["--data.init_args.symbols", "a\0"], ["--data.init_args.symbols", "NUL"]),
        (["-c+", "none.yaml"], ["config", "File does not exist"]),
        (["--model.init_args.", "3"], ["model"]),
        (["--model.init_args.learn_initial_state.", "1.5"], ["model"]),
    ],
    ids=lambda value: " ".join(value)[:24] if isinstance(value, list) else None,
)
def test_names_and_texts(refused: Any, config: Any, options: list[str], words: list[str]) -> None:
    sentence = refused("fit", "-c", config(), *options)
    assert all(word in sentence for word in words), sentence


@pytest.mark.parametrize(
    ("command", "option"),
    [
        (command, option)
        for command, options in (
            ("analyze", ["--run_dir", "--out", "--ckpt_path", "-c"]),
            ("attack", ["--run_dir", "--ckpt_path"]),
            ("compare", ["--csv", "--picture"]),
            ("study", ["--study_dir"]),
        )
        for option in options
    ],
)
@pytest.mark.parametrize("name", ["x" * 256, "a\0b"], ids=["long", "NUL"])
def test_names_for_the_other_commands(refused: Any, command: str, option: str, name: str) -> None:
    before = ["x.yaml"] if command == "study" else ["x"] if command == "compare" else []
    long = "--config" if option == "-c" else option
    assert long in refused(command, *before, option, name)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--picture", "3.5e2"], ["--picture", ".png"]),
        (["--picture", "x.png", "--html", "x.png"], ["--picture", "--html"]),
        (["--csv", "x", "--html", "./x"], ["--csv", "--html"]),
    ],
    ids=lambda value: " ".join(value)[:24],
)
def test_names_of_pictures_and_pages(refused: Any, options: list[str], words: list[str]) -> None:
    sentence = refused("compare", "x", *options)
    assert all(word in sentence for word in words), sentence


@pytest.mark.parametrize(
    "optimizer",
    [
        {"class_path_": "RMSprop", "init_args": {"lr": 1e-3}},
        {"class_path": "Adam", "init_args": 0.9},
        {"class_path": "Adafactor", "init_args": {"foreach": 0.9}},
        {"class_path": "Adam", "init_args": {"betas": [0.5]}},
    ],
    ids=["key", "options", "foreach", "betas"],
)
def test_optimizer_that_the_parser_describes_in_its_own_words(refused: Any, config: Any, optimizer: Any) -> None:
    assert "model.init_args.optimizer" in refused("fit", "-c", config(**put(MODEL, "optimizer", optimizer)))


def test_null_where_one_of_several_kinds_belongs(refused: Any) -> None:
    sentence = refused("fit", "-c", "text/lstm_quick.yaml", "--data.carry", "null")
    assert "data.init_args.carry is null, but it must be true or false or a number" in sentence


def test_null_among_the_options_of_a_callback_or_logger(refused: Any) -> None:
    solved = {"class_path": "Solved", "init_args": {"below_chance": None}}
    logger = {"class_path": "CSVLogger", "init_args": {"save_dir": "logs", "flush_logs_every_n_steps": None}}
    for key, added, option in (("callbacks", [solved], "below_chance"), ("logger", logger, "flush_logs_every_n_steps")):
        sentence = refused("fit", "-c", "quickstart.yaml", f"--trainer.{key}", json.dumps(added))
        assert f"trainer.{key}.{option} is null, but it must be" in sentence
