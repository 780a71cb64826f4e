"""A run that one number of processes began is ended by another, through the command line."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.forked import forked_ranks

NUMBERED = '''
"""Sequences that begin with their own index, and a callback that keeps those it was given."""
import torch
from datamodules import Adding
from datamodules.base import Generated
from pytorch_lightning import Callback


class Numbered(Adding):
    def split(self, name):
        return Indexed(self, name)


class Indexed(Generated):
    def __getitem__(self, indices):
        inputs, targets = super().__getitem__(indices)
        inputs[:, 0, 0] = torch.from_numpy(indices)
        return inputs, targets


class Keep(Callback):
    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        with open("seen", "a") as file:
            for index in batch[0][:, 0, 0].tolist():
                file.write(f"{trainer.current_epoch} {trainer.global_step} {int(index)}\\n")
'''


def seen(folder: Path) -> list[tuple[int, int, int]]:
    return [tuple(map(int, line.split())) for line in (folder / "seen").read_text().splitlines()]  # type: ignore[misc]


@pytest.fixture
def numbered(tmp_path: Path, write_tiny: Any, monkeypatch: pytest.MonkeyPatch, _no_pictures: None) -> str:
    """A config: 64 sequences, 8 a batch and process, shuffled."""
    (tmp_path / "numbered.py").write_text(NUMBERED)
    monkeypatch.syspath_prepend(tmp_path)
    options = {"length": 5, "batch_size": 8, "train_samples": 64, "val_samples": 8, "reuse": True}
    data = {"class_path": "numbered.Numbered", "init_args": options}
    trainer = {"callbacks": [{"class_path": "numbered.Keep"}]}
    model = {"class_path": "DtrivRNN", "init_args": {"hidden_size": 4, "rebase_every": 3}}
    return str(write_tiny(tmp_path / "c.yaml", {"model": model, "data": data, "trainer": trainer}))


@pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty")
def test_one_then_two_then_one(numbered: str, cli: Any, tmp_path: Path) -> None:
    """All in the second epoch, which has 8 batches of one process, or 4 of two."""
    line = ("fit", "-c", numbered, "--run_dir", "r")
    assert cli(*line, "--trainer.max_steps", 11).status == 0

    # 24 of 64 are done: first what is left of two processes' second batch, four for each
    done = forked_ranks(tmp_path, *line, "--ckpt_path", "last", "--trainer.max_steps", 13)
    assert done.returncode == 0, done.stderr
    words = "all together take 16 sequences a batch (were 8), and an epoch has 4 batches (had 8)"
    assert f"resumed on 2 processes (was 1): {words}; learning rates stay as they are" in done.stdout

    last = cli(*line, "--ckpt_path", "last", "--trainer.max_steps", -1)
    assert last.status == 0, last.err
    assert "resumed on 1 process (was 2): all together take 8 sequences a batch (were 16)" in last.out

    rows = seen(tmp_path)
    for epoch in (0, 1):
        assert Counter(i for at, _, i in rows if at == epoch) == Counter(range(64)), epoch
    sizes = Counter(step for _, step, _ in rows)
    assert sizes == {**dict.fromkeys(range(1, 12), 8), 12: 8, 13: 16, 14: 8, 15: 8}
    assert json.loads((tmp_path / "r" / "fit.json").read_text())["steps"] == 15


@pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty")
def test_what_cannot_be_exact_is_refused(numbered: str, cli: Any, refused: Any) -> None:
    """Another batch size is what another number of processes is: other batches of all."""
    line = ("fit", "-c", numbered, "--run_dir", "r")
    two = ("--trainer.accumulate_grad_batches", 2)
    assert cli(*line, *two, "--trainer.max_steps", 5).status == 0  # two batches into the second epoch
    again = (*line, "--ckpt_path", "last", "--trainer.max_steps", -1)
    sentence = refused(*again, "--data.batch_size", 16, *two, leaves=True)
    assert "between two batches of one optimizer step" in sentence
    sentence = refused(*again, "--data.batch_size", 16, "--trainer.limit_train_batches", 3, leaves=True)
    assert "trainer.limit_train_batches is 3" in sentence
    done = cli(*again, "--data.batch_size", 16)  # without accumulation it can go on
    assert done.status == 0 and "(were 8)" in done.out, done.err
