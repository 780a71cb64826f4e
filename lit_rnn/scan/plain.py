"""The plain recurrence on the CPU, as one call into C++ (`plain.cpp`)."""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from lit_rnn.activations import COMPLEX_EPS
from lit_rnn.scan.native import Memory, addresses, function, packed, packed_shape, readable
from lit_rnn.scan.packed import Blocks, rows_of_steps, size
from lit_rnn.scan.recurrence import COMPLEX, KINDS, Dense, Kept, Loss


class Steps(NamedTuple):
    """Some steps of a plain recurrence, as C++ is told of them."""

    kind: str
    blocks: Blocks
    width: int  # of the states
    threads: int
    dtype: torch.dtype

    @classmethod
    def of(cls, kind: str, kept: Kept) -> Steps:
        return cls(kind, kept.blocks, kept.h.shape[1], torch.get_num_threads(), kept.h.dtype)

    @property
    def units(self) -> int:
        return self.width // (1 + (self.kind == COMPLEX))

    @property
    def steps(self) -> int:
        return sum(block.steps for block in self.blocks)

    @property
    def batch(self) -> int:
        """How many rows the first step has."""
        return self.blocks[0].rows

    def forward(
        self,
        library_name: str,
        sizes: Sequence[int],
        own: Sequence[Memory],
        u: Tensor,
        kept: Kept,
        bias: Tensor | None,
        *numbers: int,
    ) -> None:
        """Fill ``kept`` behind its first states: `Engine.forward` with W in the form that this library takes."""
        self._call(
            library_name,
            "forward",
            sizes,
            *own,
            self._all("The drive", readable(u)),
            self.before(kept),
            self._bias(bias),
            self._all("The states", kept.h),
            None if kept.modulus is None else self._modulus(kept.modulus),
            numbers=(*numbers, COMPLEX_EPS),
        )

    def backward(
        self,
        library_name: str,
        sizes: Sequence[int],
        own: Sequence[Memory | None],
        loss: Loss,
        kept: Kept,
        bias: Tensor | None,
        delta: Tensor,
        by_W: Sequence[Memory] = (),
        numbers: Sequence[int] = (),
    ) -> Tensor | None:
        """Fill ``delta`` and what is in ``by_W``: `Engine.backward`; gives the gradient by the bias."""
        by_bias = self.sums(self.units)
        self._call(
            library_name,
            "backward",
            sizes,
            *own,
            None if loss.each is None else self._all("The gradient by the states", readable(loss.each)),
            Memory("The gradient by the last states", loss.last, (self.blocks[-1].rows, self.width)),
            self._all("The states", kept.h),
            self._modulus(kept.modulus),
            self._bias(bias),
            self._all("The gradient by the drive", delta),
            Memory("The gradient by the bias", by_bias, (self.threads, self.units)),
            *by_W,
            numbers=numbers,
        )
        return None if bias is None else by_bias.sum(0)

    def sums(self, *shape: int) -> Tensor:
        """Zeros for each thread to add its gradients to."""
        return torch.zeros(self.threads, *shape, dtype=self.dtype)

    def before(self, kept: Kept) -> Memory:
        return Memory("The initial state", kept.before, (self.batch, self.width))

    def _call(
        self,
        library_name: str,
        name: str,
        sizes: Sequence[int],
        *memory: Memory | None,
        numbers: Sequence[int | float],
    ) -> None:
        first = KINDS.index(self.kind), self.steps, *sizes, self.units, self.threads
        function(library_name, name, self.dtype)(
            *map(ctypes.c_int, first),
            *addresses(memory, self.dtype),
            *(ctypes.c_int(number) if isinstance(number, int) else ctypes.c_double(number) for number in numbers),
        )

    def _all(self, name: str, tensor: Tensor) -> Memory:
        """What is there for every packed row."""
        return Memory(name, tensor, (size(self.blocks), self.width))

    def _bias(self, bias: Tensor | None) -> Memory | None:
        named = Memory("The bias of modReLU", None if bias is None else readable(bias), (self.units,))
        return named if "modrelu" in self.kind else None

    def _modulus(self, modulus: Tensor | None) -> Memory | None:
        named = Memory("The modulus", modulus, (size(self.blocks), self.units))
        return named if self.kind == COMPLEX else None


class Native(Dense):
    """The two recursions in C++, for the CPU: all blocks in one call."""

    many_blocks = True

    def forward(self, u: Tensor, kept: Kept) -> None:
        steps = Steps.of(self.kind, kept)
        steps.forward("plain", (), [_rows(steps), self._matrix(self._transposed, steps)], u, kept, self.bias)

    def deltas(self, loss: Loss, kept: Kept, delta: Tensor) -> Tensor | None:
        steps = Steps.of(self.kind, kept)
        loss = loss._replace(last=readable(loss.last))
        ended = Memory("The gradient by what ends", readable(loss.ended), (steps.batch, steps.width))
        own = [_rows(steps), self._matrix(self._packed, steps), ended if loss.each is None else None]
        return steps.backward("plain", (), own, loss, kept, self.bias, delta)

    @functools.cached_property
    def _transposed(self) -> Tensor:
        return self._prepared(self.W.mT)

    @functools.cached_property
    def _packed(self) -> Tensor:
        return self._prepared(self.W)

    def _prepared(self, M: Tensor) -> Tensor:
        """One packed matrix, or the three that a complex one becomes: (1 or 3, units, columns)."""
        n = len(M)
        if self.kind != COMPLEX:
            return packed("plain", M, (n, n))[None]
        n //= 2  # M is [[A, B], [-B, A]]
        real, imaginary = M[:n, :n], M[:n, n:]
        return torch.stack([packed("plain", part, (n, n)) for part in (real, imaginary, real + imaginary)])

    def _matrix(self, prepared: Tensor, steps: Steps) -> Memory:
        shape = packed_shape((steps.units, steps.units), steps.dtype)
        return Memory("The recurrent matrix", prepared, (3 if self.kind == COMPLEX else 1, *shape))


def _rows(steps: Steps) -> Memory:
    """How many rows each step has."""
    return Memory("The rows", rows_of_steps(steps.blocks), (steps.steps,), torch.int32)
