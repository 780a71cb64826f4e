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
from lit_rnn.scan.recurrence import COMPLEX, KINDS, Dense, Kept


class Steps(NamedTuple):
    """Some steps of a plain recurrence, as C++ is told of them."""

    kind: str
    steps: int
    batch: int
    width: int  # of the states
    threads: int
    dtype: torch.dtype

    @classmethod
    def of(cls, kind: str, h: Tensor) -> Steps:
        """Of states h (steps, B, width)."""
        steps, batch, width = h.shape
        return cls(kind, steps, batch, width, torch.get_num_threads(), h.dtype)

    @property
    def units(self) -> int:
        return self.width // (1 + (self.kind == COMPLEX))

    def run(self, library_name: str, name: str, *memory: Memory | None, numbers: Sequence[int | float] = ()) -> None:
        sizes = KINDS.index(self.kind), self.steps, self.batch, self.units, self.threads
        function(library_name, name, self.dtype)(
            *map(ctypes.c_int, sizes),
            *addresses(memory, self.dtype),
            *(ctypes.c_int(number) if isinstance(number, int) else ctypes.c_double(number) for number in numbers),
        )

    def all(self, name: str, tensor: Tensor) -> Memory:
        """What is there for every step."""
        return Memory(name, tensor, (self.steps, self.batch, self.width))

    def one(self, name: str, tensor: Tensor) -> Memory:
        """What is there for one step."""
        return Memory(name, tensor, (self.batch, self.width))

    def bias(self, bias: Tensor | None) -> Memory | None:
        named = Memory("The bias of modReLU", None if bias is None else readable(bias), (self.units,))
        return named if "modrelu" in self.kind else None

    def modulus(self, modulus: Tensor | None) -> Memory | None:
        named = Memory("The modulus", modulus, (self.steps, self.batch, self.units))
        return named if self.kind == COMPLEX else None

    def sums(self, *shape: int) -> Tensor:
        """Zeros for each thread to add its gradients to."""
        return torch.zeros(self.threads, *shape, dtype=self.dtype)

    def by_bias(self, sums: Tensor) -> Memory:
        return Memory("The gradient by the bias", sums, (self.threads, self.units))


class Native(Dense):
    """The two recursions in C++, for the CPU."""

    def forward(self, u: Tensor, kept: Kept) -> None:
        h, modulus = kept
        steps = Steps.of(self.kind, h[1:])
        steps.run(
            "plain",
            "forward",
            steps.all("The drive", readable(u)),
            steps.one("The initial state", h[0]),
            self._matrix(self._transposed, steps),
            steps.bias(self.bias),
            steps.all("The states", h[1:]),
            None if modulus is None else steps.modulus(modulus),
            numbers=(COMPLEX_EPS,),
        )

    def deltas(self, direct: Tensor | None, through: Tensor, kept: Kept, delta: Tensor) -> Tensor | None:
        steps = Steps.of(self.kind, delta)
        by_bias = steps.sums(steps.units)
        steps.run(
            "plain",
            "backward",
            None if direct is None else steps.all("The gradient by the states", readable(direct)),
            steps.one("The gradient by the last state", readable(through)),
            self._matrix(self._packed, steps),
            steps.all("The states", kept.h[1:]),
            steps.modulus(kept.modulus),
            steps.bias(self.bias),
            steps.all("The gradient by the drive", delta),
            steps.by_bias(by_bias),
        )
        return None if self.bias is None else by_bias.sum(0)

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
