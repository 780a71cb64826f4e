"""What is taken apart: a checkpoint's model, its recurrent matrices, and sequences it was validated on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from datamodules import SequenceDataModule, UserError
from datamodules.automata import Tracked, Tracking
from datamodules.base import Batch
from datamodules.errors import require
from lit_rnn.analysis.arrays import Complex, Real
from lit_rnn.cells import Cell
from lit_rnn.cells.linear import StateSpaceCell
from lit_rnn.models import SequenceModel, load, read_checkpoint
from lit_rnn.models.probes import cell_matrices, layer_name
from lit_rnn.parametrizations.orthogonal import double
from lit_rnn.runs.checkpoints import folder_of, initial_checkpoint
from lit_rnn.runs.curves import read_curve
from lit_rnn.runs.data import check_data, read_data

WATCHED = ("spectral_radius", "pseudospectral_radius", "spectral_norm", "henrici", "drift")


@dataclass(frozen=True)
class Matrix:
    """A matrix to take apart.

    Args:
        name: "forget", or "layer 1 forget" where there are layers.
        W: (n, n), float64 or complex128.
        source: (n,), the column of the input map through which most of the signal enters; None where there is none.
        source_name: Which column.
        precision: To which relative accuracy the model computes W's entries.
    """

    name: str
    W: NDArray[Any]
    source: Real | Complex | None = None
    source_name: str = ""
    precision: float = torch.finfo(torch.float32).eps


@dataclass(frozen=True)
class Moment:
    """A model at one moment of its training."""

    label: str
    path: Path
    model: SequenceModel


# ---- the model


def load_finite(path: Path) -> SequenceModel:
    """The model of a checkpoint, on the CPU.

    Raises:
        UserError: if it cannot be loaded, or a weight is NaN or infinite.
    """
    model = load(path)
    turned = {} if model.turned_cells is None else model.turned_cells.state_dict(prefix="turned_cells.")
    for name, tensor in {**model.cells.state_dict(prefix="cells."), **turned}.items():
        if not torch.isfinite(tensor).all():
            raise UserError(
                f"ckpt_path {path} holds NaN or infinity in {name}: the run had diverged; name an earlier checkpoint."
            )
    return model.eval()


@torch.no_grad()
def matrices(model: SequenceModel, chosen_by: SequenceModel) -> Iterator[Matrix]:
    """The recurrent matrices with the way a signal enters each.

    Args:
        model: Of whose layers.
        chosen_by: The model, of the same shapes, whose longest input column names the column.

    Raises:
        UserError: for a matrix that is not square, or empty.
    """
    for layer, (cell, chooser) in enumerate(zip(model.cell_list(), chosen_by.cell_list(), strict=True)):
        named = cell_matrices(cell)
        for number, (name, W) in enumerate(named.items()):
            full_name = layer_name(model, layer, name)
            require(
                W.dim() == 2 and W.shape[0] == W.shape[1] > 0,
                f"The matrix {full_name} of {type(cell).__name__}",
                f"of shape {tuple(W.shape)}",
                "square, (n, n) with n at least 1",
            )
            V, chooser_V = (_input_block(one, W, number, len(named)) for one in (cell, chooser))
            precision = torch.finfo(W.dtype).eps
            yield Matrix(full_name, double(W).cpu().numpy(), *_source(V, chooser_V), precision)


def _source(V: Tensor | None, chooser_V: Tensor | None) -> tuple[Real | Complex | None, str]:
    """The column of V that is the longest of ``chooser_V``, and its name."""
    if V is None or chooser_V is None:
        return None, ""
    column = int(chooser_V.abs().square().sum(0).argmax())
    name = "input column" if V.shape[1] == 1 else f"input column {column + 1} of {V.shape[1]}, the longest"
    return double(V[:, column]).cpu().numpy(), name


def _input_block(cell: Cell, W: Tensor, number: int, count: int) -> Tensor | None:
    """The part of the cell's input map that feeds matrix ``number`` of ``count``: (n, inputs)."""
    n, linear = len(W), getattr(cell, "input", None)
    if isinstance(cell, StateSpaceCell):
        return cell.into_state()
    if not isinstance(linear, nn.Linear):
        return None
    V = linear.weight
    if W.is_complex() and len(V) == 2 * n:
        return torch.complex(*V.chunk(2))
    if len(V) == n * count:  # a block per gate, in the order of the matrices
        return V.chunk(count)[number]
    return V if len(V) == n else None


def watched(checkpoint: Path, name: str) -> dict[str, tuple[list[int], list[float]]]:
    """What `WatchMatrices` logged of a matrix in the run of a checkpoint: steps and values by what was logged."""
    folder = folder_of(checkpoint)
    if folder is None:
        return {}
    metrics = folder / "metrics.csv"
    curves = {key: read_curve(metrics, f"matrix/{name}/{key}") for key in WATCHED}
    return {key: curve for key, curve in curves.items() if curve[0]}


# ---- moments to compare


def read_moments(path: Path, against: str | None) -> list[Moment]:
    """The model of the checkpoint, last; before it the one to compare with, if any."""
    paths = [path] if against is None else [_other(path, against), path]
    models = [load_finite(one) for one in paths]
    for model in models[:-1]:
        _require_same(paths[0], model, path, models[-1])
    return [Moment(*one) for one in zip(_labels(paths, models), paths, models, strict=True)]


def _labels(paths: Sequence[Path], models: Sequence[SequenceModel]) -> list[str]:
    """What tells checkpoints apart: their steps, with run folders or file names where that needs it."""
    steps = [f"step {model.optimizer_steps:,}" for model in models]
    runs = [folder_of(path) for path in paths]
    if None not in runs and len(set(runs)) > 1:
        return [f"{run.name}, {step}" for run, step in zip(runs, steps, strict=True) if run]
    return steps if len(set(steps)) == len(steps) else [str(path) for path in paths]


def _other(path: Path, against: str) -> Path:
    if against != "init":
        require(Path(against).is_file(), "--against", against, "init or a checkpoint file")
        return Path(against)
    folder = folder_of(path)
    start = initial_checkpoint(folder) if folder else None
    if start is None or not start.is_file():
        raise UserError(
            f"--against is init, but there is no init.ckpt beside {path}: fit writes one when a run starts afresh, "
            "not when it resumes a checkpoint from another folder; name a checkpoint file instead."
        )
    return start


def _require_same(other_path: Path, other: SequenceModel, path: Path, model: SequenceModel) -> None:
    if type(other) is not type(model):
        raise UserError(
            f"--against {other_path} holds a {type(other).__name__}, but {path} a {type(model).__name__}: "
            "name a checkpoint of the same model."
        )
    shapes, others = ({name: t.shape for name, t in m.weights_in(m.state_dict()).items()} for m in (model, other))
    if shapes != others:
        raise UserError(
            f"--against {other_path} holds a {type(other).__name__} of other sizes than {path}: "
            "name a checkpoint of the same sizes and task."
        )


# ---- the data


@dataclass(frozen=True)
class Sequences:
    """What a model is looked at on.

    Args:
        batch: Validation sequences.
        tracked: Others, with what must be tracked at every step, where the data says that.
    """

    batch: Batch
    tracked: Tracked | None


def validation_sequences(data: SequenceDataModule, samples: int) -> Sequences:
    """The first ``samples`` sequences of the validation split, as one batch, and what they track."""
    data.prepare_data()
    data.setup("fit")
    return Sequences(data.examples(samples), data.tracked() if isinstance(data, Tracking) else None)


def read_sequences(
    path: Path, model: SequenceModel, config: Path | None, name: str | None, given: dict[str, Any], samples: int
) -> tuple[Sequences | None, str]:
    """Validation sequences of the run's data, or why there are none.

    Args:
        path: The checkpoint.
        model: What it holds.
        config: Whose data to take instead.
        name: The data module's class instead.
        given: Its options, which win.
        samples: How many sequences.

    Raises:
        UserError: if there are none of the data that the options name.
    """
    if not model.is_stack():
        return None, "a bidirectional model has cells that read from the end, whose trajectory is another."
    try:
        data = read_data(path, config, name, given, seed=0)
        check_data(data, read_checkpoint(path), path)
        return validation_sequences(data, samples), ""
    except UserError as error:
        if config or name or given:
            raise
        return None, str(error)
