"""Data that is lost under a running job: files cut short, and processes that prepare batches killed."""

from __future__ import annotations

import errno
import importlib
import multiprocessing
import os
import re
import shutil
import signal
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest
import torch

from datamodules import TIMIT, CopyMemory, PixelCIFAR10, PixelMNIST, SequenceFiles, TextCorpus, UserError, loader
from datamodules.loader import _begin_worker
from lit_rnn.models import ExpRNN
from lit_rnn.runs.ranks import lost_worker
from tests.lit_rnn.conftest import tree
from tests.lit_rnn.runs import kills

RANDOM = np.random.default_rng(0)


# ---- files cut short


def table(suffix: str) -> Callable[[Path], SequenceFiles]:
    """12 sequences of 3 steps."""

    def make(folder: Path) -> SequenceFiles:
        path = folder / f"own{suffix}"
        columns = {"sequence": np.repeat(np.arange(12), 3), "x": RANDOM.normal(size=36)}
        columns["target"] = columns["sequence"] % 2
        if suffix == ".csv":
            rows = zip(*columns.values(), strict=True)
            path.write_text("\n".join([",".join(columns), *(",".join(map(str, row)) for row in rows)]))
        else:
            pa = pytest.importorskip("pyarrow")
            importlib.import_module("pyarrow.parquet").write_table(pa.table(columns), path)
        return SequenceFiles(str(path), batch_size=2)

    return make


def arrays(folder: Path) -> SequenceFiles:
    np.save(folder / "x.npy", RANDOM.normal(size=(12, 50)))
    np.save(folder / "y.npy", np.arange(12) % 2)
    return SequenceFiles(str(folder), batch_size=2)


def archive(folder: Path) -> SequenceFiles:
    np.savez(folder / "own.npz", x=RANDOM.normal(size=(12, 50)), y=np.arange(12) % 2)
    return SequenceFiles(str(folder / "own.npz"), batch_size=2)


def text(folder: Path) -> TextCorpus:
    (folder / "own.txt").write_text("round and about, " * 40)
    return TextCorpus(str(folder / "own.txt"), tbptt=5, batch_size=2)


def mnist(folder: Path) -> PixelMNIST:
    raw = folder / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for split in ("train", "t10k"):
        (raw / f"{split}-images-idx3-ubyte").write_bytes(struct.pack(">4i", 2051, 12, 28, 28) + RANDOM.bytes(784 * 12))
        labels = RANDOM.integers(10, size=12).astype(np.uint8).tobytes()
        (raw / f"{split}-labels-idx1-ubyte").write_bytes(struct.pack(">2i", 2049, 12) + labels)
    return PixelMNIST(root=str(folder), val_size=2, verify=False, batch_size=2)


def cifar(folder: Path) -> PixelCIFAR10:
    (folder / "cifar-10-batches-bin").mkdir()
    for name in (*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"):
        (folder / "cifar-10-batches-bin" / f"{name}.bin").write_bytes((b"\3" + RANDOM.bytes(3072)) * 3)
    return PixelCIFAR10(root=str(folder), val_size=3, batch_size=2)


def timit(folder: Path) -> TIMIT:
    for part, speaker in (("TRAIN", "FCJF0"), ("TEST", "FAKS0"), ("TEST", "MDAB0")):
        for sentence in ("SI648", "SX37", "SX38", "SX39"):
            path = folder / "disc" / part / "DR1" / speaker / f"{sentence}.WAV"
            path.parent.mkdir(parents=True, exist_ok=True)
            head = b"NIST_1A\n   1024\nchannel_count -i 1\nsample_count -i 3000\nsample_rate -i 16000\n"
            head += b"sample_n_bytes -i 2\nsample_byte_format -s2 01\nend_head\n"
            path.write_bytes(head.ljust(1024) + RANDOM.integers(-9000, 9000, 3000).astype("<i2").tobytes())
    return TIMIT(str(folder / "disc"), verify=False, cache=str(folder / "cache"), batch_size=2)


MADE: dict[str, Callable[[Path], Any]] = {
    **{".csv": table(".csv"), ".parquet": table(".parquet"), ".npy": arrays, ".npz": archive},
    **{"text": text, "MNIST": mnist, "CIFAR": cifar, "SPHERE": timit},
}


@pytest.mark.parametrize("kind", MADE)
def test_files_are_read_whole_before_the_first_step(kind: str, tmp_path: Path) -> None:
    """None is mapped into memory: whatever becomes of it later, neither a batch nor the process is any the worse."""
    data = MADE[kind](tmp_path)
    whole, cut = data.loader("train"), data.loader("train")
    expected, found = list(whole), iter(cut)
    batches = [next(found)]
    read = data.examples(2)
    for path in tmp_path.rglob("*"):
        if path.is_file():
            os.truncate(path, path.stat().st_size // 2)
    batches += found
    assert len(batches) == len(expected) >= 2
    for one, other in zip([*batches, read, data.examples(2)], [*expected, data.examples(2), read], strict=True):
        for part, twin in zip(one, other, strict=True):
            assert (part is None) == (twin is None) and (part is None or torch.equal(part, twin))


def test_a_resume_waits_for_the_whole_file(
    cli: Any, refused: Any, config: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, _no_pictures: None
) -> None:
    """Cut short while the run trains, which goes on; stopped, it says which file, and is none the worse."""
    MADE[".npz"](tmp_path)
    shutil.copy("own.npz", "whole.npz")
    data = {"class_path": "SequenceFiles", "init_args": {"path": "own.npz", "batch_size": 2}}
    model = {"class_path": "ExpRNN", "init_args": {"hidden_size": 6}}
    line = ("fit", "-c", config(model=model, data=data, trainer={"max_epochs": 4}), "--resume", "auto", "--run_dir")
    assert cli(*line, "w").status == 0
    hook = ExpRNN.on_train_batch_start

    def cut_and_stop(self: ExpRNN, *given: Any) -> None:
        if self.optimizer_steps == 2:
            os.truncate("own.npz", 700)
        if self.optimizer_steps == 6:
            os.kill(os.getpid(), signal.SIGTERM)
        hook(self, *given)

    with monkeypatch.context() as patch:
        patch.setattr(ExpRNN, "on_train_batch_start", cut_and_stop)
        done = cli(*line, "r")
    assert done.status == 128 + signal.SIGTERM and "after step 7; go on" in done.err, done
    kept = tree(tmp_path / "r")
    assert "own.npz cannot be read" in refused(*line, "r") and tree(tmp_path / "r") == kept
    shutil.copy("whole.npz", "own.npz")
    assert cli(*line, "r").status == 0
    assert not kills.differences(kills.kept(Path("w")), kills.kept(Path("r")))


# ---- processes that prepare batches


@pytest.mark.usefixtures("_no_pictures")
def test_a_killed_worker_is_one_sentence(cli: Any, config: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever line the main process was at; what the run had saved is there to go on from."""
    make, main, last = CopyMemory.make, os.getpid(), Path("r/checkpoints/last.ckpt")

    def die(self: CopyMemory, words: Any) -> Any:
        if os.getpid() != main and last.exists():
            os.kill(os.getpid(), signal.SIGKILL)
        return make(self, words)

    monkeypatch.setattr(CopyMemory, "make", die)
    data = {"init_args": {"num_workers": 1, "train_samples": 8}}
    done = cli("fit", "-c", config(data=data, trainer={"limit_val_batches": 0}), "--run_dir", "r")
    assert done.status == 1 and torch.load(last, weights_only=True)["global_step"] == 1, done
    how = "(was killed by SIGKILL, as it is where memory runs out|has ended unexpectedly)"  # as torch comes to see it
    assert re.fullmatch(
        rf"lit_rnn: A process that prepares batches \(data.init_args.num_workers\) {how}; "
        r"go on with: python -m lit_rnn fit --run_dir r --ckpt_path last",
        done.err.splitlines()[-1],
    )


@pytest.mark.parametrize(
    ("torch_says", "we"),
    [
        ("(pid 7) is killed by signal: Bus error. It is possible", "was killed by SIGBUS, as it is where /dev/shm"),
        ("(pid(s) 7) exited unexpectedly", "has ended unexpectedly; "),
    ],
)
def test_other_ends_of_workers(torch_says: str, we: str) -> None:
    assert f"(data.init_args.num_workers) {we}" in str(lost_worker(RuntimeError(f"DataLoader worker {torch_says}")))
    assert lost_worker(RuntimeError("DataLoader is not iterable")) is None


@pytest.mark.filterwarnings("ignore:.*_MultiProcessingDataLoaderIter.__del__")  # torch ends half of its iterator
def test_workers_that_cannot_all_be_started_are_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    """And the others end: the main process would wait for them where it ends, as they take no other signal."""
    start, started = multiprocessing.Process.start, list[multiprocessing.Process]()

    def few(self: multiprocessing.Process) -> None:
        if started:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        start(self)
        started.append(self)

    monkeypatch.setattr(multiprocessing.Process, "start", few)
    data = CopyMemory(delay=3, batch_size=8, train_samples=16, num_workers=2)
    with pytest.raises(UserError, match=r"num_workers is 2, but not all .* can be started \(Too many open files\)"):
        next(iter(data.train_dataloader()))
    started[0].join(20)
    assert started[0].exitcode == -signal.SIGKILL


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # of torch's half-made iterator
def test_no_worker_stays_where_a_start_is_interrupted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Python would wait for it in the end, and torch has not noted yet how to tell it."""

    def interrupted(self: object, *args: object, **kwargs: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("torch.utils.data.dataloader._MultiProcessingDataLoaderIter._reset", interrupted)
    before = multiprocessing.active_children()
    data = CopyMemory(delay=3, batch_size=8, train_samples=16, num_workers=1)
    with pytest.raises(KeyboardInterrupt):
        next(iter(data.train_dataloader()))
    assert multiprocessing.active_children() == before


def test_a_worker_ends_where_it_cannot_hand_over_a_batch(monkeypatch: pytest.MonkeyPatch, capfd: Any) -> None:
    """As where /dev/shm is full; the batch would be waited for."""
    main = os.getpid()

    def full(self: Any) -> NoReturn:
        raise RuntimeError("unable to allocate shared memory(shm)")

    def begin(worker: int) -> None:
        _begin_worker(worker)
        monkeypatch.setattr(torch.UntypedStorage, "_share_fd_cpu_" if os.getpid() != main else "none", full)

    monkeypatch.setattr(loader, "_begin_worker", begin)
    data = CopyMemory(delay=3, batch_size=8, train_samples=16, num_workers=1)
    with pytest.raises(RuntimeError, match="exited unexpectedly") as caught:
        next(iter(data.train_dataloader()))
    assert lost_worker(caught.value) is not None
    assert "warning: A batch cannot be handed to the main process: unable" in capfd.readouterr().err
