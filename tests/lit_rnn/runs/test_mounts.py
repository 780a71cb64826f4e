"""Full and read-only file systems, in mounts of a process of its own (`mounts`); skipped where it may have none."""

from __future__ import annotations

import contextlib
import io
import os
import warnings
from pathlib import Path
from typing import Any

import pytest

from lit_rnn.__main__ import main
from lit_rnn.files import WriteError, make_folder
from lit_rnn.runs.metrics import MetricsCSV
from tests.lit_rnn.runs import full_disk, mounts


@pytest.fixture(autouse=True)
def _mounts() -> None:
    if (reason := mounts.refused()) is not None:
        pytest.skip(f"nothing may be mounted here: {reason}")


def test_a_full_disk_while_logging_and_while_saving(tmp_path: Path) -> None:
    """With 12 free pages metrics.csv is the first that has no room, with 17 it is last.ckpt."""
    assert mounts.forked(lambda: os._exit(full_disk.sweep("every step", [12, 17], tmp_path))) == 0


def test_a_new_column_on_a_full_disk(tmp_path: Path) -> None:
    """What failed is tried anew at the end of the run: no row may come to lie below the columns of before."""

    def work() -> None:
        mounts.leave_the_host()
        mounts.mount_memory(tmp_path, 64 << 10)
        logger = MetricsCSV(tmp_path)
        logger.log_metrics({"a": 1.0}, 0)
        logger.save()
        before = (tmp_path / "metrics.csv").read_bytes()
        with contextlib.suppress(OSError), (tmp_path / "ballast").open("wb", buffering=0) as ballast:
            while ballast.write(bytes(4096)):
                pass
        logger.log_metrics({"b": 2.0}, 1)
        for _ in range(2):
            with pytest.raises(WriteError, match=r"metrics\.csv cannot be written"):
                logger.save()
            assert (tmp_path / "metrics.csv").read_bytes() == before
        (tmp_path / "ballast").unlink()
        logger.save()
        assert (tmp_path / "metrics.csv").read_text().split() == ["a,b,step", "1.0,,0", ",2.0,1"]

    assert mounts.forked(work) == 0


def test_no_folder_on_a_full_disk(tmp_path: Path) -> None:
    """A status that says "later", not "never"."""

    def work() -> None:
        mounts.leave_the_host()
        mounts.mount_memory(tmp_path, 4096, files=1)
        with pytest.raises(WriteError, match=r"a/b cannot be written \(No space left"):
            make_folder(tmp_path / "a" / "b", "--out")

    assert mounts.forked(work) == 0


READ_ONLY = {
    "compare r": "--picture . may not be written",
    "compare r --picture /dev/shm/x.png --html page": "--html page cannot be made: . may not be written",
    "compare r --picture /dev/shm/x.png --csv r/a.csv": "--csv r may not be written",
    "study s.yaml": "--study_dir runs/s cannot be made: . may not be written",
    "study s.yaml --study_dir r --only 0": "--study_dir r may not be written",
    "study s.yaml --export slurm": "--study_dir runs/s cannot be made: . may not be written",
    "analyze --run_dir r": "--out r/analysis/last cannot be made: r may not be written",
    "analyze --run_dir r --out there": "--out there may not be written",
    "attack --run_dir r": "--out r/attack cannot be made: r may not be written",
    "attack --run_dir r --out there": "--out there may not be written",
    "attack --study .": "--study: the report r/attack cannot be made: r may not be written",
    "predict --run_dir r --ckpt_path last": "run_dir r may not be written",
    "test --run_dir r --ckpt_path last": "run_dir r may not be written",
    "validate --run_dir new -c tiny.yaml --ckpt_path r/checkpoints/last.ckpt": "run_dir new cannot be made",
    "fit -c tiny.yaml": "cannot be made: . may not be written",
    "fit -c tiny.yaml --run_dir r --resume auto": "run_dir r may not be written",
}


@pytest.mark.usefixtures("_no_pictures")
def test_a_read_only_folder_is_a_sentence(cli: Any, config: Any, tmp_path: Path) -> None:
    """Root too is refused, whom permissions do not stop; nothing is worked out before."""
    assert cli("fit", "-c", config(), "--run_dir", "r").status == 0
    Path("s.yaml").write_text("base: tiny.yaml\nseeds: [1]\n")
    Path("there").mkdir()

    def work() -> None:
        mounts.leave_the_host()
        mounts.make_read_only(tmp_path)
        os.chdir(tmp_path)  # through the new mount
        for line, said in READ_ONLY.items():
            out, err = io.StringIO(), io.StringIO()
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), warnings.catch_warnings():
                warnings.simplefilter("error")
                status = main(line.split())
            told = err.getvalue().replace(f"{tmp_path}/", "").replace(str(tmp_path), ".")
            assert (status, out.getvalue()) == (2, "") and told.count("\n") == 1, (line, status, told, out.getvalue())
            assert told.startswith("lit_rnn: ") and said in told, (line, told)

    assert mounts.forked(work) == 0
