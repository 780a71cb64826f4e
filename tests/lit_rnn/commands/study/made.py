"""What the tests of studies share: a small config, the command in this process, and runs as if they had ended."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lit_rnn.commands.fit.trial import try_out
from lit_rnn.commands.study import command
from lit_rnn.commands.study.subject import Run, Study, read_study
from lit_rnn.runs.checkpoints import last_checkpoint
from lit_rnn.runs.endings import DivergedError, note_divergence

BASE: dict[str, dict[str, Any]] = {
    "model": {
        "class_path": "VanillaRNN",
        "init_args": {"hidden_size": 6, "optimizer": {"class_path": "RMSprop", "init_args": {"lr": 0.01}}},
    },
    "data": {
        "class_path": "CopyMemory",
        "init_args": {"delay": 3, "symbols": 2, "batch_size": 4, "train_samples": 16, "val_samples": 8},
    },
    "trainer": {"max_epochs": 2, "accelerator": "cpu", "log_every_n_steps": 1, "val_check_interval": 4},
}
LR = "model.init_args.optimizer.init_args.lr"
FOLDER = Path("runs/study")
Write = Callable[..., str]  # the keys of study.yaml to its name
Planned = Callable[..., Study]  # the same, read


def run_study(*options: str, tried: bool = True) -> None:
    """The command; ``tried``, with a trial of every value first, which takes longest."""
    command.run("study", options, try_out if tried else lambda arguments, here: ({}, 0))


def by_rates(study: Write, **keys: Any) -> Study:
    """Two arms of two rates and two seeds; the best rate of each gets a third seed and a test."""
    arms: dict[str, Any] = {"a": {}, "b": {}}
    return read_study(study(grid={LR: [0.1, 0.01]}, seeds=[1, 2], best={"seeds": [3], "test": True}, arms=arms, **keys))


def finish(run: Run, loss: float = 0.5) -> None:
    """As if a run had been done, with the validation losses 5 and ``loss``."""
    place = FOLDER / run.name
    place.mkdir(parents=True, exist_ok=True)
    numbers = {"model": "VanillaRNN", "task": "copy", "metric": "accuracy", "parameters": 1, "steps": 2, "chance": 1.0}
    numbers |= {"loss": loss, "value": 0.5 if run.command == "fit" else 0.25, "seconds": 1.0}
    (place / f"{run.command}.json").write_text(json.dumps(numbers))
    if run.command == "fit":
        (place / "metrics.csv").write_text(f"step,val/loss\n0,5.0\n1,{loss}\n")


def begin(run: Run) -> None:
    """As if a run had been stopped."""
    last_checkpoint(FOLDER / run.name).parent.mkdir(parents=True)
    last_checkpoint(FOLDER / run.name).touch()


def diverge(run: Run) -> None:
    """As if a run's loss had become NaN."""
    (FOLDER / run.name).mkdir(parents=True, exist_ok=True)
    note_divergence(FOLDER / run.name, DivergedError("The loss is nan at step 3."))
