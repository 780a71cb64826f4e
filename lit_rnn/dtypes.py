"""Precision: modules that are moved to another dtype (real tensors stay real, complex ones complex), products, and what
a sentence calls a tensor."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from datamodules.errors import UserError

Move = Callable[[Tensor], Tensor]


class KeepsKind(nn.Module):
    """A module whose tensors, those of its submodules included, keep their kind in ``to``, ``double``, ``half`` etc.

    torch makes a complex tensor float64 by dropping its imaginary part, and leaves it as it is in ``double``. Here it
    follows what a real one beside it becomes: complex128 with float64, complex64 with float32 and everything coarser.

    Raises:
        UserError: for a complex dtype, before anything is moved: a real parameter has no imaginary part to train.
    """

    in_single: ClassVar[bool] = False
    """Whether real tensors, too, stay in float32 where others become coarser."""

    def _apply(self, fn: Move, recurse: bool = True) -> Self:
        asked = fn(torch.empty(0)).dtype
        if asked.is_complex:
            raise UserError(
                f"{type(self).__name__} cannot be moved to {asked}, but to a real dtype: "
                f"with {asked.to_real()} its complex parameters, if it has any, become {asked}."
            )
        return super()._apply(lambda tensor: _moved(tensor, fn, self.in_single), recurse)


def _moved(tensor: Tensor, fn: Move, in_single: bool) -> Tensor:
    """What ``fn``, which moves real tensors, makes of ``tensor`` if that keeps its kind."""
    if tensor.is_complex():
        tensor = tensor.resolve_conj()
        parts = torch.view_as_real(tensor)
    elif tensor.is_floating_point() and in_single:
        parts = tensor
    else:
        return fn(tensor)
    probe = fn(parts.new_empty(0))
    if probe.dtype.itemsize < 4:
        return tensor.to(probe.device, torch.complex64 if tensor.is_complex() else torch.float32)
    moved = fn(parts)
    return torch.view_as_complex(moved) if tensor.is_complex() else moved


def dtype_name(dtype: torch.dtype) -> str:
    """Such as ``float32``."""
    return str(dtype).removeprefix("torch.")


def described(tensor: object) -> str:
    """Such as ``float32 (3, 8) on cpu``."""
    if not isinstance(tensor, Tensor):
        return f"of type {type(tensor).__name__}"
    return f"{dtype_name(tensor.dtype)} {tuple(tensor.shape)} on {tensor.device}"


def as_plain(tensor: Tensor) -> Tensor:
    """The tensor in a dtype that NumPy has: bfloat16 and float16 as float32."""
    return tensor.float() if tensor.is_floating_point() and tensor.dtype.itemsize < 4 else tensor


def as_precise(tensors: tuple[Tensor, ...], w: Any) -> tuple[Tensor, ...]:
    """The tensors in the precision of W: with ``bf16-true`` maps keep theirs, and so does what W is applied to."""
    W = first(w)
    return tensors if W is None else tuple(as_inputs(tensor, W) for tensor in tensors)


def first(w: Any) -> Tensor | None:
    """W, where ``weights()`` gives it or a tuple that it comes first in."""
    while isinstance(w, tuple) and w:
        w = w[0]
    return w if isinstance(w, Tensor) else None


def mapped_first(w: Any, f: Move) -> Any:
    """w with f of W in its place."""
    if isinstance(w, tuple) and w:
        return getattr(type(w), "_make", tuple)((mapped_first(w[0], f), *w[1:]))
    return f(w) if isinstance(w, Tensor) else w


def as_inputs(y: Tensor, x: Tensor) -> Tensor:
    """y in the dtype of x, unless one of them is complex or no number of floating point."""
    return y.to(x.dtype) if y.is_floating_point() and x.is_floating_point() else y


def rounds_as_ieee() -> bool:
    """Whether products in float32 on a GPU are float32's, and not TF32's, which has ten bits.

    ``torch.set_float32_matmul_precision`` says it, or what came after it,
    ``torch.backends.cuda.matmul.fp32_precision``: where that was used, torch refuses to be asked about the other.
    """
    matmul: Any = torch.backends.cuda.matmul
    return matmul.fp32_precision in ("none", "ieee")
