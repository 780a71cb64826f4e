"""A language model from the command line: what it says of its text, and what ``predict`` draws."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest


@pytest.mark.usefixtures("_no_pictures")
def test_a_text_is_learnt_and_sampled(cli: Any, refused: Any, config: Any, tmp_path: Path) -> None:
    (tmp_path / "corpus.txt").write_text("abcdefgh\n" * 60)
    data = {
        "class_path": "TextCorpus",
        "init_args": {"files": "corpus.txt", "tbptt": 20, "batch_size": 4, "val_share": 0.1, "test_share": 0.1},
    }
    model = {
        "class_path": "LSTM",
        "init_args": {"hidden_size": 24, "optimizer": {"class_path": "Adam", "init_args": {"lr": 0.03}}},
    }
    given = config(data=data, model=model, trainer={"max_epochs": 12})
    done = cli("fit", "-c", given, "--run_dir", "r")
    assert done.status == 0 and done.err == "", done.err
    assert "text: corpus.txt, 9 different characters, 432 for training, 54 for validation" in done.out
    assert "bits per character" in done.out

    predict = ("predict", "--ckpt_path", "best", "--run_dir", "r")
    options = ("--prompt", "cde", "--temperature", "0", "--sample_length", 24)
    done = cli(*predict, *options)
    assert done.status == 0, done.err
    assert (tmp_path / "r/sample.txt").read_text() == "cdefgh\nabcdefgh\nabcdefgh\nab\n"
    assert "sample at temperature 0: r/sample.txt\ncdefgh\nabcdefgh" in done.out
    with np.load(tmp_path / "r/predictions.npz") as kept:
        assert (kept["predictions"] == kept["targets"]).mean() > 0.9
    before = (tmp_path / "r/sample.txt").read_text()
    for _ in range(2):
        assert cli(*predict, "--prompt", "ab").status == 0
        assert len((tmp_path / "r/sample.txt").read_text()) == 503
    assert (tmp_path / "r/sample.txt").read_text() != before

    assert "--prompt has 'z', its character number 2, which is none of the 9" in refused(*predict, "--prompt", "az")
    assert "temperature is -1.0, but it must be 0 or positive" in refused(*predict, "--temperature", "-1")
    assert "sample_length is 0, but it must be a whole number" in refused(*predict, "--sample_length", "0")
    (tmp_path / "corpus.txt").write_text("abcdefgh\n" * 61)
    said = refused("fit", "-c", given, "--ckpt_path", "last", "--run_dir", "r", "--trainer.max_epochs", 13)
    assert "what data reads has changed" in said and "same data" in said


@pytest.mark.usefixtures("_no_pictures")
def test_what_is_no_text_is_not_sampled(cli: Any, refused: Any, config: Any) -> None:
    assert cli("fit", "-c", config(), "--run_dir", "r", "--trainer.max_epochs", 1).status == 0
    for option in (("--prompt", "a"), ("--temperature", "1"), ("--sample_length", "5")):
        said = refused("predict", "--ckpt_path", "best", "--run_dir", "r", *option)
        assert f"{option[0][2:]} is" in said and "left out: copy_memory is no text" in said
