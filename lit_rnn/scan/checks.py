"""What a backend may be given, told in a sentence: once per pass or part of one, before anything takes an address."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from datamodules.errors import UserError
from lit_rnn.cells.base import Cell, State, check_cell, start_of
from lit_rnn.dtypes import described, dtype_name


def check(name: str, tensor: Tensor | None, shape: Sequence[int], dtype: torch.dtype, device: torch.device) -> Tensor:
    """The tensor; raises `UserError` unless it is dense, of this shape and type, and there."""
    if not isinstance(tensor, Tensor) or (tensor.shape, tensor.dtype, tensor.device) != (tuple(shape), dtype, device):
        accepted = f"{dtype_name(dtype)} {tuple(shape)} on {device}"
        raise UserError(f"{name} is {described(tensor)}, but this backend must be given {accepted}.")
    if not _is_dense(tensor):
        raise UserError(f"{name} is {tensor.layout}, but this backend must be given a dense tensor.")
    return tensor


def check_inputs(cell: Cell, x: Tensor) -> None:
    """Raise `UserError` unless x is dense, real (T, B, input_size), with at least one step, where the cell is, and,
    without autocast, in the type of its input map."""
    check_cell(cell)
    kind = type(cell).__name__
    if not (isinstance(x, Tensor) and x.is_floating_point() and _is_dense(x)):
        given = described(x) if not isinstance(x, Tensor) or _is_dense(x) else f"{described(x)}, {x.layout}"
        raise UserError(f"x is {given}, but it must be a dense tensor of real floating-point numbers.")
    if x.dim() != 3 or x.shape[2] != cell.input_size or not len(x):
        accepted = f"(T, B, {cell.input_size}), of at least one step, time first, as wide as its input_size"
        raise UserError(f"x is {described(x)}, but {kind} reads {accepted}.")
    weight = getattr(getattr(cell, "input", None), "weight", None)
    like = weight if isinstance(weight, Tensor) else next(cell.parameters(), x)
    mixed = x.device == like.device and torch.is_autocast_enabled(x.device.type)
    if x.device != like.device or (like is weight and not mixed and like.dtype != x.dtype):
        accepted = f"{dtype_name(like.dtype)} on {like.device}: move one to the other"
        raise UserError(f"x is {described(x)}, but the weights of {kind} are {accepted}.")


def checked(cell: Cell, x: Tensor, state: State | None, W: Tensor | None) -> State:
    """The state before the first step of x (T, B, I): the given one, else the cell's own.

    Raises:
        UserError: unless the cell's own is a tuple of tensors, and the given state is as ``cell.initial_state(B)`` in
            number, shapes and place, and in its type or in that of W, in which a pass ends. Under autocast types may
            differ, but real ones are no complex ones.
    """
    kind, own = type(cell).__name__, start_of(cell, x.shape[1])
    if state is None:
        return own
    if not isinstance(state, Sequence) or len(state) != len(own):
        given = described(state) if not isinstance(state, Sequence) else f"{len(state)} tensors"
        raise UserError(f"The state is {given}, but that of {kind} is a tuple of {len(own)}.")
    for number, (part, expected) in enumerate(zip(state, own, strict=True)):
        if not _continues(part, expected, W):
            accepted = f"{described(expected)}, dense, for a batch of {x.shape[1]}"
            raise UserError(f"state[{number}] is {described(part)}, but that of {kind} must be {accepted}.")
    return tuple(state)


def _continues(part: object, own: Tensor, W: Tensor | None) -> bool:
    """Whether a part of a state is as the cell's own, but for precision where that may differ."""
    if not isinstance(part, Tensor) or (part.shape, part.device) != (own.shape, own.device) or not _is_dense(part):
        return False
    if part.dtype == own.dtype:
        return True
    if part.is_complex() != own.is_complex() or not (part.is_complex() or part.is_floating_point()):
        return False
    return torch.is_autocast_enabled(part.device.type) or (W is not None and part.dtype.to_real() == W.dtype.to_real())


def is_just(module: nn.Module, kind: type[nn.Module]) -> bool:
    """Whether a call of ``module`` is the ``forward`` of ``kind`` and no more: no other one, and no hook.

    A backend that reads a module's numbers instead of calling it asks first.
    """
    hooks = module._forward_hooks, module._forward_pre_hooks, module._backward_hooks, module._backward_pre_hooks
    return type(module).forward is kind.forward and "forward" not in vars(module) and not any(hooks)


def _is_dense(tensor: Tensor) -> bool:
    return tensor.layout == torch.strided and not tensor.is_nested
