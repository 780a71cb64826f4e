"""Two processes with batches of B train as one with batches of 2 B, every model; their weights stay the same."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from pytorch_lightning import Callback, Trainer
from pytorch_lightning.strategies import DDPStrategy

from datamodules import Adding, CopyMemory, PixelDigits, SequenceDataModule
from datamodules.streams import Series, StreamDataModule
from lit_rnn import models

COMPARED = 12  # steps, which take every hook behind a step
LONG = 200
OPTIONS: dict[str, dict[str, Any]] = {
    "DtrivRNN": {"rebase_every": 3, "project_every": 2},
    "NRU": {"memory_size": 16, "heads": 4},
    "StatisticalRU": {"statistics_size": 4, "summary_size": 3},
}
NAMES = [name for name in models.__all__ if name[0].isupper() and name not in ("SequenceModel", "OrthogonalRNN")]
CASES = [(name, "generated") for name in NAMES]
CASES += [(name, "reused") for name in ("DtrivRNN", "FullURNN", "LSTM")]
CASES += [("ScoRNN", "map-style"), ("GRU", "streams"), ("HouseholderRNN", "values")]


def steps_of(case: tuple[str, str]) -> int:
    return LONG if case in (("DtrivRNN", "generated"), ("FullURNN", "reused")) else COMPARED


class Digits(StreamDataModule):
    """The decimals of 1/7 and more: a series that is easily written down."""

    def __init__(self, **options: Any) -> None:
        super().__init__(tbptt=4, **options)
        self.task = replace(CopyMemory(delay=2).task, targets="next_symbol", target_size=10, scored="all", length=None)

    def series(self, name: str) -> Series:
        return Series.of_symbols(torch.arange(6401) * 7 % 11 % 10)


def data_of(kind: str, batch_size: int) -> SequenceDataModule:
    made: dict[str, Any] = {"batch_size": batch_size, "seed": 4}
    if kind == "map-style":
        return PixelDigits(**made)
    if kind == "streams":
        return Digits(**made)
    samples = {"train_samples": 160, "val_samples": 8, "test_samples": 8}
    if kind == "values":
        return Adding(length=5, **samples, **made)
    return CopyMemory(delay=2, reuse=kind == "reused", **samples, **made)


class Losses(Callback):
    def __init__(self) -> None:
        self.losses: list[float] = []

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        self.losses.append(float(outputs["loss"]))


def trained(name: str, kind: str, processes: int, steps: int) -> dict[str, Any]:
    """Losses and weights of ``steps`` steps of 8 sequences."""
    torch.manual_seed(0)
    data = data_of(kind, 8 // processes)
    model = getattr(models, name)(data.task, 4, **OPTIONS.get(name, {}))
    losses = Losses()
    Trainer(
        accelerator="cpu",
        devices=processes,
        strategy=DDPStrategy() if processes > 1 else "auto",
        precision="64-true",
        max_steps=steps,
        max_epochs=-1,
        limit_val_batches=0,
        callbacks=[losses],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    ).fit(model, data)
    return {"losses": losses.losses, "state": model.weights_in(model.state_dict())}


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[dict[Any, Any]]]:
    """What each of two forked processes got, of all cases."""
    folder = tmp_path_factory.mktemp("ranks")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    processes = []
    for rank in (0, 1):
        process = os.fork()
        if process == 0:
            _be_rank(rank, port, folder)
        processes.append(process)
    statuses = [os.waitpid(process, 0)[1] for process in processes]
    assert statuses == [0, 0], (folder / "err0").read_text() + (folder / "err1").read_text()
    yield [torch.load(folder / f"rank{rank}.pt", weights_only=True) for rank in (0, 1)]


def _be_rank(rank: int, port: int, folder: Path) -> None:
    status = 1
    try:
        os.dup2(os.open(folder / f"err{rank}", os.O_WRONLY | os.O_CREAT, 0o644), 2)
        sys.stderr = os.fdopen(2, "w")
        os.environ |= {"LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "NODE_RANK": "0"}
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        torch.save(
            {case: trained(*case, processes=2, steps=steps_of(case)) for case in CASES}, folder / f"rank{rank}.pt"
        )
        status = 0
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(status)


@pytest.mark.parametrize("case", CASES, ids="-".join)
def test_two_are_one(case: tuple[str, str], two: list[dict[Any, Any]], tmp_path: Path, monkeypatch: Any) -> None:
    first, second = (rank[case] for rank in two)
    assert len(first["losses"]) == len(second["losses"]) == steps_of(case)
    assert first["state"].keys() == second["state"].keys()
    assert all(torch.equal(first["state"][key], second["state"][key]) for key in first["state"])
    assert first["losses"] != second["losses"]  # their samples are not

    monkeypatch.chdir(tmp_path)
    one = trained(*case, processes=1, steps=COMPARED)
    mean = [(a + b) / 2 for a, b in zip(first["losses"], second["losses"], strict=True)]
    torch.testing.assert_close(mean[:COMPARED], one["losses"], rtol=1e-9, atol=0)
