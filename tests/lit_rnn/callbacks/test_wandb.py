"""The W&B overlay, offline: everything reaches the run."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest


def pieces(content: bytes) -> Iterator[bytes]:
    """The records of a .wandb file: LevelDB's log format behind a header of 7 bytes, in blocks of 32 KiB."""
    assert content[:4] == b":W&B"
    at, whole = 7, b""
    while at + 7 <= len(content):
        if 32768 - at % 32768 < 7:  # no room for a header: padding
            at += 32768 - at % 32768
            continue
        _, size, kind = struct.unpack_from("<IHB", content, at)
        whole += content[at + 7 : at + 7 + size]
        at += 7 + size
        if kind in (1, 4):  # a whole one, or the last part
            yield whole
            whole = b""


def read(folder: Path) -> list[Any]:
    """All that wandb wrote down, in order."""
    from wandb.proto.wandb_internal_pb2 import Record

    (file,) = folder.rglob("*.wandb")
    return [Record.FromString(piece) for piece in pieces(file.read_bytes())]


def items(updates: Any) -> dict[str, Any]:
    return {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in updates}


def test_everything_reaches_the_run(tmp_path: Path, write_tiny: Any) -> None:
    write_tiny(tmp_path / "c.yaml", {})
    env = {key: value for key, value in os.environ.items() if not key.startswith(("WANDB", "PL_", "LIT_RNN"))}
    env |= {"WANDB_MODE": "offline", "OMP_NUM_THREADS": "1"}
    call = [
        sys.executable,
        "-m",
        "lit_rnn",
        "fit",
        "-c",
        "c.yaml",
        "-c",
        "configs/loggers/wandb.yaml",
        "--run_dir",
        "r",
    ]
    done = subprocess.run(call, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stderr == "" and "wandb" not in done.stdout.lower(), "its banners"
    assert {path.name for path in tmp_path.iterdir()} == {"c.yaml", "r"}, "outside the run folder"
    run = tmp_path / "r"
    assert (run / "metrics.csv").is_file(), "the file is there as well"

    records = read(run)
    kinds: dict[str, list[Any]] = {}
    for record in records:
        kind = record.WhichOneof("record_type")
        kinds.setdefault(kind, []).append(getattr(record, kind))

    config = items(kinds["run"][0].config.update)
    for change in kinds.get("config", []):
        config |= items(change.update)
    text = json.dumps(config)
    for word in ("hidden_size", "ExpRNN", "CopyMemory", "delay", "seed_everything", "max_epochs"):
        assert word in text, word
    assert "Namespace" not in text

    rows = [items(row.item) for row in kinds["history"]]
    assert [row["trainer/global_step"] for row in rows if "train/loss_step" in row] == list(range(8))
    for name in ("val/loss", "val/accuracy", "train/loss", "recurrent/drift"):
        assert sum(name in row for row in rows) == 2, name

    assert any(key.startswith("pictures/task") for row in rows for key in row)
    images = list((run / "wandb").glob("*/files/media/images/pictures/task*.png"))
    assert images and images[0].read_bytes() == (run / "pictures" / "task.png").read_bytes()

    summary: dict[str, Any] = {}
    for change in kinds["summary"]:
        summary |= items(change.update)
    result = json.loads((run / "fit.json").read_text())
    for key in ("loss", "value", "chance", "steps", "parameters"):
        assert summary[f"fit/{key}"] == pytest.approx(result[key])
    assert [end.exit_code for end in kinds["exit"]] == [0]
