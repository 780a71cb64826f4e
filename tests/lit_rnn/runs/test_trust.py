"""Classes by name, damaged and planted files: nothing is imported, called, followed or written for a file's sake."""

from __future__ import annotations

import functools
import json
import os
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from datamodules import CopyMemory, UserError
from lit_rnn import class_paths, files
from lit_rnn.__main__ import main
from lit_rnn.commands.attack.many.subject import finished_runs
from lit_rnn.commands.study.local import command as run_command
from lit_rnn.commands.study.subject import Run, read_study
from lit_rnn.models import ExpRNN, VanillaRNN, load, read_checkpoint
from lit_rnn.runs import config as run_config
from lit_rnn.runs.curves import parse_rows, read_curve
from lit_rnn.runs.results import read_result

FIT = ["fit", "--model", "ExpRNN", "--model.hidden_size", "4", "--data", "CopyMemory", "--data.delay", "3"]
BOMB = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{new}: &{new} [{', '.join([f'*{old}'] * 10)}]\n" for old, new in zip("abcdefg", "bcdefgh", strict=True)
)


@pytest.fixture
def evil(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that Python imports from, with a module that leaves a mark; the mark."""
    (tmp_path / "evil_module.py").write_text("open('MARK', 'w').close()\nclass Thing: pass\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path / "MARK"


def checkpoint(path: Path, name: str = "lit_rnn.models.ExpRNN", **options: Any) -> Path:
    """A whole checkpoint, but for the class and the options that it names."""
    model = ExpRNN(CopyMemory(delay=3).task, 4)
    kept = {"lit_rnn": {"class_path": name, "optimizer_steps": 1}, "state_dict": model.state_dict()}
    torch.save({**kept, "hyper_parameters": {**model.hparams, **options}}, path)
    return path


# ---- names


@pytest.mark.parametrize(
    "name", ["subprocess.Popen", "os.system", "evil_module.Thing", "evil_module", "torch.nn.Linear", 3]
)
@pytest.mark.parametrize("place", ["model", "optimizer", "lr_scheduler", "group_optimizers"])
def test_a_checkpoint_imports_and_calls_nothing(evil: Path, name: Any, place: str) -> None:
    spec = {"class_path": name, "init_args": {"args": "touch MARK", "shell": True}}
    options = {} if place == "model" else {place: {"recurrent": spec} if place == "group_optimizers" else spec}
    path = checkpoint(evil.parent / "bad.ckpt", name if place == "model" else "lit_rnn.models.ExpRNN", **options)
    with pytest.raises(UserError, match="no loaded"):
        load(path)
    for command in ("analyze", "attack"):
        assert main([command, "--ckpt_path", str(path), "--data", "CopyMemory"]) == 2
    assert not evil.exists()


def test_shipped_classes_by_both_paths_and_own_ones_by_trust(evil: Path) -> None:
    for name in ("lit_rnn.models.ExpRNN", "lit_rnn.models.exprnn.ExpRNN"):
        assert isinstance(load(checkpoint(evil.parent / "a.ckpt", name)), ExpRNN)
    Path("own_module.py").write_text("from lit_rnn.models import ExpRNN\nclass OwnRNN(ExpRNN): pass\n")
    path = checkpoint(evil.parent / "own.ckpt", "own_module.OwnRNN")
    with pytest.raises(UserError, match="--trust own_module"):
        load(path)
    assert type(load(path, trust=["own_module"])).__name__ == "OwnRNN"
    assert type(load(path)).__name__ == "OwnRNN"  # it is loaded now
    with pytest.raises(UserError, match="no loaded SequenceModel"):
        load(checkpoint(evil.parent / "b.ckpt", "subprocess.Popen"), trust=["subprocess"])
    Path("own_package").mkdir()
    Path("own_package/part.py").write_text("import nowhere_module\n")
    for name in (
        *("nowhere_module", "./own_module.py", "own_module.Nothing.More", "own_module.OwnNRN"),
        "own_package.part",  # is there, but not what it imports
    ):
        with pytest.raises(UserError, match="--trust"):
            class_paths.trust([name])


@pytest.mark.parametrize("factory", [os.system, functools.partial(os.system, command="touch MARK"), torch.nn.Linear])
def test_an_optimizer_is_one(evil: Path, factory: Any) -> None:
    for key in ("optimizer", "lr_scheduler"):
        with pytest.raises(UserError, match=key):
            VanillaRNN(CopyMemory(delay=3).task, 4, **{key: factory})
        with pytest.raises(UserError, match=key):
            VanillaRNN(CopyMemory(delay=3).task, 4, **{key: {"class_path": "evil_module.Thing"}})
    assert not evil.exists()


@pytest.mark.parametrize(
    "option",
    [
        {"class_path": "os.system", "init_args": {"command": "touch MARK"}},
        {"class_path": "subprocess.Popen", "init_args": {"args": "touch MARK", "shell": True}},
        "os.system",
    ],
)
@pytest.mark.parametrize("key", ["optimizer", "lr_scheduler"])
def test_a_config_puts_no_function_where_an_optimizer_belongs(evil: Path, key: str, option: Any, capsys: Any) -> None:
    assert main([*FIT, "--trainer.max_epochs", "1", f"--model.init_args.{key}", json.dumps(option)]) == 2
    assert "traceback" not in capsys.readouterr().err.lower()
    assert not evil.exists() and not Path("runs").exists()


RNN = "lit_rnn.models.ExpRNN"


def spec(name: str, **options: Any) -> dict[str, Any]:
    return {"class_path": name, "init_args": options}


RUN: dict[str, Any] = {
    "model": {"class_path": "lit_rnn.models.ExpRNN", "init_args": {"hidden_size": 4}},
    "data": {"class_path": "datamodules.CopyMemory", "init_args": {"delay": 3}},
    "trainer": {"max_epochs": 1, "callbacks": [{"class_path": "pytorch_lightning.callbacks.EarlyStopping"}]},
}


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("model", {"class_path": "evil_module.Thing"}),
        ("model", "evil_module.Thing"),
        ("data", {"class_path": "evil_module.Thing"}),
        ("config", "other.yaml"),
        ("model.class_path", "evil_module.Thing"),
        ("trainer", {"callbacks": [{"class_path": "evil_module.Thing"}]}),
        ("trainer", {"callbacks": "evil_module.Thing"}),
        ("trainer", {"profiler": {"class_path": "evil_module.Thing"}}),
        ("trainer", {"strategy": "evil_module.Thing"}),
        ("trainer", {"callbacks": [spec("pytorch_lightning.callbacks.LambdaCallback", setup="os.abort")]}),
        ("trainer", {"callbacks": spec("pytorch_lightning.callbacks.ModelCheckpoint", dirpath="../x")}),
        ("trainer", {"logger": spec("pytorch_lightning.loggers.CSVLogger", save_dir="/tmp")}),
        ("model", spec(RNN, optimizer=spec("os.system"))),
        ("model", spec(RNN, optimizer="os.system")),
        ("model", spec(RNN, adversarial=spec("os.system"))),
        ("model", spec(RNN, lr_scheduler=spec("torch.optim.lr_scheduler.LambdaLR", lr_lambda="os.abort"))),
    ],
)
def test_a_run_folders_config_is_nobodys_word(evil: Path, key: str, value: Any) -> None:
    path = Path("run/config.yaml")
    path.parent.mkdir()
    path.write_text(yaml.safe_dump(RUN))
    run_config.check(path)
    path.write_text(yaml.safe_dump({**RUN, key: value}))
    with pytest.raises(UserError, match=r"config run/config\.yaml"):
        run_config.check(path)
    assert not evil.exists()


def test_paths_kept_by_callbacks_stay_inside() -> None:
    run_config.check_state({"ModelCheckpoint{}": {"best_k_models": {"r/checkpoints/a.ckpt": 1.0}}}, Path("x"))
    with pytest.raises(UserError, match="leads out"):
        run_config.check_state({"M": {"best_k_models": {"r/checkpoints/../../victim": 1.0}}}, Path("x"))


# ---- bytes


def test_archives_without_sums_or_compressed_are_refused(tmp_path: Path) -> None:
    path = checkpoint(tmp_path / "a.ckpt")
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(tmp_path / "b.ckpt", "w", zipfile.ZIP_DEFLATED) as new:
        for member in old.namelist():
            new.writestr(member, old.read(member))
    torch.save(read_checkpoint(path), tmp_path / "c.ckpt", _use_new_zipfile_serialization=False)
    for name in ("b.ckpt", "c.ckpt"):
        with pytest.raises(UserError, match="not a whole checkpoint"):
            load(tmp_path / name)


# ---- YAML, names, links


@pytest.mark.parametrize(
    "text", [BOMB, "[" * 60 + "]" * 60, "a: &a [*a, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14]", "- x\n" * 300_000]
)
def test_yaml_beyond_measure_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.chdir(tmp_path)
    Path("bomb.yaml").write_text(text)
    with pytest.raises(UserError, match="refused"):
        files.read_yaml(Path("bomb.yaml"), "config")
    assert main(["fit", "-c", "bomb.yaml"]) == 2 and main(["study", "bomb.yaml"]) == 2


def test_aliases_within_measure_work() -> None:
    text = "base: &base {delay: 3, batch_size: 8}\na: {<<: *base, delay: 4}\nb: *base\n# long enough to be measured\n"
    assert files.parse_yaml(text, "x")["a"] == {"delay": 4, "batch_size": 8}


@pytest.mark.parametrize("arm", ["../victim", "a/b", "..", "", "a\\b", "a\nb", "x" * 81])
def test_an_arms_name_is_no_path(tmp_path: Path, arm: str) -> None:
    path = tmp_path / "s.yaml"
    path.write_text(yaml.safe_dump({"base": "quickstart.yaml", "arms": {arm: {}}}))
    with pytest.raises(UserError, match="A name in arms"):
        read_study(str(path))


def test_values_in_names_are_short_safe_and_different(tmp_path: Path) -> None:
    path = tmp_path / "s.yaml"
    roots = ["../a/b", "../a_b", "plain", "y" * 300, "y" * 299]
    path.write_text(yaml.safe_dump({"base": "quickstart.yaml", "grid": {"data.init_args.root": roots}}))
    names = [run.name for run in read_study(str(path)).runs]
    assert len(set(names)) == 5 and all("/" not in name and len(name) < 200 for name in names)
    assert names[2] == "s-root=plain-seed=1"


def test_a_study_goes_on_with_a_class_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its base config is the user's word, so what that names is loaded before the checkpoint names it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    Path("leaky_module.py").write_text("from lit_rnn.models import ExpRNN\n\n\nclass LeakyRNN(ExpRNN):\n    pass\n")
    own = {"class_path": "leaky_module.LeakyRNN", "init_args": {"hidden_size": 4}}
    data = {
        "class_path": "CopyMemory",
        "init_args": {"delay": 3, "train_samples": 20, "val_samples": 20, "batch_size": 10},
    }
    trainer = {"max_epochs": 1, "log_every_n_steps": 1, "enable_progress_bar": False}
    Path("base.yaml").write_text(yaml.safe_dump({"model": own, "data": data, "trainer": trainer}))
    Path("s.yaml").write_text(yaml.safe_dump({"base": "base.yaml"}))
    (run,) = read_study("s.yaml").runs
    for _ in range(2):
        assert not main(run_command(run, tmp_path, 1)[3:])
        (tmp_path / run.name / "fit.json").unlink()  # as if it had been killed before its end
        sys.modules.pop("leaky_module")
    assert (tmp_path / run.name / "checkpoints/last.ckpt").is_file()
    assert "--trust" not in run_command(run, tmp_path, 1)
    assert run_command(Run(run.setting, 1, "test"), tmp_path, 1)[-2:] == ["--trust", "leaky_module"]


@pytest.mark.parametrize("planted", ["config.yaml", "metrics.csv", "checkpoints/last.ckpt", "fit.json", "pictures"])
def test_a_link_out_of_a_run_folder_is_not_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, planted: str, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    victim = tmp_path / "victim"
    victim.mkdir() if planted == "pictures" else victim.write_text("mine")
    link = Path("run", planted)
    link.parent.mkdir(parents=True)
    link.symlink_to(victim)
    assert main([*FIT, "--trainer.max_epochs", "1", "--run_dir", "run"]) == 2
    assert "symbolic link" in capsys.readouterr().err
    assert list(victim.iterdir()) == [] if planted == "pictures" else victim.read_text() == "mine"
    assert sorted(Path("run").rglob("*")) == sorted({link, *link.parents} - {Path("run"), Path()})


def test_links_inside_a_folder_are_fine(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "a").touch()
    (tmp_path / "real" / "b").symlink_to("a")
    (tmp_path / "run").symlink_to("real")
    files.refuse_links(tmp_path / "run")


def test_a_hard_link_out_of_a_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "outside").write_text("not yours")
    run = tmp_path / "run"
    (run / "checkpoints").mkdir(parents=True)
    (run / "a").write_text("ours")
    (run / "checkpoints" / "b").hardlink_to(run / "a")
    files.refuse_links(run)  # both names lie inside
    (run / "fit.json").hardlink_to(tmp_path / "outside")
    with pytest.raises(UserError, match=r"run/fit\.json is a hard link to a file that also has a name outside of"):
        files.refuse_links(run)


def test_a_damaged_report_of_an_attack_is_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cli: Any) -> None:
    for content in ("[]", "{}", '{"asked": 3}', '{"asked": {}, "worst_case": 1}', "\0"):
        report = tmp_path / "s" / "r" / "attack" / "attack.json"
        report.parent.mkdir(parents=True, exist_ok=True)
        report.write_text(content)
        (tmp_path / "s" / "r" / "fit.json").touch()
        done = cli("attack", "--study", "s")
        assert done.status == 2 and len(done.err.splitlines()) == 1 and "Traceback" not in done.out, done
        assert "attack.json" in done.err


def test_damaged_numbers_are_a_sentence(tmp_path: Path) -> None:
    for text in ("{", "[]", '{"task": 1}', "[" * 100_000, "\0"):
        (tmp_path / "fit.json").write_text(text)
        with pytest.raises(UserError, match="damaged"):
            read_result(tmp_path)
    (tmp_path / "metrics.csv").write_text("step,val/loss\n0,0.5\n1,O.5\n")
    with pytest.raises(UserError, match=r"metrics\.csv is damaged .*O\.5"):
        read_curve(tmp_path / "metrics.csv", "val/loss")
    (tmp_path / "metrics.csv").write_text(f"step,val/loss\n0,{'5' * 200_000}\n")
    assert "field limit" in str(parse_rows((tmp_path / "metrics.csv").read_bytes())[2])
    assert read_curve(tmp_path / "metrics.csv", "val/loss") == ([], [])
    (tmp_path / "r").mkdir()
    (tmp_path / "r" / "fit.json").touch()
    (tmp_path / "plan.json").write_text("{")
    with pytest.raises(UserError, match="damaged"):
        finished_runs([tmp_path])


ROW = {"model": "M", "task": "t", "parameters": 1, "steps": 1, "loss": 1.0, "chance": 1.0}
ROW |= {"metric": "accuracy", "value": 0.5, "seconds": 1.0}


@pytest.mark.parametrize(
    ("fit", "config", "said"),
    [
        ({"loss": 10**400}, "{}", "loss is not a number"),
        ({"model": "\x1b[2JM"}, "{}", "model is not text"),
        ({"parameters": -(10**400)}, "{}", "parameters is not a number"),
        ({f"value_at_{'9' * 5000}": 1.0}, "{}", ""),  # no length of ours
        ({}, "{data: {init_args: {1: 2, a: b}}}", "config.yaml is damaged"),
    ],
    ids=["loss", "escape", "parameters", "length", "keys"],
)
def test_what_no_run_writes_is_a_sentence(
    fit: dict[str, Any], config: str, said: str, tmp_path: Path, cli: Any
) -> None:
    (tmp_path / "fit.json").write_text(json.dumps(ROW | fit))
    (tmp_path / "config.yaml").write_text(config)
    done = cli("compare", tmp_path)
    assert done.status == (2 if said else 0) and said in done.err and len(done.err.splitlines()) == bool(said), done


def test_square_brackets_are_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.chdir(tmp_path)
    row = {"model": "[red]M[/red]", "task": "[/] t", "parameters": 1, "steps": 1, "loss": 1.0, "chance": 1.0}
    for name in ("[bold]a", "b[italic]:smile:"):
        Path(name).mkdir()
        Path(name, "fit.json").write_text(json.dumps({**row, "metric": "[x]", "value": 0.5, "seconds": 1}))
        Path(name, "metrics.csv").write_text("step,val/loss\n0,1.0\n")
    assert main(["compare", "[bold]a", "b[italic]:smile:"]) == 0
    out = capsys.readouterr().out
    assert all(word in out for word in ("[bold]a", "b[italic]:smile:", "[red]M[/red]", "[/] t", "[x]"))
