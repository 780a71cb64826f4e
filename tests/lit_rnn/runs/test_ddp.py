"""Two processes on the CPU (gloo): they share weights and bases, not samples, and go on where they stopped."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from lit_rnn.threads import cores
from tests.forked import DDP, OURS, ROOT, forked, forked_ranks

RECORDER = '''
"""What each rank saw and ended with."""
import torch
from pytorch_lightning import Callback


class Recorder(Callback):
    def __init__(self, folder: str) -> None:
        self.folder, self.seen = folder, []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.seen.append(batch[0].clone())

    def on_train_end(self, trainer, pl_module):
        kept = {"seen": self.seen, "state": pl_module.state_dict(), "steps": pl_module.optimizer_steps}
        kept["threads"] = torch.get_num_threads()
        kept["optimizer"] = trainer.optimizers[0].state_dict()["state"]
        torch.save(kept, f"{self.folder}/rank{trainer.global_rank}.pt")
'''


def started(folder: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    """The command line from nothing; ranks that wait for each other are ended."""
    # a clean slate: pytest's own process may have run the command line before
    env = {key: value for key, value in os.environ.items() if not key.startswith((*OURS, "OMP_NUM_THREADS"))}
    env["PYTHONPATH"] = os.pathsep.join([str(folder), str(ROOT)])
    call = ["timeout", "300", sys.executable, "-m", "lit_rnn", *map(str, arguments)]
    return subprocess.run(call, cwd=folder, env=env, capture_output=True, text=True)


def ranks(folder: Path) -> list[dict[str, Any]]:
    return [torch.load(folder / f"rank{rank}.pt", weights_only=True) for rank in (0, 1)]


def same(a: dict[str, Any], b: dict[str, Any]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def test_two_ranks(tmp_path: Path, write_tiny: Any) -> None:
    """One test, for its first run takes seconds: two epochs of four steps, on two ranks of eight sequences."""
    (tmp_path / "ddp_recorder.py").write_text(RECORDER)
    options: dict[str, Any] = {"hidden_size": 8, "rebase_every": 3, "project_every": 2}
    options["optimizer"] = {"class_path": "Adam", "init_args": {"lr": 0.01}}
    changes = {"threads": None, "data": {"init_args": {"train_samples": 64, "val_samples": 7}}}
    for name in ("whole", "half"):
        (tmp_path / name).mkdir()
        recorder = {"class_path": "ddp_recorder.Recorder", "init_args": {"folder": str(tmp_path / name)}}
        model = {"class_path": "DtrivRNN", "init_args": options}
        write_tiny(tmp_path / f"{name}.yaml", {"model": model, "trainer": {"callbacks": [recorder]}}, changes)

    # it trains, in one folder that the command chose, and speaks with one voice
    done = started(tmp_path, "fit", "-c", "whole.yaml", *DDP)
    assert done.returncode == 0 and done.stderr == "", done.stderr
    (run,) = (tmp_path / "runs").iterdir()
    assert run.name == "copymemory-dtrivrnn-1"
    assert {path.name for path in run.iterdir()} >= {
        "config.yaml",
        "metrics.csv",
        "fit.json",
        "checkpoints",
        "pictures",
    }
    for once in ("DtrivRNN with", "chance level", "epoch 1 ", "epoch 2 "):
        assert done.stdout.count(once) == 1, f"{once!r} is printed {done.stdout.count(once)} times"
    for noise in ("GLOBAL_RANK", "distributed_backend", "-----", "Initializing distributed"):
        assert noise not in done.stdout

    # weights and bases are those of both
    first, second = whole = ranks(tmp_path / "whole")
    assert first["steps"] == second["steps"] == 8 and "cells.0.recurrent.base" in first["state"]
    assert same(first["state"], second["state"])
    base = first["state"]["cells.0.recurrent.base"].double()
    assert (base.mT @ base - torch.eye(8).double()).abs().max() < 1e-5

    # each has its share of the machine's threads, as none are asked for
    assert [rank["threads"] for rank in whole] == [max(1, cores() // 2)] * 2

    # samples are not
    seen = [{tuple(row.tolist()) for batch in rank["seen"] for row in batch[:, :10]} for rank in whole]
    assert [len(rows) for rows in seen] == [64, 64] and not seen[0] & seen[1]

    # stopped inside the second epoch, behind a rebase, and taken up again
    half = ("fit", "-c", "half.yaml")
    done = forked_ranks(tmp_path, *half, "--run_dir", "r", "--trainer.max_steps", 6)
    assert done.returncode == 0, done.stderr
    again = ("--run_dir", "r", "--ckpt_path", "last")  # by -c, for a run folder's config may not name our own class
    done = forked_ranks(tmp_path, *half, *again, "--trainer.max_steps", -1)
    assert done.returncode == 0, done.stderr
    for uninterrupted, resumed in zip(whole, ranks(tmp_path / "half"), strict=True):
        assert len(resumed["seen"]) == 2
        assert all(torch.equal(a, b) for a, b in zip(uninterrupted["seen"][6:], resumed["seen"], strict=True))
        assert same(uninterrupted["state"], resumed["state"])
        for number, state in uninterrupted["optimizer"].items():
            assert same(state, resumed["optimizer"][number])

    # seven validation sequences, each counted once, as one process counts them
    one_process = ("--trainer.devices", 1, "--trainer.strategy", "auto")
    done = forked(tmp_path, "validate", "-c", "whole.yaml", "--ckpt_path", "last", "--run_dir", run, *one_process)
    assert done.returncode == 0, done.stderr
    both, one = (json.loads((run / name).read_text()) for name in ("fit.json", "validate.json"))
    assert both["loss"] == pytest.approx(one["loss"], rel=1e-5)
    assert both["value"] == pytest.approx(one["value"], abs=1e-6)


POISONED = '''
"""One rank's third batch has a sample that is no number."""
import os
import torch
from datamodules import Adding


class Poisoned(Adding):
    def __init__(self, rank: int, **kwargs):
        super().__init__(**kwargs)
        self.rank, self.batches = rank, 0

    def make(self, words):
        inputs, targets = super().make(words)
        self.batches += len(words) == self.batch_size
        with open(f"threads{os.environ.get('LOCAL_RANK', 0)}", "w") as file:
            file.write(str(torch.get_num_threads()))
        if self.batches == 3 and int(os.environ.get("LOCAL_RANK", 0)) == self.rank:
            inputs[5, 2, 0] = float("nan")
        return inputs, targets
'''


@pytest.mark.parametrize("rank", [0, 1])
def test_a_bad_sample_of_one_rank_ends_both(rank: int, tmp_path: Path, write_tiny: Any) -> None:
    (tmp_path / "poisoned.py").write_text(POISONED)
    options = {"rank": rank, "length": 9, "batch_size": 8, "train_samples": 64, "val_samples": 4}
    data = {"class_path": "poisoned.Poisoned", "init_args": options}
    write_tiny(tmp_path / "c.yaml", {"data": data})
    done = forked(tmp_path, "fit", "-c", "c.yaml", *DDP, "--run_dir", "r", "--threads", 3)
    assert done.returncode == 2, done
    (sentence,) = done.stderr.splitlines()
    assert sentence.startswith("lit_rnn: Poisoned gives, in batch 2 of the training split, nan in the inputs of sample")
    assert not (tmp_path / "r").exists()
    # the rank had the threads it was given; seen here, for a start takes seconds. The other may end before it says
    assert (tmp_path / f"threads{rank}").read_text() == "3"


def test_bad_input_is_told_once(tmp_path: Path, write_tiny: Any) -> None:
    write_tiny(tmp_path / "c.yaml", {})
    done = forked(tmp_path, "fit", "-c", "c.yaml", *DDP, "--data.batch_size", 33, "--run_dir", "bad")
    assert done.returncode == 2
    assert done.stderr.count("lit_rnn: ") == 1 and "batch_size" in done.stderr, done.stderr
    assert "Traceback" not in done.stderr
