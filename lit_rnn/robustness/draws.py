"""Random numbers for attacks, which do not depend on how many examples are run at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import torch
from torch import Generator, Tensor

from datamodules.errors import as_seed

BLOCK = 100


class Draws:
    """Random numbers for some examples, drawn on the CPU: the same on every device.

    Examples are drawn for in whole blocks, block b from a generator of ``seed`` + b, and the rows take theirs: what an
    example gets in its k-th draw is a function of the seed and its number alone, not of which others there are.

    Args:
        seed: Of block 0.
        rows: The examples' numbers.
        block: How many are drawn for together.
    """

    def __init__(self, seed: int, rows: range, block: int = BLOCK) -> None:
        seed = as_seed(seed)
        first, behind = rows.start // block, (rows.stop - 1) // block + 1
        self._block = block
        self._generators = [Generator().manual_seed(seed + number) for number in range(first, behind)]
        self._rows = slice(rows.start - first * block, rows.stop - first * block)

    @classmethod
    def of(cls, seed: Seed, examples: int) -> Draws:
        """``seed`` itself if it is one, else that of all examples in one block."""
        return seed if isinstance(seed, Draws) else cls(seed, range(examples), examples)

    def _each(self, draw: Callable[[int, Generator], Tensor]) -> Tensor:
        return torch.cat([draw(self._block, generator) for generator in self._generators])[self._rows]

    def normal(self, *shape: int, dtype: torch.dtype) -> Tensor:
        """(rows, *shape) of N(0, 1)."""
        return self._each(lambda size, generator: torch.randn(size, *shape, generator=generator, dtype=dtype))

    def uniform(self, *shape: int, dtype: torch.dtype) -> Tensor:
        """(rows, *shape) in [0, 1)."""
        return self._each(lambda size, generator: torch.rand(size, *shape, generator=generator, dtype=dtype))

    def whole(self, low: int, high: int, *shape: int) -> Tensor:
        """(rows, *shape) of whole numbers from ``low`` to ``high`` - 1."""
        return self._each(lambda size, generator: torch.randint(low, high, (size, *shape), generator=generator))


Seed: TypeAlias = int | Draws
"""Of what an attack draws for its examples: a number, or draws that go on."""
