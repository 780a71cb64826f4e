"""What the parser loses without a word.

A key that is none is refused where it holds an empty mapping, too; options of a class that another one replaced are
told of.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonargparse import Namespace

from datamodules import UserError
from lit_rnn.commands.config_parser import resolve
from lit_rnn.commands.dropped import dropped, empty_mappings
from lit_rnn.commands.fit.trial import try_out
from lit_rnn.commands.study import command

STOP = {"class_path": "EarlyStopping", "init_args": {"monitor": "val/loss", "odd": {}}}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"odd": {}}, ["odd is not a key; accepted: ", "seed_everything"]),
        ({"trainer": {"max_epoch": {"a": {}}}}, ["trainer.max_epoch is not a key (did you mean max_epochs?)"]),
        ({"model": {"init_args": {"layer": {}}}}, ["model.init_args.layer is not a key (did you mean layers?)"]),
        ({"trainer": {"callbacks": [STOP]}}, ["trainer.callbacks.init_args.odd is not a key; accepted: monitor"]),
        ({"data": {"class_path": "CopyMemory", "dely": {}}}, ["data.dely is not a key", "class_path, init_args"]),
        ({"debug": {}}, ["debug is not a key; accepted: config"]),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else None,
)
def test_a_key_above_nothing_is_refused_in_a_file(
    refused: Any, config: Any, changes: dict[str, Any], words: list[str]
) -> None:
    sentence = refused("fit", "-c", config(**changes), "--run_dir", "r")
    assert all(word in sentence for word in words), sentence


@pytest.mark.parametrize(
    ("option", "value", "key"),
    [
        ("--model.odd", "{}", "model.init_args.odd"),
        ("--model.optimizer", "{class_path: Adam, init_args: {odd: {}}}", "model.init_args.optimizer.init_args.odd"),
        ("--trainer.strategy", "{class_path: DDPStrategy, init_args: {odd: {}}}", "trainer.strategy.init_args.odd"),
    ],
)
def test_a_key_above_nothing_is_refused_on_the_command_line(
    refused: Any, config: Any, option: str, value: str, key: str
) -> None:
    assert refused("fit", "-c", config(), option, value).startswith(f"lit_rnn: {key} is not a key")


def test_an_option_may_hold_nothing(config: Any) -> None:
    """What takes a mapping takes an empty one, and `init_args` and `dict_kwargs` need no option."""
    empty = {
        "model": {"init_args": {"group_optimizers": {}}},
        "trainer": {"callbacks": [{"class_path": "ModelSummary", "init_args": {}, "dict_kwargs": {}}]},
    }
    found = resolve(["-c", config(**empty)])
    assert not found["model"]["init_args"]["group_optimizers"] and "ModelSummary" in str(found["trainer"]["callbacks"])


def test_what_holds_no_empty_mapping_needs_no_look(config: Any) -> None:
    """A look parses all once more, which takes a third of the time before the first step."""
    assert empty_mappings(["fit", "--config", config(), "--threads", "1", "--run_dir", "{"]) == []


def test_what_is_printed_may_be_incomplete_and_hold_nothing(tmp_path: Path) -> None:
    """As the base of a search, whose sizes its space gives."""
    base = tmp_path / "base.yaml"
    base.write_text("model: GRU\ndata: CopyMemory\ntrainer: {}\n")
    assert resolve(["-c", str(base)])["model"]["class_path"] == "lit_rnn.models.GRU"


def test_a_study_names_the_run_whose_base_holds_such_a_key(
    config: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    arms = {"a": {}, "b": {"base": config("odd.yaml", odd={"inner": {}})}}
    Path("study.yaml").write_text(yaml.safe_dump({"base": config(), "arms": arms}))
    with pytest.raises(UserError, match=r"run b-seed=1: odd is not a key; accepted: "):
        command.run("study", ["study.yaml"], try_out)
    assert not Path("runs").exists()


def test_what_has_been_dropped() -> None:
    """By hand: in lists and dictionaries, under dotted and short keys, and below a class that was replaced."""
    adam = Namespace(class_path="torch.optim.Adam", init_args=Namespace(lr=0.1))
    stop = Namespace(class_path="pl.EarlyStopping", init_args=Namespace(monitor="a", mode={}))
    model = Namespace(class_path="x.LSTM", init_args=Namespace(size=1, groups={"other": adam}))
    parsed = Namespace(model=model, trainer=Namespace(callbacks=[stop, Namespace(class_path="b.Timer")], time=None))

    def lost(given: Any) -> list[tuple[str, str | None]]:
        return list(dropped(given, parsed))

    assert lost({"model": {"init_args": {"size": {}, "groups": {"other": {}}}}, "trainer": {"time": {"a": {}}}}) == []
    assert lost({"model": {"class_path": "GRU", "init_args": {"odd": {}}}}) == [], "replaced by another config"
    assert lost({"model": {"class_path": "LSTM", "init_args": {"odd": {}}}}) == [("model.init_args.odd", "x.LSTM")]
    assert lost({"model.odd": {}}) == [("model.init_args.odd", "x.LSTM")] == lost({"model.init_args": {"odd": {}}})
    groups = {"other": {"class_path": "Adam", "init_args": {"odd": {"a": {}, "b": {}}}}}
    path = "model.init_args.groups.other.init_args.odd"
    assert lost({"model": {"init_args": {"groups": groups}}}) == [(path, "torch.optim.Adam")]
    assert lost({"trainer": {"callbacks": ["Timer", {"class_path": "Timer", "init_args": {"odd": {}}}]}}) == [
        ("trainer.callbacks.init_args.odd", "b.Timer")
    ]
    assert lost({"trainer.callbacks+": {"class_path": "EarlyStopping", "init_args": {"mode": {}}}}) == []
    assert lost({"trainer.callbacks.mode": {}}) == [], "of the one that has it"
    assert [key for key, _ in lost({"trainer.callbacks.odd": {}})] == ["trainer.callbacks.init_args.odd"]
    assert lost({"odd": {"a": {"b": {}}}, "a.b": {}, "trainer": {"odd": {}}}) == [
        ("odd", None),
        ("a", None),
        ("trainer.odd", None),
    ]
    assert lost({"odd": {"a": 1}, "model": {"init_args": {"odd": []}}}) == [], "which the parser refuses itself"


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--model.forget_bias", "2.0", "--model", "GRU"], "GRU does not take forget_bias, which LSTM was given"),
        (["--model.init", "glorot", "--model", "VanillaRNN"], "VanillaRNN does not take init, which LSTM was given"),
        (["--model.optimizer", "Adam"], "Adam does not take alpha and momentum, which RMSprop was given"),
        (["--data", "Adding"], "Adding does not take delay, which CopyMemory was given"),
    ],
    ids=lambda value: value[-1] if isinstance(value, list) else "",
)
def test_options_of_a_replaced_class_are_told_of(refused: Any, config: Any, options: list[str], sentence: str) -> None:
    """As a class has no such option, or does not take the value; the rest stays, and nobody misses defaults."""
    rmsprop = {"class_path": "RMSprop", "init_args": {"lr": 0.5, "alpha": 0.9, "momentum": 0.1, "centered": False}}
    given = config(model={"class_path": "LSTM", "init_args": {"hidden_size": 8, "optimizer": rmsprop}})
    with pytest.warns(UserWarning, match=f"^{sentence}: left out.$") as told:
        refused("fit", "--config", given, *options, "--trainer.max_epochs", "0", "--run_dir", "r")
    assert len(told) == 1
    found = resolve(["--config", given, *options])
    assert found["model"]["init_args"]["optimizer"]["init_args"]["lr"] == 0.5


def test_a_list_of_callbacks_replaces_another_one(refused: Any, config: Any) -> None:
    """Which is no news, so that there is no warning."""
    given = config(trainer={"callbacks": [{"class_path": "EarlyStopping", "init_args": {"monitor": "val/loss"}}]})
    last = ["--trainer.callbacks", '[{"class_path": "LearningRateMonitor"}]', "--trainer.max_epochs", "0"]
    assert "max_epochs is 0" in refused("fit", "--config", given, *last, "--run_dir", "r")


def test_an_optimizer_that_a_model_does_not_hand_on_is_told_of(
    refused: Any, config: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "keeping.py").write_text(
        "from lit_rnn.cells import LSTMCell\nfrom lit_rnn.models import SequenceModel\n"
        "class Keeping(SequenceModel):\n"
        "    def __init__(self, task, hidden_size: int):\n        super().__init__(task, hidden_size)\n"
        "    def build_cell(self, input_size):\n        return LSTMCell(input_size, self.options.hidden_size)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "keeping", raising=False)
    adam = {"class_path": "Adam", "init_args": {"lr": 0.5}}
    given = config(model={"class_path": "LSTM", "init_args": {"hidden_size": 8, "optimizer": adam}})
    with pytest.warns(UserWarning, match=r"^Keeping does not take optimizer, which LSTM was given: left out\.$"):
        refused("fit", "-c", given, "--model", "keeping.Keeping", "--trainer.max_epochs", "0", "--run_dir", "r")
