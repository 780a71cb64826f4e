"""What is attacked: the model of a checkpoint, on examples of its data."""

from __future__ import annotations

import argparse
import inspect
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from torch import Tensor

import datamodules
from datamodules import SequenceDataModule, Task, UserError
from datamodules.errors import require
from lit_rnn import run_folder
from lit_rnn.class_paths import class_path, import_class
from lit_rnn.models import SequenceModel, load, read_checkpoint
from lit_rnn.robustness import Examples, off_by
from lit_rnn.robustness.objective import Wrong

_DATA = "--data."


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


# ---- the checkpoint and its data


def find_checkpoint(ckpt_path: str | None, run_dir: Path | None) -> Path:
    """The file that --ckpt_path and --run_dir name; of a run folder alone its best checkpoint.

    Raises:
        UserError: if they name none.
    """
    if ckpt_path is not None and ckpt_path not in ("best", "last"):
        return Path(ckpt_path)
    if run_dir is None:
        what = "is not given" if ckpt_path is None else f"is {ckpt_path}, but the run's folder is not given"
        raise UserError(f"ckpt_path {what}: give --ckpt_path FILE, or --run_dir DIR.")
    path = run_folder.last_checkpoint(run_dir) if ckpt_path == "last" else run_folder.best_checkpoint(run_dir)
    if not path.is_file() and ckpt_path is None:
        path = run_folder.last_checkpoint(run_dir)
    if not path.is_file():
        raise UserError(f"run_dir {run_dir} holds no checkpoint (no {path}): name the folder of a run.")
    return path


def data_options(unknown: list[str]) -> dict[str, Any]:
    """--data.init_args.KEY VALUE (or --data.KEY VALUE) as a mapping.

    Raises:
        UserError: for any other option.
    """
    options: dict[str, Any] = {}
    rest = [part for argument in unknown for part in argument.split("=", 1 if argument.startswith("--") else 0)]
    while rest:
        name = rest.pop(0)
        key = name.removeprefix(_DATA).removeprefix("init_args.")
        if not name.startswith(_DATA) or not rest:
            problem = "needs a value" if name.startswith(_DATA) else "is not an option"
            raise UserError(f"{name} {problem}; see python -m lit_rnn attack --help.")
        options[key] = yaml.safe_load(rest.pop(0))
    return options


def read_data(
    folder: Path | None, config: Path | None, name: str | None, options: dict[str, Any], seed: int
) -> SequenceDataModule:
    """The data module of a class's name, else of a config, else of the run folder's; ``options`` win.

    Raises:
        UserError: if there is no config, or no such class or option.
    """
    if config is None and folder is not None:
        config = run_folder.newest_config(folder)
    if config is None and name is None:
        raise UserError("The checkpoint lies in no run folder: give its data by --data CLASS or --config FILE.")
    written: dict[str, Any] = {}
    if config is not None:
        require(config.is_file(), "--config", str(config), "a file")
        written = (yaml.safe_load(config.read_text()) or {}).get("data") or {}
        require(name is not None or "class_path" in written, "--config", str(config), "a config with data.class_path")
    given = class_of(name or written["class_path"])
    same = "class_path" in written and class_of(written["class_path"]) is given
    arguments = {"seed": seed, **(written.get("init_args") or {} if same else {}), **options}
    accepted = _parameters(given)
    for key in options:
        require(key in accepted, "--data", key, f"one of the options of {given.__name__}: {', '.join(accepted)}")
    try:
        return given(**arguments)
    except TypeError as error:
        raise UserError(f"data cannot be built: {error}.") from error


def class_of(name: str) -> type[SequenceDataModule]:
    """A data module's class by its name, or by its import path."""
    try:
        found = import_class(name) if "." in name else getattr(datamodules, name)
    except (ImportError, AttributeError, ValueError):
        found = None
    known = isinstance(found, type) and issubclass(found, SequenceDataModule) and not inspect.isabstract(found)
    shipped = [
        cls.__name__
        for cls in vars(datamodules).values()
        if isinstance(cls, type) and issubclass(cls, SequenceDataModule) and not inspect.isabstract(cls)
    ]
    require(known, "--data", name, f"one of {', '.join(shipped)}, or the import path of a data module")
    return found  # type: ignore[return-value]


def _parameters(cls: type) -> list[str]:
    """The options of a constructor and, where it passes them on, of those above it."""
    names: list[str] = []
    for base in cls.__mro__:
        if "__init__" in vars(base):
            parameters = list(inspect.signature(base.__init__).parameters.values())[1:]  # type: ignore[misc]
            names += [p.name for p in parameters if p.kind is not p.VAR_KEYWORD]
            if all(p.kind is not p.VAR_KEYWORD for p in parameters):
                break
    return list(dict.fromkeys(names))


def check_task(given: Task, made_with: dict[str, Any], path: Path) -> None:
    """Refuse data that the checkpoint's model was not trained on.

    Raises:
        UserError: saying what differs.
    """
    for key in ("name", "inputs", "input_size", "targets", "target_size"):
        if getattr(given, key) != made_with[key]:
            sizes = ("", "") if key == "name" else (f" ({key} {getattr(given, key)})", f" ({key} {made_with[key]})")
            raise UserError(
                f"data gives {given.name}{sizes[0]}, but {path} was trained on {made_with['name']}{sizes[1]}: "
                "give that data by --data."
            )


# ---- the examples


def read_subject(options: argparse.Namespace, unknown: list[str]) -> Subject:
    """What the options of the command line name.

    Raises:
        UserError: for whatever does not fit together.
    """
    checkpoint = find_checkpoint(options.ckpt_path, options.run_dir)
    kept = read_checkpoint(checkpoint)
    folder = run_folder.folder_of(checkpoint)
    data = read_data(folder, options.config, options.data, data_options(unknown), options.seed)
    check_task(data.task, kept["hyper_parameters"]["task"], checkpoint)
    symbols = symbols_mode(data.task, options.symbols, options.attacks)
    wrong = criterion(data.task, options.tolerance)
    device = torch.device(options.device or ("cuda" if torch.cuda.is_available() else "cpu"))
    model = load(checkpoint).eval().requires_grad_(False).to(device)
    batch, indices = draw(data, options.split, options.samples, options.seed)
    x, y = batch[0].to(device), batch[1].to(device)
    mask = data.changeable(batch[0]).to(device)
    if symbols == "embedding":
        x = model.encode(x)
        mask = mask[..., None].expand_as(x)
    bounds, measured = None, False
    if symbols is None:
        bounds, measured = (tuple(options.bounds), False) if options.bounds else (data.bounds, data.bounds is None)
        bounds = bounds or (float(x[mask].min()), float(x[mask].max()))
    elif options.bounds:
        raise UserError("--bounds is given, but inputs are symbols, which have none: leave it out.")
    examples = Examples(
        model,
        x,
        y,
        mask,
        bounds,
        scored(data.task, batch, device),
        wrong,
        data.task.input_size if symbols == "swaps" else 0,
        options.batch_size,
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
            f"{task.name} predicts every next symbol, of which some are always wrong: attack has no measure."
        )
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


def draw(
    data: SequenceDataModule, split: Any, samples: int | None, seed: int, default: int = 200
) -> tuple[tuple[Tensor, ...], np.ndarray]:
    """``samples`` examples of a split, chosen by ``seed`` and in order, and their numbers."""
    data.prepare_data()
    data.setup("test" if split == "test" else "fit")
    source = data.split(split)
    count = min(default, len(source)) if samples is None else samples
    require(1 <= count <= len(source), "--samples", samples, f"from 1 to {len(source)}, the {split} split's size")
    indices = np.sort(np.random.default_rng(seed).choice(len(source), count, replace=False))
    return source[indices], indices


def scored(task: Task, batch: tuple[Tensor, ...], device: torch.device) -> Tensor | None:
    """(B, T) bool: the steps whose prediction is judged, in a task with a target per step."""
    if not task.per_step:
        return None
    counts = batch[2].clone() if len(batch) > 2 else torch.ones(batch[1].shape[:2], dtype=torch.bool)
    if task.recall is not None:
        counts[:, : -task.recall] = False
    return counts.to(device)


def describe(subject: Subject) -> dict[str, Any]:
    """Where the numbers are from, as primitives."""
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
