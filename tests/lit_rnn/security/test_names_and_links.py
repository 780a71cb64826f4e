"""SECURITY.md, "Names and paths": names are names, no link leads out of a folder, and text is text."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from datamodules import UserError
from lit_rnn.commands.study import local, plan
from lit_rnn.commands.study.subject import read_study
from lit_rnn.files import refuse_links
from lit_rnn.models import load
from tests.forked import Subprocess

BAD_NAMES = [
    *("", ".", "..", "../victim", "a/b", "/tmp/victim", "a\\b", "..\\victim", "victim/", "./victim"),
    *("a\0b", "a\nb", "\x1b[31m", "a\x7f", "a\x85b", "n" * 81, "n" * 300),
]


def write_study(folder: Path, config: Callable[..., str], **study: Any) -> Path:
    config("base.yaml")
    path = folder / "some.yaml"
    path.write_text(yaml.safe_dump({"base": str(folder / "base.yaml"), "seeds": [1], **study}))
    return path


@pytest.mark.parametrize("name", BAD_NAMES, ids=ascii)
def test_an_arm_is_named_not_placed(
    name: str, config: Callable[..., str], told: Callable[..., str], tmp_path: Path
) -> None:
    for victim in (tmp_path / "runs" / "victim", tmp_path / "victim"):
        victim.mkdir(parents=True)
        (victim / "thesis.txt").write_text("the only copy")
    study = write_study(tmp_path, config, arms={name: {"grid": {"model.init_args.hidden_size": [4]}}})
    told("study", study)
    if name == "../victim":
        told("study", study, "--dry_run")
        told("study", study, "--only", "0")


def test_a_plan_moves_no_folder_of_yours(config: Callable[..., str], tmp_path: Path) -> None:
    """One of the folders that a plan names is renamed where its run has another name now."""
    study = read_study(str(write_study(tmp_path, config, grid={"model.init_args.hidden_size": [4]})))
    folder, thesis = tmp_path / "theirs", tmp_path / "victim" / "thesis.txt"
    for place in (folder, thesis.parent):
        place.mkdir()
    thesis.write_text("the only copy")
    for name in ("../victim", str(thesis.parent), "..", "a\nb"):
        (folder / "plan.json").write_text(json.dumps({name: plan.planned(study.runs[0])}))
        with pytest.raises(UserError, match=r"plan\.json is damaged \(it names the run .*, a path\)"):
            plan.claim(study.runs, folder)
        assert thesis.is_file() and [path.name for path in folder.iterdir()] == ["plan.json"]


@pytest.mark.parametrize("name", ["n" * 80, "a b", "[red]", "été", "-", "...", "a..b"], ids=ascii)
def test_other_names_are_fine(name: str, config: Callable[..., str], cli: Callable[..., Any], tmp_path: Path) -> None:
    study = write_study(tmp_path, config, arms={name: {"grid": {"model.init_args.hidden_size": [4]}}})
    done = cli("study", study, "--dry_run")
    assert done.status == 0, done
    assert name in done.out


def test_values_are_written_into_names_harmlessly(
    config: Callable[..., str], cli: Callable[..., Any], tmp_path: Path
) -> None:
    """Each run's folder lies directly in the study's, is short, and differs from the others'."""
    values = ["../victim", "..\\victim", "a/b", "a_b", "a\x1bb", "long" * 100, "long" * 100 + "er", ".", "short"]
    study = write_study(
        tmp_path,
        config,
        base=str(tmp_path / "pixels.yaml"),
        grid={"data.init_args.root": values},
    )
    config("pixels.yaml", data={"class_path": "PixelMNIST", "init_args": {"root": "data"}})
    done = cli("study", study, "--dry_run", "--study_dir", "out")
    assert done.status == 0, done
    flat = re.sub(r"\s+", " ", done.out)
    folders = re.findall(r"--run_dir[ =]'?(?:[^ ']*/)?out/([^ ']+)", flat)
    assert len(folders) == len(set(folders)) == len(values), done.out
    for folder in folders:
        assert "/" not in folder and "\\" not in folder and folder not in (".", "..")
        assert folder.isprintable() and len(folder) <= 140
    digits = {value: hashlib.sha256(f"some-root={value}".encode()).hexdigest()[:8] for value in values}
    changed = [value for value in values if value not in ("a_b", ".", "short")]
    assert {folder[-15:] for folder in folders} >= {f"{digits[value]}-seed=1" for value in changed}
    assert {"some-root=a_b-seed=1", "some-root=.-seed=1", "some-root=short-seed=1"} <= set(folders)


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    folder = tmp_path / "outside"
    folder.mkdir()
    (folder / "file").write_text("not yours")
    return folder


FRESH = [
    *("config.yaml", "versions.json", "metrics.csv", "fit.json", "checkpoints", "checkpoints/last.ckpt"),
    *("checkpoints/init.ckpt", "checkpoints/best.ckpt", "pictures", "pictures/task.png", "notes.txt", "a/b/c"),
]


def plant(place: Path, outside: Path, kind: str) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    if place.is_dir():
        shutil.rmtree(place)
    place.unlink(missing_ok=True)
    target = {"file": outside / "file", "folder": outside, "nowhere": outside / "new"}[kind]
    place.symlink_to(
        target if kind != "file" else Path("../" * (len(place.parts) - len(outside.parts))) / "outside/file"
    )


# where a link points is looked at in one place for all names: one name of each kind of thing stands for the others
KINDS = ["folder", "nowhere"]


@pytest.mark.parametrize(
    ("name", "kind"),
    [*((name, "file") for name in FRESH), *((name, kind) for name in ("config.yaml", "checkpoints") for kind in KINDS)],
)
def test_fit_writes_through_no_link(
    name: str, kind: str, outside: Path, config: Callable[..., str], told: Callable[..., str], tmp_path: Path
) -> None:
    plant(tmp_path / "new" / name, outside, kind)
    told("fit", "-c", config(), "--run_dir", "new")


WRITTEN = {
    "fit": (
        "metrics.csv",
        "fit.json",
        "checkpoints/last.ckpt",
        "checkpoints/new.ckpt",
        "pictures",
        "config-2.yaml",
        "x",
    ),
    "test": ("test.json", "metrics.csv", "x"),
    "validate": ("validate.json", "metrics.csv", "x"),
    "predict": ("predictions.npz", "x"),
    "analyze": ("analysis", "analysis/last", "analysis/last/analysis.json", "analysis/last/analysis.html", "x"),
    "attack": ("attack", "attack/best", "attack/attack.json", "attack.json", "attack.html", "x"),
}


@pytest.mark.parametrize(
    ("command", "name", "kind"),
    [
        *((command, name, "file") for command, names in WRITTEN.items() for name in names),
        *((command, names[0], kind) for command, names in WRITTEN.items() for kind in KINDS),
    ],
)
def test_commands_write_through_no_link(
    command: str, name: str, kind: str, run: Path, outside: Path, told: Callable[..., str]
) -> None:
    checkpoint = "best" if name.startswith("checkpoints/last") else "last"
    plant(run / name, outside, kind)
    told(command, "--run_dir", "run", "--ckpt_path", checkpoint)


@pytest.mark.parametrize("command", sorted(WRITTEN))
def test_commands_write_through_no_hard_link(command: str, run: Path, outside: Path, told: Callable[..., str]) -> None:
    name = run / WRITTEN[command][0]
    place = name / "x" if name.is_dir() or not name.suffix else name
    place.parent.mkdir(parents=True, exist_ok=True)
    place.unlink(missing_ok=True)
    place.hardlink_to(outside / "file")
    assert "hard link" in told(command, "--run_dir", "run", "--ckpt_path", "last")
    assert (outside / "file").read_text() == "not yours"


@pytest.mark.parametrize("name", ["analysis.json", "analysis.html", "x", "a/x"])
def test_a_report_writes_through_no_link(
    name: str, run: Path, outside: Path, told: Callable[..., str], tmp_path: Path
) -> None:
    for command in ("analyze", "attack"):
        plant(tmp_path / "report" / name.replace("analysis", command), outside, "file")
        told(command, "--run_dir", "run", "--ckpt_path", "last", "--out", "report")


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        *((name, "file") for name in ("plan.json", "study.json", "study.csv", "study.png", "x", "RUN/config.yaml")),
        *((name, kind) for name in ("plan.json", "RUN") for kind in KINDS),
    ],
)
def test_a_study_writes_through_no_link(
    name: str,
    kind: str,
    outside: Path,
    config: Callable[..., str],
    told: Callable[..., str],
    cli: Callable[..., Any],
    tmp_path: Path,
) -> None:
    study = write_study(tmp_path, config, arms={"one": {"grid": {"model.init_args.hidden_size": [4]}}})
    flat = re.sub(r"\s+", " ", cli("study", study, "--dry_run", "--study_dir", "out").out)
    folder = re.findall(r"--run_dir[ =]'?(?:[^ ']*/)?out/([^ ']+)", flat)[0]
    plant(tmp_path / "out" / name.replace("RUN", folder), outside, kind)
    told("study", study, "--study_dir", "out")
    told("study", study, "--study_dir", "out", "--only", "0")


@pytest.mark.usefixtures("_no_pictures")
def test_the_link_that_wandb_leaves_is_fine_and_no_other(tmp_path: Path) -> None:
    """Its service's log is outside; a resume of a run with W&B must not fail on it."""
    (logs := tmp_path / "r" / "wandb" / "offline-run-20261126_035635-d7ps5jyq" / "logs").mkdir(parents=True)
    (logs / "debug-core.log").symlink_to(tmp_path / "elsewhere.log")
    refuse_links(tmp_path / "r")
    for other in (logs / "debug.log", logs.parent / "debug-core.log", tmp_path / "r" / "debug-core.log"):
        other.symlink_to(tmp_path / "elsewhere.log")
        with pytest.raises(UserError, match="is a symbolic link out of"):
            refuse_links(tmp_path / "r")
        other.unlink()


def test_links_that_stay_inside_are_fine(run: Path, cli: Callable[..., Any], tmp_path: Path) -> None:
    (run / "checkpoints" / "chosen.ckpt").symlink_to("last.ckpt")
    (run / "again.csv").symlink_to(run / "metrics.csv")
    (tmp_path / "link").symlink_to(run)
    done = cli("test", "--run_dir", "link", "--ckpt_path", "last")
    assert done.status == 0, done
    assert (run / "test.json").exists()


@pytest.mark.usefixtures("_no_pictures")
def test_the_study_of_a_linked_folder_is_fine(
    config: Callable[..., str],
    cli: Callable[..., Any],
    outside: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(local, "subprocess", Subprocess)
    study = write_study(tmp_path, config, arms={"one": {"grid": {"model.init_args.hidden_size": [4]}}})
    (tmp_path / "out").symlink_to(outside)
    (outside / "inside").symlink_to("file")
    done = cli("study", study, "--study_dir", "out", "--only", "0")
    assert done.status == 0, done
    assert (outside / "file").read_text() == "not yours"


def test_reading_follows_links(run: Path, cli: Callable[..., Any], told: Callable[..., str], tmp_path: Path) -> None:
    (tmp_path / "link.ckpt").symlink_to(run / "checkpoints" / "last.ckpt")
    assert type(load(tmp_path / "link.ckpt")).__name__ == "ExpRNN"
    done = cli("analyze", "--ckpt_path", "link.ckpt", "--out", "report", "--only", "spectrum")
    assert done.status == 0, done
    assert (tmp_path / "report" / "analysis.json").exists()
    (run / "checkpoints" / "last.ckpt").write_bytes(b"damaged")
    told("analyze", "--ckpt_path", "link.ckpt", "--out", "other")


@pytest.mark.parametrize("name", ["[red]x[/red]", "[/red]", "[link=file:///etc]y[/link]", "[bold", "[@click=x]z[/]"])
def test_brackets_are_text(name: str, run: Path, cli: Callable[..., Any], tmp_path: Path) -> None:
    folder = name.replace("/", "")  # a folder's name has no slash
    run.rename(tmp_path / folder)
    shutil.copytree(tmp_path / folder, tmp_path / "other")
    done = cli("compare", folder, "other")
    assert done.status == 0, done
    assert folder in done.out.replace("\n", ""), done.out
    done = cli("analyze", "--run_dir", folder, "--ckpt_path", "last", "--only", "spectrum")
    assert done.status == 0 and folder in re.sub(r"\s+│?", "", done.out), done


@pytest.mark.usefixtures("_no_pictures")
def test_a_slash_in_brackets_is_text(config: Callable[..., str], cli: Callable[..., Any]) -> None:
    done = cli("fit", "-c", config(), "--run_dir", "a[/red]b[red]", "--trainer.max_epochs", "1")
    assert done.status == 0 and "a[/red]b[red]" in done.out, done


def test_control_characters_are_escaped(cli: Callable[..., Any], run: Path) -> None:
    name = "a\x1b]0;title\x07\x1b[31mb\rc\x9b1m"
    for call in (
        ("compare", name),
        ("analyze", "--run_dir", name),
        ("test", "--run_dir", "run", "--ckpt_path", name),
        ("fit", "-c", name),
        ("fit", "--model", name),
        ("analyze", "--run_dir", "run", "--trust", name),
        ("study", name),
        (name,),
        ("fit", f"--{name}", "1"),
    ):
        done = cli(*call)
        assert done.status == 2, done
        assert done.err.endswith("\n") and done.err[:-1].isprintable(), done


# ---- what is no file


@contextlib.contextmanager
def at_once() -> Iterator[None]:
    """Raise in what waits for a pipe."""
    before = signal.signal(signal.SIGALRM, lambda *_: pytest.fail("it waits for ever"))
    signal.alarm(30)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize("name", ["config.yaml", "fit.json", "some.pipe"])
def test_nobody_waits_for_a_pipe(name: str, run: Path, told: Callable[..., str]) -> None:
    (run / name).unlink(missing_ok=True)
    os.mkfifo(run / name)
    with at_once():
        assert name in told("fit", "--run_dir", run, "--resume", "auto")
        if name == "config.yaml":
            assert name in told("compare", run)
            assert name in told("test", "--run_dir", run, "--ckpt_path", "last")


def test_a_folder_in_the_place_of_a_file_is_a_sentence(run: Path, cli: Callable[..., Any]) -> None:
    (run / "fit.json").unlink()
    (run / "fit.json").mkdir()
    done = cli("fit", "--run_dir", run, "--resume", "auto", "--trainer.max_epochs", "3")
    assert done.status == 1 and re.search(r"^lit_rnn: .*fit\.json cannot be used \(Is a directory\): ", done.err, re.M)


def test_a_file_in_the_place_of_a_folder_leaves_no_lock(run: Path, told: Callable[..., str]) -> None:
    shutil.rmtree(run / "checkpoints")
    (run / "checkpoints").touch()
    assert "checkpoints is not a folder" in told("fit", "--run_dir", run, "--resume", "auto")
