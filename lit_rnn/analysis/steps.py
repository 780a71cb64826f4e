"""A cell as a map of flat joint states, in float64, with its Jacobian."""

from __future__ import annotations

import copy

import torch
from torch import Tensor

from datamodules.errors import UserError, require, whole
from lit_rnn.cells.base import Cell, State, check_cell, start_of, structure

JACOBIAN_ENTRIES = 2**20  # worked out at once


def flat_state(state: State) -> Tensor:
    """The joint state as one real vector per sequence, (B, N): its tensors side by side, [Re | Im] of complex ones."""
    return torch.cat([part for tensor in state for part in _real_parts(tensor)], dim=-1)


def _real_parts(tensor: Tensor) -> tuple[Tensor, ...]:
    return (tensor.real, tensor.imag) if tensor.is_complex() else (tensor,)


def _unflat(flat: Tensor, like: State) -> State:
    sizes = [part.shape[-1] for tensor in like for part in _real_parts(tensor)]
    parts = iter(flat.split(sizes, dim=-1))
    return tuple(torch.complex(next(parts), next(parts)) if tensor.is_complex() else next(parts) for tensor in like)


def _form(state: object) -> str:
    """Its shapes, and which of its tensors are complex."""
    parts = state if isinstance(state, tuple | list) else ()
    kinds = ["complex" if isinstance(part, Tensor) and part.is_complex() else "real" for part in parts]
    return ", ".join(filter(None, [structure(state), " and ".join(kinds)]))


def _double(tensor: Tensor) -> Tensor:
    precise = torch.complex128 if tensor.is_complex() else torch.float64
    return tensor.to(precise) if tensor.is_complex() or tensor.is_floating_point() else tensor


def check_driven(x: Tensor, width: int) -> None:
    """Raise `UserError` unless x is real (T, B, width), of at least one step and one sequence."""
    accepted = f"(T, B, {width}), real, time first, T and B at least 1"
    if not isinstance(x, Tensor):
        raise UserError(f"x is of type {type(x).__name__}, but it must be a tensor {accepted}.")
    fits = not x.is_complex() and x.ndim == 3 and x.numel() > 0 and x.shape[2] == width
    require(fits, "x", f"a tensor of shape {tuple(x.shape)}{', complex' if x.is_complex() else ''}", accepted)


class StepMap:
    """s_t = F(s_{t-1}, u_t) of flat joint states s (B, N), `flat_state`, in float64 from a copy of the cell.

    Of the joint state: (h, c) of an LSTM, (h, m) of an NRU; N is the sum of its widths, those of complex tensors twice.

    Args:
        cell: Any cell.

    Raises:
        UserError: for what is no cell, and inputs or a batch size that it cannot have.
    """

    def __init__(self, cell: Cell) -> None:
        check_cell(cell)
        with torch.inference_mode(False), torch.no_grad():
            self._cell = copy.deepcopy(cell).eval()
            for tensor in (*self._cell.parameters(), *self._cell.buffers()):
                tensor.data = _double(tensor.data)
            self._w = self._cell.weights()
            self._like = start_of(self._cell, 1)

    def drive(self, x: Tensor) -> Tensor:
        """u (T, B, G) of inputs x (T, B, I)."""
        check_driven(x, self._cell.input_size)
        with torch.inference_mode(False), torch.no_grad():
            return self._cell.drive(_double(x.clone()), self._w)

    def start(self, batch_size: int) -> Tensor:
        """The cell's own state before the first step, flat."""
        with torch.no_grad():
            return flat_state(self._cell.initial_state(whole(batch_size, "batch_size", 1)))

    def flat(self, state: State, batch_size: int) -> Tensor:
        """A state of so many sequences, flat; raises `UserError` unless it is as the cell's own."""
        own = start_of(self._cell, batch_size)
        if _form(state) != _form(own):
            accepted = f"that of {type(self._cell).__name__} must be {_form(own)}"
            raise UserError(f"state is {_form(state)}, but {accepted}.")
        return flat_state(tuple(_double(part.clone()) for part in state))

    def __call__(self, u: Tensor, s: Tensor) -> Tensor:
        """F(s, u), (B, N)."""
        return flat_state(self._cell.step(u, _unflat(s, self._like), self._w)[1])

    def is_affine(self, u: Tensor) -> bool:
        """Whether F(., u) is affine: half way between two states it is half way between their images.

        Tried between random states, a pair for each of u (B, G), so that a kink between none of them is not seen.
        """
        draws = torch.Generator().manual_seed(0)
        a, b = torch.randn(2, len(u), self.start(1).shape[1], generator=draws, dtype=torch.float64)
        with torch.no_grad():
            middle, between = self(u, (a + b) / 2), (self(u, a) + self(u, b)) / 2
        return bool(torch.allclose(middle, between, rtol=1e-9, atol=1e-9))

    def with_jacobian(self, u: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
        """F(s, u) and dF/ds, (B, N, N), of sequences that do not see each other.

        Cost N steps of the cell, forward and backward, for each of B.
        """
        after, rows = [], []
        few = max(1, JACOBIAN_ENTRIES // s.shape[-1] ** 2)  # sequences
        with torch.inference_mode(False), torch.enable_grad():
            for some_u, some in zip(u.split(few), s.split(few), strict=True):
                reached, jacobian = self._few(some_u, some)
                after.append(reached)
                rows.append(jacobian)
        return torch.cat(after), torch.cat(rows)

    def _few(self, u: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
        size = s.shape[-1]
        before = s.repeat_interleave(size, 0).requires_grad_()  # a copy of each sequence for each row of its Jacobian
        after = self(u.repeat_interleave(size, 0), before)
        directions = torch.eye(size, dtype=s.dtype, device=s.device).repeat(len(s), 1)
        (rows,) = torch.autograd.grad(after, before, directions, materialize_grads=True)  # its zeros ask for gradients
        return after.detach()[::size], rows.detach().unflatten(0, (len(s), size))
