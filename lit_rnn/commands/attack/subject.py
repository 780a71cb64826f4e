"""What is attacked: the model of a checkpoint, on examples of its data."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from datamodules import SequenceDataModule, Task, UserError
from datamodules.batch import Batch, Parts
from datamodules.errors import require
from lit_rnn.class_paths import class_path
from lit_rnn.models import SequenceModel, load, read_checkpoint
from lit_rnn.robustness import Examples, off_by
from lit_rnn.robustness.attacks import check_bounds
from lit_rnn.robustness.objective import Wrong
from lit_rnn.runs.checkpoints import find_checkpoint, folder_of
from lit_rnn.runs.data import check_data, read_data

_SAMPLES = 200


@dataclass(frozen=True)
class Subject:
    """A model, the examples it is attacked on, and where both are from.

    Args:
        examples: What the attacks see.
        model: The model in evaluation mode.
        data: The data module.
        checkpoint: The file.
        folder: Its run folder, if it lies in one.
        split: Which split the examples are of.
        indices: Their numbers in it.
        symbols: How symbols are attacked (``swaps`` or ``embedding``); None for values.
        measured_bounds: Whether the bounds were read off the examples.
    """

    examples: Examples
    model: SequenceModel
    data: SequenceDataModule
    checkpoint: Path
    folder: Path | None
    split: str
    indices: np.ndarray
    symbols: str | None
    measured_bounds: bool

    @property
    def task(self) -> Task:
        return self.model.task

    @property
    def title(self) -> str:
        return f"{type(self.model).__name__} on {self.task.name}"


def read_subject(options: argparse.Namespace, given: dict[str, Any]) -> Subject:
    """What the options of the command line name; ``given`` are those of the data.

    Raises:
        UserError: for whatever does not fit together.
    """
    checkpoint = find_checkpoint(options.ckpt_path, options.run_dir, "best")
    model = load(checkpoint)
    folder = folder_of(checkpoint)
    data = read_data(checkpoint, options.config, options.data, given, options.seed)
    check_data(data, read_checkpoint(checkpoint), checkpoint)
    symbols = symbols_mode(data.task, options.symbols, options.attacks)
    wrong = criterion(data.task, options.tolerance)
    device = torch.device(options.device or ("cuda" if torch.cuda.is_available() else "cpu"))
    model.eval().requires_grad_(False).to(device)
    batch, indices = draw(data, options.split, options.samples, options.seed)
    parts = Parts.of(batch).to(device)
    x, y = parts.filled(), parts.targets
    mask, real = data.changeable(Parts.of(batch).filled()).to(device), parts.real()
    if real is not None:  # padding is held still
        mask = mask & (real if mask.dim() == 2 else real[..., None])
    if not mask.any():
        raise UserError(
            f"{data.task.name} has nothing to attack: no input of it can change while its right answer stays the same."
        )
    if symbols == "embedding":
        x = model.one_hot(x)
        mask = mask[..., None].expand_as(x)
    bounds, measured = None, False
    if symbols is None:
        bounds, measured = (tuple(options.bounds), False) if options.bounds else (data.bounds, data.bounds is None)
        bounds = bounds or (float(x[mask].min()), float(x[mask].max()))
        check_bounds(x[mask], bounds, "--bounds")  # of all examples, before a folder is made
    elif options.bounds:
        raise UserError("--bounds is given, but inputs are symbols, which have none: leave it out.")
    examples = Examples(
        model,
        x,
        y,
        mask,
        bounds,
        scored(data.task, parts),
        wrong,
        data.task.input_size if symbols == "swaps" else 0,
        options.batch_size,
        parts.lengths,
    )
    return Subject(examples, model, data, checkpoint, folder, options.split, indices, symbols, measured)


def symbols_mode(task: Task, mode: str | None, attacks: list[str] | None) -> str | None:
    """How symbols are attacked; None for values."""
    if task.inputs == "values":
        if mode:
            raise UserError(f"--symbols is {mode}, but the inputs of {task.name} are values: leave it out.")
        return None
    moving = [name for name in attacks or [] if "swaps" not in name]
    if mode is None and moving:
        raise UserError(
            f"--attacks names {moving[0]}, which moves values, but the inputs of {task.name} are symbols: add "
            "--symbols embedding to move their one-hot vectors, or take --attacks swaps."
        )
    return mode or "swaps"


def criterion(task: Task, tolerance: float | None) -> Wrong | None:
    """When a prediction counts as wrong; None for classes.

    Raises:
        UserError: where only a person can say.
    """
    if task.targets == "next_symbol":
        raise UserError(
            f"{task.name} predicts every next symbol, and some are always wrong: no attack has a success to measure."
        )
    if task.labels > 1:
        raise UserError(f"{task.name} has {task.labels} labels a step, and attack judges one: it cannot be attacked.")
    if task.classifies:
        if tolerance is not None:
            raise UserError(f"--tolerance is given, but {task.name} has classes, right or wrong: leave it out.")
        return None
    if tolerance is None and task.metric == "within_0.04":
        tolerance = 0.04
    if tolerance is None:
        raise UserError(f"--tolerance is not given, but {task.name} predicts numbers: say how far off is wrong.")
    require(tolerance >= 0, "--tolerance", tolerance, "0 or positive")
    return off_by(tolerance)


def draw(data: SequenceDataModule, split: Any, samples: int | None, seed: int) -> tuple[Batch, np.ndarray]:
    """``samples`` examples of a split (200, if not given), chosen by ``seed`` and in order, and their numbers."""
    data.prepare_data()
    data.setup("test" if split == "test" else "fit")
    source = data.split(split)
    count = min(_SAMPLES, len(source)) if samples is None else samples
    require(1 <= count <= len(source), "--samples", samples, f"from 1 to {len(source)}, the {split} split's size")
    indices = np.sort(np.random.default_rng(seed).choice(len(source), count, replace=False))
    return source[indices], indices


def scored(task: Task, parts: Parts) -> Tensor | None:
    """(B, T) bool: the steps whose prediction is judged, in a task with a target per step."""
    if not task.per_step:
        return None
    counts = parts.counts(task)
    if counts is None:
        counts = torch.ones(parts.targets.shape[:2], dtype=torch.bool, device=parts.targets.device)
    return counts if task.recall is None else counts & parts.recalled(task.recall)


def describe(subject: Subject) -> dict[str, Any]:
    """Where the numbers come from, as primitives."""
    return {
        "checkpoint": str(subject.checkpoint),
        "run": None if subject.folder is None else str(subject.folder),
        "model": type(subject.model).__name__,
        "optimizer_steps": subject.model.optimizer_steps,
        "task": subject.task.name,
        "data": class_path(type(subject.data)),
        "split": subject.split,
        "samples": len(subject.indices),
    }
