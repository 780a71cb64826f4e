"""What lies in a run folder is whole, or what it was before: whatever a disk, a permission or a kill does meanwhile."""

from __future__ import annotations

import errno
import json
import os
import resource
import shutil
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lit_rnn.files import WriteError, whole_arrays, write_arrays, write_file
from lit_rnn.runs.curves import parse_rows, read_curve

pytestmark = pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty")


@pytest.fixture
def full_disk(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[str]]:
    """Let every write of a file of one name fail, as on a full disk; gives the names of what failed."""

    def fill(name: str, number: int = errno.ENOSPC) -> list[str]:
        failed: list[str] = []
        real = os.fsync

        def fsync(descriptor: int) -> None:
            path = os.readlink(f"/proc/self/fd/{descriptor}")
            if f"/.{name}." in path or path.endswith(f"/{name}"):
                failed.append(path)
                raise OSError(number, os.strerror(number))
            real(descriptor)

        monkeypatch.setattr(os, "fsync", fsync)
        return failed

    return fill


# ---- one file


@pytest.mark.parametrize("step", ["open", "write", "fsync", "replace"])
def test_a_file_is_whole_or_as_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    path = tmp_path / "a.json"
    write_file(path, "before")

    def fails(*_: Any, **__: Any) -> Any:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        if step in ("fsync", "replace"):
            patch.setattr(os, step, fails)
            with pytest.raises(WriteError, match=r"a\.json cannot be written \(No space left on device\)"):
                write_file(path, "after")
        elif step == "open":
            patch.setattr(Path, "open", fails)
            with pytest.raises(WriteError):
                write_file(path, "after")
        else:
            limit = resource.getrlimit(resource.RLIMIT_FSIZE)
            resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limit[1]))
            try:
                with pytest.raises(WriteError, match=r"a\.json"):
                    write_file(path, b"x" * 10_000)
            finally:
                resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert path.read_text() == "before" and [file.name for file in tmp_path.iterdir()] == ["a.json"]
    write_file(path, "after")
    assert path.read_text() == "after" and [file.name for file in tmp_path.iterdir()] == ["a.json"]


def test_it_is_on_the_disk_before_it_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []
    for name in ("fsync", "replace"):
        real = getattr(os, name)
        monkeypatch.setattr(os, name, lambda *given, real=real, name=name: (done.append(name), real(*given)))
    write_file(tmp_path / "a", "text")
    assert done == ["fsync", "replace", "fsync"], "the file, its name, the folder with the name"


def test_permissions_are_those_of_any_new_file(tmp_path: Path) -> None:
    """Not the private ones of a temporary file: a group reads each other's runs."""
    (tmp_path / "plain").write_text("x")
    write_file(tmp_path / "ours", "x")
    assert (tmp_path / "ours").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_damaged_arrays_are_set_aside(tmp_path: Path) -> None:
    path = tmp_path / "states.npz"
    write_arrays(path, {"a": np.arange(100.0)})
    assert np.array_equal(whole_arrays(path)["a"], np.arange(100.0))
    whole = path.read_bytes()
    for number, content in enumerate((b"", whole[:50], whole[:-1], b"\x80\x04no arrays")):
        path.write_bytes(content)
        with pytest.warns(UserWarning, match=r"states\.npz is damaged"):
            assert whole_arrays(path) == {}
        assert not path.exists() and len(list(tmp_path.iterdir())) == number + 1, "none replaces another"
    assert whole_arrays(path) == {}


@pytest.mark.parametrize("compressed", [False, True])
def test_objects_are_not_pickled_into_arrays(compressed: bool, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"^x: arrays of objects are not saved$"):
        write_arrays(tmp_path / "a.npz", {"y": np.ones(2), "x": np.array([print])}, compressed)
    assert not any(tmp_path.iterdir())


# ---- metrics.csv


def test_every_cut_of_metrics_reads_as_its_whole_rows(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    whole = "epoch,step,val/loss\r\n0,0,0.5\r\n,1,0.25\r\n1,22,0.125\r\n"
    for size in range(len(whole) + 1):
        path.write_text(whole[:size], newline="")
        rows = whole[:size].count("\n") - 1
        assert read_curve(path, "val/loss") == ([1, 2, 23][: max(rows, 0)], [0.5, 0.25, 0.125][: max(rows, 0)])
        assert parse_rows(path.read_bytes())[2] is None, "a kill is no damage"


@pytest.mark.parametrize("row", ["0,1", "0,1,2,3", "0,x,1", '0,"1,0.3', "\0\0\0"])
def test_a_row_that_is_not_whole_is_left_out(row: str) -> None:
    keys, rows, damage = parse_rows(f"epoch,step,val/loss\r\n0,0,0.5\r\n{row}\r\n".encode())
    assert keys == ["epoch", "step", "val/loss"] and rows == [{"epoch": "0", "step": "0", "val/loss": "0.5"}]
    assert damage == "1 of its 2 rows are not whole"


# ---- a run


def rows(folder: str) -> list[dict[str, str]]:
    return parse_rows(Path(folder, "metrics.csv").read_bytes())[1]


@pytest.fixture
def half(cli: Any, config: Any) -> Iterator[None]:
    """w ran for three epochs, h for two."""
    for name, epochs in (("w", 3), ("h", 2)):
        assert cli("fit", "-c", config(), "--run_dir", name, "--trainer.max_epochs", epochs).status == 0
    yield


def test_what_older_versions_have_torn_stops_no_resume(cli: Any, half: None) -> None:
    """Each file that they wrote in place, cut where a kill may cut it."""
    resume = ("fit", "--ckpt_path", "last", "--trainer.max_epochs", 3, "--run_dir")
    for name, size in [("pictures/states.npz", 100), ("metrics.csv", 150), ("config-2.yaml", 700), ("fit.json", 30)]:
        shutil.copytree("h", "r")
        path = Path("r", name)
        content = Path("r/config.yaml" if "config" in name else path).read_bytes()
        path.write_bytes(content[:size])
        with warnings.catch_warnings(record=True):
            warnings.simplefilter("always")
            done = cli(*resume, "r")
        assert done.status == 0 and "Traceback" not in done.err, (name, done.err)
        assert json.loads(Path("r/fit.json").read_text())["steps"] == 12
        assert [row["step"] for row in rows("r") if row["val/loss"]][-1] == "11"
        shutil.rmtree("r")


@pytest.mark.usefixtures("_no_pictures")
def test_damage_inside_metrics_keeps_the_other_rows(cli: Any, half: None) -> None:
    whole = rows("w")
    lines = Path("h/metrics.csv").read_text().splitlines()
    Path("h/metrics.csv").write_text("\n".join([*lines[:4], lines[4][:5] + lines[5], *lines[6:]]) + "\n")
    with pytest.warns(UserWarning, match=r"metrics\.csv is damaged \(1 of its 13 rows are not whole\)"):
        assert cli("fit", "--ckpt_path", "last", "--trainer.max_epochs", 3, "--run_dir", "h").status == 0
    assert rows("h") == whole[:3] + whole[5:] and Path("h/metrics.csv.damaged").is_file()


@pytest.mark.usefixtures("_no_pictures")
def test_rows_that_are_lost_are_told(cli: Any, half: None) -> None:
    """They are in no file any more; of what is behind the checkpoint nothing is there twice."""
    whole, path = rows("w"), Path("h/metrics.csv")
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join([*lines[:3], lines[-1].replace(",7,", ",8,")]))
    with pytest.warns(UserWarning, match=r"h/metrics\.csv has 3 of the 14 rows .* are lost, and the curves have a gap"):
        assert cli("fit", "--ckpt_path", "last", "--trainer.max_epochs", 3, "--run_dir", "h").status == 0
    assert rows("h") == whole[:2] + whole[14:]


@pytest.mark.usefixtures("_no_pictures")
def test_a_config_that_is_cut_between_two_sections_is_told(half: None, refused: Any) -> None:
    path = Path("h/config.yaml")
    path.write_text(path.read_text().partition("\ndata:")[0] + "\n")
    assert "config h/config.yaml has lost its end: give" in refused("test", "--ckpt_path", "best", "--run_dir", "h")


@pytest.mark.usefixtures("_no_pictures")
def test_a_link_to_nothing_is_one_sentence(cli: Any, half: None) -> None:
    Path("h/versions.json").unlink()
    Path("h/versions.json").symlink_to("nothing")
    done = cli("fit", "--ckpt_path", "last", "--trainer.max_epochs", 3, "--run_dir", "h")
    assert done.status == 1 and "lit_rnn: h/versions.json cannot be used (No such file or directory): " in done.err


@pytest.mark.usefixtures("_no_pictures")
@pytest.mark.parametrize("name", ["init.ckpt", "best.ckpt", "last.ckpt", "metrics.csv", "config.yaml", "fit.json"])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EACCES])
def test_what_cannot_be_written_is_named(cli: Any, config: Any, full_disk: Any, name: str, number: int) -> None:
    failed = full_disk(name, number)
    done = cli("fit", "-c", config(), "--run_dir", "r")
    assert failed and done.status == 1
    (line,) = done.err.splitlines()
    assert line.startswith("lit_rnn: ") and f"{name} cannot be written ({os.strerror(number)})" in line
    assert not [path for path in Path(".").rglob("*") if path.name.endswith(".partial")]


@pytest.mark.usefixtures("_no_pictures")
def test_rows_are_on_the_disk_where_a_checkpoint_counts_them(
    cli: Any, config: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And not at every row, which takes as long as a small network's step, on a cluster's storage many times that."""
    flushed, at_checkpoints, replace = [0], [], os.replace

    def fsync(descriptor: int) -> None:
        if os.readlink(f"/proc/self/fd/{descriptor}").endswith("/metrics.csv"):
            flushed.append(os.fstat(descriptor).st_size)

    def name(partial: Path, path: Path) -> None:
        if path.suffix == ".ckpt" and path.name != "init.ckpt":
            at_checkpoints.append((flushed[-1], Path("r/metrics.csv").stat().st_size))
        replace(partial, path)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "replace", name)
    assert cli("fit", "-c", config(), "--run_dir", "r", "--trainer.log_every_n_steps", 1).status == 0
    assert at_checkpoints and all(on_disk == written for on_disk, written in at_checkpoints)
    assert flushed[-1] == Path("r/metrics.csv").stat().st_size
    rows = len(Path("r/metrics.csv").read_text().splitlines())
    assert len(flushed) <= 2 + len(at_checkpoints) < rows, "not at every row"
