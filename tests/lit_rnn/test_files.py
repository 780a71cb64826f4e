"""Files that commands write beside the numbers."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from datamodules import UserError
from lit_rnn.files import make_folder, write_csv


def test_a_table_has_a_column_for_every_key(tmp_path: Path) -> None:
    write_csv(tmp_path / "t.csv", [{"a": 1, "b": "x, y"}, {"b": "z", "c": None}])
    with (tmp_path / "t.csv").open(newline="") as file:
        assert list(csv.reader(file)) == [["a", "b", "c"], ["1", "x, y", ""], ["", "z", ""]]


def test_a_folder_below_a_file_is_refused(tmp_path: Path) -> None:
    make_folder(tmp_path / "a" / "b", "--out")
    make_folder(tmp_path / "a" / "b", "--out")
    assert (tmp_path / "a" / "b").is_dir()
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"--out .*file.b cannot be made .*writable folder"):
        make_folder(tmp_path / "file" / "b", "--out")
