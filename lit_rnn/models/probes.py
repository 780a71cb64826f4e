"""A trained model looked at from outside: its matrices, its gradients on a batch, and what a look costs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import torch
from torch import Tensor

from datamodules.batch import Batch, Parts
from datamodules.errors import UserError
from lit_rnn import analysis
from lit_rnn.blame import defined
from lit_rnn.cells.base import Cell, start_of
from lit_rnn.dtypes import described
from lit_rnn.models.base import SequenceModel
from lit_rnn.parametrizations.orthogonal import double
from lit_rnn.scan import scan


def layer_name(model: SequenceModel, layer: int, name: str) -> str:
    """``name``, with its layer where there is more than one, and for a cell that reads from the end with that.

    Args:
        layer: The cell's place in ``model.cell_list()``.
    """
    way, number = divmod(layer, len(model.cells))
    name = f"from the end {name}" if way else name
    return f"layer {number} {name}" if len(model.cells) > 1 else name


def cell_matrices(cell: Cell) -> Mapping[str, Tensor]:
    """``cell.recurrent_matrices()``; raises `UserError` unless they are square matrices by name."""
    named: object = cell.recurrent_matrices()
    if isinstance(named, Mapping):
        given = next((f"{name!r}, {described(W)}" for name, W in named.items() if not _is_square(W)), None)
    else:
        given = f"a {type(named).__name__}"
    if given is not None:
        place = defined(type(cell).recurrent_matrices)
        raise UserError(f"{place}: it returns {given}, but it must return {{name: (n, n) tensor}}.")
    return named  # type: ignore[return-value]  # else it is told


def _is_square(W: object) -> bool:
    return isinstance(W, Tensor) and W.dim() == 2 and W.shape[0] == W.shape[1]


def _named_matrices(model: SequenceModel) -> Iterator[tuple[str, Tensor]]:
    for layer, cell in enumerate(model.cell_list()):
        yield from ((layer_name(model, layer, name), W.detach()) for name, W in cell_matrices(cell).items())


@torch.no_grad()
def recurrent_matrices(model: SequenceModel) -> dict[str, Tensor]:
    """Every recurrent matrix by layer and name, gates apart, in double precision and without a gradient."""
    return {name: double(W) for name, W in _named_matrices(model)}


@torch.no_grad()
def spectra(model: SequenceModel, eps: float) -> dict[str, dict[str, float]]:
    """Spectral radius, norm, Henrici's departure over |W|_F and pseudospectral radius of every recurrent matrix."""
    return {
        name: {
            "spectral_radius": analysis.spectral_radius(W),
            "spectral_norm": analysis.spectral_norm(W),
            "henrici": analysis.henrici(W, normalized=True),
            "pseudospectral_radius": analysis.pseudospectral_radius(W, eps),
        }
        for name, W in _named_matrices(model)
    }


def summed_loss(model: SequenceModel, batch: Batch) -> Callable[[Tensor], Tensor]:
    """From the last cell's outputs (T, B, output_size) to the loss on a batch, summed over its sequences."""
    inputs, targets, _, lengths, _ = parts = Parts.of(batch)
    counts = parts.counts(model.task)
    return lambda y: model.loss_of(model.decode(y, lengths), targets, counts) * len(inputs)


def gradient_flows(model: SequenceModel, batch: Batch) -> list[analysis.GradientFlow]:
    """`lit_rnn.analysis.gradient_against_lag` of every layer, on a batch."""
    x, lengths = encoded(model, batch), Parts.of(batch).lengths
    return analysis.gradient_against_lag(model.cell_list(), x, summed_loss(model, batch), lengths, model)


def encoded(model: SequenceModel, batch: Batch) -> Tensor:
    """What the first cell reads, (T, B, I), zero behind each sequence's end."""
    with model.without_dropout():
        return model.encode(Parts.of(batch).filled()).transpose(0, 1)


@torch.no_grad()
def read_by_cells(model: SequenceModel, batch: Batch) -> list[Tensor]:
    """What each layer's cell reads on a batch, (T, B, I)."""
    x, lengths = encoded(model, batch), Parts.of(batch).lengths
    read = []
    for layer, cell in enumerate(model.cell_list()):
        read.append(model.read_by(layer, x))
        x = model.joined(layer, x, scan(cell, read[-1], lengths=lengths)[0], lengths)
    return read


def state_sizes(model: SequenceModel) -> list[int]:
    """Width of each layer's joint state, complex units counted twice: N of its (N, N) Jacobian."""
    return [analysis.flat_state(start_of(cell, 1)).shape[-1] for cell in model.cell_list()]


def shortened(model: SequenceModel, batch: Batch, steps: int) -> Batch:
    """The first ``steps`` steps of a batch."""
    parts = Parts.of(batch)
    flags = (None if part is None else part[:, :steps] for part in (parts.mask, parts.reset))
    lengths = None if parts.lengths is None else parts.lengths.clamp(max=steps)
    targets = parts.targets[:, :steps] if model.task.per_step else parts.targets
    mask, reset = flags
    return Parts(parts.inputs[:, :steps], targets, mask, lengths, reset)


def extrapolated(small: float, large: float, ratio: float, power: int) -> float:
    """a + b n^power at ``ratio`` times the size of ``large``, which is twice that of ``small``: a cost, say."""
    return large + max(large - small, 0.0) / (1 - 2.0**-power) * (ratio**power - 1)
