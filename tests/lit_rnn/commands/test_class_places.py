"""What stands in a config where a class belongs, and names none: one sentence with the key, what is there, what may."""

from __future__ import annotations

import re
from typing import Any

import pytest

from datamodules import UserError
from lit_rnn.runs.config import GROUPS, PLACES, check_named

ONE = "a class's name, or a mapping with class_path and init_args"
LISTS = ("trainer.callbacks", "trainer.logger")


def placed(place: str, value: Any) -> dict[str, Any]:
    """A config with nothing but a value in that place."""
    first, _, rest = place.partition(".")
    return {first: placed(rest, value) if rest else value}


@pytest.mark.parametrize("value", [3, -1.5, "", "a b", "1st", "no/such.yaml", "a..b"], ids=repr)
@pytest.mark.parametrize("place", [*PLACES, f"{GROUPS}.recurrent"])
def test_what_is_no_name(place: str, value: Any) -> None:
    accepted = f"{ONE}, or a list of such" if place in LISTS else ONE
    with pytest.raises(UserError, match=re.escape(f"c: {place} is {value!r}, but it must be {accepted}.")):
        check_named(placed(place, value), where="c: ")
    if place in LISTS:
        with pytest.raises(UserError, match=re.escape(f"{place} is {value!r}, but it must be {accepted}.")):
            check_named([value], place)


@pytest.mark.parametrize("place", PLACES)
def test_lists_and_truth_only_where_they_belong(place: str) -> None:
    for value, shown, taken in (([], "[]", place in LISTS), (True, "true", place == "trainer.logger")):
        if taken:
            check_named(placed(place, value))
            continue
        with pytest.raises(UserError, match=re.escape(f"{place} is {shown}, but it must be {ONE}")):
            check_named(placed(place, value))


@pytest.mark.parametrize("place", PLACES)
def test_mappings_with_other_values(place: str) -> None:
    for name, shown in ((3, "3"), (None, "null"), ("a b", "'a b'"), (["LSTM"], "['LSTM']")):
        with pytest.raises(
            UserError, match=re.escape(f"{place}.class_path is {shown}, but it must be a class's name.")
        ):
            check_named(placed(place, {"class_path": name}))
    for options in (3, [1], "x"):
        words = f"{place}.init_args is {options!r}, but it must be a mapping from options to values."
        with pytest.raises(UserError, match=re.escape(words)):
            check_named(placed(place, {"class_path": "Name", "init_args": options}))


@pytest.mark.parametrize("place", PLACES)
def test_what_names_a_class_is_left_to_the_parser(place: str) -> None:
    for value in (None, "Name", "a.b.Name", "_x.Ünicode", {"class_path": "a.Name", "init_args": None}):
        check_named(placed(place, value))
    if place != "trainer.callbacks":  # of which a list goes on, and no single one
        check_named(placed(place, {"init_args": {"some": 1}}))  # goes on with what another config names


def test_groups_are_a_mapping() -> None:
    check_named(placed(GROUPS, {}))
    for value in (3, "Adam", [{"recurrent": "Adam"}]):
        with pytest.raises(UserError, match=rf"{GROUPS} is .*, but it must be a mapping from groups of parameters to"):
            check_named(placed(GROUPS, value))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"data": 3}, f"config tiny.yaml: data is 3, but it must be {ONE}."),
        ({"data": {"class_path": None}}, "config tiny.yaml: data.class_path is null, but it must be a class's name."),
        ({"threads": True}, "threads is true, but it must be a whole number."),
        ({"threads": ""}, "threads is '', but it must be a whole number."),
    ],
)
def test_in_a_file(refused: Any, config: Any, changes: dict[str, Any], words: str) -> None:
    config(**changes)
    assert refused("fit", "-c", "tiny.yaml") == f"lit_rnn: {words}"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--model", 3], f"model is 3, but it must be {ONE}."),
        (["--model=[LSTM]"], f"model is ['LSTM'], but it must be {ONE}."),
        (["--data.class_path", 3], f"data is 3, but it must be {ONE}."),
        (["--model.optimizer", "a b"], f"model.init_args.optimizer is 'a b', but it must be {ONE}."),
        (
            ["--model.optimizer", "os.path"],
            "model.init_args.optimizer is os.path, but it must be a subclass of torch's",
        ),
        (
            ["--trainer.callbacks", "no.such.Class"],
            "trainer.callbacks.class_path is no.such.Class, which is not a know",
        ),
        (["--trainer.callbacks", "[{class_path: LSTM}]"], "trainer.callbacks.class_path is LSTM, which is not a known"),
        (["--trainer.logger", "{}"], "trainer.logger.class_path is missing: give a torch or"),
    ],
)
def test_as_an_option(refused: Any, config: Any, options: list[Any], words: str) -> None:
    assert refused("fit", "-c", config(), *options).startswith(f"lit_rnn: {words}")


@pytest.mark.parametrize("given", ["{}", "{x: 1}", "{init_args: {}}"])
@pytest.mark.parametrize(
    ("key", "known"), [("model", ["AntisymmetricRNN", "CoRNN"]), ("data", ["Adding", "AssociativeRecall"])]
)
def test_a_mapping_that_names_none(refused: Any, tmp_path: Any, key: str, known: list[str], given: str) -> None:
    other = "data: CopyMemory" if key == "model" else "model: {class_path: LSTM, init_args: {hidden_size: 4}}"
    (tmp_path / "c.yaml").write_text(f"{other}\n{key}: {given}\n")
    sentence = refused("fit", "-c", "c.yaml")
    assert sentence.startswith(f"lit_rnn: {key}.class_path is missing; accepted: {known[0]}, ")
    assert f", {known[1]}, " in sentence  # classes of other tests of this process may stand between


@pytest.mark.parametrize("later", [["-c", "b.yaml"], ["--model", "LSTM"]])
def test_a_class_that_is_named_behind_its_options(refused: Any, tmp_path: Any, later: list[str]) -> None:
    (tmp_path / "a.yaml").write_text("data: CopyMemory\nmodel: {init_args: {hidden_size: 4}}\n")
    (tmp_path / "b.yaml").write_text("model: {class_path: LSTM}\n")
    sentence = refused("fit", "-c", "a.yaml", *later)
    assert sentence.startswith("lit_rnn: model.class_path is ")
    assert "LSTM, but model.init_args stand in a config before it" in sentence
