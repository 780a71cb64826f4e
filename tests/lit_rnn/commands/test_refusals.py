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
        ("devices", 99999, ["trainer.devices is 99999", "GB of memory", "fit"]),
    ],
)
def test_options_of_the_trainer(refused: Any, config: Any, option: str, value: Any, words: list[str]) -> None:
    sentence = refused("fit", "-c", config(), f"--trainer.{option}", value, "--run_dir", "r")
    assert all(word in sentence for word in words), sentence


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
