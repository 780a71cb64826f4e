"""Published figures: each has its status and source, none prints without, and what papers do not confirm stays so."""

from __future__ import annotations

import inspect
from pathlib import Path

import pytest
import yaml

import lit_rnn.models
from datamodules import UserError
from lit_rnn.published import NO_VALUE, STATUSES, published, read_published

GIVEN = {
    "paper": "A 2020",
    "where": "Table 1",
    "task": "t",
    "protocol": "p",
    "metric": "accuracy",
    "unit": "%",
    "status": "secondary",
    "source": "B",
    "rows": [{"name": "a", "value": "95.0"}, {"name": "b", "value": 1.25, "status": "unconfirmed", "unit": ""}],
}


def write(folder: Path, **changes: object) -> Path:
    path = folder / "published.yaml"
    path.write_text(yaml.safe_dump([{key: value for key, value in {**GIVEN, **changes}.items() if value is not None}]))
    return path


def test_a_row_wins_over_its_block_and_keeps_its_digits(tmp_path: Path) -> None:
    first, second = read_published(write(tmp_path))
    assert (first.number, str(first)) == (0.95, "0.950 [secondary]")
    assert (second.number, str(second)) == (1.25, "1.25 [unconfirmed]")


def test_spread_count_and_no_value(tmp_path: Path) -> None:
    rows = [
        {"name": "a", "value": 84.3, "spread": 0.3},
        {"name": "b", "value": 46, "of": 462, "unit": ""},
        {"name": "c", "value": NO_VALUE},
    ]
    a, b, c = read_published(write(tmp_path, rows=rows))
    assert (str(a), str(b)) == ("0.843 ± 0.003 [secondary]", "46 of 462 [secondary]")
    assert (str(c), c.number) == (f"{NO_VALUE} [secondary]", None)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"status": None}, "row 1 has no status"),
        ({"source": None}, "row 1 has no source"),
        ({"source": ""}, "row 1 has no source"),
        ({"protocol": None}, "no protocol"),
        ({"status": "sure"}, "'sure'"),
        ({"colour": 1}, "colour is not a key"),
        ({"split": "train"}, "'train'"),
        ({"rows": []}, "block 1 has no rows"),
        ({"rows": [{"name": "a"}]}, "no value"),
        ({"rows": [{"name": "a", "value": "about 9"}]}, "'about 9'"),
        ({"rows": [{"name": "a", "value": "nan"}]}, "'nan'"),
    ],
)
def test_an_entry_that_does_not_say_enough_is_refused(changes: dict[str, object], named: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=named) as error:
        read_published(write(tmp_path, **changes))
    assert "\n" not in str(error.value)


def test_every_shipped_figure_prints_its_status() -> None:
    figures = published()
    assert len(figures) > 300
    for one in figures:
        assert str(one).endswith(f" [{one.status}]") and one.status in STATUSES and one.source
        assert (one.source == "memory of the paper") == (one.status == "unconfirmed"), one
        assert one.unit in ("", "%", "runs") and (one.unit != "%" or one.number is None or 0 < one.number < 1), one


def test_what_a_page_does_not_ascribe_is_ascribed_to_nobody() -> None:
    """asRNN's README has an LSTM beside nnRNN's rows, and does not say that it is Kerg et al.'s."""
    lstm = [one for one in published() if (one.task, one.model, one.size) == ("penn_treebank_char", "LSTM", 475)]
    assert [one.paper for one in lstm] == ["asRNN", "asRNN"] and all("does not say" in one.source for one in lstm)


def test_what_is_quoted_is_not_confirmed() -> None:
    """Orhan and Pitkow's tables have Merity et al.'s LSTM as a baseline."""
    quoted = [one for one in published() if "quot" in f"{one.name} {one.source}" or "Merity" in one.name]
    assert len(quoted) > 20 and all(one.status != "confirmed" for one in quoted)


def test_models_and_options_that_exist_here_are_named_as_here() -> None:
    """Rivals of a later day have no options yet."""
    for one in published():
        cls = getattr(lit_rnn.models, one.model or "", None)
        if cls is not None:
            known = {
                name for base in cls.__mro__ if "__init__" in vars(base) for name in inspect.signature(base).parameters
            }
            assert set(one.options) <= known, one
        else:
            assert one.model in (None, "CoRNN", "UnICORNN", "LEM", "LinOSS") and not one.options, one


@pytest.mark.parametrize(
    ("task", "name", "size", "split", "value", "status"),
    [  # read once more from the papers' notes
        ("permuted_pixel_mnist", "expRNN", 170, "test", "0.949", "secondary"),
        ("pixel_mnist", "dtriv100", 512, "test", "0.989", "unconfirmed"),
        ("permuted_pixel_mnist", "scuRNN", 250, "test", "0.962", "unconfirmed"),
        ("permuted_pixel_mnist", "restricted uRNN", 512, "val", "0.9416", "confirmed"),
        ("permuted_pixel_mnist", "NRU", 212, "test", "0.9538", "unconfirmed"),
        ("copy_memory", "chain", 100, "val", "46 of 462", "confirmed"),
        ("copy_memory", "orthogonal", 100, "val", "0 of 594", "confirmed"),
        ("timit", "full-capacity uRNN", 256, "test", "14.45", "unconfirmed"),
        ("timit", "expRNN", 224, "val", "5.34", "unconfirmed"),
        ("speech_spectrum", "GORU, Householder", 64, "test", "43.0", "secondary"),
        ("speech_spectrum", "uRNN", 108, "test", NO_VALUE, "secondary"),
        ("penn_treebank_char", "asRNN", 1024, "test", "1.46 ± 0.006", "confirmed"),  # in the README of that repository
        ("penn_treebank_char", "3-layer LSTM, AWD recipe, by third parties", None, "test", "1.182", "secondary"),
    ],
)
def test_some_figures(task: str, name: str, size: int, split: str, value: str, status: str) -> None:
    found = [one for one in published() if (one.task, one.name, one.size, one.split) == (task, name, size, split)]
    assert f"{value} [{status}]" in [str(one) for one in found]
