"""SECURITY.md, "Checkpoints": primitives alone, every byte checked, and no path leads a command elsewhere."""

from __future__ import annotations

import itertools
import os
import pickle
import random
import subprocess
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from datamodules import UserError
from lit_rnn.commands.fit.trainer import CheckedCheckpoints
from lit_rnn.models import load, read_checkpoint

from .conftest import Watch, change_checkpoint, change_config


@pytest.fixture
def last(run: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(run.parent)
    return run / "checkpoints" / "last.ckpt"


def same(a: Any, b: Any) -> bool:
    """Equal types, keys in the same order, and tensors bit for bit."""
    if type(a) is not type(b):
        return False
    if isinstance(a, torch.Tensor):
        return a.dtype == b.dtype and a.shape == b.shape and a.numpy().tobytes() == b.numpy().tobytes()
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    return bool(a == b)


def test_one_flipped_bit_is_refused_or_loads_the_same(last: Path, tmp_path: Path) -> None:
    whole = last.read_bytes()
    honest = read_checkpoint(last)
    draw = random.Random(1)
    anywhere = [draw.randrange(8 * len(whole)) for _ in range(300)]
    directory = whole.index(b"PK\1\2")  # sizes, flags, sums and offsets of the members
    headers = [8 * draw.randrange(directory, len(whole)) + draw.randrange(8) for _ in range(300)]
    first = [8 * place + draw.randrange(8) for place in range(64)]
    damaged = tmp_path / "damaged.ckpt"
    refusals = 0
    for bit in anywhere + headers + first:
        changed = bytearray(whole)
        changed[bit // 8] ^= 1 << bit % 8
        damaged.write_bytes(changed)
        try:
            contents = read_checkpoint(damaged)
        except UserError:
            refusals += 1
        else:
            assert same(contents, honest), f"bit {bit % 8} of byte {bit // 8}"
    assert refusals > 200


def test_every_byte_of_contents_counts(last: Path, tmp_path: Path) -> None:
    whole = last.read_bytes()
    with zipfile.ZipFile(last) as archive:
        weights = archive.read("archive/data/1")
    place = whole.index(weights)
    (tmp_path / "damaged.ckpt").write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
    for read in (load, read_checkpoint):
        with pytest.raises(UserError):
            read(tmp_path / "damaged.ckpt")


@pytest.mark.parametrize("command", ["fit", "test", "predict", "validate", "analyze", "attack"])
def test_every_command_checks(command: str, last: Path, told: Callable[..., str]) -> None:
    (last.parent / "previous.ckpt").unlink(missing_ok=True)  # which would stand in, with a warning
    for file in ("last.ckpt", "best.ckpt"):
        whole = bytearray((last.parent / file).read_bytes())
        with zipfile.ZipFile(last.parent / file) as archive:
            place = bytes(whole).index(archive.read("archive/data/1"))
        whole[place] ^= 1
        (last.parent / file).write_bytes(whole)
    told(command, "--run_dir", "run", "--ckpt_path", "last")


def test_what_is_cut_short_or_no_checkpoint_is_refused(last: Path, denied: Watch, tmp_path: Path) -> None:
    whole = last.read_bytes()
    broken = tmp_path / "broken.ckpt"
    cuts = [whole[:length] for length in (0, 1, 4, 100, len(whole) // 2, len(whole) - 22, len(whole) - 1)]
    for content in [*cuts, b"\0" * 1000, b"PK\5\6" + b"\0" * 18, b"text", whole[1:], os.urandom(1000)]:
        broken.write_bytes(content)
        for read in (load, read_checkpoint):
            with denied():
                read(broken)
    for other in ([], 1, {}, {"lit_rnn": 1}, {"lit_rnn": {}}, {1: 2}, torch.zeros(2), "text", None):
        torch.save(other, broken)
        with denied():
            load(broken)
    broken.unlink()
    broken.mkdir()
    with denied():
        load(broken)
    with denied():
        load(tmp_path / "none.ckpt")


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
@pytest.mark.parametrize("member", ["archive/data.pkl", "archive/data/1", "archive/extra"])
def test_compressed_members_are_refused(method: int, member: str, last: Path, denied: Watch) -> None:
    """A few bytes could stand for gigabytes."""
    with zipfile.ZipFile(last) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    members.setdefault(member, b"0" * 1000)
    with zipfile.ZipFile(last, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content, method if name == member else zipfile.ZIP_STORED)
    for read in (load, read_checkpoint):
        with denied():
            read(last)


@pytest.mark.parametrize("hides", [False, True], ids=["alone", "before an archive"])
def test_the_format_without_sums_is_refused(hides: bool, last: Path, denied: Watch) -> None:
    """Also where an honest archive, whose sums are right, stands behind it: torch reads what comes first."""
    honest = last.read_bytes()
    torch.save(torch.load(last, weights_only=True), last, _use_new_zipfile_serialization=False)
    if hides:
        last.write_bytes(last.read_bytes() + honest)
    for read in (load, read_checkpoint):
        with denied():
            read(last)


class Reduces:
    """What unpickling calls."""

    def __init__(self, call: Callable[..., object], *arguments: object) -> None:
        self.what = call, arguments

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return self.what


HOSTILE: dict[str, Callable[[], Reduces]] = {
    "os.system": lambda: Reduces(os.system, "touch CALLED"),
    "subprocess": lambda: Reduces(subprocess.getoutput, "touch CALLED"),
    "eval": lambda: Reduces(eval, "open('CALLED', 'w')"),
    "exec": lambda: Reduces(exec, "open('CALLED', 'w')"),
    "open": lambda: Reduces(open, "CALLED", "w"),
}
PLACES: dict[str, Callable[[dict[str, Any], Any], object]] = {
    "callbacks": lambda checkpoint, value: checkpoint["callbacks"].update(Evil=value),
    "callback's state": lambda checkpoint, value: checkpoint["callbacks"]["Summary"].update(seconds=value),
    "hyper_parameters": lambda checkpoint, value: checkpoint["hyper_parameters"].update(hidden_size=value),
    "class_path": lambda checkpoint, value: checkpoint["lit_rnn"].update(class_path=value),
    "state_dict": lambda checkpoint, value: checkpoint["state_dict"].update({"decoder.bias": value}),
    "loops": lambda checkpoint, value: checkpoint["loops"].update(fit_loop=value),
}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("call", HOSTILE)
def test_pickles_that_call_are_refused(call: str, place: str, last: Path, denied: Watch) -> None:
    change_checkpoint(last, lambda checkpoint: PLACES[place](checkpoint, HOSTILE[call]()))
    for read in (load, read_checkpoint):
        with denied():
            read(last)


def test_a_bare_pickle_is_refused(last: Path, denied: Watch) -> None:
    last.write_bytes(pickle.dumps(HOSTILE["os.system"]()))
    for read in (load, read_checkpoint):
        with denied():
            read(last)


@pytest.mark.parametrize("command", ["fit", "test", "predict", "validate", "analyze", "attack"])
def test_no_command_runs_a_pickle(command: str, last: Path, told: Callable[..., str]) -> None:
    (last.parent / "previous.ckpt").unlink(missing_ok=True)  # which would stand in, with a warning
    for file in ("last.ckpt", "best.ckpt"):
        path = last.parent / file
        change_checkpoint(path, lambda checkpoint: PLACES["callbacks"](checkpoint, HOSTILE["os.system"]()))
    told(command, "--run_dir", "run", "--ckpt_path", "last")


@pytest.mark.parametrize("command", ["fit", "test", "predict", "validate"])
def test_weights_only_is_not_switched_off(
    command: str, last: Path, told: Callable[..., str], config: Callable[..., str]
) -> None:
    """As an option, in a config of your own, and in the run folder's; also where the checkpoint is honest."""
    call = (command, "--run_dir", "run", "--ckpt_path", "last")
    assert "weights_only" in told(*call, "--weights_only", "false")
    told(command, "-c", config("own.yaml", weights_only=False), "--ckpt_path", last, "--run_dir", "run")
    change_config(last.parents[1], "weights_only", value=False)
    assert "weights_only" in told(*call)


REMEMBERED = ("best_model_path", "kth_best_model_path", "last_model_path", "dirpath", "best_k_models")


def point(checkpoint: dict[str, Any], key: str, path: str) -> None:
    for name, state in checkpoint["callbacks"].items():
        if name.startswith("ModelCheckpoint"):
            state[key] = {path: torch.tensor(-1.0)} if key == "best_k_models" else path


DOTS = ("run/checkpoints/../../victim.ckpt", "../victim.ckpt", "run/..")


@pytest.mark.parametrize(("key", "path"), list(zip(REMEMBERED, itertools.cycle(DOTS), strict=False)))
def test_paths_with_dots_are_refused(key: str, path: str, last: Path, told: Callable[..., str]) -> None:
    (last.parents[2] / "victim.ckpt").write_bytes(b"not yours")
    change_checkpoint(last, lambda checkpoint: point(checkpoint, key, path))
    told("fit", "--run_dir", "run", "--ckpt_path", "last", "--trainer.max_epochs", "3")


def test_no_other_name_of_this_disk_deletes_a_folder_of_yours(last: Path, told: Callable[..., str]) -> None:
    """Lightning takes what fsspec calls another file system for its own to clear: ``local://`` is all of this one."""
    (last.parents[2] / "victim").mkdir()
    (last.parents[2] / "victim" / "yours").touch()
    victim = f"local://{last.parents[2] / 'victim'}"

    def change(checkpoint: dict[str, Any]) -> None:
        for key in REMEMBERED:
            point(checkpoint, key, victim)
        for name, state in checkpoint["callbacks"].items():
            if name.startswith("ModelCheckpoint"):
                del state["dirpath"]  # which Lightning then takes for its own
                state["kth_value"] = torch.tensor(-1.0)

    change_checkpoint(last, change)
    told("fit", "--run_dir", "run", "--ckpt_path", "last", "--trainer.max_epochs", "3")
    CheckedCheckpoints(last.parents[1]).remove_checkpoint(victim)  # if it came that far
    assert (last.parents[2] / "victim" / "yours").is_file()


def test_what_was_saved_is_removed_whatever_its_name(tmp_path: Path) -> None:
    """fsspec takes a::b for a file system of its own."""
    checkpoints, path = CheckedCheckpoints(tmp_path), tmp_path / "a::b" / "epoch=1.ckpt"
    checkpoints.save_checkpoint({}, path)
    checkpoints.remove_checkpoint(path)
    assert path.parent.is_dir() and not path.exists()


@pytest.mark.usefixtures("_no_pictures")
def test_a_remembered_path_deletes_no_file_of_yours(last: Path, cli: Callable[..., Any], tmp_path: Path) -> None:
    """ModelCheckpoint removes the file that a better one replaces: it must not be one outside the run."""
    victim = tmp_path / "victim.ckpt"
    victim.write_bytes(b"not yours")

    def change(checkpoint: dict[str, Any]) -> None:
        for key in REMEMBERED:
            point(checkpoint, key, str(victim) if key != "dirpath" else str(tmp_path / "elsewhere"))
        for name, state in checkpoint["callbacks"].items():
            if name.startswith("ModelCheckpoint"):
                state["best_model_score"] = state["current_score"] = state["kth_value"] = torch.tensor(-1.0)

    change_checkpoint(last, change)
    done = cli("fit", "--run_dir", "run", "--ckpt_path", "last", "--trainer.max_epochs", "3")
    assert done.status in (0, 2), done
    assert victim.read_bytes() == b"not yours"
    assert not (tmp_path / "elsewhere").exists()


# ---- contents of another kind


@pytest.mark.parametrize(
    ("command", "keys", "value"),
    [
        ("fit", ("state_dict", "decoder.weight"), [1]),
        ("fit", ("global_step",), None),
        ("fit", ("hyper_parameters", "task"), None),
        ("fit", ("pytorch-lightning_version",), ""),
        ("fit", ("callbacks", "LastCheckpoint", "rows"), None),
        ("fit", ("CopyMemory", "position"), -1),
        ("test", ("CopyMemory",), 0.5),
    ],
)
@pytest.mark.usefixtures("_no_pictures")
def test_what_is_of_another_kind_is_refused(
    command: str, keys: tuple[Any, ...], value: Any, last: Path, told: Callable[..., str]
) -> None:
    """As of another version, too, which may lack a part."""

    def change(checkpoint: Any) -> None:
        for key in keys[:-1]:
            checkpoint = checkpoint[key]
        checkpoint[keys[-1]] = value

    change_checkpoint(last, change)
    last.with_name("previous.ckpt").unlink()
    more = ("--trainer.max_epochs", "3") if command == "fit" else ()
    sentence = told(command, "--run_dir", "run", "--ckpt_path", "last", *more)
    assert "last.ckpt" in sentence or "The checkpoint" in sentence
