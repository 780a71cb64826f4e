"""How long a study will take: by what its finished runs took, else by trials on as many processes as it will use."""

from __future__ import annotations

import contextlib
import math
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datamodules.errors import UserError
from lit_rnn.class_paths import loaded
from lit_rnn.commands.study.local import pinned
from lit_rnn.commands.study.subject import Run, Setting, numbers, resolved
from lit_rnn.files import read_json
from lit_rnn.runs.endings import is_diverged
from lit_rnn.runs.results import read_result

_BATCHES, _VAL_BATCHES = 100, 10  # of a trial, at most; further arms share the first number
_FEWEST = 10
_LONG = 3600  # seconds: a study that is worth a trial of every arm


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
        share = interval if isinstance(interval, int | float) and interval > 0 else 1.0
        gap = share if isinstance(share, int) else max(1, int(batches * share))
        ended, rest = divmod(whole, batches)
        of_last = rest // gap if (ended + 1) % int(every or 1) == 0 else 0  # an epoch that max_steps ends inside
        checks = ended // int(every or 1) * (batches // gap) + of_last
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
        diverged: Whether it has, and with it a run's end; all of its seconds are ``fixed`` then.
    """

    fixed: float
    batch: float
    val_batch: float
    epoch: float
    diverged: bool = False

    def of(self, what: Amount) -> float:
        """Seconds of a run."""
        return self.fixed + what.batches * self.batch + what.val_batches * self.val_batch + what.epochs * self.epoch


def budget(runs: Sequence[Run]) -> str:
    """How much ``runs`` train at most, as far as their options tell before data is there: 6 runs, 24,000 updates.

    Tests are counted beside.
    """
    trainings = [run for run in runs if run.command == "fit"]
    told: dict[tuple[Any, ...], tuple[int, int]] = {}
    updates = epochs = 0
    for run in trainings:
        key = (run.setting.arm, str(_amounts(run.setting)))
        if key not in told:
            told[key] = _told(resolved(run.setting))
        updates, epochs = updates + told[key][0], epochs + told[key][1]
    parts = [f"{updates:,} updates"] if updates else []
    parts += [f"{epochs:,} epochs of data that has to be read first"] if epochs else []
    return f"{numbers(runs)}, {' and '.join(parts) or 'without an end of their own'}" if trainings else numbers(runs)


def longest(settings: Sequence[Setting]) -> Setting:
    """The one that trains most."""
    different = {str(_amounts(setting)): setting for setting in reversed(settings)}
    return max(different.values(), key=lambda one: _told(resolved(one))) if len(different) > 1 else settings[0]


def _amounts(setting: Setting) -> list[tuple[str, Any]]:
    """The values on which it depends how much a run of the arm trains."""
    return [one for one in setting.values if one[0].startswith(("trainer.", "data."))]


def _told(config: Mapping[str, Any]) -> tuple[int, int]:
    """Updates of a run, or else its epochs."""
    trainer, data = config["trainer"], config["data"]["init_args"]
    steps, epochs, samples = trainer.get("max_steps") or -1, trainer.get("max_epochs") or -1, data.get("train_samples")
    if epochs > 0 and samples:
        each = max(1, _limited(trainer.get("limit_train_batches"), samples // data["batch_size"]))
        in_all = epochs * -(-each // int(trainer.get("accumulate_grad_batches") or 1))
        return (min(in_all, steps) if steps > 0 else in_all), 0
    return (steps, 0) if steps > 0 else (0, max(0, epochs))


def estimate(
    runs: Sequence[Run],
    processes: int,
    threads: int,
    finished: Sequence[tuple[Run, float]] = (),
    tell: Callable[[int, int], None] = lambda done, of: None,
) -> tuple[float, str]:
    """Seconds that ``runs`` take if all take as long as others of their arm did, and which others, in words.

    ``finished`` holds runs and the seconds that they took. Of arms without one the first run is tried, and where that
    makes the study a long one, the first of every such arm; this also fetches their data. One that diverges is a
    result, as in the study, and all runs of its arm are taken to end as soon. ``tell`` hears how many arms have been
    tried, and of how many, before each of these.
    """
    side_by_side = min(processes, len(runs))
    sizes = _Sizes()
    rates = _rates(finished, sizes)  # by arm
    unknown = {run.setting.arm: run.setting for run in reversed(runs) if run.setting.arm not in rates}
    tried: dict[str, float] = {}
    lost: list[str] = []

    def one_of(setting: Setting, batches: int) -> float:
        timings, what = _trial(setting, side_by_side, threads, batches)
        lost.extend([setting.name] if any(timing.diverged for timing in timings) else [])
        return sum(timing.of(what) for timing in timings) / len(timings)

    if unknown:
        first = next(run.setting for run in runs if run.setting.arm in unknown)
        one = one_of(first, _BATCHES)
        tried = dict.fromkeys(unknown, one)
        if one * sum(run.setting.arm in unknown for run in runs) / side_by_side > _LONG:
            batches = max(_FEWEST, _BATCHES // len(unknown))
            for done, (arm, setting) in enumerate(unknown.items()):
                tell(done, len(unknown))
                if setting != first:
                    tried[arm] = one_of(setting, batches)
    busy = [0.0] * side_by_side
    for run in runs:  # each goes to the process that is free first
        arm = run.setting.arm
        busy[busy.index(min(busy))] += rates[arm] * sizes.of(run) if arm in rates else tried[arm]
    is_known = any(run.setting.arm in rates for run in runs)
    parts = ["those that have finished, without their start-up"] if is_known else []
    diverged = f", of which {' and '.join(lost)} diverged" if lost else ""
    return max(busy), ", and ".join([*parts, *([f"those that were tried{diverged}"] if tried else [])])


def took(runs: Iterable[Run], folder: Path) -> list[tuple[Run, float]]:
    """Those that have finished, and the seconds of each, as far as their folders tell."""
    found = []
    for run in runs:
        with contextlib.suppress(UserError):
            found.append((run, float(read_result(folder / run.name)["seconds"])))
    return found


def _rates(finished: Sequence[tuple[Run, float]], sizes: _Sizes) -> dict[str, float]:
    """Seconds by arm of what a run's size counts, over all that have finished."""
    ours: dict[str, list[tuple[float, float]]] = {}
    for run, seconds in finished:
        ours.setdefault(run.setting.arm, []).append((seconds, sizes.of(run)))
    return {arm: math.fsum(s for s, _ in some) / math.fsum(size for _, size in some) for arm, some in ours.items()}


class _Sizes:
    """How much runs train, in updates or else epochs; 1 of those without an end of their own."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, str], float] = {}

    def of(self, run: Run) -> float:
        key = run.setting.arm, str(_amounts(run.setting))
        if key not in self._known:
            self._known[key] = float(max(_told(resolved(run.setting))) or 1)
        return self._known[key]


def _trial(setting: Setting, side_by_side: int, threads: int, batches: int) -> tuple[list[Timing], Amount]:
    """What a trial of so many batches at most took, and how much a run does."""
    from datamodules import SequenceDataModule  # here: Lightning takes seconds

    config = resolved(setting)
    data = config["data"]
    cls = loaded(data["class_path"], SequenceDataModule)  # the parser has imported it
    assert cls is not None
    module: SequenceDataModule = cls(**data["init_args"])
    module.prepare_data()
    size, trainer = module.batch_size, config["trainer"]
    validation = 0 if trainer["limit_val_batches"] == 0 else -(-len(module.split("val")) // size)
    what = amount(trainer, len(module.split("train")) // size, validation)
    limits = min(what.batches, batches), min(_limited(trainer["limit_val_batches"], validation), _VAL_BATCHES)
    return trial(setting, side_by_side, threads, *limits), what


def trial(setting: Setting, processes: int, threads: int, batches: int, val_batches: int) -> list[Timing]:
    """A short run of a setting, as often side by side as the study's runs will be: they slow each other down.

    One that diverges has taken all its seconds.

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
        timings = []
        for process, words, place in zip(going, said, places, strict=True):
            if is_diverged(place):
                timings.append(Timing(seconds, 0.0, 0.0, 0.0, diverged=True))
            elif process.returncode or not (place / "clock.json").is_file():
                raise UserError(f"a trial of {setting.name} fails: {(words.strip() or 'no message').splitlines()[-1]}")
            else:
                timings.append(_timing(read_json(place / "clock.json"), seconds))
        return timings


def _timing(clock: Mapping[str, float], seconds: float) -> Timing:
    """What a trial's clock says, with the seconds of the whole process, as seconds of each part."""
    inside = clock["batches"] * clock["batch"] + clock["val_batches"] * clock["val_batch"] + clock["epoch"]
    return Timing(max(0.0, seconds - inside), clock["batch"], clock["val_batch"], clock["epoch"])
