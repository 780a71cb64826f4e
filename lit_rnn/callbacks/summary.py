"""The table at the end of a run, and the same numbers as a file."""

from __future__ import annotations

import time
from pathlib import Path

from pytorch_lightning import Callback, LightningModule, Trainer

from datamodules import Task
from datamodules.base import data_of
from lit_rnn.callbacks.recorded import fingerprint
from lit_rnn.files import read_json, write_json
from lit_rnn.loggers import show
from lit_rnn.models import SequenceModel
from lit_rnn.models.base import count_parameters
from lit_rnn.models.objectives import at_length, metric_words
from lit_rnn.report.console import new_console
from lit_rnn.report.tables import Table
from lit_rnn.runs.endings import DivergedError, diverged, note_divergence
from lit_rnn.runs.folder import keeps_files
from lit_rnn.runs.results import as_kept, is_finished


def _at_other_lengths(trainer: Trainer, split: str, task: Task) -> dict[str, dict[str, float | None]]:
    """Value, loss and chance at the other lengths that the data names, by how a person calls each."""
    data = data_of(trainer)
    if data is None:
        return {}
    found: dict[str, dict[str, float | None]] = {}
    for length, there in data.other_tasks().items():
        numbers: dict[str, float | None] = {}
        for key, name in (("value", task.metric), ("loss", "loss")):
            value = trainer.callback_metrics.get(f"{split}/{at_length(name, length)}")
            numbers[at_length(key, length)] = None if value is None else float(value)
        found[f"at {getattr(data, 'length_option', 'length')} {length:,}"] = {
            **numbers,
            at_length("chance", length): there.chance,
        }
    return found


def _in_words(value: float | None, loss: float | None, chance: float | None) -> str:
    if value is None or loss is None:
        return "not validated"
    return f"{value:.4f} (loss {loss:.4g}, chance {chance:.4g})"


def _ended_early(trainer: Trainer) -> str | None:
    """What a callback ended training for."""
    reasons = [callback.stopping_reason_message for callback in trainer.early_stopping_callbacks]
    return next((why.removesuffix(" Signaling Trainer to stop.") for why in reasons if why), None)


class Summary(Callback):
    """Prints loss, chance, headline metric, seconds and the run folder; keeps them as ``<stage>.json``.

    ``fit.json`` is what marks a run folder as finished; where a callback ended training, it says why.
    ``test.json`` says of which file, and after how many steps of training, which is null before training has ended.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._start, self._trained, self._before = time.monotonic(), False, 0.0
        self._command = str(getattr(stage, "value", stage))  # Lightning hands over an enum that prints as its name

    @property
    def seconds(self) -> float:
        """Of this command so far; see above."""
        return self._before + time.monotonic() - self._start

    def state_dict(self) -> dict[str, float]:
        """Seconds so far, so that a resumed fit counts them all."""
        return {"seconds": self.seconds}

    def load_state_dict(self, state_dict: dict[str, float]) -> None:
        if self._command == "fit":  # a test reads a checkpoint too, but did not train it
            self._before = float(state_dict["seconds"])

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._trained = True
        if trainer.is_global_zero and keeps_files(trainer):
            for ending in (self.folder / "fit.json", diverged(self.folder)):  # that it goes on from
                ending.unlink(missing_ok=True)
        for callback in trainer.early_stopping_callbacks:
            callback.stopping_reason_message = None  # of that end, too

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        if isinstance(exception, DivergedError) and self._command == "fit" and keeps_files(trainer):
            note_divergence(self.folder, exception)  # on every rank: which of them saw it first is not known

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        metrics = trainer.callback_metrics  # on every rank: reading it may synchronise
        if not trainer.is_global_zero or stage == "predict" or not isinstance(pl_module, SequenceModel):
            return
        if self._command == "fit" and not self._trained:
            limits = "trainer.max_epochs, max_steps or max_time, which counts what was trained before,"
            print(f"Nothing left to train in {self.folder}: raise {limits} to go on.")
            return
        split = "test" if stage == "test" else "val"
        task = pl_module.task
        loss, metric = metrics.get(f"{split}/loss"), metrics.get(f"{split}/{task.metric}")
        result = {
            "model": type(pl_module).__name__,
            "task": task.name,
            "parameters": count_parameters(pl_module),
            "steps": pl_module.optimizer_steps,
            "split": split,
            "loss": None if loss is None else float(loss),
            "chance": task.chance,
            "metric": task.metric,
            "higher_is_better": task.higher_is_better,
            "value": None if metric is None else float(metric),
            "seconds": round(self.seconds, 1),
        }
        others = _at_other_lengths(trainer, split, task)
        result |= {key: value for numbers in others.values() for key, value in numbers.items()}
        if others:
            result["trained_at"] = getattr(data_of(trainer), "own_length", None)
        if (why := _ended_early(trainer)) is not None and self._command == "fit":
            result["ended_early"] = why
        if self._command == "test":  # behind which training may go on
            ended = is_finished(self.folder)
            result["trained_steps"] = read_json(self.folder / "fit.json").get("steps") if ended else None
            result["checkpoint"] = Path(trainer.ckpt_path).name if trainer.ckpt_path else None
            result |= fingerprint(trainer)
        rows = {
            "parameters": f"{result['parameters']:,}",
            "optimizer steps": f"{result['steps']:,}",
            **({"ended early": result["ended_early"]} if "ended_early" in result else {}),
            f"{split} loss": "not validated" if loss is None else f"{float(loss):.4g}",
            "chance level": f"{task.chance:.4g}",
            metric_words(task): "not validated" if metric is None else f"{float(metric):.4f}",
            **{f"  {where}": _in_words(*numbers.values()) for where, numbers in others.items()},
            "seconds": f"{result['seconds']:.1f}",
            "run folder": str(self.folder) if keeps_files(trainer) else "none (fast_dev_run)",
        }
        table = Table(["", ""], list(rows.items()), texts=2, title=f"{result['model']} on {task.name}")
        new_console().print(table.terminal())
        if not keeps_files(trainer):
            return
        write_json(self.folder / f"{self._command}.json", as_kept(result))
        show.result(trainer, {f"{self._command}/{key}": value for key, value in result.items()})
