"""Files that commands write beside the numbers."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

from datamodules import UserError
from lit_rnn.files import in_whole, make_folder, read_arrays, write_csv


def test_a_table_has_a_column_for_every_key(tmp_path: Path) -> None:
    write_csv(tmp_path / "t.csv", [{"a": 1, "b": "x, y"}, {"b": "z", "c": None}])
    with (tmp_path / "t.csv").open(newline="") as file:
        assert list(csv.reader(file)) == [["a", "b", "c"], ["1", "x, y", ""], ["", "z", ""]]


def test_no_cell_of_a_table_is_a_formula(tmp_path: Path) -> None:
    formulas = ["=1+1", "+x", "-x", "@SUM(A1)", "\t=1", "\r=1", "\n=1", "--", "-1 + 2"]
    harmless = ["a=1", "'", "-1.5e-3", "+2", "-inf", -1.5, -2, None, "", True, 1e300]
    write_csv(tmp_path / "t.csv", [dict(enumerate([*formulas, *harmless]), **{"=k": "v"})])
    with (tmp_path / "t.csv").open(newline="") as file:
        header, cells = csv.reader(file)
    assert header[-1] == "'=k" and cells[-1] == "v"
    assert cells[: len(formulas)] == [f"'{text}" for text in formulas]
    assert cells[len(formulas) : -1] == ["" if cell is None else str(cell) for cell in harmless]


def test_a_folder_below_a_file_is_refused(tmp_path: Path) -> None:
    make_folder(tmp_path / "a" / "b", "--out")
    make_folder(tmp_path / "a" / "b", "--out")
    assert (tmp_path / "a" / "b").is_dir()
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"--out .*file.b cannot be made: .*file is not a folder; name a writable"):
        make_folder(tmp_path / "file" / "b", "--out")


def test_damaged_arrays_are_a_sentence(tmp_path: Path) -> None:
    path = tmp_path / "states.npz"
    np.savez(path, a=np.arange(1000.0))
    whole = path.read_bytes()
    assert np.array_equal(read_arrays(path)["a"], np.arange(1000.0))
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 1
    np.savez(tmp_path / "pickled.npz", a=np.array([{}], dtype=object))
    damaged = [whole[: len(whole) // 2], b"", b"text", bytes(flipped), (tmp_path / "pickled.npz").read_bytes()]
    for content in damaged:
        path.write_bytes(content)
        with pytest.raises(UserError, match=r"states\.npz is damaged \(\w+\): "):
            read_arrays(path)


@pytest.mark.parametrize("content", [{}, {"a": None}, {"a": []}, {"a": "text"}, {"a": {"b": "c"}}])
def test_what_lacks_something_is_damaged(tmp_path: Path, content: dict[str, object]) -> None:
    with pytest.raises(UserError, match=r"x\.json is damaged"), in_whole(tmp_path / "x.json"):
        float(content["a"]["b"])  # type: ignore[index]
    with in_whole(tmp_path / "x.json"):
        float("1")
