"""Sequences whose targets nobody knows: read from every kind of file, as training read its own, or refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from datamodules import Parts, SequenceFiles, UserError

STEPS = [2, 4, 3]
TRAINING = [  # channels a and b; means 3 and 30 over the steps of all, as every sequence has the same
    "sequence,step,a,b,target",
    *(
        f"{i},{t},{value},{10 * value},{'xy'[i % 2]}"
        for i in range(20)
        for t, value in enumerate((1, 3, 5)[: 2 + i % 2])
    ),
]


def new() -> list[np.ndarray]:
    return [np.random.default_rng(steps).normal(size=(steps, 2)) for steps in STEPS]


def new_table(path: Path) -> None:
    """Rows in no order, columns in another than that of training, and more of them, one of which names an input's."""
    rows = [f"{b},{t},n{i},?,{a}" for i, one in enumerate(new()) for t, (a, b) in enumerate(one)]
    path.write_text("\n".join(["b,step,sequence,target,a", rows[-1], *rows[:-1]]))


def write_npz(path: Path) -> None:
    np.savez(path, x=np.concatenate(new()), lengths=STEPS, y=[0, 1, 7])


def write_npy(folder: Path) -> None:
    folder.mkdir()
    np.save(folder / "x.npy", np.concatenate(new()))
    np.save(folder / "lengths.npy", STEPS)


def write_arrays(folder: Path) -> None:
    folder.mkdir()
    for number, one in enumerate(new()):
        np.save(folder / f"{number}.npy", one)


def write_tables(folder: Path) -> None:
    folder.mkdir()
    for number, one in enumerate(new()):
        (folder / f"{number}.csv").write_text("\n".join(["b,more,a", *(f"{b},4,{a}" for a, b in one)]))


@pytest.fixture
def trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with what was trained on, which is the current one."""
    monkeypatch.chdir(tmp_path)
    Path("training.csv").write_text("\n".join(TRAINING))
    return tmp_path


@pytest.mark.usefixtures("trained")
@pytest.mark.parametrize(
    ("path", "write", "names"),
    [
        ("new.csv", new_table, ["n2", "n0", "n1"]),
        ("new.npz", write_npz, ["0", "1", "2"]),
        ("new", write_npy, ["0", "1", "2"]),
        ("new", write_arrays, ["new/0.npy", "new/1.npy", "new/2.npy"]),
        ("new", write_tables, ["new/0.csv", "new/1.csv", "new/2.csv"]),
    ],
    ids=["table", "npz", "folder of arrays", "an array for each", "a table for each"],
)
def test_every_kind_of_file_is_standardised_as_training_was(path: str, write: Any, names: list[str]) -> None:
    write(Path(path))
    data = SequenceFiles("training.csv", predict_path=path, batch_size=2, test_share=0, val_share=0.4)
    assert data.statistics is not None and not data.answers_known
    beside = data.beside_predictions()
    assert beside["sequences"].tolist() == names and beside["classes"].tolist() == ["x", "y"]
    given = [Parts.of(batch) for batch in data.predict_dataloader()]
    read = {}
    for batch in given:
        assert batch.lengths is not None and batch.targets.dtype == torch.int64
        for one, steps in zip(batch.inputs, batch.lengths, strict=True):
            read[names[len(read)]] = one[: int(steps)]
    mean, std = (torch.tensor(part) for part in data.statistics)
    for name, one in zip(sorted(names), new(), strict=True):
        assert torch.allclose(read[name], ((torch.from_numpy(one) - mean) / std).float(), atol=1e-6), name


@pytest.mark.usefixtures("trained")
def test_without_new_files_the_validation_split_is_named() -> None:
    data = SequenceFiles("training.csv", batch_size=4)
    assert data.answers_known
    names, targets = data.beside_predictions()["sequences"], torch.cat([y for _, y, *_ in data.predict_dataloader()])
    assert [int(name) % 2 for name in names] == targets.tolist()


@pytest.mark.usefixtures("trained")
def test_symbols_keep_their_numbers_and_missing_values_the_mean_of_training() -> None:
    Path("words.csv").write_text(
        "\n".join(["sequence,word,target", *(f"{i},{word},{i % 2}" for i in range(20) for word in "acb")])
    )
    Path("new.csv").write_text("sequence,word\nfirst,c\nfirst,c\nfirst,b\n")
    data = SequenceFiles("words.csv", inputs="symbols", predict_path="new.csv")
    assert [batch[0].tolist() for batch in data.predict_dataloader()] == [[[2, 2, 1]]]
    assert data.beside_predictions()["symbols"].tolist() == ["a", "b", "c"]

    Path("holes.csv").write_text("sequence,a,b\n0,,30\n0,5,\n0,,50\n")
    data = SequenceFiles("training.csv", missing="forward_fill", standardize=False, predict_path="holes.csv")
    assert data.statistics is not None
    (batch,) = data.predict_dataloader()
    assert torch.allclose(batch[0][0], torch.tensor([[float(data.statistics.mean[0]), 30], [5, 30], [5, 50]]))


@pytest.mark.usefixtures("trained")
@pytest.mark.parametrize(
    ("name", "text", "sentence"),
    [
        ("new.csv", None, r"data\.init_args\.predict_path is 'new\.csv', but there is no such file"),
        ("new.csv", "sequence,a\n0,1", r"new\.csv, line 1 has sequence, a, but no column 'b', as training files have"),
        ("new.csv", "a,b\n1,2", r"no column 'sequence', as training files have"),
        ("new.csv", "sequence,a,b\n0,1,", r"new\.csv, line 2 has a missing value in column b"),
        ("new.csv", "sequence,a,b\n0,1,inf", r"new\.csv, line 2 has an infinite value in column b"),
        ("new.csv", "sequence,a,b\n0,1,cold", r"new\.csv, line 2 has 'cold' in column b, but it must be a number"),
        ("new.txt", "1,2", r"new\.txt is neither \.npy, \.npz, \.csv nor \.parquet"),
    ],
)
def test_what_cannot_be_read_is_told(name: str, text: str | None, sentence: str) -> None:
    if text is not None:
        Path(name).write_text(text)
    with pytest.raises(UserError, match=sentence):
        SequenceFiles("training.csv", predict_path=name)


@pytest.mark.usefixtures("trained")
def test_another_width_length_or_symbol_is_told() -> None:
    np.savez("wide.npz", x=np.zeros((2, 5, 3)))
    with pytest.raises(UserError, match=r"wide\.npz has inputs of width 3, but training\.csv has 2"):
        SequenceFiles("training.csv", predict_path="wide.npz")
    np.savez("equal.npz", x=np.arange(200.0).reshape(20, 5, 2), y=[0, 1] * 10)
    np.savez("long.npz", x=np.zeros((2, 6, 2)))
    with pytest.raises(UserError, match=r"long\.npz, sequence 0, step 0 begins a sequence of 6 steps, but all of "):
        SequenceFiles("equal.npz", predict_path="long.npz")
    with pytest.raises(UserError, match=r"training\.csv is a table, but training was on arrays"):
        SequenceFiles("equal.npz", predict_path="training.csv")
    np.savez("words.npz", x=[["a", "b"]] * 20, y=[0, 1] * 10)
    np.savez("other.npz", x=[["a", "d"]])
    with pytest.raises(
        UserError, match=r"other\.npz, sequence 0, step 1 has the symbol 'd', which words\.npz does not"
    ):
        SequenceFiles("words.npz", inputs="symbols", predict_path="other.npz")
    np.savez("empty.npz", y=[1])
    with pytest.raises(UserError, match=r"empty\.npz holds y, but it must hold x"):
        SequenceFiles("equal.npz", predict_path="empty.npz")
    Path("nothing").mkdir()
    with pytest.raises(UserError, match=r"data\.init_args\.predict_path is 'nothing', which is empty"):
        SequenceFiles("equal.npz", predict_path="nothing")


@pytest.mark.usefixtures("trained")
def test_two_processes_name_their_own_share() -> None:
    np.savez("new.npz", x=np.concatenate(new()), lengths=STEPS)
    data = SequenceFiles("training.csv", predict_path="new.npz", batch_size=1)
    split = data.predict_dataloader().split
    shares = [data._loader_of(split, "val", rank, 2) for rank in (0, 1)]
    lengths = [[int(n) for batch in share for n in batch[3]] for share in shares]
    assert [[STEPS[i] for i in share.given()] for share in shares] == lengths
