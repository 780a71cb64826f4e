"""Network: encoder, scanned cells, decoder, and what may stand between them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from datamodules.batch import Parts, near, within
from datamodules.errors import UserError, require
from datamodules.task import Task
from lit_rnn.blame import defined
from lit_rnn.cells import Cell, State
from lit_rnn.dtypes import described, first
from lit_rnn.init import InputInit, decoder_
from lit_rnn.models.blocks import EMBEDDING_BOUND, MIXERS, NORMS, Dropouts, check_options, mask, pooled, turned
from lit_rnn.parametrizations import constrain_recurrent
from lit_rnn.scan import backend_here, check_backend, scan
from lit_rnn.scan.unequal import check_lengths


class Network(nn.Module, ABC):
    """The layers of a model, from its options: x_0 = E(inputs), x_l = G(cell_l(norm(x_{l-1}))) (+ x_{l-1}), D(x_L)."""

    task: Task
    _passes: dict[tuple[bool, int], int]

    @property
    @abstractmethod
    def options(self) -> Any:
        """The constructor's arguments."""

    @abstractmethod
    def build_cell(self, input_size: int) -> Cell:
        """The cell of one layer; `options` holds the constructor's arguments."""

    def _build(self, input_init: InputInit) -> None:
        """The modules, in the order in which they draw their start; an architecture may start V itself (``cell``)."""
        o, task = self.options, self.task
        check_options(o, task)
        self.dropouts = Dropouts.of(o)
        self.draws: torch.Generator | None = None  # of dropout; None: torch's own
        width = o.embedding_size or o.encoder_size or task.input_size
        self.encoder = None if o.encoder_size is None else nn.Linear(task.input_size, width)
        self.embedding = None
        if o.embedding_size is not None:
            self.embedding = nn.Embedding(task.input_size, width)
            nn.init.uniform_(self.embedding.weight, -EMBEDDING_BOUND, EMBEDDING_BOUND)
        self.cells = nn.ModuleList()
        self.turned_cells = nn.ModuleList() if o.bidirectional else None
        self.norms = nn.ModuleList() if o.norm != "none" else None
        self.mixers = nn.ModuleList() if o.mixing != "none" else None
        for layer in range(o.layers):
            if self.norms is not None and self.is_block(layer):
                self.norms.append(NORMS[o.norm](width))
            self.cells.append(self._built_cell(width, input_init))
            if self.turned_cells is not None:
                self.turned_cells.append(self._built_cell(width, input_init))
            below, width = width, self.cell_list()[layer].output_size * (1 + o.bidirectional)
            if self.mixers is not None:
                self.mixers.append(MIXERS[o.mixing](width))
            fits = below == width or not (o.residual and self.encoder is not None)
            accepted = f"{width}, what the first layer gives, where model.init_args.residual is true"
            require(fits, "model.init_args.encoder_size", o.encoder_size, accepted)
        self.decoder = decoder_(nn.Linear(width, task.target_size * task.labels), o.decoder_init, task.input_size)
        if o.tied_decoder:
            assert self.embedding is not None
            accepted = f"{width}, what the decoder reads, where model.init_args.tied_decoder is true"
            require(o.embedding_size == width, "model.init_args.embedding_size", o.embedding_size, accepted)
            self.decoder.weight = self.embedding.weight

    def _built_cell(self, input_size: int, input_init: InputInit) -> Cell:
        o = self.options
        cell: object = self.build_cell(input_size)
        if not isinstance(cell, Cell):
            place = defined(type(self).build_cell)
            raise UserError(f"{place}: build_cell returns {cell!r}, but it must return a lit_rnn.cells.Cell.")
        if input_init != "cell":
            cell.start_input_(input_init)
        constrain_recurrent(cell, o.recurrent_constraint, o.constraint_bound)
        without, key = f"0: {type(cell).__name__} has no recurrent matrix", "model.init_args"
        has_W = not o.weight_dropout or first(cell.weights()) is not None
        asked = bool(o.weight_dropout or o.norm_penalty)
        has_matrices = asked and bool(cell.recurrent_matrices())  # what a user's cell gives there is not checked yet
        made = f"0: the W of {type(cell).__name__} is no matrix of weights, but made from fewer numbers"
        require(has_W, f"{key}.weight_dropout", o.weight_dropout, made if has_matrices else without)
        require(not o.norm_penalty or has_matrices, f"{key}.norm_penalty", o.norm_penalty, without)
        check_backend(o.backend, cell)
        return cell

    def cell_list(self) -> list[Cell]:
        """The cells, from the bottom up; those that read from the end behind all others."""
        return [*self.cells, *(self.turned_cells or ())]

    def is_block(self, layer: int) -> bool:
        """Whether a layer has what the options put around one: the first only over an encoder, as it reads inputs."""
        return layer > 0 or self.encoder is not None

    def is_chain(self) -> bool:
        """Whether cells read each other, and the decoder the last of them, as they are: no block stands between."""
        plain = self.embedding is None and self.encoder is None and self.options.pooling == "last"
        return self.cells_follow_each_other() and plain

    def cells_follow_each_other(self) -> bool:
        """Whether each cell reads what the one below gave, as it is."""
        return self.is_stack() and self.norms is None and self.mixers is None and not self.options.residual

    def is_stack(self) -> bool:
        """Whether every layer reads the one below in the order of time."""
        return self.turned_cells is None

    @contextmanager
    def without_dropout(self) -> Iterator[None]:
        """As in evaluation, whatever the mode is."""
        mode, self.training = self.training, False
        try:
            yield
        finally:
            self.training = mode

    def forward(self, inputs: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Logits, values or frames: (B, target_size), or (B, T, target_size) where the task has a target per step.

        With ``lengths`` (B,) steps behind a sequence's end are not read, and zero where the outputs are per step.
        """
        return self.run(inputs, lengths=lengths)[0]

    def run(
        self, inputs: Tensor, states: Sequence[State] | None = None, lengths: Tensor | None = None
    ) -> tuple[Tensor, list[State]]:
        """`forward` from given states, one per cell; also returns the states after each sequence's last step.

        Raises:
            UserError: unless there are as many states as cells, each as its cell's ``initial_state(B)``.
        """
        y, finals = self.features(inputs, states, lengths)
        return self.decode(y, lengths), finals

    def features(
        self,
        inputs: Tensor,
        states: Sequence[State] | None = None,
        lengths: Tensor | None = None,
        reset: Tensor | None = None,
    ) -> tuple[Tensor, list[State]]:
        """What the decoder reads, time first: the last layer's outputs at every step, or only at the last one.

        ``lengths`` (B,) and ``reset`` (B, T) as in `datamodules.batch.Parts`.
        """
        self._check_inputs(inputs)
        if lengths is not None:
            check_lengths(lengths, len(inputs))
        cells = len(self.cell_list())
        if states is not None:
            given = f"{len(states)} of them" if isinstance(states, Sequence) else described(states)
            require(isinstance(states, Sequence) and len(states) == cells, "states", given, f"{cells}, one a layer")
        y = self.encode(Parts(inputs, inputs, lengths=lengths).filled()).transpose(0, 1)  # padding need be no symbol
        y = self._dropped(y, self.dropouts.input)
        finals: list[State] = []
        turned_finals: list[State] = []
        for layer in range(len(self.cells)):
            below = self._dropped(y, self.dropouts.layer) if layer else y
            x, reset_of_time = self.read_by(layer, below), None if reset is None else reset.T
            y, final = self._scanned(self.cells[layer], layer, x, states and states[layer], lengths, reset_of_time)
            finals.append(final)
            if self.turned_cells is not None:
                before = states and states[len(self.cells) + layer]
                z, final = self._scanned(self.turned_cells[layer], layer, turned(x, lengths), before, lengths, None)
                turned_finals.append(final)
                y = torch.cat((y, z if len(z) == 1 else turned(z, lengths)), dim=-1)
            y = self.joined(layer, below, y, lengths, self.dropouts.branch)
        return self._dropped(y, self.dropouts.output), [*finals, *turned_finals]

    def _scanned(
        self, cell: Any, layer: int, x: Tensor, state: Any, lengths: Tensor | None, reset: Tensor | None
    ) -> tuple[Tensor, State]:
        o, share = self.options, self.dropouts.weight if self.training else 0.0
        return scan(
            cell,
            x,
            state,
            backend_here(o.backend, cell),
            lengths=lengths,
            reset=reset,
            last_only=not self.task.per_step and o.pooling == "last" and layer == len(self.cells) - 1,
            checkpoint_every=o.checkpoint_every,
            expected_passes=self._passes.get((self.training, x.shape[1]), 0) if self._passes else None,
            weight_map=(lambda W: W * mask(W.shape, share, W, self.draws)) if share else None,
        )

    def read_by(self, layer: int, y: Tensor) -> Tensor:
        """What a layer's cell reads, of what the layer below gave."""
        if self.norms is None or not self.is_block(layer):
            return y
        return self.norms[layer - (self.encoder is None)](y)

    def joined(self, layer: int, below: Tensor, y: Tensor, lengths: Tensor | None, share: float = 0.0) -> Tensor:
        """What a layer gives, of what the layer below and its own cell gave, which may be only at the last step.

        ``share`` is that of the cell's branch that is dropped in training.
        """
        if self.mixers is not None:
            y = self.mixers[layer](y)
        y, every_step = self._dropped(y, share), len(y) == len(below)
        if self.is_block(layer) and self.options.residual:
            if not every_step:
                below = pooled(below, lengths, "last", self.options.bidirectional)[None]
            y = below + y
        if lengths is None or not every_step or (self.mixers is None and self.encoder is None):
            return y
        # biases are no outputs behind a sequence's end
        return y.where(near(within(lengths, len(y)).mT[..., None], y), 0)

    def _dropped(self, y: Tensor, share: float) -> Tensor:
        """y (T, B, .) without a share of its units, the same at all steps, in training."""
        return y * mask((1, *y.shape[1:]), share, y, self.draws) if share and self.training else y

    def _check_inputs(self, inputs: Tensor) -> None:
        """Raise `UserError` unless inputs are batch first, (B, T) symbols or (B, T, input_size)."""
        width, symbols = self.task.input_size, self.task.inputs == "symbols"
        accepted = f"(B, T, {width}), batch first, real, with at least one step"
        if symbols:
            accepted = f"whole numbers (B, T), batch first, with at least one step, or real vectors (B, T, {width})"
        fits = isinstance(inputs, Tensor) and inputs.dim() >= 2 and inputs.shape[1] > 0
        if fits and symbols and not inputs.is_floating_point():
            fits = inputs.dim() == 2 and inputs.dtype != torch.bool and not inputs.is_complex()
        elif fits:
            fits = inputs.dim() == 3 and inputs.shape[2] == width and not inputs.is_complex()
        if not fits:
            raise UserError(
                f"The input is {described(inputs)}, but {type(self).__name__} on {self.task.name} reads {accepted}."
            )

    def encode(self, inputs: Tensor) -> Tensor:
        """What the first layer reads, (B, T, .), in the model's dtype: values as they are or encoded, symbols one-hot,
        encoded or embedded.

        One-hot vectors are taken for symbols too, so that an attack can move them.
        """
        if self.embedding is not None:
            weight, share = self.embedding.weight, self.dropouts.embedding
            if share and self.training:
                weight = weight * mask((len(weight), 1), share, weight, self.draws)
            if inputs.is_floating_point():
                return inputs.to(weight.dtype) @ weight
            return self._vectors(inputs, nn.functional.embedding, weight)
        if self.encoder is not None:
            symbols = self.task.inputs == "symbols" and not inputs.is_floating_point()
            x: Tensor = self.encoder(self.one_hot(inputs) if symbols else inputs.to(self.decoder.weight.dtype))
            return x
        if self.task.inputs == "values" or inputs.is_floating_point():
            return inputs.to(self.decoder.weight.dtype)
        return self.one_hot(inputs)

    def one_hot(self, symbols: Tensor) -> Tensor:
        """Symbols (B, T) as vectors (B, T, input_size), which the model takes for them."""
        return self._vectors(symbols, nn.functional.one_hot, self.task.input_size).to(self.decoder.weight.dtype)

    def _vectors(self, symbols: Tensor, function: Callable[..., Tensor], of_each: Tensor | int) -> Tensor:
        """``function(symbols, of_each)``, a vector for each symbol.

        Raises:
            UserError: on the CPU, for what is none of the task's symbols. They are looked at only where torch has
                refused one: a look at all costs time, and on a GPU, which tells of it later, a wait.
        """
        try:
            return function(symbols.long(), of_each)
        except (IndexError, RuntimeError):
            size = self.task.input_size
            if symbols.is_cpu and len(unknown := ((symbols < 0) | (symbols >= size)).nonzero()):
                place = tuple(unknown[0].tolist())
                raise UserError(
                    f"The input is {int(symbols[place])} at {place}, but {type(self).__name__} on {self.task.name} "
                    f"reads symbols from 0 to {size - 1}."
                ) from None
            raise

    def decode(self, y: Tensor, lengths: Tensor | None = None) -> Tensor:
        """From the last layer's outputs (T, B, .), or those at each last step alone, to `forward`'s."""
        if not self.task.per_step:
            return self.decoder(pooled(y, lengths, self.options.pooling, self.options.bidirectional))
        outputs = self.decode_steps(y).transpose(0, 1)
        if lengths is None:
            return outputs
        real = near(within(lengths, len(y)), y)
        return outputs.where(real.view(*real.shape, *(1,) * (outputs.dim() - 2)), 0)

    def decode_steps(self, y: Tensor) -> Tensor:
        """The decoder's outputs (..., target_size) for y (..., n); (..., labels, target_size) with several labels."""
        outputs: Tensor = self.decoder(y)
        labels = self.task.labels
        return outputs if labels == 1 else outputs.unflatten(-1, (labels, self.task.target_size))
