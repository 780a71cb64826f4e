"""A trained network as a plain torch module of real numbers, its weights as they are applied: what is exported."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_iter, tree_unflatten

from datamodules.errors import UserError, one_of
from lit_rnn.activations import COMPLEX_EPS, ComplexModReLU, identity
from lit_rnn.cells.base import Cell, State, start_of
from lit_rnn.cells.orthogonal import UnitaryCell
from lit_rnn.cells.plain import PlainCell
from lit_rnn.dtypes import dtype_name
from lit_rnn.models import SequenceModel
from lit_rnn.scan.drive import halves
from lit_rnn.scan.fused import matrix_on_halves

Form = Literal["step", "sequence"]


class AppliedCell(nn.Module):
    """A cell whose ``weights()`` are buffers, computed once; a copy of it, on the CPU.

    Args:
        cell: The cell.
    """

    def __init__(self, cell: Cell) -> None:
        super().__init__()
        self.cell = _fixed(cell)
        leaves, self._structure = tree_flatten(self._weights())
        self.shapes = [tuple(part.shape[1:]) for part in state_of(cell, 1)]
        self._others = [None if isinstance(leaf, Tensor) else leaf for leaf in leaves]
        for number, leaf in enumerate(leaves):
            if isinstance(leaf, Tensor):
                self.register_buffer(f"w{number}", leaf.detach().clone())

    def _weights(self) -> Any:
        return self.cell.weights()

    @property
    def w(self) -> Any:
        leaves = [getattr(self, f"w{number}", other) for number, other in enumerate(self._others)]
        return tree_unflatten(leaves, self._structure)

    def drive(self, x: Tensor) -> Tensor:
        return self.cell.drive(x, self.w)

    def step(self, u: Tensor, state: State) -> tuple[Tensor, State]:
        return self.cell.step(u, state, self.w)


class AppliedUnitaryCell(AppliedCell):
    """A `UnitaryCell` on [Re | Im] (B, 2n), with a real W (2n, 2n): ONNX has no complex numbers.

    h_t = z relu(r + b) / r,  z = W h_{t-1} + V x_t,  r = sqrt(Re z^2 + Im z^2 + eps), as `lit_rnn.activations` has it;
    of a linear cell h_t = z.
    """

    cell: UnitaryCell

    def _weights(self) -> Tensor:
        return matrix_on_halves(self.cell.weights())

    def drive(self, x: Tensor) -> Tensor:
        return self.cell.input(x)

    def step(self, u: Tensor, state: State) -> tuple[Tensor, State]:
        z = torch.addmm(u, state[0], self.w.mT)
        real, imaginary = z.chunk(2, dim=-1)
        f = self.cell.activation
        if isinstance(f, ComplexModReLU):
            modulus = torch.sqrt(real.square() + imaginary.square() + COMPLEX_EPS)
            scale = torch.relu(modulus + f.bias) / modulus
            real, imaginary = real * scale, imaginary * scale
        h = torch.cat((real, imaginary), dim=-1)
        return real if self.cell.real_output else h, (h,)


class Step(nn.Module):
    """``(input, *state)`` of one time step to ``(output, *state)``; the state is that of all layers, one after another.

    Of a model: symbols (B,) or values (B, input_size) in, what its decoder makes of this step out, (B, target_size).
    Of a cell: x_t (B, I) to y_t (B, output_size).

    Args:
        source: The model or the cell, which is copied.
    """

    def __init__(self, source: SequenceModel | Cell) -> None:
        super().__init__()
        cells = source.cell_list() if isinstance(source, SequenceModel) else [source]
        self.layers = nn.ModuleList(_applied(cell) for cell in cells)
        model = source if isinstance(source, SequenceModel) else None
        if model is not None and model.task.labels > 1:
            raise UserError(f"{model.task.name} has {model.task.labels} labels a step: only one can be exported.")
        self.decoder = None if model is None else copy.deepcopy(model.decoder).cpu().eval()
        self.symbols = model.task.input_size if model is not None and model.task.inputs == "symbols" else None
        self.input_size = cells[0].input_size
        self.per_step = model is None or model.task.per_step
        self.batch_first = model is not None
        self.dtype = next(self.parameters()).dtype
        self.requires_grad_(False)

    def applied(self) -> Iterator[AppliedCell]:
        yield from self.layers  # type: ignore[misc]  # ModuleList does not tell its element type

    def _state(self) -> State:
        return tuple(torch.zeros(3, *shape, dtype=self.dtype) for layer in self.applied() for shape in layer.shapes)

    def example(self) -> tuple[Tensor, ...]:
        """Arguments of a batch of 3."""
        return self._inputs(3), *self._state()

    def _inputs(self, *shape: int) -> Tensor:
        if self.symbols is not None:
            return torch.zeros(shape, dtype=torch.int64)
        return torch.zeros(*shape, self.input_size, dtype=self.dtype)

    def encode(self, inputs: Tensor) -> Tensor:
        return inputs if self.symbols is None else nn.functional.one_hot(inputs, self.symbols).to(self.dtype)

    def decode(self, y: Tensor) -> Tensor:
        return y if self.decoder is None else self.decoder(y)

    def forward(self, inputs: Tensor, *state: Tensor) -> tuple[Tensor, ...]:
        y, left = self.encode(inputs), list(state)
        after: list[Tensor] = []
        for layer in self.applied():
            own = tuple(left.pop(0) for _ in layer.shapes)
            y, own = layer.step(layer.drive(y[None])[0], own)
            after += own
        return self.decode(y), *after


class Sequence(Step):
    """``(inputs, *state)`` of any number of steps to ``(outputs, *state)``.

    Of a model: symbols (B, T) or values (B, T, input_size) in, `SequenceModel.run`'s outputs out. Of a cell: as
    `lit_rnn.scan.scan`, time first. It only runs exported: torch keeps the loop over time for that.
    """

    def example(self) -> tuple[Tensor, ...]:
        """Arguments of a batch of 3, 4 steps long."""
        return self._inputs(*((3, 4) if self.batch_first else (4, 3))), *self._state()

    def forward(self, inputs: Tensor, *state: Tensor) -> tuple[Tensor, ...]:
        from torch._higher_order_ops.scan import scan  # takes seconds to import

        y, left = self.encode(inputs), list(state)
        after: list[Tensor] = []
        y = y.transpose(0, 1) if self.batch_first else y
        for layer in self.applied():
            own = tuple(left.pop(0) for _ in layer.shapes)

            def step(before: State, u: Tensor, layer: AppliedCell = layer) -> tuple[State, Tensor]:
                y, state = layer.step(u, before)
                return tuple(part.clone() for part in state), y.clone()  # which may be one tensor, and must not

            own, y = scan(step, own, layer.drive(y))
            after += own
        if not self.per_step:
            return self.decode(y[-1]), *after
        return self.decode(y.transpose(0, 1) if self.batch_first else y), *after


FORMS: dict[Form, type[Step]] = {"step": Step, "sequence": Sequence}


def initial_state(source: SequenceModel | Cell, batch_size: int) -> State:
    """What an exported network starts from: the state of all layers, one after another, complex ones as [Re | Im].

    Raises:
        UserError: for what cannot be exported.
    """
    return tuple(part for cell in _checked(source) for part in state_of(cell, batch_size))


def state_of(cell: Cell, batch_size: int) -> State:
    """Its initial state in real numbers, on the CPU."""
    parts = [part.detach().cpu() for part in start_of(cell, batch_size)]
    return tuple(halves(part) if part.is_complex() else part.contiguous() for part in parts)


@torch.no_grad()
def network(source: SequenceModel | Cell, form: Form) -> Step:
    """The module that is exported, without the parameters that only its weights were made of.

    Raises:
        UserError: for what cannot be exported.
    """
    one_of(form, "form", FORMS)
    _checked(source)
    module = FORMS[form](source)
    used = _Used()
    with used:
        Step.forward(module, *Step.example(module))
    for part in module.modules():
        for tensors in (part._parameters, part._buffers):
            for name, tensor in tensors.items():
                if tensor is not None and id(tensor) not in used.seen:
                    tensors[name] = None
    return module


class _Used(TorchDispatchMode):
    """Notes the tensors that operations read."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.seen |= {id(leaf) for leaf in tree_iter((args, kwargs)) if isinstance(leaf, Tensor)}
        return func(*args, **(kwargs or {}))


@torch.no_grad()
def _fixed(cell: Cell) -> Cell:
    """A copy on the CPU, with every bounded weight (`constrain_recurrent`) as it is applied."""
    cell = copy.deepcopy(cell).cpu().eval()
    for module in list(cell.modules()):
        if parametrize.is_parametrized(module):  # torch's remove_parametrizations would change the original's class too
            values = {name: getattr(module, name) for name in module.parametrizations}  # type: ignore[union-attr]  # it has them
            module.__class__ = parametrize.type_before_parametrizations(module)
            del module.parametrizations
            for name, value in values.items():
                module.register_parameter(name, nn.Parameter(value))
    return cell


@torch.no_grad()
def _applied(cell: Cell) -> AppliedCell:
    return AppliedUnitaryCell(cell) if _is_unitary(cell) else AppliedCell(cell)


def _checked(source: object) -> list[Cell]:
    """The cells of a network; raises `UserError` for one that is not known how to write down."""
    if not isinstance(source, SequenceModel | Cell):
        raise UserError(f"A {type(source).__name__} cannot be exported, but a SequenceModel or a Cell can.")
    if isinstance(source, SequenceModel) and not source.is_chain():
        raise UserError(
            f"{type(source).__name__} has more than cells and a decoder (embedding_size, encoder_size, norm, residual, "
            "mixing, pooling or bidirectional), and only those are exported."
        )
    if isinstance(source, SequenceModel):
        for name in ("forward", "run", "features", "encode", "decode"):
            if getattr(type(source), name) is not getattr(SequenceModel, name):
                kind = type(source).__name__
                raise UserError(f"{kind} has a {name} of its own, and only encoder, cells and decoder are exported.")
    numbers = [tensor for tensor in source.parameters() if tensor.is_floating_point() or tensor.is_complex()]
    dtypes = {tensor.dtype.to_real() for tensor in numbers}
    if len(dtypes) > 1 or not dtypes <= {torch.float32, torch.float64}:
        given = " and ".join(sorted(dtype_name(dtype) for dtype in dtypes))
        raise UserError(f"The weights are {given}, but they must be float32 or float64: call .float() or .double().")
    cells = source.cell_list() if isinstance(source, SequenceModel) else [source]
    for cell in cells:
        if any(part.is_complex() for part in cell.initial_state(1)) and not _is_unitary(cell):
            raise UserError(
                f"{type(cell).__name__} has a complex state and a step of its own: ONNX has no complex numbers, and "
                "only the step of UnitaryCell is written in real ones."
            )
    return cells


def _is_unitary(cell: Cell) -> bool:
    """Whether `AppliedUnitaryCell` is what it does."""
    if not isinstance(cell, UnitaryCell):
        return False
    if type(cell.activation) is not ComplexModReLU and cell.activation is not identity:
        return False
    kind = type(cell)
    return (kind.step, kind.drive, kind.read) == (PlainCell.step, UnitaryCell.drive, UnitaryCell.read)
