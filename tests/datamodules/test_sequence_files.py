"""The user's own files: read as written, splits and statistics by hand, and a sentence for each fault."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from datamodules import SequenceFiles, UserError
from datamodules.sequences import filled_forward, numbered
from datamodules.tables import _column

LENGTHS = [3, 5, 4, 3, 6, 2, 3, 4, 5, 3, 2, 4]
NAMES = ["cat", "dog", "cat", "dog"] * 3


def sequences(width: int = 2) -> list[np.ndarray]:
    generator = np.random.default_rng(0)
    return [np.round(100 + generator.normal(size=(steps, width)), 3) for steps in LENGTHS]


def everything(data: SequenceFiles) -> dict[str, Any]:
    """Every split as one batch."""
    return {name: (split := data.split(name))[np.arange(len(split))] for name in ("train", "val", "test")}  # type: ignore[arg-type]


def rows(*extra: str, target: Callable[[int, int], object] = lambda i, t: NAMES[i]) -> list[str]:
    """A long table with the header first; ``extra`` columns after the target are the same in every row."""
    header = ["sequence", "step", "x", "y", "target", *(name.split("=")[0] for name in extra)]
    more = [name.split("=")[1] for name in extra]
    lines = [",".join(header)]
    for i, values in enumerate(sequences()):
        lines += [",".join(map(str, (f"s{i}", t, *row, target(i, t), *more))) for t, row in enumerate(values)]
    return lines


@pytest.fixture
def table(tmp_path: Path) -> Callable[[list[str]], str]:
    def write(lines: list[str], name: str = "a.csv") -> str:
        (tmp_path / name).write_text("\n".join(lines) + "\n")
        return str(tmp_path / name)

    return write


def same(one: SequenceFiles, other: SequenceFiles) -> None:
    assert one.task == other.task and one.classes == other.classes
    for name, batch in everything(one).items():
        for part, twin in zip(batch, everything(other)[name], strict=True):
            assert (part is None) == (twin is None) and (part is None or torch.equal(part, twin)), name


# ---- what is read


def test_standardised_by_the_training_split_alone() -> None:
    """Against a plain loop in float64; padding is zero and counts nowhere."""
    x = sequences()
    data = SequenceFiles.from_arrays(x, NAMES)
    taken: set[int] = set()
    training = [i for i in range(12) if data._splits[i] == "train"]
    steps = np.concatenate([x[i] for i in training])
    mean, std = steps.sum(0) / len(steps), np.sqrt(((steps - steps.mean(0)) ** 2).sum(0) / len(steps))
    for name, batch in everything(data).items():
        chosen = [i for i in range(12) if data._splits[i] == name]
        assert batch.lengths.tolist() == [LENGTHS[i] for i in chosen]
        assert batch.targets.tolist() == [("cat", "dog").index(NAMES[i]) for i in chosen]
        for row, i in enumerate(chosen):
            expected = torch.tensor((x[i] - mean) / std, dtype=torch.float32)
            assert torch.equal(batch.inputs[row, : LENGTHS[i]], expected) and not batch.inputs[row, LENGTHS[i] :].any()
        assert not taken & set(chosen)
        taken |= set(chosen)
    assert taken == set(range(12))
    assert torch.allclose(
        everything(data)["test"].inputs[0, 0].double(),
        torch.from_numpy((x[int(np.flatnonzero(data._splits == "test")[0])][0] - mean) / std),
    )
    assert (data.task.input_size, data.task.target_size, data.task.length) == (2, 2, None)


def test_files_of_every_kind_hold_the_same(tmp_path: Path, table: Callable[[list[str]], str]) -> None:
    x = sequences()
    expected = SequenceFiles.from_arrays(x, NAMES)
    flat, steps = np.concatenate(x), np.array(LENGTHS)
    padded = np.full((12, 6, 2), np.nan)
    for i, values in enumerate(x):
        padded[i, : len(values)] = values
    np.savez(tmp_path / "flat.npz", x=flat, lengths=steps, y=np.array(NAMES))
    np.savez_compressed(tmp_path / "padded.npz", x=padded, lengths=steps, y=np.array(NAMES))
    (tmp_path / "arrays").mkdir()
    for name, array in (("x", flat), ("lengths", steps), ("y", np.array(NAMES))):
        np.save(tmp_path / "arrays" / f"{name}.npy", array)
    shuffled = rows()
    body = np.random.default_rng(1).permutation(len(shuffled) - 1) + 1
    first = {f"s{i}": next(n for n, line in enumerate(shuffled) if line.startswith(f"s{i},")) for i in range(12)}
    order = [first[f"s{i}"] for i in range(12)] + [int(n) for n in body if n not in first.values()]
    for path in ("flat.npz", "padded.npz", "arrays"):
        same(SequenceFiles(str(tmp_path / path)), expected)
    same(SequenceFiles(table(rows())), expected)
    same(SequenceFiles(table([shuffled[0], *(shuffled[n] for n in order)])), expected)  # `step` sorts them
    pa = pytest.importorskip("pyarrow", reason="pyarrow is not installed: no Parquet")
    import pyarrow.parquet as pq

    names = [f"s{i}" for i, n in enumerate(LENGTHS) for _ in range(n)]
    targets = [NAMES[i] for i, n in enumerate(LENGTHS) for _ in range(n)]
    columns = {"sequence": names, "x": flat[:, 0], "y": flat[:, 1], "target": targets}
    pq.write_table(pa.table(columns), tmp_path / "a.parquet")
    same(SequenceFiles(str(tmp_path / "a.parquet")), expected)


def test_a_folder_for_each_class(tmp_path: Path) -> None:
    x = sequences()
    for split, chosen in (("train", range(6)), ("val", (6, 7)), ("test", range(8, 12))):
        for i in chosen:
            folder = tmp_path / split / NAMES[i]
            folder.mkdir(parents=True, exist_ok=True)
            if i % 4 < 2:
                np.save(folder / f"{i:02}.npy", x[i])
            else:
                lines = ["step,x,y", *(f"{t},{a},{b}" for t, (a, b) in reversed(list(enumerate(x[i]))))]
                (folder / f"{i:02}.csv").write_text("\n".join(lines))
    with pytest.raises(UserError, match=r"10\.csv has the input columns x, y, but .*08\.npy has none"):
        SequenceFiles(str(tmp_path))
    for path in tmp_path.rglob("*.npy"):
        lines = ["x,y", *(f"{a},{b}" for a, b in np.load(path))]
        path.with_suffix(".csv").write_text("\n".join(lines))
        path.unlink()
    data = SequenceFiles(str(tmp_path), standardize=False)
    assert data.classes == ["cat", "dog"] and data.columns == ("x", "y")
    for name, chosen in (("train", [0, 2, 4, 1, 3, 5]), ("val", [6, 7]), ("test", [8, 10, 9, 11])):
        batch = everything(data)[name]
        assert batch.lengths is not None and batch.lengths.tolist() == [LENGTHS[i] for i in chosen]
        for row, i in enumerate(chosen):
            assert torch.equal(batch.inputs[row, : LENGTHS[i]], torch.tensor(x[i], dtype=torch.float32))


def test_symbols_and_labels_at_every_step(table: Callable[[list[str]], str]) -> None:
    lines = ["sequence,symbol,target", "a,10,no", "a,9,yes", "b,9,yes", "b,100,no", "c,10,no", "d,9,yes", "e,9,no"]
    options: dict[str, Any] = {"inputs": "symbols", "targets": "label_per_step"}
    data = SequenceFiles(table(lines), val_share=0.2, test_share=0.2, **options)
    assert data.vocabulary == ["9", "10", "100"] and data.classes == ["no", "yes"]  # by value, and by the alphabet
    expected = {"a": ([1, 0], [0, 1]), "b": ([0, 2], [1, 0]), "c": ([1], [0]), "d": ([0], [1]), "e": ([0], [0])}
    for name, batch in everything(data).items():
        for row, i in enumerate(np.flatnonzero(data._splits == name)):
            symbols, labels = expected["abcde"[i]]
            n = int(batch.lengths[row])
            assert (batch.inputs[row, :n].tolist(), batch.targets[row, :n].tolist()) == (symbols, labels)


def test_numbers_as_targets_keep_their_unit(table: Callable[[list[str]], str]) -> None:
    data = SequenceFiles(table(rows(target=lambda i, t: 1000 + i)), targets="value")
    values = np.array([1000 + i for i in np.flatnonzero(data._splits == "train")])
    assert data.task.chance == pytest.approx(values.var()) and data.task.metric == "rmse"
    assert not data.task.higher_is_better
    got = torch.cat([batch.targets for batch in everything(data).values()]).flatten()
    assert sorted(got.tolist()) == list(range(1000, 1012))
    steps = SequenceFiles(table(rows(target=lambda i, t: 10 * i + t)), targets="frame_per_step")
    batch = everything(steps)["train"]
    first = int(np.flatnonzero(steps._splits == "train")[0])
    assert batch.targets[0, : LENGTHS[first], 0].tolist() == [10 * first + t for t in range(LENGTHS[first])]


def test_chance_is_the_entropy_of_the_training_labels() -> None:
    data = SequenceFiles.from_arrays(np.zeros((40, 3)), [1] * 30 + [2] * 10, val_share=0.1, test_share=0.2)
    assert data.task.chance == pytest.approx(-(0.75 * math.log(0.75) + 0.25 * math.log(0.25)))
    assert data.task.length == 3 and everything(data)["train"].lengths is None


def test_whole_numbers_are_sorted_by_value() -> None:
    codes, names = numbered(np.array(["10", "9", "-1", "9"]))
    assert names == ["-1", "9", "10"] and codes.tolist() == [2, 1, 0, 1]
    assert numbered(np.array(["10", "9", "x"]))[1] == ["10", "9", "x"]


# ---- splits


def test_the_draw_is_by_class_and_of_its_seed() -> None:
    y = ["a"] * 50 + ["b"] * 20 + ["c"] * 10
    made = [SequenceFiles.from_arrays(np.zeros((80, 2)), y, split_seed=seed) for seed in (0, 0, 1)]
    splits = [data._splits.tolist() for data in made]
    assert splits[0] == splits[1] != splits[2]
    for split in splits:
        for name, count in (("a", 50), ("b", 20), ("c", 10)):
            mine = [where for where, label in zip(split, y, strict=True) if label == name]
            assert [mine.count(where) for where in ("train", "val", "test")] == [0.7 * count, 0.1 * count, 0.2 * count]
    other_order = SequenceFiles.from_arrays(np.zeros((80, 2)), y, seed=7, batch_size=4)
    assert other_order._splits.tolist() == splits[0]  # the run's seed does not move sequences


def test_ranks_share_no_sequence() -> None:
    data = SequenceFiles.from_arrays(np.arange(60.0).reshape(60, 1), ["a", "b"] * 30, batch_size=4, standardize=False)
    ranks = [[float(v) for batch in data.loader("train", r, 2) for v in batch[0].flatten()] for r in range(2)]
    assert not set(ranks[0]) & set(ranks[1]) and len(ranks[0]) == len(ranks[1]) == 20


def test_given_splits_are_taken(table: Callable[..., str], tmp_path: Path) -> None:
    x, splits = sequences(), ["train"] * 6 + ["val"] * 2 + ["test"] * 4
    expected = SequenceFiles.from_arrays(x, NAMES, splits=splits)
    assert [len(expected.split(name)) for name in ("train", "val", "test")] == [6, 2, 4]  # type: ignore[arg-type]
    lines = rows()
    column = [lines[0] + ",split", *(f"{line},{splits[int(line.split(',')[0][1:])]}" for line in lines[1:])]
    same(SequenceFiles(table(column)), expected)
    files = {
        name: table(
            [lines[0], *(line for line in lines[1:] if splits[int(line.split(",")[0][1:])] == name)], f"{name}.csv"
        )
        for name in ("train", "val", "test")
    }
    same(SequenceFiles(files["train"], val_path=files["val"], test_path=files["test"]), expected)
    arrays: dict[str, Any] = {}
    for name in ("train", "val", "test"):
        chosen = [i for i in range(12) if splits[i] == name]
        arrays |= {
            f"x_{name}": np.concatenate([x[i] for i in chosen]),
            f"lengths_{name}": np.array([LENGTHS[i] for i in chosen]),
            f"y_{name}": np.array([NAMES[i] for i in chosen]),
        }
    np.savez(tmp_path / "split.npz", **arrays)
    same(SequenceFiles(str(tmp_path / "split.npz")), expected)


# ---- what is missing


def test_forward_fill_stays_in_its_sequence() -> None:
    nan = np.nan
    values = np.array([[1, nan], [nan, 2], [nan, nan], [nan, 5], [7, nan]], dtype=float)
    filled = filled_forward(values, np.array([0, 3]), np.array([3, 2]))
    assert np.array_equal(filled, [[1, nan], [1, 2], [1, 2], [nan, 5], [7, 5]], equal_nan=True)


def test_what_nothing_came_before_is_the_training_mean(table: Callable[[list[str]], str]) -> None:
    lines = rows()
    cells = lines[1].split(",")
    lines[1] = ",".join([*cells[:2], "", *cells[3:]])
    with pytest.raises(UserError, match=r"a\.csv, line 2 has a missing value in column x, one of 1: .*forward_fill"):
        SequenceFiles(table(lines))
    data = SequenceFiles(table(lines), missing="forward_fill", standardize=False)
    place = str(data._splits[0])
    training = np.concatenate([v for i, v in enumerate(sequences()) if data._splits[i] == "train"])[:, 0]
    mean = (training[1:] if place == "train" else training).mean()
    assert float(everything(data)[place].inputs[0, 0, 0]) == pytest.approx(mean)


def test_tensors_are_taken_as_arrays() -> None:
    x = np.random.default_rng(0).normal(size=(12, 5))
    same(SequenceFiles.from_arrays(torch.tensor(x), torch.arange(12) % 2), SequenceFiles.from_arrays(x, [0, 1] * 6))


def test_whole_numbers_of_parquet_keep_all_their_digits() -> None:
    """Names of sequences are often 64-bit hashes, without a sign."""

    class Column:
        def __init__(self, *values: Any) -> None:
            self.to_pylist = lambda: list(values)

    for values in ((2**64 - 1, 2**63), (2**63 - 1, -(2**63)), (True, False)):
        assert _column(Column(*values), "sequence", Path("a.parquet")).tolist() == list(values)


# ---- faults, each one sentence with file and line


def with_line(number: int, **cells: object) -> list[str]:
    lines = rows()
    names = lines[0].split(",")
    changed = dict(zip(names, lines[number - 1].split(","), strict=True)) | {k: str(v) for k, v in cells.items()}
    lines[number - 1] = ",".join(changed.values())
    return lines


FAULTS: dict[str, tuple[list[str], dict[str, Any], str]] = {
    "stray column": (rows("note=1"), {"input_columns": ["x", "y"]}, "a.csv, line 1 has a column 'note'"),
    "stray column of text": (rows("note=hm"), {}, "a.csv, line 2 has 'hm' in column note"),
    "a field too many": (with_line(4, more=1), {}, "a.csv, line 4 has 6 fields, but its header has 5"),
    "a field too few": ([*rows()[:3], "s0,2,1.0"], {}, "a.csv, line 4 has 3 fields, but its header has 5"),
    "NaN": (with_line(7, y="NaN"), {}, "a.csv, line 7 has a missing value in column y"),
    "infinite": (
        with_line(7, y="-inf"),
        {"missing": "forward_fill"},
        "a.csv, line 7 has an infinite value in column y",
    ),
    "beyond single precision": (
        with_line(7, y="-1e300"),
        {},
        "a.csv, line 7 has -1e+300 in column y, but networks compute in single precision",
    ),
    "a target beyond single precision": (
        rows(target=lambda i, t: 1e39 if i == 1 else i),
        {"targets": "value"},
        "a.csv, line 5 has 1e+39 as the size of a target",
    ),
    "a target that is no number": (rows(), {"targets": "value"}, "or set data.init_args.targets to label"),
    "an input twice": (rows(), {"input_columns": ["x", "y", "x"]}, "input_columns names 'x' twice: leave one out"),
    "an ignored target": (
        rows(),
        {"ignored_columns": ["target"]},
        "ignored_columns names 'target', which is also what",
    ),
    "an ignored input": (rows(), {"ignored_columns": ["y"], "input_columns": ["x", "y"]}, "input_columns holds: leave"),
    "text": (with_line(7, y="1,2".replace(",", ";")), {}, "a.csv, line 7 has '1;2' in column y"),
    "one class": (rows(target=lambda i, t: "cat"), {}, "a.csv has one class only, 'cat'"),
    "no label": (rows(target=lambda i, t: "" if i == 1 else NAMES[i]), {}, "a.csv, line 5 has no target"),
    "two labels": (with_line(3, target="dog"), {}, "a.csv, line 3 has 'dog' in column target, but its sequence began"),
    "labels as numbers": (rows(target=lambda i, t: "fast"), {"targets": "value"}, "a.csv, line 2 has 'fast'"),
    "a class of one": (rows(target=lambda i, t: "cow" if i == 1 else NAMES[i]), {}, "class 'cow' has 1 sequence"),
    "no rows": (rows()[:1], {}, "a.csv holds no sequences"),
    "nothing": ([], {}, "a.csv is empty"),
    "semicolons": ([line.replace(",", ";") for line in rows()], {}, "a.csv, line 1 has no commas"),
    "a column twice": ([rows()[0].replace("y", "x"), *rows()[1:]], {}, "a.csv, line 1 names column 'x' twice"),
    "a step twice": (with_line(3, step=0), {}, "a.csv, line 3 has the same sequence and step as"),
    "no such column": (rows(), {"target_columns": ["targte"]}, "did you mean target?"),
    "no such step column": (rows(), {"step_column": "time"}, "data.init_args.step_column names 'time', but "),
    "no such split column": (rows(), {"split_column": "fold"}, "data.init_args.split_column names 'fold', but "),
    "unknown split": (rows("split=dev"), {}, "a.csv, line 2 has 'dev' in column split"),
    "a split without a class": (
        [rows()[0] + ",split", *(f"{r},{'test' if r.split(',')[4] == 'dog' else 'train'}" for r in rows()[1:])],
        {},
        "The train split of ",
    ),
    "an open quote": ([*rows(), '"s9,1'], {}, "a.csv cannot be read after line"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_one_sentence(fault: str, table: Callable[[list[str]], str]) -> None:
    lines, options, told = FAULTS[fault]
    with pytest.raises(UserError) as caught:
        SequenceFiles(table(lines), **options)
    sentence = str(caught.value)
    assert told in sentence and "\n" not in sentence and sentence.endswith((".", "?")), sentence


def test_step_and_split_may_be_ignored(table: Callable[[list[str]], str]) -> None:
    """What the sentence about a step that is no number says to do."""
    lines = [line.replace(",0,", ",first,") for line in rows("split=dev")]
    with pytest.raises(UserError, match=r"'first' in column step, .*ignored_columns"):
        SequenceFiles(table(lines), ignored_columns=["split"])
    assert SequenceFiles(table(lines), ignored_columns=["step", "split"]).columns == ("x", "y")


def test_no_path_is_not_this_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    np.savez(tmp_path / "a.npz", x=np.zeros((4, 2)), y=[1, 2, 1, 2])
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"data\.init_args\.path is '', but it must be the name of a file or folder"):
        SequenceFiles("")


def test_letters_with_marks_are_one_however_they_are_written(tmp_path: Path) -> None:
    """macOS writes ä as a and its dots: a column or class of one name looks like another's."""
    lines = [line.replace("target", "Tätigkeit").replace("cat", "Kätzchen") for line in rows()]
    mixed = [unicodedata.normalize("NFD", line) if i % 2 == 0 else line for i, line in enumerate(lines)]
    (tmp_path / "a.csv").write_text("\n".join(mixed), encoding="utf-8")
    data = SequenceFiles(str(tmp_path / "a.csv"), target_columns=["Tätigkeit"])
    assert data.classes == ["Kätzchen", "dog"]


def test_home_is_where_paths_begin(
    table: Callable[[list[str]], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table(rows())
    monkeypatch.setenv("HOME", str(tmp_path))
    assert SequenceFiles("~/a.csv", val_path="~/a.csv", predict_path="~/a.csv").classes == ["cat", "dog"]


def test_objects_that_are_all_text_or_all_numbers_are_taken() -> None:
    """As a column of pandas gives them."""
    by_text = SequenceFiles.from_arrays(sequences(), NAMES)
    same(SequenceFiles.from_arrays(sequences(), np.array(NAMES, dtype=object)), by_text)
    numbers = SequenceFiles.from_arrays(sequences(), np.array(LENGTHS, dtype=object), targets="value")
    same(numbers, SequenceFiles.from_arrays(sequences(), LENGTHS, targets="value"))
    with pytest.raises(UserError, match="y holds object, but it must be an array of numbers or text"):
        SequenceFiles.from_arrays(sequences(), np.array([None, *NAMES[1:]], dtype=object))


def test_faults_of_arrays(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[Any, ...]:
            return (tmp_path.joinpath("ran").touch, ())

    np.savez(tmp_path / "evil.npz", x=np.array([Evil()], dtype=object), y=np.array([1]))
    np.savez(tmp_path / "stray.npz", x=np.zeros((4, 2)), y=[1, 2, 1, 2], z=[0])
    (tmp_path / "broken.npz").write_bytes(b"PK\x03\x04 no")
    np.save(tmp_path / "x.npy", np.zeros((4, 2)))
    for name, told in (
        ("evil.npz", "no Python objects"),
        ("stray.npz", "holds x, y, z"),
        ("broken.npz", "cannot be read"),
        ("x.npy", "name the folder with x.npy and y.npy"),
        ("gone.csv", "no such file or folder"),
        ("", "holds x"),
    ):
        with pytest.raises(UserError, match=told):
            SequenceFiles(str(tmp_path / name))
    assert not (tmp_path / "ran").exists()
    x, y = np.zeros((4, 2)), [1, 2, 1, 2]
    for call, told in (
        (lambda: SequenceFiles.from_arrays(x, [1, 2]), "4 sequences in x, but 2 targets"),
        (lambda: SequenceFiles.from_arrays(x, [1.5, 2, 1, 2]), "sequence 0, step 0 has 1.5 as label"),
        (lambda: SequenceFiles.from_arrays(x, y, lengths=[1, 2, 3, 1]), "fit neither"),
        (lambda: SequenceFiles.from_arrays([], []), "no sequences"),
        (lambda: SequenceFiles.from_arrays(x, y, splits=["val", "test"] * 2), "no training sequence"),
        (lambda: SequenceFiles.from_arrays(x, y, splits=["train"] * 3), "one for each of the 4"),
        (lambda: SequenceFiles.from_arrays(x, y, targets="labels"), "data.init_args.targets is 'labels'"),  # type: ignore[arg-type]
        (lambda: SequenceFiles.from_arrays(np.full((4, 2), np.nan), y, missing="forward_fill"), "draw"),
        (lambda: SequenceFiles.from_arrays([[[1, 2]], [[1]]], ["a", "b"]), "sequence 1 has shape"),
        (lambda: SequenceFiles.from_arrays([[[1]], []], ["a", "b"]), "sequence 1 has no steps"),
        (lambda: SequenceFiles.from_arrays([[1, 2], [1]], [[0, 1], [1]]), "label: set it to label_per_step or frame"),
        (lambda: SequenceFiles.from_arrays((one for one in x), y), "x is of type generator"),
        (lambda: SequenceFiles.from_arrays(x, [1e19, 1e20] * 2), "step 0 has 1e.19 as label.*below 2..63"),
        (lambda: SequenceFiles.from_arrays(torch.zeros(4, 2, requires_grad=True), y), "x is no array .*requires grad"),
    ):
        with pytest.raises(UserError, match=told):
            call()


@pytest.mark.parametrize("column", ["sequence", "split", "target"])
def test_a_file_of_a_class_says_nothing_that_its_folder_says(tmp_path: Path, column: str) -> None:
    """The label would be an input, and test sequences would be trained on."""
    for i, values in enumerate(sequences()):
        folder = tmp_path / NAMES[i]
        folder.mkdir(exist_ok=True)
        lines = [f"x,y,{column}", *(f"{a},{b},{1 if column != 'split' else 'test'}" for a, b in values)]
        (folder / f"{i}.csv").write_text("\n".join(lines))
    with pytest.raises(UserError, match=f"cat/0.csv, line 1 has a column '{column}', but .* in .*ignored_columns"):
        SequenceFiles(str(tmp_path))
    assert SequenceFiles(str(tmp_path), ignored_columns=[column]).columns == ("x", "y")


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"val_share": 0.3}, "val_share is 0.3, which has no effect with a val split that is given"),
        ({"test_share": 0.0}, "test_share is 0.0, which has no effect with a test split"),
        ({"split_seed": 1}, "split_seed is 1, which has no effect with splits that are all given"),
        ({"bucket_by_length": True}, "bucket_by_length is true, which has no effect with sequences of equal length"),
        ({"inputs": "symbols", "standardize": False}, "standardize is false, which has no effect with inputs: symbols"),
        ({"inputs": "symbols", "missing": "forward_fill"}, "missing is 'forward_fill', which has no effect"),
    ],
)
def test_options_without_effect_are_told(options: dict[str, Any], told: str) -> None:
    x, splits = np.arange(24).reshape(8, 3) % 5, np.repeat(["train", "val", "test"], (4, 2, 2))
    with pytest.warns(UserWarning, match=rf"^data\.init_args\.{told}"):
        SequenceFiles.from_arrays(x, [0, 1] * 4, splits=splits, **options)


@pytest.mark.parametrize("key", ["sequence_column", "step_column", "split_column", "input_columns", "ignored_columns"])
def test_columns_are_named_of_tables_alone(tmp_path: Path, key: str) -> None:
    given = "time" if key.endswith("column") else ["time"]
    np.savez(tmp_path / "a.npz", x=np.zeros((4, 2)), y=[1, 2, 1, 2])
    (tmp_path / "classes" / "cat").mkdir(parents=True)
    np.save(tmp_path / "classes" / "cat" / "0.npy", np.zeros((4, 2)))
    for path in ("a.npz", "classes"):
        with pytest.raises(UserError, match=rf"data\.init_args\.{key} is .*, but .* has no such columns: leave it out"):
            SequenceFiles(str(tmp_path / path), **{key: given})


def test_parquet_without_its_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pyarrow.parquet", None)
    (tmp_path / "a.parquet").touch()
    with pytest.raises(UserError, match=r"pip install 'lit_rnn\[parquet\]'"):
        SequenceFiles(str(tmp_path / "a.parquet"))
