"""Speech that is not there, or not what it says, on the command line: one sentence, and nothing written."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def test_timit_that_is_not_there(refused: Any) -> None:
    line = refused("fit", "-c", "timit/exprnn_224.yaml", "--data.root", "nowhere", "--run_dir", "r")
    assert "TIMIT is not in nowhere: set data.init_args.root to the folder of its disc" in line


def test_a_recording_that_is_none(refused: Any, tmp_path: Path) -> None:
    """The cache's folder is there before: what is kept in it is not the run's."""
    path = tmp_path / "disc/TEST/DR1/MDAB0/SX37.WAV"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"NIST_1A\n   1024\nsample_coding -s27 pcm,embedded-shorten-v2.00\nend_head\n".ljust(1024))
    (tmp_path / "disc/TRAIN").mkdir()
    (tmp_path / "features").mkdir()
    (tmp_path / "features/.lock").touch()
    options = ("--data.root", "disc", "--data.verify", "false", "--data.cache", "features", "--run_dir", "r")
    line = refused("fit", "-c", "timit/exprnn_224.yaml", *options)
    assert "disc/TEST/DR1/MDAB0/SX37.WAV is coded as pcm,embedded-shorten-v2.00: plain pcm is accepted" in line
