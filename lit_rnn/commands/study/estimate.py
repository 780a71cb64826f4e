"""How long a study will take: one trial on as many processes as the study will use, and what follows from it."""

from __future__ import annotations

import math
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datamodules.errors import UserError
from lit_rnn.class_paths import loaded
from lit_rnn.commands.study.local import pinned
from lit_rnn.commands.study.subject import Run, Setting, resolved
from lit_rnn.files import read_json

_BATCHES, _VAL_BATCHES = 100, 10  # of a trial, at most


@dataclass(frozen=True)
class Amount:
    """What one run does: training batches, validation batches, and epochs."""

    batches: int
    val_batches: int
    epochs: int


def amount(trainer: Mapping[str, Any], batches: int, val_batches: int) -> Amount:
    """What a run with these options of the Trainer does, with so many batches in the data's splits."""
    batches = max(1, _limited(trainer.get("limit_train_batches"), batches))
    each = _limited(trainer.get("limit_val_batches"), val_batches)
    steps = int(trainer.get("max_steps") or -1) * int(trainer.get("accumulate_grad_batches") or 1)
    epochs = trainer.get("max_epochs")
    in_all = math.inf if epochs in (None, -1) else int(epochs) * batches
    whole = int(min(in_all, steps if steps > 0 else math.inf, 1000 * batches))  # 1000 epochs: Lightning's own limit
    interval, every = trainer.get("val_check_interval"), trainer.get("check_val_every_n_epoch")
    if isinstance(interval, int) and not isinstance(interval, bool) and every is None:
        checks = whole // interval  # over the borders of epochs
    else:
        inside = 1
        if isinstance(interval, int | float) and interval > 0:
            inside = batches // interval if isinstance(interval, int) else batches // max(1, int(batches * interval))
        checks = whole // batches // int(every or 1) * inside
    return Amount(whole, checks * each, math.ceil(whole / batches))


def _limited(limit: Any, total: int) -> int:
    """Batches that Lightning's limit leaves: a whole number of them, or a share; None leaves all."""
    if limit is None:
        return total
    return min(total, limit) if isinstance(limit, int) else int(total * limit)


@dataclass(frozen=True)
class Timing:
    """Seconds of a trial.

    Args:
        fixed: From start to end without the rest: imports, data, pictures.
        batch: Of a training batch.
        val_batch: Of a validation batch.
        epoch: What the end of an epoch takes beside validation: checkpoints, what is watched.
    """

    fixed: float
    batch: float
    val_batch: float
    epoch: float

    def of(self, what: Amount) -> float:
        """Seconds of a run."""
        return self.fixed + what.batches * self.batch + what.val_batches * self.val_batch + what.epochs * self.epoch


def estimate(runs: Sequence[Run], processes: int, threads: int) -> float:
    """Seconds that ``runs`` take if each takes as long as the first; also fetches its data, once for all."""
    from datamodules import SequenceDataModule  # here: Lightning takes seconds

    setting = runs[0].setting
    config = resolved(setting)
    data = config["data"]
    cls = loaded(data["class_path"], SequenceDataModule)  # the parser has imported it
    assert cls is not None
    module: SequenceDataModule = cls(**data["init_args"])
    module.prepare_data()
    size, trainer = module.batch_size, config["trainer"]
    validation = 0 if trainer["limit_val_batches"] == 0 else -(-len(module.split("val")) // size)
    what = amount(trainer, len(module.split("train")) // size, validation)
    side_by_side = min(processes, len(runs))
    limits = min(what.batches, _BATCHES), min(_limited(trainer["limit_val_batches"], validation), _VAL_BATCHES)
    timings = trial(setting, side_by_side, threads, *limits)
    one = sum(timing.of(what) for timing in timings) / len(timings)
    return one * math.ceil(len(runs) / side_by_side)


def trial(setting: Setting, processes: int, threads: int, batches: int, val_batches: int) -> list[Timing]:
    """A short run of a setting, as often side by side as the study's runs will be: they slow each other down.

    Raises:
        UserError: with the last line of what it said, if it fails.
    """
    options = [*setting.arguments(), "--threads", str(threads), "--trainer.max_epochs", "1"]
    options += ["--trainer.max_steps", "-1", "--trainer.limit_train_batches", str(batches)]
    options += ["--trainer.limit_val_batches", str(val_batches)]
    options += ["--trainer.val_check_interval", "1.0", "--trainer.check_val_every_n_epoch", "1"]
    options += ["--trainer.callbacks+", "lit_rnn.callbacks.Clock"]
    with tempfile.TemporaryDirectory() as folder:
        places = [Path(folder, str(number)) for number in range(processes)]
        began = time.monotonic()
        going = [
            subprocess.Popen(
                [sys.executable, "-m", "lit_rnn", "fit", *options, "--run_dir", str(place)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
                env=pinned(threads),
            )
            for place in places
        ]
        try:
            said = [process.communicate()[1] for process in going]
        except BaseException:  # whatever it is, no trial stays behind
            for process in going:
                process.kill()
                process.wait()
            raise
        seconds = time.monotonic() - began
        for process, words, place in zip(going, said, places, strict=True):
            if process.returncode or not (place / "clock.json").is_file():
                raise UserError(f"a trial of {setting.name} fails: {(words.strip() or 'no message').splitlines()[-1]}")
        return [_timing(read_json(place / "clock.json"), seconds) for place in places]


def _timing(clock: Mapping[str, float], seconds: float) -> Timing:
    """What a trial's clock says, with the seconds of the whole process, as seconds of each part."""
    inside = clock["batches"] * clock["batch"] + clock["val_batches"] * clock["val_batch"] + clock["epoch"]
    return Timing(max(0.0, seconds - inside), clock["batch"], clock["val_batch"], clock["epoch"])
