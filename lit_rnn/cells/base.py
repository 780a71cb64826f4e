"""Cell: a recurrence, without time and without Lightning."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar, NoReturn

import torch
from torch import Tensor, nn

from datamodules.arguments import ChecksKinds
from datamodules.errors import UserError, require
from lit_rnn.dtypes import KeepsKind
from lit_rnn.init import INPUT_INITS, InputInit

State = tuple[Tensor, ...]


class Cell(KeepsKind, metaclass=ChecksKinds):
    """One step of a recurrent network, taken apart by what depends on what.

    `weights` depends only on parameters and is called once per pass; `drive` depends only on the inputs and is
    called once per sequence; `step` is all that is left to do at each time step. `lit_rnn.scan.scan` puts the three
    together.

    Args:
        input_size: Width I of x_t.
        hidden_size: Width n of the state.
        state_sizes: Widths of the state's tensors; (n,) by default.
        learn_initial_state: Train the initial state (started at zero) instead of keeping it zero.
    """

    options_at: ClassVar[str] = "model.init_args"

    input: Any  # the map V x_t + b, unless a cell has a `drive` of its own

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        state_sizes: Sequence[int] | None = None,
        learn_initial_state: bool = False,
    ) -> None:
        super().__init__()
        self.input_size, self.hidden_size, self.output_size = input_size, hidden_size, hidden_size
        self.state_sizes = tuple(state_sizes or (hidden_size,))
        sizes = self.state_sizes if learn_initial_state else ()
        self.initial = nn.ParameterList(nn.Parameter(torch.zeros(size)) for size in sizes)

    def initial_state(self, batch_size: int) -> State:
        """The state before the first step, each tensor (B, size)."""
        if len(self.initial):
            return tuple(start.expand(batch_size, -1) for start in self.initial)
        like = next(parameter for parameter in self.parameters() if parameter.is_floating_point())
        return tuple(like.new_zeros(batch_size, size) for size in self.state_sizes)

    @abstractmethod
    def weights(self) -> Any:
        """All that depends only on parameters, such as W = exp(A); computed once per pass."""

    def drive(self, x: Tensor, w: Any) -> Tensor:
        """All that depends only on the input: (T, B, I) to (T, B, G), every step in one product; ``input(x)``."""
        if not hasattr(self, "input"):
            raise UserError(
                f"{type(self).__name__} has no map called input, which drive(x, w) applies: call V x_t + b so, or "
                "define drive."
            )
        return self.input(x)

    @abstractmethod
    def step(self, u: Tensor, state: State, w: Any) -> tuple[Tensor, State]:
        """From the drive u_t (B, G) and the state to the output y_t (B, output_size) and the next state."""

    def forward(self, *_: Any, **__: Any) -> NoReturn:
        """A cell is not called; says what to call instead."""
        raise UserError(
            f"{type(self).__name__} is one step of a recurrence and cannot be called: run it over a sequence with "
            f"lit_rnn.scan.scan(cell, x), x (T, B, {self.input_size}), time first, or take one step with "
            "cell.step(u_t, state, w)."
        )

    def input_matrices(self) -> list[Tensor]:
        """V of x_t, views of the parameters; the gates of a gated cell come apart."""
        return [self.input.weight]

    def start_input_(self, init: InputInit) -> None:
        """Start V by its name in `lit_rnn.init.INPUT_INITS`, gate by gate; ``torch`` means b, too, where no gate is.

        Raises:
            UserError: where the cell has no linear map ``input``.
        """
        linear: Any = getattr(self, "input", None)
        accepted = f"'cell': {type(self).__name__} has a map of its own for its inputs"
        require(isinstance(linear, nn.Linear), "model.init_args.input_init", init, accepted)
        matrices = self.input_matrices()
        for V in matrices:
            INPUT_INITS[init](V)
        if init == "torch" and len(matrices) == 1 and linear.bias is not None:
            nn.init.uniform_(linear.bias, -(linear.in_features**-0.5), linear.in_features**-0.5)

    @abstractmethod
    def recurrent_matrices(self) -> dict[str, Tensor]:
        """The matrices W of h_t = f(W h_{t-1} + ...), each (n, n); the gates of a gated cell come apart."""

    def recurrent_parameters(self) -> list[nn.Parameter]:
        """The parameters behind the recurrent matrices: those of the submodule ``recurrent``."""
        return list(self.get_submodule("recurrent").parameters())


def start_of(cell: Cell, batch_size: int) -> State:
    """``cell.initial_state(batch_size)``; raises `UserError` unless it is a tuple of tensors with so many rows."""
    state: Any = cell.initial_state(batch_size)
    parts = state if isinstance(state, tuple | list) else ()
    if not parts or not all(isinstance(part, Tensor) and part.shape[:1] == (batch_size,) for part in parts):
        given = f"a tensor {structure(state)}" if isinstance(state, Tensor) else structure(state)
        raise UserError(
            f"{type(cell).__name__}.initial_state returns {given}, but it must return a tuple of tensors (B, ...), "
            f"here (({batch_size}, ...), ...)."
        )
    start: State = state
    return start


def check_cell(cell: object) -> None:
    """Raise `UserError` for what is no cell, such as a model."""
    if not isinstance(cell, Cell):
        given = f"of type {type(cell).__name__}"
        raise UserError(f"cell is {given}, but it must be a lit_rnn.cells.Cell: a model's are cell_list().")


def check_step(cell: Cell, stepped: object, before: State) -> None:
    """Raise `UserError` unless what a step returned is (y, state), the state with the shapes that it had before."""
    should = f"(({len(before[0])}, {cell.output_size}), {structure(tuple(before))})"
    if structure(stepped) != should:
        raise UserError(
            f"{type(cell).__name__}.step returns {structure(stepped)}, but it must return (y, state), here {should}: "
            "the state is a tuple, of the shapes that came in."
        )


def structure(value: object) -> str:
    """Shapes of tensors, in the tuples that hold them; the types of all else."""
    if isinstance(value, Tensor):
        return str(tuple(value.shape))
    if isinstance(value, tuple | list):
        return f"({', '.join(map(structure, value))}{',' * (len(value) == 1)})"
    return type(value).__name__
