"""Two processes with batches of B train as one with 2 B, every model and every task; their weights stay the same."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from pytorch_lightning import Callback, Trainer
from pytorch_lightning.strategies import DDPStrategy
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from datamodules import Adding, CopyMemory, PixelDigits, SequenceDataModule, SequenceFiles
from datamodules.base import GeneratedDataModule, Split
from datamodules.batch import Batch, Parts
from datamodules.streams import Series, StreamDataModule, Streams
from lit_rnn import models
from tests import tasks
from tests.forked import ROOT, backward_cannot_fork
from tests.trainers import quiet_trainer

STEPS = 6  # which take every hook behind a step
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
UNEQUAL = ["lengths", "bucketed", "masks", "masked streams", "accumulated"]  # one process has more that counts
CASES += [("GRU", kind) for kind in UNEQUAL] + [("DtrivRNN", "bucketed")]
MEASURED = [*UNEQUAL, *tasks.CASES]
CASES += [(model, kind) for kind, (_, _, model, _) in tasks.CASES.items()]


class Digits(StreamDataModule):
    """A series that is easily written down."""

    def __init__(self, **options: Any) -> None:
        super().__init__(tbptt=4, **options)
        self.task = replace(CopyMemory(delay=2).task, targets="next_symbol", target_size=10, scored="all", length=None)

    def series(self, name: str) -> Series:
        return Series.of_symbols(torch.arange(6401) * 7 % 11 % 10)


class SomeDigits(Digits):
    """Of which only 3, 5 and 8 are to be foretold."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.task = replace(self.task, scored="mask")

    def split(self, name: Split) -> Streams:
        whole = super().split(name)
        return Marked(whole.series, whole.chunk, whole.streams, whole.even)


class Marked(Streams):
    def read_by(self, rows: int) -> Streams:
        return self if rows == self.streams else Marked(self.series, self.chunk, rows, self.even)

    def __getitem__(self, indices: NDArray[np.int64]) -> Parts:
        parts = super().__getitem__(indices)
        marked = torch.isin(parts.targets, torch.tensor([3, 5, 8]))
        return parts._replace(mask=marked if parts.mask is None else marked & parts.mask)


class Scattered(GeneratedDataModule):
    """Few sequences have steps that count, so that some batches of a process have none."""

    words_per_sample = 6

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.task = replace(CopyMemory(delay=2).task, length=6, scored="mask", recall=None)

    def make(self, words: NDArray[np.uint64]) -> Batch:
        symbols = torch.from_numpy((words % np.uint64(7)).astype(np.int64))
        return symbols, (symbols + symbols.roll(1, 1)) % 9, (symbols < 4) & (symbols[:, :1] < 2)


def of_lengths(bucket: bool, made: dict[str, Any]) -> SequenceFiles:
    draw = np.random.default_rng(3)
    x = [draw.integers(0, 4, length) for length in draw.integers(1, 10, 72)]
    x[0] = np.arange(4)
    y = [np.cumsum(one) % 4 for one in x]
    splits = np.array(["train"] * 48 + ["val"] * 12 + ["test"] * 12)
    named: dict[str, Any] = {"inputs": "symbols", "targets": "label_per_step", "metric": "f1"}
    return SequenceFiles.from_arrays(x, y, splits=splits, bucket_by_length=bucket, **named, **made)


def data_of(kind: str, processes: int) -> SequenceDataModule:
    if kind in tasks.CASES:
        return tasks.data_of(kind, processes)
    made: dict[str, Any] = {"batch_size": 8 // processes, "seed": 4}
    if kind == "map-style":
        return PixelDigits(**made)
    if kind == "streams":
        return Digits(**made)
    if kind == "masked streams":
        return SomeDigits(**made)
    if kind in ("lengths", "bucketed", "accumulated"):
        return of_lengths(kind == "bucketed", made)
    samples = {"train_samples": 48, "val_samples": 8, "test_samples": 8}
    if kind == "masks":
        return Scattered(**samples, **made)
    if kind == "values":
        return Adding(length=5, **samples, **made)
    return CopyMemory(delay=2, symbols=3, reuse=kind == "reused", **samples, **made)


class Losses(Callback):
    """What each process goes back through, and what is shown, which is of all of them at every third step."""

    def __init__(self) -> None:
        self.losses: list[float] = []
        self.shown: list[float] = []

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        self.losses.append(float(outputs["loss"]))
        if len(self.losses) % 3 == 0:
            self.shown.append(float(trainer.callback_metrics["train/loss_step"]))


def trained(name: str, kind: str, processes: int) -> dict[str, Any]:
    """Losses, metrics and weights of an epoch or what comes of it in 6 batches."""
    torch.manual_seed(0)
    data = data_of(kind, processes)
    _, _, _, laid_out = tasks.CASES.get(kind, (None, None, name, OPTIONS.get(name, {})))
    model = getattr(models, name)(data.task, 4, **laid_out)
    losses = Losses()
    accumulated = 2 if kind == "accumulated" else 1
    trainer = quiet_trainer(
        devices=processes,
        strategy=DDPStrategy() if processes > 1 else "auto",
        precision="64-true",
        max_steps=STEPS // accumulated,
        max_epochs=-1,
        accumulate_grad_batches=accumulated,
        limit_train_batches=STEPS,
        limit_val_batches=1.0 if kind in MEASURED else 0,
        num_sanity_val_steps=0,
        log_every_n_steps=1 if accumulated > 1 else 3,
        callbacks=[losses],
    )
    trainer.fit(model, data)
    metrics = {key: float(value) for key, value in trainer.callback_metrics.items() if key != "train/loss_step"}
    state = model.weights_in(model.state_dict())
    return {"losses": losses.losses, "shown": losses.shown, "metrics": metrics, "state": state}


class All(nn.Module):
    """Every model at once, in turns on generated sequences and on stored ones, each with its own optimizer."""

    def __init__(self) -> None:
        super().__init__()
        task = CopyMemory(delay=1, symbols=1, alphabet=2).task
        self.models = nn.ModuleDict({name: getattr(models, name)(task, 4, **OPTIONS.get(name, {})) for name in NAMES})

    def forward(self, inputs: Tensor, targets: Tensor) -> Tensor:
        total = torch.zeros(())
        for model in self.models.values():
            penalty: Tensor | None = model.penalty()
            total = total + model.loss_of(model(inputs), targets) + (0 if penalty is None else penalty)
        return total


def long_trained(rank: int) -> dict[str, Tensor]:
    """The weights of `All` after 200 steps of two processes of two sequences each."""
    torch.manual_seed(0)
    made: dict[str, Any] = {"batch_size": 2, "seed": 5}
    samples = {"train_samples": 2 * LONG, "val_samples": 8, "test_samples": 8}
    generated = CopyMemory(delay=1, symbols=1, alphabet=2, **samples, **made)
    x = np.random.default_rng(1).integers(0, 4, (500, 3))
    named: dict[str, Any] = {"inputs": "symbols", "targets": "label_per_step"}
    stored = SequenceFiles.from_arrays(x, x.cumsum(1) % 3, val_share=0.1, test_share=0.1, **named, **made)
    every = All()
    optimizers = [model.configure_optimizers() for model in every.models.values()]
    parallel = DistributedDataParallel(every)
    loaders = generated.loader("train", rank, 2), stored.loader("train", rank, 2)
    for both in zip(*loaders, strict=True):
        for inputs, targets in (batch[:2] for batch in both):
            parallel(inputs, targets).backward()
            for optimizer in optimizers:
                optimizer.step()
                optimizer.zero_grad()
    assert {model.optimizer_steps for model in every.models.values()} == {LONG}
    return every.state_dict()


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[dict[Any, Any]]]:
    """What each of two forked processes got, of all cases."""
    folder = tmp_path_factory.mktemp("ranks")
    data_of(CASES[-1][1], 1)  # MNIST-1D takes a second to make: not in each of them
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    processes, anew = [], backward_cannot_fork()
    for rank in (0, 1):
        process = os.fork()
        if process == 0 and anew:
            imports = f"from pathlib import Path; from {__name__} import _be_rank"
            call = f"{imports}; _be_rank({rank}, {port}, Path({str(folder)!r}))"
            os.execve(sys.executable, [sys.executable, "-c", call], {**os.environ, "PYTHONPATH": str(ROOT)})
        if process == 0:
            _be_rank(rank, port, folder)
        processes.append(process)
    statuses = [os.waitpid(process, 0)[1] for process in processes]
    assert statuses == [0, 0], (folder / "err0").read_text() + (folder / "err1").read_text()
    yield [torch.load(folder / f"rank{rank}.pt", weights_only=True) for rank in (0, 1)]


def _be_rank(rank: int, port: int, folder: Path) -> None:
    status = 1
    try:
        torch.set_num_threads(1)  # in a fork also what `mend_threads` is for
        os.dup2(os.open(folder / f"err{rank}", os.O_WRONLY | os.O_CREAT, 0o644), 2)
        sys.stderr = os.fdopen(2, "w")
        os.environ |= {"LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "NODE_RANK": "0"}
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        found: dict[Any, Any] = {case: trained(*case, processes=2) for case in CASES}
        torch.save(found | {"long": long_trained(rank)}, folder / f"rank{rank}.pt")
        status = 0
    except BaseException:  # a fork must not go on as its parent
        import traceback

        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(status)


@pytest.mark.parametrize("case", CASES, ids="-".join)
def test_two_are_one(case: tuple[str, str], two: list[dict[Any, Any]], tmp_path: Path, monkeypatch: Any) -> None:
    first, second = (rank[case] for rank in two)
    assert len(first["losses"]) == len(second["losses"]) == STEPS
    assert first["state"].keys() == second["state"].keys()
    assert all(torch.equal(first["state"][key], second["state"][key]) for key in first["state"])
    assert first["losses"] != second["losses"]  # their samples are not

    monkeypatch.chdir(tmp_path)
    one = trained(*case, processes=1)
    mean = [(a + b) / 2 for a, b in zip(first["losses"], second["losses"], strict=True)]
    torch.testing.assert_close(mean, one["losses"], rtol=1e-9, atol=0)
    torch.testing.assert_close(first["state"], one["state"], rtol=1e-6, atol=1e-9)
    assert first["shown"] == second["shown"], "what is shown is of both"
    torch.testing.assert_close(first["shown"], one["shown"], rtol=1e-9, atol=0)
    assert first["metrics"] == second["metrics"]
    torch.testing.assert_close(first["metrics"], one["metrics"], rtol=1e-6, atol=0)
    assert case[1] not in MEASURED or {"train/loss", "val/loss"} < one["metrics"].keys()
    assert case[1] != "masks" or 0.0 in first["losses"] + second["losses"], "a batch in which nothing counts"


@pytest.mark.parametrize("name", NAMES)
def test_weights_are_the_same_to_the_last_bit_after_200_steps(name: str, two: list[dict[Any, Any]]) -> None:
    first, second = ({k: v for k, v in rank["long"].items() if k.startswith(f"models.{name}.")} for rank in two)
    assert first and first.keys() == second.keys()
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert all(bool(value.isfinite().all()) for value in first.values() if value.is_floating_point())
