"""Weights of nn.LSTM, nn.GRU and nn.RNN: into cells of ours that compute the same, and back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from datamodules.errors import UserError, require
from lit_rnn.cells import Cell, GRUCell, LSTMCell, VanillaRNNCell
from lit_rnn.models import SequenceModel
from lit_rnn.scan.kernels import kernel_of

_KINDS: dict[Any, tuple[type[nn.RNNBase], str | None]] = {
    torch.lstm: (nn.LSTM, None),
    torch.gru: (nn.GRU, None),
    torch.rnn_tanh: (nn.RNN, "tanh"),
    torch.rnn_relu: (nn.RNN, "relu"),
}


def from_torch(rnn: nn.RNNBase) -> list[Cell]:
    """Cells with the weights of a `nn.LSTM`, `nn.GRU` or `nn.RNN`, one a layer, in its dtype and place.

    `LSTMCell`, `GRUCell` or `VanillaRNNCell`. torch's two biases become one where they only act as their sum; without
    ``bias`` they are zero.

    Raises:
        UserError: for another module, and for one that is bidirectional, or has ``proj_size``, ``dropout`` or hooks.
    """
    kernel = _checked(rnn)
    cells: list[Cell] = []
    for layer in range(rnn.num_layers):
        sizes = (rnn.input_size if layer == 0 else rnn.hidden_size), rnn.hidden_size
        if kernel is torch.lstm:
            cell: Cell = LSTMCell(*sizes)
        elif kernel is torch.gru:
            cell = GRUCell(*sizes)
        else:
            cell = VanillaRNNCell(*sizes, "tanh" if kernel is torch.rnn_tanh else "relu")
        weight: Any = rnn.weight_hh_l0
        cells.append(cell.to(device=weight.device, dtype=weight.dtype))
    load_torch_(cells, rnn)
    return cells


@torch.no_grad()
def load_torch_(target: SequenceModel | Cell | Sequence[Cell], rnn: nn.RNNBase) -> None:
    """Put the weights of a `nn.LSTM`, `nn.GRU` or `nn.RNN` into a model or cells that compute the same, in place.

    A trained initial state becomes zero, which is torch's. A model's decoder stays as it is.

    Raises:
        UserError: as `from_torch`, and unless the target has as many layers, of the same kind and sizes.
    """
    kernel, cells = _checked(rnn), _cells(target)
    dtype, given = cells[0].input.weight.dtype, next(rnn.parameters()).dtype
    require(dtype == given, "rnn", f"in {given}", f"in {dtype}, as the target")
    require(len(cells) == rnn.num_layers, "rnn", f"of {rnn.num_layers} layers", f"of {len(cells)}, as the target")
    for layer, cell in enumerate(cells):
        name = f"{type(cell).__name__} of layer {layer}"
        if kernel_of(cell) is not kernel:
            raise UserError(
                f"The {name} does not compute what nn.{_named(kernel)} does, so it cannot take its weights."
            )
        sizes = (rnn.input_size if layer == 0 else rnn.hidden_size), rnn.hidden_size
        if sizes != (own := (cell.input_size, cell.hidden_size)):
            raise UserError(
                f"Layer {layer} of rnn reads {sizes[0]} inputs and has {sizes[1]} units, but the {name} "
                f"reads {own[0]} and has {own[1]}: give a torch layer of its sizes."
            )
        recurrent = getattr(cell, "recurrent", None)
        if not isinstance(recurrent, nn.Linear) or parametrize.is_parametrized(recurrent):
            raise UserError(f"The {name} constrains its recurrent matrix, so it cannot take the weights of a free one.")
    for layer, cell in enumerate(cells):
        _load(cell, rnn, layer)


def to_torch(source: SequenceModel | Cell | Sequence[Cell], batch_first: bool = False) -> nn.RNNBase:
    """A `nn.LSTM`, `nn.GRU` or `nn.RNN` that computes what a model's cells, or some cells one above the other, do.

    The recurrent matrix is the one that is applied, whatever it is made of. Of torch's two biases the second is zero,
    but for the candidate of a GRU.

    Args:
        source: The model or cells.
        batch_first: As of the torch module.

    Raises:
        UserError: if a cell is none of torch's (an LSTM with peepholes or output matrix, a GRU with ``reset`` before
            the product, a modReLU, ...), trains its initial state, or is of another size than that below it.
    """
    cells = _cells(source)
    kernel, n = kernel_of(cells[0]), cells[0].hidden_size
    for layer, cell in enumerate(cells):
        name = f"{type(cell).__name__} of layer {layer}"
        if kernel_of(cell) is None:
            raise UserError(f"The {name} is none of torch's: those are plain LSTM, GRU, and tanh and relu VanillaRNN.")
        if len(cell.initial):
            raise UserError(f"The {name} trains its initial state, which no module of torch holds.")
        fits = kernel_of(cell) is kernel and cell.hidden_size == n and (layer == 0 or cell.input_size == n)
        require(fits, "source", f"layers that differ (the {name})", "layers of one kind and one hidden_size")
    module, nonlinearity = _KINDS[kernel]
    like = next(cells[0].parameters())
    options: dict[str, Any] = {} if nonlinearity is None else {"nonlinearity": nonlinearity}
    options |= {"batch_first": batch_first, "device": like.device, "dtype": like.dtype}
    rnn: nn.RNNBase = cast(Any, module)(cells[0].input_size, n, len(cells), **options)
    with torch.no_grad():
        for layer, cell in enumerate(cells):
            w = cell.weights()
            W, b = w if isinstance(w, tuple) else (w, None)
            bias = cell.input.bias
            for name, value in (("weight_ih", cell.input.weight), ("weight_hh", W), ("bias_ih", bias), ("bias_hh", b)):
                tensor = getattr(rnn, f"{name}_l{layer}")
                tensor.copy_(torch.zeros_like(tensor) if value is None else value)
    return rnn


def _checked(rnn: object) -> Any:
    """torch's function that a module runs; raises `UserError` for what no cell of ours computes."""
    found = [
        (kernel, name)
        for kernel, (module, name) in _KINDS.items()
        if isinstance(rnn, module) and type(rnn).forward is module.forward
    ]
    if not found or not isinstance(rnn, nn.RNNBase):
        raise UserError(f"rnn is a {type(rnn).__name__}, but it must be a torch nn.LSTM, nn.GRU or nn.RNN.")
    refused = {
        "is bidirectional, and our cells read a sequence in one direction": rnn.bidirectional,
        "has proj_size, and our cells have no projection": rnn.proj_size,
        "has dropout, and our layers follow each other without": rnn.dropout,
        "has hooks, and what they do is not in its weights": rnn._forward_hooks or rnn._forward_pre_hooks,
    }
    for reason, holds in refused.items():
        if holds:
            raise UserError(f"rnn, a {type(rnn).__name__}, {reason}.")
    return next(kernel for kernel, name in found if name is None or name == rnn.nonlinearity)


def _named(kernel: Any) -> str:
    module, nonlinearity = _KINDS[kernel]
    return module.__name__ if nonlinearity is None else f"{module.__name__} with {nonlinearity}"


def _cells(source: object) -> list[Cell]:
    if isinstance(source, SequenceModel) and not source.cells_follow_each_other():
        raise UserError(
            "The model has norm, residual, mixing or bidirectional around its cells, which torch's layer has not."
        )
    cells: Any = source.cell_list() if isinstance(source, SequenceModel) else source
    cells = [cells] if isinstance(cells, Cell) else cells
    sound = isinstance(cells, Sequence) and len(cells) > 0 and all(isinstance(cell, Cell) for cell in cells)
    require(sound, "cells", type(source).__name__, "a SequenceModel, a Cell, or a list of Cells")
    return list(cells)


def _load(cell: Cell, rnn: nn.RNNBase, layer: int) -> None:
    """Copy one layer's weights, its biases summed where they act as their sum."""
    W = getattr(rnn, f"weight_hh_l{layer}")
    b_ih, b_hh = (
        getattr(rnn, f"{name}_l{layer}") if rnn.bias else W.new_zeros(len(W)) for name in ("bias_ih", "bias_hh")
    )
    cell.input.weight.copy_(getattr(rnn, f"weight_ih_l{layer}"))
    recurrent: Any = cell.get_submodule("recurrent")
    recurrent.weight.copy_(W)
    candidate = getattr(cell, "candidate_bias", None)
    if isinstance(candidate, Tensor):  # the reset gate scales only b_hh of the candidate
        candidate.copy_(b_hh[2 * cell.hidden_size :])
        b_hh = torch.cat((b_hh[: 2 * cell.hidden_size], torch.zeros_like(candidate)))
    cell.input.bias.copy_(b_ih + b_hh)
    for start in cell.initial:
        start.zero_()
