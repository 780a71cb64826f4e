"""Runs on a user's own files: every command works on them, with the statistics of the checkpoint."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from datamodules import Parts, SequenceFiles, UserError
from lit_rnn import models
from lit_rnn.commands.compare.subject import read_run
from lit_rnn.models import made_on, read_checkpoint
from lit_rnn.runs.data import check_data, read_data
from tests.trainers import quiet_trainer

MODELS = [name for name in models.__all__ if name[0].isupper() and name not in ("SequenceModel", "OrthogonalRNN")]
NEEDED: dict[str, dict[str, Any]] = {
    "NRU": {"memory_size": 4},
    "StatisticalRU": {"statistics_size": 4, "summary_size": 4, "alphas": (0.2, 0.9)},
}


def write(path: Path, shift: float, labels: str = "ab", count: int = 40) -> None:
    """A long table; ``shift`` moves its values, and with them its statistics."""
    generator = np.random.default_rng(3)
    rows = [
        f"{i},{t},{shift + generator.normal():.4f},{10 * generator.normal():.4f},{labels[i % 2]}"
        for i in range(count)
        for t in range(2 + i % 4)
    ]
    path.write_text("\n".join(["sequence,step,x,y,target", *rows]))


@pytest.fixture
def trained(cli: Any, config: Any, tmp_path: Path, _no_pictures: None) -> Path:
    """A run of two epochs."""
    write(tmp_path / "own.csv", shift=5.0)
    data = {"class_path": "SequenceFiles", "init_args": {"path": "own.csv", "batch_size": 8, "bucket_by_length": True}}
    done = cli("fit", "-c", config(data=data), "--run_dir", "r")
    assert done.status == 0 and done.err == "", done.err
    told = done.out.splitlines()[1]
    assert told == (
        "own.csv: 28 train, 4 val, 8 test; inputs x, y; standardised by the training split; classes 0 = a, 1 = b"
    )
    return tmp_path / "r"


@pytest.mark.usefixtures("trained")
def test_every_command_works_on_the_run(cli: Any) -> None:
    for command in (
        ("test", "--ckpt_path", "best", "--run_dir", "r"),
        ("predict", "--ckpt_path", "last", "--run_dir", "r"),
        ("fit", "--ckpt_path", "last", "--run_dir", "r", "-c", "tiny.yaml", "--trainer.max_epochs", 3),
        ("analyze", "--run_dir", "r", "--only", "dynamics", "--samples", 2),
        ("attack", "--run_dir", "r", "--attacks", "fgsm", "--samples", 2),
    ):
        done = cli(*command)
        assert done.status == 0 and done.err == "", (command, done.err)


def test_another_file_is_read_with_the_statistics_of_the_checkpoint(trained: Path, cli: Any, tmp_path: Path) -> None:
    own = SequenceFiles("own.csv")
    assert own.statistics is not None
    mean, std = own.statistics
    write(tmp_path / "other.csv", shift=-50.0)
    raw = SequenceFiles("other.csv", standardize=False).examples(4)
    expected = ((Parts.of(raw).inputs.double() - torch.from_numpy(mean)) / torch.from_numpy(std)).float()
    real = Parts.of(raw).real()
    assert real is not None
    checkpoint = trained / "checkpoints/last.ckpt"

    data = read_data(checkpoint, None, None, {"path": "other.csv"}, seed=0)
    data.examples(4)  # measured on the other file, and forgotten
    with pytest.warns(UserWarning, match="the numbers are those of other data"):
        check_data(data, read_checkpoint(checkpoint), checkpoint)
    assert torch.allclose(Parts.of(data.examples(4)).inputs[real], expected[real], atol=1e-5)

    with pytest.warns(UserWarning, match="the numbers are those of other data"):
        done = cli("predict", "--ckpt_path", "last", "--run_dir", "r", "-c", "tiny.yaml", "--data.path", "other.csv")
    assert done.status == 0, done.err
    with np.load(trained / "predictions.npz") as written:
        found = torch.from_numpy(written["inputs"])[: len(expected), : expected.shape[1]]
    assert torch.allclose(found[real], expected[real], atol=1e-5)


def test_a_run_keeps_a_fingerprint_of_its_files(trained: Path, cli: Any, tmp_path: Path) -> None:
    """Wherever they lie; a test on others is none of the run, in a comparison."""
    (tmp_path / "own.csv").rename(tmp_path / "moved.csv")
    assert cli("test", "--ckpt_path", "best", "--run_dir", "r", "--data.path", "moved.csv").status == 0
    kept, tested = (json.loads((trained / f"{name}.json").read_text()) for name in ("versions", "test"))
    assert kept["fingerprint"] == tested["fingerprint"] == SequenceFiles("moved.csv").fingerprint()
    assert read_run(trained).test == tested and read_run(trained).fingerprint == kept["fingerprint"]
    write(tmp_path / "own.csv", shift=-50.0)
    with pytest.warns(UserWarning, match=r"the numbers are those of other data\. Their splits are drawn anew"):
        assert cli("test", "--ckpt_path", "best", "--run_dir", "r").status == 0
    assert read_run(trained).test is None


def test_the_fingerprint_sees_which_sequences_are_for_the_test() -> None:
    x, y, splits = np.arange(12.0).reshape(6, 2), ["a", "b"] * 3, np.repeat(["train", "val", "test"], 2)
    one = SequenceFiles.from_arrays(x, y, splits=splits)
    other = SequenceFiles.from_arrays(x, y, splits=splits[[0, 1, 4, 5, 2, 3]])
    assert one.definition() == other.definition() and one.fingerprint() != other.fingerprint()


def test_other_classes_are_refused(trained: Path, tmp_path: Path, refused: Any) -> None:
    write(tmp_path / "other.csv", shift=5.0, labels="ac")
    sentence = refused("analyze", "--run_dir", "r", "--only", "dynamics", "--data.path", "other.csv")
    assert "other.csv has the classes a, c, but the checkpoint was made on a, b" in sentence
    checkpoint = read_checkpoint(trained / "checkpoints/last.ckpt")
    checkpoint["SequenceFiles"]["learned"]["std"] = [1.0, "x"]
    with pytest.raises(UserError, match="no statistics of 2 inputs"):
        check_data(SequenceFiles("own.csv"), checkpoint, trained)


def test_changed_contents_do_not_resume(trained: Path, tmp_path: Path, refused: Any) -> None:
    write(tmp_path / "own.csv", shift=6.0)
    sentence = refused("fit", "-c", "tiny.yaml", "--ckpt_path", "last", "--run_dir", trained, "--trainer.max_epochs", 3)
    assert "what data reads has changed" in sentence and "on the same data" in sentence


def test_sequences_that_change_places_between_validation_and_test(tmp_path: Path) -> None:
    """Training has none of them, and its metrics would go on as those of others: refused, and told in a test."""
    x, y, splits = np.arange(12.0).reshape(6, 2), ["a", "b"] * 3, np.repeat(["train", "val", "test"], 2)
    one = SequenceFiles.from_arrays(x, y, splits=splits)
    other = SequenceFiles.from_arrays(x, y, splits=splits[[0, 1, 4, 5, 2, 3]])
    noted: Any = made_on.note(one)
    checkpoint = {"lit_rnn": {"data": noted}, "hyper_parameters": {"task": asdict(one.task)}}
    assert made_on.differences(checkpoint, one, one.task) == {}
    with pytest.raises(UserError, match=r"what data reads has changed .* on the same data"):
        made_on.refuse(made_on.differences(checkpoint, other, other.task))
    del noted["fingerprint"]
    assert made_on.differences(checkpoint, other, other.task) == {}, "a checkpoint of before kept none"


@pytest.mark.parametrize("fault", ["stray", "gone"])
def test_a_fault_in_the_file_leaves_nothing(refused: Any, config: Any, tmp_path: Path, fault: str) -> None:
    if fault == "stray":
        (tmp_path / "bad.csv").write_text("sequence,x,target\na,1,u\nb,1,v,9\n")
    data = {"class_path": "SequenceFiles", "init_args": {"path": "bad.csv"}}
    sentence = refused("fit", "-c", config(data=data), "--run_dir", "r")
    assert ("bad.csv, line 3 has 4 fields" if fault == "stray" else "no such file") in sentence


@pytest.mark.parametrize("name", MODELS)
def test_every_model_trains_a_step(name: str) -> None:
    generator = np.random.default_rng(0)
    x = [generator.normal(size=(steps, 2)) for steps in [3, 5, 2, 4] * 5]
    data = SequenceFiles.from_arrays(x, ["a", "b"] * 10, batch_size=8)
    model = getattr(models, name)(data.task, 8, **NEEDED.get(name, {}))
    before = [parameter.clone() for parameter in model.parameters()]
    quiet_trainer(max_steps=1, limit_val_batches=1, num_sanity_val_steps=0).fit(model, data)
    assert all(torch.isfinite(parameter).all() for parameter in model.parameters())
    assert any(not torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))


def test_sequences_without_answers_are_predicted_as_with_them(trained: Path, cli: Any, tmp_path: Path) -> None:
    """By the name of each, whatever its place; and no targets are made up."""
    assert cli("predict", "--ckpt_path", "last", "--run_dir", "r").status == 0
    with np.load(trained / "predictions.npz") as written:
        assert written["classes"].tolist() == ["a", "b"]
        known = dict(zip(written["sequences"].tolist(), written["predictions"].tolist(), strict=True))
        answers = dict(zip(written["sequences"].tolist(), written["targets"].tolist(), strict=True))
    assert all(int(name) % 2 == answer for name, answer in answers.items())
    lines = [line.split(",") for line in (tmp_path / "own.csv").read_text().splitlines()[1:]]
    asked = [",".join((y, x, name, step)) for name, step, x, y, _ in reversed(lines) if name in known]
    (tmp_path / "new.csv").write_text("\n".join(["y,x,sequence,step", *asked]))
    done = cli("predict", "--ckpt_path", "last", "--run_dir", "r", "--data.predict_path", "new.csv")
    assert done.status == 0 and done.err == "", done.err
    with np.load(trained / "predictions.npz") as written:
        assert "targets" not in written and written["sequences"].tolist() == list(known)[::-1]
        assert dict(zip(written["sequences"].tolist(), written["predictions"].tolist(), strict=True)) == known
