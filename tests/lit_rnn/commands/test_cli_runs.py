"""What a run leaves behind, and what validate, test and predict add to it."""

from __future__ import annotations

import csv
import functools
import importlib
import io
import json
import os
import re
import shlex
import signal
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
import yaml
from matplotlib.image import imread

import lit_rnn
from datamodules import Adding, CopyMemory, PixelDigits
from datamodules.base import SequenceDataModule
from lit_rnn import __version__
from lit_rnn.__main__ import main
from lit_rnn.commands.fit import saved
from lit_rnn.scan.native import library
from tests.pictures import render

quick = pytest.mark.usefixtures("_no_pictures")
FIT = {"config.yaml", "versions.json", "metrics.csv", "fit.json", "checkpoints", "pictures"}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, write_tiny: Any) -> Path:
    """A finished DtrivRNN run of two epochs."""
    folder = tmp_path_factory.mktemp("fit")
    model = {"class_path": "DtrivRNN", "init_args": {"hidden_size": 8, "rebase_every": 3}}
    config = write_tiny(folder / "c.yaml", {"model": model})
    with pytest.MonkeyPatch.context() as patch:
        render(patch)
        assert main(["fit", "-c", config, "--run_dir", str(folder / "run")]) == 0
    return folder / "run"


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def primitive(value: Any) -> bool:
    if isinstance(value, dict):
        return all(isinstance(key, str | int) and primitive(item) for key, item in value.items())
    if isinstance(value, list | tuple):
        return all(primitive(item) for item in value)
    return value is None or isinstance(value, str | int | float | bool | torch.Tensor)


# ---- fit


def test_files(run: Path) -> None:
    assert {path.name for path in run.iterdir()} == FIT
    assert {path.name for path in (run / "checkpoints").iterdir()} == {
        "init.ckpt",
        "best.ckpt",
        "last.ckpt",
        "previous.ckpt",
    }


def test_versions(run: Path) -> None:
    versions = json.loads((run / "versions.json").read_text())
    assert versions["torch"] == str(torch.__version__), "with its build: CPU and CUDA round differently"
    assert versions["threads"] == 1
    assert {"commit", "python", "platform", "lit_rnn", "pytorch-lightning", "numpy", "devices"} <= versions.keys()


def test_versions_of_a_clone_on_the_path(monkeypatch: pytest.MonkeyPatch) -> None:
    def of_an_installed_one(package: str) -> str:
        if package == "lit_rnn":
            raise PackageNotFoundError(package)
        return version(package)

    monkeypatch.setattr(saved, "version", of_an_installed_one)
    assert saved.versions([])["lit_rnn"] == __version__


def test_config_is_resolved(run: Path) -> None:
    config = yaml.safe_load((run / "config.yaml").read_text())
    assert config["seed_everything"] == config["data"]["init_args"]["seed"] == 1
    assert config["data"]["init_args"]["symbols"] == 10, "defaults are written out"
    assert config["model"]["init_args"]["rebase_every"] == 3
    assert "task" not in config["model"]["init_args"], "it comes from the data"
    for section in ("model", "data"):
        assert config[section]["class_path"].count(".") >= 1, "full import paths, whoever reads it later"
    optimizer = config["model"]["init_args"]["optimizer"]
    assert optimizer["class_path"] == "torch.optim.RMSprop", "the default is written out too"
    kept = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["optimizer_states"][0]["param_groups"][1]
    assert kept["name"] == "other" and optimizer["init_args"].items() <= kept.items(), "as it ran"


def test_metrics(run: Path) -> None:
    table = rows(run)
    wanted = {"step", "epoch", "train/loss_step", "train/loss", "val/loss", "val/accuracy", "recurrent/drift"}
    assert wanted <= table[0].keys()
    assert {"lr-RMSprop/recurrent", "lr-RMSprop/other"} <= table[0].keys()
    assert [int(row["step"]) for row in table if row["train/loss_step"]] == list(range(8))
    for column in ("val/loss", "val/accuracy", "train/loss", "recurrent/drift", "lr-RMSprop/other"):
        assert sum(bool(row[column]) for row in table) == 2, f"{column}: one value an epoch"
    assert all(float(row["recurrent/drift"]) < 1e-5 for row in table if row["recurrent/drift"])
    rates = {name: float(table[0][f"lr-RMSprop/{name}"]) for name in ("recurrent", "other")}
    assert rates == {"recurrent": pytest.approx(1e-4), "other": 1e-3}


def test_fit_json_is_the_end_of_metrics(run: Path) -> None:
    result = json.loads((run / "fit.json").read_text())
    last = [row for row in rows(run) if row["val/loss"]][-1]
    assert result["loss"] == pytest.approx(float(last["val/loss"]), rel=1e-6)
    assert result["value"] == pytest.approx(float(last["val/accuracy"]), rel=1e-6)
    assert (result["model"], result["task"], result["steps"], result["split"]) == ("DtrivRNN", "copy_memory", 8, "val")
    assert result["chance"] == pytest.approx(10 * np.log(8) / 25)
    assert (result["metric"], result["higher_is_better"]) == ("accuracy", True)


@pytest.mark.parametrize("name", ["best.ckpt", "last.ckpt"])
def test_checkpoints_hold_primitives(run: Path, name: str) -> None:
    checkpoint = torch.load(run / "checkpoints" / name, weights_only=True)
    assert primitive(checkpoint)
    assert "cells.0.recurrent.base" in checkpoint["state_dict"]
    assert checkpoint["hyper_parameters"]["optimizer"] is None or primitive(checkpoint["hyper_parameters"])


def test_best_is_the_best_epoch(run: Path) -> None:
    scores = [float(row["val/accuracy"]) for row in rows(run) if row["val/accuracy"]]
    epoch = torch.load(run / "checkpoints" / "best.ckpt", weights_only=True)["epoch"]
    assert scores[epoch] == max(scores)


def test_picture(run: Path) -> None:
    path = run / "pictures" / "task.png"
    assert path.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    image = imread(path)
    assert 300 <= image.shape[0] <= 2000 and 600 <= image.shape[1] <= 3000
    assert image[..., :3].std() > 0.05, "blank"


@quick
def test_config_reproduces_the_run(cli: Any, run: Path) -> None:
    done = cli("fit", "-c", run / "config.yaml", "--run_dir", "again")
    assert done.status == 0 and done.err == ""
    assert rows(Path("again")) == rows(run)
    a, b = (
        torch.load(folder / "checkpoints/last.ckpt", weights_only=True)["state_dict"] for folder in (run, Path("again"))
    )
    assert all(torch.equal(a[key], b[key]) for key in a)


@quick
def test_another_seed_is_another_run(cli: Any, run: Path) -> None:
    """The seed of the command line reaches data and weights, although the config of the run names the data's too."""
    assert cli("fit", "-c", run / "config.yaml", "--seed_everything", 2, "--run_dir", "other").status == 0
    assert [row["train/loss_step"] for row in rows(Path("other"))] != [row["train/loss_step"] for row in rows(run)]


def test_what_is_printed(cli: Any, config: Any) -> None:
    done = cli("fit", "-c", config(), "--run_dir", "r")
    assert done.status == 0 and done.err == ""
    header, *epochs = done.out.splitlines()[:3]
    backend = f"scan backend {'native' if library('plain') is not None else 'fused'} (asked: auto)"
    assert all(word in header for word in ("ExpRNN", "197 parameters", "copy_memory", "chance 0.83", backend, "r"))
    assert all(f"epoch {number}" in line and "chance" in line for number, line in enumerate(epochs, 1))
    for word in ("val loss", "chance level", "accuracy of the 10 recalled symbols", "seconds", "run folder"):
        assert done.out.count(word) >= 1, word
    for noise in ("GPU available", "TPU", "Tip", "💡", "litlogger", "wandb", "`Trainer.fit` stopped"):
        assert noise not in done.out


@quick
def test_a_long_folder_is_not_cut_off(cli: Any, config: Any, tmp_path: Path) -> None:
    folder = tmp_path / ("a" * 60) / ("b" * 60)
    done = cli("fit", "-c", config(trainer={"max_epochs": 1}), "--run_dir", folder)
    table = done.out[done.out.index("run folder ", done.out.index("chance level")) :]
    assert str(folder) in table.replace("\n", "").replace(" ", "").replace("│", ""), "nobody can copy the path"


# ---- folders


@quick
def test_folders_are_numbered(cli: Any, config: Any) -> None:
    path = config(trainer={"max_epochs": 1})
    for _ in range(2):
        assert cli("fit", "-c", path).status == 0
    assert cli("fit", "-c", path, "--model", "LSTM").status == 0
    names = {"copymemory-exprnn-1", "copymemory-exprnn-2", "copymemory-lstm-1"}
    assert {folder.name for folder in Path("runs").iterdir()} == names
    done = cli("fit", "-c", path, "--ckpt_path", "last", "--trainer.max_epochs", 2)
    assert done.status == 0 and "runs/copymemory-exprnn-2" in done.out
    assert cli("test", "-c", path, "--ckpt_path", "best").status == 0
    assert {folder.name for folder in Path("runs").iterdir()} == names
    assert Path("runs/copymemory-exprnn-2/test.json").is_file()


@quick
def test_numbers_are_numbers(cli: Any, config: Any) -> None:
    for number in (2, 9, 10):
        Path(f"runs/copymemory-exprnn-{number}").mkdir(parents=True)
    Path("runs/copymemory-exprnn-best").mkdir()
    assert "runs/copymemory-exprnn-11" in cli("fit", "-c", config(trainer={"max_epochs": 1})).out


def test_fast_dev_run_leaves_nothing(cli: Any, config: Any, snapshot: Any) -> None:
    path = config()
    before = snapshot()
    for options in (["--trainer.fast_dev_run", "true"], ["-c", "configs/debug/fast.yaml", "--run_dir", "r"]):
        done = cli("fit", "-c", path, *options)
        assert done.status == 0 and "epoch 1  step 1" in done.out
        assert snapshot() == before


@pytest.mark.parametrize(
    "options",
    [
        ["--trainer.limit_val_batches", 0],
        ["--trainer.logger", "false"],
        ["--trainer.precision", "bf16-mixed"],
        ["--trainer.gradient_clip_val", 1.0],
        ["--trainer.check_val_every_n_epoch", 3],
        ["--trainer.max_steps", 2],
        ["--model", "LSTM"],
        pytest.param(
            ["--data", "Adding", "--data.length", 9],
            marks=pytest.mark.filterwarnings("ignore:Adding does not take delay"),  # of the config's CopyMemory
        ),
        ["--trainer.enable_checkpointing", "false"],
        ["--trainer.limit_train_batches", 2],
        ["--trainer.logger+", "CSVLogger", "--trainer.logger.save_dir", "csv"],
        ["--trainer.callbacks+", "EarlyStopping", "--trainer.callbacks.monitor", "val/loss"],
    ],
    ids=lambda options: " ".join(map(str, options[:2])),
)
def test_options_of_the_trainer(cli: Any, config: Any, options: list[Any]) -> None:
    """Each of them works, without a warning, and ends with the table."""
    done = cli("fit", "-c", config(), "--run_dir", "r", *options)
    assert done.status == 0 and done.err == "" and "chance level" in done.out
    assert Path("r/fit.json").is_file() and Path("r/pictures/task.png").is_file()


def test_few_validation_sequences(cli: Any, config: Any) -> None:
    """Fewer than a picture shows."""
    digits = {"class_path": "PixelDigits", "init_args": {"val_size": 3, "batch_size": 64}}
    done = cli("fit", "-c", config(data=digits), "--run_dir", "r", "--trainer.limit_train_batches", 1)
    assert done.status == 0 and Path("r/pictures/task.png").is_file()


def test_double_precision(cli: Any, config: Any) -> None:
    model = {"class_path": "DtrivRNN", "init_args": {"hidden_size": 8, "rebase_every": 3}}
    done = cli("fit", "-c", config(model=model), "--run_dir", "r", "--trainer.precision", "64-true")
    assert done.status == 0 and done.err == ""
    assert all(float(row["recurrent/drift"]) < 1e-14 for row in rows(Path("r")) if row["recurrent/drift"])


@quick
def test_rebases_count_optimizer_steps(cli: Any, config: Any) -> None:
    """Under gradient accumulation too: every 2 of 4 optimizer steps, in 8 batches."""
    model = {"class_path": "DtrivRNN", "init_args": {"hidden_size": 8, "rebase_every": 2}}
    options = ("--trainer.accumulate_grad_batches", 2)
    assert cli("fit", "-c", config(model=model), "--run_dir", "r", *options).status == 0
    checkpoint = torch.load("r/checkpoints/last.ckpt", weights_only=True)
    assert checkpoint["lit_rnn"]["optimizer_steps"] == checkpoint["global_step"] == 4
    assert not checkpoint["state_dict"]["cells.0.recurrent.skew"].any(), "the fourth step ends with a rebase"


# ---- validate, test, predict


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The splits that were asked for, in order."""
    names: list[str] = []
    for cls in (CopyMemory, Adding, PixelDigits):
        original = cls.split

        def split(self: SequenceDataModule, name: Any, original: Any = original) -> Any:
            names.append(name)
            return original(self, name)

        monkeypatch.setattr(cls, "split", split)
    return names


@quick
def test_only_test_opens_the_test_split(cli: Any, config: Any, opened: list[str]) -> None:
    assert cli("fit", "-c", config(), "--run_dir", "r").status == 0
    assert set(opened) == {"train", "val"}
    for command, split in (("validate", "val"), ("test", "test"), ("predict", "val")):
        opened.clear()
        assert cli(command, "--ckpt_path", "r/checkpoints/best.ckpt").status == 0
        assert set(opened) == {split}, command


@quick
def test_validate_and_test(cli: Any, config: Any) -> None:
    assert cli("fit", "-c", config(), "--run_dir", "r").status == 0
    fit = json.loads(Path("r/fit.json").read_text())
    for command, split in (("validate", "val"), ("test", "test")):
        done = cli(command, "--ckpt_path", "last", "--run_dir", "r")
        assert done.status == 0 and done.err == ""
        for word in (f"{split} loss", "chance level", "accuracy of the 10 recalled symbols", "run folder"):
            assert word in done.out, word
        assert "Test metric" not in done.out and "Validate metric" not in done.out, "Lightning's table too"
        result = json.loads(Path(f"r/{command}.json").read_text())
        assert result["split"] == split and result["steps"] == 8
        assert f"{result['loss']:.4g}" in done.out and f"{result['value']:.4f}" in done.out
        if command == "validate":
            assert (result["loss"], result["value"]) == (fit["loss"], fit["value"]), "the weights are those of the end"


@quick
def test_test_leaves_the_curve_alone(cli: Any, config: Any) -> None:
    """metrics.csv tells how training went; test's numbers are in test.json."""
    assert cli("fit", "-c", config(), "--run_dir", "r").status == 0
    before = rows(Path("r"))
    for command in ("validate", "test", "predict"):
        assert cli(command, "--ckpt_path", "last", "--run_dir", "r").status == 0
    after = rows(Path("r"))
    assert [{key: row.get(key) for key in before[0]} for row in after] == before


@quick
def test_evaluation_does_not_touch_the_run(cli: Any, config: Any, snapshot: Any) -> None:
    assert cli("fit", "-c", config(), "--run_dir", "r").status == 0
    before = snapshot()
    for command in ("validate", "test", "predict"):
        assert cli(command, "--ckpt_path", "r/checkpoints/last.ckpt").status == 0
    after = snapshot()
    kept = [name for name in before if name != "r/metrics.csv"]
    assert {name: after[name] for name in kept} == {name: before[name] for name in kept}
    new = {"r/validate.json", "r/test.json", "r/predictions.npz"}
    assert after.keys() - before.keys() == new


@pytest.mark.parametrize(
    ("data", "inputs", "targets"),
    [
        ({}, (8, 25), (8, 25)),
        (
            {
                "class_path": "Adding",
                "init_args": {"length": 6, "train_samples": 16, "val_samples": 5, "test_samples": 4, "batch_size": 4},
            },
            (5, 6, 2),
            (5, 1),
        ),
        ({"class_path": "PixelDigits", "init_args": {"batch_size": 400, "val_size": 7}}, (7, 64, 1), (7,)),
    ],
    ids=["copying", "adding", "digits"],
)
def test_predictions(cli: Any, config: Any, refused: Any, data: dict[str, Any], inputs: Any, targets: Any) -> None:
    path = config(data=data, trainer={"max_epochs": 1})
    assert cli("fit", "-c", path, "--run_dir", "r").status == 0
    done = cli("predict", "--ckpt_path", "best", "--run_dir", "r")
    assert done.status == 0 and "r/predictions.npz" in done.out and done.err == ""
    with np.load("r/predictions.npz") as kept:
        assert kept.files == ["inputs", "targets", "predictions"]
        assert kept["inputs"].shape == inputs and kept["targets"].shape == kept["predictions"].shape == targets
        result = json.loads(Path("r/fit.json").read_text())
        if result["metric"] == "accuracy":
            recall = 10 if not data else None
            right = kept["targets"] == kept["predictions"]
            right = right[:, -recall:] if recall else right
            assert right.mean() == pytest.approx(result["value"], abs=1e-6)
    ask = ("predict", "--ckpt_path", "best", "--run_dir", "r", "--probabilities", "true")
    if result["metric"] != "accuracy":
        assert "probabilities is true, but it must be left out: adding has value targets, not classes." in refused(*ask)
        return
    assert cli(*ask).status == 0
    with np.load("r/predictions.npz") as kept:
        p, y = kept["probabilities"], kept["targets"]
        assert p.shape[:-1] == y.shape and np.allclose(p.sum(-1), 1, atol=1e-6)
        assert np.array_equal(p.argmax(-1), kept["predictions"])
        of_targets = np.take_along_axis(p, y[..., None], -1)[..., 0]
        assert -np.log(of_targets).mean() == pytest.approx(result["loss"], rel=1e-5), "the loss that was validated"


# ---- help


def test_fit_alone_is_the_quickstart(cli: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    given: dict[str, Any] = {}

    @functools.wraps(pl.Trainer.fit)
    def fit(self: pl.Trainer, *args: Any, **kwargs: Any) -> None:
        given.update(kwargs)

    monkeypatch.setattr(pl.Trainer, "fit", fit)
    assert cli("fit").status == 0
    assert type(given["model"]).__name__ == "ExpRNN" and given["datamodule"].task.name == "copy_memory"


def test_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0 and main(["--help"]) == 0
    out = capsys.readouterr().out
    assert all(word in out for word in ("fit", "validate", "test", "predict", "--debug"))
    for command in ("fit", "test"):
        with pytest.raises(SystemExit) as left:
            main([command, "--help"])
        assert left.value.code == 0
        out = capsys.readouterr().out
        assert out.startswith(f"usage: python -m lit_rnn {command} [options]\n\n-c takes a file or the name of a")
        assert all(word in out for word in ("--run_dir", "--ckpt_path", "--threads"))
        assert "never run on your" not in out, "half a sentence of Lightning's"


def test_print_config(capsys: pytest.CaptureFixture[str], config: Any) -> None:
    for option in ("--print_config", "--print_config=skip_default"):
        with pytest.raises(SystemExit) as left:
            main(["fit", "-c", config(), option])
        assert left.value.code == 0
        assert yaml.safe_load(capsys.readouterr().out)["model"]["init_args"]["hidden_size"] == 8


@pytest.mark.parametrize(
    ("words", "buffered"),  # argparse itself passes over what it cannot write at once
    [(["--help"], True), (["compare", "--help"], True), (["--version"], True), (["--version"], False)],
)
def test_output_that_nobody_reads_is_no_traceback(
    monkeypatch: pytest.MonkeyPatch, words: list[str], buffered: bool
) -> None:
    """As behind `| head`, with PYTHONUNBUFFERED or not; a pipe that is broken elsewhere is not taken for it."""
    read, write = os.pipe()
    os.close(read)
    with io.TextIOWrapper(open(write, "wb", buffering=-buffered), write_through=not buffered) as out:
        monkeypatch.setattr(sys, "stdout", out)
        assert main(words) == 128 + signal.SIGPIPE


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full, which is a full disk, on this system")
@pytest.mark.parametrize("buffering", [-1, 1])
def test_output_onto_a_full_disk_is_one_sentence(monkeypatch: pytest.MonkeyPatch, capsys: Any, buffering: int) -> None:
    with open("/dev/full", "w", buffering=buffering) as out:
        monkeypatch.setattr(sys, "stdout", out)
        assert main(["--help"]) == 1
    assert re.fullmatch(
        r"lit_rnn: the output cannot be used \(No space left on device\): .*\n", capsys.readouterr().err
    )


def test_streams_that_were_closed_go_nowhere(tmp_path: Path) -> None:
    """Else the next file to be opened would be written what was meant for them."""
    code = "import os, sys\nfrom lit_rnn.__main__ import main\nstatus = main(['--help'])\n"
    code += "number = os.open('checkpoint', os.O_WRONLY | os.O_CREAT)\nos.write(2, b'a warning')\nprint('words')\n"
    code += "sys.exit(status + 10 * (number < 3))"
    line = f"{shlex.quote(sys.executable)} -c {shlex.quote(code)} <&- >&- 2>&-"
    environment = {**os.environ, "PYTHONPATH": str(Path(lit_rnn.__file__).parents[1])}
    assert subprocess.run(line, shell=True, cwd=tmp_path, env=environment).returncode == 0
    assert (tmp_path / "checkpoint").read_bytes() == b""


def test_libraries_that_do_not_fit_into_memory(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    def refuse(*_: Any) -> NoReturn:
        raise ImportError("libtorch_cpu.so: failed to map segment from shared object")

    monkeypatch.setattr(importlib, "import_module", refuse)
    assert main(["fit"]) == 2
    said = "lit_rnn: There is not enough memory to start (libtorch_cpu.so: failed to map"
    assert capsys.readouterr().err.startswith(said)


@pytest.mark.parametrize("given", ["in a config", "by an option"])
def test_a_run_folder_at_home(
    cli: Any, config: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: str
) -> None:
    """Not half there and half in a folder called ~; of ``--run_dir=~/r`` the shell leaves the ~ as it stands."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    told = {"run_dir": "~/r"} if given == "in a config" else {}
    done = cli("fit", "-c", config(**told), *([] if told else ["--run_dir=~/r"]))
    assert done.status == 0 and (tmp_path / "home" / "r" / "fit.json").is_file() and not Path("~").exists()


def test_a_config_that_is_no_file(refused: Any, config: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine.yaml").write_text(Path(config()).read_text())
    Path("run").mkdir()
    Path("run/config.yaml").touch()
    assert "(did you mean mine.yaml?)" in refused("fit", "-c", "mine.yml")
    assert "config run is a folder, not a file: name run/config.yaml." in refused("fit", "-c", "run")
